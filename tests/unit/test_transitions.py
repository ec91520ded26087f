"""The next step of a task follows from the journal alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.model import event as ev
from kasmos.model.event import Event
from kasmos.model.plan import Check, Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import ExecutionMode, RestartPolicy
from kasmos.model.session import UNKNOWN_EXIT, ExitStatus, SessionKind, StopReason
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.view import TaskView
from kasmos.supervision.handover import decide_relief
from kasmos.supervision.transitions import (
    BackOff,
    Finish,
    GiveBack,
    PutBack,
    Retry,
    StartAgent,
    StartCheck,
    Step,
    Supervise,
    decide_task,
)
from tests import strategies
from tests.strategies import Ledger

POLICY = RestartPolicy(backoff=4.0, jitter=0.0, quiet_period=60.0)
CHECKS = (Check("make test"), Check("x" * 70), Check("line 1\nline 2"))
OK = ExitStatus(code=0)
EXIT_3 = ExitStatus(code=3)


class Journal(Ledger):
    """The journal of one task, told what happens in short words."""

    def __init__(self) -> None:
        task = PlanTask(id="1", number=1, wave=1, title="", body="", checks=CHECKS)
        super().__init__(strategies.started(Plan((Wave(1, (task,)),)), RunSettings()))
        self.newest = ""
        self.opened = 0

    @property
    def task(self) -> TaskView:
        return self.world.runs["r1"].tasks["1"]

    def open(self, attempt: int, check: int | None = None, *, attended: bool = False) -> Journal:
        """Commit the intent of a session."""
        self.opened += 1
        self.newest = f"s{self.opened}"
        kind = SessionKind.AGENT if check is None else SessionKind.CHECK
        mode = ExecutionMode.TMUX if attended else ExecutionMode.SCRIPTED
        starting = ev.SessionStarting(self.newest, "w1t1", kind, mode, "boot", "r1", "1", attempt, check)
        self.commit(attrs.evolve(starting, attended=attended, conversation="c-0" if check is None else ""))
        return self

    def take_over(self, *, now: bool = False) -> Journal:
        """Somebody wants the conversation."""
        return self.say(ev.TakeoverRequested("r1", "1", "c-1", "ann", now))

    def hand_back(self, prompt: str = "", *, done: bool = False) -> Journal:
        """Somebody gives it back."""
        return self.say(ev.HandedBack("r1", "1", prompt, done, who="ann"))

    def taken(self) -> Journal:
        """A headless turn has ended, and its conversation is open in a terminal."""
        return self.open(1).run().take_over().exit(OK).open(1, attended=True).run()

    def run(self, seconds: float = 1.0) -> Journal:
        """The newest session's program runs for some time."""
        self.commit(ev.SessionStarted(self.newest))
        self.mono += seconds
        return self

    def stop(self, reason: StopReason) -> Journal:
        self.commit(ev.StopRequested(self.newest, reason))
        return self

    def exit(self, status: ExitStatus) -> Journal:
        self.commit(ev.SessionEnded(self.newest, status, tail="last words"))
        return self

    def passed(self, attempt: int, *checks: int) -> Journal:
        """The program and these checks exited 0."""
        self.open(attempt).run().exit(OK)
        for check in checks:
            self.open(attempt, check).run().exit(OK)
        return self

    def failed(self, attempt: int) -> Journal:
        """An attempt has failed and its retry is scheduled."""
        self.open(attempt).run().exit(EXIT_3)
        self.commit(ev.TaskRetryScheduled("r1", "1", attempt, 4.0, Cause(CauseKind.EXIT, "exit 3")))
        return self

    def put_back(self) -> Journal:
        self.commit(ev.TaskPutBack("r1", "1", "interrupted"))
        return self

    def say(self, *events: Event) -> Journal:
        self.commit(*events)
        return self

    def decide(self, **changes: Any) -> Step:
        arguments = {
            "policy": POLICY,
            "retries": 0,
            "checks": 0,
            "retry_lost": False,
            "now": self.mono,
            "rand": 0.5,
            "same_boot": True,
        }
        return decide_task(self.task, self.world.sessions, **{**arguments, **changes})


def lost(journal: Journal) -> Journal:
    return journal.say(ev.SessionLost(journal.newest, "the machine was restarted"))


