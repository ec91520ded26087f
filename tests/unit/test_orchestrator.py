"""Runs as they are handed in, continued, stopped, retried and left; races between a person and the work."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kasmos.exceptions import BackendUnavailableError, SupervisionError
from kasmos.model import event as ev
from kasmos.model.plan import OnFailure, RunSettings
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import StopReason
from kasmos.model.task import CauseKind, Outcome
from kasmos.model.view import Ended, RunState, SessionState
from kasmos.orchestration import driver
from kasmos.orchestration.orchestrator import Accepted
from kasmos.orchestration.scheduler import RunDecision, decide_run
from kasmos.sessions.script import Script
from tests.simulation import WRITE_TIME, Life, Town, plan, profile, task, town

FOREVER = Script(duration=math.inf)
ONE = plan(task(1))


def outcomes(life: Life, run_id: str = "run1") -> list[Outcome | None]:
    return [each.outcome for each in life.run(run_id).tasks.values()]


def kind(life: Life, task_id: str, run_id: str = "run1") -> CauseKind:
    state = life.task(task_id, run_id).state
    assert isinstance(state, Ended)
    return state.cause.kind


def count(here: Town, kind: type[ev.Event]) -> int:
    return sum(isinstance(event, kind) for event in here.events)


async def running(life: Life, sessions: int = 1) -> None:
    """Wait until so many programs run."""
    while len(life.backend.machine.live) < sessions:
        await life.journal.committed.wait()


# --- submit -----------------------------------------------------------------------


async def test_a_run_from_its_plan_to_its_end(autojump_clock: MockClock) -> None:
    """A plan that is handed in is run wave by wave, and its run ends when its tasks have."""
    here = town({"1": Script(duration=3.0), "2": Script(duration=5.0), "3": Script(duration=1.0)})
    start = trio.current_time()
    async with here.life() as life:
        assert await life.submit(plan(task(1), task(2), task(3, wave=2))) == Accepted("run1")
        assert life.orchestrator.is_driven("run1")
        await life.orchestrator.wait_idle()
        assert trio.current_time() - start == pytest.approx(6.0, abs=0.1)
        assert outcomes(life) == [Outcome.SUCCEEDED] * 3
        assert (life.run().state, life.run().outcome) == (RunState.ENDED, Outcome.SUCCEEDED)
        assert not life.orchestrator.is_driven("run1")
    assert [event for event in here.events if isinstance(event, ev.WaveStarted | ev.WaveEnded)] == [
        ev.WaveStarted("run1", 1),
        ev.WaveEnded("run1", 1, Outcome.SUCCEEDED),
        ev.WaveStarted("run1", 2),
        ev.WaveEnded("run1", 2, Outcome.SUCCEEDED),
    ]


async def test_the_same_plan_again_follows_its_run(autojump_clock: MockClock) -> None:
    """A plan that is handed in while its run is under way joins that run; after its end it begins a new one."""
    here = town({"1": Script(duration=3.0)})
    async with here.life() as life:
        await life.submit(ONE)
        assert await life.submit(ONE) == Accepted("run1", continued=True, following=True)
        await life.orchestrator.wait_idle()
        assert await life.submit(ONE) == Accepted("run2")
        await life.orchestrator.wait_idle()
    assert len(here.machine.starts) == 2


async def test_many_who_hand_in_one_plan_at_once(autojump_clock: MockClock) -> None:
    """However many hand in the same plan at the same moment, one run begins."""
    here = town({"1": Script(duration=3.0)})
    answers: list[Accepted] = []

    async def hand_in(life: Life) -> None:
        answers.append(await life.submit(ONE))

    async with here.life() as life:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(hand_in, life)
        await life.orchestrator.wait_idle()
    assert {answer.run_id for answer in answers} == {"run1"}
    assert sum(not answer.continued for answer in answers) == 1
    assert count(here, ev.RunStarted) == len(here.machine.starts) == 1


async def test_an_unfinished_run_is_continued(autojump_clock: MockClock) -> None:
    """A plan whose run was interrupted goes on where it was: what has succeeded is not run again."""
    here = town({"1": Script(), "2": (FOREVER, Script())})
    document = plan(task(1), task(2, wave=2))
    async with here.life() as life:
        await life.submit(document)
        await life.until(lambda world: 2 in world.runs["run1"].waves_started)
        await trio.sleep(1.0)
        await life.orchestrator.interrupt("received SIGINT")
        assert life.run().state is RunState.INTERRUPTED
        assert outcomes(life) == [Outcome.SUCCEEDED, None]
    assert ev.RunInterrupted("run1", "received SIGINT") in here.events
    here.scripts = lambda spec: Script()
    async with here.life() as life:
        # Who interrupts decides when to go on: a supervisor that comes up for something else does not.
        assert life.findings.to_continue == ()
        assert await life.submit(document) == Accepted("run1", continued=True)
        await life.orchestrator.wait_idle()
        assert outcomes(life) == [Outcome.SUCCEEDED] * 2
    assert len(life.task("1").sessions) == 1


async def test_a_run_that_ends_before_it_is_asked_for(autojump_clock: MockClock) -> None:
    """A run that recovery brings to its end before its plan is handed in is told of once, and not run again."""
    here = town({"1": Script(duration=1.0)})
    document = plan(task(1))

    async def body(life: Life) -> None:
        await life.submit(document)
        await life.until(lambda world: any(one.state is SessionState.RUNNING for one in world.sessions.values()))
        life.crash()
        await trio.sleep_forever()

    await here.live(body)
    assert count(here, ev.RunEnded) == 0
    async with here.life() as life:
        await life.orchestrator.wait_idle()
        assert life.run().state is RunState.ENDED
        assert await life.submit(document) == Accepted("run1", continued=True, ended=True)
        assert await life.submit(document) == Accepted("run2")
        await life.orchestrator.wait_idle()


async def test_a_changed_document_is_refused_with_a_choice(autojump_clock: MockClock) -> None:
    """A document that has changed since its unfinished run began is refused, and both ways on are named."""
    here = town({"1": FOREVER})
    async with here.life() as life:
        await life.submit(ONE, digest="old")
        with pytest.raises(SupervisionError, match=r"--fresh.*kas resume run1"):
            await life.submit(ONE, digest="new")
        await life.orchestrator.cancel_run("run1")
        await life.orchestrator.wait_idle()
        assert await life.submit(ONE, digest="new") == Accepted("run2")
        await life.orchestrator.cancel_run("run2")


async def test_fresh_ends_the_old_run_first(autojump_clock: MockClock) -> None:
    """A fresh run begins when the unfinished one has been ended for good and nothing of it runs any more."""
    here = town({"1": (Script(duration=math.inf, ignores_terminate_for=6.0),)})
    start = trio.current_time()
    async with here.life() as life:
        await life.submit(ONE, digest="old")
        await running(life)
        here.scripts = lambda spec: Script(duration=1.0)
        assert await life.submit(ONE, digest="new", fresh=True) == Accepted("run2")
        assert trio.current_time() - start == pytest.approx(6.0, abs=0.1)
        assert life.run("run1").outcome is Outcome.CANCELLED
        await life.orchestrator.wait_idle()
        assert outcomes(life, "run2") == [Outcome.SUCCEEDED]
    assert here.machine.peak == 1


async def test_fresh_without_an_old_run(autojump_clock: MockClock) -> None:
    """Where there is nothing unfinished, fresh is as any other."""
    async with town({}).life() as life:
        assert await life.submit(ONE, fresh=True) == Accepted("run1")
        await life.orchestrator.wait_idle()


async def test_a_backend_that_is_not_there_refuses_the_plan(autojump_clock: MockClock) -> None:
    """A plan with a task whose backend this supervisor lacks is refused whole, before anything is recorded."""
    here = town({}, profiles={"a": profile(), "t": profile(execution_mode=ExecutionMode.TMUX)})
    async with here.life() as life:
        with pytest.raises(BackendUnavailableError, match='"tmux"'):
            await life.submit(plan(task(1), task(2, agent="t")))
        with pytest.raises(BackendUnavailableError, match='"headless"'):
            await life.submit(ONE, settings=RunSettings(execution_mode="headless"))
        assert count(here, ev.RunStarted) == 0
        # The run's mode overrides every profile's.
        accepted = await life.submit(plan(task(1, agent="t")), settings=RunSettings(execution_mode="scripted"))
        await life.orchestrator.wait_idle()
        assert outcomes(life, accepted.run_id) == [Outcome.SUCCEEDED]


@pytest.mark.parametrize(
    ("digest", "fresh", "expected"),
    [
        ("d", False, Accepted("run1", continued=True, ended=True)),
        ("d", True, Accepted("run2")),
        ("changed", False, Accepted("run2")),
    ],
)
async def test_the_plan_of_a_run_nobody_was_told_of(
    digest: str, fresh: bool, expected: Accepted, autojump_clock: MockClock
) -> None:
    """Who hands in the plan of a run that ended unheard is told its end, unless it changed or they want a new run."""
    here = town({})

    async def body(life: Life) -> None:
        await life.submit(ONE)
        await life.until(lambda world: world.runs["run1"].state is RunState.ENDED)
        life.crash()
        await trio.sleep_forever()

    await here.live(body)
    async with here.life() as life:
        assert await life.submit(ONE, digest=digest, fresh=fresh) == expected
        # Now it has been told.
        assert await life.submit(ONE, digest=digest, key="/plan.md" if expected.ended else "/other.md") != expected
        await life.orchestrator.wait_idle()


# --- concurrency ------------------------------------------------------------------


@pytest.mark.parametrize("runs", [1, 3])
async def test_max_concurrent_holds_over_all_runs(runs: int, autojump_clock: MockClock) -> None:
    """However many runs are handed in at once, no more sessions run than the supervisor's limit, and no fewer."""
    here = Town(lambda spec: Script(duration=5.0), {"a": profile()}, max_concurrent=3)
    start = trio.current_time()

    async with here.life() as life:

        async def hand_in(index: int) -> None:
            document = plan(*(task(number) for number in range(1, 5)))
            await life.submit(document, key=f"/{index}", settings=RunSettings(max_concurrent=4))

        async with trio.open_nursery() as nursery:
            for index in range(runs):
                nursery.start_soon(hand_in, index)
        await life.orchestrator.wait_idle()
    assert here.machine.peak == 3
    assert trio.current_time() - start == pytest.approx(5.0 * math.ceil(4 * runs / 3), abs=0.2)


