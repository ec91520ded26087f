"""What a takeover means for the next step of a task, decided from the journal alone. Pure.

A person takes a headless task's conversation over at the end of a turn; it is opened in a terminal; when they give it
back, or its program ends, the task goes on headless. All of it is one attempt: nobody has failed, and the task's clock
stands still while a person has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kasmos.model.event import HandedBack
from kasmos.model.session import SessionKind, StopReason
from kasmos.model.task import Outcome
from kasmos.model.value import frozen
from kasmos.model.view import SessionState, SessionView, TaskView

TURN_ENDS = frozenset({None, StopReason.SETTLED, StopReason.HANDED_OVER, StopReason.HANDED_BACK})
"""How a session may have been stopped whose conversation goes on; every other stop explains itself."""
_NOTHING_RAN = frozenset({SessionState.NEVER_STARTED, SessionState.START_FAILED})


@frozen
class Thread:
    """The conversation that a session goes on with."""

    conversation: str
    prompt: str = ""
    """What the program is told; empty is that it should go on."""
    attended: bool = False
    """It is opened in a terminal, for a person."""
    from_person: bool = False
    """A person has had it."""


@frozen
class Done:
    """The person has said that nothing is left to be done."""

    who: str


def next_thread(task: TaskView) -> Thread | None:
    """The conversation that the task's next attempt goes on with; None where it begins one."""
    held = task.takeover
    if held is None:
        return Thread(task.conversation) if task.conversation else None
    if held.back is None:
        return Thread(held.conversation, attended=True)
    return Thread(held.conversation, "" if held.back.done else held.back.prompt, from_person=True)


def count_for(task: TaskView, sessions: Iterable[SessionView]) -> list[SessionView]:
    """Those that matter: a terminal that could not be opened has changed nothing, once it is given up."""
    held = task.takeover
    return [one for one in sessions if held is not None or not (one.attended and one.state in _NOTHING_RAN)]


def decide_handover(task: TaskView, counted: Sequence[SessionView]) -> Thread | HandedBack | Done | None:
    """What follows the newest session of a task's program, as far as a takeover decides that.

    Args:
        task: the task as folded.
        counted: its sessions that count, oldest first; the newest is of the program, and has ended by itself or by one
            of `TURN_ENDS`.

    Returns: the conversation that goes on at once in the same attempt, an event to be committed, that a person has
        said it is done, or None where the session is judged as any other.
    """
    newest = counted[-1]
    held = task.takeover
    if newest.attended:
        return _after_terminal(task, newest)
    if newest.state is SessionState.NEVER_STARTED:
        # The same once more. What went before it in its attempt says what that was.
        before = [one for one in counted[:-1] if one.kind is SessionKind.AGENT and one.attempt == newest.attempt]
        return decide_handover(task, before) if before else None
    if held is not None and held.back is None and newest.state is SessionState.ENDED:
        return Thread(held.conversation, attended=True)
    interrupted = newest.stop_reason is StopReason.HANDED_OVER and newest.state is SessionState.ENDED
    if interrupted and not (newest.conclusion is not None and newest.conclusion.outcome is Outcome.SUCCEEDED):
        # Its turn was cut for somebody who has thought better of it.
        return Thread(newest.conversation)
    return None


def _after_terminal(task: TaskView, newest: SessionView) -> Thread | HandedBack | Done:
    held, state = task.takeover, newest.state
    if held is None:
        return Thread(newest.conversation, from_person=True)
    if held.back is None:
        if state is SessionState.NEVER_STARTED:
            return Thread(held.conversation, attended=True)
        failed = state is SessionState.START_FAILED
        reason = f"it could not be opened: {newest.reason}" if failed else f"its program has ended: {newest.exit}"
        return HandedBack(task.run_id, task.spec.id, reason=reason)
    if held.back.done:
        return Done(held.back.who)
    return Thread(held.conversation, held.back.prompt, from_person=True)


def decide_relief(task: TaskView, session: SessionView | None) -> StopReason | None:
    """Why a live session is to end now for a takeover; None where it goes on.

    A turn that is under way in the terminal is for whoever watches that to wait for.
    """
    held = task.takeover
    if held is None or session is None or session.kind is not SessionKind.AGENT:
        return None
    if session.attended:
        return StopReason.HANDED_BACK if held.back is not None else None
    wanted = held.now and held.back is None and not held.opened
    return StopReason.HANDED_OVER if wanted else None


def spent_before(task: TaskView, sessions: Mapping[str, SessionView], session_id: str, attempt: int) -> float:
    """Seconds of the task's time that an attempt's earlier sessions took; a person's time is not the task's."""
    spent = 0.0
    for name in task.sessions[task.epoch :]:
        one = sessions[name]
        same = one.attempt == attempt and one.kind is SessionKind.AGENT and not one.attended
        if same and name != session_id and one.started_mono is not None and one.ended_mono is not None:
            spent += max(0.0, one.ended_mono - one.started_mono - one.waited)
    return spent