def never_started(journal: Journal) -> Journal:
    return journal.say(ev.SessionNeverStarted(journal.newest))


def start_failed(journal: Journal) -> Journal:
    return journal.say(ev.SessionStartFailed(journal.newest, "no such program"))


# --- the table --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("journal", "step"),
    [
        pytest.param(Journal(), StartAgent(1), id="nothing yet"),
        pytest.param(Journal().failed(1).open(2).put_back(), StartAgent(3), id="put back: attempts are counted on"),
        pytest.param(Journal().open(1), Supervise("s1"), id="starting"),
        pytest.param(Journal().open(1).run(), Supervise("s1"), id="running"),
        pytest.param(Journal().open(1).run().stop(StopReason.TIMEOUT), Supervise("s1"), id="stopping"),
        pytest.param(Journal().passed(1).open(1, 0), Supervise("s2"), id="check running"),
        pytest.param(never_started(Journal().open(1)), StartAgent(1), id="never started: the same attempt"),
        pytest.param(never_started(Journal().failed(1).open(2)), StartAgent(2), id="second attempt never started"),
        pytest.param(never_started(Journal().passed(1, 0).open(1, 1)), StartCheck(1, 1), id="check never started"),
        pytest.param(Journal().passed(1), StartCheck(1, 0), id="program done"),
        pytest.param(Journal().passed(1, 0), StartCheck(1, 1), id="first check done"),
        pytest.param(Journal().failed(1).passed(2, 0), StartCheck(2, 1), id="first check of the second attempt done"),
        pytest.param(Journal().open(1).run().stop(StopReason.INTERRUPTED).exit(OK), PutBack("interrupted"), id="int 0"),
        pytest.param(Journal().open(1).stop(StopReason.INTERRUPTED).exit(EXIT_3), PutBack("interrupted"), id="int 3"),
        pytest.param(
            Journal().passed(1).open(1, 0).run().stop(StopReason.INTERRUPTED).exit(OK),
            PutBack("interrupted"),
            id="interrupted in a check",
        ),
        pytest.param(
            never_started(Journal().open(1).stop(StopReason.INTERRUPTED)),
            PutBack("interrupted"),
            id="interrupted early",
        ),
        pytest.param(Journal().failed(1), BackOff(1005.0), id="backing off"),
    ],
)
def test_decide_task_goes_on(journal: Journal, step: Step) -> None:
    """A task that has not come to its end goes on from where the journal says it is."""
    assert journal.decide(checks=2) == step


