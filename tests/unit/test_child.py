"""One task under supervision: time limits, stops at every moment, and what a new supervisor goes on with."""

from __future__ import annotations

import math
import signal
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from kasmos.daemon.wire import task_status
from kasmos.model import event as ev
from kasmos.model.event import Event
from kasmos.model.plan import Check, RunSettings
from kasmos.model.profile import AgentProfile, ExecutionMode, RestartPolicy, StopPolicy
from kasmos.model.session import ExitStatus, SessionSpec, StopReason
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.view import BackingOff, Ended, RunState, SessionState, TaskView
from kasmos.sessions.script import Fail, Hang, NoRoom, Script
from kasmos.supervision.attendant import TAIL_LINES
from kasmos.supervision.child import START_PATIENCE, Child
from tests.simulation import WRITE_TIME, Life, Town, plan, profile, task, town

FOREVER = Script(duration=math.inf)
STUBBORN = attrs.evolve(FOREVER, ignores_terminate_for=math.inf)
STEADY = RestartPolicy(backoff=8.0, backoff_max=60.0, jitter=0.0)


def near(seconds: float) -> Any:
    """That many seconds, and the time of a few commits."""
    return pytest.approx(seconds + 10 * WRITE_TIME, abs=10 * WRITE_TIME)


def kinds(here: Town, *classes: type[Event]) -> list[Event]:
    return [event for event in here.events if isinstance(event, classes)]


def ended(view: TaskView) -> tuple[Outcome, CauseKind]:
    assert isinstance(view.state, Ended)
    return view.state.outcome, view.state.cause.kind


def cause(view: TaskView) -> Cause:
    assert isinstance(view.state, Ended)
    return view.state.cause


def one(script: Script | tuple[Script, ...], **changes: Any) -> Town:
    """A town with one task that does that."""
    return town({"1": script}, **changes)


async def begin(life: Life, **settings: Any) -> Child:
    """Hand in a plan of one task; its child, once its program runs."""
    await life.submit(plan(task(1)), settings=RunSettings(**settings))
    await life.until(lambda world: any(view.state is SessionState.RUNNING for view in world.sessions.values()))
    return life.supervisor.children("run1")["1"]


async def finish(life: Life) -> TaskView:
    await life.orchestrator.wait_idle()
    return life.task("1")


# --- time -------------------------------------------------------------------------


async def test_a_timeout_comes_at_its_instant(autojump_clock: MockClock) -> None:
    """A program is asked to end when its time is over, to the instant, and its task has timed out."""
    here = one(FOREVER)
    async with here.life() as life:
        await life.submit(plan(task(1, timeout=30.0)))
        view = await finish(life)
    assert ended(view) == (Outcome.TIMED_OUT, CauseKind.TIMEOUT)
    session = here.machine.programs[view.sessions[0]]
    assert session.signals == [signal.SIGTERM]
    world = life.world.sessions[view.sessions[0]]
    assert world.stop_mono is not None
    assert world.started_mono is not None
    assert world.stop_mono - world.started_mono == pytest.approx(30.0, abs=1e-9)
    assert cause(view).message == "timed out after its limit of 30s"


@pytest.mark.parametrize(
    ("of_task", "of_profile", "of_run", "expected"),
    [(5.0, 7.0, 9.0, 5.0), (None, 7.0, 9.0, 7.0), (None, None, 9.0, 9.0), (None, None, None, 1000.0)],
)
async def test_whose_timeout_counts(
    of_task: float | None, of_profile: float | None, of_run: float | None, expected: float, autojump_clock: MockClock
) -> None:
    """The task's own limit counts before the profile's, and that before the run's; without one there is none."""
    here = one(attrs.evolve(FOREVER, duration=1000.0), profiles={"a": profile(timeout=of_profile)})
    start = trio.current_time()
    async with here.life() as life:
        await life.submit(plan(task(1, timeout=of_task)), settings=RunSettings(task_timeout=of_run))
        await finish(life)
        assert trio.current_time() - start == near(expected)


