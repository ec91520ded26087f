"""Say which state a screen shows: the first rule that holds decides, and what every other rule saw can be asked."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kasmos.model.value import frozen
from kasmos.screens.menu import choices_of
from kasmos.screens.regions import Regions
from kasmos.screens.request import read_request
from kasmos.screens.rule import Rule, Ruleset, Seen, look
from kasmos.screens.screen import Screen
from kasmos.screens.verdict import Choice, Composer, Evidence, Meaning, ScreenState, Verdict

NO_RULE = "none"
"""The name in a verdict that no rule made."""
_MOVES = re.compile(r"[\d⠁-⣿]")
_VERSION = re.compile(r"\d+")
_PANE_IS_DEAD = re.compile(r"Pane is dead \((?:status|signal) \d+, .*\)")
_WIDE_DEFAULTS = (ScreenState.DIALOG, ScreenState.LIMIT)


@frozen
class Tried:
    """A rule and what came of it."""

    rule: Rule
    seen: Seen


def detect(screen: Screen, rules: Ruleset) -> Verdict:
    """Say which state a screen shows, and why."""
    regions = Regions(screen, rules.layout)
    version = _version_of(screen, rules)
    numbers = version and tuple(int(number) for number in _VERSION.findall(version))
    ended = _ended(screen)
    if ended is not None:
        return Verdict(ScreenState.EXITED, "terminal-is-dead", (ended,), program_version=version)
    for rule in rules.rules:
        seen = look(rule, regions, numbers or None)
        if seen.held:
            return _verdict(rule, seen, regions, version)
    return Verdict(
        ScreenState.UNKNOWN,
        NO_RULE,
        choices=() if regions.menu is None else choices_of(regions.menu, rules.layout.keys),
        dangerous_default=regions.menu is not None,
        composer=_composer(regions),
        program_version=version,
    )


def examine(screen: Screen, rules: Ruleset) -> tuple[Verdict, tuple[Tried, ...]]:
    """The verdict, and what every rule saw: also those that were not asked because an earlier one held."""
    regions = Regions(screen, rules.layout)
    version = _version_of(screen, rules)
    numbers = tuple(int(number) for number in _VERSION.findall(version or ""))
    tried = tuple(Tried(rule, look(rule, regions, numbers or None)) for rule in rules.rules)
    return detect(screen, rules), tried


def contradictions(verdict: Verdict, tried: Iterable[Tried]) -> tuple[Tried, ...]:
    """The rules that held as well and say something else."""
    return tuple(one for one in tried if one.seen.held and one.rule.state is not verdict.state)


def transcript(screen: Screen, rules: Ruleset) -> tuple[str, ...]:
    """What stands above the live part of a screen, without what moves by itself: numbers and spinners."""
    regions = Regions(screen, rules.layout)
    found = regions.rows(0, regions.transcript_end)
    return () if found is None else tuple(_MOVES.sub("", line) for line in found.lines)


def _ended(screen: Screen) -> Evidence | None:
    if screen.dead:
        return Evidence("terminal", None, "the program has ended")
    if screen.lines and _PANE_IS_DEAD.fullmatch(screen.lines[-1]):
        return Evidence("bottom", len(screen.lines) - 1, screen.lines[-1])
    return None


def _version_of(screen: Screen, rules: Ruleset) -> str | None:
    for line in screen.lines:
        found = rules.layout.version.search(line)
        if found is not None:
            return found[1]
    return None


def _verdict(rule: Rule, seen: Seen, regions: Regions, version: str | None) -> Verdict:
    asks = rule.state in (ScreenState.PERMISSION, ScreenState.QUESTION)
    choices = _choices(rule, regions)
    return Verdict(
        rule.state,
        rule.name,
        seen.evidence,
        request=read_request(rule, regions) if asks else None,
        choices=choices,
        dangerous_default=_is_dangerous(rule.state, choices),
        composer=_composer(regions),
        reset=_reset(rule, regions),
        program_version=version,
    )


def _choices(rule: Rule, regions: Regions) -> tuple[Choice, ...]:
    if regions.menu is not None:
        return choices_of(regions.menu, regions.layout.keys, answers=rule.state is ScreenState.QUESTION)
    return rule.choices if rule.state in (ScreenState.PERMISSION, ScreenState.QUESTION, ScreenState.DIALOG) else ()


def _is_dangerous(state: ScreenState, choices: tuple[Choice, ...]) -> bool:
    if state is ScreenState.QUESTION or not choices:
        return state is ScreenState.DIALOG
    default = next((choice.meaning for choice in choices if choice.selected), None)
    return state in _WIDE_DEFAULTS or default is not Meaning.ALLOW_ONCE


def _composer(regions: Regions) -> Composer | None:
    found = regions.composer
    return None if found is None else Composer(found.draft, found.row)


def _reset(rule: Rule, regions: Regions) -> str | None:
    for pattern in rule.fields.get("reset", ()):
        for name in ("last", "dialog", "footer", "turn"):
            region = regions.get(name)
            found = pattern.search(region.text) if region is not None else None
            if found is not None:
                return " ".join(found[1].split())
    return None