async def test_who_came_first_starts_first_after_a_restart(autojump_clock: MockClock) -> None:
    """Runs that the next supervisor takes up begin in the order in which they were accepted."""
    here = Town(lambda spec: Script(duration=5.0), {"a": profile()}, max_concurrent=1)
    async with here.life() as life:
        for index in range(6):
            await life.submit(plan(task(1)), key=f"/{index}")
        life.crash()
    async with here.life() as life:
        await life.orchestrator.wait_idle()
        started = [event.run_id for event in here.events if isinstance(event, ev.SessionStarting)]
        assert started == list(life.world.runs)


async def test_a_run_has_a_limit_of_its_own(autojump_clock: MockClock) -> None:
    """A run keeps its own limit where the supervisor's would allow more."""
    here = Town(lambda spec: Script(duration=5.0), {"a": profile()}, max_concurrent=9)
    async with here.life() as life:
        await life.submit(plan(*(task(number) for number in range(1, 6))), settings=RunSettings(max_concurrent=2))
        await life.orchestrator.wait_idle()
    assert here.machine.peak == 2


async def test_what_is_to_be_taken_up_again_has_its_slots(autojump_clock: MockClock) -> None:
    """After a crash no run starts anything new in the slots of sessions of another run that still go on."""
    here = Town(lambda spec: Script(duration=10.0), {"a": profile()}, max_concurrent=2)
    document = plan(task(1), task(2), task(3))

    async def body(life: Life) -> None:
        for key in ("/1", "/2"):
            await life.submit(document, key=key, settings=RunSettings(max_concurrent=1))
        await trio.sleep(5.0)
        life.crash()
        await trio.sleep_forever()

    await here.live(body)
    # From here on each run may have both slots; both are taken.
    here.records[:] = [_roomier(record) for record in here.records]
    async with here.life() as life:
        await life.orchestrator.wait_idle()
    assert here.machine.peak == 2
    assert len(here.machine.starts) == 6


