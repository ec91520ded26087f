"""What becomes of facts that a supervisor could not record before it had to go. Pure.

Nothing is contradicted: what the journal does not say, the next supervisor finds out by what the sessions have left
on the disk, or decides anew. What people asked for is known to them alone, and is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kasmos.model import event as ev
from kasmos.model.event import Event
from kasmos.model.plan import Origin

_SHOWN = 10
_ASKED = (
    ev.RunCancelRequested, ev.RunAdvanced, ev.RunReopened, ev.TakeoverRequested, ev.HandedBack, ev.ApprovalResolved,
    ev.AccountReleased,
)  # fmt: skip
_OF_SESSIONS = (
    ev.SessionStarted, ev.SessionAdopted, ev.SessionDetached, ev.StopRequested, ev.KillSent, ev.EndFound,
    ev.SessionUsed, ev.SessionConcluded, ev.SessionEnded, ev.SessionLost, ev.SessionUnkillable,
)  # fmt: skip
_DECIDED = (
    ev.RunContinued, ev.RunInterrupted, ev.RunParked, ev.RunEnded, ev.WaveStarted, ev.WaveEnded, ev.TaskRetryScheduled,
    ev.TaskPutBack, ev.TaskEnded, ev.SessionStarting, ev.SessionStartFailed, ev.SessionNeverStarted,
)  # fmt: skip


def what_becomes_of(events: Iterable[Event]) -> list[str]:
    """What the next supervisor makes of each kind of these, in words for people."""
    events = tuple(events)
    said = []
    handed_in = [_name_of(event) for event in events if isinstance(event, ev.RunStarted)]
    if handed_in:
        said.append(f"never accepted, to be handed in again: {some_of(handed_in)}")
    asked = [_name_of(event) for event in events if isinstance(event, _ASKED)]
    if asked:
        said.append(f"asked for and not done, to be asked for again: {some_of(asked)}")
    sessions = list(dict.fromkeys(event.session_id for event in events if isinstance(event, _OF_SESSIONS)))
    if sessions:
        said.append(f"found out by the next start from what they left on the disk: {some_of(sessions)}")
    if any(isinstance(event, _DECIDED) for event in events):
        said.append("what follows for tasks and runs is decided anew by the next start")
    return said


def _name_of(event: Event) -> str:
    match event:
        case ev.RunStarted(run_id=run_id, origin=origin):
            return run_id if origin is Origin.TASK else f"run {run_id}"
        case ev.RunCancelRequested(run_id=run_id):
            return f"the end of run {run_id}"
        case ev.RunAdvanced(run_id=run_id):
            return f"the advance of run {run_id}"
        case ev.RunReopened(run_id=run_id):
            return f"another try in run {run_id}"
        case ev.TakeoverRequested(run_id=run_id, task_id=task_id):
            return f"the takeover of {run_id}.{task_id}"
        case ev.HandedBack(run_id=run_id, task_id=task_id):
            return f"the handing back of {run_id}.{task_id}"
        case ev.ApprovalResolved(approval_id=name):
            return f"the answer to {name}"
        case ev.AccountReleased(account=name):
            return f"the release of account {name}"
    return type(event).__name__


def some_of(names: Sequence[str]) -> str:
    """The first of these names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