@pytest.mark.parametrize(
    ("journal", "outcome", "kind", "message"),
    [
        pytest.param(Journal().open(1).run().exit(EXIT_3), Outcome.FAILED, CauseKind.EXIT, "exit 3", id="exit"),
        pytest.param(
            Journal().open(1).run().exit(ExitStatus(signal=9)),
            Outcome.FAILED,
            CauseKind.EXIT,
            "killed by SIGKILL",
            id="signal",
        ),
        pytest.param(
            Journal().open(1).run().exit(UNKNOWN_EXIT),
            Outcome.FAILED,
            CauseKind.EXIT,
            "exit status unknown",
            id="unknown is not success",
        ),
        pytest.param(
            Journal().passed(1).open(1, 0).run().exit(EXIT_3),
            Outcome.FAILED,
            CauseKind.CHECK,
            "check 1 (make test): exit 3",
            id="check",
        ),
        pytest.param(
            Journal().passed(1, 0).open(1, 1).run().exit(EXIT_3),
            Outcome.FAILED,
            CauseKind.CHECK,
            f"check 2 ({'x' * 57}...): exit 3",
            id="long check",
        ),
        pytest.param(
            Journal().passed(1, 0, 1).open(1, 2).run().exit(EXIT_3),
            Outcome.FAILED,
            CauseKind.CHECK,
            "check 3 (line 1...): exit 3",
            id="check of many lines",
        ),
        pytest.param(
            Journal().passed(1).open(1, 7).run().exit(EXIT_3),
            Outcome.FAILED,
            CauseKind.CHECK,
            "check 8: exit 3",
            id="check that is no longer in the plan",
        ),
        pytest.param(
            start_failed(Journal().open(1)),
            Outcome.FAILED,
            CauseKind.START,
            "could not be started: no such program",
            id="start",
        ),
        pytest.param(
            start_failed(Journal().passed(1).open(1, 0)),
            Outcome.FAILED,
            CauseKind.START,
            "check 1 (make test): could not be started: no such program",
            id="start of a check",
        ),
        pytest.param(
            start_failed(Journal().open(1).stop(StopReason.TIMEOUT)),
            Outcome.FAILED,
            CauseKind.START,
            "could not be started: no such program",
            id="start took too long and failed",
        ),
        pytest.param(
            Journal().open(1).run(12.34).stop(StopReason.TIMEOUT).exit(ExitStatus(signal=15)),
            Outcome.TIMED_OUT,
            CauseKind.TIMEOUT,
            "timed out after 12s",
            id="timeout",
        ),
        pytest.param(
            Journal().open(1).run(600.2).stop(StopReason.TIMEOUT).exit(OK),
            Outcome.TIMED_OUT,
            CauseKind.TIMEOUT,
            "timed out after 10m",
            id="exit 0 does not make up for a timeout",
        ),
        pytest.param(
            Journal().passed(1).open(1, 0).run(2).stop(StopReason.TIMEOUT).exit(OK),
            Outcome.TIMED_OUT,
            CauseKind.TIMEOUT,
            "check 1 (make test): timed out after 2.0s",
            id="timeout of a check",
        ),
        pytest.param(
            never_started(Journal().open(1).stop(StopReason.TIMEOUT)),
            Outcome.TIMED_OUT,
            CauseKind.TIMEOUT,
            "timed out",
            id="timeout while starting",
        ),
        pytest.param(
            lost(Journal().open(1).run()),
            Outcome.LOST,
            CauseKind.LOST,
            "lost: the machine was restarted",
            id="lost",
        ),
        pytest.param(
            lost(Journal().passed(1).open(1, 0)),
            Outcome.LOST,
            CauseKind.LOST,
            "check 1 (make test): lost: the machine was restarted",
            id="lost check",
        ),
    ],
)
def test_decide_task_failure(journal: Journal, outcome: Outcome, kind: CauseKind, message: str) -> None:
    """A failure ends the task with its cause, or is followed by another attempt for the very same cause."""
    finish = journal.decide(checks=3)
    assert isinstance(finish, Finish)
    assert (finish.outcome, finish.cause.kind, finish.cause.message) == (outcome, kind, message)
    assert finish.cause.session_id == journal.newest

    retry = journal.decide(checks=3, retries=1, retry_lost=True)
    assert retry == Retry(ev.TaskRetryScheduled("r1", "1", 1, 4.0, finish.cause))


@pytest.mark.parametrize(
    ("journal", "message"),
    [
        (Journal().open(1).run(600.2).stop(StopReason.TIMEOUT).exit(OK), "timed out after its limit of 10m"),
        (
            Journal().passed(1).open(1, 0).run(2).stop(StopReason.TIMEOUT).exit(OK),
            "check 1 (make test): timed out after its limit of 1m30s",
        ),
        (
            Journal().passed(1, 0).open(1, 1).run(2).stop(StopReason.TIMEOUT).exit(OK),
            "check 2 (true): timed out after its limit of 10m",
        ),
    ],
    ids=["task", "check", "check without a limit of its own"],
)
def test_decide_task_names_the_limit(journal: Journal, message: str) -> None:
    """A timeout is told by the limit that the plan set, as one would write it there."""
    spec = attrs.evolve(journal.task.spec, timeout=600.0, checks=(Check("make test", 90.0), Check("true")))
    task = attrs.evolve(journal.task, spec=spec)
    step = decide_task(
        task,
        journal.world.sessions,
        policy=POLICY,
        retries=0,
        checks=2,
        retry_lost=False,
        now=journal.mono,
        rand=0.5,
        same_boot=True,
    )
    assert isinstance(step, Finish)
    assert step.cause.message == message


def test_decide_task_evidence() -> None:
    """The cause of a failure carries the exit status and the last lines of the output."""
    finish = Journal().open(1).run().exit(EXIT_3).decide()
    assert isinstance(finish, Finish)
    assert (finish.cause.exit, finish.cause.tail) == (EXIT_3, "last words")