async def test_exit_0_after_the_time_was_over_is_no_success(autojump_clock: MockClock) -> None:
    """A program that answers its timeout by exit 0 has timed out all the same."""
    here = one(attrs.evolve(FOREVER, ends_on_terminate_with=ExitStatus(code=0)))
    async with here.life() as life:
        await life.submit(plan(task(1, timeout=5.0)))
        assert ended(await finish(life)) == (Outcome.TIMED_OUT, CauseKind.TIMEOUT)


async def test_a_check_has_a_time_limit_of_its_own(autojump_clock: MockClock) -> None:
    """A check that takes too long fails its task by timeout; where it has no limit, it has the task's."""
    for limit, expected in ((4.0, 4.0), (None, 20.0)):
        here = town({"1/0": FOREVER})
        start = trio.current_time()
        async with here.life() as life:
            await life.submit(plan(task(1, timeout=20.0, checks=(Check("make test", timeout=limit),))))
            view = await finish(life)
            assert trio.current_time() - start == near(expected)
        assert ended(view) == (Outcome.TIMED_OUT, CauseKind.TIMEOUT)
        assert cause(view).message.startswith("check 1 (make test): timed out")


# --- a stop, whatever the child is doing ------------------------------------------


@pytest.mark.parametrize(
    ("reason", "outcome", "kind"),
    [
        (StopReason.REQUESTED, Outcome.CANCELLED, CauseKind.STOPPED),
        (StopReason.CANCELLED, Outcome.CANCELLED, CauseKind.RUN_CANCELLED),
        (StopReason.FAIL_FAST, Outcome.CANCELLED, CauseKind.FAIL_FAST),
    ],
)
@pytest.mark.parametrize("moment", ["starting", "running", "backing off", "checking"])
async def test_a_stop_at_any_moment(
    moment: str, reason: StopReason, outcome: Outcome, kind: CauseKind, autojump_clock: MockClock
) -> None:
    """A task can be stopped while it starts, runs, backs off or is checked, and ends at once, for the reason given."""
    scripts = {
        "starting": Script(start=Hang()),
        "running": FOREVER,
        "backing off": Script(exit=1),
        "checking": Script(),
    }
    here = town(
        {"1": scripts[moment], "1/0": FOREVER},
        profiles={"a": profile(restart=attrs.evolve(STEADY, backoff=1000.0, backoff_max=1000.0))},
    )
    async with here.life() as life:
        await life.submit(plan(task(1, checks=(Check("true"),))), settings=RunSettings(retries=3))
        await trio.sleep(5.0)
        start = trio.current_time()
        life.supervisor.children("run1")["1"].request_stop(reason)
        assert ended(await finish(life)) == (outcome, kind)
        assert trio.current_time() - start == near(0.0)
    assert not here.machine.live
    assert len(here.machine.starts) == {"starting": 0, "checking": 2}.get(moment, 1)


@pytest.mark.parametrize("moment", ["starting", "running", "backing off", "checking"])
async def test_an_interruption_at_any_moment(moment: str, autojump_clock: MockClock) -> None:
    """A task that is interrupted goes back to pending, whatever it was doing, and nothing of it runs."""
    scripts = {"starting": Script(start=Hang()), "running": FOREVER, "backing off": Script(exit=1)}
    here = town({"1": scripts.get(moment, Script()), "1/0": FOREVER}, profiles={"a": profile(restart=STEADY)})
    async with here.life() as life:
        await life.submit(plan(task(1, checks=(Check("true"),))), settings=RunSettings(retries=3))
        await trio.sleep(5.0)
        await life.orchestrator.interrupt("received SIGINT")
        assert life.task("1").outcome is None
        assert life.run().state is RunState.INTERRUPTED
    assert kinds(here, ev.TaskPutBack) == [ev.TaskPutBack("run1", "1", "interrupted")]
    assert not here.machine.live


@pytest.mark.parametrize("eighths", range(0, 48, 3))
async def test_a_stop_at_any_moment_of_a_start(eighths: int, autojump_clock: MockClock) -> None:
    """A stop gets through to a task from the moment it has a child, also where its start would hang for ever."""
    here = one(Script(start=Hang()))
    async with here.life() as life:
        await life.submit(plan(task(1)))
        await life.until(lambda world: 1 in world.runs["run1"].waves_started)
        while not (children := life.supervisor.children("run1")):
            await trio.lowlevel.checkpoint()
        start = trio.current_time()
        await trio.sleep(WRITE_TIME * eighths / 8)
        children["1"].request_stop(StopReason.REQUESTED)
        assert ended(await finish(life)) == (Outcome.CANCELLED, CauseKind.STOPPED)
        assert trio.current_time() - start == near(0.0)
    assert not here.machine.starts


