"""What a journal forgets, and that the rest of it proves itself as before."""

from __future__ import annotations

from pathlib import Path

import apsw
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.exceptions import JournalCorruptError, StoreError
from kasmos.model import event as ev
from kasmos.model.clock import Clock
from kasmos.model.plan import Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import ExitStatus, SessionKind
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.view import World
from kasmos.store.chain import ChainError, bridge, link_of, seed_of, verified
from kasmos.store.journal import Journal, open_journal, read_records, read_world
from kasmos.store.pruning import Forgotten, Gap, Mark, decide_forgotten, decide_gaps, in_batches

DAY = 86_400.0
NOW = 1e9


def run_events(run_id: str, *, ended: bool = True) -> list[ev.Event]:
    """A run of one task with one session."""
    plan = Plan(waves=(Wave(1, (PlanTask(id="1", number=1, wave=1, title="t", body=""),)),))
    session = f"{run_id}-1a1-x"
    events: list[ev.Event] = [
        ev.RunStarted(run_id, plan, "/p", f"/p{run_id}", "d", RunSettings(), "/"),
        ev.SessionStarting(session, "n", SessionKind.AGENT, ExecutionMode.HEADLESS, "boot", run_id=run_id, task_id="1"),
        ev.SessionStarted(session, 7),
    ]
    if ended:
        events += [
            ev.SessionEnded(session, ExitStatus(code=0)),
            ev.TaskEnded(run_id, "1", Outcome.SUCCEEDED, Cause(CauseKind.DONE, "done")),
            ev.RunEnded(run_id, Outcome.SUCCEEDED),
        ]
    return events


@attrs.define
class Desk:
    """A journal on a real file, with a clock that is set by hand."""

    db: Path
    now: float = NOW

    def open(self):  # type: ignore[no-untyped-def]  # the context manager's type has no public name
        return open_journal(self.db, clock=Clock(lambda: self.now, lambda: self.now), announce=lambda text: None)

    async def fill(self, journal: Journal, *runs: str) -> None:
        for run_id in runs:
            # Of two runs side by side, so that their events lie between each other.
            for event in run_events(run_id):
                await journal.append(event)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "state.db")


def forgetting(*runs: str) -> Forgotten:
    return Forgotten(tuple(runs))


async def test_forgotten_runs_are_gone_and_the_rest_stands(desk: Desk) -> None:
    """What is forgotten is gone from world and file alike; numbers stay, and one event tells of each gap."""
    async with desk.open() as journal:
        await journal.append(ev.SupervisorStarted(1, "boot", "v"))
        await desk.fill(journal, "a", "b", "c")
        assert await journal.prune(lambda world: forgetting("a")) == 6
        assert set(journal.world.runs) == {"b", "c"}
        assert set(journal.world.sessions) == {"b-1a1-x", "c-1a1-x"}
        assert read_world(desk.db) == journal.world
        (record,) = await journal.append(ev.SupervisorStopped("end"))
        assert record.seq == 20
    records = read_records(desk.db)
    assert [record.seq for record in records] == [1, 7, *range(8, 21)]
    gap = records[1].event
    assert isinstance(gap, ev.EventsPruned)
    assert (gap.first, records[1].seq) == (2, 7)
    async with desk.open() as journal:
        assert journal.world == read_world(desk.db)
        assert set(journal.world.runs) == {"b", "c"}


async def test_gaps_side_by_side_become_one(desk: Desk) -> None:
    """However often something is forgotten, one row is left of what lies side by side, also at the very beginning."""
    async with desk.open() as journal:
        await desk.fill(journal, "a", "b", "c", "d")
        await journal.prune(lambda world: forgetting("b"))
        await journal.prune(lambda world: forgetting("c"))
        await journal.prune(lambda world: forgetting("a"))
        assert await journal.prune(lambda world: Forgotten()) == 0
    records = read_records(desk.db)
    assert [record.seq for record in records] == [18, *range(19, 25)]
    assert read_world(desk.db).runs.keys() == {"d"}


async def test_a_wrong_gap_is_damage(desk: Desk) -> None:
    """A gap that was not made by pruning, and one that was changed, are found; what is before them is salvaged."""
    async with desk.open() as journal:
        await desk.fill(journal, "a", "b", "c")
        await journal.prune(lambda world: forgetting("b"))
    connection = apsw.Connection(str(desk.db))
    connection.execute("""UPDATE events SET body = json_set(body, '$.first', 8) WHERE kind = 'events_pruned'""")
    connection.execute("DELETE FROM events WHERE seq = 7")
    connection.close()
    with pytest.raises(JournalCorruptError, match=r"after event 6|follows event 6"):
        read_world(desk.db)
    async with desk.open() as journal:
        assert journal.world.runs.keys() == {"a"}


