"""What a journal forgets: which runs are over for long enough, and which rows that are. Pure.

Nothing that is unfinished, that may still run, or that something unfinished asks about is ever forgotten. Numbers are
not given anew: where rows were, one row says from where to where.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import attrs

from kasmos.model.usage import DayTally, Tally
from kasmos.model.value import frozen
from kasmos.model.view import World, find_task_view

BATCH = 200
"""How many runs are forgotten in one transaction: whoever wants to record something waits no longer than that takes."""


@frozen
class Forgotten:
    """What is to be forgotten together."""

    run_ids: tuple[str, ...] = ()
    session_ids: tuple[str, ...] = ()
    """Sessions that belong to no run that is known."""
    before: float = 0.0
    """Events that concern no run and no session are forgotten when they are older: a wall-clock instant."""
    keep_supervisors_from: int = 0
    """But starts and stops of supervisors are kept from this number on."""

    def __bool__(self) -> bool:
        return bool(self.run_ids or self.session_ids)


def decide_forgotten(world: World, *, now: float, max_age: float, max_runs: int) -> Forgotten:
    """Say what is to be forgotten, the oldest first.

    Args:
        world: the present.
        now: the wall clock; one that was set back keeps things longer, never forgets them earlier.
        max_age: seconds since its end after which a run is forgotten.
        max_runs: how many runs that have ended are kept at most, the newest.
    """
    busy = {session.run_id for session in world.sessions.values() if session.state.live}
    asked = _asked_about(world)
    over = [run for run in world.runs.values() if not run.unfinished and run.id not in busy and run.id not in asked]
    over.sort(key=lambda run: (run.ended_at or 0.0, run.id))
    surplus = max(0, len(over) - max_runs)
    runs = [run.id for index, run in enumerate(over) if index < surplus or now - (run.ended_at or now) >= max_age]
    sessions = [
        session.id
        for session in world.sessions.values()
        if session.run_id not in world.runs
        and not session.state.live
        and session.ended_at is not None
        and now - session.ended_at >= max_age
    ]
    return Forgotten(tuple(runs), tuple(sessions), now - max_age, world.boot_seq)


def _asked_about(world: World) -> set[str]:
    """Runs whose tasks an unfinished run needs."""
    needs = (need for run in world.runs.values() if run.unfinished for need in run.needs)
    return {task.run_id for need in needs if (task := find_task_view(world.runs, need)) is not None}


def in_batches(forgotten: Forgotten, size: int = BATCH) -> Iterable[Forgotten]:
    """The same in pieces, none of which keeps the journal busy for long."""
    for start in range(0, max(len(forgotten.run_ids), 1), size):
        sessions = forgotten.session_ids if start == 0 else ()
        yield attrs.evolve(forgotten, run_ids=forgotten.run_ids[start : start + size], session_ids=sessions)


def without(forgotten: Forgotten, kept: Collection[str], world: World) -> Forgotten:
    """The same but for sessions that could not be removed, and the runs they belong to."""
    runs = {session.run_id for session_id in kept if (session := world.sessions.get(session_id)) is not None}
    return attrs.evolve(
        forgotten,
        run_ids=tuple(run_id for run_id in forgotten.run_ids if run_id not in runs),
        session_ids=tuple(session_id for session_id in forgotten.session_ids if session_id not in kept),
    )


def sessions_of(forgotten: Forgotten, world: World) -> list[str]:
    """Every session that is forgotten with them."""
    runs = set(forgotten.run_ids)
    return [*forgotten.session_ids, *(one.id for one in world.sessions.values() if one.run_id in runs)]


def decide_carried(forgotten: Forgotten, world: World) -> tuple[DayTally, ...]:
    """What the sessions that are forgotten have used: their days keep it."""
    entries = []
    for session_id in sessions_of(forgotten, world):
        session = world.sessions.get(session_id)
        if session is not None:
            entries += [DayTally(day, session.profile, session.account, tally) for day, tally in session.shares]
    return merged(entries)


def merged(entries: Iterable[DayTally]) -> tuple[DayTally, ...]:
    """One sum for each day, agent and account."""
    sums: dict[tuple[str, str, str], Tally] = {}
    for entry in entries:
        key = (entry.day, entry.agent, entry.account)
        sums[key] = sums.get(key, Tally()) + entry.tally
    return tuple(DayTally(*key, tally) for key, tally in sorted(sums.items(), key=lambda item: item[0]))


# --- rows -------------------------------------------------------------------------------


@frozen
class Mark:
    """A row that is to be forgotten, or a gap that is there."""

    seq: int
    at: float
    mono: float
    link: int
    first: int | None = None
    """Where the gap begins, if it is one."""
    body: str = ""
    """What it says, if it is one."""


@frozen
class Gap:
    """Rows in whose place one will be."""

    first: int
    last: int
    at: float
    """Instants and link of the last row."""
    mono: float
    link: int
    rows: int
    """How many rows are forgotten."""
    bodies: tuple[str, ...] = ()
    """What the gaps say that it joins."""


def decide_gaps(marks: Iterable[Mark]) -> list[Gap]:
    """Join what lies side by side; gaps that stay as they are are left out.

    Args:
        marks: in order.
    """
    gaps: list[Gap] = []
    for mark in marks:
        first = mark.seq if mark.first is None else mark.first
        rows = 1 if mark.first is None else 0
        bodies = () if mark.first is None else (mark.body,)
        if gaps and gaps[-1].last == first - 1:
            joined = gaps.pop()
            first, rows, bodies = joined.first, joined.rows + rows, (*joined.bodies, *bodies)
        gaps.append(Gap(first, mark.seq, mark.at, mark.mono, mark.link, rows, bodies))
    return [gap for gap in gaps if gap.rows]
