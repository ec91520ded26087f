"""Cut a screen into regions: what is live, and where it stands.

    title                 what the program set as the terminal's title
    turn                  the transcript since the person's last prompt, down to the input
    last                  the last thing in it
    status                the lines right above the input, down from the last blank line but two
    composer              what is typed
    footer                what stands below the input
    dialog                the block of the live menu: `heading`, `question`, `options`, `hint` are its parts
    bottom                the last lines of the screen that show something
    screen                everything; only for signs that cannot be quoted

A region that a screen does not have matches nothing. There is never an input and a dialog: whichever is lower is live.
Under a panel that is drawn over the screen neither is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property

import attrs

from kasmos.model.value import frozen
from kasmos.screens.composer import Input, find_composer
from kasmos.screens.layout import Layout
from kasmos.screens.menu import Menu, find_menu
from kasmos.screens.overlay import Overlay, find_overlay
from kasmos.screens.screen import Screen

NAMES = (
    "title", "turn", "last", "status", "composer", "footer", "dialog", "heading", "question", "options", "hint",
    "bottom", "screen",
)  # fmt: skip
_BOTTOM = 4
_STATUS = 14
_PANEL_INPUT = 4
"""Rows below its heading in which a panel that is drawn over the screen has an input of its own."""
_EDGE = " \t│┃|"
_RULE = re.compile(r"[─━▔]{8,}")
_BESIDE = 78
"""Columns: what begins further right, in the line that sets off a row of buttons, stands beside the dialog."""


@frozen
class Region:
    """Some lines of a screen, with the row each stands in."""

    rows: tuple[int, ...]
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@attrs.frozen(slots=False)
class Regions:
    """The regions of one screen, cut when they are asked for."""

    screen: Screen
    layout: Layout

    def get(self, name: str) -> Region | None:
        """A region by its name; None where the screen has none."""
        cut: Callable[[Regions], Region | None] = _CUTS[name]
        return cut(self)

    @cached_property
    def overlay(self) -> Overlay | None:
        """The panel that is drawn over the screen. None where the cursor shows that the input below is typed into."""
        overlay = find_overlay(self.screen, self.layout)
        cursor = self.screen.cursor
        if overlay is None or cursor is None or not cursor.visible:
            return overlay
        is_typed_into = self._input is not None and self._input.has(cursor)
        return None if is_typed_into and cursor.row > overlay.row + _PANEL_INPUT else overlay

    @cached_property
    def _input(self) -> Input | None:
        return find_composer(self.screen, self.layout)

    @cached_property
    def _found(self) -> tuple[Input | None, Menu | None]:
        if self.overlay is not None:
            return None, None
        composer, menu = self._input, find_menu(self.screen, self.layout)
        if composer is not None and menu is not None:
            return (composer, None) if composer.bottom > menu.top else (None, menu)
        return composer, menu

    @property
    def composer(self) -> Input | None:
        """The live input."""
        return self._found[0]

    @property
    def menu(self) -> Menu | None:
        """The live menu."""
        return self._found[1]

    @cached_property
    def dialog_top(self) -> int:
        """First row of the dialog around the live menu."""
        menu, lines = self.menu, self.screen.lines
        assert menu is not None
        if menu.boxed:
            edge = len(lines[menu.top]) - len(lines[menu.top].lstrip())
            row = menu.top
            while row > 0 and lines[row][edge : edge + 1] in ("│", "┃", "|"):
                row -= 1
            return row + 1
        for row in range(menu.top - 1, -1, -1):
            line = lines[row]
            if _RULE.match(line):
                return row + 1
            if self.layout.block.search(line) or self.layout.user.search(line):
                return next((one for one in range(row, menu.top) if not lines[one].strip()), row) + 1
            if menu.buttons and not line.strip():
                return row + 1
        return 0

    @cached_property
    def heading_end(self) -> int:
        """Row below what a dialog says: the live menu's, or the empty one above a row of buttons."""
        menu = self.menu
        assert menu is not None
        # What opencode shows at the right of a wide terminal stands in it, and is no part of the command.
        set_off = menu.buttons and not self.screen.lines[menu.top - 1][:_BESIDE].strip(_EDGE)
        return menu.top - 1 if set_off else menu.top

    @cached_property
    def transcript_end(self) -> int:
        """Row below the transcript."""
        if self.composer is not None:
            return self.composer.top
        return self.dialog_top if self.menu is not None else len(self.screen.lines)

    @cached_property
    def turn_start(self) -> int:
        """Row of the person's last prompt; 0 if it is out of sight."""
        for row in range(self.transcript_end - 1, -1, -1):
            if self.layout.user.search(self.screen.lines[row]):
                return row
        return 0

    def rows(self, start: int, end: int, *, inner: bool = False) -> Region | None:
        """Lines that show something, from a row to before another; inside of their box if asked."""
        kept: list[int] = []
        lines: list[str] = []
        for row in range(max(start, 0), end):
            line = self.screen.lines[row]
            if inner and line[:4].lstrip()[:1] in ("│", "┃", "|", "╭", "╰", "┌", "└"):
                line = line.strip()[1:].rstrip(_EDGE)
            if line.strip():
                kept.append(row)
                lines.append(line)
        return Region(tuple(kept), tuple(lines)) if kept else None