async def test_a_stop_between_a_session_and_its_check(autojump_clock: MockClock) -> None:
    """A stop that comes after the program ended and before its check began keeps the check from beginning."""
    here = one(Script(duration=5.0))
    async with here.life() as life:
        await life.submit(plan(task(1, checks=(Check("true"),))))
        await life.until(lambda world: bool(world.sessions) and not life.session("1").state.live)
        # The child has asked for nothing yet: this runs before it.
        life.supervisor.children("run1")["1"].request_stop(StopReason.REQUESTED)
        view = await finish(life)
    assert ended(view)[0] is Outcome.CANCELLED
    assert all(here.machine.programs[name].exit is not None for name in view.sessions if name in here.machine.programs)


async def test_the_first_reason_counts(autojump_clock: MockClock) -> None:
    """A stop does not become another one by being asked for again."""
    here = one(attrs.evolve(STUBBORN))
    async with here.life() as life:
        child = await begin(life)
        child.request_stop(StopReason.REQUESTED)
        await trio.sleep(1.0)
        child.request_stop(StopReason.INTERRUPTED)
        assert ended(await finish(life)) == (Outcome.CANCELLED, CauseKind.STOPPED)


async def test_who_led_to_a_stop_is_told(autojump_clock: MockClock) -> None:
    """The cause of a task that was stopped names the tasks whose end led to it, and its own evidence."""
    here = one(attrs.evolve(FOREVER, output=((0.0, b"half done\n"),)))
    async with here.life() as life:
        child = await begin(life)
        child.request_stop(StopReason.FAIL_FAST, Cause(CauseKind.FAIL_FAST, "task 2 failed", because_of=("2",)))
        found = cause(await finish(life))
    assert (found.kind, found.because_of, found.tail) == (CauseKind.FAIL_FAST, ("2",), "half done")
    assert found.exit == ExitStatus(signal=signal.SIGTERM)


async def test_hurry_cuts_a_stop_short(autojump_clock: MockClock) -> None:
    """A stop that is hurried goes to SIGKILL at once."""
    here = one(STUBBORN, profiles={"a": profile(stop=StopPolicy(stop_grace=500.0))})
    async with here.life() as life:
        child = await begin(life)
        child.request_stop(StopReason.REQUESTED)
        await trio.sleep(3.0)
        start = trio.current_time()
        child.hurry()
        view = await finish(life)
        assert trio.current_time() - start == near(0.0)
    assert cause(view).exit == ExitStatus(signal=signal.SIGKILL)


async def test_a_timeout_and_a_stop_during_it(autojump_clock: MockClock) -> None:
    """A task that is stopped while its timeout is being enforced is not tried again."""
    here = one(STUBBORN, profiles={"a": profile(restart=STEADY)})
    async with here.life() as life:
        await life.submit(plan(task(1, timeout=5.0)), settings=RunSettings(retries=3))
        await trio.sleep(7.0)
        life.supervisor.children("run1")["1"].request_stop(StopReason.REQUESTED)
        assert ended(await finish(life)) == (Outcome.CANCELLED, CauseKind.STOPPED)
    assert len(here.machine.starts) == 1


# --- starts -----------------------------------------------------------------------


async def test_a_start_that_fails_is_an_attempt(autojump_clock: MockClock) -> None:
    """A program that cannot be started is tried again like one that failed, and the last reason is the cause."""
    here = one((Script(start=Fail("no such file")), Script(start=Fail("fork failed"))))
    async with here.life() as life:
        await life.submit(plan(task(1)), settings=RunSettings(retries=1))
        view = await finish(life)
    assert ended(view) == (Outcome.FAILED, CauseKind.START)
    assert cause(view).message == "could not be started: fork failed (attempt 2 of 2)"
    assert [life.world.sessions[name].state for name in view.sessions] == [SessionState.START_FAILED] * 2


