"""Menus: the live list of options at the bottom of a screen, and what its options mean.

A menu is live only if nothing of the transcript and no input stands below it. What a reply, a diff or a draft quotes
has something below it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from kasmos.model.value import frozen
from kasmos.screens.layout import Keys, Layout
from kasmos.screens.screen import Screen
from kasmos.screens.verdict import Choice, Meaning

_OPTION = re.compile(r"(?P<before>[\s│┃|]*)(?P<selector>\S?)\s*(?P<number>[1-9]\d?)[.)] +(?P<text>\S.*)")
_WIDEST_GAP = 5
"""Lines that an option may have below its first: wrapped text, a description, a divider."""
_MOST_BELOW = 8
_BOX = re.compile(r"\s*[│┃|]")
_EDGE = "│┃| \t"
_INPUT_ENDS = re.compile(r"^\s*╹▀{4}")
_NAMED_KEY = re.compile(r"\((esc|[a-z]|shift\+tab)\)$", re.IGNORECASE)
_DESCRIPTION = re.compile(r"\S {2,}(?=\S)")
_MARGIN = 6
"""Columns that a frame and its padding may take at the right edge."""

_DENY = re.compile(
    r"(no|don[’']?t|do not|deny|reject|cancel|decline|abort|exit|quit|never|refuse|disallow|back)\b", re.I
)
_ALLOW = re.compile(r"(yes|allow|approve|proceed|accept|ok|okay|run|trust|apply|always|grant|permit)\b", re.I)
_ONCE = re.compile(r"\b(once|manually|just this|this time|only this)\b", re.I)
_WIDE = re.compile(
    r"\b(always|don[’']?t ask|do not ask|never ask|stop asking|session|this project|this conversation|all edits|all"
    r"|every|any|auto\w*|bypass\w*|permanent\w*|remember|for these files|commands? that start|workspace|in future"
    r"|from now on|turn off|disable|trust|whole|entire|similar|future|similar commands|yolo|full access)\b",
    re.I,
)
_TURNED_DOWN = re.compile(r"tell \w+ what to (change|do differently)\b", re.I)
"""A no with an explanation. The option opens an input for it; Escape is the no alone."""
_TAKES_TEXT = re.compile(
    r"(type something|type your own|enter a custom|other\b|none of the above|something else)", re.I
)


@frozen
class Option:
    """An option as it stands on the screen."""

    row: int
    column: int
    text: str
    marked: bool


@frozen
class Menu:
    """A live menu: its options and the rows it takes."""

    options: tuple[Option, ...]
    top: int
    """Row of the first option."""
    bottom: int
    """Row below the last line of the last option."""
    boxed: bool
    """It stands in a box: what is below the box is not part of it."""
    buttons: bool = False
    """Its options stand side by side."""


def meaning_of(text: str) -> Meaning:
    """What an option means, by its words."""
    words = text.strip().lstrip("[]✓✔x ").strip()
    if _DENY.match(words) or _TURNED_DOWN.match(words):
        return Meaning.DENY
    if not _ALLOW.match(words):
        return Meaning.OTHER
    if _ONCE.search(words):
        return Meaning.ALLOW_ONCE
    return Meaning.ALLOW_ALWAYS if _WIDE.search(words) else Meaning.ALLOW_ONCE


def find_menu(screen: Screen, layout: Layout) -> Menu | None:
    """Find the live menu: the lowest one, if what stands below it does not end it."""
    return _find_buttons(screen, layout) or _find_list(screen, layout)


def _find_buttons(screen: Screen, layout: Layout) -> Menu | None:
    lines = screen.lines
    row = next((row for row in range(len(lines) - 1, -1, -1) if layout.buttons.search(lines[row])), None)
    if row is None or any(_INPUT_ENDS.search(line) for line in lines[row + 1 :]):
        return None
    found = layout.buttons.search(lines[row])
    assert found is not None
    starts = [found.start(group) for group in range(1, 1 + len(found.groups())) if found[group]]
    styles = screen.styles_of(row)
    grounds = [styles[start].background if start < len(styles) else "" for start in starts]
    texts = [text for text in found.groups() if text]
    options = tuple(
        Option(row, start, text, marked=grounds.count(ground) == 1 < len(grounds))
        for start, text, ground in zip(starts, texts, grounds, strict=True)
    )
    # Two buttons of two colours: either may be the chosen one.
    if sum(option.marked for option in options) != 1:
        options = tuple(attrs.evolve(option, marked=False) for option in options)
    return Menu(options, row, row + 1, boxed=False, buttons=True)


def _find_list(screen: Screen, layout: Layout) -> Menu | None:
    options: list[Option] = []
    lines = screen.lines
    awaited: int | None = None
    for row in range(len(lines) - 1, -1, -1):
        found = _OPTION.match(lines[row])
        if found is None or (found["selector"] and found["selector"] not in layout.selector):
            if (options and options[-1].row - row > _WIDEST_GAP) or (not options and _is_above(lines, row, layout)):
                return None
            continue
        number = int(found["number"])
        if awaited is not None and number != awaited:
            continue
        options.append(Option(row, found.start("number"), found["text"].rstrip(_EDGE), marked=bool(found["selector"])))
        awaited = number - 1
        if not awaited:
            break
    if awaited != 0 or len(options) < 2 or sum(option.marked for option in options) != bool(layout.selector):
        return None
    return _bounded(screen, layout, tuple(reversed(options)))


def _is_above(lines: Sequence[str], row: int, layout: Layout) -> bool:
    """Whether no live menu can begin above this row: a transcript goes on here, or there is too much below."""
    if layout.block.search(lines[row]) or layout.user.search(lines[row]):
        return True
    return sum(1 for line in lines[row:] if line.strip(_EDGE)) > 3 * _MOST_BELOW


def _bounded(screen: Screen, layout: Layout, options: tuple[Option, ...]) -> Menu | None:
    lines, last = screen.lines, options[-1]
    boxed = bool(_BOX.match(lines[last.row]))
    bottom = last.row + 1
    if boxed:
        edge = len(lines[last.row]) - len(lines[last.row].lstrip())
        while bottom < len(lines) and lines[bottom][edge : edge + 1] in "│┃|" and lines[bottom].strip():
            bottom += 1
        below = [line for line in lines[bottom + 1 :] if line.strip()]
        if not all(layout.below.search(line) for line in below):
            return None
    else:
        while bottom < len(lines) and lines[bottom].strip() and _indent(lines[bottom]) >= last.column + 2:
            bottom += 1
        below = [line for line in lines[bottom:] if line.strip()]
        if len(below) > _MOST_BELOW or any(layout.block.search(line) or layout.user.search(line) for line in below):
            return None
    width = max(map(len, lines))
    ends = [*(option.row for option in options[1:]), len(lines)]
    whole = tuple(_with_rest(lines, option, end, width) for option, end in zip(options, ends, strict=True))
    return Menu(whole, options[0].row, last.row + 1 if boxed else bottom, boxed)


def _with_rest(lines: Sequence[str], option: Option, end: int, width: int) -> Option:
    """Join the lines over which an option is wrapped: its words would not have fitted. A description would have."""
    text = _DESCRIPTION.split(option.text, maxsplit=1)
    if len(text) > 1:
        return attrs.evolve(option, text=option.text[: len(text[0]) + 1].rstrip())
    start = lines[option.row].index(option.text, option.column)
    words = [option.text]
    for row in range(option.row + 1, end):
        line = lines[row].rstrip(_EDGE)
        inner = line[start:] if not line[:start].strip(_EDGE) else ""
        if not inner or inner.startswith(" ") or start + len(words[-1]) + 1 + len(inner.split()[0]) <= width - _MARGIN:
            break
        words.append(inner)
    return attrs.evolve(option, text=" ".join(words))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def choices_of(menu: Menu, keys: Keys, *, answers: bool = False) -> tuple[Choice, ...]:
    """Turn the options of a menu into choices.

    Args:
        menu: the live menu.
        keys: how the program takes a choice.
        answers: the options answer a question: yes and no are words like others in them, and arrows choose.
    """
    marked = next((at for at, option in enumerate(menu.options) if option.marked), None)
    made = []
    for at, option in enumerate(menu.options):
        meaning = Meaning.OTHER if answers else meaning_of(option.text)
        text = option.text
        if menu.buttons:
            pressed = ("Escape",) if meaning is Meaning.DENY else _along(at - (marked or 0), "Right", "Left")
        elif not answers and _TURNED_DOWN.match(text):
            pressed = ("Escape",)
        elif answers or keys is Keys.ARROWS:
            pressed = _along(at - (marked or 0), "Down", "Up")
        else:
            pressed = _named(text) if keys is Keys.LETTER else ()
            pressed = pressed or ((str(at + 1),) if at < 9 else ())
        takes_text = answers and bool(_TAKES_TEXT.match(text))
        made.append(Choice(text, meaning, pressed, option.marked, takes_text))
    return tuple(made)


def _along(steps: int, forward: str, back: str) -> tuple[str, ...]:
    return (*[forward if steps > 0 else back] * abs(steps), "Enter")


def _named(text: str) -> tuple[str, ...]:
    found = _NAMED_KEY.search(text)
    if found is None:
        return ()
    return ({"esc": "Escape", "shift+tab": "BTab"}.get(found[1].lower(), found[1]),)
