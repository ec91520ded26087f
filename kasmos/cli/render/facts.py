"""What views say about runs and tasks, taken from the folded world. Pure."""

from __future__ import annotations

import os.path
from collections import Counter
from collections.abc import Collection, Iterator

from kasmos.cli.render.text import clean, clean_lines
from kasmos.daemon.wire import held_by, run_status, task_status
from kasmos.model.approval import AskKind
from kasmos.model.event import Event, Record
from kasmos.model.plan import Wave
from kasmos.model.task import Cause
from kasmos.model.view import Active, BackingOff, Ended, RunView, SessionView, TaskView, World

UNRECORDED = "not_recorded"
"""The word for a task whose session has ended, or gone, without a supervisor: its end is not in the journal."""

_ORDER = (
    "succeeded",
    "running",
    UNRECORDED,
    "waiting",
    "queued",
    "failed",
    "timed_out",
    "lost",
    "cancelled",
    "skipped",
)

BAD = ("failed", "timed_out", "lost", "cancelled")
"""Status words of tasks that did not succeed by themselves."""


def concerns(record: Record, world: World, run_id: str) -> bool:
    """Whether an event is about this run."""
    return _run_of(record.event, world) == run_id


def _run_of(event: Event, world: World) -> str | None:
    session = session_of(event, world)
    return session.run_id if session is not None else getattr(event, "run_id", None)


def waits_for(world: World, task: TaskView) -> str:
    """What a task waits for a person to answer, and how to, or who has its conversation; nothing if it needs nobody."""
    name = task.state.approval_id if isinstance(task.state, Active) else None
    view = world.approvals.get(name or "")
    if view is None:
        return clean(held_by(task))
    verb = f"kas answer {view.id} TEXT" if view.ask.kind is AskKind.QUESTION else f"kas approve {view.id}"
    return f"waiting for you: {verb}  ({clean(view.ask.subject)})"


def session_of(event: Event, world: World) -> SessionView | None:
    """The session that an event is about, if it is about one that is known."""
    return world.sessions.get(getattr(event, "session_id", ""))


def task_of(event: Event, world: World) -> TaskView | None:
    """The task that an event is about, if it is about one that is known."""
    session = session_of(event, world)
    run_id = session.run_id if session is not None else getattr(event, "run_id", None)
    task_id = session.task_id if session is not None else getattr(event, "task_id", None)
    run = world.runs.get(run_id or "")
    return run.tasks.get(task_id or "") if run is not None else None


def present_sessions(world: World, task: TaskView) -> list[SessionView]:
    """The sessions of a task that still count, oldest first."""
    return [world.sessions[item] for item in task.sessions[task.epoch :] if item in world.sessions]


def all_sessions(world: World, task: TaskView) -> list[SessionView]:
    """Every session of a task that is known, oldest first."""
    return [world.sessions[item] for item in task.sessions if item in world.sessions]


def task_seconds(world: World, task: TaskView, mono: float, wall: float) -> float | None:
    """How long a task has taken, or takes by now; None before it has begun.

    What counts is what was done since it was last put back.
    """
    sessions = present_sessions(world, task)
    if not sessions:
        return None
    ended = isinstance(task.state, Ended)
    if ended and task.ended_mono is not None and task.ended_at is not None:
        mono, wall = task.ended_mono, task.ended_at
    first = sessions[0]
    # Monotonic instants of two boots cannot be compared.
    if first.boot_id == sessions[-1].boot_id and (ended or first.boot_id == world.boot_id):
        return max(0.0, mono - first.starting_mono)
    return max(0.0, wall - first.starting_at)


def session_seconds(world: World, session: SessionView, mono: float, wall: float) -> float:
    """How long a session has taken, or takes by now."""
    if session.ended_mono is not None and session.ended_at is not None:
        if session.ended_mono >= session.starting_mono:
            return session.ended_mono - session.starting_mono
        return max(0.0, session.ended_at - session.starting_at)
    if session.boot_id == world.boot_id:
        return max(0.0, mono - session.starting_mono)
    return max(0.0, wall - session.starting_at)


def run_seconds(world: World, run: RunView, mono: float, wall: float) -> float:
    """How long a run has been worked on, or is by now: the time in which any task of it was under way.

    The time between an interruption and the command that goes on, or in which it was parked, is not counted.
    """
    if run.ended_mono is not None and run.ended_at is not None:
        mono, wall = run.ended_mono, run.ended_at
    sessions = [session for task in run.tasks.values() for session in all_sessions(world, task)]
    # Monotonic instants of two boots cannot be compared.
    by_mono = all(session.boot_id == world.boot_id for session in sessions)
    spans = (span for task in run.tasks.values() for span in _spans(world, task, by_mono, mono if by_mono else wall))
    total, covered = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, covered))
        covered = max(covered, end)
    return total


