"""From views to the shapes that leave the supervisor. Pure.

`status` is one word for pollers: `queued`, `running`, `waiting` (for a person's answer, a retry's delay,
or for `advance`), `interrupted` (its supervisor left), and then the outcome.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from kasmos.daemon.shapes import (
    ApprovalWire,
    Attention,
    CauseWire,
    ExitWire,
    RunDetailWire,
    RunWire,
    SessionWire,
    TakeoverWire,
    TaskWire,
    WaveWire,
)
from kasmos.model.approval import ApprovalState, AskKind
from kasmos.model.codec import format_instant
from kasmos.model.plan import Wave
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import ExitStatus, SessionKind
from kasmos.model.takeover import Takeover, TakeoverPhase
from kasmos.model.task import Cause, Outcome
from kasmos.model.view import (
    Active,
    ApprovalView,
    BackingOff,
    DeliveryState,
    Ended,
    Pending,
    RunState,
    RunView,
    SessionState,
    SessionView,
    TaskKind,
    TaskView,
    World,
    public_task_id,
)
from kasmos.orchestration.accounts import parked_now, told
from kasmos.store.lookup import newest_session

__all__ = [
    "ApprovalWire",
    "Attention",
    "CauseWire",
    "ExitWire",
    "RunDetailWire",
    "RunWire",
    "SessionWire",
    "TaskWire",
    "WaveWire",
    "approval_wire",
    "attention",
    "concerns",
    "disk_concerns",
    "exit_wire",
    "held_by",
    "run_detail_wire",
    "run_status",
    "run_wire",
    "session_status",
    "session_wire",
    "task_status",
    "task_wire",
    "waiting_for",
]


def run_status(run: RunView) -> str:
    """The word for where a run stands."""
    if run.outcome is not None:
        return run.outcome.value
    return "waiting" if run.state is RunState.PARKED else run.state.value


def task_status(task: TaskView) -> str:
    """The word for where a task stands."""
    match task.state:
        case Pending():
            return "queued"
        case BackingOff() | Active(approval_id=str()):
            return "waiting"
        case Active(no_room=why) if why:
            return "waiting"
        case Ended(outcome=outcome):
            return outcome.value
        case _:
            return "running"


def session_status(session: SessionView) -> str:
    """The word for where a session stands."""
    waits = session.state is SessionState.RUNNING and session.waiting_since_mono is not None
    return "waiting" if waits else session.state.value


def exit_wire(status: ExitStatus | None) -> ExitWire | None:
    """An exit status with its sentence."""
    if status is None:
        return None
    return ExitWire(code=status.code, signal=status.signal, certain=status.certain, text=str(status))


def session_wire(
    session: SessionView, output_bytes: int | None = None, last_output_at: float | None = None
) -> SessionWire:
    """A session as JSON has it; *output_bytes* is what is known of a live one."""
    return SessionWire(
        session_id=session.id,
        name=session.name,
        kind=session.kind.value,
        backend=session.backend.value,
        status=session_status(session),
        run_id=session.run_id,
        task_id=public_task_id(session.run_id, session.task_id) if session.run_id and session.task_id else None,
        attempt=session.attempt,
        check=session.check,
        profile=session.profile,
        pid=session.pid,
        starting_at=format_instant(session.starting_at),
        started_at=_instant(session.started_at),
        ended_at=_instant(session.ended_at),
        seconds=_seconds(session.started_mono, session.ended_mono),
        exit=exit_wire(session.exit),
        stop_reason=session.stop_reason.value if session.stop_reason else None,
        killed=session.killed,
        detached=session.detached,
        unkillable=session.unkillable,
        leftovers=session.leftovers,
        output_bytes=session.output_bytes if output_bytes is None else output_bytes,
        last_output_at=_instant(last_output_at),
        output_lost=session.output_lost,
        reason=session.reason,
        approval=session.approvals[-1] if session.waiting_since_mono is not None else None,
        waited=round(session.waited, 3),
        screen=session.screen if session.state.live else "",
        screen_note=session.screen_note if session.state.live else "",
        delivery=session.delivery.value if session.delivery is not None else None,
        awaits=session.awaits if session.state.live else "",
        attended=session.attended,
    )


def approval_wire(world: World, view: ApprovalView) -> ApprovalWire:
    """An approval as JSON has it."""
    session = world.sessions.get(view.session_id)
    task = f"{session.run_id}.{session.task_id}" if session is not None and session.task_id else None
    return ApprovalWire(
        approval_id=view.id,
        status=view.state.value,
        session_id=view.session_id,
        name=session.name if session is not None else "",
        task_id=task,
        kind=view.ask.kind.value,
        tool=view.ask.tool,
        command=view.ask.command,
        path=view.ask.path,
        text=view.ask.text,
        options=view.ask.options,
        evidence=view.ask.evidence,
        why=view.why,
        answer=view.answer,
        by=view.by.value if view.by is not None else None,
        who=view.who,
        reason=view.reason,
        requested_at=format_instant(view.requested_at),
        resolved_at=_instant(view.resolved_at),
        settled_at=_instant(view.settled_at),
        more_paths=view.ask.more_paths,
        reason_goes=view.ask.reason_goes.value,
    )


def task_wire(world: World, task: TaskView) -> TaskWire:
    """A task as JSON has it."""
    session = newest_session(world, task)
    agent = session if session is not None and session.kind is SessionKind.AGENT else None
    state = task.state
    run = world.runs[task.run_id]
    return TaskWire(
        task_id=task.id,
        run_id=task.run_id,
        number=task.spec.number,
        wave=task.spec.wave,
        name=task.spec.name,
        title=task.spec.title,
        agent=task.spec.agent or (agent.profile if agent else None),
        model=task.spec.model,
        needs=run.needs if task.spec.single else task.spec.needs,
        status=task_status(task),
        attempts=task.attempts,
        session_id=session.id if session else None,
        sessions=task.sessions,
        exit=exit_wire(agent.exit) if agent else None,
        cause=_cause(state.cause) if isinstance(state, BackingOff | Ended) else None,
        retry_at=format_instant(state.since_at + state.delay) if isinstance(state, BackingOff) else None,
        approval=state.approval_id if isinstance(state, Active) else None,
        takeover=_takeover(task.takeover),
        submitted_at=format_instant(run.started_at),
        started_at=_instant(task.started_at),
        ended_at=_instant(task.ended_at),
        seconds=_seconds(task.started_mono, task.ended_mono),
    )


def _takeover(held: Takeover | None) -> TakeoverWire | None:
    if held is None:
        return None
    return TakeoverWire(held.phase.value, held.who, format_instant(held.since_at), held.now, held.conversation)


def held_by(task: TaskView) -> str:
    """What is said of a task whose conversation a person has, or is to have; nothing if nobody has."""
    held = task.takeover
    if held is None:
        return ""
    who = held.who or "somebody"
    match held.phase:
        case TakeoverPhase.REQUESTED:
            return f"{who} takes it over {'now' if held.now else 'when its turn has ended'}"
        case TakeoverPhase.ATTENDED:
            return f"with a person: {who} has taken it over (`kas attach {task.spec.name}`, `kas detach {task.id}`)"
        case _:
            return "is being handed back: it goes on headless"


def run_wire(run: RunView) -> RunWire:
    """A run as JSON has it, without its tasks."""
    return RunWire(
        run_id=run.id,
        status=run_status(run),
        title=run.plan.title,
        goal=run.plan.goal,
        source=run.source,
        project=run.project,
        origin=run.origin.value,
        on_failure=run.settings.on_failure.value,
        max_concurrent=run.settings.max_concurrent,
        wave=max(run.waves_started, default=None),
        waves=tuple(
            WaveWire(
                number=wave.number,
                title=wave.title,
                status=_wave_status(run, wave),
                tasks=tuple(public_task_id(run.id, task.id) for task in wave.tasks),
            )
            for wave in run.plan.waves
        ),
        counts=Counter(task_status(task) for task in run.tasks.values()),
        cancel_reason=run.cancel_reason,
        started_at=format_instant(run.started_at),
        ended_at=_instant(run.ended_at),
        seconds=_seconds(run.started_mono, run.ended_mono),
        last_seq=run.last_seq,
    )


def run_detail_wire(world: World, run: RunView) -> RunDetailWire:
    """A run with its tasks, in plan order."""
    return RunDetailWire(run=run_wire(run), tasks=tuple(task_wire(world, task) for task in run.tasks.values()))


def attention(world: World, now: float | None = None) -> Iterable[Attention]:
    """What a person should look at, in unfinished runs and of live sessions."""
    yield from concerns(world, world.runs.values(), world.approvals.values(), world.sessions.values())
    yield from account_concerns(world, now)


def account_concerns(world: World, now: float | None) -> Iterable[Attention]:
    """Accounts on which nothing is started at this instant of the wall clock; without one, all that were parked."""
    for account in world.accounts.values():
        parked = account.parked if now is None else parked_now(account, now)
        if parked is not None:
            cure = f"`kas accounts resume {account.name}`"
            until = "waits for you" if parked.until_at is None else f"until {format_instant(parked.until_at)}"
            yield Attention("account", account.name, f"{told(account.name, parked)}: {until} ({cure})")


def disk_concerns(hindrance: str) -> Iterable[Attention]:
    """Why nothing new is begun, if the disk is why."""
    if hindrance:
        yield Attention("disk_full", "state_root", f"{hindrance}: nothing new is begun until there is some")


def concerns(
    world: World, runs: Iterable[RunView], approvals: Iterable[ApprovalView], sessions: Iterable[SessionView]
) -> Iterable[Attention]:
    """What a person should look at of these."""
    for run in runs:
        if run.unfinished:
            yield from run_concerns(run)
    for view in approvals:
        if view.state is ApprovalState.OPEN:
            yield Attention("approval", view.id, waiting_for(world, view))
    for session in sessions:
        if session.state is SessionState.RUNNING and (said := _at_terminal(session)):
            yield Attention("terminal", session.id, f"{said} (`kas attach {session.name}`)")
        if session.state is SessionState.RUNNING and session.awaits:
            cure = f"kas attach {session.name}" if session.backend is ExecutionMode.TMUX else f"kas why {session.id}"
            yield Attention("input", session.id, f"{session.name}: {session.awaits} (`{cure}`)")
        if session.unkillable and session.state is SessionState.STOPPING:
            pids = ", ".join(str(pid) for pid in session.unkillable)
            yield Attention("unkillable", session.id, f"processes survive SIGKILL: {pids}")


def run_concerns(run: RunView) -> Iterable[Attention]:
    """What a person should look at of an unfinished run."""
    if run.state is RunState.PARKED:
        yield Attention("parked", run.id, "the run waits after a wave: `kas advance` lets it go on")
    for task in run.tasks.of_kind(TaskKind.UNDER_WAY):
        if task.takeover is not None and task.takeover.phase is TakeoverPhase.ATTENDED:
            yield Attention("attended", task.id, held_by(task))
        if isinstance(task.state, Active) and task.state.no_room:
            yield Attention("disk_full", task.id, f"waits for room on the disk: {task.state.no_room}")
    for task in run.tasks.of_kind(TaskKind.FAILED):
        if isinstance(task.state, Ended) and task.state.outcome is not Outcome.SKIPPED:
            yield Attention("task", task.id, task.state.cause.after(task_status(task).replace("_", " ")))


_ONLY_A_PERSON = {
    "dialog": "shows a dialog that only a person answers",
    "limit": "has reached a limit",
    "error": "has ended its turn with an error",
}
"""States of a screen that a person should look at."""


def _at_terminal(session: SessionView) -> str:
    """What a person should see to at a session's terminal; nothing if all is well there."""
    if session.delivery is DeliveryState.FAILED:
        return f"{session.name}: its prompt was not seen to be taken: {session.delivery_reason}"
    if session.screen in _ONLY_A_PERSON:
        note = f": {session.screen_note}" if session.screen_note else ""
        return f"{session.name} {_ONLY_A_PERSON[session.screen]}{note}"
    return f"{session.name}: {session.screen_note}" if session.screen_note else ""


