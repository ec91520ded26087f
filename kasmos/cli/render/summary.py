"""A run as Markdown for `$GITHUB_STEP_SUMMARY`: verdict, table, timeline, what went wrong."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator

from kasmos.cli.render import facts
from kasmos.cli.render.report import describe, failures
from kasmos.cli.render.text import cells, clean, duration, pad, plural, shorten
from kasmos.daemon.spending import say_tally
from kasmos.daemon.wire import task_status
from kasmos.model.usage import Tally
from kasmos.model.view import Ended, RunView, TaskView, World

LIMIT = 900_000
"""Bytes. GitHub refuses summaries above 1 MiB altogether."""
MAX_ROWS = 1000
"""Tasks in the table and in the timeline."""
TAIL_LINES = 60
"""Lines of output that are shown of a task that did not succeed."""

_COLUMNS = 48
_SIGNS = {
    "succeeded": "✅",
    "failed": "❌",
    "timed_out": "⌛",
    "lost": "❓",
    "cancelled": "🛑",
    "skipped": "⏭️",
    "interrupted": "⏸️",
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$@]|!(?=\[)|:(?=\w))")


def summary(world: World, run_id: str) -> str:
    """The summary, ending in a newline, at most `LIMIT` bytes long.

    Raises:
        KeyError: there is no such run.
    """
    run = world.runs[run_id]
    mono, wall = time.monotonic(), time.time()
    parts = [_head(world, run, mono, wall), _table(world, run, mono, wall), _timeline(world, run, wall)]
    size = sum(len(part.encode(errors="replace")) for part in parts)
    wrong = failures(run)
    for number, task in enumerate(wrong):
        part = _failure(world, task)
        size += len(part.encode(errors="replace"))
        if size > LIMIT - 200:
            parts.append(f"\nand {plural(len(wrong) - number, 'more task')} that did not succeed: see the log.\n")
            break
        parts.append(part)
    return "\n".join(parts).encode(errors="replace").decode() + "\n"


def _head(world: World, run: RunView, mono: float, wall: float) -> str:
    status = facts.status_of_run(run)
    taken = duration(facts.run_seconds(world, run, mono, wall))
    said = f"{status.replace('_', ' ')} after {taken}: {facts.count_words(facts.count_tasks(run))}"
    title = _escape(shorten(facts.run_title(run), 300))
    used = say_tally(world.ledger.runs.get(run.id, Tally()))
    spent = f" It used {_escape(used)}." if used else ""
    return f"## {_SIGNS.get(status, '▶️')} {title}\n\nRun `{run.id}` {said}.{spent}\n"


def _table(world: World, run: RunView, mono: float, wall: float) -> str:
    lines = ["| Wave | Task | Outcome | Time | Why |", "|---:|---|---|---:|---|"]
    tasks = list(run.tasks.values())
    size = 0
    for number, task in enumerate(tasks):
        row = _row(task, duration(facts.task_seconds(world, task, mono, wall)))
        size += len(row.encode(errors="replace"))
        if number == MAX_ROWS or size > LIMIT // 3:
            lines.append(f"| | and {plural(len(tasks) - number, 'more task')} | | | |")
            break
        lines.append(row)
    return "\n".join(lines) + "\n"


def _row(task: TaskView, taken: str) -> str:
    word = task_status(task)
    cause = facts.cause_of(task)
    said = word.replace("_", " ") + (f", attempt {task.attempts}" if task.attempts > 1 else "")
    why = _escape(shorten(clean(cause.message), 200)) if cause is not None and word != "succeeded" else ""
    label = _escape(shorten(facts.task_label(task), 120))
    return f"| {task.spec.wave} | {label} | {_SIGNS.get(word, '▶️')} {said} | {taken} | {why} |"


def _timeline(world: World, run: RunView, wall: float) -> str:
    """Bars of text: unlike a diagram they need no renderer, and no name can break them."""
    tasks = [task for task in list(run.tasks.values())[:MAX_ROWS] if task.started_at is not None]
    if not tasks:
        return ""
    start = min(task.started_at or wall for task in tasks)
    end = max((_end(task, wall) for task in tasks), default=wall)
    scale = _COLUMNS / max(end - start, 0.001)
    width = min(40, max(cells(facts.task_label(task)) for task in tasks))
    lines = [f"{'':{width}}  |{'0s':<{_COLUMNS // 2}}{duration(end - start):>{_COLUMNS - _COLUMNS // 2}}|"]
    labels = [pad(shorten(facts.task_label(task), width, "…"), width) for task in tasks]
    lines += [f"{label}  |{_bar(world, task, start, scale, wall)}|" for label, task in zip(labels, tasks, strict=True)]
    return f"### Timeline\n\n{_fenced(lines)}\n"


def _bar(world: World, task: TaskView, start: float, scale: float, wall: float) -> str:
    columns = [" "] * _COLUMNS
    for session in facts.all_sessions(world, task):
        ended = session.ended_at if session.ended_at is not None else _end(task, wall)
        first = min(_COLUMNS - 1, max(0, int((session.starting_at - start) * scale)))
        last = min(_COLUMNS, max(first + 1, round((ended - start) * scale)))
        # Checks are drawn lighter than the program they check.
        columns[first:last] = ("▒" if session.check is not None else "█") * (last - first)
    return "".join(columns)


def _end(task: TaskView, wall: float) -> float:
    return task.state.at if isinstance(task.state, Ended) else wall


def _failure(world: World, task: TaskView) -> str:
    title = html.escape(shorten(f"{facts.task_label(task)}: {describe(world, task)}", 300))
    lines = [shorten(line, 1000) for line in facts.tail_lines(world, task, TAIL_LINES)]
    return f"<details><summary>{title}</summary>\n\n{_fenced(lines or ['(no output)'])}\n</details>\n"


def _fenced(lines: list[str]) -> str:
    """A block that nothing in it can end."""
    longest = max((len(run) for run in _ticks(lines)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join((f"{fence}text", *lines, fence)) + "\n"


def _ticks(lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield from re.findall("`+", line)


def _escape(text: str) -> str:
    """Text as text: neither Markdown, nor HTML, nor a mention of somebody, nor a link."""
    escaped = _MARKDOWN.sub(r"\\\1", text)
    # A backslash hides neither mentions nor bare links: an empty comment inside does.
    escaped = html.escape(escaped, quote=False).replace("\\@", "@<!-- -->").replace("://", ":<!-- -->//")
    return re.sub(r"(?i)www\.", "www<!-- -->.", escaped)
