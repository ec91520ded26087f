"""The last screen of a session that had a terminal: kept in its directory, and shown by tmux's line numbers."""

from __future__ import annotations

import os
import re

from kasmos.sessions import layout

_ESCAPES = re.compile(r"\x1b\[[0-9;:]*m|\x1b\]8;[^\x07\x1b]*(?:\x07|\x1b\\)|[\x0e\x0f]")


def save_screen(directory: str, lines: tuple[str, ...]) -> None:
    """Keep a last screen. Blocks on the disk."""
    while lines and (not lines[-1] or lines[-1].startswith("Pane is dead")):
        # What tmux says about the end of the pane is no part of it.
        lines = lines[:-1]
    write_private(f"{directory}/{layout.SCREEN}", "\n".join(lines).encode("utf-8", "surrogateescape"))


def load_screen(directory: str) -> tuple[str, ...] | None:
    """A last screen, if one was kept. Blocks on the disk."""
    try:
        with open(f"{directory}/{layout.SCREEN}", "rb") as file:
            return tuple(shown(file.read()).split("\n"))
    except OSError:
        return None


def render_range(history: int, lines: tuple[str, ...], start: int | None, end: int | None) -> str:
    """Lines *start* to *end*, both included, as tmux counts: 0 is the first of the screen, negative ones are above."""
    first = max(0, history + (start if start is not None else 0))
    last = len(lines) if end is None else max(0, history + end + 1)
    return "\n".join(lines[first:last])


def shown(line: bytes) -> str:
    """A line of a screen as text, whatever its bytes."""
    return line.decode("utf-8", "replace")


def plain(text: str) -> str:
    """A screen without the escapes by which tmux tells colours and links."""
    return _ESCAPES.sub("", text)


def write_private(path: str, data: bytes) -> None:
    """Write a file that nobody else may read. Blocks on the disk."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
