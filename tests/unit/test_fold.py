"""The fold takes whatever a journal holds and tells the present from it."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.model import event as ev
from kasmos.model.approval import Ask
from kasmos.model.event import Event, Record
from kasmos.model.plan import Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import ExitStatus, Leftover, SessionKind, StopReason
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.usage import Failure, FailureKind, Usage, UsageSource
from kasmos.model.view import (
    Active,
    BackingOff,
    Conclusion,
    Ended,
    Pending,
    RunState,
    RunView,
    SessionState,
    SessionView,
    TaskView,
    World,
)
from kasmos.store.fold import fold, run_outcome
from tests import strategies
from tests.strategies import Ledger

DONE = Cause(CauseKind.DONE, "exit 0")
BROKEN = Cause(CauseKind.EXIT, "exit 3")
PLAN = Plan(waves=(Wave(1, (PlanTask(id="1", number=1, wave=1, title="", body=""),)),))
RUN = strategies.started(PLAN, RunSettings())


def starting(session_id: str = "s1", attempt: int = 1, **changes: object) -> ev.SessionStarting:
    fields = {
        "session_id": session_id,
        "name": "w1t1",
        "kind": SessionKind.AGENT,
        "backend": ExecutionMode.SCRIPTED,
        "boot_id": "boot-a",
        "run_id": "r1",
        "task_id": "1",
        "attempt": attempt,
    }
    return ev.SessionStarting(**{**fields, **changes})  # type: ignore[arg-type]


def the_run(*events: Event) -> RunView:
    return Ledger(RUN, *events).world.runs["r1"]


def the_task(*events: Event) -> TaskView:
    return the_run(*events).tasks["1"]


def the_session(*events: Event) -> SessionView:
    return Ledger(RUN, starting(), *events).world.sessions["s1"]


# --- whatever the journal holds ---------------------------------------------------


@given(strategies.journals(), st.data())
def test_fold_continued(records: list[Record], data: st.DataObject) -> None:
    """Folding a journal in two parts gives the same world as folding it at once."""
    cut = data.draw(st.integers(0, len(records)))
    assert fold(records[cut:], fold(records[:cut])) == fold(records)


@given(strategies.journals(), st.data())
def test_fold_any_piece(records: list[Record], data: st.DataObject) -> None:
    """Any piece cut out of a journal folds, and the world knows its last number."""
    first = data.draw(st.integers(0, len(records)))
    last = data.draw(st.integers(first, len(records)))
    piece = records[first:last]
    assert fold(piece).seq == (piece[-1].seq if piece else 0)


@given(strategies.journals())
def test_fold_leaves_earlier_views_alone(records: list[Record]) -> None:
    """A view that somebody holds does not change under them when the world goes on."""
    world = World()
    for record in records:
        held = list(world.runs.values()) + list(world.sessions.values())
        before = copy.deepcopy(held)
        fold([record], world)
        assert held == before


@given(strategies.journals(), st.data())
def test_fold_beside_a_copy(records: list[Record], data: st.DataObject) -> None:
    """A world and its copy go on each by itself, and come to the same."""
    cut = data.draw(st.integers(0, len(records)))
    world = fold(records[:cut])
    copied = world.copy()
    fold(records[cut:], world)
    assert copied == fold(records[:cut])
    assert fold(records[cut:], copied) == world == fold(records)


def test_fold_asks_and_sums_beside_a_copy() -> None:
    """What a session asks and uses is in a world and in its copy once, and not in one for both."""
    first = Ledger(RUN, starting(account="mine"))
    copied = first.world.copy()
    began = len(first.records)
    first.commit(
        ev.ApprovalRequested("s1", "bcdf", Ask("1", tool="Bash", command="rm x")),
        ev.SessionUsed("s1", Usage(10, 20, source=UsageSource.REPORTED), "2026-05-01", conversation="c1"),
        ev.AccountParked("mine", FailureKind.RATE_LIMIT, "slow down", until_at=2e9),
    )
    assert (copied.approvals, copied.accounts["mine"].parked, copied.ledger.days) == ({}, None, {})
    fold(first.records[began:], copied)
    assert copied == first.world
    task = copied.runs["r1"].tasks["1"]
    assert task.state == Active("s1", approval_id="bcdf")
    assert copied.ledger.on("2026-05-01").input.amount == 10


@given(strategies.events)
def test_fold_unknown_id(event: Event) -> None:
    """An event about a run or session whose beginning is missing changes nothing but the journal number."""
    beginnings = (ev.RunStarted, ev.SessionStarting, ev.SupervisorStarted, ev.SupervisorStopped)
    # They speak of no run and no session.
    beginnings += (ev.EventsPruned, ev.AccountParked, ev.AccountReleased)
    if not isinstance(event, beginnings):
        assert fold([Record(5, 0.0, 0.0, event)]) == World(seq=5)


@given(strategies.journals())
def test_fold_task_sessions(records: list[Record]) -> None:
    """Whatever happens, a task's epoch lies within its sessions and each of these is known."""
    world = fold(records)
    for run in world.runs.values():
        for task in run.tasks.values():
            assert 0 <= task.epoch <= len(task.sessions)
            assert set(task.sessions) <= set(world.sessions)
            assert task.attempts >= 0