@pytest.mark.parametrize(
    ("journal", "checks", "message"),
    [
        (Journal().passed(1), 0, "exit 0"),
        (Journal().passed(1, 0), 1, "exit 0, 1 check passed"),
        (Journal().passed(1, 0, 1), 2, "exit 0, 2 checks passed"),
        (Journal().failed(1).passed(2, 0), 1, "exit 0, 1 check passed"),
        (never_started(Journal().open(1)).passed(1), 0, "exit 0"),
        (Journal().open(1).run().exit(OK).stop(StopReason.REQUESTED), 0, "exit 0"),
    ],
)
def test_decide_task_success(journal: Journal, checks: int, message: str) -> None:
    """A task succeeds when its program and all of its checks have exited 0."""
    finish = journal.decide(checks=checks)
    assert isinstance(finish, Finish)
    assert (finish.outcome, finish.cause.kind, finish.cause.message) == (Outcome.SUCCEEDED, CauseKind.DONE, message)


STOPS = [
    (StopReason.REQUESTED, CauseKind.STOPPED),
    (StopReason.CANCELLED, CauseKind.RUN_CANCELLED),
    (StopReason.FAIL_FAST, CauseKind.FAIL_FAST),
]


@pytest.mark.parametrize(("reason", "kind"), STOPS)
@pytest.mark.parametrize("status", [OK, EXIT_3, ExitStatus(signal=15), UNKNOWN_EXIT], ids=str)
def test_decide_task_stopped(reason: StopReason, kind: CauseKind, status: ExitStatus) -> None:
    """A task that was stopped for good is cancelled however its program ended, and never tried again."""
    finish = Journal().open(1).run().stop(reason).exit(status).decide(retries=5, checks=1)
    assert isinstance(finish, Finish)
    assert (finish.outcome, finish.cause.kind) == (Outcome.CANCELLED, kind)


@pytest.mark.parametrize(("reason", "kind"), STOPS)
@pytest.mark.parametrize("end", [never_started, start_failed])
def test_decide_task_stopped_early(reason: StopReason, kind: CauseKind, end: Any) -> None:
    """A task that was stopped for good before its program ran is cancelled, not started."""
    finish = end(Journal().open(1).stop(reason)).decide(retries=5)
    assert isinstance(finish, Finish)
    assert (finish.outcome, finish.cause.kind) == (Outcome.CANCELLED, kind)


@pytest.mark.parametrize(("reason", "kind"), STOPS)
def test_decide_task_stopped_and_lost(reason: StopReason, kind: CauseKind) -> None:
    """A task that was stopped for good and then lost is lost, and not tried again even where losses are."""
    finish = lost(Journal().open(1).run().stop(reason)).decide(retries=5, retry_lost=True)
    assert isinstance(finish, Finish)
    assert finish.outcome is Outcome.LOST


@pytest.mark.parametrize("reason", [StopReason.TIMEOUT, StopReason.INTERRUPTED])
def test_decide_task_lost_in_a_passing_stop(reason: StopReason) -> None:
    """A loss in the middle of a timeout or an interruption is tried again where losses are, and only there."""
    journal = lost(Journal().open(1).run().stop(reason))
    assert isinstance(journal.decide(retries=5), Finish)
    assert isinstance(journal.decide(retries=5, retry_lost=True), Retry)


# --- attempts ---------------------------------------------------------------------


def test_decide_task_attempts_used_up() -> None:
    """The last failure says how many attempts there were."""
    finish = Journal().failed(1).failed(2).open(3).run().exit(EXIT_3).decide(retries=2)
    assert isinstance(finish, Finish)
    assert finish.cause.message == "exit 3 (attempt 3 of 3)"


def test_decide_task_intensity() -> None:
    """A failure that is one too many in too short a time says so."""
    policy = attrs.evolve(POLICY, max_restarts=1, within=60.0)
    finish = Journal().failed(1).open(2).run().exit(EXIT_3).decide(retries=9, policy=policy)
    assert isinstance(finish, Finish)
    assert finish.cause.message == "exit 3 (restart intensity reached: 1 in 60 s)"


def test_decide_task_put_back_forgets_failures() -> None:
    """A task that was put back has all its retries again."""
    journal = Journal().failed(1).failed(2).put_back().open(3).run().exit(EXIT_3)
    assert isinstance(journal.decide(retries=1), Retry)


