"""What all sessions are made of, apart from the plan."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import attrs

from kasmos.model.profile import AgentProfile, ExecutionMode
from kasmos.model.value import frozen
from kasmos.orchestration.treasury import Treasury
from kasmos.sessions.protocol import Backend

if TYPE_CHECKING:
    from kasmos.screens import Ruleset


def _rules_for(program: tuple[str, ...]) -> Ruleset:
    from kasmos.screens import rules_for

    return rules_for(program)


@frozen
class Kitchen:
    """What sessions are made of, apart from the plan: profiles, environment, backends."""

    profiles: Callable[[], Mapping[str, AgentProfile]]
    """The present configuration: a mended profile counts from the next attempt on."""
    environ: Mapping[str, str] = attrs.field(repr=False)
    """The supervisor's own environment."""
    backends: Mapping[ExecutionMode, Backend]
    new_suffix: Callable[[], str]
    """Random letters that make a session id unique on this machine."""
    new_conversation: Callable[[], str] = lambda: str(uuid.uuid4())
    """An id for a program's new conversation."""
    buffer_bytes: int = 65_536
    max_log_bytes: int | None = None
    traced: bool = False
    """Whether programs are told their place in a trace."""
    screen_rules: Callable[[tuple[str, ...]], Ruleset] = _rules_for
    """The screen rules of the program that a command line runs. Blocks on the disk."""
    context_path: Callable[[str], str] = str
    """Where the session with this id finds its task's context."""
    treasury: Treasury = attrs.field(factory=Treasury)
    """Whether a session may be started, and what it may spend."""
