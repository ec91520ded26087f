"""A part of the terminal, at its end, that is drawn again and again.

It stays in the ordinary screen and hides nothing, not even the cursor: if this process is killed at
any instant, the terminal is as usable as before. Lines are shorter than the screen is wide and fewer than
it is high. When the screen was made narrower, terminals wrap what is there; what does not fit any more goes to
their history, and comes back when the screen gets larger. Both are reckoned with.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.console import Console
from rich.text import Text

from kasmos.cli.render.size import Size
from kasmos.cli.render.text import Look
from kasmos.cli.render.writer import Writer
from kasmos.model.value import frozen

# Terminals that know it show a frame at once; all others ignore it.
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"


@frozen
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
        self._beyond: tuple[int, ...] = ()
        """Cells of lines directly above the region that were drawn by us and went out of reach."""
        self._torn = False
        """Whether the last of those is the beginning of a wrapped line whose end was drawn over."""

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
        self._drawn_at = self._size()
        self._forget()

    def clear(self) -> None:
        """Take the region away; the next `draw` begins where it began."""
        self._writer.out(self._erase())
        self._drawn = ()
        self._forget()

    def _body(self) -> str:
        # The whole line is erased first: what is only written over is still known as part of a wrapped one,
        # and would be joined to the next when the screen gets wider again.
        return "".join(f"\x1b[2K{line.text}\n" for line in self._drawn) + "\x1b[J"

    def _erase(self) -> str:
        # Not `J` from the first line: where that is the screen's, tmux keeps what is erased in its history.
        return f"{self._to_top()}\x1b[2K\n\x1b[J\x1b[A" if self._drawn else ""

    def _to_top(self) -> str:
        size = self._size()
        columns, room = max(1, size[0]), max(1, size[1]) - 1
        ours = [line.cells for line in self._drawn]
        if size != self._drawn_at:
            ours = self._with_beyond(ours)
            self._forget()
        rows = sum(_rows(cells, columns) for cells in ours)
        self._leave(ours, columns, rows - room)
        rows = min(rows, room)
        return f"\r\x1b[{rows}A" if rows else "\r"

    def _with_beyond(self, ours: list[int]) -> list[int]:
        """What was out of reach, and our lines after it: after a change of size all of it may be there again."""
        if self._torn and ours:
            # Terminals take both for one line. Where one does not, a row too few is erased: better than one too many.
            return [*self._beyond[:-1], self._beyond[-1] + ours[0], *ours[1:]]
        return [*self._beyond, *ours]

    def _leave(self, ours: list[int], columns: int, excess: int) -> None:
        """Note what of our lines lies in the *excess* rows above the screen."""
        for cells in ours:
            if excess <= 0:
                return
            reach = min(excess, _rows(cells, columns))
            self._torn = reach < _rows(cells, columns)
            self._beyond += (reach * columns if self._torn else cells,)
            excess -= reach

    def _forget(self) -> None:
        self._beyond, self._torn = (), False


def _rows(cells: int, columns: int) -> int:
    """How many rows of the screen a line takes."""
    return max(1, -(-cells // columns))


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
        # Spaces at the end would be wrapped like all else when the screen gets narrower.
        row.rstrip()
        row.truncate(width, overflow="ellipsis")
        with console.capture() as capture:
            console.print(row, end="", no_wrap=True, soft_wrap=True)
        lines.append(Line(capture.get(), row.cell_len))
    return lines
