"""How a run ended, for people: every task with its outcome, what went wrong, and where to look further. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kasmos.cli.render import facts
from kasmos.cli.render.text import Look, cells, clean, duration, pad, shorten, wrap
from kasmos.daemon.wire import task_status
from kasmos.model.task import CauseKind
from kasmos.model.view import Ended, RunState, RunView, SessionState, SessionView, TaskView, World

TAIL_LINES = 10
"""Lines of output that are shown of a task that did not succeed."""
MAX_TAILS = 10
"""Tasks whose output is shown."""
MAX_HINTS = 5
"""Tasks that are named in the advice."""
MAX_LABEL = 44
"""Widest column of tasks."""

_INDENT = " " * 6

CONSEQUENCES = (CauseKind.NEED_FAILED, CauseKind.WAVE_FAILED, CauseKind.FAIL_FAST, CauseKind.RUN_CANCELLED)
"""Causes that lie in another task, or in the run."""

_WITHOUT_OUTPUT = (SessionState.START_FAILED, SessionState.NEVER_STARTED)


def report(
    world: World, run_id: str, look: Look, mono: float, wall: float, *, tails: bool = True, width: int | None = None
) -> str:
    """The whole of it, ending in a newline. Empty if the run is unknown.

    Args:
        tails: whether to show the last output of tasks that did not succeed.
        width: cells of the screen; None where lines may be as long as they are.
    """
    run = world.runs.get(run_id)
    if run is None:
        return ""
    body = wave_lines(world, run, look, mono, wall, tails=tails, width=width)
    lines = [*body, "", _verdict(world, run, look, mono, wall)]
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
    width: int | None = None,
) -> Iterator[str]:
    """Every wave and its tasks.

    Args:
        tails: whether to show the last output of tasks that did not succeed.
        wanted: tasks for which it is False are only counted.
        width: cells of the screen; what does not fit stands on lines of its own, and labels are cut.
    """
    room = MAX_LABEL if width is None else min(MAX_LABEL, max(10, width * 2 // 5))
    label_width = min(room, max((cells(facts.task_label(task)) for task in run.tasks.values()), default=0))
    shown = {task.id for task in failures(run)[:MAX_TAILS]} if tails else set()
    bar = look.paint("│" if look.unicode else "|", "dim")
    for wave, tasks in facts.waves(run):
        done = sum(isinstance(task.state, Ended) for task in tasks)
        yield f"{look.paint(facts.wave_label(wave), 'bold')}  {look.paint(f'{done}/{len(tasks)}', 'dim')}"
        for task in filter(wanted, tasks):
            taken = duration(facts.task_seconds(world, task, mono, wall))
            yield from _task_lines(task, taken, describe(world, task), look, label_width, width)
            if task.id in shown:
                for text in facts.tail_lines(world, task, TAIL_LINES):
                    yield f"{_INDENT}{bar} {text}"


def _task_lines(task: TaskView, taken: str, why: str, look: Look, label_width: int, width: int | None) -> Iterator[str]:
    word = task_status(task)
    label = pad(shorten(facts.task_label(task), label_width, look.cut), label_width)
    line = f"  {look.status(word, look.glyph(word))} {label}  {taken:>7}"
    before = 4 + label_width + 2 + max(7, len(taken)) + 2
    if width is None or before + cells(why) <= width:
        yield f"{line}  {look.status(word, why)}".rstrip()
        return
    yield line
    for text in wrap(why, width - len(_INDENT)):
        yield f"{_INDENT}{look.status(word, text)}"


def describe(world: World, task: TaskView) -> str:
    """How a task stands in a few words; empty for one that succeeded at once, or waits for its turn."""
    word = task_status(task)
    again = f"attempt {task.attempts}" if task.attempts > 1 else ""
    cause = facts.cause_of(task)
    if word == "succeeded":
        return again
    if cause is not None:
        said = clean(cause.after(word.replace("_", " ")))
        is_said = f"({again} of " in said  # by the restart policy
        return f"{said} ({again})" if again and word in facts.BAD and not is_said else said
    session = facts.active_session(world, task)
    if session is None:
        return f"needs {', '.join(task.spec.needs)}" if task.spec.needs else ""
    if said := facts.waits_for(world, task):
        return said
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
    wrong = failures(run)
    if len(wrong) > 1:
        yield f"kas why {run.id}    all that went wrong"
    for task in wrong[:MAX_HINTS]:
        yield f"kas why {task.id}"
        session = facts.cause_session(world, task)
        if session is not None and session.state not in _WITHOUT_OUTPUT:
            yield f"kas logs {log_name(world, session)}"
    if len(wrong) > MAX_HINTS:
        yield f"and {len(wrong) - MAX_HINTS} more"


def log_name(world: World, session: SessionView) -> str:
    """What to call a session in a command: its name where that means this one, else its id."""
    newest = next((one for one in reversed(world.sessions.values()) if one.name == session.name), session)
    return session.name if newest.id == session.id else session.id