@pytest.mark.parametrize(("timeout", "bound"), [(40.0, 40.0), (0.5, START_PATIENCE)])
async def test_a_start_that_hangs_is_given_up(timeout: float, bound: float, autojump_clock: MockClock) -> None:
    """A start is bounded by the task's limit; but a busy machine is given a moment, however short the limit."""
    here = one(Script(start=Hang()))
    start = trio.current_time()
    async with here.life() as life:
        await life.submit(plan(task(1, timeout=timeout)))
        view = await finish(life)
        assert trio.current_time() - start == near(bound)
    assert ended(view) == (Outcome.TIMED_OUT, CauseKind.TIMEOUT)
    assert life.world.sessions[view.sessions[0]].state is SessionState.NEVER_STARTED
    assert not here.machine.starts


async def test_a_slow_start_does_not_count_as_running_time(autojump_clock: MockClock) -> None:
    """The limit of a task begins when its program runs."""
    here = one(Script(start=Hang(4.0), duration=2.5))
    async with here.life() as life:
        await life.submit(plan(task(1, timeout=3.0)))
        assert ended(await finish(life)) == (Outcome.SUCCEEDED, CauseKind.DONE)


# --- ends -------------------------------------------------------------------------


async def test_the_tail_of_a_failure(autojump_clock: MockClock) -> None:
    """The cause of a failure holds the last lines of what the program wrote, decoded with replacement."""
    lines = b"".join(b"line %d\n" % number for number in range(100)) + b"broken \xff"
    here = one(Script(output=((1.0, lines),), exit=3))
    async with here.life() as life:
        await life.submit(plan(task(1)))
        found = cause(await finish(life))
    assert found.tail.splitlines() == [
        *(f"line {number}" for number in range(101 - TAIL_LINES, 100)),
        "broken \N{REPLACEMENT CHARACTER}",
    ]
    assert (found.message, found.exit) == ("exit 3", ExitStatus(code=3))
    assert life.session("1").output_bytes == len(lines)


async def test_a_program_that_is_lost(autojump_clock: MockClock) -> None:
    """A program whose fate cannot be learnt makes its task lost, and is tried again only if the profile says so."""
    for again, attempts in ((False, 1), (True, 2)):
        here = one(attrs.evolve(FOREVER, lost=3.0), profiles={"a": profile(restart=STEADY, retry_lost=again)})
        async with here.life() as life:
            await life.submit(plan(task(1)), settings=RunSettings(retries=1))
            view = await finish(life)
        assert ended(view) == (Outcome.LOST, CauseKind.LOST)
        assert len(view.sessions) == attempts
        assert "fate" in cause(view).message


async def test_a_program_lost_while_it_is_stopped_says_so(autojump_clock: MockClock) -> None:
    """A program that is lost during its stop is not said to have survived a SIGKILL that nobody sent."""
    here = one(attrs.evolve(STUBBORN, lost=8.0))
    async with here.life() as life:
        await life.submit(plan(task(1, timeout=5.0)))
        found = cause(await finish(life))
    assert found.kind is CauseKind.LOST
    assert "SIGKILL" not in found.message


async def test_an_unkillable_program_is_given_up_and_never_run_beside(autojump_clock: MockClock) -> None:
    """What survives SIGKILL is lost within one bound, and not tried again even where losses are."""
    here = one(attrs.evolve(STUBBORN, unkillable=True), profiles={"a": profile(restart=STEADY, retry_lost=True)})
    start = trio.current_time()
    async with here.life() as life:
        await life.submit(plan(task(1, timeout=5.0)), settings=RunSettings(retries=5))
        view = await finish(life)
        assert trio.current_time() - start == near(5.0 + 10.0 + 5.0 + 5.0)
    assert ended(view) == (Outcome.LOST, CauseKind.LOST)
    assert "survived SIGKILL" in cause(view).message
    assert len(here.machine.starts) == 1
    assert len(kinds(here, ev.KillSent)) == len(kinds(here, ev.StopRequested)) == 1


