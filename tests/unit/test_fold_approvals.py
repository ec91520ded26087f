"""The fold tells what waits for a person, for how long, and what was answered."""

from __future__ import annotations

from kasmos.cli.render.live import Frame
from kasmos.cli.render.plain import tell
from kasmos.cli.render.report import describe
from kasmos.cli.render.text import Look
from kasmos.daemon.wire import attention, session_wire, task_status, task_wire
from kasmos.model import event as ev
from kasmos.model.approval import ALLOW, Answer, AnswerKind, ApprovalState, Ask, ResolvedBy
from kasmos.model.session import ExitStatus
from kasmos.model.view import Active
from kasmos.store.fold_approvals import KEPT
from tests.unit.histories import History, make_plan

ASK = Ask("1", tool="Bash", command="rm x")


def asking() -> tuple[History, str]:
    history = History(make_plan(1))
    session = history.start("1")
    history.add(ev.SessionStarted(session, 7), after=1)
    history.add(ev.ApprovalRequested(session, "bcdf", ASK, "no rule allows it"), after=4)
    return history, session


def state(history: History) -> ApprovalState:
    return history.world.approvals["bcdf"].state


def resolved(session: str, answer: Answer = ALLOW) -> ev.ApprovalResolved:
    return ev.ApprovalResolved(session, "bcdf", answer, ResolvedBy.PERSON, "mia")


def test_open_approval() -> None:
    """While its session asks, a task waits, and a person is told how to answer."""
    history, session = asking()
    task = history.task("1")
    assert task.state == Active(session, "bcdf")
    assert task_status(task) == "waiting"
    assert task_wire(history.world, task).approval == "bcdf"
    assert session_wire(history.world.sessions[session]).status == "waiting"
    assert [one.kind for one in attention(history.world)] == ["approval"]
    assert "kas approve bcdf" in next(iter(attention(history.world))).message


def test_views_of_an_open_approval() -> None:
    """The picture of a run, its lines and its report all say what waits, and how it is answered."""
    history, session = asking()
    run = history.world.runs["r1"]
    screen = Frame(history.world, run, {}, Look(), history.mono, history.wall).lines(120, 20)
    assert any("waiting for you: kas approve bcdf  (Bash rm x)" in line.plain for line in screen)
    assert describe(history.world, history.task("1")) == "waiting for you: kas approve bcdf  (Bash rm x)"
    told = tell(ev.ApprovalRequested(session, "bcdf", ASK), history.world, run)
    assert told is not None
    assert told[1:] == ("waits for you: Bash rm x (kas approve bcdf, or kas deny bcdf)", "waiting")
    assert tell(ev.ApprovalRequested(session, "bcdf", ASK, waits=False), history.world, run) is None
    history.add(resolved(session))
    told = tell(resolved(session), history.world, run)
    assert told is not None
    assert told[1] == "Bash rm x: allowed by mia"


def test_clock_of_a_waiting_session() -> None:
    """The time a session waits is counted from the request to the answer, over all it asked."""
    history, session = asking()
    history.add(resolved(session), after=10)
    view = history.world.sessions[session]
    assert (view.waited, view.waiting_since_mono) == (10, None)
    assert task_status(history.task("1")) == "running"
    history.add(ev.ApprovalRequested(session, "ghjk", ASK), after=5)
    history.add(ev.ApprovalWithdrawn(session, "ghjk", "gone"), after=3)
    assert history.world.sessions[session].waited == 13


def test_answer_on_its_way() -> None:
    """An answer is resolved, then sent, then delivered; each state comes once, in this order."""
    history, session = asking()
    history.add(ev.ApprovalDelivered(session, "bcdf"))
    history.add(ev.ApprovalSending(session, "bcdf"))
    assert state(history) is ApprovalState.OPEN
    history.add(resolved(session))
    history.add(ev.ApprovalSending(session, "bcdf"))
    assert state(history) is ApprovalState.SENDING
    history.add(ev.ApprovalDelivered(session, "bcdf"))
    history.add(ev.ApprovalWithdrawn(session, "bcdf", "late"))
    view = history.world.approvals["bcdf"]
    assert (view.state, view.answer, view.who, view.reason) == (ApprovalState.DELIVERED, ALLOW, "mia", "")


def test_first_answer_counts() -> None:
    """The first answer counts, and none comes after a withdrawal."""
    history, session = asking()
    history.add(resolved(session))
    history.add(resolved(session, Answer(AnswerKind.DENY)))
    assert history.world.approvals["bcdf"].answer == ALLOW
    history, session = asking()
    history.add(ev.ApprovalWithdrawn(session, "bcdf", "gone"))
    history.add(resolved(session))
    assert history.world.approvals["bcdf"].answer is None


def test_session_that_ended_while_it_asked() -> None:
    """What a session asked ends with it, whoever records the end."""
    history, session = asking()
    history.add(ev.SessionEnded(session, ExitStatus(code=1)), after=2)
    view = history.world.approvals["bcdf"]
    assert (view.state, view.reason) == (ApprovalState.WITHDRAWN, "its session has ended")
    assert history.world.sessions[session].waiting_since_mono is None
    history.add(ev.ApprovalRequested(session, "ghjk", ASK))
    assert "ghjk" not in history.world.approvals


def test_many_approvals() -> None:
    """Of each session the newest approvals are kept in memory, however many there were."""
    history, session = asking()
    for number in range(100):
        history.add(ev.ApprovalRequested(session, f"x{number}", ASK))
        history.add(ev.ApprovalWithdrawn(session, f"x{number}", "gone"))
    assert len(history.world.approvals) == KEPT
    assert history.world.sessions[session].approvals[-1] == "x99"