async def test_salvage_keeps_gaps(desk: Desk) -> None:
    """Of a damaged journal with gaps, everything before the damage is salvaged, gaps and all."""
    async with desk.open() as journal:
        await desk.fill(journal, "a", "b", "c")
        await journal.prune(lambda world: forgetting("a"))
    connection = apsw.Connection(str(desk.db))
    connection.execute("UPDATE events SET body = 'nonsense' WHERE seq = 15")
    connection.close()
    async with desk.open() as journal:
        assert journal.world.runs.keys() == {"b", "c"}
        assert journal.world.seq == 14
    assert apsw.Connection(str(desk.db)).pragma("user_version") == 2


async def test_a_prune_that_fails_changes_nothing(desk: Desk) -> None:
    """What cannot be forgotten at present is there as before, in its place."""
    async with desk.open() as journal:
        await desk.fill(journal, "a", "b")
        before = read_world(desk.db)
        away = desk.db.rename(desk.db.with_name("away"))
        with pytest.raises(StoreError, match="cannot be pruned"):
            await journal.prune(lambda world: forgetting("a"))
        away.rename(desk.db)
        assert list(journal.world.runs) == list(before.runs)
        assert journal.world == before


async def test_what_is_forgotten_by_age_and_count(desk: Desk) -> None:
    """Runs go when they ended long enough ago or when there are too many; never what is unfinished or runs."""
    async with desk.open() as journal:
        await desk.fill(journal, "old")
        for event in run_events("unfinished", ended=False):
            await journal.append(event)
        desk.now += 10 * DAY
        await desk.fill(journal, "new", "newer")
        world = journal.world

    def names(max_age: float, max_runs: int) -> tuple[str, ...]:
        return decide_forgotten(world, now=desk.now, max_age=max_age, max_runs=max_runs).run_ids

    assert names(20 * DAY, 10) == ()
    assert names(10 * DAY, 10) == ("old",)
    assert names(20 * DAY, 2) == ("old",)
    assert names(20 * DAY, 1) == ("old", "new")
    assert names(0, 0) == ("old", "new", "newer")
    # A clock that was set back forgets nothing earlier.
    assert decide_forgotten(world, now=NOW - DAY, max_age=0, max_runs=10).run_ids == ()


def test_batches_cover_everything_once() -> None:
    """What is forgotten in batches is the same, each once."""
    whole = Forgotten(tuple(map(str, range(450))), ("s",), 5.0, 3)
    batches = list(in_batches(whole, 200))
    assert [len(batch.run_ids) for batch in batches] == [200, 200, 50]
    assert [batch.session_ids for batch in batches] == [("s",), (), ()]
    assert {(batch.before, batch.keep_supervisors_from) for batch in batches} == {(5.0, 3)}
    assert [batch.session_ids for batch in in_batches(Forgotten((), ("s",)))] == [("s",)]


@given(st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)))
def test_any_rows_can_be_forgotten(first: set[int], second: set[int]) -> None:
    """Whatever rows are forgotten, in one go or two, the rest of the chain proves itself; one more breaks it."""
    seed, rows = seed_of("j"), []
    link = seed
    for seq in range(1, 31):
        link = link_of(link, seq, 1.0, 1.0, "k", b"{}")
        rows.append((seq, 1.0, 1.0, "k", None, None, "{}", link))
    links = {0: seed} | {row[0]: row[7] for row in rows}
    for forgotten in (first, second):
        marks = [
            Mark(row[0], 1.0, 1.0, row[7], _first_of(row)) for row in rows if row[0] in forgotten or _first_of(row)
        ]
        for gap in decide_gaps(marks):
            rows = [row for row in rows if not gap.first <= row[0] <= gap.last]
            rows.append(bridge(gap.first, gap.last, gap.at, gap.mono, links[gap.first - 1], gap.link))
            rows.sort()
    assert [row[0] for row in verified(rows, seed)] == [row[0] for row in rows]
    plain = [row for row in rows[:-1] if row[3] == "k"]
    for missing in plain[:3]:
        with pytest.raises(ChainError):
            list(verified([row for row in rows if row != missing], seed))


def _first_of(row: tuple[object, ...]) -> int | None:
    import json

    return json.loads(str(row[6]))["first"] if row[3] == "events_pruned" else None


def test_gaps_that_stay_are_left_out() -> None:
    """A gap beside which nothing is forgotten is not made again."""
    assert decide_gaps([Mark(5, 0, 0, 9, first=2)]) == []
    assert decide_gaps([Mark(5, 0, 0, 9, first=2), Mark(6, 0, 0, 8)]) == [Gap(2, 6, 0, 0, 8, 1, ("",))]


def test_nothing_is_forgotten_of_nothing() -> None:
    """An empty world has nothing to forget."""
    assert not decide_forgotten(World(), now=NOW, max_age=0, max_runs=0)
