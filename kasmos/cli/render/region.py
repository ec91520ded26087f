"""A part of the terminal, at its end, that is drawn again and again.

It stays in the ordinary screen and hides nothing, not even the cursor: if this process is killed at
any instant, the terminal is as usable as before. Lines are shorter than the screen is wide and fewer than
it is high. When the screen was made narrower, terminals wrap what is there: that is reckoned with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TextIO

import attrs

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
        text = "".join(f"{line.text}\x1b[K\n" for line in lines)
        self._writer.out(f"{_BEGIN}{self._to_top(size)}{text}\x1b[J{_END}")
        self._drawn, self._drawn_at = tuple(lines), size

    def above(self, text: str) -> None:
        """Write lines that stay, above the region."""
        self.clear()
        self._writer.out(text)

    def clear(self) -> None:
        """Take the region away; the next `draw` begins where it began."""
        if self._drawn:
            self._writer.out(f"{self._to_top(self._size())}\x1b[J")
        self._drawn = ()

    def _to_top(self, size: tuple[int, int]) -> str:
        columns = max(1, size[0])
        rows = sum(max(1, -(-line.cells // columns)) for line in self._drawn)
        up = f"\r\x1b[{rows}A" if rows else "\r"
        return up + ("\x1b[J" if size != self._drawn_at else "")


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
