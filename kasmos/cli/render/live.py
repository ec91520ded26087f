"""A run on a terminal, as it is now: waves, tasks, what each one said last, and how far it has come."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from kasmos.cli.render import facts
from kasmos.cli.render.region import Region, fitted
from kasmos.cli.render.report import report
from kasmos.cli.render.size import Size
from kasmos.cli.render.text import STYLES, Look, clean, clock, duration, last_line, plural
from kasmos.cli.render.writer import PATIENCE, Writer
from kasmos.daemon.wire import task_status
from kasmos.model.event import Record
from kasmos.model.plan import Wave
from kasmos.model.session import SessionKind
from kasmos.model.view import BackingOff, Ended, Pending, RunState, RunView, SessionState, TaskView, World

INTERVAL = 0.2
"""Seconds between frames; a frame that would look like the last one is not written."""

_BAR_WIDTH = 30


class Live:
    """See `View`. Draws at its own pace, however fast events come."""

    interval: float | None = INTERVAL

    def __init__(self, writer: Writer, look: Look, size: Size) -> None:
        self._writer = writer
        self._look = look
        self._size = size
        self._region = Region(writer, size)
        self._world = World()
        self._run_id = ""
        self._tails: Mapping[str, str] = {}
        self._last: dict[str, str] = {}

    def begin(self, world: World, run_id: str, notice: str) -> None:
        self._world, self._run_id = world, run_id
        if notice:
            self.message(notice)
        self._draw(time.monotonic())

    def record(self, record: Record, world: World) -> None:
        self._world = world

    def tick(self, now_mono: float, tails: Mapping[str, str]) -> None:
        self._last.update((name, line) for name, text in tails.items() if (line := last_line(text)))
        self._draw(now_mono)

    def message(self, text: str) -> None:
        self._region.above(f"{clean(text)}\n")

    def end(self, world: World) -> None:
        self._region.clear()
        width = max(1, self._size()[0] - 1)
        self._writer.out(report(world, self._run_id, self._look, time.monotonic(), time.time(), width=width))
        self._writer.close()

    def flush(self) -> None:
        self._writer.flush(PATIENCE)

    def _draw(self, mono: float) -> None:
        run = self._world.runs.get(self._run_id)
        if run is None or self._writer.silenced:
            return
        columns, lines = self._size()
        frame = Frame(self._world, run, self._last, self._look, mono, time.time())
        # One row is the cursor's, one column too: a full line would be wrapped by some terminals.
        rows = frame.lines(max(1, columns - 1), max(1, lines - 1))
        self._region.draw(fitted(rows, max(1, columns - 1), self._look))


class Frame:
    """One picture of a run. Pure, given the two clocks."""

    def __init__(
        self, world: World, run: RunView, last: Mapping[str, str], look: Look, mono: float, wall: float
    ) -> None:
        self._world = world
        self._run = run
        self._last = last
        self._look = look
        self._mono = mono
        self._wall = wall

    def lines(self, width: int, height: int) -> list[Text]:
        """At most *height* lines for a screen of *width* cells. What matters most is always among them."""
        head, foot = self._head(width), self._foot(width)
        if height < 4:
            return [foot]
        chosen, hidden = self._choose(height - 2)
        labels = (facts.task_label(task) for task in chosen.values())
        label_width = min(max(map(cell_len, labels), default=0), max(10, width * 2 // 5))
        body: list[Text] = []
        for wave, tasks in facts.waves(self._run):
            shown = [task for task in tasks if task.spec.id in chosen]
            if shown:
                body.append(self._wave(wave, tasks))
                body += [self._task(task, label_width) for task in shown]
        if hidden:
            counts = facts.count_words(Counter(map(task_status, hidden)))
            body.append(Text(f"  and {plural(len(hidden), 'more task')}: {counts}", style="dim"))
        return [head, *body, foot]

    def _choose(self, room: int) -> tuple[dict[str, TaskView], list[TaskView]]:
        """The tasks there is room for, by id, and the others."""
        tasks = self._run.tasks
        if len(tasks) + len(self._run.plan.waves) <= room:
            return dict(tasks), []
        room -= 1  # the line that counts the rest
        chosen: set[str] = set()
        waves: set[int] = set()
        for task in sorted(tasks.values(), key=self._rank):
            cost = 1 + (task.spec.wave not in waves)
            if cost <= room:
                room -= cost
                chosen.add(task.spec.id)
                waves.add(task.spec.wave)
        return (
            {name: tasks[name] for name in chosen},
            [task for task in tasks.values() if task.spec.id not in chosen],
        )

    def _rank(self, task: TaskView) -> int:
        started = max(self._run.waves_started, default=0)
        match task.state:
            case Pending():
                return 3 if task.spec.wave <= started else 5
            case BackingOff():
                return 1
            case Ended():
                return 2 if task_status(task) in facts.BAD else 4 if task.spec.wave == started else 6
            case _:
                return 0

    def _head(self, width: int) -> Text:
        taken = clock(facts.run_seconds(self._world, self._run, self._mono, self._wall))
        right = Text(f"{self._run.id}  {taken}", style="dim")
        left = Text(facts.run_title(self._run), style="bold")
        left.truncate(max(0, width - right.cell_len - 2), overflow="ellipsis", pad=True)
        return Text.assemble(left, "  ", right)

    def _wave(self, wave: Wave, tasks: Sequence[TaskView]) -> Text:
        done = sum(isinstance(task.state, Ended) for task in tasks)
        begun = wave.number in self._run.waves_started
        return Text.assemble((facts.wave_label(wave), "bold" if begun else "dim"), (f"  {done}/{len(tasks)}", "dim"))

    def _task(self, task: TaskView, label_width: int) -> Text:
        word = task_status(task)
        label = Text(facts.task_label(task), style="dim" if word in ("queued", "skipped") else "")
        label.truncate(label_width, overflow="ellipsis", pad=True)
        seconds = facts.task_seconds(self._world, task, self._mono, self._wall)
        return Text.assemble(
            " ",
            (self._look.glyph(word), STYLES[word]),
            " ",
            label,
            f" {clock(seconds) if seconds is not None else '':>7}  ",
            self._detail(task, word),
        )

    def _detail(self, task: TaskView, word: str) -> Text:
        state = task.state
        match state:
            case Pending():
                return Text(f"needs {', '.join(task.spec.needs)}" if task.spec.needs else "", style="dim")
            case BackingOff():
                left = max(0.0, state.since_mono + state.delay - self._mono)
                said = f"attempt {state.attempt} {clean(state.cause.message)}; again in {duration(left)}"
                return Text(said, style="yellow")
            case Ended():
                return Text("" if word == "succeeded" else clean(state.cause.message), style=STYLES[word])
        session = facts.active_session(self._world, task)
        if session is None:
            return Text("")
        if said := facts.waits_for(self._world, task):
            return Text(said, style="bold yellow")
        parts: list[str | tuple[str, str]] = []
        if session.attempt > 1:
            parts.append((f"attempt {session.attempt}  ", "yellow"))
        if session.state is SessionState.STOPPING:
            parts.append(("killing  " if session.killed else "stopping  ", "yellow"))
        elif session.awaits:
            parts.append((f"{clean(session.awaits)}  ", "bold yellow"))
        if session.kind is SessionKind.CHECK:
            parts.append((f"check `{facts.check_command(self._world, session) or session.check}`  ", "cyan"))
        return Text.assemble(*parts, (self._last.get(session.id, ""), "dim"))

    def _foot(self, width: int) -> Text:
        counts = facts.count_tasks(self._run)
        total = len(self._run.tasks)
        done = sum(isinstance(task.state, Ended) for task in self._run.tasks.values())
        bad = sum(counts[word] for word in facts.BAD)
        bar_width = max(0, min(_BAR_WIDTH, width - 40))
        filled = bar_width * done // max(1, total)
        full, empty = ("━", "─") if self._look.unicode else ("#", "-")
        parts: list[str | tuple[str, str]] = []
        if bar_width:
            parts += [(full * filled, "red" if bad else "green"), (empty * (bar_width - filled), "dim"), "  "]
        parts.append((f"{done}/{total} done", "bold"))
        for word in ("running", "waiting", *facts.BAD, "skipped"):
            if counts[word]:
                parts.append((f"  {counts[word]} {word.replace('_', ' ')}", STYLES[word]))
        if self._run.state is RunState.PARKED:
            parts.append(("  parked: `kas advance` lets it go on", "yellow"))
        elif self._run.cancel_reason is not None:
            parts.append(("  being ended", "yellow"))
        return Text.assemble(*parts)
