"""The shapes that leave the supervisor as JSON: compact, flat, with stable words.

Views hold what the fold needs; these hold what a reader wants. Instants are RFC 3339 in UTC,
durations are seconds. `status` is one word for pollers: `queued`, `running`, `waiting` (for a
retry's delay, or for `advance`), `interrupted` (its supervisor left), and then the outcome.
New fields may be added at any time; none is renamed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import attrs

from kasmos.model.codec import format_instant
from kasmos.model.session import ExitStatus, Leftover, SessionKind
from kasmos.model.task import Cause
from kasmos.model.view import (
    BackingOff,
    Ended,
    Pending,
    RunState,
    RunView,
    SessionState,
    SessionView,
    TaskView,
    World,
)
from kasmos.store.lookup import newest_session


@attrs.frozen
class ExitWire:
    """How a program ended: a code, a signal, or neither (unknown)."""

    code: int | None
    signal: int | None
    certain: bool
    text: str


@attrs.frozen
class CauseWire:
    """Why a task ended as it did."""

    kind: str
    message: str
    session_id: str | None
    exit: ExitWire | None
    because_of: tuple[str, ...]
    tail: str


@attrs.frozen
class SessionWire:
    """One session."""

    session_id: str
    name: str
    kind: str
    backend: str
    status: str
    run_id: str | None
    task_id: str | None
    attempt: int
    check: int | None
    profile: str
    pid: int | None
    starting_at: str
    started_at: str | None
    ended_at: str | None
    seconds: float | None
    exit: ExitWire | None
    stop_reason: str | None
    killed: bool
    detached: bool
    unkillable: tuple[int, ...]
    leftovers: tuple[Leftover, ...]
    output_bytes: int
    output_lost: int
    """How many times output was declared lost."""
    reason: str


@attrs.frozen
class TaskWire:
    """One task of a run."""

    task_id: str
    run_id: str
    number: int
    wave: int
    name: str
    title: str
    agent: str | None
    needs: tuple[str, ...]
    status: str
    attempts: int
    session_id: str | None
    """Its newest session that ran the agent."""
    sessions: tuple[str, ...]
    exit: ExitWire | None
    """Of that session."""
    cause: CauseWire | None
    """Why it ended, or why it is tried again."""
    retry_at: str | None
    started_at: str | None
    ended_at: str | None
    seconds: float | None


@attrs.frozen
class WaveWire:
    """One wave of a run."""

    number: int
    title: str
    status: str
    tasks: tuple[str, ...]


@attrs.frozen
class RunWire:
    """One run, without its tasks."""

    run_id: str
    status: str
    title: str
    goal: str
    source: str
    project: str
    on_failure: str
    max_concurrent: int
    wave: int | None
    """Number of the newest wave that has started."""
    waves: tuple[WaveWire, ...]
    counts: Mapping[str, int]
    """Tasks by status; only what there is."""
    cancel_reason: str | None
    started_at: str
    ended_at: str | None
    seconds: float | None
    last_seq: int
    """Journal number of the newest event about it."""


@attrs.frozen
class RunDetailWire:
    """One run with its tasks."""

    run: RunWire
    tasks: tuple[TaskWire, ...]


@attrs.frozen
class Attention:
    """Something that a person should look at."""

    kind: str
    id: str
    message: str


@attrs.frozen
class StatusWire:
    """The snapshot for pollers."""

    schema: int
    version: str
    pid: int
    project: str
    started_at: str
    accepting: bool
    seq: int
    """Number of the newest event; a stream of events resumed from here misses nothing."""
    runs: tuple[RunWire, ...]
    """Unfinished ones, newest first."""
    sessions: tuple[SessionWire, ...]
    """Live ones, newest first."""
    attention: tuple[Attention, ...]
    counts: Mapping[str, Mapping[str, int]]
    left_out: Mapping[str, int]
    """How many entries the lists above were shortened by."""


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
        case BackingOff():
            return "waiting"
        case Ended(outcome=outcome):
            return outcome.value
        case _:
            return "running"


def exit_wire(status: ExitStatus | None) -> ExitWire | None:
    """An exit status with its sentence."""
    if status is None:
        return None
    return ExitWire(code=status.code, signal=status.signal, certain=status.certain, text=str(status))


def session_wire(session: SessionView, output_bytes: int | None = None) -> SessionWire:
    """A session as JSON has it; *output_bytes* is what is known of a live one."""
    return SessionWire(
        session_id=session.id,
        name=session.name,
        kind=session.kind.value,
        backend=session.backend.value,
        status=session.state.value,
        run_id=session.run_id,
        task_id=f"{session.run_id}.{session.task_id}" if session.run_id and session.task_id else None,
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
        output_lost=session.output_lost,
        reason=session.reason,
    )


def task_wire(world: World, task: TaskView) -> TaskWire:
    """A task as JSON has it."""
    session = newest_session(world, task)
    agent = session if session is not None and session.kind is SessionKind.AGENT else None
    state = task.state
    return TaskWire(
        task_id=task.id,
        run_id=task.run_id,
        number=task.spec.number,
        wave=task.spec.wave,
        name=task.spec.name,
        title=task.spec.title,
        agent=task.spec.agent or (agent.profile if agent else None),
        needs=task.spec.needs,
        status=task_status(task),
        attempts=task.attempts,
        session_id=session.id if session else None,
        sessions=task.sessions,
        exit=exit_wire(agent.exit) if agent else None,
        cause=_cause(state.cause) if isinstance(state, BackingOff | Ended) else None,
        retry_at=format_instant(state.since_at + state.delay) if isinstance(state, BackingOff) else None,
        started_at=_instant(task.started_at),
        ended_at=_instant(task.ended_at),
        seconds=_seconds(task.started_mono, task.ended_mono),
    )


def run_wire(run: RunView) -> RunWire:
    """A run as JSON has it, without its tasks."""
    return RunWire(
        run_id=run.id,
        status=run_status(run),
        title=run.plan.title,
        goal=run.plan.goal,
        source=run.source,
        project=run.project,
        on_failure=run.settings.on_failure.value,
        max_concurrent=run.settings.max_concurrent,
        wave=max(run.waves_started, default=None),
        waves=tuple(
            WaveWire(
                number=wave.number,
                title=wave.title,
                status=_wave_status(run, wave.number),
                tasks=tuple(f"{run.id}.{task.id}" for task in wave.tasks),
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


def attention(world: World) -> Iterable[Attention]:
    """What a person should look at, in unfinished runs and of live sessions."""
    for run in world.runs.values():
        if not run.unfinished:
            continue
        if run.state is RunState.PARKED:
            yield Attention("parked", run.id, "the run waits after a wave: `kas advance` lets it go on")
        for task in run.tasks.values():
            if isinstance(task.state, Ended) and task_status(task) not in ("succeeded", "skipped"):
                yield Attention("task", task.id, f"{task_status(task)}: {task.state.cause.message}")
    for session in world.sessions.values():
        if session.unkillable and session.state is SessionState.STOPPING:
            pids = ", ".join(str(pid) for pid in session.unkillable)
            yield Attention("unkillable", session.id, f"processes survive SIGKILL: {pids}")


def counts(world: World) -> dict[str, dict[str, int]]:
    """How many runs, tasks of unfinished runs, and live sessions stand where."""
    unfinished = [run for run in world.runs.values() if run.unfinished]
    return {
        "runs": Counter(run_status(run) for run in world.runs.values()),
        "tasks": Counter(task_status(task) for run in unfinished for task in run.tasks.values()),
        "sessions": Counter(session.state.value for session in world.sessions.values() if session.state.live),
    }


def _cause(cause: Cause) -> CauseWire:
    return CauseWire(
        kind=cause.kind.value,
        message=cause.message,
        session_id=cause.session_id,
        exit=exit_wire(cause.exit),
        because_of=cause.because_of,
        tail=cause.tail,
    )


def _wave_status(run: RunView, number: int) -> str:
    if number in run.waves_ended:
        return "ended"
    return "running" if number in run.waves_started else "queued"


def _instant(at: float | None) -> str | None:
    return None if at is None else format_instant(at)


def _seconds(start: float | None, end: float | None) -> float | None:
    # Instants of two boots cannot be compared; a negative difference shows it.
    if start is None or end is None or end < start:
        return None
    return round(end - start, 3)
