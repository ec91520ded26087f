"""Runs go through their waves as their plan and policy say, and every one of them ends."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.model import event as ev
from kasmos.model.event import Event
from kasmos.model.plan import OnFailure, Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import SessionKind
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.view import Active, BackingOff, Ended, Pending, RunState, RunView, TaskView
from kasmos.orchestration.retry import tasks_to_retry
from kasmos.orchestration.scheduler import RunDecision, decide_run, parked_after
from tests import strategies
from tests.strategies import Ledger

DONE = Cause(CauseKind.DONE, "exit 0")
BROKEN = Cause(CauseKind.EXIT, "exit 3")


def plan_of(text: str) -> Plan:
    """Read a plan in short: waves separated by `/`, tasks by spaces, `3<1,2` needs 1 and 2."""
    waves = []
    for number, names in enumerate(text.split("/"), 1):
        tasks = []
        for name in names.split():
            task_id, _, needs = name.partition("<")
            needed = tuple(filter(None, needs.split(",")))
            tasks.append(PlanTask(id=task_id, number=int(task_id), wave=number, title="", body="", needs=needed))
        waves.append(Wave(number, tuple(tasks)))
    return Plan(tuple(waves))


class Run(Ledger):
    """A run under way, with the set of tasks that have a child."""

    def __init__(self, plan: str | Plan, *, slots: int = 9, **settings: object) -> None:
        plan = plan_of(plan) if isinstance(plan, str) else plan
        kept = attrs.evolve(RunSettings(max_concurrent=9), **settings)  # type: ignore[arg-type]
        super().__init__(strategies.started(plan, kept))
        self.busy: set[str] = set()
        self.slots = slots

    @property
    def view(self) -> RunView:
        return self.world.runs["r1"]

    def task(self, name: str) -> TaskView:
        return self.view.tasks[name]

    def decide(self, slots: int | None = None) -> RunDecision:
        free = self.slots - len(self.busy) if slots is None else slots
        return decide_run(self.view, busy=frozenset(self.busy), free_slots=free)

    def turn(self, slots: int | None = None) -> RunDecision:
        """Decide, commit and start, as an orchestrator does."""
        decision = self.decide(slots)
        self.commit(*decision.events)
        for name in decision.start:
            self.busy.add(name)
            if isinstance(self.task(name).state, Pending):
                self.begin(name)
        return decision

    def begin(self, name: str) -> None:
        attempt = self.task(name).attempts + 1
        session = f"{name}-{len(self.records)}"
        self.commit(
            ev.SessionStarting(session, name, SessionKind.AGENT, ExecutionMode.SCRIPTED, "b", "r1", name, attempt)
        )

    def end(self, name: str, outcome: Outcome = Outcome.SUCCEEDED, cause: Cause | None = None) -> Run:
        default = DONE if outcome is Outcome.SUCCEEDED else BROKEN
        self.commit(ev.TaskEnded("r1", name, outcome, cause or default))
        self.busy.discard(name)
        return self

    def back_off(self, name: str) -> None:
        self.commit(ev.TaskRetryScheduled("r1", name, self.task(name).attempts, 1.0, BROKEN))

    def cancel(self, reason: str = "enough") -> None:
        self.commit(ev.RunCancelRequested("r1", reason))


def task_ends(decision: RunDecision) -> dict[str, tuple[Outcome, CauseKind, tuple[str, ...]]]:
    """Tasks ended by a decision: outcome, kind of cause, and the tasks that led to it."""
    return {
        event.task_id: (event.outcome, event.cause.kind, event.cause.because_of)
        for event in decision.events
        if isinstance(event, ev.TaskEnded)
    }


def messages(decision: RunDecision) -> dict[str, str]:
    return {event.task_id: event.cause.message for event in decision.events if isinstance(event, ev.TaskEnded)}


# --- waves ------------------------------------------------------------------------


def test_decide_run_walk() -> None:
    """Waves run in order, tasks of a wave side by side, and each wave and the run say when they begin and end."""
    run = Run("1 2 / 3")
    assert run.turn() == RunDecision((ev.WaveStarted("r1", 1),), ("1", "2"))
    run.end("1")
    assert run.turn() == RunDecision()
    run.end("2")
    ended, started = ev.WaveEnded("r1", 1, Outcome.SUCCEEDED), ev.WaveStarted("r1", 2)
    assert run.turn() == RunDecision((ended, started), ("3",))
    run.end("3")
    ends = (ev.WaveEnded("r1", 2, Outcome.SUCCEEDED), ev.RunEnded("r1", Outcome.SUCCEEDED))
    assert run.turn() == RunDecision(ends)
    assert run.turn() == RunDecision()


@pytest.mark.parametrize(
    ("slots", "limit", "started"),
    [(9, 9, ("1", "2", "3")), (2, 9, ("1", "2")), (9, 1, ("1",)), (0, 9, ()), (-3, 9, ())],
)
def test_decide_run_slots(slots: int, limit: int, started: tuple[str, ...]) -> None:
    """Fresh tasks start in document order, as many as the supervisor and the run have slots for."""
    assert Run("1 2 3", max_concurrent=limit).decide(slots).start == started


def test_decide_run_wave_starts_with_its_first_task() -> None:
    """A wave whose tasks are still waiting for a slot has not started."""
    assert Run("1").decide(0) == RunDecision()


def test_decide_run_task_that_is_ending() -> None:
    """A task whose outcome is committed takes up no slot of its run while its child is on the way out."""
    run = Run("1 2", max_concurrent=1)
    run.turn()
    run.end("1").busy.add("1")
    assert run.decide(1).start == ("2",)


def test_decide_run_empty() -> None:
    """A run with nothing to do has succeeded."""
    assert Run(Plan(())).turn() == RunDecision((ev.RunEnded("r1", Outcome.SUCCEEDED),))


# --- needs ------------------------------------------------------------------------


def test_decide_run_needs_override_the_barrier() -> None:
    """A task that names its needs starts as soon as they have succeeded, while earlier waves are still at work."""
    run = Run("1 2 / 3<1 4")
    assert run.turn().start == ("1", "2")
    run.end("1")
    assert run.turn() == RunDecision((ev.WaveStarted("r1", 2),), ("3",))
    run.end("2")
    assert run.turn().start == ("4",)


def test_decide_run_barrier_of_all_earlier_waves() -> None:
    """A wave that ended early through its needs does not let a later one past a wave that is still at work."""
    run = Run("1 2 / 3<1 / 4")
    run.turn()
    run.end("1").turn()
    assert run.end("3").turn().start == ()
    assert run.end("2").turn().start == ("4",)


def test_decide_run_needs_inside_a_wave() -> None:
    """A need in the same wave is waited for."""
    run = Run("1<2 2")
    assert run.turn().start == ("2",)
    run.end("2")
    assert run.turn().start == ("1",)


@pytest.mark.parametrize("policy", [OnFailure.STOP, OnFailure.CONTINUE])
def test_decide_run_need_failed(policy: OnFailure) -> None:
    """What needs a failed task is skipped at once, down the line, each naming the failure at the root."""
    run = Run("1 2 / 3<1 / 4<3,2", on_failure=policy)
    run.turn()
    decision = run.end("1", Outcome.TIMED_OUT).turn()
    skipped = (Outcome.SKIPPED, CauseKind.NEED_FAILED, ("1",))
    assert task_ends(decision) == {"3": skipped, "4": skipped}
    assert messages(decision) == {
        "3": "needs a task that did not succeed: task 1 timed out",
        "4": "needs a task that did not succeed: task 3 was skipped, because task 1 timed out",
    }
    assert run.task("2").outcome is None


def test_decide_run_several_roots() -> None:
    """A task whose needs failed for different reasons names them all, each once."""
    run = Run("1 2 / 3<1 4<1,2 / 5<3,4", on_failure=OnFailure.CONTINUE)
    run.turn()
    run.end("1", Outcome.FAILED).end("2", Outcome.LOST)
    assert task_ends(run.turn())["5"] == (Outcome.SKIPPED, CauseKind.NEED_FAILED, ("1", "2"))


def test_decide_run_need_in_a_later_wave() -> None:
    """A task that waits for a later wave does not keep the run from going on: its need runs first."""
    run = Run("1<2 / 2")
    assert run.turn().start == ("2",)
    run.end("2")
    assert run.turn().start == ("1",)


def test_decide_run_need_in_a_later_wave_waits_for_the_barrier() -> None:
    """A barrier gives way only when nothing else can be done."""
    run = Run("1<3 2 / 3")
    assert run.turn().start == ("2",)
    assert run.turn() == RunDecision()
    run.end("2")
    assert run.turn().start == ("3",)


@pytest.mark.parametrize("plan", ["1<2 2<1 3", "1<1", "1<17"])
def test_decide_run_impossible_needs(plan: str) -> None:
    """Needs that wait for each other or do not exist end their tasks rather than keep the run for ever."""
    run = Run(plan)
    run.turn()
    if run.busy:
        run.end("3").turn()
    assert run.view.state is RunState.ENDED
    assert run.task("1").outcome is Outcome.SKIPPED


# --- policies ---------------------------------------------------------------------


def test_decide_run_stop() -> None:
    """Siblings of a failed task finish; later waves are skipped in the same moment, and the run has failed."""
    run = Run("1 2 / 3 / 4")
    run.turn()
    assert run.end("1", Outcome.FAILED).turn() == RunDecision()
    decision = run.end("2").turn()
    skipped = (Outcome.SKIPPED, CauseKind.WAVE_FAILED, ("1",))
    assert task_ends(decision) == {"3": skipped, "4": skipped}
    assert messages(decision)["4"] == "wave 1 did not succeed: task 1 failed"
    assert decision.events[2:] == (ev.WaveEnded("r1", 1, Outcome.FAILED), ev.RunEnded("r1", Outcome.FAILED))
    assert not decision.start


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CANCELLED, Outcome.LOST])
def test_decide_run_not_succeeded(outcome: Outcome) -> None:
    """Whatever is not success fails its wave, a loss as well."""
    run = Run("1 / 2")
    run.turn()
    assert task_ends(run.end("1", outcome).turn()) == {"2": (Outcome.SKIPPED, CauseKind.WAVE_FAILED, ("1",))}


def test_decide_run_stop_lets_running_tasks_finish() -> None:
    """A task of a later wave that is already running when a wave fails runs to its end."""
    run = Run("1 2 / 3<1 4")
    run.turn()
    run.end("1").turn()
    decision = run.end("2", Outcome.FAILED).turn()
    assert set(task_ends(decision)) == {"4"}
    assert not decision.stop
    assert run.view.state is RunState.RUNNING
    assert run.end("3").turn().events[-1] == ev.RunEnded("r1", Outcome.FAILED)


def test_decide_run_continue() -> None:
    """Later waves run in spite of a failure where the policy is to continue; the run has failed all the same."""
    run = Run("1 / 2", on_failure=OnFailure.CONTINUE)
    run.turn()
    assert run.end("1", Outcome.FAILED).turn().start == ("2",)
    assert run.end("2").turn().events[-1] == ev.RunEnded("r1", Outcome.FAILED)


def test_decide_run_fail_fast() -> None:
    """The first failure stops what runs, wherever it stands, and skips what does not, where the policy is so."""
    run = Run("1 2 3 4 / 5<1 6", slots=4, on_failure=OnFailure.FAIL_FAST, max_concurrent=3)
    run.turn()
    run.end("1").turn()
    decision = run.end("2", Outcome.FAILED).turn()
    cause = Cause(CauseKind.FAIL_FAST, "task 2 failed", because_of=("2",))
    assert decision.stop == (("3", cause), ("4", cause))
    skipped = (Outcome.SKIPPED, CauseKind.FAIL_FAST, ("2",))
    assert task_ends(decision) == {"5": skipped, "6": skipped}
    run.end("3", Outcome.CANCELLED, Cause(CauseKind.FAIL_FAST, "stopped"))
    assert run.turn().stop == (("4", cause),)
    ends = run.end("4", Outcome.CANCELLED, Cause(CauseKind.FAIL_FAST, "stopped")).turn().events
    assert ends == (ev.WaveEnded("r1", 1, Outcome.FAILED), ev.RunEnded("r1", Outcome.FAILED))


def test_decide_run_fail_fast_need() -> None:
    """Under fail_fast a task that needs the failed one says so; it is the nearer cause."""
    run = Run("1 / 2<1 3", on_failure=OnFailure.FAIL_FAST)
    run.turn()
    ends = task_ends(run.end("1", Outcome.FAILED).turn())
    assert (ends["2"][1], ends["3"][1]) == (CauseKind.NEED_FAILED, CauseKind.FAIL_FAST)


# --- cancellation -----------------------------------------------------------------


def test_decide_run_cancelled() -> None:
    """A run that is to end for good stops what runs, ends what does not, and ends when nothing is left."""
    run = Run("1 2 / 3")
    run.turn(1)
    run.cancel()
    decision = run.turn()
    cause = Cause(CauseKind.RUN_CANCELLED, "the run was cancelled: enough")
    assert decision == RunDecision(
        tuple(ev.TaskEnded("r1", name, Outcome.CANCELLED, cause) for name in ("2", "3")), stop=(("1", cause),)
    )
    ends = run.end("1", Outcome.CANCELLED, cause).turn().events
    assert ends == (ev.WaveEnded("r1", 1, Outcome.CANCELLED), ev.RunEnded("r1", Outcome.CANCELLED))


def test_decide_run_cancelled_before_it_began() -> None:
    """Waves that never started have no end."""
    run = Run("1 / 2")
    run.cancel("")
    events = run.turn().events
    assert [type(event) for event in events] == [ev.TaskEnded, ev.TaskEnded, ev.RunEnded]


def test_decide_run_cancelled_child_without_session() -> None:
    """A task whose child has not begun a session yet is stopped, not ended over its head."""
    run = Run("1")
    run.busy.add("1")
    run.cancel()
    decision = run.decide()
    assert [name for name, _ in decision.stop] == ["1"]
    assert not decision.events


def test_decide_run_cancelled_while_parked() -> None:
    """A parked run can be ended."""
    run = Run("1 / 2", auto_advance_waves=False)
    run.turn()
    run.end("1").turn()
    run.cancel()
    assert run.turn().events[-1] == ev.RunEnded("r1", Outcome.CANCELLED)


# --- parking ----------------------------------------------------------------------


def test_decide_run_parks() -> None:
    """Where waves do not advance by themselves, the run is parked after each that is not the last, once."""
    run = Run("1 / 2 / 3", auto_advance_waves=False)
    run.turn()
    decision = run.end("1").turn()
    assert decision == RunDecision((ev.WaveEnded("r1", 1, Outcome.SUCCEEDED), ev.RunParked("r1", 1)))
    assert run.view.state is RunState.PARKED
    assert parked_after(run.view) == 1
    assert run.turn() == RunDecision()
    run.commit(ev.RunAdvanced("r1", 1))
    assert parked_after(run.view) is None
    assert run.turn().start == ("2",)
    assert run.end("2").turn().events[-1] == ev.RunParked("r1", 2)
    run.commit(ev.RunAdvanced("r1", 2))
    run.turn()
    ends = (ev.WaveEnded("r1", 3, Outcome.SUCCEEDED), ev.RunEnded("r1", Outcome.SUCCEEDED))
    assert run.end("3").turn().events == ends


def test_decide_run_parks_needs_too() -> None:
    """Needs override the barrier, not the person who is to look at a wave first."""
    run = Run("1 2 / 3<1", auto_advance_waves=False)
    run.turn()
    assert run.end("1").turn() == RunDecision()
    assert run.end("2").turn().events[-1] == ev.RunParked("r1", 1)
    run.commit(ev.RunAdvanced("r1", 1))
    assert run.turn().start == ("3",)


def test_decide_run_does_not_park_before_nothing() -> None:
    """A run whose later waves are skipped ends without being parked."""
    run = Run("1 / 2", auto_advance_waves=False)
    run.turn()
    assert run.end("1", Outcome.FAILED).turn().events[-1] == ev.RunEnded("r1", Outcome.FAILED)


def test_decide_run_does_not_park_after_a_skipped_wave() -> None:
    """A wave of which nothing ran gives nobody anything to look at."""
    run = Run("1 / 2<1 / 3", auto_advance_waves=False, on_failure=OnFailure.CONTINUE)
    run.turn()
    assert run.end("1", Outcome.FAILED).turn().events[-1] == ev.RunParked("r1", 1)
    run.commit(ev.RunAdvanced("r1", 1))
    assert run.turn().start == ("3",)


def test_decide_run_parks_when_all_is_done_up_to_the_wave() -> None:
    """A run in which an earlier wave is at work once more is not parked after the later one."""
    run = Run("1 / 2 / 3", auto_advance_waves=False, on_failure=OnFailure.CONTINUE)
    run.turn()
    run.end("1", Outcome.FAILED).turn()
    run.commit(ev.RunAdvanced("r1", 1))
    run.turn()
    run.commit(ev.TaskPutBack("r1", "1", "retry"))
    assert run.turn().start == ("1",)
    assert run.end("2").turn().events == (ev.WaveEnded("r1", 2, Outcome.SUCCEEDED),)
    assert run.end("1").turn().events == (ev.RunParked("r1", 2),)


def test_decide_run_parks_again_after_a_crash() -> None:
    """A run that was parked when its supervisor died is parked by the next one."""
    run = Run("1 / 2", auto_advance_waves=False)
    run.turn()
    run.end("1").turn()
    run.commit(ev.RunContinued("r1"))
    assert run.turn() == RunDecision((ev.RunParked("r1", 1),))


# --- going on ---------------------------------------------------------------------


def test_decide_run_resumes_first() -> None:
    """After a crash, tasks that were under way get their children back before all others, slots or not."""
    run = Run("1 2 3 4", slots=2)
    run.turn(3)
    run.back_off("2")
    run.end("3")
    run.busy.clear()
    assert run.decide(0).start == ("1", "2")
    assert run.decide(2).start == ("1", "2")
    assert run.decide(3).start == ("1", "2", "4")


def test_decide_run_resumes_to_stop() -> None:
    """After a crash, a cancelled run takes up live sessions to stop them, and ends a back-off without a child."""
    run = Run("1 2")
    run.turn()
    run.back_off("2")
    run.busy.clear()
    run.cancel()
    decision = run.turn()
    assert decision.start == ("1",)
    assert [name for name, _ in decision.stop] == ["1"]
    assert task_ends(decision) == {"2": (Outcome.CANCELLED, CauseKind.RUN_CANCELLED, ())}


def test_decide_run_fail_fast_after_a_crash() -> None:
    """After a crash, a failure under fail_fast ends a back-off without a child."""
    run = Run("1 2", on_failure=OnFailure.FAIL_FAST)
    run.turn()
    run.back_off("2")
    run.end("1", Outcome.FAILED).busy.clear()
    decision = run.turn()
    assert task_ends(decision) == {"2": (Outcome.CANCELLED, CauseKind.FAIL_FAST, ("1",))}
    assert decision.events[-1] == ev.RunEnded("r1", Outcome.FAILED)


def test_decide_run_stops_a_back_off_through_its_child() -> None:
    """A task that is backing off under its child is stopped, not ended over its head."""
    run = Run("1")
    run.turn()
    run.back_off("1")
    run.cancel()
    decision = run.decide()
    assert [name for name, _ in decision.stop] == ["1"]
    assert not decision.events


def test_decide_run_interrupted() -> None:
    """Of a run that was interrupted nothing is decided until it is continued."""
    run = Run("1")
    run.commit(ev.RunInterrupted("r1", "signal"))
    assert run.decide() == RunDecision()
    run.commit(ev.RunContinued("r1"))
    assert run.decide().start == ("1",)


def test_decide_run_put_back() -> None:
    """A task that was put back starts like a fresh one, in a wave that does not start a second time."""
    run = Run("1 2")
    run.turn()
    run.commit(ev.TaskPutBack("r1", "1", "interrupted"))
    assert run.decide().start == ()
    run.busy.clear()
    assert run.decide(2) == RunDecision((), ("2", "1"))


def test_decide_run_reopened() -> None:
    """A run that is taken up again runs what was put back; its waves end anew but do not start anew."""
    run = Run("1 / 2")
    run.turn()
    run.end("1", Outcome.FAILED).turn()
    run.commit(ev.RunReopened("r1"), ev.TaskPutBack("r1", "1", "retry"), ev.TaskPutBack("r1", "2", "retry"))
    assert run.turn() == RunDecision((), ("1",))
    ended, started = ev.WaveEnded("r1", 1, Outcome.SUCCEEDED), ev.WaveStarted("r1", 2)
    assert run.end("1").turn() == RunDecision((ended, started), ("2",))


def test_decide_run_reopened_under_fail_fast() -> None:
    """Tasks that were stopped or skipped because of a failure are none themselves when that one is retried."""
    run = Run("1 2 / 3", on_failure=OnFailure.FAIL_FAST)
    run.turn()
    run.end("1", Outcome.FAILED).end("2", Outcome.CANCELLED, Cause(CauseKind.FAIL_FAST, "stopped")).turn()
    run.commit(ev.RunReopened("r1"), ev.TaskPutBack("r1", "1", "retry"))
    assert run.turn().start == ("1",)


# --- every run ends ---------------------------------------------------------------

FAILURES = [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.LOST, Outcome.CANCELLED]
outcomes = st.sampled_from([Outcome.SUCCEEDED] * 6 + FAILURES)


class Simulator:
    """Orchestrates one run as chance will have it, and checks each decision."""

    def __init__(self, data: st.DataObject, run: Run, forward: bool) -> None:
        self.draw = data.draw
        self.run = run
        self.forward = forward
        self.stopping: dict[str, Cause] = {}
        self.begun: set[str] = set()
        """Tasks started since they were last put back."""
        self.mischief = 6
        """Crashes, interruptions, cancellations and retries left."""

    def turn(self) -> None:
        run = self.run
        others = self.draw(st.integers(0, run.slots)) if run.busy else 0
        free = run.slots - len(run.busy) - others
        decision = run.decide(free)
        before = run.view
        under_way = [name for name, task in before.tasks.items() if isinstance(task.state, Active | BackingOff)]
        orphans = [name for name in under_way if name not in run.busy]
        run.commit(*decision.events)
        self.check_events(decision)
        assert not run.decide(free).events, "one decision settles everything"
        assert (run.decide(free).start, run.decide(free).stop) == (decision.start, decision.stop)
        fresh = [name for name in decision.start if name not in orphans]
        resumed = [name for name in orphans if not isinstance(run.task(name).state, Ended)]
        assert [*decision.start] == resumed + fresh, "what was under way comes first"
        for name in fresh:
            self.check_start(name)
        if fresh:
            assert len(run.busy) + len(decision.start) <= run.slots
            assert len(decision.start) + len(run.busy) <= run.view.settings.max_concurrent
        run.busy |= set(decision.start)
        self.begun |= set(decision.start)
        for name, cause in decision.stop:
            assert name in run.busy
            self.stopping[name] = cause

    def check_events(self, decision: RunDecision) -> None:
        for event in decision.events:
            if isinstance(event, ev.TaskEnded):
                assert event.task_id not in self.run.busy
                if event.outcome is Outcome.SKIPPED:
                    assert event.task_id not in self.begun, "a skipped task has never started"
        ended = [event for event in decision.events if isinstance(event, ev.RunEnded)]
        assert not ended or (decision.events[-1] is ended[0] and len(ended) == 1 and not decision.start)
        parked = [event for event in decision.events if isinstance(event, ev.RunParked)]
        assert not parked or (decision.events[-1] is parked[0] and len(parked) == 1)

    def check_start(self, name: str) -> None:
        view = self.run.view
        spec = view.tasks[name].spec
        assert isinstance(view.tasks[name].state, Pending)
        assert view.cancel_reason is None
        assert spec.wave in view.waves_started
        assert all(view.tasks[need].outcome is Outcome.SUCCEEDED for need in spec.needs)
        earlier = [task for task in view.tasks.values() if task.spec.wave < spec.wave]
        if not self.forward:
            if not spec.needs:
                assert all(isinstance(task.state, Ended) for task in earlier), "no task starts before its barrier"
            ran = {task.spec.wave for task in earlier if task.spec.wave in view.waves_started}
            if not view.settings.auto_advance_waves and ran:
                assert max(ran) <= view.advanced_to, "no task starts before its wave was advanced to"
        if view.settings.on_failure is OnFailure.FAIL_FAST:
            assert all(task.outcome is not Outcome.FAILED for task in view.tasks.values())

    # what may happen between two decisions

    def move(self) -> None:
        run = self.run
        moves = ["end", "end", "end"] if run.busy else []
        if run.view.state is RunState.PARKED:
            moves.append("advance")
        if self.mischief > 0:
            moves += ["crash", "interrupt", "cancel"]
        if sessions := [name for name in sorted(run.busy) if isinstance(run.task(name).state, Pending)]:
            moves.append("begin")
        if active := [name for name in sorted(run.busy) if isinstance(run.task(name).state, Active)]:
            moves.append("back off")
        assert moves, "the run stands still"
        match self.draw(st.sampled_from(moves)):
            case "end":
                self.end(self.draw(st.sampled_from(sorted(run.busy))))
            case "advance":
                gate = parked_after(run.view)
                assert gate is not None
                run.commit(ev.RunAdvanced("r1", gate))
            case "begin":
                run.begin(self.draw(st.sampled_from(sessions)))
            case "back off":
                self.mischief -= 1
                run.back_off(self.draw(st.sampled_from(active)))
            case other:
                self.mischief -= 1
                self.disturb(other)

    def end(self, name: str) -> None:
        outcome = self.draw(outcomes)
        if name in self.stopping and self.draw(st.booleans()):
            outcome, cause = Outcome.CANCELLED, self.stopping[name]
        else:
            cause = DONE if outcome is Outcome.SUCCEEDED else BROKEN
        self.run.end(name, outcome, cause)

    def disturb(self, how: str) -> None:
        run = self.run
        match how:
            case "cancel":
                run.cancel()
                return
            case "interrupt":
                self.put_back(*sorted(run.busy))
                run.commit(ev.RunInterrupted("r1", "signal"))
                assert run.decide() == RunDecision()
        # The next supervisor starts with no child at all, and knows nothing of those without a session.
        run.busy.clear()
        self.begun = {name for name in self.begun if not isinstance(run.task(name).state, Pending)}
        self.stopping.clear()
        run.commit(ev.RunContinued("r1"))

    def put_back(self, *names: str) -> None:
        self.run.commit(*(ev.TaskPutBack("r1", name, "put back") for name in names))
        self.begun -= set(names)
        for name in names:
            self.stopping.pop(name, None)

    def go(self) -> None:
        """Go on until the run has ended, and is not retried any more."""
        for _ in range(500):
            self.turn()
            if self.run.view.state is not RunState.ENDED:
                self.move()
                continue
            self.mischief -= 1
            again = tasks_to_retry(self.run.view)
            if self.mischief < 0 or not again or not self.draw(st.booleans()):
                return
            self.run.commit(ev.RunReopened("r1"))
            self.put_back(*again)
        raise AssertionError("the run does not end")


def check_history(events: list[Event]) -> None:
    """Each task has one end per beginning, waves end after they start, and nothing comes after the end."""
    ended: set[str] = set()
    waves: set[int] = set()
    over = False
    for event in events:
        assert not over or isinstance(event, ev.RunReopened), "nothing comes after the end of the run"
        match event:
            case ev.TaskEnded():
                assert event.task_id not in ended
                assert event.cause.message
                ended.add(event.task_id)
            case ev.TaskPutBack():
                ended.discard(event.task_id)
            case ev.WaveStarted():
                assert event.wave not in waves
                waves.add(event.wave)
            case ev.WaveEnded():
                assert event.wave in waves
            case ev.RunReopened():
                over = False
            case ev.RunEnded():
                over = True
    assert over


@pytest.mark.parametrize("forward", [False, True], ids=["needs of earlier tasks", "needs of any task"])
@given(data=st.data(), settings=strategies.settings_of_runs, slots=st.integers(1, 5))
def test_decide_run_every_run_ends(data: st.DataObject, settings: RunSettings, slots: int, forward: bool) -> None:
    """Whatever happens, a run ends by its rules, and each of its tasks has one outcome and a cause."""
    plan = data.draw(strategies.plans(forward=forward))
    run = Run(plan, slots=slots, **attrs.asdict(settings, recurse=False))
    Simulator(data, run, forward).go()
    check_history(run.events)
    view = run.view
    outcomes = {task.outcome for task in view.tasks.values()}
    assert None not in outcomes
    assert (view.outcome is Outcome.SUCCEEDED) == (outcomes <= {Outcome.SUCCEEDED})
    for task in view.tasks.values():
        assert isinstance(task.state, Ended)
        if task.outcome is Outcome.SKIPPED:
            roots = [view.tasks[name] for name in task.state.cause.because_of]
            assert roots
            assert all(root.outcome not in (Outcome.SUCCEEDED, Outcome.SKIPPED) for root in roots)
