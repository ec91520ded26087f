"""Which changes of a configuration hold at once, and which only after a restart. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from kasmos.config.schema import Config
from kasmos.model.value import frozen

_FIXED_DAEMON = (
    "listen",
    "socket",
    "metrics",
    "workspace_root",
    "http_auth_mode",
    "http_admin_token",
    "http_admin_token_file",
    "http_readonly_token",
    "http_readonly_token_file",
    "http_hosts",
    "http_origins",
    "log_format",
    "log_level",
)
"""Keys of `[daemon]` that are looked at once, when it starts. (Token *files* are read again when they change.)"""


@frozen
class Change:
    """A configuration that takes another's place."""

    config: Config
    """What is in force from now on."""
    applied: tuple[str, ...]
    """Keys with a new value."""
    restart: tuple[str, ...]
    """Keys that keep the old one until the daemon is started again."""


def decide_change(old: Config, new: Config) -> Change:
    """Take what can change while sessions run; keep the rest as it was."""
    fixed = {name: getattr(old.daemon, name) for name in _FIXED_DAEMON}
    kept = attrs.evolve(
        new,
        state_root=old.state_root,
        logs=old.logs,
        # Where sessions get control groups is settled when their places are opened.
        orchestration=attrs.evolve(new.orchestration, cgroups=old.orchestration.cgroups),
        daemon=attrs.evolve(new.daemon, **fixed),
    )
    return Change(kept, applied=tuple(_differences(old, kept)), restart=tuple(_differences(kept, new)))


def _differences(one: Config, other: Config) -> list[str]:
    found = []
    for field in attrs.fields(Config):
        before, after = getattr(one, field.name), getattr(other, field.name)
        if before == after:
            continue
        names = _keys(before, after)
        found += [f"{field.name}.{name}" for name in names] if names else [field.name]
    return found


def _keys(before: object, after: object) -> list[str]:
    """The names of what differs in two tables; of agents and phases only which of them."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    kind = type(before)
    if attrs.has(kind) and kind is type(after):
        names = (field.name for field in attrs.fields(kind))
        return [name for name in names if getattr(before, name) != getattr(after, name)]
    return []
