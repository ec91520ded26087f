"""The configuration as values: what a file, variables and flags come to."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import attrs

from kasmos.model.budget import Budgets
from kasmos.model.plan import OnFailure, RunSettings
from kasmos.model.profile import AgentProfile
from kasmos.model.session import CgroupUse
from kasmos.model.usage import Price
from kasmos.model.value import frozen


@frozen
class Orchestration:
    """How runs go, where neither the plan nor the command line says otherwise."""

    max_concurrent: int = 4
    on_failure: OnFailure = OnFailure.STOP
    auto_advance_waves: bool = True
    default_agent: str | None = None
    """The agent of tasks that name none. Where it is not said, it is the one of the phase `implementing`."""
    task_timeout: float | None = None
    """Seconds; None is no limit."""
    retries: int = 0
    max_queued: int = 1000
    """Tasks handed in by themselves that may wait."""
    cgroups: CgroupUse = CgroupUse.DELEGATED


@frozen
class Logs:
    """What is kept of what programs write."""

    max_bytes: int | None = None
    """On disk, for each session; None is all of it."""
    buffer_bytes: int = 65_536
    """In memory, for each session."""


class OnStop(enum.StrEnum):
    """What a daemon that stops does with what runs."""

    LEAVE = "leave"
    STOP = "stop"


class AuthMode(enum.StrEnum):
    """When the HTTP API asks for a token on TCP; on the Unix socket it never does."""

    AUTO = "auto"
    BEARER = "bearer"
    NONE = "none"


class LogFormat(enum.StrEnum):
    """How the daemon's own log is written."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class LogLevel(enum.StrEnum):
    """What the daemon's own log has."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@frozen
class Daemon:
    """How the daemon is reached, what it takes on, and how it leaves."""

    listen: tuple[str, ...] = ()
    """`HOST:PORT` each; `kasmos.config.addresses.split_address` takes one apart."""
    socket: str | None = None
    metrics: str | None = None
    workspace_root: str | None = None
    """As it was written: relative to the project."""
    max_concurrent: int | None = None
    task_timeout: float | None = None
    on_stop: OnStop = OnStop.LEAVE
    drain_timeout: float = 300.0
    http_auth_mode: AuthMode = AuthMode.AUTO
    http_admin_token: str | None = attrs.field(default=None, repr=False)
    http_admin_token_file: str | None = None
    http_readonly_token: str | None = attrs.field(default=None, repr=False)
    http_readonly_token_file: str | None = None
    http_hosts: tuple[str, ...] = ()
    http_origins: tuple[str, ...] = ()
    log_format: LogFormat = LogFormat.AUTO
    log_level: LogLevel = LogLevel.INFO


@frozen
class Retention:
    """How long what is over is kept."""

    max_age: float = 30 * 86_400.0
    """Seconds since a run's end."""
    max_runs: int = 10_000
    """Ended ones, the newest."""


@frozen
class Config:
    """The whole configuration, valid in itself."""

    agents: Mapping[str, AgentProfile]
    """Every profile by its name, disabled ones too. `shell` is always among them."""
    orchestration: Orchestration = Orchestration()
    logs: Logs = Logs()
    daemon: Daemon = Daemon()
    retention: Retention = Retention()
    budgets: Budgets = Budgets()
    prices: Mapping[str, Price] = attrs.field(factory=dict)
    """By model."""
    phases: Mapping[str, str] = attrs.field(factory=dict)
    """Phase to agent name."""
    state_root: str | None = None
    """As it was written: relative to the project, or with `~`."""

    def run_settings(self) -> RunSettings:
        """What governs a run that says nothing itself."""
        said = self.orchestration
        return RunSettings(
            max_concurrent=said.max_concurrent,
            on_failure=said.on_failure,
            auto_advance_waves=said.auto_advance_waves,
            default_agent=said.default_agent,
            task_timeout=said.task_timeout,
            retries=said.retries,
        )

    def for_daemon(self) -> Config:
        """The same where `[daemon]` says otherwise than `[orchestration]`."""
        said = self.daemon
        changes: dict[str, Any] = {}
        if said.max_concurrent is not None:
            changes["max_concurrent"] = said.max_concurrent
        if said.task_timeout is not None:
            changes["task_timeout"] = said.task_timeout
        return attrs.evolve(self, orchestration=attrs.evolve(self.orchestration, **changes))


def profile_digest(profile: AgentProfile) -> str:
    """A short fingerprint of a profile's content, the same in every process.

    The values of `env` are no part of it, because they may be secrets.
    """
    # By identity: profiles are frozen, hold dicts, and many sessions are started of each.
    known = _DIGESTS.get(id(profile))
    if known is not None and known[0] is profile:
        return known[1]
    if len(_DIGESTS) >= _DIGESTS_KEPT:
        _DIGESTS.clear()
    digest = _digest(profile)
    _DIGESTS[id(profile)] = (profile, digest)
    return digest


_DIGESTS: dict[int, tuple[AgentProfile, str]] = {}
_DIGESTS_KEPT = 64


def _digest(profile: AgentProfile) -> str:
    import hashlib

    from kasmos.model import codec

    # Sorted, because the order in which variables and limits were written means nothing.
    limits = attrs.evolve(profile.limits, rlimits=dict(sorted(profile.limits.rlimits.items())))
    plain = attrs.evolve(profile, env=dict.fromkeys(sorted(profile.env), ""), limits=limits)
    return hashlib.sha256(codec.encode(plain)).hexdigest()[:16]
