"""The configuration as values: what a file, variables and flags come to."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from kasmos.model.plan import OnFailure, RunSettings
from kasmos.model.profile import AgentProfile


@attrs.frozen
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


@attrs.frozen
class Logs:
    """What is kept of what programs write."""

    max_bytes: int | None = None
    """On disk, for each session; None is all of it."""
    buffer_bytes: int = 65_536
    """In memory, for each session."""


@attrs.frozen
class Config:
    """The whole configuration, valid in itself."""

    agents: Mapping[str, AgentProfile]
    """Every profile by its name, disabled ones too. `shell` is always among them."""
    orchestration: Orchestration = Orchestration()
    logs: Logs = Logs()
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


def profile_digest(profile: AgentProfile) -> str:
    """A short fingerprint of a profile's content, the same in every process.

    The values of `env` are no part of it, because they may be secrets.
    """
    import hashlib

    from kasmos.model import codec

    # Sorted, because the order in which variables and limits were written means nothing.
    limits = attrs.evolve(profile.limits, rlimits=dict(sorted(profile.limits.rlimits.items())))
    plain = attrs.evolve(profile, env=dict.fromkeys(sorted(profile.env), ""), limits=limits)
    return hashlib.sha256(codec.encode(plain)).hexdigest()[:16]
