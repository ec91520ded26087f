"""A part of the terminal, at its end, that is drawn again and again.

It stays in the ordinary screen and hides nothing, not even the cursor: if this process is killed at
any instant, the terminal is as usable as before. Lines are shorter than the screen is wide and fewer than
it is high. When the screen was made narrower, terminals wrap what is there: that is reckoned with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from io import StringIO
from typing import TextIO

import attrs
from rich.console import Console
from rich.text import Text

from kasmos.cli.render.text import Look
from kasmos.cli.render.writer import Writer

Size = Callable[[], tuple[int, int]]
"""Columns and lines of the screen as they are now."""

# Terminals that know it show a frame at once; all others ignore it.
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"


@attrs.frozen
class Line:
    """One line as it is written, and how many cells it takes."""

    text: str
    cells: int


class Region:
    """The last lines of the screen."""

    def __init__(self, writer: Writer, size: Size) -> None:
        self._writer = writer
        self._size = size
        self._drawn: tuple[Line, ...] = ()
        self._drawn_at = (0, 0)

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines instead of the last ones. Does nothing while the terminal is behind."""
        size = self._size()
        if self._writer.busy or (tuple(lines) == self._drawn and size == self._drawn_at):
            return
        top = self._to_top()
        self._drawn, self._drawn_at = tuple(lines), size
        self._writer.out(f"{_BEGIN}{top}{self._body()}{_END}")

    def above(self, text: str) -> None:
        """Write lines that stay, above the region."""
        body = self._body() if self._drawn else ""
        self._writer.out(f"{_BEGIN}{self._erase()}{text}{body}{_END}")

    def clear(self) -> None:
        """Take the region away; the next `draw` begins where it began."""
        self._writer.out(self._erase())
        self._drawn = ()

    def _body(self) -> str:
        # The whole line is erased first: what is only written over is still known as part of a wrapped one,
        # and would be joined to the next when the screen gets wider again.
        return "".join(f"\x1b[2K{line.text}\n" for line in self._drawn) + "\x1b[J"

    def _erase(self) -> str:
        # Not `J` from the first line: where that is the screen's, tmux keeps what is erased in its history.
        return f"{self._to_top()}\x1b[2K\n\x1b[J\x1b[A" if self._drawn else ""

    def _to_top(self) -> str:
        columns = max(1, self._size()[0])
        rows = sum(max(1, -(-line.cells // columns)) for line in self._drawn)
        return f"\r\x1b[{rows}A" if rows else "\r"


def fitted(rows: Sequence[Text], width: int, look: Look) -> list[Line]:
    """Rows as they are written: cut to *width* cells, with the colours there are."""
    console = Console(
        file=StringIO(),
        force_terminal=True,
        color_system="standard" if look.color else None,
        no_color=not look.color,
        width=width,
        emoji=False,
        markup=False,
        highlight=False,
        legacy_windows=False,
    )
    lines = []
    for row in rows:
        row.truncate(width, overflow="ellipsis")
        with console.capture() as capture:
            console.print(row, end="", no_wrap=True, soft_wrap=True)
        lines.append(Line(capture.get(), row.cell_len))
    return lines


def size_of(stream: TextIO) -> Size:
    """How to ask for the size of the terminal that *stream* writes to."""

    def size() -> tuple[int, int]:
        try:
            columns, lines = os.get_terminal_size(stream.fileno())
        except (OSError, ValueError):
            columns, lines = 0, 0
        # A terminal that does not know its size says 0.
        return columns or 80, lines or 24

    return size
