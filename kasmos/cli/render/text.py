"""Words and glyphs for people, made safe to show. Pure.

Whatever an agent, a plan or a path brings along, what leaves this room neither moves a cursor,
nor changes a colour, nor pretends to be another line.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Mapping, Sequence

from kasmos.model.value import frozen

_SEQUENCES = re.compile(
    r"""
      (?:\x1b\[|\x9b) [0-?]* [ -/]* [@-~]?          # CSI: colours, cursor
    | (?:\x1b\]|\x9d) [^\x07\x1b\x9c\n]* (?:\x07|\x1b\\|\x9c)?   # OSC: titles, links, clipboard
    | (?:\x1b[PX^_]|[\x90\x98\x9e\x9f]) [^\x1b\x9c\n]* (?:\x1b\\|\x9c)?  # DCS, SOS, PM, APC
    | \x1b [ -/]* [0-~]?                            # all others
    """,
    re.VERBOSE,
)
_TAB = 8
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: str) -> str:
    """One line of *text* as it may be shown: no escape sequences, controls as `\\x07`, tabs as spaces.

    Of a line that was redrawn with carriage returns, what was drawn last remains. Newlines become
    spaces. Marks that reorder text are escaped: a shown line reads as it is stored.
    """
    text = _SEQUENCES.sub("", text).rstrip("\r\n")
    text = text.rpartition("\r")[2].replace("\n", " ").expandtabs(_TAB)
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_safe, text))


def _safe(char: str) -> str:
    if char in _BIDI or unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs"):
        code = ord(char)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return char


def clean_lines(text: str, last: int) -> list[str]:
    """The *last* lines of *text* as they may be shown, without empty ones around them."""
    lines = [clean(line).rstrip() for line in text.split("\n")[-4 * last :]]
    while lines and not lines[-1]:
        lines.pop()
    lines = lines[-last:]
    while lines and not lines[0]:
        lines.pop(0)
    return lines


def last_line(text: str) -> str:
    """The last line of *text* that shows anything."""
    return next((shown for line in reversed(text.split("\n")) if (shown := clean(line).strip())), "")


def duration(seconds: float | None) -> str:
    """A length of time: `0.4s`, `12s`, `1m 05s`, `2h 03m`, `3d 04h`; a dash where it is unknown."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    minutes = whole // 60
    if minutes < 24 * 60:
        return f"{minutes // 60}h {minutes % 60:02}m"
    return f"{minutes // 1440}d {minutes % 1440 // 60:02}h"


def clock(seconds: float | None) -> str:
    """A running length of time: `0:07`, `1:02:03`."""
    whole = int(max(0.0, seconds or 0.0))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def local_time(at: float) -> str:
    """The time of day, here."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def local_moment(at: float) -> str:
    """Day and time, here."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def plural(count: int, word: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


# --- how wide things are ----------------------------------------------------------


def cells(text: str) -> int:
    """How many cells of a screen one line of *text* takes: signs of some scripts take two, others none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def shorten(text: str, width: int, sign: str = "...") -> str:
    """*text*, cut to *width* cells with a sign that it was."""
    if cells(text) <= width:
        return text
    from rich.cells import set_cell_size

    room = width - cells(sign)
    return f"{set_cell_size(text, room).rstrip()}{sign}" if room > 0 else set_cell_size(sign, max(0, width))


def pad(text: str, width: int) -> str:
    """*text* with spaces after it, up to *width* cells."""
    return text + " " * (width - cells(text))


def wrap(text: str, width: int) -> list[str]:
    """*text* as lines of at most *width* cells, broken between words where it can be."""
    from rich.cells import chop_cells

    lines: list[str] = []
    # One sign of two cells has to fit, or there would be no end.
    for piece in (piece for word in text.split() for piece in chop_cells(word, max(2, width))):
        if lines and cells(lines[-1]) + 1 + cells(piece) <= width:
            lines[-1] = f"{lines[-1]} {piece}"
        else:
            lines.append(piece)
    return lines


# --- how things look --------------------------------------------------------------

STYLES: Mapping[str, str] = {
    "succeeded": "green",
    "running": "cyan",
    "starting": "cyan",
    "stopping": "yellow",
    "failed": "red",
    "timed_out": "red",
    "lost": "red",
    "start_failed": "red",
    "cancelled": "yellow",
    "interrupted": "yellow",
    "waiting": "yellow",
    "skipped": "dim",
    "queued": "dim",
}
"""Colour of each status word."""

_CODES = {"green": "32", "red": "31", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}

_GLYPHS = {
    "succeeded": "✓",
    "failed": "✗",
    "timed_out": "✗",
    "lost": "?",
    "cancelled": "■",
    "skipped": "-",
    "running": "●",
    "waiting": "↻",
    "queued": "·",
    "interrupted": "■",
}
_PLAIN_GLYPHS = {**_GLYPHS, "succeeded": "+", "failed": "x", "timed_out": "x", "cancelled": "#"} | {
    "running": ">",
    "waiting": "~",
    "queued": ".",
    "interrupted": "#",
}


@frozen
class Look:
    """What the place where text is shown can show."""

    color: bool = False
    unicode: bool = True

    def paint(self, text: str, style: str | None) -> str:
        """*text* in a style, where there are colours."""
        if not self.color or not text or style is None:
            return text
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m"

    def status(self, word: str, shown: str | None = None) -> str:
        """*shown* (or the status word itself) in the colour of that status."""
        return self.paint(word if shown is None else shown, STYLES.get(word))

    @property
    def cut(self) -> str:
        """The sign that something was cut here."""
        return "…" if self.unicode else "..."

    def glyph(self, word: str) -> str:
        """The sign of a status word."""
        return (_GLYPHS if self.unicode else _PLAIN_GLYPHS).get(word, " ")


def look_of(environ: Mapping[str, str], encoding: str | None, *, is_terminal: bool) -> Look:
    """How to show things: `NO_COLOR` and `FORCE_COLOR` count, then whether it is a terminal."""
    dumb = environ.get("TERM", "") in ("", "dumb")
    forced = environ.get("FORCE_COLOR", "") not in ("", "0")
    color = not environ.get("NO_COLOR") and (forced or (is_terminal and not dumb))
    return Look(color=color, unicode=(encoding or "").lower().replace("-", "").replace("_", "") in ("utf8", "utf8sig"))


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines with the cells of each column one below the other; those named in *right* end together."""
    if not rows:
        return []
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [
            f"{' ' * (width - cells(text))}{text}" if number in right else pad(text, width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines
