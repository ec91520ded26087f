"""The fold: from events to the present. Pure; the only code that advances a `World`.

Total over every event: an event about something unknown (its beginning was pruned or
damaged) is passed over, never an error, so that any prefix or suffix of a journal folds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import TypeVar

from kasmos.model import event as ev
from kasmos.model.event import Record, RunEvent, SessionEvent
from kasmos.model.evolve import evolve
from kasmos.model.task import Outcome
from kasmos.model.view import (
    Active,
    BackingOff,
    DeliveryState,
    Ended,
    Pending,
    RunState,
    RunView,
    SessionState,
    SessionView,
    TaskView,
    World,
)
from kasmos.store.fold_approvals import ApprovalEvent, apply_approval, end_approvals
from kasmos.store.fold_takeover import after_end, apply_takeover, note_running
from kasmos.store.fold_usage import add_to_day, apply_account, apply_concluded, apply_used, note_start

V = TypeVar("V")


def fold(records: Iterable[Record], world: World | None = None) -> World:
    """Advance *world* (or a new one) by *records*, in order, and return it."""
    world = World() if world is None else world
    for record in records:
        apply(world, record)
    return world


def apply(world: World, record: Record) -> None:
    """Advance *world* in place by one record."""
    event = record.event
    world.seq = record.seq
    match event:
        case ev.SupervisorStarted():
            if event.boot_id != world.boot_id:
                world.boot_seq = record.seq
            world.boot_id = event.boot_id
            world.supervisor_pid = event.pid
            world.supervisor_stays = event.stays
        case ev.SupervisorStopped():
            world.supervisor_pid = None
        case ev.EventsPruned():
            for kept in event.usage:
                add_to_day(world.ledger, kept.day, kept.agent, kept.account, kept.tally)
        case ev.AccountParked() | ev.AccountReleased():
            apply_account(world, event, record)
        case ev.AccessRefused():
            return
        case ev.RunStarted():
            world.runs[event.run_id] = RunView(
                id=event.run_id,
                plan=event.plan,
                source=event.source,
                key=event.key,
                digest=event.digest,
                settings=event.settings,
                project=event.project,
                started_at=record.at,
                started_mono=record.mono,
                tasks={task.id: TaskView(run_id=event.run_id, spec=task) for task in event.plan.tasks},
                last_seq=record.seq,
                origin=event.origin,
                needs=event.needs,
                request_key=event.request_key,
                first_seq=record.seq,
            )
        case ev.SessionStarting():
            _session_starting(world, event, record)
        case _ if isinstance(event, SessionEvent):
            _session(world, event, record)
        case _:
            _run(world, event, record)


def forget(world: World, run_ids: Iterable[str], session_ids: Iterable[str]) -> World:
    """Take out of *world*, in place, what is pruned from the journal; what was taken out."""
    gone = World()
    for run_id in run_ids:
        if run_id in world.runs:
            gone.runs[run_id] = world.runs.pop(run_id)
            if run_id in world.ledger.runs:
                gone.ledger.runs[run_id] = world.ledger.runs.pop(run_id)
    of_runs = [one.id for one in world.sessions.values() if one.run_id in gone.runs]
    for session_id in (*session_ids, *of_runs):
        if session_id in world.sessions:
            gone.sessions[session_id] = world.sessions.pop(session_id)
    for approval in [one for one in world.approvals.values() if one.session_id in gone.sessions]:
        gone.approvals[approval.id] = world.approvals.pop(approval.id)
    return gone


def restore(world: World, gone: World) -> None:
    """Put back, in place, what was taken out: it was older than all that has come since."""
    _put_first(world.runs, gone.runs)
    _put_first(world.sessions, gone.sessions)
    _put_first(world.approvals, gone.approvals)
    world.ledger.runs.update(gone.ledger.runs)


def _put_first(table: MutableMapping[str, V], older: Mapping[str, V]) -> None:
    newer = dict(table)
    table.clear()
    table.update(older)
    table.update(newer)


def _session_starting(world: World, event: ev.SessionStarting, record: Record) -> None:
    world.sessions[event.session_id] = SessionView(
        id=event.session_id,
        name=event.name,
        kind=event.kind,
        backend=event.backend,
        boot_id=event.boot_id,
        run_id=event.run_id,
        task_id=event.task_id,
        attempt=event.attempt,
        check=event.check,
        profile=event.profile,
        account=event.account,
        harness=event.harness,
        conversation=event.conversation,
        attended=event.attended,
        state=SessionState.STARTING,
        starting_at=record.at,
        starting_mono=record.mono,
        first_seq=record.seq,
        last_seq=record.seq,
    )
    note_start(world, event, record)
    run = world.runs.get(event.run_id or "")
    task = run.tasks.get(event.task_id or "") if run else None
    if run is None or task is None:
        return
    first = task.started_at is None
    task = evolve(
        task,
        state=Active(event.session_id),
        sessions=(*task.sessions, event.session_id),
        attempts=max(task.attempts, event.attempt),
        started_at=record.at if first else task.started_at,
        started_mono=record.mono if first else task.started_mono,
    )
    _put_task(world, run, task, record)


def _session(world: World, event: SessionEvent, record: Record) -> None:
    session = world.sessions.get(event.session_id)
    if session is None:
        return
    match event:
        case ev.SessionStarted():
            session = evolve(
                session,
                state=SessionState.STOPPING if session.stop_reason else SessionState.RUNNING,
                pid=event.pid,
                started_at=record.at,
                started_mono=record.mono,
                # Said here, so that it need not be added: it is live, or is told of for the second time.
                last_seq=record.seq if session.state.live else session.last_seq,
            )
        case ev.SessionAdopted():
            session = evolve(
                session,
                state=SessionState.STOPPING if session.stop_reason else SessionState.RUNNING,
                pid=event.pid if event.pid is not None else session.pid,
                started_at=session.started_at if session.started_at is not None else session.starting_at,
                started_mono=(session.started_mono if session.started_mono is not None else session.starting_mono),
                detached=False,
            )
        case ev.SessionStartFailed():
            session = _over(session, SessionState.START_FAILED, record, reason=event.reason)
        case ev.SessionNeverStarted():
            session = _over(session, SessionState.NEVER_STARTED, record, reason=event.reason)
            _wait_for_room(world, session, record)
        case ev.SessionDetached():
            session = evolve(session, detached=True)
        case ev.StopRequested():
            # The first reason counts: a timeout during a stop does not turn it into a timeout.
            # A stop that came after the end explains nothing.
            if session.stop_reason is None and session.state.live:
                session = evolve(session, stop_reason=event.reason, stop_mono=record.mono)
            if session.state is SessionState.RUNNING:
                session = evolve(session, state=SessionState.STOPPING)
        case ev.KillSent():
            session = evolve(session, killed=True)
        case ev.SessionUnkillable():
            session = evolve(session, unkillable=event.pids)
        case ev.LeftoversFound():
            session = evolve(session, leftovers=(*session.leftovers, *event.leftovers))
        case ev.OutputLost():
            session = evolve(session, output_lost=session.output_lost + 1)
        case ev.SessionUsed():
            session = apply_used(world, session, event)
        case ev.EndFound():
            session = _end_found(session, event, record)
        case ev.SessionConcluded():
            session = apply_concluded(world, session, event)
        case ev.SessionEnded():
            session = _over(
                session,
                SessionState.ENDED,
                record,
                exit=event.exit,
                output_bytes=event.output_bytes,
                tail=event.tail,
            )
        case ev.SessionLost():
            session = _over(session, SessionState.LOST, record, reason=event.reason)
        case ev.PromptDelivering():
            session = evolve(session, delivery=DeliveryState.DELIVERING)
        case ev.PromptDelivered():
            session = evolve(session, delivery=DeliveryState.DELIVERED)
        case ev.DeliveryFailed():
            if event.prompt:
                session = evolve(session, delivery=DeliveryState.FAILED, delivery_reason=event.reason)
        case ev.ScreenSeen():
            session = evolve(session, screen=event.screen, screen_note=event.note)
        case ev.InputAwaited():
            session = evolve(session, awaits=event.what)
        case _ if isinstance(event, ApprovalEvent):
            session = apply_approval(world, session, event, record)
    if session.approvals and not session.state.live:
        session = end_approvals(world, session, record)
    # What is said of it after its end changes nothing of when that was.
    still = world.sessions[session.id].state.live
    if still and session.last_seq != record.seq:
        session = evolve(session, last_seq=record.seq)
    world.sessions[session.id] = session
    run = world.runs.get(session.run_id or "")
    if run is None:
        return
    task = run.tasks.get(session.task_id or "") if isinstance(event, ev.SessionStarted | ev.SessionAdopted) else None
    if task is not None and task.takeover is not None:
        _put_task(world, run, note_running(task, session), record)
        return
    world.runs[run.id] = evolve(run, last_seq=record.seq)


def _over(session: SessionView, state: SessionState, record: Record, **changes: object) -> SessionView:
    if not session.end_found:
        changes.update(ended_at=record.at, ended_mono=record.mono)
    # Said here, so that it need not be added; what comes after its end changes nothing of when that was.
    last_seq = record.seq if session.state.live else session.last_seq
    return evolve(session, state=state, last_seq=last_seq, **changes)


def _wait_for_room(world: World, session: SessionView, record: Record) -> None:
    """Have the session's task wait, if it was for want of room that nothing ran."""
    run = world.runs.get(session.run_id or "")
    task = run.tasks.get(session.task_id or "") if run is not None and session.reason else None
    if run is not None and task is not None and task.state == Active(session.id):
        _put_task(world, run, evolve(task, state=Active(session.id, no_room=session.reason)), record)