def test_decide_task_ignores_what_does_not_count() -> None:
    """The end of a session from before the task was put back decides nothing."""
    assert lost(Journal().open(1)).put_back().decide() == StartAgent(2)


def test_decide_task_ignores_hooks() -> None:
    """A hook that ran for the task says nothing about the task."""
    journal = Journal().passed(1)
    hook = ev.SessionStarting("hook", "hook", SessionKind.HOOK, ExecutionMode.SCRIPTED, "boot", "r1", "1")
    journal.say(hook, ev.SessionEnded("hook", EXIT_3))
    finish = journal.decide()
    assert isinstance(finish, Finish)
    assert finish.outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("ran", "checked", "delay"),
    [
        pytest.param(59.0, 0.0, 8.0, id="short"),
        pytest.param(60.0, 0.0, 4.0, id="quiet"),
        pytest.param(59.0, 1000.0, 8.0, id="the time of a check is not the program's"),
    ],
)
def test_decide_task_quiet_period(ran: float, checked: float, delay: float) -> None:
    """The back-off starts anew when the program has run for the quiet period."""
    journal = Journal().failed(1).open(2).run(ran).exit(OK).open(2, 0).run(checked).exit(EXIT_3)
    retry = journal.decide(retries=9, checks=1)
    assert isinstance(retry, Retry)
    assert retry.event.delay == delay


def test_decide_task_program_is_not_in_the_journal() -> None:
    """A check that failed without a trace of its program is a failure like any other, and no quiet period."""
    journal = Journal().open(1).run(5000.0).exit(EXIT_3)
    journal.say(ev.TaskRetryScheduled("r1", "1", 1, 4.0, Cause(CauseKind.EXIT, "exit 3")))
    retry = journal.open(2, 0).run(5000.0).exit(EXIT_3).decide(retries=9, checks=1)
    assert isinstance(retry, Retry)
    assert (retry.event.cause.kind, retry.event.delay) == (CauseKind.CHECK, 8.0)


def test_decide_task_loss_is_no_quiet_period() -> None:
    """How long a lost session ran is unknown, so its loss does not start the back-off anew."""
    retry = lost(Journal().failed(1).open(2).run(5000.0)).decide(retries=9, retry_lost=True)
    assert isinstance(retry, Retry)
    assert retry.event.delay == 8.0


# --- back-off ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "same_boot", "step"),
    [
        (1001.0, True, BackOff(1005.0)),
        (1004.9, True, BackOff(1005.0)),
        (1005.0, True, StartAgent(2)),
        (1e9, True, StartAgent(2)),
        pytest.param(3.0, False, BackOff(4.0), id="the machine has been up for 3 s"),
        pytest.param(4.0, False, StartAgent(2), id="the machine has been up for longer than the back-off"),
    ],
)
def test_decide_task_back_off(now: float, same_boot: bool, step: Step) -> None:
    """A back-off lasts for its delay; one from before the machine was restarted, at most that long after it."""
    assert Journal().failed(1).decide(now=now, same_boot=same_boot) == step


def test_decide_task_ended() -> None:
    """A task that has ended keeps its outcome and cause."""
    cause = Cause(CauseKind.CONFIG, "no such agent")
    journal = Journal().say(ev.TaskEnded("r1", "1", Outcome.FAILED, cause))
    assert journal.decide() == Finish(Outcome.FAILED, cause)


# --- every task ends --------------------------------------------------------------

statuses = st.sampled_from([OK, OK, EXIT_3, ExitStatus(signal=9), ExitStatus(code=137, certain=False), UNKNOWN_EXIT])
worlds_moves = st.sampled_from(
    ["exit", "exit", "stop", "lose", "crash", "never start", "fail to start", "take over", "hand back", "hand back"]
)