def _roomier(record: ev.Record) -> ev.Record:
    if not isinstance(record.event, ev.RunStarted):
        return record
    settings = attrs.evolve(record.event.settings, max_concurrent=2)
    return attrs.evolve(record, event=attrs.evolve(record.event, settings=settings))


async def test_idle_means_that_no_run_is_under_way(autojump_clock: MockClock) -> None:
    """Who waits for the supervisor to be idle waits for the runs that were handed in meanwhile as well."""
    here = town({"1": Script(duration=5.0)})
    start = trio.current_time()
    async with here.life() as life, trio.open_nursery() as nursery:
        idle_at: list[float] = []

        async def wait() -> None:
            await life.orchestrator.wait_idle()
            idle_at.append(trio.current_time() - start)

        await life.submit(ONE, key="/1")
        nursery.start_soon(wait)
        await trio.sleep(3.0)
        await life.submit(ONE, key="/2")
        await wait()
    assert idle_at == [pytest.approx(8.0, abs=0.1)] * 2


# --- parked runs ------------------------------------------------------------------


async def test_a_parked_run_waits_to_be_advanced(autojump_clock: MockClock) -> None:
    """Without `auto_advance_waves` a run waits after each wave but the last, until somebody lets it go on."""
    here = town({})
    document = plan(task(1), task(2, wave=2))
    async with here.life() as life:
        await life.submit(document, settings=RunSettings(auto_advance_waves=False))
        with pytest.raises(SupervisionError, match="not parked: it is running"):
            await life.orchestrator.advance("run1")
        await life.until(lambda world: world.runs["run1"].state is RunState.PARKED)
        await trio.sleep(1000.0)
        assert outcomes(life) == [Outcome.SUCCEEDED, None]
        await life.orchestrator.advance("run1")
        await life.orchestrator.wait_idle()
        assert outcomes(life) == [Outcome.SUCCEEDED] * 2
        with pytest.raises(SupervisionError, match="not parked: it is succeeded"):
            await life.orchestrator.advance("run1")
    assert count(here, ev.RunParked) == count(here, ev.RunAdvanced) == 1