def _end_found(session: SessionView, event: ev.EndFound, record: Record) -> SessionView:
    """Set the instants of its end; it stays live until the end is recorded."""
    if not session.state.live:
        return session
    begun = session.started_mono if session.started_mono is not None else session.starting_mono
    # The wall clock, by which it was found, may have been set meanwhile.
    mono = min(max(event.ended_mono, begun), max(record.mono, begun))
    return evolve(session, end_found=True, ended_mono=mono, ended_at=record.at - max(0.0, record.mono - mono))


def _run(world: World, event: RunEvent, record: Record) -> None:
    run = world.runs.get(event.run_id)
    if run is None:
        return
    match event:
        case ev.RunContinued():
            run = evolve(run, state=RunState.RUNNING if run.unfinished else run.state)
        case ev.RunInterrupted():
            run = evolve(run, state=RunState.INTERRUPTED if run.unfinished else run.state)
        case ev.RunCancelRequested():
            run = evolve(run, cancel_reason=run.cancel_reason or event.reason)
            if run.state is RunState.PARKED:
                run = evolve(run, state=RunState.RUNNING)
        case ev.RunParked():
            run = evolve(run, state=RunState.PARKED if run.state is RunState.RUNNING else run.state)
        case ev.RunAdvanced():
            # Whoever advances may come too late; a run that has ended stays ended.
            run = evolve(
                run,
                state=RunState.RUNNING if run.state is RunState.PARKED else run.state,
                advanced_to=max(run.advanced_to, event.wave),
            )
        case ev.RunReopened():
            run = evolve(
                run,
                state=RunState.RUNNING,
                outcome=None,
                cancel_reason=None,
                waves_ended=(),
                ended_at=None,
                ended_mono=None,
            )
        case ev.RunEnded():
            run = evolve(
                run,
                state=RunState.ENDED,
                outcome=event.outcome,
                ended_at=record.at,
                ended_mono=record.mono,
            )
        case ev.WaveStarted():
            run = evolve(run, waves_started=(*run.waves_started, event.wave))
        case ev.WaveEnded():
            run = evolve(run, waves_ended=(*run.waves_ended, event.wave))
        case ev.TakeoverRequested() | ev.HandedBack():
            task = run.tasks.get(event.task_id)
            if task is not None:
                newest = world.sessions.get(task.sessions[-1]) if task.sessions else None
                _put_task(world, run, apply_takeover(task, event, record, newest), record)
            return
        case ev.TaskRetryScheduled() | ev.TaskPutBack() | ev.TaskEnded():
            task = run.tasks.get(event.task_id)
            if task is None:
                return
            task = after_end(task, event)
            _put_task(world, run, _ended_earlier(world, _task(task, event, record)), record)
            return
    world.runs[run.id] = evolve(run, last_seq=record.seq)