# --- recipes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profiles", "words"),
    [
        ({}, "agent 'a' is not configured"),
        ({"a": profile(enabled=False)}, "agent 'a' is disabled"),
        ({"a": profile(flags=("--model", "{model}"))}, "names no model"),
    ],
)
async def test_what_cannot_be_cooked_fails_its_own_task(
    profiles: dict[str, AgentProfile], words: str, autojump_clock: MockClock
) -> None:
    """A task that cannot be run as configured fails, with the reason and without a session; nothing else does."""
    here = town({}, profiles={"b": attrs.evolve(profile(), name="b"), **profiles})
    async with here.life() as life:
        await life.submit(plan(task(1), task(2, agent="b")))
        await life.orchestrator.wait_idle()
    assert ended(life.task("1")) == (Outcome.FAILED, CauseKind.CONFIG)
    assert words in cause(life.task("1")).message
    assert life.task("1").sessions == ()
    assert ended(life.task("2")) == (Outcome.SUCCEEDED, CauseKind.DONE)
    assert not here.bugs


async def test_a_bug_of_ours_ends_one_task_only(autojump_clock: MockClock) -> None:
    """An error that no part of kasmos expects ends its task as lost, is reported whole, and the siblings go on."""

    def scripts(spec: Any) -> Script:
        if spec.task_id == "1":
            raise ZeroDivisionError("planted")
        return Script(duration=10.0)

    here = Town(scripts, {"a": profile()})
    async with here.life() as life:
        await life.submit(plan(task(1), task(2)))
        await life.orchestrator.wait_idle()
        assert ended(life.task("1")) == (Outcome.LOST, CauseKind.INTERNAL)
        found = cause(life.task("1"))
        assert "planted" in found.message
        assert "Traceback" in found.tail
        assert ended(life.task("2")) == (Outcome.SUCCEEDED, CauseKind.DONE)
        assert life.run().outcome is Outcome.FAILED
    [reported] = here.bugs
    assert "planted" in reported


# --- a supervisor succeeds another ------------------------------------------------


async def crash_after(here: Town, seconds: float, document: Any, **settings: Any) -> None:
    """Live until so many seconds after the plan was handed in, and die."""

    async def body(life: Life) -> None:
        await life.submit(document, settings=RunSettings(**settings))
        await trio.sleep(seconds)
        life.crash()
        await trio.sleep_forever()

    await here.live(body)


async def test_a_deadline_survives_its_supervisor(autojump_clock: MockClock) -> None:
    """Time that passed before the supervisor died, and while there was none, counts towards the limit."""
    here = one(FOREVER)
    start = trio.current_time()
    await crash_after(here, 10.0, plan(task(1, timeout=30.0)))
    await trio.sleep(5.0)
    async with here.life() as life:
        assert ended(await finish(life)) == (Outcome.TIMED_OUT, CauseKind.TIMEOUT)
        assert trio.current_time() - start == near(30.0)
    assert list(here.machine.starts.values()) == [1]
    assert kinds(here, ev.SessionAdopted) == [ev.SessionAdopted("run1-1a1-s0", None)]


async def test_a_deadline_that_passed_while_there_was_no_supervisor(autojump_clock: MockClock) -> None:
    """A program whose time ran out while nobody watched is stopped at once by the next supervisor."""
    here = one(FOREVER)
    await crash_after(here, 10.0, plan(task(1, timeout=30.0)))
    await trio.sleep(100.0)
    start = trio.current_time()
    async with here.life() as life:
        assert ended(await finish(life)) == (Outcome.TIMED_OUT, CauseKind.TIMEOUT)
        assert trio.current_time() - start == near(0.0)


async def test_a_back_off_survives_its_supervisor(autojump_clock: MockClock) -> None:
    """A back-off goes on where it was: its time is counted from the failure, not from the new supervisor."""
    here = one((Script(exit=1), Script()), profiles={"a": profile(restart=attrs.evolve(STEADY, backoff=60.0))})
    start = trio.current_time()
    await crash_after(here, 20.0, plan(task(1)), retries=1)
    async with here.life() as life:
        assert isinstance(life.task("1").state, BackingOff)
        assert ended(await finish(life)) == (Outcome.SUCCEEDED, CauseKind.DONE)
        assert trio.current_time() - start == near(60.0)
    assert len(kinds(here, ev.TaskRetryScheduled)) == 1