async def test_a_parked_run_can_be_cancelled_and_interrupted(autojump_clock: MockClock) -> None:
    """A run that is parked can be ended for good, or left for later."""
    here = town({})
    document = plan(task(1), task(2, wave=2))
    async with here.life() as life:
        for key in ("/1", "/2"):
            await life.submit(document, key=key, settings=RunSettings(auto_advance_waves=False))
        await life.until(lambda world: all(run.state is RunState.PARKED for run in world.runs.values()))
        await life.orchestrator.cancel_run("run1")
        await life.until(lambda world: world.runs["run1"].state is RunState.ENDED)
        await life.orchestrator.interrupt("received SIGTERM")
        assert outcomes(life, "run1") == [Outcome.SUCCEEDED, Outcome.CANCELLED]
        assert life.run("run2").state is RunState.INTERRUPTED


# --- stopping ---------------------------------------------------------------------


async def test_cancelling_a_run(autojump_clock: MockClock) -> None:
    """A cancelled run's tasks are stopped, those that wait never start, and a second time is refused."""
    here = town({"1": FOREVER, "2": Script(duration=math.inf, ignores_terminate_for=4.0)})
    async with here.life() as life:
        await life.submit(plan(task(1), task(2), task(3, wave=2)))
        await running(life, 2)
        await life.orchestrator.cancel_run("run1", "it was a mistake")
        await life.orchestrator.cancel_run("run1", "twice, while it is under way")
        await life.orchestrator.wait_idle()
        assert outcomes(life) == [Outcome.CANCELLED] * 3
        assert {kind(life, name) for name in life.run().tasks} == {CauseKind.RUN_CANCELLED}
        assert (life.run().outcome, life.run().cancel_reason) == (Outcome.CANCELLED, "it was a mistake")
        with pytest.raises(SupervisionError, match="ended already"):
            await life.orchestrator.cancel_run("run1")
    assert count(here, ev.RunCancelRequested) == 1


async def test_cancelling_a_run_nobody_is_at_work_on(autojump_clock: MockClock) -> None:
    """An interrupted run can be ended for good without being continued."""
    here = town({"1": FOREVER})
    async with here.life() as life:
        await life.submit(ONE)
        await running(life)
        await life.orchestrator.interrupt("received SIGINT")
    async with here.life() as life:
        await life.orchestrator.cancel_run("run1")
        await life.orchestrator.wait_idle()
        assert (life.run().state, life.run().outcome) == (RunState.ENDED, Outcome.CANCELLED)
    assert len(here.machine.starts) == 1