def _task(task: TaskView, event: ev.TaskRetryScheduled | ev.TaskPutBack | ev.TaskEnded, record: Record) -> TaskView:
    match event:
        case ev.TaskRetryScheduled():
            return evolve(
                task,
                state=BackingOff(
                    attempt=event.attempt,
                    delay=event.delay,
                    since_mono=record.mono,
                    since_at=record.at,
                    cause=event.cause,
                ),
                failures=(*task.failures, record.mono),
            )
        case ev.TaskPutBack():
            return evolve(
                task,
                state=Pending(),
                epoch=len(task.sessions),
                failures=task.failures if event.waits else (),
                # Whoever waits goes on where it was.
                conversation=event.conversation or (task.conversation if event.waits else ""),
                ended_at=None,
                ended_mono=None,
            )
        case ev.TaskEnded():
            return evolve(
                task,
                state=Ended(outcome=event.outcome, cause=event.cause, at=record.at),
                ended_seq=record.seq,
                ended_at=record.at,
                ended_mono=record.mono,
            )


def _ended_earlier(world: World, task: TaskView) -> TaskView:
    """A task whose last session had ended before anybody came to see it has ended with that session."""
    newest = world.sessions.get(task.sessions[-1]) if len(task.sessions) > task.epoch else None
    if not isinstance(task.state, Ended) or newest is None or not newest.end_found:
        return task
    return evolve(task, ended_at=newest.ended_at, ended_mono=newest.ended_mono)


def _put_task(world: World, run: RunView, task: TaskView, record: Record) -> None:
    world.runs[run.id] = evolve(run, tasks=run.tasks.put(task.spec.id, task), last_seq=record.seq)


def run_outcome(tasks: Iterable[TaskView], cancelled: bool) -> Outcome:
    """The outcome of a run or wave whose tasks have all ended.

    Cancelled if the run was ended for good before all had succeeded; else succeeded if all did; else failed.
    """
    outcomes = {task.outcome for task in tasks}
    if outcomes <= {Outcome.SUCCEEDED}:
        return Outcome.SUCCEEDED
    return Outcome.CANCELLED if cancelled else Outcome.FAILED
