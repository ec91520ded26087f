"""The part of the fold that is about conversations which people take over. Pure; called by `kasmos.store.fold` only."""

from __future__ import annotations

from kasmos.model import event as ev
from kasmos.model.event import Record
from kasmos.model.evolve import evolve
from kasmos.model.session import SessionKind
from kasmos.model.takeover import HandBack, Takeover
from kasmos.model.view import Ended, SessionView, TaskView


def apply_takeover(
    task: TaskView, event: ev.TakeoverRequested | ev.HandedBack, record: Record, newest: SessionView | None
) -> TaskView:
    """A task of which somebody takes the conversation over, or gives it back.

    Args:
        newest: its newest session.
    """
    held = task.takeover
    match event:
        case ev.TakeoverRequested():
            # Whoever asked first has it, and what has ended has nothing to be taken over.
            if held is not None or isinstance(task.state, Ended):
                return task
            held = Takeover(event.conversation, record.at, record.mono, event.who, event.now)
        case ev.HandedBack():
            if held is None or held.back is not None:
                return task
            back = HandBack(event.prompt, event.done, event.now, event.who, event.reason)
            # What nobody has seen has not changed: the task is as if it had not been asked for.
            opening = newest is not None and newest.attended and newest.state.live
            held = evolve(held, back=back) if held.opened or opening else None
    return evolve(task, takeover=held)


def note_running(task: TaskView, session: SessionView) -> TaskView:
    """A task one of whose sessions has begun to run: the takeover begins by that, or is over."""
    held = task.takeover
    if held is None or session.kind is not SessionKind.AGENT:
        return task
    if session.attended:
        return evolve(task, takeover=evolve(held, opened=True))
    if held.back is None:
        return task
    # Later attempts go on with it as well: somebody has worked in it.
    return evolve(task, takeover=None, conversation=held.conversation)


def after_end(task: TaskView, event: ev.TaskRetryScheduled | ev.TaskPutBack | ev.TaskEnded) -> TaskView:
    """A task whose attempt is over, or which has ended: what is left of a takeover."""
    held = task.takeover
    if held is None or isinstance(event, ev.TaskPutBack):
        return task
    if isinstance(event, ev.TaskEnded):
        return evolve(task, takeover=None)
    # What its program is to be told when it goes on is not lost by a start that failed.
    kept = held if held.back is not None and not held.back.done else None
    return evolve(task, takeover=kept, conversation=held.conversation if held.opened else task.conversation)
