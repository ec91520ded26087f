"""The part of the fold that is about usage and accounts. Pure; called by `kasmos.store.fold` only.

Snapshots replace each other: what a session is told to have used once more, after a `kill -9` and adoption, counts
once. What is new of a snapshot counts on the day it was recorded.
"""

from __future__ import annotations

from typing import Any

import attrs

from kasmos.model import event as ev
from kasmos.model.event import Record
from kasmos.model.evolve import evolve
from kasmos.model.usage import Tally, Usage, tally_of
from kasmos.model.view import AccountView, Conclusion, Parked, SessionView, UsageLedger, World

CONVERSATIONS = 10_000
"""How many conversations' totals are remembered, the newest."""


_NOTHING = Tally()


def apply_used(world: World, session: SessionView, event: ev.SessionUsed) -> SessionView:
    """Advance the sums by what a session has used; the session as it is then."""
    ledger = world.ledger
    base = session.usage_base
    if event.conversation and event.usage.scope == "conversation":
        holder, total = ledger.conversations.pop(event.conversation, (session.id, Usage()))
        if session.usage is None and holder != session.id:
            base = total
        ledger.conversations[event.conversation] = (session.id, event.usage)
        while len(ledger.conversations) > CONVERSATIONS:
            del ledger.conversations[next(iter(ledger.conversations))]
    own = event.usage if base is None else _without(event.usage, base)
    whole = tally_of(own, turns=event.turns, seconds=event.seconds)
    shares = _share_out(session, event.day, whole)
    for day, tally in session.shares:
        add_to_day(ledger, day, session.profile, session.account, _NOTHING - tally)
    for day, tally in shares:
        add_to_day(ledger, day, session.profile, session.account, tally)
    if session.run_id is not None:
        spent = ledger.runs.get(session.run_id, _NOTHING)
        # Sums are long: what is nothing is not taken off.
        ledger.runs[session.run_id] = (spent - session.tally if session.shares else spent) + whole
    conversation = event.conversation or session.conversation
    return evolve(session, usage=event.usage, usage_base=base, shares=shares, conversation=conversation)


def add_to_day(ledger: UsageLedger, day: str, agent: str, account: str, tally: Tally) -> None:
    """Add to the sum of a day."""
    sums = ledger.days.setdefault(day, {})
    sums[agent, account] = sums.get((agent, account), _NOTHING) + tally


def _share_out(session: SessionView, day: str, whole: Tally) -> tuple[tuple[str, Tally], ...]:
    """What counts on which day: earlier days keep theirs, the newest has the rest, and all that is unknown."""
    if not session.shares or session.shares[-1][0] == day:
        earlier = session.shares[:-1]
    else:
        earlier = (*session.shares[:-1], (session.shares[-1][0], _known(session.shares[-1][1])))
    rest = whole - sum((tally for _, tally in earlier), _NOTHING) if earlier else whole
    return (*earlier, (day, rest))


def _known(tally: Tally) -> Tally:
    changes = {
        name: attrs.evolve(getattr(tally, name), unknown=0)
        for name in ("input", "output", "cached", "cache_write", "reasoning", "cost")
    }
    return attrs.evolve(tally, **changes)


_NUMBERS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "cost_usd")


def _without(usage: Usage, base: Usage) -> Usage:
    """What was used since: unknown where either is."""
    rest: dict[str, Any] = {}
    for name in _NUMBERS:
        now, before = getattr(usage, name), getattr(base, name)
        rest[name] = None if now is None or before is None else max(0, now - before)
    return attrs.evolve(usage, **rest)


def apply_concluded(world: World, session: SessionView, event: ev.SessionConcluded) -> SessionView:
    """Note what a program said of its end; a success tells that its account is well."""
    account = world.accounts.get(session.account)
    if account is not None and event.failure is None:
        world.accounts[account.name] = attrs.evolve(account, streak=0)
    conclusion = Conclusion(event.outcome, event.failure, event.conversation, event.model)
    return attrs.evolve(session, conclusion=conclusion, conversation=event.conversation or session.conversation)


def apply_account(world: World, event: ev.AccountParked | ev.AccountReleased, record: Record) -> None:
    """Advance the accounts."""
    view = world.accounts.get(event.account, AccountView(event.account))
    if isinstance(event, ev.AccountReleased):
        world.accounts[event.account] = attrs.evolve(view, parked=None, streak=0)
        return
    old = view.parked
    stands = old is not None and (old.until_at is None or old.until_at > record.at)
    if old is not None and stands and _holds_longer(old.until_at, event.until_at):
        return
    parked = Parked(event.kind, event.message, record.at, event.until_at, event.by_session)
    # Siblings that run into the same wall are one knock at it.
    streak = view.streak if stands else view.streak + 1
    world.accounts[event.account] = attrs.evolve(view, parked=parked, streak=streak)


def _holds_longer(old: float | None, new: float | None) -> bool:
    return old is None or (new is not None and old >= new)


def note_start(world: World, event: ev.SessionStarting, record: Record) -> None:
    """Note when something was started on an account."""
    if event.account:
        view = world.accounts.get(event.account, AccountView(event.account))
        world.accounts[event.account] = evolve(view, started_mono=record.mono, boot_id=event.boot_id)
