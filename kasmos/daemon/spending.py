"""What was used, as JSON has it: sums by session, task, run, agent, account or day. Pure.

Sums by agent, account and day hold what forgotten runs have used as well; the others are of what is remembered.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from kasmos.model.codec import format_instant
from kasmos.model.usage import Figure, Tally
from kasmos.model.value import frozen
from kasmos.model.view import AccountView, World, public_task_id
from kasmos.orchestration.accounts import parked_now

GROUPS = ("session", "task", "run", "agent", "account", "day")
"""By what sums can be made."""


@frozen
class FigureWire:
    """A sum. Where parts of it are unknown it is at least so much."""

    value: float | None
    """None where nothing of it is known."""
    source: str
    """The weakest source of its parts: `reported`, `priced`, `estimated`; `unknown` where nothing is known."""
    at_least: bool
    unknown: int
    """How many sessions' parts are unknown."""


@frozen
class TallyWire:
    """What was used by one session, task, run, agent or account, or on one day."""

    key: str
    input_tokens: FigureWire
    """Read afresh."""
    output_tokens: FigureWire
    """Reasoning included."""
    cached_tokens: FigureWire
    cache_write_tokens: FigureWire
    reasoning_tokens: FigureWire
    cost_usd: FigureWire
    sessions: int
    turns: int
    seconds: float


@frozen
class UsageWire:
    """What was used, and by what it is divided."""

    by: str
    since: str | None
    usage: tuple[TallyWire, ...]
    total: TallyWire


@frozen
class AccountWire:
    """An account, and whether anything is started on it."""

    account: str
    parked: bool
    kind: str | None
    message: str
    until_at: str | None
    """None while it is parked: until a person has said so."""
    by_session: str | None


def usage_wire(world: World, by: str, since: str | None = None) -> UsageWire:
    """What was used.

    Args:
        world: the present.
        by: one of `GROUPS`.
        since: the first day that counts, ISO 8601; None for all.
    """
    sums: dict[str, Tally] = {}
    for key, tally in _parts(world, by, since):
        sums[key] = sums.get(key, Tally()) + tally
    total = sum(sums.values(), Tally())
    return UsageWire(by, since, tuple(tally_wire(key, tally) for key, tally in sums.items()), tally_wire("", total))


def _parts(world: World, by: str, since: str | None) -> Iterator[tuple[str, Tally]]:
    first = since or ""
    if by in ("agent", "account", "day"):
        for entry in world.ledger.entries():
            if entry.day >= first:
                yield getattr(entry, by), entry.tally
        return
    for session in world.sessions.values():
        task = public_task_id(session.run_id, session.task_id) if session.run_id and session.task_id else ""
        key = {"session": session.id, "task": task, "run": session.run_id or ""}[by]
        for day, tally in session.shares:
            if day >= first:
                yield key, tally


def tally_wire(key: str, tally: Tally) -> TallyWire:
    """A sum as JSON has it."""
    return TallyWire(
        key,
        _tokens(tally.input),
        _tokens(tally.output),
        _tokens(tally.cached),
        _tokens(tally.cache_write),
        _tokens(tally.reasoning),
        _figure(tally.cost),
        tally.sessions,
        tally.turns,
        round(tally.seconds, 3),
    )


def _figure(figure: Figure) -> FigureWire:
    nothing = figure.unknown > 0 and not figure.amount
    source = "unknown" if nothing else figure.source.value
    return FigureWire(None if nothing else figure.amount, source, figure.unknown > 0, figure.unknown)


def _tokens(figure: Figure) -> FigureWire:
    wire = _figure(figure)
    return wire if wire.value is None else attrs.evolve(wire, value=round(wire.value))


def account_wire(view: AccountView, now: float) -> AccountWire:
    """An account as JSON has it."""
    parked = parked_now(view, now)
    if parked is None:
        return AccountWire(view.name, False, None, "", None, None)
    until = None if parked.until_at is None else format_instant(parked.until_at)
    return AccountWire(view.name, True, parked.kind.value, parked.message, until, parked.by_session or None)


def say_figure(wire: FigureWire, *, money: bool = False) -> str:
    """A sum for people: `at least` where parts are unknown, `~` for a guess."""
    if wire.value is None:
        return "unknown"
    text = f"{wire.value:,.2f}" if money else f"{wire.value:,.0f}"
    text = f"~{text}" if wire.source == "estimated" else text
    return f"at least {text}" if wire.at_least else text


def say_tally(tally: Tally) -> str:
    """What was used, in a line; nothing where nothing counts."""
    if not tally.sessions:
        return ""
    wire = tally_wire("", tally)
    cost = say_figure(wire.cost_usd, money=True)
    priced = {"priced": " (by the table of prices)", "estimated": " (estimated)"}.get(wire.cost_usd.source, "")
    money = f"cost {cost}" if wire.cost_usd.value is None else f"{cost} USD{priced}"
    tokens = f"{say_figure(wire.input_tokens)} tokens in, {say_figure(wire.output_tokens)} out"
    cached = f", {say_figure(wire.cached_tokens)} cached" if wire.cached_tokens.value else ""
    return f"{tokens}{cached}; {money}"