# --- supervisors ------------------------------------------------------------------


def test_fold_supervisor_of_another_boot() -> None:
    """Instants count as of this boot from the first supervisor of the boot on."""
    ledger = Ledger(
        ev.SupervisorStarted(10, "boot-a", "1"),
        ev.SupervisorStarted(11, "boot-b", "1"),
        ev.SupervisorStarted(12, "boot-b", "1"),
    )
    assert (ledger.world.boot_id, ledger.world.boot_seq, ledger.world.supervisor_pid) == ("boot-b", 2, 12)


def test_fold_daemon() -> None:
    """Whether the newest supervisor was a daemon is known also after it has left."""
    ledger = Ledger(ev.SupervisorStarted(10, "boot-a", "1", stays=True), ev.SupervisorStopped("stop"))
    assert ledger.world.supervisor_stays
    assert not Ledger(*(ev.SupervisorStarted(n, "boot-a", "1", stays=n == 1) for n in (1, 2))).world.supervisor_stays


def test_fold_supervisor_stopped() -> None:
    """A supervisor that left in order is known to be gone."""
    ledger = Ledger(ev.SupervisorStarted(10, "boot-a", "1"), ev.SupervisorStopped("idle"))
    assert ledger.world.supervisor_pid is None


# --- runs -------------------------------------------------------------------------

ENDED = ev.RunEnded("r1", Outcome.SUCCEEDED)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((), RunState.RUNNING),
        ((ev.RunParked("r1", 1),), RunState.PARKED),
        ((ev.RunParked("r1", 1), ev.RunAdvanced("r1", 1)), RunState.RUNNING),
        ((ev.RunParked("r1", 1), ev.RunInterrupted("r1", "x")), RunState.INTERRUPTED),
        ((ev.RunParked("r1", 1), ev.RunCancelRequested("r1", "x")), RunState.RUNNING),
        ((ev.RunInterrupted("r1", "x"), ev.RunContinued("r1")), RunState.RUNNING),
        ((ev.RunInterrupted("r1", "x"), ev.RunAdvanced("r1", 1)), RunState.INTERRUPTED),
        ((ENDED,), RunState.ENDED),
        ((ENDED, ev.RunContinued("r1")), RunState.ENDED),
        ((ENDED, ev.RunInterrupted("r1", "x")), RunState.ENDED),
        ((ENDED, ev.RunParked("r1", 1)), RunState.ENDED),
        ((ENDED, ev.RunAdvanced("r1", 1)), RunState.ENDED),
        ((ENDED, ev.RunReopened("r1")), RunState.RUNNING),
    ],
)
def test_fold_run_state(events: tuple[Event, ...], state: RunState) -> None:
    """A run that has ended is opened again by a retry only; whatever else comes too late changes nothing."""
    assert the_run(*events).state is state


def test_fold_run_reopened() -> None:
    """A run that was taken up again has no outcome, was never cancelled, and its waves end anew."""
    run = the_run(
        ev.WaveStarted("r1", 1),
        ev.RunCancelRequested("r1", "enough"),
        ev.WaveEnded("r1", 1, Outcome.CANCELLED),
        ev.RunEnded("r1", Outcome.CANCELLED),
        ev.RunReopened("r1"),
    )
    assert (run.outcome, run.cancel_reason, run.ended_at) == (None, None, None)
    assert (run.waves_started, run.waves_ended) == ((1,), ())


def test_fold_advance_never_goes_back() -> None:
    """A run that was advanced past a wave stays past it."""
    assert the_run(ev.RunAdvanced("r1", 3), ev.RunAdvanced("r1", 1)).advanced_to == 3


