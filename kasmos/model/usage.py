"""What agents use, and why they fail: tokens, money, and sums of them that never take unknown for zero.

A number is *reported* (the program told what its model's server counted), *priced* (worked out from counted tokens and
the table of prices in the configuration), *estimated* (somebody's guess), or *unknown*.
"""

from __future__ import annotations

import enum

import attrs

from kasmos.model.value import frozen


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


@frozen
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


@frozen
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


# --- sums -------------------------------------------------------------------------------


@frozen
class Figure:
    """A sum, by where its parts come from. With parts that are unknown it says no more than *at least*."""

    reported: float = 0.0
    priced: float = 0.0
    estimated: float = 0.0
    unknown: int = 0
    """How many parts are unknown."""

    @property
    def amount(self) -> float:
        """What is known of it, to a millionth: the least it can be."""
        return round(self.reported + self.priced + self.estimated, 6) + 0.0

    @property
    def source(self) -> UsageSource:
        """The weakest source of what is known; `unknown` where nothing is known of it."""
        weakest = UsageSource.UNKNOWN if self.unknown else UsageSource.REPORTED
        for known, source in (
            (self.reported, UsageSource.REPORTED),
            (self.priced, UsageSource.PRICED),
            (self.estimated, UsageSource.ESTIMATED),
        ):
            weakest = source if round(known, 9) else weakest
        return weakest

    def __add__(self, other: Figure) -> Figure:
        return Figure(
            self.reported + other.reported,
            self.priced + other.priced,
            self.estimated + other.estimated,
            self.unknown + other.unknown,
        )

    def __sub__(self, other: Figure) -> Figure:
        return Figure(
            self.reported - other.reported,
            self.priced - other.priced,
            self.estimated - other.estimated,
            self.unknown - other.unknown,
        )


def figure(value: float | None, source: UsageSource) -> Figure:
    """One number as a sum of one part."""
    if value is None:
        return Figure(unknown=1)
    match source:
        case UsageSource.PRICED:
            return Figure(priced=float(value))
        case UsageSource.REPORTED:
            return Figure(reported=float(value))
        case _:
            # A number of which nobody says where it comes from is no better than a guess.
            return Figure(estimated=float(value))


@frozen
class Tally:
    """What several sessions have used together."""

    input: Figure = Figure()
    """Tokens read afresh: those from the cache are in `cached`, whatever way a program counts them."""
    output: Figure = Figure()
    """Tokens written, reasoning included."""
    cached: Figure = Figure()
    cache_write: Figure = Figure()
    reasoning: Figure = Figure()
    cost: Figure = Figure()
    """USD."""
    sessions: int = 0
    turns: int = 0
    seconds: float = 0.0
    """Of running, without the time that was waited for people."""

    @property
    def tokens(self) -> Figure:
        """Tokens that a model has read afresh or written."""
        return self.input + self.output

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.input + other.input,
            self.output + other.output,
            self.cached + other.cached,
            self.cache_write + other.cache_write,
            self.reasoning + other.reasoning,
            self.cost + other.cost,
            self.sessions + other.sessions,
            self.turns + other.turns,
            self.seconds + other.seconds,
        )

    def __sub__(self, other: Tally) -> Tally:
        return Tally(
            self.input - other.input,
            self.output - other.output,
            self.cached - other.cached,
            self.cache_write - other.cache_write,
            self.reasoning - other.reasoning,
            self.cost - other.cost,
            self.sessions - other.sessions,
            self.turns - other.turns,
            self.seconds - other.seconds,
        )


def tally_of(usage: Usage, *, turns: int = 0, seconds: float = 0.0) -> Tally:
    """What one session has used, as a sum."""
    cached, fresh = usage.cached_tokens, usage.input_tokens
    if fresh is not None and cached is not None and usage.cached_in_input:
        fresh = max(0, fresh - cached)
    # Who says how much was read and nothing of a cache or of reasoning has no such thing.
    told = usage.input_tokens is not None or usage.output_tokens is not None

    def extra(value: int | None) -> Figure:
        return Figure() if value is None and told else figure(value, usage.source)

    return Tally(
        figure(fresh, usage.source),
        figure(usage.output_tokens, usage.source),
        extra(cached),
        extra(usage.cache_write_tokens),
        extra(usage.reasoning_tokens),
        figure(usage.cost_usd, usage.cost_source),
        1,
        turns,
        seconds,
    )


@frozen
class DayTally:
    """What was used on one day by one agent on one account."""

    day: str
    """ISO 8601, in the zone that `[budgets]` names when it was recorded."""
    agent: str
    account: str
    tally: Tally = Tally()


@frozen
class Price:
    """What a model costs: USD for a million tokens. None is unknown."""

    input: float | None = None
    output: float | None = None
    cached: float | None = None
    """Read from the cache; None means: as `input`."""
    cache_write: float | None = None
    """Written to the cache; None means: as `input`."""


def priced(usage: Usage, price: Price | None) -> Usage:
    """The same with its cost worked out, where the program did not tell it and everything for it is known."""
    if usage.cost_usd is not None or price is None or price.input is None or price.output is None:
        return usage
    tally = tally_of(usage)
    if tally.input.unknown or tally.output.unknown:
        return usage
    rates = (
        (tally.input, price.input),
        (tally.output, price.output),
        (tally.cached, price.input if price.cached is None else price.cached),
        (tally.cache_write, price.input if price.cache_write is None else price.cache_write),
    )
    cost = sum(part.amount * rate for part, rate in rates) / 1_000_000
    counted = usage.source is UsageSource.REPORTED
    source = UsageSource.PRICED if counted else UsageSource.ESTIMATED
    return attrs.evolve(usage, cost_usd=cost, cost_source=source)
