"""What agents use, and why they fail: tokens, money, and sums of them that never take unknown for zero.

A number is *reported* (the program told what its model's server counted), *priced* (worked out from counted tokens and
the table of prices in the configuration), *estimated* (somebody's guess), or *unknown*.
"""

from __future__ import annotations

import enum

import attrs


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
