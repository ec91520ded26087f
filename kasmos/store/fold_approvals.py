"""The part of the fold that is about approvals. Pure; called by `kasmos.store.fold` only.

The first answer counts, and nothing comes after a withdrawal. While an approval is open its session waits for a
person, and the time of its task stands still.
"""

from __future__ import annotations

import attrs

from kasmos.model import event as ev
from kasmos.model.approval import ApprovalState
from kasmos.model.event import Record
from kasmos.model.view import Active, ApprovalView, SessionView, World

KEPT = 20
"""How many of the newest approvals of a session are kept. All of them are in the journal."""

ApprovalEvent = (
    ev.ApprovalRequested | ev.ApprovalResolved | ev.ApprovalSending | ev.ApprovalDelivered | ev.ApprovalWithdrawn
)


def apply_approval(world: World, session: SessionView, event: ApprovalEvent, record: Record) -> SessionView:
    """Advance the world's approvals by one event of a session; returns the session as it is then."""
    if isinstance(event, ev.ApprovalRequested):
        return _requested(world, session, event, record)
    view = world.approvals.get(event.approval_id)
    if view is None or view.session_id != session.id:
        return session
    match event, view.state:
        case ev.ApprovalResolved(), ApprovalState.OPEN:
            view = attrs.evolve(
                view,
                state=ApprovalState.RESOLVED,
                answer=event.answer,
                by=event.by,
                who=event.who,
                reason=event.reason,
                resolved_at=record.at,
            )
        case ev.ApprovalSending(), ApprovalState.RESOLVED:
            view = attrs.evolve(view, state=ApprovalState.SENDING)
        case ev.ApprovalDelivered(), ApprovalState.SENDING:
            view = attrs.evolve(view, state=ApprovalState.DELIVERED, settled_at=record.at)
        case ev.ApprovalWithdrawn(), ApprovalState.OPEN | ApprovalState.RESOLVED | ApprovalState.SENDING:
            view = attrs.evolve(view, state=ApprovalState.WITHDRAWN, settled_at=record.at, reason=event.reason)
        case _:
            return session
    world.approvals[view.id] = view
    return _waits_no_more(world, session, record) if view.state is not ApprovalState.OPEN else session


def end_approvals(world: World, session: SessionView, record: Record) -> SessionView:
    """Withdraw what a session that has ended still asks. Most have been withdrawn by then."""
    for approval_id in session.approvals:
        view = world.approvals.get(approval_id)
        if view is not None and not view.state.settled:
            gone = ev.ApprovalWithdrawn(session.id, approval_id, "its session has ended")
            session = apply_approval(world, session, gone, record)
    return session


def _requested(world: World, session: SessionView, event: ev.ApprovalRequested, record: Record) -> SessionView:
    if not session.state.live or event.approval_id in world.approvals:
        return session
    for forgotten in session.approvals[: len(session.approvals) + 1 - KEPT]:
        world.approvals.pop(forgotten, None)
    world.approvals[event.approval_id] = ApprovalView(
        id=event.approval_id,
        session_id=session.id,
        ask=event.ask,
        requested_at=record.at,
        requested_mono=record.mono,
        why=event.why,
    )
    kept = (*session.approvals, event.approval_id)[-KEPT:]
    since = session.waiting_since_mono if session.waiting_since_mono is not None else record.mono
    session = attrs.evolve(session, approvals=kept, waiting_since_mono=since)
    _mark_task(world, session, event.approval_id)
    return session


def _waits_no_more(world: World, session: SessionView, record: Record) -> SessionView:
    """Let the clock go on once nothing of the session is open any more."""
    if session.waiting_since_mono is None:
        return session
    if any(one.state is ApprovalState.OPEN for name in session.approvals if (one := world.approvals.get(name))):
        return session
    waited = session.waited + max(0.0, record.mono - session.waiting_since_mono)
    session = attrs.evolve(session, waiting_since_mono=None, waited=waited)
    _mark_task(world, session, None)
    return session


def _mark_task(world: World, session: SessionView, approval_id: str | None) -> None:
    """Say of the session's task that it waits, or that it does not."""
    run = world.runs.get(session.run_id or "")
    task = run.tasks.get(session.task_id or "") if run is not None else None
    if run is None or task is None or not isinstance(task.state, Active) or task.state.session_id != session.id:
        return
    task = attrs.evolve(task, state=Active(session.id, approval_id))
    world.runs[run.id] = attrs.evolve(run, tasks={**run.tasks, task.spec.id: task})