def waiting_for(world: World, view: ApprovalView) -> str:
    """What a person is told of something that waits for them."""
    session = world.sessions.get(view.session_id)
    name = session.name if session is not None else view.session_id
    verb = f"kas answer {view.id} TEXT" if view.ask.kind is AskKind.QUESTION else f"kas approve {view.id}"
    return f"{name} waits for you: {view.ask.subject} (`{verb}`, or `kas deny {view.id}`)"


def _cause(cause: Cause) -> CauseWire:
    return CauseWire(
        kind=cause.kind.value,
        message=cause.message,
        session_id=cause.session_id,
        exit=exit_wire(cause.exit),
        because_of=cause.because_of,
        failure=cause.failure.value if cause.failure is not None else None,
        tail=cause.tail,
    )


def _wave_status(run: RunView, wave: Wave) -> str:
    # Also a wave that never began has ended when none of its tasks can run any more.
    if all(run.tasks[task.id].outcome is not None for task in wave.tasks):
        return "ended"
    return "running" if wave.number in run.waves_started else "queued"


def _instant(at: float | None) -> str | None:
    return None if at is None else format_instant(at)


def _seconds(start: float | None, end: float | None) -> float | None:
    # Instants of two boots cannot be compared; a negative difference shows it.
    if start is None or end is None or end < start:
        return None
    return round(end - start, 3)