async def test_cancelling_a_run_that_was_interrupted_while_it_was_cancelled(autojump_clock: MockClock) -> None:
    """A run whose cancelling was cut short by an interruption can be cancelled again, and then ends."""
    here = town({"1": Script(duration=math.inf, ignores_terminate_for=5.0)})
    async with here.life() as life:
        await life.submit(plan(task(1), task(2, wave=2)))
        await running(life)
        life.supervisor.children("run1")["1"].request_stop(StopReason.INTERRUPTED)
        await life.orchestrator.cancel_run("run1")
        await life.orchestrator.interrupt("received SIGINT")
        assert life.run().unfinished
    async with here.life() as life:
        await life.orchestrator.cancel_run("run1")
        await life.orchestrator.wait_idle()
        assert life.run().outcome is Outcome.CANCELLED


async def test_a_fresh_run_that_comes_too_late(autojump_clock: MockClock) -> None:
    """Once it is time to leave, no fresh run begins, even if its submission waits already for the end of the old."""
    here = town({"1": Script(duration=math.inf, ignores_terminate_for=5.0)})
    async with here.life() as life, trio.open_nursery() as nursery:
        await life.submit(ONE)
        await running(life)
        refused = trio.Event()

        async def submit() -> None:
            with pytest.raises(SupervisionError, match="leaving"):
                await life.submit(ONE, fresh=True)
            refused.set()

        nursery.start_soon(submit)
        await life.until(lambda world: world.runs["run1"].cancel_reason is not None)
        life.orchestrator.refuse("received SIGINT")
        await life.orchestrator.interrupt("received SIGINT")
        await refused.wait()
        assert list(life.world.runs) == ["run1"]


async def test_a_run_that_is_being_cancelled_is_not_gone_on_with(autojump_clock: MockClock) -> None:
    """A plan whose run is being cancelled gets a new run, after the end of the old one."""
    here = town({"1": Script(duration=3.0, ignores_terminate_for=2.0)})
    async with here.life() as life:
        await life.submit(ONE)
        await running(life)
        await life.orchestrator.cancel_run("run1")
        assert await life.submit(ONE) == Accepted("run2")
        assert life.run().outcome is Outcome.CANCELLED
        await life.orchestrator.wait_idle()
        assert outcomes(life, "run2") == [Outcome.SUCCEEDED]


async def test_fail_fast_stops_the_siblings(autojump_clock: MockClock) -> None:
    """With `fail_fast` a failure stops what runs beside it, and each says because of whom."""
    here = town({"1": Script(duration=5.0, exit=1), "2": FOREVER})
    start = trio.current_time()
    async with here.life() as life:
        await life.submit(plan(task(1), task(2), task(3, wave=2)), settings=RunSettings(on_failure=OnFailure.FAIL_FAST))
        await life.orchestrator.wait_idle()
        assert trio.current_time() - start == pytest.approx(5.0, abs=0.1)
        assert outcomes(life) == [Outcome.FAILED, Outcome.CANCELLED, Outcome.SKIPPED]
        for name in ("2", "3"):
            state = life.task(name).state
            assert isinstance(state, Ended)
            assert (state.cause.kind, state.cause.because_of) == (CauseKind.FAIL_FAST, ("1",))


