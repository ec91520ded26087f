"""What a transcript comes to: how it ended, why, what it cost, and how it can be gone on with."""

from __future__ import annotations

from typing import Any

import attrs

from kasmos.model.codec import format_instant
from kasmos.model.task import Outcome
from kasmos.model.usage import Failure, FailureKind, Shortfall, Usage, UsageSource
from kasmos.model.value import frozen

__all__ = [
    "MAX_ANSWER",
    "Conclusion",
    "Failure",
    "FailureKind",
    "Shortfall",
    "Usage",
    "UsageSource",
    "render_conclusion",
]


@frozen
class Conclusion:
    """The end of a transcript, judged."""

    outcome: Outcome
    failure: Failure | None = None
    usage: Usage = Usage()
    conversation: str | None = None
    """The id by which the program resumes this conversation."""
    model: str | None = None
    version: str | None = None
    """Of the program, where it tells it."""
    answer: str = ""
    """The last thing the agent said, at most `MAX_ANSWER` characters of it."""
    denied: tuple[str, ...] = ()
    """Tools that were refused."""


MAX_ANSWER = 65_536
"""Characters that are kept of an answer."""


def render_conclusion(conclusion: Conclusion) -> dict[str, Any]:
    """The conclusion as programs read it: instants in RFC 3339, None where nothing is known."""
    failure = conclusion.failure
    shown = attrs.asdict(conclusion, recurse=False)
    shown["usage"] = attrs.asdict(conclusion.usage)
    shown["denied"] = list(conclusion.denied)
    if failure is not None:
        shown["failure"] = attrs.asdict(failure)
        shown["failure"]["reset_at"] = None if failure.reset_at is None else format_instant(failure.reset_at)
    return shown
