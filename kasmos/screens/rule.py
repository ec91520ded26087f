"""A rule: what must and must not be seen, and what it says then. And whether a screen shows it."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Mapping

import attrs

from kasmos.model.value import frozen
from kasmos.screens.layout import Layout
from kasmos.screens.menu import meaning_of
from kasmos.screens.regions import Region, Regions
from kasmos.screens.verdict import Choice, Evidence, Meaning, ScreenState

FIELDS = ("question", "tool", "command", "path", "reset", "call", "change")
"""What a rule can read: the parts of a request; when a limit ends; the command, and the change of files that is asked
for, as the transcript shows them."""

Patterns = Mapping[str, tuple[re.Pattern[str], ...]]
"""By region; within a region one match is enough."""


@frozen
class Rule:
    """One rule. All its conditions must hold; the first rule of a program that holds decides."""

    name: str
    state: ScreenState
    has: tuple[str, ...] = ()
    """Signs that must be there; see `SIGNS`."""
    lacks: tuple[str, ...] = ()
    """Signs that must not be there."""
    every: Patterns = attrs.field(factory=dict)
    """Every region must match."""
    some: Patterns = attrs.field(factory=dict)
    """At least one region must match."""
    none: Patterns = attrs.field(factory=dict)
    """No region may match."""
    versions: tuple[tuple[int, ...] | None, tuple[int, ...] | None] = (None, None)
    """The first version it holds for, and the first it does not; None: no bound."""
    fields: Mapping[str, tuple[re.Pattern[str], ...]] = attrs.field(factory=dict)
    """By one of `FIELDS`: the first group of the first pattern that matches."""
    choices: tuple[Choice, ...] = ()
    """For what is asked without a menu: the answers that can be typed."""
    source: str = ""
    """The file it comes from."""


@frozen
class Ruleset:
    """The rules of one program, in the order in which they are asked."""

    program: str
    layout: Layout
    rules: tuple[Rule, ...]
    commands: tuple[str, ...] = ()
    """Further names by which the program is started."""


@frozen
class Seen:
    """Whether a rule held, what it saw, and what it missed."""

    held: bool
    evidence: tuple[Evidence, ...] = ()
    missed: str = ""
    """The first condition that did not hold."""


def _meanings(regions: Regions) -> set[Meaning]:
    return set() if regions.menu is None else {meaning_of(option.text) for option in regions.menu.options}


def _cursor_on_last(regions: Regions) -> bool:
    cursor, lines = regions.screen.cursor, regions.screen.lines
    return cursor is not None and cursor.visible and cursor.row >= len(lines) - 1


def _cursor_below(regions: Regions) -> bool:
    cursor, lines = regions.screen.cursor, regions.screen.lines
    return cursor is not None and cursor.row > len(lines) - 1


def _cursor_off_input(regions: Regions) -> bool:
    cursor, composer = regions.screen.cursor, regions.composer
    return cursor is not None and composer is not None and not composer.has(cursor)


def _title_names_directory(regions: Regions) -> bool:
    title, footer = regions.screen.title, regions.get("footer")
    return title is not None and footer is not None and bool(re.search(rf"/{re.escape(title)}(?!\S)", footer.text))


SIGNS: Mapping[str, Callable[[Regions], bool]] = {
    "dead": lambda regions: regions.screen.dead,
    "composer": lambda regions: regions.composer is not None,
    "footer": lambda regions: regions.get("footer") is not None,
    "draft": lambda regions: regions.composer is not None and regions.composer.draft is not None,
    "dialog": lambda regions: regions.menu is not None,
    "buttons": lambda regions: regions.menu is not None and regions.menu.buttons,
    "title": lambda regions: regions.screen.title is not None,
    "prompt-in-turn": lambda regions: bool(
        regions.turn_start or (regions.screen.lines and regions.layout.user.search(regions.screen.lines[0]))
    ),
    "allow": lambda regions: bool(_meanings(regions) & {Meaning.ALLOW_ONCE, Meaning.ALLOW_ALWAYS}),
    "allow-once": lambda regions: Meaning.ALLOW_ONCE in _meanings(regions),
    "deny": lambda regions: Meaning.DENY in _meanings(regions),
    "title-is-directory": _title_names_directory,
    "cursor-visible": lambda regions: regions.screen.cursor is not None and regions.screen.cursor.visible,
    "cursor-hidden": lambda regions: regions.screen.cursor is not None and not regions.screen.cursor.visible,
    "cursor-on-last-line": _cursor_on_last,
    "cursor-below": _cursor_below,
    "cursor-off-input": _cursor_off_input,
    "overlay": lambda regions: regions.overlay is not None,
    "blank": lambda regions: not regions.screen.lines,
}
"""What can be asked of a screen beside patterns."""


def look(rule: Rule, regions: Regions, version: tuple[int, ...] | None) -> Seen:
    """Look whether a rule holds for a screen."""
    first, beyond = rule.versions
    if version is not None and ((first and version < first) or (beyond and version >= beyond)):
        return Seen(held=False, missed=f"not for version {'.'.join(map(str, version))}")
    evidence: list[Evidence] = []
    for sign in rule.has:
        if not SIGNS[sign](regions):
            return Seen(held=False, evidence=tuple(evidence), missed=f"no {sign}")
    for sign in rule.lacks:
        if SIGNS[sign](regions):
            return Seen(held=False, evidence=tuple(evidence), missed=f"there is {sign}")
    for name, patterns in rule.none.items():
        found = _search(regions.get(name), name, patterns)
        if found is not None:
            return Seen(held=False, evidence=(*evidence, found), missed=f"{name} must not show this")
    for name, patterns in rule.every.items():
        found = _search(regions.get(name), name, patterns)
        if found is None:
            return Seen(held=False, evidence=tuple(evidence), missed=f"{name} does not show what it must")
        evidence.append(found)
    if rule.some:
        seen = [found for name, patterns in rule.some.items() if (found := _search(regions.get(name), name, patterns))]
        if not seen:
            return Seen(held=False, evidence=tuple(evidence), missed=f"nothing seen in {' or '.join(rule.some)}")
        evidence += seen
    evidence += [Evidence(sign, None, _told(sign, regions)) for sign in rule.has]
    return Seen(held=True, evidence=tuple(evidence))


def _told(sign: str, regions: Regions) -> str:
    if sign == "composer" and regions.composer is not None:
        return regions.screen.lines[regions.composer.row].strip()
    if sign in ("allow", "allow-once", "deny") and regions.menu is not None:
        wanted = (Meaning.DENY,) if sign == "deny" else (Meaning.ALLOW_ONCE, Meaning.ALLOW_ALWAYS)
        return next(option.text for option in regions.menu.options if meaning_of(option.text) in wanted)
    if sign == "dialog" and regions.menu is not None:
        return f"{len(regions.menu.options)} options"
    if sign == "overlay" and regions.overlay is not None:
        return regions.overlay.heading
    if sign == "title" and regions.screen.title is not None:
        return regions.screen.title
    return "yes"


def _search(region: Region | None, name: str, patterns: tuple[re.Pattern[str], ...]) -> Evidence | None:
    if region is None:
        return None
    text = region.text
    for pattern in patterns:
        found = pattern.search(text)
        if found is not None:
            if not region.rows:
                return Evidence(name, None, text)
            # An input is one row here, whatever stands in it.
            at = line_of(text, found.start() + len(found[0]) - len(found[0].lstrip()))
            return Evidence(name, region.rows[min(at, len(region.rows) - 1)], text.split("\n")[at].strip())
    return None


def line_of(text: str, position: int) -> int:
    """Number of the line, from 0, in which a position of a text is."""
    ends = [at for at, char in enumerate(text) if char == "\n"]
    return bisect.bisect_left(ends, position)