async def test_stopping_one_task(autojump_clock: MockClock) -> None:
    """One task can be stopped, by itself or by its session, whether it runs or waits; the others go on."""
    here = town({"1": FOREVER, "2": FOREVER, "4": Script(duration=5.0)})
    async with here.life() as life:
        document = plan(task(1), task(2), task(4), task(3, wave=2))
        await life.submit(document, settings=RunSettings(on_failure=OnFailure.CONTINUE))
        await running(life, 3)
        await life.orchestrator.stop_task("run1", "1")
        await life.orchestrator.stop_session(life.task("2").sessions[-1])
        await life.orchestrator.stop_task("run1", "3")
        await life.orchestrator.wait_idle()
        assert outcomes(life) == [Outcome.CANCELLED, Outcome.CANCELLED, Outcome.SUCCEEDED, Outcome.CANCELLED]
        assert {kind(life, name) for name in "123"} == {CauseKind.STOPPED}
        assert life.task("3").sessions == ()
    assert len(here.machine.starts) == 3


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (lambda o: o.stop_task("run1", "9"), "no task 9; it has 1"),
        (lambda o: o.stop_task("run1", "1"), "task run1.1 has ended already: succeeded"),
        (lambda o: o.stop_task("run9", "1"), "there is no run run9"),
        (lambda o: o.stop_session("s9"), "there is no session s9"),
        (lambda o: o.stop_session("run1-1a1-s0"), "has ended already"),
        (lambda o: o.cancel_run("run9"), "there is no run run9"),
        (lambda o: o.advance("run9"), "there is no run run9"),
        (lambda o: o.retry("run9"), "there is no run run9"),
        (lambda o: o.retry("run1"), "run run1 has succeeded or is still under way"),
        (lambda o: o.retry("run1", ("1",)), "task 1 has succeeded or is still under way"),
        (lambda o: o.retry("run1", ("8", "9")), "no task 8, 9; it has 1"),
        (lambda o: o.continue_run("run1"), "run run1 has ended; `kas retry run1` takes it up again"),
        (lambda o: o.continue_run("run9"), "there is no run run9; `kas runs` lists them"),
    ],
)
async def test_what_does_not_fit_the_present_is_refused(
    verb: Callable[..., Awaitable[None]], words: str, autojump_clock: MockClock
) -> None:
    """A request about what is not there, or is over, is refused in words that say so, and records nothing."""
    here = town({})
    async with here.life() as life:
        await life.submit(ONE)
        await life.orchestrator.wait_idle()
        before = len(here.records)
        with pytest.raises(SupervisionError, match=re.escape(words)):
            await verb(life.orchestrator)
        assert len(here.records) == before


@pytest.mark.parametrize("eighths", range(0, 56, 2))
async def test_a_task_that_is_stopped_around_its_start(eighths: int, autojump_clock: MockClock) -> None:
    """A stop of a task counts from the moment it is asked for, whatever is being committed for its start just then."""
    here = town({"1": Script(duration=5.0), "2": FOREVER})
    async with here.life() as life:
        await life.submit(plan(task(1), task(2, wave=2)))
        await life.until(lambda world: "run1-1a1-s0" in world.sessions)
        await life.until(lambda world: not world.sessions["run1-1a1-s0"].state.live)
        # From here the ends of task and wave and the start of the next ones are committed, one after the other.
        await trio.sleep(WRITE_TIME * eighths / 8)
        await life.orchestrator.stop_task("run1", "2")
        await life.orchestrator.wait_idle()
        assert outcomes(life) == [Outcome.SUCCEEDED, Outcome.CANCELLED]
        assert kind(life, "2") is CauseKind.STOPPED
    assert not here.machine.live


# --- retry ------------------------------------------------------------------------


async def test_retrying_a_run_that_has_ended(autojump_clock: MockClock) -> None:
    """A retry takes an ended run up again: what failed and what was skipped for it runs, what succeeded does not."""
    here = town({"1": Script(), "2": (Script(exit=1), Script()), "3": Script()})
    async with here.life() as life:
        await life.submit(plan(task(1), task(2), task(3, wave=2)))
        await life.orchestrator.wait_idle()
        assert outcomes(life) == [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.SKIPPED]
        await life.orchestrator.retry("run1")
        assert life.run().unfinished
        await life.orchestrator.wait_idle()
        assert outcomes(life) == [Outcome.SUCCEEDED] * 3
        assert life.run().outcome is Outcome.SUCCEEDED
        assert [len(each.sessions) for each in life.run().tasks.values()] == [1, 2, 1]
    assert count(here, ev.RunReopened) == 1


async def test_retrying_within_a_run_under_way(autojump_clock: MockClock) -> None:
    """A task that has failed can be tried again while its siblings still run."""
    here = town({"1": (Script(exit=1), Script()), "2": Script(duration=20.0)})
    async with here.life() as life:
        await life.submit(plan(task(1), task(2)))
        await life.until(lambda world: world.runs["run1"].tasks["1"].outcome is not None)
        await life.orchestrator.retry("run1", ("1",))
        await life.orchestrator.wait_idle()
        assert outcomes(life) == [Outcome.SUCCEEDED] * 2
    assert count(here, ev.RunReopened) == 0


