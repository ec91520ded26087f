"""How a run ended, for people: every task with its outcome, what went wrong, and where to look further. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kasmos.cli.render import facts
from kasmos.cli.render.text import Look, clean, clean_lines, duration
from kasmos.daemon.wire import task_status
from kasmos.model.task import CauseKind
from kasmos.model.view import Ended, RunState, RunView, SessionView, TaskView, World

TAIL_LINES = 10
"""Lines of output that are shown of a task that did not succeed."""
MAX_TAILS = 10
"""Tasks whose output is shown."""
MAX_HINTS = 5
"""Tasks that are named in the advice."""

CONSEQUENCES = (CauseKind.NEED_FAILED, CauseKind.WAVE_FAILED, CauseKind.FAIL_FAST, CauseKind.RUN_CANCELLED)
"""Causes that lie in another task, or in the run."""


def report(world: World, run_id: str, look: Look, mono: float, wall: float, *, tails: bool = True) -> str:
    """The whole of it, ending in a newline. Empty if the run is unknown.

    Args:
        tails: whether to show the last output of tasks that did not succeed.
    """
    run = world.runs.get(run_id)
    if run is None:
        return ""
    lines = [*wave_lines(world, run, look, mono, wall, tails=tails), "", _verdict(world, run, look, mono, wall)]
    lines += [f"  {line}" for line in _advice(world, run)]
    return "\n".join(lines) + "\n"


def failures(run: RunView) -> list[TaskView]:
    """The tasks that did not succeed by themselves: the roots of all that went wrong."""
    return [task for task in run.tasks.values() if task_status(task) in facts.BAD and not _follows(task)]


def _follows(task: TaskView) -> bool:
    cause = facts.cause_of(task)
    return cause is not None and cause.kind in CONSEQUENCES


def wave_lines(
    world: World,
    run: RunView,
    look: Look,
    mono: float,
    wall: float,
    *,
    tails: bool = False,
    wanted: Callable[[TaskView], bool] = lambda task: True,
) -> Iterator[str]:
    """Every wave and its tasks.

    Args:
        tails: whether to show the last output of tasks that did not succeed.
        wanted: tasks for which it is False are only counted.
    """
    width = min(44, max((len(facts.task_label(task)) for task in run.tasks.values()), default=0))
    shown = {task.id for task in failures(run)[:MAX_TAILS]} if tails else set()
    bar = look.paint("│" if look.unicode else "|", "dim")
    for wave, tasks in facts.waves(run):
        done = sum(isinstance(task.state, Ended) for task in tasks)
        yield f"{look.paint(facts.wave_label(wave), 'bold')}  {look.paint(f'{done}/{len(tasks)}', 'dim')}"
        for task in filter(wanted, tasks):
            word = task_status(task)
            taken = duration(facts.task_seconds(world, task, mono, wall))
            why = look.status(word, describe(world, task))
            label = facts.task_label(task)[:width]
            yield f"  {look.status(word, look.glyph(word))} {label:<{width}}  {taken:>7}  {why}".rstrip()
            if task.id in shown:
                for text in clean_lines(facts.tail_of(world, task), TAIL_LINES):
                    yield f"      {bar} {text}"


def describe(world: World, task: TaskView) -> str:
    """How a task stands in a few words; empty for one that succeeded at once, or waits for its turn."""
    word = task_status(task)
    again = f"attempt {task.attempts}" if task.attempts > 1 else ""
    cause = facts.cause_of(task)
    if word == "succeeded":
        return again
    if cause is not None:
        said = f"{word.replace('_', ' ')}: {clean(cause.message)}"
        return f"{said} ({again})" if again and word in facts.BAD else said
    session = facts.active_session(world, task)
    if session is None:
        return f"needs {', '.join(task.spec.needs)}" if task.spec.needs else ""
    check = facts.check_command(world, session)
    parts = [session.state.value, again, f"check `{check}`" if check else ""]
    return ", ".join(part for part in parts if part)


def _verdict(world: World, run: RunView, look: Look, mono: float, wall: float) -> str:
    status = facts.status_of_run(run)
    taken = duration(facts.run_seconds(world, run, mono, wall))
    counts = facts.count_words(facts.count_tasks(run))
    word = look.status(status, status.replace("_", " "))
    return look.paint(f"run {run.id} ", "bold") + f"{word} after {taken}: {counts}"


def _advice(world: World, run: RunView) -> Iterator[str]:
    if run.state is RunState.PARKED:
        yield "kas advance    let it go on"
    elif run.unfinished:
        yield f"kas resume {run.id}    go on from here"
    for task in failures(run)[:MAX_HINTS]:
        yield f"kas why {task.id}"
        cause = facts.cause_of(task)
        session = world.sessions.get(cause.session_id or "") if cause is not None else None
        if session is not None:
            yield f"kas logs {log_name(world, session)}"


def log_name(world: World, session: SessionView) -> str:
    """What to call a session in a command: its name where that means this one, else its id."""
    newest = next((one for one in reversed(world.sessions.values()) if one.name == session.name), session)
    return session.name if newest.id == session.id else session.id