def test_fold_first_cancel_reason() -> None:
    """The first reason for ending a run is the one that is kept."""
    assert the_run(ev.RunCancelRequested("r1", "a"), ev.RunCancelRequested("r1", "b")).cancel_reason == "a"


@pytest.mark.parametrize(
    ("outcomes", "cancelled", "expected"),
    [
        ([], False, Outcome.SUCCEEDED),
        ([Outcome.SUCCEEDED], False, Outcome.SUCCEEDED),
        ([Outcome.SUCCEEDED], True, Outcome.SUCCEEDED),
        ([Outcome.SUCCEEDED, Outcome.LOST], False, Outcome.FAILED),
        ([Outcome.SKIPPED], False, Outcome.FAILED),
        ([Outcome.SUCCEEDED, Outcome.CANCELLED], True, Outcome.CANCELLED),
    ],
)
def test_run_outcome(outcomes: list[Outcome], cancelled: bool, expected: Outcome) -> None:
    """A run succeeds if all its tasks did, even when it was to be cancelled just then."""
    spec = PLAN.waves[0].tasks[0]
    tasks = [TaskView("r1", spec, state=Ended(outcome, DONE, 0.0)) for outcome in outcomes]
    assert run_outcome(tasks, cancelled) is expected


# --- tasks ------------------------------------------------------------------------


def test_fold_task_life() -> None:
    """A task is active with its session, backs off after a failure, is active again, and ends."""
    retry = ev.TaskRetryScheduled("r1", "1", 1, 2.5, BROKEN)
    ended = ev.TaskEnded("r1", "1", Outcome.SUCCEEDED, DONE)
    assert the_task().state == Pending()
    assert the_task(starting()).state == Active("s1")
    assert the_task(starting(), retry).state == BackingOff(1, 2.5, since_mono=1000.0, since_at=1e9 + 1000, cause=BROKEN)
    assert the_task(starting(), retry, starting("s2", 2)).state == Active("s2")
    task = the_task(starting(), retry, starting("s2", 2), ended)
    assert task.outcome is Outcome.SUCCEEDED
    assert (task.sessions, task.attempts, task.failures) == (("s1", "s2"), 2, (1000.0,))


def test_fold_task_put_back() -> None:
    """A task that was put back starts afresh, but its attempts are counted on."""
    put_back = ev.TaskPutBack("r1", "1", "interrupted")
    task = the_task(starting(), ev.TaskRetryScheduled("r1", "1", 1, 1.0, BROKEN), starting("s2", 2), put_back)
    assert task.state == Pending()
    assert (task.epoch, task.failures, task.attempts) == (2, (), 2)


# --- sessions ---------------------------------------------------------------------

SESSION_ENDED = ev.SessionEnded("s1", ExitStatus(code=0))


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((), SessionState.STARTING),
        ((ev.SessionStarted("s1", 7),), SessionState.RUNNING),
        ((ev.SessionAdopted("s1", 7),), SessionState.RUNNING),
        ((ev.SessionStarted("s1"), ev.StopRequested("s1", StopReason.TIMEOUT)), SessionState.STOPPING),
        ((ev.StopRequested("s1", StopReason.TIMEOUT), ev.SessionStarted("s1")), SessionState.STOPPING),
        ((ev.StopRequested("s1", StopReason.TIMEOUT), ev.SessionAdopted("s1")), SessionState.STOPPING),
        ((SESSION_ENDED,), SessionState.ENDED),
        ((ev.SessionStartFailed("s1", "no"),), SessionState.START_FAILED),
        ((ev.SessionNeverStarted("s1"),), SessionState.NEVER_STARTED),
        ((ev.SessionLost("s1", "gone"),), SessionState.LOST),
    ],
)
def test_fold_session_state(events: tuple[Event, ...], state: SessionState) -> None:
    """A session's state follows its events; a stop that was asked for is not forgotten by a start or an adoption."""
    assert the_session(*events).state is state


def test_fold_first_stop_reason() -> None:
    """A timeout during a stop does not turn the stop into a timeout."""
    stops = ev.StopRequested("s1", StopReason.REQUESTED), ev.StopRequested("s1", StopReason.TIMEOUT)
    assert the_session(*stops).stop_reason is StopReason.REQUESTED