async def test_retrying_in_a_run_that_was_interrupted(autojump_clock: MockClock) -> None:
    """A retry in a run that was interrupted takes the whole run up again."""
    here = town({"1": Script(exit=1), "2": FOREVER})
    async with here.life() as life:
        await life.submit(plan(task(1), task(2)))
        await life.until(lambda world: world.runs["run1"].tasks["1"].outcome is not None)
        await life.orchestrator.interrupt("received SIGINT")
    here.scripts = lambda spec: Script()
    async with here.life() as life:
        await life.orchestrator.retry("run1", ("1",))
        await life.orchestrator.wait_idle()
        assert outcomes(life) == [Outcome.SUCCEEDED] * 2
        assert life.run().state is RunState.ENDED


@pytest.mark.parametrize("eighths", range(0, 40, 2))
async def test_a_retry_while_the_run_ends(eighths: int, autojump_clock: MockClock) -> None:
    """A retry at the very moment its run ends is not lost: the task runs again, and the run ends once more."""
    here = town({"1": (Script(exit=1), Script())})
    async with here.life() as life:
        await life.submit(ONE)
        await life.until(lambda world: world.runs["run1"].tasks["1"].outcome is not None)
        await trio.sleep(WRITE_TIME * eighths / 8)
        await life.orchestrator.retry("run1")
        await life.orchestrator.wait_idle()
        assert outcomes(life) == [Outcome.SUCCEEDED]
        assert (life.run().state, life.run().outcome) == (RunState.ENDED, Outcome.SUCCEEDED)


# --- leaving ----------------------------------------------------------------------


async def test_a_supervisor_that_leaves_takes_no_new_work(autojump_clock: MockClock) -> None:
    """From the moment it is asked to leave, a supervisor refuses plans, retries and runs to continue."""
    here = town({"1": Script(duration=math.inf, ignores_terminate_for=5.0), "2": Script(exit=1)})
    async with here.life() as life, trio.open_nursery() as nursery:
        await life.submit(plan(task(2)), key="/old")
        await life.orchestrator.wait_idle()
        await life.submit(ONE)
        await running(life)
        willing = [life.orchestrator.accepting]
        nursery.start_soon(life.orchestrator.interrupt, "received SIGINT")
        await trio.sleep(1.0)
        assert [*willing, life.orchestrator.accepting] == [True, False]
        for verb in (
            lambda: life.submit(ONE, key="/other"),
            lambda: life.orchestrator.retry("run1"),
            lambda: life.orchestrator.continue_run("run2"),
        ):
            with pytest.raises(SupervisionError, match="leaving"):
                await verb()
    assert count(here, ev.RunStarted) == 2


async def test_a_plan_that_waits_for_its_turn_while_the_supervisor_leaves(autojump_clock: MockClock) -> None:
    """A fresh run that still waits for the end of the old one is refused when the supervisor is asked to leave."""
    here = town({"1": Script(duration=math.inf, ignores_terminate_for=5.0)})
    refused: list[SupervisionError] = []

    async with here.life() as life, trio.open_nursery() as nursery:

        async def fresh() -> None:
            try:
                await life.submit(ONE, fresh=True)
            except SupervisionError as error:
                refused.append(error)

        await life.submit(ONE)
        await running(life)
        nursery.start_soon(fresh)
        nursery.start_soon(fresh)
        await trio.sleep(1.0)
        await life.orchestrator.interrupt("received SIGINT")
    assert len(refused) == 2
    assert count(here, ev.RunStarted) == 1


@pytest.mark.parametrize("eighths", range(0, 48, 3))
async def test_an_interruption_at_any_moment_of_a_start(eighths: int, autojump_clock: MockClock) -> None:
    """Whatever is being begun when the interruption comes, nothing runs when it returns, and nothing was waited for."""
    here = town({"1": FOREVER, "2": FOREVER})
    start = trio.current_time()
    async with here.life() as life:
        await life.submit(plan(task(1), task(2)))
        await trio.sleep(WRITE_TIME * eighths / 8)
        await life.orchestrator.interrupt("received SIGINT")
        assert trio.current_time() - start < 1.0
        assert not here.machine.live
        assert len(life.supervisor) == 0
        assert life.run().state is RunState.INTERRUPTED
        assert outcomes(life) == [None, None]