class Simulator:
    """Takes step after step as a child does, in a world where anything may happen to a session."""

    def __init__(self, data: st.DataObject, retries: int, checks: int, retry_lost: bool, policy: RestartPolicy) -> None:
        self.draw = data.draw
        self.journal = Journal()
        self.arguments = {"retries": retries, "checks": checks, "retry_lost": retry_lost, "policy": policy}
        self.same_boot = True
        self.mischief = 12
        """Crashes and interruptions left: those who make them may go on for ever, the test may not."""

    def step(self) -> Finish | None:
        arguments = {**self.arguments, "rand": self.draw(st.floats(0, 1, exclude_max=True))}
        step = self.journal.decide(same_boot=self.same_boot, **arguments)
        again = self.journal.decide(same_boot=self.same_boot, **arguments)
        assert step == again, "a crash between decision and deed changes nothing"
        match step:
            case Finish():
                return step
            case PutBack(reason):
                self.journal.say(ev.TaskPutBack("r1", "1", reason))
            case Retry(event):
                self.journal.say(event)
                self.same_boot = True
            case BackOff(until):
                assert until > self.journal.mono
                self.journal.mono = until
            case GiveBack(event):
                assert self.journal.task.takeover is not None
                self.journal.say(event)
            case StartAgent(attempt, thread):
                assert not self.live(), "two sessions side by side"
                assert attempt in (self.journal.task.attempts, self.journal.task.attempts + 1)
                held, attended = self.journal.task.takeover, thread is not None and thread.attended
                assert attended <= (held is not None and held.back is None), "nobody wants a terminal"
                self.journal.open(attempt, attended=attended)
            case StartCheck(attempt, index):
                assert not self.live(), "two sessions side by side"
                assert attempt == self.journal.task.attempts
                self.journal.open(attempt, index)
            case Supervise(session_id):
                assert session_id == self.journal.newest
                self.happen()
        return None

    def happen(self) -> None:
        """Let something happen to the live session."""
        self.journal.mono += self.draw(st.sampled_from([0.0, 0.5, 100.0]))
        newest = self.journal.newest
        running = self.journal.world.sessions[newest].started_mono is not None
        match self.draw(worlds_moves):
            case "never start" if not running and self.spend():
                never_started(self.journal)
            case "fail to start" if not running:
                start_failed(self.journal)
            case "lose":
                lost(self.journal)
            case "take over" if self.spend():
                self.journal.take_over(now=self.draw(st.booleans()))
                self.relieve(newest)
            case "hand back" if self.spend():
                self.journal.hand_back(done=self.draw(st.booleans()))
                self.relieve(newest)
            case "crash" if self.spend():
                self.same_boot = self.draw(st.booleans())
                self.journal.mono = self.journal.mono if self.same_boot else 5.0
                self.journal.say(ev.SessionAdopted(newest))
            case "stop" if self.spend():
                self.journal.stop(self.draw(st.sampled_from(StopReason)))
            case _ if not running:
                self.journal.run(0.1)
            case _:
                self.journal.exit(self.draw(statuses))

    def relieve(self, newest: str) -> None:
        """End the session as its attendant does, where a takeover wants that."""
        reason = decide_relief(self.journal.task, self.journal.world.sessions[newest])
        if reason is not None:
            self.journal.stop(reason)

    def spend(self) -> bool:
        self.mischief -= 1
        return self.mischief >= 0

    def live(self) -> Iterable[str]:
        return [session.id for session in self.journal.world.sessions.values() if session.state.live]


@given(st.data(), st.integers(0, 3), st.integers(0, 3), st.booleans(), strategies.restart_policies)
def test_decide_task_comes_to_an_end(
    data: st.DataObject, retries: int, checks: int, retry_lost: bool, policy: RestartPolicy
) -> None:
    """Whatever happens to its sessions, a task comes to an outcome, one session at a time, within its attempts."""
    simulator = Simulator(data, retries, checks, retry_lost, policy)
    finish = None
    for _ in range(1000):
        finish = simulator.step()
        if finish is not None:
            break
    assert finish is not None
    assert finish.cause.message
    journal = simulator.journal
    tried_since: set[int] = set()
    for event in journal.events:
        if isinstance(event, ev.TaskPutBack):
            tried_since.clear()
        elif isinstance(event, ev.SessionStarting):
            tried_since.add(event.attempt)
            assert len(tried_since) <= 1 + retries
    assert journal.task.takeover is None or journal.task.outcome is None
    said_done = any(isinstance(event, ev.HandedBack) and event.done for event in journal.events)
    if finish.outcome is Outcome.SUCCEEDED and not said_done:
        counted = [journal.world.sessions[session_id] for session_id in journal.task.sessions[journal.task.epoch :]]
        newest = [session for session in counted if session.attempt == journal.task.attempts]
        assert {session.check for session in newest if session.exit == OK} == {None, *range(checks)}