def _spans(world: World, task: TaskView, by_mono: bool, now: float) -> Iterator[tuple[float, float]]:
    """When a task was under way: the sessions from before it was put back, and from then on without a gap."""
    sessions = all_sessions(world, task)
    present = present_sessions(world, task)
    for one in sessions[: len(sessions) - len(present)]:
        ended = one.ended_mono if by_mono else one.ended_at
        yield (one.starting_mono if by_mono else one.starting_at), now if ended is None else ended
    if present:
        ended = task.ended_mono if by_mono else task.ended_at
        yield (present[0].starting_mono if by_mono else present[0].starting_at), now if ended is None else ended


def run_title(run: RunView) -> str:
    """What a run is for, in one line."""
    return clean(run.plan.goal or run.plan.title or os.path.basename(run.source))


def task_label(task: TaskView) -> str:
    """A task's id and title."""
    return clean(f"{task.spec.id} {task.spec.title}".rstrip())


def wave_label(wave: Wave) -> str:
    """A wave's number and title."""
    return clean(f"Wave {wave.number}: {wave.title}" if wave.title else f"Wave {wave.number}")


def waves(run: RunView) -> Iterator[tuple[Wave, list[TaskView]]]:
    """Every wave with its tasks as they are now."""
    for wave in run.plan.waves:
        yield wave, [run.tasks[spec.id] for spec in wave.tasks]


def cause_of(task: TaskView) -> Cause | None:
    """Why a task ended, or why it is tried again."""
    return task.state.cause if isinstance(task.state, Ended | BackingOff) else None


def active_session(world: World, task: TaskView) -> SessionView | None:
    """The session a task is in, if it is in one."""
    return world.sessions.get(task.state.session_id) if isinstance(task.state, Active) else None


def check_command(world: World, session: SessionView) -> str | None:
    """The command of a check's session."""
    run = world.runs.get(session.run_id or "")
    task = run.tasks.get(session.task_id or "") if run is not None else None
    if task is None or session.check is None or session.check >= len(task.spec.checks):
        return None
    return clean(task.spec.checks[session.check].command)


def cause_session(world: World, task: TaskView) -> SessionView | None:
    """The session that a task's cause is about, if it is about one that is known."""
    cause = cause_of(task)
    return world.sessions.get(cause.session_id or "") if cause is not None else None


def tail_of(world: World, task: TaskView) -> str:
    """The last output that belongs to a task's cause."""
    cause = cause_of(task)
    if cause is None:
        return ""
    session = cause_session(world, task)
    return cause.tail or (session.tail if session is not None else "")


def tail_lines(world: World, task: TaskView, most: int) -> list[str]:
    """The last lines of the output that belongs to a task's cause, as its agent means them where that is known."""
    return meant_lines(cause_session(world, task), tail_of(world, task), most)


def meant_lines(session: SessionView | None, text: str, most: int) -> list[str]:
    """The last lines of a session's output as its agent means them, where that is known, else as they are."""
    if session is not None and session.harness and text:
        # Here, since most runs need it only when something has gone wrong.
        from kasmos.cli.render.transcript import piece_lines

        if lines := piece_lines(text, session.harness):
            return clean_lines("\n".join(lines), most)
    return clean_lines(text, most)


def count_words(tasks: Counter[str]) -> str:
    """`3 succeeded, 1 failed`, in a fixed order."""
    words = [f"{tasks[word]} {word.replace('_', ' ')}" for word in _ORDER if tasks[word]]
    return ", ".join(words) or "no tasks"


def count_tasks(run: RunView, over: Collection[str] = ()) -> Counter[str]:
    """How many tasks stand where, by status word.

    Args:
        run: the run.
        over: ids of sessions that the journal calls live and that are not any more.
    """
    return Counter(UNRECORDED if _is_in(task, over) else task_status(task) for task in run.tasks.values())


def _is_in(task: TaskView, sessions: Collection[str]) -> bool:
    return isinstance(task.state, Active) and task.state.session_id in sessions


def status_of_run(run: RunView) -> str:
    """The status word of a run."""
    return run_status(run)


def present_status(run: RunView, *, supervised: bool) -> str:
    """The status word of a run, given whether a supervisor is there: without one nothing is running."""
    return "interrupted" if run.unfinished and not supervised else run_status(run)