async def test_hurry(autojump_clock: MockClock) -> None:
    """An interruption that is hurried does not wait for the grace of any session."""
    here = town({"1": Script(duration=math.inf, ignores_terminate_for=math.inf)})
    async with here.life() as life, trio.open_nursery() as nursery:
        await life.submit(ONE)
        await running(life)
        nursery.start_soon(life.orchestrator.interrupt, "received SIGINT")
        await trio.sleep(2.0)
        start = trio.current_time()
        life.orchestrator.hurry()
        await life.orchestrator.wait_idle()
        assert trio.current_time() - start < 0.1


async def test_a_run_has_one_driver(autojump_clock: MockClock) -> None:
    """Two who continue the same run at the same moment do not begin its tasks twice."""
    here = town({"1": FOREVER})
    async with here.life() as life:
        await life.submit(ONE)
        await running(life)
        await life.orchestrator.interrupt("received SIGINT")
    here.scripts = lambda spec: Script(duration=3.0)
    async with here.life() as life:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life.orchestrator.continue_run, "run1")
            nursery.start_soon(life.orchestrator.continue_run, "run1")
        await life.orchestrator.wait_idle()
        await wait_all_tasks_blocked()
    assert len(here.machine.starts) == 2
    assert not here.machine.overlaps
    assert count(here, ev.RunEnded) == 1


async def test_live_sessions_are_known_by_their_id(autojump_clock: MockClock) -> None:
    """A session can be had for as long as it runs here, and not longer."""
    here = town({"1": Script(duration=5.0)})
    async with here.life() as life:
        await life.submit(ONE)
        await running(life)
        await trio.sleep(1.0)
        session = life.orchestrator.live_session("run1-1a1-s0")
        assert session is not None
        assert session.spec.task_id == "1"
        await life.orchestrator.wait_idle()
        assert life.orchestrator.live_session("run1-1a1-s0") is None


# --- slots ------------------------------------------------------------------------


async def test_slots_are_given_in_the_order_in_which_they_were_asked_for(autojump_clock: MockClock) -> None:
    """Runs that wait for a slot get it first come, first served, however the run that has it goes on."""
    here = town({name: Script(duration=1.0) for name in ("1", "2", "3")}, max_concurrent=1)
    async with here.life() as life:
        for number in range(1, 5):
            await life.submit(plan(task(1), task(2)), key=f"/{number}.md")
        await life.orchestrator.wait_idle()
    starts = [event.run_id for event in here.events if isinstance(event, ev.SessionStarting)]
    # The first one asked for its second slot before the others were there; they share the rest in turns.
    assert starts == [f"run{number}" for number in (1, 1, 2, 3, 4, 2, 3, 4)]
    assert here.machine.peak == 1


async def test_a_slot_that_becomes_free_wakes_one_run(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many runs wait for a slot, one that becomes free is decided about a bounded number of times."""
    decided = 0

    def counting(*args: Any, **facts: Any) -> RunDecision:
        nonlocal decided
        decided += 1
        return decide_run(*args, **facts)

    monkeypatch.setattr(driver, "decide_run", counting)
    here = town({"1": Script(duration=1.0)}, max_concurrent=2)
    async with here.life() as life:
        for number in range(60):
            await life.submit(ONE, key=f"/{number}.md")
        await life.orchestrator.wait_idle()
        assert all(run.outcome is Outcome.SUCCEEDED for run in life.world.runs.values())
    assert decided <= 60 * 5


async def test_a_run_that_leaves_the_queue_does_not_keep_a_slot_from_others(autojump_clock: MockClock) -> None:
    """A run that is cancelled while it waits for a slot leaves it to the next one."""
    here = town({"1": Script(duration=5.0)}, max_concurrent=1)
    async with here.life() as life:
        for number in range(1, 4):
            await life.submit(ONE, key=f"/{number}.md")
        await running(life)
        await life.orchestrator.cancel_run("run2")
        await life.orchestrator.wait_idle()
        assert [life.run(f"run{n}").outcome for n in (1, 2, 3)] == [
            Outcome.SUCCEEDED,
            Outcome.CANCELLED,
            Outcome.SUCCEEDED,
        ]
