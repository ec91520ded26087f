"""What a takeover means for a task follows from the journal alone."""

from __future__ import annotations

import attrs
import pytest

from kasmos.cli.render.live import Frame
from kasmos.cli.render.report import describe
from kasmos.cli.render.text import Look
from kasmos.daemon.wire import attention, held_by, session_wire, task_wire
from kasmos.model import event as ev
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import ExitStatus, StopReason
from kasmos.model.takeover import TakeoverPhase
from kasmos.model.task import CauseKind, Outcome
from kasmos.supervision.handover import Thread, decide_relief, spent_before
from kasmos.supervision.transitions import Finish, GiveBack, PutBack, Retry, StartAgent, StartCheck, Step, Supervise
from tests.unit.histories import History, make_plan
from tests.unit.test_transitions import EXIT_3, OK, Journal, lost, never_started, start_failed

TERMINAL = Thread("c-1", attended=True)
ON = Thread("c-1", from_person=True)
BACK = "its program has ended: exit 0"


def given_back(reason: str) -> GiveBack:
    return GiveBack(ev.HandedBack("r1", "1", reason=reason))


def asked(*, now: bool = False) -> Journal:
    """A headless turn under way, of which somebody wants the conversation."""
    return Journal().open(1).run().take_over(now=now)


def concluded(journal: Journal, outcome: Outcome) -> Journal:
    """The newest session's program says how it ended, and exits."""
    return journal.say(ev.SessionConcluded(journal.newest, outcome)).exit(OK)


@pytest.mark.parametrize(
    ("journal", "step"),
    [
        pytest.param(asked(), Supervise("s1"), id="the turn is waited for"),
        pytest.param(asked().exit(OK), StartAgent(1, TERMINAL), id="done: opened, not checked"),
        pytest.param(asked().exit(EXIT_3), StartAgent(1, TERMINAL), id="failed: opened, not tried again"),
        pytest.param(asked().stop(StopReason.SETTLED).exit(OK), StartAgent(1, TERMINAL), id="done, and sent away"),
        pytest.param(asked(now=True).stop(StopReason.HANDED_OVER).exit(OK), StartAgent(1, TERMINAL), id="interrupted"),
        pytest.param(asked().stop(StopReason.INTERRUPTED).exit(OK), PutBack("interrupted"), id="the supervisor leaves"),
        pytest.param(asked().stop(StopReason.INTERRUPTED).exit(OK).put_back(), StartAgent(2, TERMINAL), id="put back"),
        pytest.param(asked().exit(OK).open(1, attended=True), Supervise("s2"), id="opening"),
        pytest.param(
            never_started(asked().exit(OK).open(1, attended=True)), StartAgent(1, TERMINAL), id="never opened: again"
        ),
        pytest.param(
            start_failed(asked().exit(OK).open(1, attended=True)),
            given_back("it could not be opened: no such program"),
            id="could not be opened",
        ),
        pytest.param(
            start_failed(asked().exit(OK).open(1, attended=True)).hand_back(), StartCheck(1, 0), id="judged as before"
        ),
        pytest.param(asked().hand_back().exit(OK), StartCheck(1, 0), id="thought better of"),
        pytest.param(
            asked(now=True).stop(StopReason.HANDED_OVER).hand_back().exit(OK),
            StartAgent(1, Thread("c-0")),
            id="thought better of, too late",
        ),
        pytest.param(
            concluded(asked(now=True).stop(StopReason.HANDED_OVER).hand_back(), Outcome.SUCCEEDED),
            StartCheck(1, 0),
            id="thought better of, when it was done",
        ),
        pytest.param(
            never_started(asked(now=True).stop(StopReason.HANDED_OVER).hand_back().exit(OK).open(1)),
            StartAgent(1, Thread("c-0")),
            id="going on never started: again",
        ),
        pytest.param(Journal().taken(), Supervise("s2"), id="a person has it"),
        pytest.param(Journal().taken().exit(OK), given_back(BACK), id="quit: handed back by itself"),
        pytest.param(Journal().taken().exit(EXIT_3), given_back("its program has ended: exit 3"), id="crashed"),
        pytest.param(Journal().taken().hand_back(), Supervise("s2"), id="its program is leaving"),
        pytest.param(Journal().taken().hand_back("next").exit(OK), StartAgent(1, attrs.evolve(ON, prompt="next"))),
        pytest.param(
            Journal().taken().hand_back().stop(StopReason.HANDED_BACK).exit(ExitStatus(signal=9)),
            StartAgent(1, ON),
            id="handed back, whatever it exits with",
        ),
        pytest.param(
            never_started(Journal().taken().hand_back("next").exit(OK).open(1)),
            StartAgent(1, attrs.evolve(ON, prompt="next")),
            id="going on never started: the same once more",
        ),
        pytest.param(Journal().taken().hand_back().exit(OK).open(1).run().exit(OK), StartCheck(1, 0), id="went on"),
        pytest.param(Journal().taken().hand_back(done=True).exit(EXIT_3), StartCheck(1, 0), id="said to be done"),
        pytest.param(
            asked().exit(OK).open(1, attended=True).hand_back("next").run().exit(OK),
            StartAgent(1, attrs.evolve(ON, prompt="next")),
            id="given back while it was being opened",
        ),
        pytest.param(
            Journal().taken().stop(StopReason.INTERRUPTED).exit(OK).put_back(),
            StartAgent(2, TERMINAL),
            id="theirs still",
        ),
        pytest.param(
            Journal().taken().stop(StopReason.INTERRUPTED).exit(OK).put_back().hand_back("next"),
            StartAgent(2, attrs.evolve(ON, prompt="next")),
            id="handed back while nothing ran",
        ),
    ],
)
def test_goes_on(journal: Journal, step: Step) -> None:
    """A conversation goes from headless to a terminal and back in one attempt, wherever its supervisor was killed."""
    assert journal.decide(checks=2, retries=2) == step


