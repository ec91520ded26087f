"""Find a program's live input and read what is typed in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from kasmos.model.value import frozen
from kasmos.screens.layout import ComposerKind, Layout
from kasmos.screens.screen import Cursor, Screen

_RULE = re.compile(r"[─━▔▁]{8,}(?:$| .* ?[─━▔▁]*$)")
_BOX_TOP = re.compile(r"(\s*)[╭┌]─.*[╮┐]")
_BOX_BOTTOM = re.compile(r"(\s*)[╰└]─.*[╯┘]")
_LOWER_HALVES = re.compile(r"[ ]?▄{8,}")
_UPPER_HALVES = re.compile(r"[ ]?▀{8,}")
_MODE_LINES = 3
_BAR_END = re.compile(r"(\s*)╹▀{4,}")


@frozen
class Input:
    """A live input and the rows it takes."""

    top: int
    """First row of its frame."""
    row: int
    """Row of its first line."""
    bottom: int
    """Row below its frame."""
    shown: str
    """What it shows, hint or draft, without the prompt sign."""
    draft: str | None
    framed: bool

    def has(self, cursor: Cursor) -> bool:
        """Whether the cursor is in it."""
        return self.top <= cursor.row < self.bottom


def find_composer(screen: Screen, layout: Layout) -> Input | None:
    """Find the lowest input of a kind that the program has."""
    found = [one for kind in layout.composer for one in [next(_FINDERS[kind](screen, layout), None)] if one]
    return max(found, key=lambda one: one.bottom, default=None)


def _between(
    opens: Callable[[str], bool], closes: Callable[[str], bool], *, boxed: bool = False, sent: bool = False
) -> Callable[[Screen, Layout], Iterator[Input]]:
    def find(screen: Screen, layout: Layout) -> Iterator[Input]:
        lines = screen.lines
        bottoms = [row for row in range(len(lines) - 1, -1, -1) if closes(lines[row])]
        for bottom in bottoms:
            top = next((row for row in range(bottom - 1, -1, -1) if opens(lines[row])), None)
            if top is None or top + 1 == bottom or (sent and _goes_on(lines[bottom + 1 : bottom + 2], layout)):
                continue
            inner = [_unboxed(line) if boxed else line for line in lines[top + 1 : bottom]]
            if layout.prompt.match(inner[0]):
                yield _made(screen, layout, (top, top + 1, bottom + 1), inner, framed=True)

    return find


def _goes_on(below: Sequence[str], layout: Layout) -> bool:
    """Whether a transcript goes on here: what was sent keeps its frame in it. Right below an input no line is blank."""
    return any(not line or layout.block.search(line) for line in below)


def _unboxed(line: str) -> str:
    inner = line.strip()
    return inner.removeprefix("│").removesuffix("│").rstrip()


def _shelf(screen: Screen, layout: Layout) -> Iterator[Input]:
    lines = screen.lines
    bottom = next((row for row in range(len(lines) - 1, -1, -1) if layout.footer.search(lines[row])), None)
    if bottom is None:
        return
    top = next((row for row in range(bottom - 1, -1, -1) if _RULE.match(lines[row])), bottom)
    row = next(
        (row for row in range(top + 1, min(top + 1 + _MODE_LINES, bottom)) if layout.prompt.match(lines[row])), 0
    )
    if row:
        yield _made(screen, layout, (top, row, bottom), list(lines[row:bottom]), framed=True)


def _bar(screen: Screen, layout: Layout) -> Iterator[Input]:
    lines = screen.lines
    for end in range(len(lines) - 1, -1, -1):
        found = _BAR_END.match(lines[end])
        if found is None:
            continue
        column = len(found[1])
        top = end
        while top > 0 and lines[top - 1][column : column + 1] == "┃" and not lines[top - 1][:column].strip():
            top -= 1
        inner = [line[column + 1 :] for line in lines[top:end]]
        # The last line names the agent and its model; a blank one is above it.
        text = [line for line in inner[:-1] if line.strip()]
        row = next((top + at for at, line in enumerate(inner[:-1]) if line.strip()), top)
        yield _made(screen, layout, (top, row, end + 1), text or [""], framed=True)


def _prompt(screen: Screen, layout: Layout) -> Iterator[Input]:
    lines = screen.lines
    for row in range(len(lines) - 1, -1, -1):
        if not layout.prompt.match(lines[row]):
            continue
        end = next((at for at in range(row + 1, len(lines)) if layout.footer.search(lines[at])), None)
        if end is None:
            return
        yield _made(screen, layout, (row, row, end), list(lines[row:end]), framed=False)
        return


def _last(screen: Screen, layout: Layout) -> Iterator[Input]:
    lines = screen.lines
    if lines and layout.prompt.match(lines[-1]):
        row = len(lines) - 1
        yield _made(screen, layout, (row, row, row + 1), [lines[row]], framed=False)


def _made(screen: Screen, layout: Layout, rows: tuple[int, int, int], inner: Sequence[str], *, framed: bool) -> Input:
    top, row, bottom = rows
    found = layout.prompt.match(inner[0])
    sign = found[0] if found is not None else ""
    first = inner[0][len(sign) :].strip()
    rest = [line[len(sign) :] if not line[: len(sign)].strip() else line for line in inner[1:]]
    shown = "\n".join([first, *rest]).rstrip()
    # A sign other than the usual one is a mode that was typed: a prompt would be run as a command in it.
    mode = sign.strip() if sign.strip() in ("!", "#", "&") else ""
    draft = shown
    if first and (layout.placeholder.match(shown) or screen.is_faint(row, skip=2) or _is_ghost(screen, row, first)):
        draft = ""
    return Input(top, row, bottom, shown, f"{mode}{' ' if mode and draft else ''}{draft}" or None, framed)


def _is_ghost(screen: Screen, row: int, first: str) -> bool:
    """Whether the cursor stands before all that is shown: a suggestion, for who types stands behind it."""
    cursor = screen.cursor
    if cursor is None or cursor.row != row:
        return False
    return cursor.column <= screen.lines[row].find(first)


_FINDERS: dict[ComposerKind, Callable[[Screen, Layout], Iterator[Input]]] = {
    ComposerKind.RULES: _between(lambda line: bool(_RULE.match(line)), lambda line: bool(_RULE.match(line))),
    ComposerKind.BOX: _between(
        lambda line: bool(_BOX_TOP.match(line)), lambda line: bool(_BOX_BOTTOM.match(line)), boxed=True
    ),
    ComposerKind.HALVES: _between(
        lambda line: bool(_LOWER_HALVES.match(line)), lambda line: bool(_UPPER_HALVES.match(line)), sent=True
    ),
    ComposerKind.SHELF: _shelf,
    ComposerKind.BAR: _bar,
    ComposerKind.PROMPT: _prompt,
    ComposerKind.LAST: _last,
}
