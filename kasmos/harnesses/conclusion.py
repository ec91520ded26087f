"""What a transcript comes to: how it ended, why, what it cost, and how it can be gone on with."""

from __future__ import annotations

import enum
from typing import Any

import attrs

from kasmos.model.codec import format_instant
from kasmos.model.task import Outcome


class FailureKind(enum.StrEnum):
    """Why an agent did not succeed. Stable words, for programs and for policies."""

    AUTH = "auth"
    """It is not logged in, or its key is refused."""
    QUOTA = "quota"
    """What the account may use is used up, mostly until a reset."""
    RATE_LIMIT = "rate_limit"
    """Too much at once; some seconds or minutes later it works again."""
    OVERLOADED = "overloaded"
    """The model's server cannot serve anybody at the moment."""
    CONTEXT_TOO_LONG = "context_too_long"
    MAX_TURNS = "max_turns"
    BUDGET = "budget"
    """It has spent what it was given."""
    REFUSED = "refused"
    """The model, or its provider's policy, declines the request."""
    TOOL_DENIED = "tool_denied"
    """A tool was not allowed."""
    NETWORK = "network"
    CRASH = "crash"
    """The program broke."""
    KILLED = "killed"
    """A signal ended it."""
    TIMED_OUT = "timed_out"
    UNKNOWN = "unknown"


class Shortfall(enum.StrEnum):
    """What can be missing although the program exited 0. A profile's `accept` names those that are no failure."""

    NO_RESULT = "no_result"
    """The program exited 0 and never said that it is done."""
    TOOL_DENIED = "tool_denied"
    """It is done, and a tool it wanted to use was refused."""
    EMPTY_ANSWER = "empty_answer"
    """It is done and said nothing."""
    CUT_OFF = "cut_off"
    """It is done, and its answer broke off at the model's limit."""


@attrs.frozen
class Failure:
    """Why there is no success."""

    kind: FailureKind
    message: str
    """The program's own words, where it had any."""
    shortfall: Shortfall | None = None
    """What is missing, where the program itself thinks that all is well."""
    retry_after: float | None = None
    """Seconds, where the program or its server told them."""
    reset_at: float | None = None
    """Wall clock, where the program or its server told it."""
    status: int | None = None
    """HTTP status of the model's server, where it is known."""


class UsageSource(enum.StrEnum):
    """Where numbers come from."""

    REPORTED = "reported"
    """The program told what the model's server counted."""
    PRICED = "priced"
    """Worked out from counted tokens and a table of prices."""
    ESTIMATED = "estimated"
    """Somebody's guess, the program's own included."""
    UNKNOWN = "unknown"


@attrs.frozen
class Usage:
    """Tokens and money. None is unknown, which is never zero."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    """Reasoning included."""
    cached_tokens: int | None = None
    """Read from the server's cache."""
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    source: UsageSource = UsageSource.UNKNOWN
    """Of the tokens."""
    cost_source: UsageSource = UsageSource.UNKNOWN
    scope: str = "process"
    """`process`: what this process used. `conversation`: the total of the whole conversation, so that
    what earlier processes of it used has to be taken off."""
    cached_in_input: bool | None = None
    """Whether `input_tokens` counts the cached ones too: OpenAI and Gemini count so, Anthropic does not."""


@attrs.frozen
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