async def test_a_stop_under_way_survives_its_supervisor(autojump_clock: MockClock) -> None:
    """A stop that was under way is finished by the next supervisor, with what is left of its grace."""
    here = one(STUBBORN)
    start = trio.current_time()

    async def body(life: Life) -> None:
        child = await begin(life)
        child.request_stop(StopReason.REQUESTED)
        await trio.sleep(4.0)
        life.crash()
        await trio.sleep_forever()

    await here.live(body)
    async with here.life() as life:
        assert ended(await finish(life)) == (Outcome.CANCELLED, CauseKind.STOPPED)
        assert trio.current_time() - start == near(10.0)
    assert len(kinds(here, ev.StopRequested)) == 1
    assert next(iter(here.machine.programs.values())).signals[-1] == signal.SIGKILL


async def test_a_kill_under_way_survives_its_supervisor(autojump_clock: MockClock) -> None:
    """Where politeness was over when the supervisor died, the next one is not polite again for long."""
    here = one(STUBBORN)

    async def body(life: Life) -> None:
        child = await begin(life)
        child.request_stop(StopReason.REQUESTED)
        await life.until(lambda world: world.sessions["run1-1a1-s0"].stop_reason is not None)
        life.journal.append_nowait(ev.KillSent("run1-1a1-s0"))
        await life.until(lambda world: world.sessions["run1-1a1-s0"].killed)
        life.crash()
        await trio.sleep_forever()

    await here.live(body)
    assert here.machine.live
    start = trio.current_time()
    async with here.life() as life:
        assert ended(await finish(life)) == (Outcome.CANCELLED, CauseKind.STOPPED)
        assert trio.current_time() - start == near(0.0)


async def test_an_end_that_nobody_saw(autojump_clock: MockClock) -> None:
    """A program that ended while there was no supervisor is not run again: its exit is what counts."""
    here = one((Script(duration=20.0, exit=4), Script()))
    await crash_after(here, 10.0, plan(task(1)))
    await trio.sleep(100.0)
    async with here.life() as life:
        view = await finish(life)
    assert ended(view) == (Outcome.FAILED, CauseKind.EXIT)
    assert list(here.machine.starts.values()) == [1]
    # There was nothing to take hold of any more.
    assert not kinds(here, ev.SessionAdopted)


async def test_an_end_in_time_that_nobody_saw_is_no_timeout(autojump_clock: MockClock) -> None:
    """A program that ended within its limit has not timed out, however late the next supervisor learns of it."""
    here = one(Script(duration=20.0))
    await crash_after(here, 10.0, plan(task(1, timeout=30.0)))
    await trio.sleep(100.0)
    async with here.life() as life:
        assert ended(await finish(life)) == (Outcome.SUCCEEDED, CauseKind.DONE)
    assert not kinds(here, ev.StopRequested)


async def test_detaching_leaves_the_program_to_the_next_supervisor(autojump_clock: MockClock) -> None:
    """A supervisor that leaves by detaching has said so, and its successor goes on with the same program."""
    here = one(Script(duration=50.0))
    async with here.life() as life:
        await begin(life)
        life.supervisor.detach_all()
    assert kinds(here, ev.SessionDetached) == [ev.SessionDetached("run1-1a1-s0")]
    assert here.machine.live == ("run1-1a1-s0",)
    async with here.life() as life:
        assert ended(await finish(life)) == (Outcome.SUCCEEDED, CauseKind.DONE)
    assert list(here.machine.starts.values()) == [1]
    assert not here.machine.programs["run1-1a1-s0"].signals


async def test_a_backend_that_is_gone(autojump_clock: MockClock) -> None:
    """A task whose backend this supervisor does not have fails with what would be available."""
    here = one(FOREVER, profiles={"a": profile()})
    async with here.life() as life:
        await life.submit(plan(task(1), task(2, agent="t")))
        here.profiles["t"] = attrs.evolve(profile(), name="t", execution_mode=ExecutionMode.TMUX)
        await life.until(lambda world: world.runs["run1"].tasks["2"].outcome is not None)
        assert ended(life.task("2")) == (Outcome.FAILED, CauseKind.CONFIG)
        assert "headless" in cause(life.task("2")).message
        life.supervisor.children("run1")["1"].request_stop(StopReason.REQUESTED)
        await life.orchestrator.wait_idle()


