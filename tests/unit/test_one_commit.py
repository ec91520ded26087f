"""What follows from the end of a task is recorded with it: from wave to wave it is one commit."""

from __future__ import annotations

import math

import attrs
import pytest
import trio
from trio.testing import MockClock

from kasmos.exceptions import SupervisionError
from kasmos.model import event as ev
from kasmos.model.budget import Budgets, Limit
from kasmos.model.event import Event
from kasmos.model.plan import Plan, RunSettings
from kasmos.model.task import Outcome
from kasmos.model.view import Pending, RunState
from kasmos.orchestration.command import COMMIT_TIMEOUT
from kasmos.orchestration.orchestrator import Accepted
from kasmos.sessions.script import Script
from tests.simulation import Life, Town, plan, profile, task, town

END = [ev.SessionEnded, ev.TaskEnded]
STEP = [ev.WaveEnded, ev.WaveStarted, ev.SessionStarting]


def commits(here: Town) -> list[list[type[Event]]]:
    """What was recorded together, in order: it has its instant in common."""
    found: dict[float, list[type[Event]]] = {}
    for record in here.records:
        if not isinstance(record.event, ev.SessionUsed):
            found.setdefault(record.mono, []).append(type(record.event))
    return list(found.values())


async def test_from_wave_to_wave_it_is_one_commit(autojump_clock: MockClock) -> None:
    """The end of a wave's last session is recorded with all that follows, up to the intents of the next wave."""
    here = town({}, write_times=(0.01,))
    here.scripts = lambda spec: Script(duration=int(spec.task_id or 0))
    async with here.life() as life:
        await life.submit(plan(task(1), task(2, wave=2), task(3, wave=2)))
        await life.orchestrator.wait_idle()
    together = commits(here)
    assert [ev.WaveStarted, ev.SessionStarting] in together
    assert [*END, *STEP, ev.SessionStarting] in together
    assert any(one[-2:] == [ev.WaveEnded, ev.RunEnded] for one in together)
    assert not here.undeclared


@pytest.mark.parametrize(
    "changes",
    [
        {"budgets": Budgets(per_run=Limit(turns=1000), zone="UTC")},
        {"profiles": {"a": attrs.evolve(profile(), start_interval=0.5)}},
    ],
    ids=["budgets", "starts are spread"],
)
async def test_what_depends_on_what_was_spent_is_decided_afterwards(
    changes: dict[str, object], autojump_clock: MockClock
) -> None:
    """Where budgets or an account's turn decide what starts, its intent is recorded when that is known."""
    here = town({}, **changes)
    async with here.life() as life:
        await life.submit(plan(task(1), task(2, wave=2)))
        await life.orchestrator.wait_idle()
        assert [each.outcome for each in life.run().tasks.values()] == [Outcome.SUCCEEDED] * 2
    assert [one for one in commits(here) if ev.SessionStarting in one] == [[ev.SessionStarting]] * 2


async def test_leaving_while_the_next_wave_is_recorded(autojump_clock: MockClock) -> None:
    """What was recorded as starting when it became time to leave is put back, and its program has not run."""
    here = town({"1": Script(duration=1.0)}, write_times=(0.1,))
    document = plan(task(1), task(2, wave=2))
    async with here.life() as life:
        await life.submit(document)
        while not life.backend.machine.programs:
            await life.journal.committed.wait()
        while life.backend.machine.live:  # noqa: ASYNC110  # nothing tells of a program that has just ended
            await trio.sleep(0.01)
        await life.orchestrator.interrupt("received SIGINT")
        assert life.run().state is RunState.INTERRUPTED
        assert life.task("1").outcome is Outcome.SUCCEEDED
        assert isinstance(life.task("2").state, Pending)
    assert [*END, *STEP] in commits(here)
    assert len(here.machine.starts) == 1
    async with here.life() as life:
        assert await life.submit(document) == Accepted("run1", continued=True)
        await life.orchestrator.wait_idle()
        assert life.task("2").outcome is Outcome.SUCCEEDED
    assert len(here.machine.starts) == 2


