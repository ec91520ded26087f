"""What may still be spent: budgets against the ledger. Pure.

A session spends from every budget that it is in. Only what is known counts: where the cost is unknown, a budget of
money limits nothing, and tokens, turns or time do. What a live session may still spend is set aside where its task has
a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from kasmos.model.budget import Budgets, Limit
from kasmos.model.usage import Tally
from kasmos.model.value import frozen
from kasmos.model.view import SessionView, TaskView, World

_UNITS = ("money", "tokens", "turns", "time")


@frozen
class Purse:
    """One budget, and what has become of it."""

    name: str
    limit: Limit
    spent: Tally
    reserved: Mapping[str, float] = attrs.field(factory=dict)
    """By unit, what live sessions in it may still spend."""
    of_day: bool = False
    """Whether it begins anew at midnight."""


@frozen
class Place:
    """Where a session spends: what its budgets are found by."""

    run_id: str = ""
    task_id: str = ""
    agent: str = ""
    account: str = ""


@frozen
class Shortage:
    """Why nothing may be spent."""

    reason: str
    waits: bool = False
    """Nothing is spent yet: live sessions may spend it, or leave it."""
    of_day: bool = False


def spent_in(tally: Tally, unit: str) -> float:
    """How much that is in a unit, as far as it is known."""
    match unit:
        case "money":
            return tally.cost.amount
        case "tokens":
            return tally.tokens.amount
        case "turns":
            return float(tally.turns)
        case _:
            return tally.seconds


def purses(budgets: Budgets, world: World, place: Place, day: str, starting: Sequence[Place] = ()) -> Iterator[Purse]:
    """The budgets that somebody at this place spends from, the widest first.

    Args:
        starting: places whose sessions are about to be recorded.
    """
    if budgets.daily is not None:
        live = _reserved(budgets, world, Place(), starting)
        yield Purse("the daily budget", Limit(money=budgets.daily), world.ledger.on(day), live, of_day=True)
    for what, name, limit in (
        ("account", place.account, budgets.accounts.get(place.account)),
        ("agent", place.agent, budgets.agents.get(place.agent)),
    ):
        if limit:
            where = Place(**{what: name})
            spent = world.ledger.on(day, **{what: name})
            yield Purse(
                f"the budget of {what} {name}", limit, spent, _reserved(budgets, world, where, starting), of_day=True
            )
    if budgets.per_run and place.run_id:
        spent = world.ledger.runs.get(place.run_id, Tally())
        live = _reserved(budgets, world, Place(run_id=place.run_id), starting)
        yield Purse("the budget of its run", budgets.per_run, spent, live)
    task = find_task(world, place)
    if budgets.per_task and task is not None:
        yield Purse("the budget of the task", budgets.per_task, task_tally(world, task))


def task_tally(world: World, task: TaskView) -> Tally:
    """What a task has used, all its sessions together."""
    sessions = (world.sessions.get(name) for name in task.sessions)
    return sum((one.tally for one in sessions if one is not None), Tally())


def find_task(world: World, place: Place) -> TaskView | None:
    """The task at a place."""
    run = world.runs.get(place.run_id)
    return run.tasks.get(place.task_id) if run is not None else None


def place_of(session: SessionView) -> Place:
    """Where a session spends."""
    return Place(session.run_id or "", session.task_id or "", session.profile, session.account)


def _reserved(budgets: Budgets, world: World, where: Place, starting: Sequence[Place]) -> dict[str, float]:
    """What live sessions at a place may still spend, where a limit of their task says how much that is."""
    if not budgets.per_task:
        return {}
    reserved: dict[str, float] = {}
    for here in (*map(place_of, live_sessions(world)), *starting):
        if any(wanted and wanted != getattr(here, name) for name, wanted in attrs.asdict(where).items()):
            continue
        task = find_task(world, here)
        spent = task_tally(world, task) if task is not None else Tally()
        for unit in _UNITS:
            limit = getattr(budgets.per_task, unit)
            if limit is not None:
                reserved[unit] = reserved.get(unit, 0.0) + max(0.0, limit - spent_in(spent, unit))
    return reserved


def live_sessions(world: World) -> list[SessionView]:
    """Sessions of agents that may still spend."""
    return [one for one in world.sessions.values() if one.state.live and one.check is None and one.account]


def find_shortage(purses: Iterable[Purse], *, own: Limit) -> Shortage | None:
    """Why a new session may not be started; None if it may be.

    Args:
        purses: the budgets it would spend from.
        own: what it may spend itself at most.
    """
    waits: Shortage | None = None
    for purse in purses:
        for unit in _UNITS:
            limit = getattr(purse.limit, unit)
            if limit is None:
                continue
            spent, reserved = spent_in(purse.spent, unit), purse.reserved.get(unit, 0.0)
            if spent >= limit:
                return Shortage(f"{purse.name} is spent: {_show(spent, limit, unit)}", of_day=purse.of_day)
            if reserved and spent + reserved + (getattr(own, unit) or 0.0) > limit:
                held = f"{purse.name} is set aside for what runs: {_show(spent + reserved, limit, unit)}"
                waits = waits or Shortage(held, waits=True, of_day=purse.of_day)
    return waits


def over_budget(purses: Iterable[Purse]) -> str:
    """Why a session that runs may spend no more; nothing if it may."""
    for purse in purses:
        for unit in _UNITS:
            limit = getattr(purse.limit, unit)
            spent = spent_in(purse.spent, unit)
            if limit is not None and spent >= limit:
                return f"{purse.name} is spent: {_show(spent, limit, unit)}"
    return ""


def allowance(purses: Iterable[Purse]) -> Limit:
    """What is left of the smallest of these budgets, in each unit: what a new session may spend at most."""
    least: dict[str, float] = {}
    for purse in purses:
        for unit in _UNITS:
            limit = getattr(purse.limit, unit)
            if limit is not None:
                left = max(0.0, limit - spent_in(purse.spent, unit))
                least[unit] = min(left, least.get(unit, left))
    return Limit(
        money=least.get("money"),
        tokens=int(least["tokens"]) if "tokens" in least else None,
        turns=int(least["turns"]) if "turns" in least else None,
        time=least.get("time"),
    )


def _show(spent: float, limit: float, unit: str) -> str:
    match unit:
        case "money":
            return f"{spent:.2f} of {limit:.2f} USD"
        case "time":
            return f"{spent:.0f} of {limit:.0f} s"
        case _:
            return f"{spent:,.0f} of {limit:,.0f} {unit}"