def test_fold_stop_after_the_end() -> None:
    """A stop that was asked for after the end explains nothing and is not kept."""
    session = the_session(SESSION_ENDED, ev.StopRequested("s1", StopReason.REQUESTED))
    assert (session.stop_reason, session.state) == (None, SessionState.ENDED)


def test_fold_adopted_session_keeps_its_start() -> None:
    """An adopted session runs since its program started, or since the intent if the start was not recorded."""
    ledger = Ledger(RUN, starting())
    ledger.mono += 50
    ledger.commit(ev.SessionAdopted("s1"))
    assert ledger.world.sessions["s1"].started_mono == 1000.0


def test_fold_session_remembers_what_befell_it() -> None:
    """What was noted about a session is still known after its end."""
    first, second = Leftover(7, "sleep", "stopped"), Leftover(8, "ssh-agent", "reported")
    session = the_session(
        ev.SessionDetached("s1"),
        ev.KillSent("s1"),
        ev.SessionUnkillable("s1", (7,)),
        ev.LeftoversFound("s1", (first,)),
        ev.LeftoversFound("s1", (second,)),
        ev.OutputLost("s1", 10, "truncated"),
        ev.OutputLost("s1", 20, "truncated"),
        ev.SessionEnded("s1", ExitStatus(signal=9), output_bytes=30, tail="bye"),
    )
    assert (session.detached, session.killed, session.unkillable) == (True, True, (7,))
    assert (session.leftovers, session.output_lost) == ((first, second), 2)
    assert (session.exit, session.output_bytes, session.tail) == (ExitStatus(signal=9), 30, "bye")


def test_fold_conclusion_of_a_session() -> None:
    """What a program said of its end stands beside its exit, and the conversation it told beside the one it chose."""
    failure = Failure(FailureKind.AUTH, "Invalid API key")
    said = ev.SessionConcluded("s1", Outcome.FAILED, failure, conversation="c-2")
    session = the_session(ev.SessionStarted("s1"), said, ev.SessionEnded("s1", ExitStatus(code=1)))
    assert session.conclusion == Conclusion(Outcome.FAILED, failure, "c-2")
    assert session.conversation == "c-2"
    chosen = Ledger(RUN, starting(harness="claude", conversation="c-1")).world.sessions["s1"]
    assert (chosen.harness, chosen.conversation, chosen.conclusion) == ("claude", "c-1", None)


def test_fold_adopted_session_is_detached_no_longer() -> None:
    """Adoption ends a detachment."""
    assert not the_session(ev.SessionDetached("s1"), ev.SessionAdopted("s1")).detached


def test_fold_session_marks_its_run() -> None:
    """An event of a session moves its run's newest journal number."""
    assert the_run(starting(), SESSION_ENDED).last_seq == 3


# --- ends that were found later ---------------------------------------------------


def found_at(ended_mono: float) -> SessionView:
    """A session that starts at 1.0 and whose end is found, and recorded, from 10.0 on."""
    world = fold(
        [
            Record(1, 101.0, 1.0, RUN),
            Record(2, 101.0, 1.0, starting()),
            Record(3, 110.0, 10.0, ev.EndFound("s1", ended_mono)),
            Record(4, 111.0, 11.0, ev.SessionEnded("s1", ExitStatus(code=4))),
            Record(5, 112.0, 12.0, ev.TaskEnded("r1", "1", Outcome.FAILED, BROKEN)),
        ]
    )
    task, session = world.runs["r1"].tasks["1"], world.sessions["s1"]
    assert (task.ended_at, task.ended_mono) == (session.ended_at, session.ended_mono)
    return session


@pytest.mark.parametrize(("ended", "recorded"), [(4.0, 4.0), (-5.0, 1.0), (99.0, 10.0)])
def test_an_end_that_was_found(ended: float, recorded: float) -> None:
    """A session ended when its program did, never before it began nor after it was found; with it, its task."""
    session = found_at(ended)
    assert session.state is SessionState.ENDED
    assert session.ended_mono == recorded
    assert session.ended_at == 100.0 + recorded


def test_an_end_that_was_found_is_not_recorded_yet() -> None:
    """Until its end is recorded a session stays live, for whoever takes it up next."""
    assert the_session(ev.EndFound("s1", 0.0)).state.live


def test_an_end_is_found_before_it_is_recorded() -> None:
    """What is said of the end of a session that has ended already changes nothing."""
    ended = ev.SessionEnded("s1", ExitStatus(code=0))
    assert the_session(ended, ev.EndFound("s1", 0.0)) == the_session(ended)
