"""Tasks that are handed in by themselves: accepted once, kept by every supervisor, held back by what they need."""

from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import MockClock

from kasmos.exceptions import StoreError, SupervisionError
from kasmos.model import event as ev
from kasmos.model.plan import Origin, Plan, PlanTask, RunSettings, Wave
from kasmos.model.task import CauseKind, Outcome
from kasmos.model.view import Ended
from kasmos.orchestration.intake import ACCEPT_TIMEOUT, TaskAccepted, TaskSubmission
from kasmos.sessions.script import Script
from tests.simulation import Life, town

TASK = PlanTask(id="-", number=1, wave=1, title="do it", body="Work.", agent="a")


def submission(*needs: str, key: str = "", digest: str = "d") -> TaskSubmission:
    return TaskSubmission(TASK, RunSettings(), "/project", digest, needs, key)


def outcome(life: Life, task_id: str) -> Outcome | None:
    return life.run(task_id).tasks[task_id].outcome


async def test_one_for_each_key(autojump_clock: MockClock) -> None:
    """However many ask with one key at once, one task is recorded; who asks otherwise with it is told so."""
    here = town({})
    answers: list[TaskAccepted] = []

    async def submit(life: Life, digest: str) -> None:
        answers.append(await life.orchestrator.submit_task(submission(key="k", digest=digest)))

    async with here.life() as life:
        async with trio.open_nursery() as nursery:
            for digest in ("d", "d", "d", "other"):
                nursery.start_soon(submit, life, digest)
        await life.orchestrator.wait_idle()
        assert len({answer.task_id for answer in answers}) == 1
        assert sum(not answer.repeated for answer in answers) == 1
        assert sum(isinstance(event, ev.RunStarted) for event in here.events) == 1
        assert len({answer.same for answer in answers}) == 2
    async with here.life() as life:
        assert life.orchestrator.find_submitted("k", answers[0].task_id) is not None
        assert life.orchestrator.find_submitted("unknown", "d") is None


async def test_whoever_asks_may_go_away(autojump_clock: MockClock) -> None:
    """A task whose client goes away while it is being recorded is recorded and done all the same."""
    here = town({})
    async with here.life() as life:
        with trio.move_on_after(0):
            await life.orchestrator.submit_task(submission(key="k"))
        await trio.sleep(1)
        await life.orchestrator.wait_idle()
        (run,) = life.world.runs.values()
        assert (run.origin, run.outcome) == (Origin.TASK, Outcome.SUCCEEDED)


async def test_a_disk_that_takes_nothing(autojump_clock: MockClock) -> None:
    """Who hands something in while nothing can be recorded is told so within a bound, and by which id it is found."""
    here = town({}, write_times=(60.0,))
    async with here.life() as life:
        begin = trio.current_time()
        with pytest.raises(StoreError, match="task task_run1 cannot be recorded at present") as told:
            await life.orchestrator.submit_task(submission(key="k"))
        assert trio.current_time() - begin == ACCEPT_TIMEOUT
        assert "GET /v1/tasks/task_run1 " in str(told.value)
        await life.until(lambda world: "task_run1" in world.runs)
        assert (await life.orchestrator.submit_task(submission(key="k"))).repeated
        await life.orchestrator.wait_idle()
        assert outcome(life, "task_run1") is Outcome.SUCCEEDED


async def test_a_plan_while_the_disk_takes_nothing(autojump_clock: MockClock) -> None:
    """A plan that could not be recorded in time is begun once, and followed by whoever hands it in again."""
    here = town({}, write_times=(60.0,))
    plan = Plan((Wave(1, (attrs.evolve(TASK, id="1"),)),))
    async with here.life() as life:
        begin = trio.current_time()
        for _ in range(2):
            with pytest.raises(StoreError, match="run run1 cannot be recorded at present"):
                await life.submit(plan, patience=5.0)
        assert trio.current_time() - begin == 10.0
        accepted = await life.submit(plan)
        assert (accepted.run_id, accepted.following) == ("run1", True)
        with pytest.raises(SupervisionError, match="has changed"):
            await life.submit(plan, digest="other")
        await life.orchestrator.wait_idle()
        assert life.run("run1").outcome is Outcome.SUCCEEDED
    assert sum(isinstance(event, ev.RunStarted) for event in here.events) == 1