@pytest.mark.parametrize(
    ("journal", "outcome", "kind"),
    [
        (lost(Journal().taken()), Outcome.LOST, CauseKind.LOST),
        (lost(asked()), Outcome.LOST, CauseKind.LOST),
        (Journal().taken().stop(StopReason.REQUESTED).exit(OK), Outcome.CANCELLED, CauseKind.STOPPED),
        (Journal().taken().stop(StopReason.CANCELLED).exit(OK), Outcome.CANCELLED, CauseKind.RUN_CANCELLED),
        (asked().stop(StopReason.TIMEOUT).exit(OK), Outcome.TIMED_OUT, CauseKind.TIMEOUT),
        (Journal().taken().stop(StopReason.BUDGET).exit(OK), Outcome.FAILED, CauseKind.BUDGET),
        (Journal().taken().hand_back(done=True).exit(EXIT_3), Outcome.SUCCEEDED, CauseKind.DONE),
        (Journal().taken().hand_back().exit(OK).open(1).run().exit(EXIT_3), Outcome.FAILED, CauseKind.EXIT),
    ],
)
def test_comes_to_an_end(journal: Journal, outcome: Outcome, kind: CauseKind) -> None:
    """A stop, a loss and the end of the clock end a task whoever has its conversation; who says done is believed."""
    step = journal.decide()
    assert isinstance(step, Finish)
    assert (step.outcome, step.cause.kind) == (outcome, kind)
    assert outcome is not Outcome.SUCCEEDED or step.cause.message == "ann said that it is done"
    ended = journal.say(ev.TaskEnded("r1", "1", step.outcome, step.cause))
    assert ended.task.takeover is None
    assert ended.take_over().task.takeover is None


def test_no_try_is_lost() -> None:
    """A handover is no failure: the tries and the back-off of a task are what they were."""
    journal = Journal().taken().hand_back().exit(OK).open(1).run().exit(EXIT_3)
    assert (journal.task.attempts, journal.task.failures) == (1, ())
    step = journal.decide(retries=1)
    assert isinstance(step, Retry)
    journal.say(step.event)
    journal.mono += 100
    # What somebody has worked in is not begun anew.
    assert journal.decide(retries=1) == StartAgent(2, Thread("c-1"))


