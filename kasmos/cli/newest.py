"""Where the newest lines of a log begin, whatever the log is kept in."""

from __future__ import annotations

from collections.abc import Callable

PIECE = 65_536
"""Bytes that are looked through at once, from the end."""


def newest_lines(read: Callable[[int, int], bytes], lines: int, *, base: int = 0, end: int) -> int:
    """Where the last *lines* lines begin, as `tail -n` counts them.

    Args:
        read: gives as many bytes from an offset; may raise `OSError`.
        lines: how many.
        base: where the log begins.
        end: where it ends.

    Raises:
        OSError: the log cannot be read.
    """
    if lines == 0:
        return end
    # A newline at the very end ends the last line and begins none.
    at = end - 1 if end > base and read(end - 1, 1) == b"\n" else end
    while at > base:
        begin = max(base, at - PIECE)
        data = read(begin, at - begin)
        found = len(data)
        while (found := data.rfind(b"\n", 0, found)) != -1:
            lines -= 1
            if lines == 0:
                return begin + found + 1
        at = begin
    return base