@pytest.mark.parametrize("kill_at", range(2, 14))
async def test_killed_at_every_commit(autojump_clock: MockClock, kill_at: int) -> None:
    """Wherever the supervisor is killed, every accepted task is done by the next one, and each runs once."""
    here = town({}, max_concurrent=1)
    accepted: list[str] = []

    async def body(life: Life) -> None:
        for number in range(3):
            answer = await life.orchestrator.submit_task(submission(key=f"{number}"))
            accepted.append(answer.task_id)
        await life.orchestrator.wait_idle()
        await trio.sleep_forever()

    with trio.move_on_after(1000):
        await here.live(body, kill_at=kill_at)
    async with here.life() as life:
        for number in range(3):
            await life.orchestrator.submit_task(submission(key=f"{number}"))
        await life.orchestrator.wait_idle()
        assert {*accepted} <= set(life.world.runs)
        assert len(life.world.runs) == 3
        assert all(run.outcome is Outcome.SUCCEEDED for run in life.world.runs.values())
    assert len(here.machine.starts) == 3


async def test_a_supervisor_that_leaves_keeps_them_for_the_next(autojump_clock: MockClock) -> None:
    """What was accepted is not interrupted when its supervisor leaves in order: the next one takes it up unasked."""
    here = town({}, max_concurrent=1)
    here.scripts = lambda spec: Script(duration=100.0)
    async with here.life() as life:
        for _ in range(2):
            await life.orchestrator.submit_task(submission())
        await trio.sleep(1)
        assert life.orchestrator.queued_tasks == 1
        await life.orchestrator.interrupt("time to go")
        with pytest.raises(SupervisionError, match="leaving"):
            await life.orchestrator.submit_task(submission())
    assert not any(isinstance(event, ev.RunInterrupted) for event in here.events)
    here.scripts = lambda spec: Script()
    async with here.life() as life:
        await life.orchestrator.wait_idle()
        assert [run.outcome for run in life.world.runs.values()] == [Outcome.SUCCEEDED] * 2


async def test_needs(autojump_clock: MockClock) -> None:
    """A task waits for those it needs, over a change of supervisors; it is skipped when one fails or is not known."""
    here = town({}, max_concurrent=2)
    here.scripts = lambda spec: Script(duration=5.0, exit=1 if spec.run_id == "task_run2" else 0)
    async with here.life() as life:
        good = (await life.orchestrator.submit_task(submission())).task_id
        bad = (await life.orchestrator.submit_task(submission())).task_id
        after_good = (await life.orchestrator.submit_task(submission(good))).task_id
        after_both = (await life.orchestrator.submit_task(submission(good, bad))).task_id
        after_none = (await life.orchestrator.submit_task(submission("task_gone"))).task_id
        chain = (await life.orchestrator.submit_task(submission(after_both))).task_id
        await trio.sleep(1)
        life.crash()
    async with here.life() as life:
        await life.orchestrator.wait_idle()
        assert outcome(life, after_good) is Outcome.SUCCEEDED
        for task_id, culprit in ((after_both, bad), (after_none, "task_gone"), (chain, after_both)):
            state = life.run(task_id).tasks[task_id].state
            assert isinstance(state, Ended)
            assert (state.outcome, state.cause.kind) == (Outcome.SKIPPED, CauseKind.NEED_FAILED)
            assert state.cause.because_of == (culprit,)
    assert len(here.machine.starts) == 3


async def test_one_that_waits_for_others_can_be_cancelled(autojump_clock: MockClock) -> None:
    """A task that waits for another one is cancelled without having run."""
    here = town({})
    here.scripts = lambda spec: Script(duration=5.0)
    async with here.life() as life:
        first = (await life.orchestrator.submit_task(submission())).task_id
        second = (await life.orchestrator.submit_task(submission(first))).task_id
        await trio.sleep(1)
        await life.orchestrator.stop_task(second, second)
        await life.orchestrator.wait_idle()
        assert (outcome(life, first), outcome(life, second)) == (Outcome.SUCCEEDED, Outcome.CANCELLED)
