"""`live` and `region`: a picture that fits the screen and leaves the terminal as it was."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from kasmos.cli.render.live import Frame, Live
from kasmos.cli.render.region import Region, fitted
from kasmos.cli.render.text import Look
from kasmos.cli.render.writer import Writer
from kasmos.model import event as ev
from kasmos.model.session import StopReason
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.view import World
from kasmos.store.fold import apply
from tests.unit.histories import START_AT, START_MONO, History, failed_run, make_plan

_SEQUENCE = re.compile(r"\x1b\[(\??[0-9;]*)([A-Za-z])")


class Screen(io.StringIO):
    """A terminal that understands what a region writes, wraps what is too long, and remembers the rest as colours."""

    encoding = "utf-8"

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__()
        self.columns, self.lines = columns, lines
        self.rows: list[str] = [""]
        self.wrapped: list[bool] = [False]
        """Whether each row goes on in the next one."""
        self.x = self.y = 0

    def size(self) -> tuple[int, int]:
        return self.columns, self.lines

    def resize(self, columns: int, lines: int) -> None:
        """Lines are wrapped anew, what does not fit goes out of reach at the top, and comes back when it fits."""
        whole = [""]
        for row, goes_on in zip(self.rows[: self.y], self.wrapped, strict=False):
            whole[-1] += row
            if not goes_on:
                whole.append("")
        split = [[line[at : at + columns] for at in range(0, max(1, len(line)), columns)] for line in whole[:-1]]
        self.rows = [piece for pieces in split for piece in pieces] + self.rows[self.y :]
        self.wrapped = [number < len(pieces) for pieces in split for number in range(1, len(pieces) + 1)] + [False]
        self.y = sum(map(len, split))
        self.columns, self.lines = columns, lines

    def write(self, text: str) -> int:
        at = 0
        while at < len(text):
            found = _SEQUENCE.match(text, at)
            if found is not None:
                self._control(found[1], found[2])
                at = found.end()
            else:
                self._put(text[at])
                at += 1
        return len(text)

    def _put(self, char: str) -> None:
        if char == "\r":
            self.x = 0
        elif char == "\n":
            self.x, self.y = 0, self.y + 1
            if self.y == len(self.rows):
                self.rows.append("")
                self.wrapped.append(False)
        else:
            assert char.isprintable(), repr(char)
            assert self.x < self.columns - 1, "a full line would be wrapped by some terminals"
            row = self.rows[self.y].ljust(self.x)
            self.rows[self.y] = row[: self.x] + char + row[self.x + 1 :]
            self.x += 1

    def _control(self, number: str, letter: str) -> None:
        if letter == "A":
            self.y = max(0, len(self.rows) - self.lines, self.y - int(number or 1))
        elif letter == "J":
            self.rows[self.y] = self.rows[self.y][: self.x]
            del self.rows[self.y + 1 :], self.wrapped[self.y + 1 :]
        elif letter == "K":
            assert number == "2"
            self.rows[self.y], self.wrapped[self.y] = "", False
        else:
            assert letter == "m" or number == "?2026", f"unexpected {number}{letter}"

    @property
    def text(self) -> list[str]:
        return [row.rstrip() for row in self.rows]


def frame(history: History, last: dict[str, str] | None = None) -> Frame:
    run = history.world.runs["r1"]
    return Frame(history.world, run, last or {}, Look(), history.mono, history.wall)


def texts(rows: Sequence[Text]) -> list[str]:
    return [row.plain.rstrip() for row in rows]


def draw(region: Region, screen: Screen, writer: Writer, *lines: str) -> None:
    region.draw(fitted([Text(line) for line in lines], screen.columns - 1, Look()))
    writer.flush()


# --- the picture ------------------------------------------------------------------


def test_a_frame_shows_waves_tasks_and_progress() -> None:
    """Every task has its sign, its time, and what it said last or why it ended."""
    history = History(make_plan(3, 1, checks=("pytest -q",)))
    history.wave(1)
    first = history.start("1")
    history.start("2")
    history.start("3")
    history.end("2", code=3, after=65.0)
    history.start("3", check=0)
    lines = texts(frame(history, {first: "reading parser.py"}).lines(78, 24))
    assert lines == [
        "Build the parser                                                      r1  1:05",
        "Wave 1  1/3",
        " ● 1 Do it 1    1:05  reading parser.py",
        " ✗ 2 Do it 2    1:05  exit 3",
        " ● 3 Do it 3    1:05  check `pytest -q`",
        "Wave 2  0/1",
        " · 4 Do it 4",
        "━━━━━━━───────────────────────  1/4 done  2 running  1 failed",
    ]


def test_a_frame_tells_of_retries_and_stops() -> None:
    """A task that waits says for how long, one that is stopped says so."""
    history = History(make_plan(2))
    first = history.start("1")
    history.add(ev.TaskRetryScheduled("r1", "1", 1, 30.0, Cause(CauseKind.EXIT, "exit 1", first)))
    second = history.start("2", attempt=2)
    history.add(ev.StopRequested(second, StopReason.TIMEOUT), after=10.0)
    lines = texts(frame(history).lines(78, 24))
    assert lines[2].endswith("attempt 1 exit 1; again in 20s")
    assert "attempt 2  stopping" in lines[3]
    history.add(ev.KillSent(second))
    assert "killing" in texts(frame(history).lines(78, 24))[3]


def test_a_parked_run_says_how_it_goes_on() -> None:
    """The last line of a parked run names the command."""
    history = History(make_plan(1, 1))
    history.add(ev.RunParked("r1", 1))
    assert "kas advance" in texts(frame(history).lines(78, 24))[-1]


def test_with_many_tasks_the_active_ones_are_shown() -> None:
    """What does not fit is counted; what runs is shown first, then what failed."""
    history = History(make_plan(40, 40))
    history.wave(1)
    for number in range(1, 31):
        history.start(str(number))
        history.end(str(number), code=int(number == 7))
    history.start("35")
    history.start("36")
    lines = texts(frame(history).lines(78, 12))
    assert len(lines) == 12
    shown = " ".join(lines)
    assert "35 Do it 35" in shown
    assert "36 Do it 36" in shown
    assert "✗ 7 Do it 7" in shown
    assert lines[-2] == "  and 72 more tasks: 29 succeeded, 43 queued"


@given(
    waves=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    started=st.integers(0, 20),
    width=st.integers(1, 120),
    height=st.integers(1, 40),
)
def test_a_frame_fits_every_screen(waves: list[int], started: int, width: int, height: int) -> None:
    """However small the screen and however large the plan, a frame is neither wider nor higher."""
    history = History(make_plan(*waves, title="漢字 and more words"))
    history.wave(1)
    for number in range(1, min(started, sum(waves)) + 1):
        history.start(str(number))
    lines = fitted(frame(history).lines(width, height), width, Look())
    assert 1 <= len(lines) <= height
    assert all(line.cells <= width for line in lines)


# --- the place where it is drawn --------------------------------------------------


def test_a_region_is_drawn_over_itself() -> None:
    """Each frame takes the place of the last one; what stood above stays."""
    screen = Screen(40, 10)
    writer = Writer(screen, screen)
    region = Region(writer, screen.size)
    writer.out("before\n")
    draw(region, screen, writer, "one", "two", "three")
    draw(region, screen, writer, "ONE", "TWO")
    assert screen.text == ["before", "ONE", "TWO", ""]
    region.above("a message\n")
    writer.flush()
    assert screen.text == ["before", "a message", "ONE", "TWO", ""]
    draw(region, screen, writer, "1", "2", "3")
    assert screen.text == ["before", "a message", "1", "2", "3", ""]
    region.clear()
    writer.out("the end\n")
    writer.close()
    assert screen.text == ["before", "a message", "the end", ""]


def test_a_region_survives_a_narrower_screen() -> None:
    """Lines that the terminal has wrapped meanwhile are all taken away."""
    screen = Screen(40, 20)
    writer = Writer(screen, screen)
    region = Region(writer, screen.size)
    writer.out("before\n")
    draw(region, screen, writer, "x" * 39, "short", "y" * 30)
    screen.resize(20, 20)
    assert len(screen.text) == 7
    draw(region, screen, writer, "x" * 39, "short", "y" * 30)
    writer.close()
    assert screen.text == ["before", "x" * 18 + "…", "short", "y" * 18 + "…", ""]


def test_a_region_leaves_nothing_behind_when_the_screen_grows_again() -> None:
    """What a smaller screen put out of reach is taken away once it is there again, and nothing else is."""
    screen = Screen(40, 20)
    writer = Writer(screen, screen)
    region = Region(writer, screen.size)
    writer.out("before\n")
    draw(region, screen, writer, *(f"{number} {'x' * 30}" for number in range(8)))
    screen.resize(20, 5)
    draw(region, screen, writer, "small", "picture")
    assert len(screen.text) > 10
    screen.resize(25, 6)
    draw(region, screen, writer, "small", "image")
    screen.resize(60, 30)
    draw(region, screen, writer, "large", "picture", "again")
    assert screen.text == ["before", "large", "picture", "again", ""]
    region.clear()
    writer.close()
    assert [line for line in screen.text if line] == ["before"]


def test_a_message_is_not_taken_for_what_was_drawn() -> None:
    """Lines that were written to stay are kept, also above what comes back when the screen grows."""
    screen = Screen(40, 20)
    writer = Writer(screen, screen)
    region = Region(writer, screen.size)
    draw(region, screen, writer, *(f"{number} {'x' * 30}" for number in range(8)))
    screen.resize(20, 5)
    draw(region, screen, writer, "small")
    region.above("a message\n")
    writer.flush()
    screen.resize(60, 30)
    draw(region, screen, writer, "large")
    writer.close()
    assert screen.text[-3:] == ["a message", "large", ""]


def test_lines_end_where_their_text_ends() -> None:
    """Spaces at the end of a line are not written: a narrower screen would wrap them."""
    (line,) = fitted([Text("text   ")], 40, Look())
    assert (line.text, line.cells) == ("text", 4)


def test_the_same_frame_is_written_once() -> None:
    """Nothing is written while nothing changes."""
    screen = Screen(40, 10)
    writer = Writer(screen, screen)
    region = Region(writer, screen.size)
    draw(region, screen, writer, "one")
    screen.rows = ["untouched"]
    draw(region, screen, writer, "one")
    writer.close()
    assert screen.rows == ["untouched"]


# --- the view ---------------------------------------------------------------------


@pytest.mark.parametrize("color", [False, True])
def test_a_live_run_ends_in_its_summary(color: bool) -> None:
    """When the run is over its picture is gone, and the summary with the failed output remains."""
    screen = Screen(78, 24)
    writer = Writer(screen, screen)
    view = Live(writer, Look(color=color), screen.size)
    world = World()
    view.message("warning: \x1b[31mfirst\x1b[0m")
    for record in failed_run().records:
        apply(world, record)
        if isinstance(record.event, ev.RunStarted):
            view.begin(world, "r1", "continuing run r1")
        view.record(record, world)
        view.tick(START_MONO + 1.0, {"r1-1a1": "a\x1b[2J\rb\n", "r1-2a1": "\x1b]0;evil\x07working"})
        writer.flush()
    view.end(world)
    assert screen.text == [
        "warning: first",
        "continuing run r1",
        "Wave 1  2/2",
        "  ✓ 1 Do it 1     2.0s",
        "  ✗ 2 Do it 2     5.0s  failed: exit 3",
        "      │ compiling",
        "      │ error: no such file",
        "Wave 2  1/1",
        "  - 3 Do it 3        -  skipped: wave 1 did not succeed: task 2 failed",
        "",
        "run r1 failed after 5.0s: 1 succeeded, 1 failed, 1 skipped",
        "  kas why r1.2",
        "  kas logs w1t2-do-it-2",
        "",
    ]


def test_a_live_view_writes_nothing_that_must_be_undone() -> None:
    """Neither the cursor is hidden nor the other screen taken: a killed process leaves a usable terminal."""
    out = io.StringIO()
    writer = Writer(out, out)
    view = Live(writer, Look(color=True), lambda: (80, 24))
    history = History(make_plan(2))
    history.start("1")
    view.begin(history.world, "r1", "")
    view.tick(START_MONO + 1.0, {})
    view.message("text")
    view.tick(START_MONO + 2.0, {})
    view.end(history.world)
    modes = re.findall(r"\x1b\[\?(\d+)([hl])", out.getvalue())
    assert {number for number, _ in modes} == {"2026"}
    assert [letter for _, letter in modes] == ["h", "l"] * (len(modes) // 2)


def test_the_summary_fits_the_screen() -> None:
    """A long reason stands on lines of its own, and a long title is cut with a sign that it was."""
    screen = Screen(50, 24)
    writer = Writer(screen, screen)
    view = Live(writer, Look(), screen.size)
    history = History(make_plan(1, title="漢字漢字漢字漢字漢字漢字"))
    history.start("1")
    history.end("1", code=1, message="the check `pytest -q tests` did not succeed: it ended with exit 1")
    history.over(Outcome.FAILED)
    view.begin(history.world, "r1", "")
    view.end(history.world)
    assert screen.text[1:4] == [
        "  ✗ 1 漢字漢字漢字漢字…     1.0s",
        "      failed: the check `pytest -q tests` did not",
        "      succeed: it ended with exit 1",
    ]


def test_an_interrupted_run_says_how_to_go_on() -> None:
    """The summary of a run that was interrupted names the command that continues it."""
    screen = Screen(78, 24)
    writer = Writer(screen, screen)
    view = Live(writer, Look(), screen.size)
    history = History(make_plan(1))
    history.start("1")
    history.add(ev.TaskPutBack("r1", "1", "SIGINT"))
    history.add(ev.RunInterrupted("r1", "SIGINT"))
    view.begin(history.world, "r1", "")
    view.end(history.world)
    assert any("run r1 interrupted" in line for line in screen.text)
    assert "  kas resume r1    go on from here" in screen.text


def test_times_of_another_boot_are_not_compared() -> None:
    """A task that began before the machine was restarted takes as long as the wall clock says."""
    history = History(make_plan(1))
    history.start("1")
    history.add(ev.SupervisorStarted(pid=1, boot_id="boot-2", version="0"), after=120.0)
    run = history.world.runs["r1"]
    shown = Frame(history.world, run, {}, Look(), 5.0, START_AT + 120.0).lines(78, 24)
    assert "2:00" in shown[2].plain
    assert Outcome.LOST.value not in shown[2].plain