def test_what_it_is_told_survives_a_start_that_failed() -> None:
    """What a person wants to be done next is told to the attempt that follows one which could not be started."""
    journal = start_failed(Journal().taken().hand_back("next").exit(OK).open(1))
    step = journal.decide(retries=1)
    assert isinstance(step, Retry)
    journal.say(step.event)
    journal.mono += 100
    assert journal.decide(retries=1) == StartAgent(2, attrs.evolve(ON, prompt="next"))


def test_an_attempt_that_is_over_is_not_taken_over() -> None:
    """Whoever waits for a turn to end that timed out does not get the next attempt instead."""
    journal = asked().stop(StopReason.TIMEOUT).exit(OK)
    step = journal.decide(retries=1)
    assert isinstance(step, Retry)
    journal.say(step.event)
    assert journal.task.takeover is None
    journal.mono += 100
    assert journal.decide(retries=1) == StartAgent(2)


def test_relief() -> None:
    """A session ends for a takeover when it is interrupted for it, or when its conversation is given back."""

    def relief(journal: Journal) -> StopReason | None:
        return decide_relief(journal.task, journal.world.sessions[journal.newest])

    assert relief(Journal().open(1).run()) is None
    assert relief(asked()) is None
    assert relief(asked(now=True)) is StopReason.HANDED_OVER
    assert relief(asked(now=True).hand_back()) is None
    assert relief(Journal().taken()) is None
    assert relief(Journal().taken().hand_back()) is StopReason.HANDED_BACK
    assert relief(Journal().taken().hand_back().exit(OK).open(1)) is None
    assert decide_relief(asked(now=True).task, None) is None


def test_phases() -> None:
    """It is told truly how far a takeover is, and by whom."""
    journal = asked()
    found = []
    for act in (
        lambda: journal.exit(OK).open(1, attended=True).run(),
        lambda: journal.hand_back(),
        lambda: journal.exit(OK).open(1),
    ):
        assert journal.task.takeover is not None
        found.append((journal.task.takeover.phase, journal.task.takeover.who))
        act()
    assert found == [(phase, "ann") for phase in TakeoverPhase]
    assert journal.task.takeover is not None
    journal.run()
    assert (journal.task.takeover, journal.task.conversation) == (None, "c-1")


def test_clock() -> None:
    """A person's time is not the task's: what the headless sessions of an attempt took together is its time."""
    journal = Journal().open(1).run(30.0).take_over().exit(OK).open(1, attended=True).run(500.0).hand_back().exit(OK)
    journal.open(1).run(7.0)
    sessions = journal.world.sessions
    assert spent_before(journal.task, sessions, "s3", 1) == 30.0
    journal.exit(OK)
    assert spent_before(journal.task, sessions, "s4", 1) == 37.0
    assert spent_before(journal.task, sessions, "s4", 2) == 0.0


def test_it_is_told_to_whoever_looks() -> None:
    """The picture of a run, its report and the API say who has a conversation, and how to hand it back."""
    history = History(make_plan(1))
    first = history.start("1")

    def look() -> tuple[str, list[str]]:
        task = history.task("1")
        assert task_wire(history.world, task).status == "running"
        said, now = describe(history.world, task), (history.mono, history.wall)
        assert said == held_by(task)
        screen = Frame(history.world, history.world.runs["r1"], {}, Look(), *now).lines(160, 20)
        assert any(said in line.plain for line in screen)
        return said, [one.kind for one in attention(history.world)]

    history.add(ev.TakeoverRequested("r1", "1", "c-1", "ann"))
    assert look() == ("ann takes it over when its turn has ended", [])
    history.add(ev.SessionEnded(first, OK))
    begun = next(r.event for r in history.records if isinstance(r.event, ev.SessionStarting))
    history.add(attrs.evolve(begun, session_id="r1-1a1-t", backend=ExecutionMode.TMUX, attended=True))
    history.add(ev.SessionStarted("r1-1a1-t"))
    name = history.task("1").spec.name
    assert look() == (f"with a person: ann has taken it over (`kas attach {name}`, `kas detach r1.1`)", ["attended"])
    assert session_wire(history.world.sessions["r1-1a1-t"]).attended
    history.add(ev.HandedBack("r1", "1", who="ann"))
    assert look() == ("is being handed back: it goes on headless", [])
