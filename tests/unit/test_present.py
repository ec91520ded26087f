"""What is under way, kept from one look to the next, is what a look at everything finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kasmos.daemon.present import Present
from kasmos.daemon.wire import run_status
from kasmos.model.approval import ApprovalState
from kasmos.model.event import Record
from kasmos.model.view import World
from kasmos.store.fold import apply, forget
from tests.strategies import journals


class Memory:
    """The newest records, as a bus holds them."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.floor = 0

    def recent(self, after: int) -> list[Record] | None:
        if after < self.floor:
            return None
        return [record for record in self.records if record.seq > after]


def agrees(present: Present, world: World) -> None:
    """It is what all of the world says."""
    present.look()
    by_place = [run.id for run in world.runs.values() if run.unfinished]
    assert sorted(run.id for run in present.runs) == sorted(by_place)
    assert [run.first_seq for run in present.runs] == sorted(run.first_seq for run in present.runs)
    assert all(world.runs[run.id] is run for run in present.runs)
    assert {view.id for view in present.sessions} == {v.id for v in world.sessions.values() if v.state.live}
    waiting = {view.id for view in world.approvals.values() if view.state is ApprovalState.OPEN}
    assert {view.id for view in present.approvals} == waiting
    counts: dict[str, int] = {}
    for run in world.runs.values():
        counts[run_status(run)] = counts.get(run_status(run), 0) + 1
    assert present.run_counts == counts


@given(st.data())
def test_it_is_what_the_world_says(data: st.DataObject) -> None:
    """Whenever it is looked at, however much has happened since, been forgotten or fallen out of memory."""
    world, memory = World(), Memory()
    present = Present(world, memory)
    for record in data.draw(journals(max_size=40)):
        apply(world, record)
        memory.records.append(record)
        match data.draw(st.integers(0, 5)):
            case 0:
                memory.floor = record.seq
            case 1:
                agrees(present, world)
            case 2:
                ended = [run.id for run in world.runs.values() if not run.unfinished][:1]
                forget(world, ended, ())
    agrees(present, world)
