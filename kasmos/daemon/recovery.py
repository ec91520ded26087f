"""Recovery: what a new supervisor does about what an earlier one left.

The journal says what was intended, the session directories say what happened. Directories the journal does not
know of (its newest part was lost) are learnt again before anything is decided, so that nothing runs twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import trio

from kasmos.exceptions import SessionLostError
from kasmos.model import event as ev
from kasmos.model.event import Event, Record
from kasmos.model.session import SessionHandle, SessionKind, SessionSpec, StopReason
from kasmos.model.value import frozen
from kasmos.model.view import RunState, SessionView, World
from kasmos.sessions.protocol import Backend, SessionNeverStarted
from kasmos.supervision.ledger import Ledger
from kasmos.supervision.termination import note, stop


class Archive(Protocol):
    """**Protocol.** A backend that stores its sessions where a new supervisor finds them."""

    def stored_specs(self) -> Mapping[str, SessionSpec | None]:
        """Everything that is stored, by session id; None for what was not stored whole."""

    def unreadable(self) -> tuple[str, ...]:
        """What may belong to a session that runs, but does not say to which."""

    def forget(self, session_ids: tuple[str, ...]) -> None:
        """Remove what is stored."""


@frozen
class Findings:
    """What recovery found."""

    to_continue: tuple[str, ...]
    """Runs whose supervisor died with them under way."""
    strays: tuple[str, ...]
    """Sessions that may still run and belong to no unfinished task."""
    relearnt: int
    """Sessions the journal had forgotten."""
    unreadable: tuple[str, ...] = ()
    """Session directories of which nobody can say what they belong to: kept, and to be looked at by a person."""


async def take_stock(ledger: Ledger, archive: Archive, boot_id: str) -> Findings:
    """Compare the journal with what is stored, teach the journal what it forgot, and say what is to be done."""
    # In a thread: there may be thousands of directories.
    stored = await trio.to_thread.run_sync(archive.stored_specs)
    known = ledger.world.sessions
    fragments = tuple(name for name, spec in stored.items() if spec is None and name not in known)
    if fragments:
        # Without a spec nothing was ever spawned: it is written before, and last.
        await trio.to_thread.run_sync(archive.forget, fragments)
    forgotten = [spec for name, spec in stored.items() if spec is not None and name not in known]
    # The newest session of a task is the one that counts.
    forgotten.sort(key=lambda spec: (spec.attempt, -1 if spec.check is None else spec.check))
    events: list[Event] = [_relearn(spec, ledger.world, boot_id) for spec in forgotten]
    if events:
        await ledger.append(*events)
    world = ledger.world
    return Findings(
        to_continue=tuple(run.id for run in world.runs.values() if run.state in (RunState.RUNNING, RunState.PARKED)),
        strays=tuple(view.id for view in world.sessions.values() if view.state.live and _is_stray(view, world)),
        relearnt=len(forgotten),
        unreadable=tuple(name for name in await trio.to_thread.run_sync(archive.unreadable) if name not in known),
    )


def find_untold(world: World, later: Callable[[int], Iterable[Record]]) -> str | None:
    """The run that ended, and whose supervisor was killed before it could tell anybody how.

    Who types the same command again wants to know that, and not to have everything done twice.

    Args:
        world: as it was left; nothing of the new supervisor is in it.
        later: gives the records after a journal number.
    """
    if world.supervisor_pid is None or not world.runs:
        return None
    newest = max(world.runs.values(), key=lambda run: run.last_seq)
    if newest.unfinished:
        return None
    # A supervisor that went on with something else, or left in order, has told.
    others = (record.event for record in later(newest.last_seq))
    return newest.id if all(isinstance(event, ev.SupervisorStarted) for event in others) else None


def _relearn(spec: SessionSpec, world: World, boot_id: str) -> ev.SessionStarting:
    run = world.runs.get(spec.run_id or "")
    belongs = run is not None and spec.task_id in run.tasks
    return ev.SessionStarting(
        session_id=spec.id,
        name=spec.name,
        kind=spec.kind,
        backend=spec.backend,
        boot_id=spec.boot_id or boot_id,
        run_id=spec.run_id if belongs else None,
        task_id=spec.task_id if belongs else None,
        attempt=spec.attempt,
        check=spec.check,
        profile=spec.profile,
        conversation=spec.conversation,
        attended=spec.attended,
    )


def _is_stray(view: SessionView, world: World) -> bool:
    run = world.runs.get(view.run_id or "")
    task = run.tasks.get(view.task_id or "") if run is not None else None
    if run is None or task is None or not run.unfinished or task.outcome is not None:
        return True
    # An older session of a task whose newest one is another: superseded, and not to be waited for.
    return task.sessions[-1] != view.id or len(task.sessions) <= task.epoch


async def end_stray(ledger: Ledger, backend: Backend, view: SessionView) -> None:
    """Adopt a session nobody is waiting for, stop it, and record how it ended."""
    spec = SessionSpec(id=view.id, name=view.name, argv=(), cwd="/", backend=view.backend, kind=SessionKind.AGENT)
    handle = SessionHandle(session_id=view.id, backend=view.backend, boot_id=view.boot_id)

    async def notify(event: Event) -> None:
        await note(ledger.append, event)

    try:
        async with backend.adopt(spec, handle, notify=notify) as session:
            status = session.exit or await stop(session, reason=StopReason.CANCELLED)
            if status is None:
                session.detach()
                raise SessionLostError("its processes survived SIGKILL")
            await ledger.append(ev.SessionEnded(view.id, status, session.output_bytes))
    except SessionNeverStarted:
        gone = ev.SessionLost(view.id, "nothing is left of it, and its records have been removed")
        await ledger.append(gone if view.started_mono is not None else ev.SessionNeverStarted(view.id))
    except SessionLostError as error:
        await ledger.append(ev.SessionLost(view.id, str(error)))
