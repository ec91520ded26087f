"""A screen as a value: the visible lines of a terminal and what the terminal says beside them.

Colours are looked at for two things only, and only if the capture has them: faint text is a hint and not a draft,
and a button is chosen by its background.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kasmos.model.value import frozen

_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|[\x00-\x08\x0b-\x1f\x7f]"
)
_SGR = re.compile(r"\x1b\[([0-9;:]*)m")


@frozen
class Cursor:
    """Where the terminal's cursor is; counted from 0."""

    row: int
    column: int
    visible: bool


@frozen
class Style:
    """How one character is drawn, as far as it matters."""

    faint: bool = False
    background: str = ""


@frozen
class Screen:
    """The visible part of a terminal. Blank lines at the end do not matter."""

    lines: tuple[str, ...]
    """Plain text, without blanks at the ends of lines and without blank lines at the end."""
    title: str | None = None
    """The title the program has set; None if it is not known."""
    cursor: Cursor | None = None
    alternate: bool | None = None
    dead: bool = False
    """The program has ended and the terminal stands."""
    raw: str | None = None
    """The capture with its escapes, if it had any."""
    width: int | None = None
    """Columns of the terminal; None if it is not known."""

    @classmethod
    def from_text(
        cls,
        text: str,
        *,
        title: str | None = None,
        cursor: Cursor | None = None,
        alternate: bool | None = None,
        dead: bool = False,
        width: int | None = None,
    ) -> Screen:
        """Take a capture, with or without escapes, as `tmux capture-pane` prints it."""
        lines = [line.rstrip() for line in _ESCAPE.sub("", text).replace("\xa0", " ").split("\n")]
        while lines and not lines[-1]:
            lines.pop()
        title = None if title is None else title.strip()
        return cls(tuple(lines), title or None, cursor, alternate, dead, text if "\x1b" in text else None, width)

    @classmethod
    def from_meta(cls, text: str, meta: Mapping[str, object]) -> Screen:
        """Take a capture and what was recorded beside it.

        That is `title`, `cursor` as "X,Y", `cursor_visible`, `dead`, `width`.
        """
        title = meta.get("title")
        column, _, row = str(meta.get("cursor", "")).partition(",")
        at = (int(row), int(column)) if column.isdecimal() and row.isdecimal() else None
        alternate, width = meta.get("alternate_on"), str(meta.get("width", ""))
        return cls.from_text(
            text,
            title=title if isinstance(title, str) else None,
            cursor=Cursor(*at, visible=_is_on(meta.get("cursor_visible"))) if at is not None else None,
            alternate=None if alternate is None else _is_on(alternate),
            dead=_is_on(meta.get("dead")),
            width=int(width) if width.isdecimal() and int(width) else None,
        )

    def styles_of(self, row: int) -> tuple[Style, ...]:
        """How each character of a line is drawn; empty for a capture without escapes."""
        if self.raw is None:
            return ()
        lines = self.raw.split("\n", row + 1)
        return _styles(lines[row], _carried("\n".join(lines[:row]))) if row < len(lines) else ()

    def is_faint(self, row: int, skip: int = 0) -> bool:
        """Whether all that a line shows, but for its first characters, is faint. False if it cannot be told."""
        drawn = zip(self.lines[row], self.styles_of(row), strict=False)
        shown = [style for char, style in drawn if char != " "][skip:]
        return bool(shown) and all(style.faint for style in shown)


def _is_on(value: object) -> bool:
    return value is True or str(value).lower() in ("1", "true", "yes")


_Pen = tuple[bool, str]
"""Faint, background: tmux carries them over the ends of lines."""
_NEW_PEN: _Pen = (False, "")


def _carried(raw: str) -> _Pen:
    """With what pen the line below a text begins."""
    pen = _NEW_PEN
    for codes in _SGR.findall(raw, max(raw.rfind("\x1b[0m"), raw.rfind("\x1b[m"), 0)):
        pen = _apply(codes, *pen)
    return pen


def _styles(line: str, pen: _Pen) -> tuple[Style, ...]:
    styles: list[Style] = []
    position = 0
    for found in _ESCAPE.finditer(line):
        styles += [Style(*pen)] * (found.start() - position)
        position = found.end()
        sgr = _SGR.fullmatch(found[0])
        if sgr is not None:
            pen = _apply(sgr[1], *pen)
    return (*styles, *[Style(*pen)] * (len(line) - position))


def _apply(codes: str, faint: bool, background: str) -> _Pen:
    parts = iter(codes.replace(":", ";").split(";"))
    for part in parts:
        if part in ("", "0"):
            faint, background = False, ""
        elif part in ("2", "22"):
            faint = part == "2"
        elif part in ("38", "48"):
            colour = _colour(parts)
            background = ";".join(colour) if part == "48" else background
        elif part == "49" or (len(part) == 2 and part[0] == "4" and part[1] in "01234567"):
            background = "" if part == "49" else part
    return faint, background


def _colour(parts: Iterator[str]) -> list[str]:
    kind = next(parts, "")
    return [kind, *(next(parts, "") for _ in range({"2": 3, "5": 1}.get(kind, 0)))]