# --- a full disk ------------------------------------------------------------------


class Disk:
    """A disk that is full, or not: then nothing can be started, or only no check."""

    def __init__(self, *, checks_only: bool = False) -> None:
        self.full = True
        self._checks_only = checks_only

    def scripts(self, spec: SessionSpec) -> Script:
        wanted = not self._checks_only or spec.check is not None
        return Script(start=NoRoom()) if self.full and wanted else Script()

    def town(self) -> Town:
        return Town(self.scripts, {"a": profile()}, is_full=lambda: self.full)


async def test_a_start_without_room_is_no_failure(autojump_clock: MockClock) -> None:
    """A task for which the disk has no room waits, spends no attempt, and begins when there is room."""
    disk = Disk()
    here = disk.town()
    async with here.life() as life:
        await life.submit(plan(task(1), task(2)))
        await life.until(lambda world: bool(kinds(here, ev.SessionNeverStarted)))
        await trio.sleep(1000.0)
        assert task_status(life.task("1")) == "waiting"
        disk.full = False
        view = await finish(life)
    assert ended(view) == (Outcome.SUCCEEDED, CauseKind.DONE)
    assert (view.attempts, view.failures) == (1, ())
    # Nobody goes on trying where it is known that there is none.
    assert len(kinds(here, ev.SessionStarting)) <= 4
    assert len(here.said) == 2


async def test_a_check_without_room_is_no_failure(autojump_clock: MockClock) -> None:
    """A check for which the disk has no room waits for it; what was done before is not done again."""
    disk = Disk(checks_only=True)
    here = disk.town()
    async with here.life() as life:
        await life.submit(plan(task(1, checks=(Check("make test"),))))
        await life.until(lambda world: bool(kinds(here, ev.SessionNeverStarted)))
        disk.full = False
        view = await finish(life)
    assert ended(view) == (Outcome.SUCCEEDED, CauseKind.DONE)
    assert [one.attempt for one in kinds(here, ev.SessionStarting) if isinstance(one, ev.SessionStarting)] == [1, 1, 1]


async def test_what_waits_for_room_outlives_its_supervisor(autojump_clock: MockClock) -> None:
    """A supervisor that is killed while a task waits for room leaves a task that waits, and the next one begins it."""
    disk = Disk()
    here = disk.town()
    await crash_after(here, 50.0, plan(task(1)))
    async with here.life() as life:
        await trio.sleep(50.0)
        assert task_status(life.task("1")) == "waiting"
        disk.full = False
        view = await finish(life)
    assert ended(view) == (Outcome.SUCCEEDED, CauseKind.DONE)
    assert (view.attempts, view.failures) == (1, ())


@pytest.mark.parametrize(
    ("reason", "outcome"), [(StopReason.REQUESTED, Outcome.CANCELLED), (StopReason.INTERRUPTED, None)]
)
async def test_what_waits_for_room_can_be_stopped(
    reason: StopReason, outcome: Outcome | None, autojump_clock: MockClock
) -> None:
    """A task that waits for room ends at once when it is stopped, and is put back when its supervisor leaves."""
    here = Disk().town()
    async with here.life() as life:
        await life.submit(plan(task(1)))
        await life.until(lambda world: bool(kinds(here, ev.SessionNeverStarted)))
        await trio.sleep(10.0)
        start = trio.current_time()
        life.orchestrator.refuse("leaving")
        life.supervisor.children("run1")["1"].request_stop(reason)
        view = await finish(life)
        assert trio.current_time() - start == near(0.0)
    assert view.outcome is outcome
    assert task_status(view) == ("queued" if outcome is None else "cancelled")


async def test_room_that_is_not_enough(autojump_clock: MockClock) -> None:
    """Where there is room and it is not enough for a task, it is tried ever more rarely."""
    disk = Disk()
    here = Town(disk.scripts, {"a": profile()})
    async with here.life() as life:
        await life.submit(plan(task(1)))
        await trio.sleep(3600.0)
        assert 60 < len(kinds(here, ev.SessionStarting)) < 200
        disk.full = False
        assert ended(await finish(life)) == (Outcome.SUCCEEDED, CauseKind.DONE)