def _title(regions: Regions) -> Region | None:
    title = regions.screen.title
    return Region((), (title,)) if title else None


def _turn(regions: Regions) -> Region | None:
    return regions.rows(regions.turn_start, regions.transcript_end)


def _last(regions: Regions) -> Region | None:
    for row in range(regions.transcript_end - 1, regions.turn_start - 1, -1):
        if regions.layout.block.search(regions.screen.lines[row]):
            return regions.rows(row, regions.transcript_end)
    return _turn(regions)


def _status(regions: Regions) -> Region | None:
    if regions.composer is None:
        return None
    return regions.rows(regions.composer.top - _STATUS, regions.composer.top)


def _composer(regions: Regions) -> Region | None:
    composer = regions.composer
    return None if composer is None else Region((composer.row,), (composer.shown,))


def _footer(regions: Regions) -> Region | None:
    if regions.composer is None:
        return None
    return regions.rows(regions.composer.bottom, len(regions.screen.lines))


def _dialog(regions: Regions) -> Region | None:
    return None if regions.menu is None else regions.rows(regions.dialog_top, len(regions.screen.lines), inner=True)


def _heading(regions: Regions) -> Region | None:
    return None if regions.menu is None else regions.rows(regions.dialog_top, regions.heading_end, inner=True)


def _question(regions: Regions) -> Region | None:
    if regions.menu is None:
        return None
    row = regions.menu.top - 1
    blank = _blank_test(regions.screen.lines)
    while row > regions.dialog_top and blank(row):
        row -= 1
    end = row + 1
    while row > regions.dialog_top and not blank(row - 1):
        row -= 1
    return regions.rows(row, end, inner=True)


def _blank_test(lines: Sequence[str]) -> Callable[[int], bool]:
    edges = _EDGE + "─━╌┄╭╮╰╯"
    return lambda row: not lines[row].strip(edges)


def _options(regions: Regions) -> Region | None:
    return None if regions.menu is None else regions.rows(regions.menu.top, regions.menu.bottom, inner=True)


def _hint(regions: Regions) -> Region | None:
    menu = regions.menu
    if menu is None:
        return None
    # The line of buttons tells its keys itself.
    return regions.rows(menu.top if menu.buttons else menu.bottom, len(regions.screen.lines), inner=True)


def _bottom(regions: Regions) -> Region | None:
    rows = [row for row, line in enumerate(regions.screen.lines) if line.strip()][-_BOTTOM:]
    return Region(tuple(rows), tuple(regions.screen.lines[row] for row in rows)) if rows else None


def _screen(regions: Regions) -> Region | None:
    return regions.rows(0, len(regions.screen.lines))


_CUTS: dict[str, Callable[[Regions], Region | None]] = {
    "title": _title,
    "turn": _turn,
    "last": _last,
    "status": _status,
    "composer": _composer,
    "footer": _footer,
    "dialog": _dialog,
    "heading": _heading,
    "question": _question,
    "options": _options,
    "hint": _hint,
    "bottom": _bottom,
    "screen": _screen,
}