@pytest.mark.parametrize("quarters", range(8))
async def test_two_runs_step_at_the_same_moment(quarters: int, autojump_clock: MockClock) -> None:
    """Runs whose waves end together do not start more than there are slots."""
    here = town({}, max_concurrent=3, write_times=(1.0,))
    here.scripts = lambda spec: Script(duration=5.0 if spec.run_id == "run1" else 1.75 + quarters / 4)
    document = plan(task(1), *(task(number, wave=2) for number in (2, 3, 4)))
    async with here.life() as life:
        async with trio.open_nursery() as nursery:
            for key in ("a", "b"):
                nursery.start_soon(lambda key=key: life.submit(document, key=key, settings=RunSettings()))
        await life.orchestrator.wait_idle()
        assert {run.outcome for run in life.world.runs.values()} == {Outcome.SUCCEEDED}
    live, most = 0, 0
    for event in here.events:
        live += isinstance(event, ev.SessionStarting) - isinstance(event, ev.SessionEnded)
        most = max(most, live)
    assert most == 3


@pytest.mark.parametrize("durable", [True, False])
async def test_killed_with_the_commit_of_a_step(durable: bool, autojump_clock: MockClock) -> None:
    """A supervisor that is killed with the commit of a step has run nothing of the next wave; the next one goes on."""
    here = town({"1": Script(duration=1.0)})
    document = plan(task(1), task(2, wave=2))
    # 1 supervisor, 2 run, 3 wave, 4 and 5 its session, 6 to 11 the step
    await here.live(lambda life: _submit_and_wait(life, document), kill_at=6, durable=durable)
    assert (ev.WaveEnded in map(type, here.events)) is durable
    assert len(here.machine.starts) == 1
    async with here.life() as life:
        await life.orchestrator.wait_idle()
        assert [each.outcome for each in life.run().tasks.values()] == [Outcome.SUCCEEDED] * 2
    assert len(here.machine.starts) == 2
    assert not here.undeclared


async def _submit_and_wait(life: Life, document: Plan) -> None:
    await life.submit(document)
    await trio.sleep_forever()


async def test_a_stop_waits_for_no_step(autojump_clock: MockClock) -> None:
    """While a step cannot be recorded, what runs can be stopped, and who asks for more is told so within a bound."""
    scripts = {"1": Script(duration=1.0), "2": Script(duration=math.inf)}
    here = town(scripts, max_concurrent=2, write_times=(*[0.01] * 4, math.inf))
    async with here.life() as life:
        await life.submit(plan(task(1), task(2), task(3)))
        while len(life.backend.machine.programs) < 2:
            await life.journal.committed.wait()
        await trio.sleep(2.0)
        assert life.task("1").outcome is None
        await life.orchestrator.stop_task("run1", "2")
        await trio.sleep(COMMIT_TIMEOUT + 1.0)
        assert not life.backend.machine.live
        with pytest.raises(SupervisionError, match="nothing can be recorded"):
            await life.orchestrator.cancel_run("run1")
        life.crash()


async def test_nothing_is_begun_ahead_without_room(autojump_clock: MockClock) -> None:
    """While the disk has no room the next wave's intent is not recorded; it is when there is room again."""
    start = trio.current_time()
    here = town({"1": Script(duration=1.0)}, is_full=lambda: trio.current_time() < start + 60.0)
    async with here.life() as life:
        await life.submit(plan(task(1), task(2, wave=2)))
        while not life.backend.machine.programs:
            await life.journal.committed.wait()
        life.supervisor.surroundings.room.found_short("the disk is full")
        await life.orchestrator.wait_idle()
        assert life.task("2").outcome is Outcome.SUCCEEDED
    assert [one for one in commits(here) if ev.SessionStarting in one][1:] == [[ev.SessionStarting]]
