"""Overlays: a panel without a frame that a program draws over the middle of what it showed.

Below it everything stands as before, the input too, and what is typed goes into the panel. In plain text nothing but
its place tells a panel from text about one: it stands in the middle of the screen and clears its rows to its own edges,
and text in a reply, a diff or a draft is indented, which moves it off the middle.
"""

from __future__ import annotations

from kasmos.model.value import frozen
from kasmos.screens.layout import NEVER, Layout
from kasmos.screens.screen import Screen

_MARGIN = 2
"""Columns that a panel keeps clear around its heading, and a program at the right edge of the terminal."""
_OFF_MIDDLE = 2
"""By how many columns the space left and right of a heading may differ."""


@frozen
class Overlay:
    """A panel that stands over the screen."""

    row: int
    """Row of its heading."""
    heading: str


def find_overlay(screen: Screen, layout: Layout) -> Overlay | None:
    """Find the panel that stands over the screen, by its heading.

    Where the width of the terminal is not known, the longest line tells it: unless the program ends short of the edge.
    """
    if layout.overlay is NEVER:
        return None
    width = screen.width or max(map(len, screen.lines), default=0) + _MARGIN
    for row, line in enumerate(screen.lines):
        found = layout.overlay.search(line)
        if found is None or abs(found.start(1) + found.end(1) - width) > _OFF_MIDDLE:
            continue
        left, right = max(found.start(1) - _MARGIN, 0), found.end(1) + _MARGIN
        beside = (*screen.lines[max(row - 1, 0) : row], *screen.lines[row + 1 : row + 2])
        if not any(one[left:right].strip() for one in beside):
            return Overlay(row, " ".join(found[1].split()))
    return None
