"""How large the screen is."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TextIO

Size = Callable[[], tuple[int, int]]
"""Columns and lines of the screen as they are now."""


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
