"""Read rule files: those shipped with kasmos, and those a project adds. Strict; every mistake at once.

The one module of this room that reads files.
"""

from __future__ import annotations

import difflib
import enum
import functools
import importlib.resources
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs

from kasmos.exceptions import ConfigError, Mistake
from kasmos.screens.layout import ComposerKind, Keys, Layout
from kasmos.screens.pattern import compile_pattern
from kasmos.screens.regions import NAMES
from kasmos.screens.rule import FIELDS, SIGNS, Patterns, Rule, Ruleset
from kasmos.screens.verdict import Choice, Meaning, ScreenState

PROJECT_RULES = ".kasmos/screens"
"""Where a project keeps its rule files, from its directory."""
FORMAT = 1
_FILE_KEYS = ("format", "program", "commands", "disable", "layout", "rule")
_LAYOUT_KEYS = tuple(field.name for field in attrs.fields(Layout))
_GROUPS = {"version": "version", "overlay": "heading"}
_RULE_KEYS = ("name", "state", "versions", "has", "lacks", "every", "some", "none", "fields", "choices")
_CHOICE_KEYS = ("text", "meaning", "keys", "selected", "takes_text")
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_BOUND = re.compile(r"(>=|<)\s*(\d+(?:\.\d+)*)")

_Word = TypeVar("_Word", bound=enum.StrEnum)


def known_programs(directories: Iterable[Path] = ()) -> tuple[str, ...]:
    """The programs there are rules for, by name."""
    added = {path.stem for directory in directories for path in directory.glob("*.toml")}
    return tuple(sorted(added.union(_shipped_texts())))


def program_of(command: str) -> str:
    """The program whose rules fit a command's first word: its name, or `generic`."""
    name = command.rpartition("/")[2].removesuffix(".exe")
    for program in _shipped_texts():
        if name == program or name in load_rules(program).commands:
            return program
    return "generic"


def rules_for(words: Sequence[str], directories: Sequence[Path] = ()) -> Ruleset:
    """Load the rules of the program that a command line runs: its first word that has any, else `generic`.

    Raises:
        ConfigError: as `load_rules`.
    """
    known = known_programs(directories)
    for word in words:
        name = word.rpartition("/")[2]
        if name in known:
            return load_rules(name, directories)
        if (program := program_of(word)) != "generic":
            return load_rules(program, directories)
    return load_rules("generic", directories)


def load_rules(program: str, directories: Sequence[Path] = ()) -> Ruleset:
    """Load the rules of a program: as shipped, then changed by each directory's file of that name.

    A rule of a project replaces the shipped rule of the same name; one with a new name is asked before all others.

    Raises:
        ConfigError: there are no rules for it, or a file has mistakes: every one, with its place.
    """
    files = [(str(path), path) for directory in directories if (path := directory / f"{program}.toml").is_file()]
    shipped = program in _shipped_texts()
    if not shipped and not files:
        known = known_programs(directories)
        raise ConfigError([Mistake(f"program {program}", "has no screen rules", f"known: {', '.join(known)}")])
    rules = _shipped(program) if shipped else None
    mistakes: list[Mistake] = []
    for name, path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            mistakes.append(Mistake(name, f"cannot be read: {error}"))
            continue
        reader = _Reader(name, text)
        rules = reader.read(program, rules)
        mistakes += reader.mistakes
    if mistakes or rules is None:
        raise ConfigError(mistakes)
    return rules


@functools.cache
def _shipped_texts() -> Mapping[str, str]:
    folder = importlib.resources.files("kasmos.screens").joinpath("rules")
    found = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    return {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in found}


@functools.cache
def _shipped(program: str) -> Ruleset:
    reader = _Reader(f"{program}.toml", _shipped_texts()[program])
    rules = reader.read(program, None)
    if reader.mistakes:
        raise ConfigError(reader.mistakes)
    return rules


class _Reader:
    """Reads one file; notes what is wrong and goes on."""

    def __init__(self, name: str, text: str) -> None:
        self.mistakes: list[Mistake] = []
        self._name = name
        self._text = text
        self._line = 1

    def read(self, program: str, base: Ruleset | None) -> Ruleset:
        """Read the file on top of other rules."""
        empty = Ruleset(program, Layout(), ()) if base is None else base
        try:
            table = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            self._wrong("", f"not TOML: {error}")
            return empty
        self._known(table, _FILE_KEYS, "")
        if table.get("format") != FORMAT:
            self._wrong("format", f"must be {FORMAT}", f"format = {FORMAT}")
        if table.get("program") != program:
            self._wrong("program", f'must be "{program}", as the file is called')
        layout = self._layout(table.get("layout", {}), empty.layout)
        commands = self._words(table, "commands") or empty.commands
        heads = [at for at, line in enumerate(self._text.splitlines(), 1) if line.strip() == "[[rule]]"]
        rules = []
        for at, entry in enumerate(self._tables(table, "rule")):
            self._line = heads[at] if at < len(heads) else 1
            rules.append(self._rule(entry))
        self._line = 1
        return Ruleset(program, layout, self._merged(empty.rules, rules, self._words(table, "disable")), commands)

    def _merged(self, base: tuple[Rule, ...], own: list[Rule], disabled: Sequence[str]) -> tuple[Rule, ...]:
        names = [rule.name for rule in own]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            self._wrong("rule", f'two rules are called "{name}"')
        theirs = [rule.name for rule in base]
        for name in disabled:
            if name not in theirs:
                self._wrong("disable", f'there is no rule "{name}"', _guess(name, theirs))
        by_name = {rule.name: rule for rule in own}
        new = tuple(rule for rule in own if rule.name not in theirs)
        return new + tuple(by_name.get(rule.name, rule) for rule in base if rule.name not in disabled)

    def _layout(self, entry: object, base: Layout) -> Layout:
        if not isinstance(entry, dict):
            self._wrong("layout", "must be a table", "write `[layout]`")
            return base
        self._known(entry, _LAYOUT_KEYS, "layout")
        changes: dict[str, Any] = {}
        for key in entry:
            where = f"layout.{key}"
            if key == "composer":
                words = self._words(entry, key, "layout")
                changes[key] = tuple(kind for word in words if (kind := self._word(word, ComposerKind, where)))
            elif key == "keys":
                changes[key] = self._word(entry[key], Keys, where) or base.keys
            elif key == "enter_gap":
                gap = entry[key]
                if not isinstance(gap, int | float) or isinstance(gap, bool) or not 0 <= gap <= 10:
                    self._wrong(where, "must be seconds, from 0 to 10", "enter_gap = 0.2")
                else:
                    changes[key] = float(gap)
            elif key == "selector":
                changes[key] = self._string(entry, key, "layout", empty=True)
            elif key in _LAYOUT_KEYS:
                pattern = self._pattern(entry[key], where)
                if pattern is not None:
                    changes[key] = pattern
                    if key in _GROUPS and not pattern.groups:
                        self._wrong(where, f"must have a group that is the {_GROUPS[key]}")
        return attrs.evolve(base, **changes)

    def _rule(self, entry: dict[str, Any]) -> Rule:
        name = self._string(entry, "name", "rule")
        if not _NAME.fullmatch(name):
            self._wrong("rule.name", f'must be small letters, digits and dashes, not "{name}"')
        where = f'rule "{name}"'
        self._known(entry, _RULE_KEYS, where)
        state = self._word(entry.get("state"), ScreenState, f"{where}.state")
        conditions = {key: self._patterns(entry, key, NAMES, where) for key in ("every", "some", "none")}
        has, lacks = (self._signs(entry, key, where) for key in ("has", "lacks"))
        if not (has or conditions["every"] or conditions["some"]):
            self._wrong(where, "has nothing that must be seen", "give it has, every or some")
        fields = self._patterns(entry, "fields", FIELDS, where)
        for field, patterns in fields.items():
            if any(not pattern.groups for pattern in patterns):
                self._wrong(f"{where}.fields.{field}", "must have a group that is the text")
        return Rule(
            name=name,
            state=state or ScreenState.UNKNOWN,
            has=has,
            lacks=lacks,
            **conditions,
            versions=self._versions(entry, where),
            fields=fields,
            choices=tuple(self._choice(choice, where) for choice in self._tables(entry, "choices", where)),
            source=self._name,
        )

    def _choice(self, entry: dict[str, Any], where: str) -> Choice:
        where = f"{where}.choices"
        self._known(entry, _CHOICE_KEYS, where)
        flags = {key: entry.get(key, False) for key in ("selected", "takes_text")}
        for key, value in flags.items():
            if not isinstance(value, bool):
                self._wrong(f"{where}.{key}", "must be true or false")
        return Choice(
            self._string(entry, "text", where),
            self._word(entry.get("meaning"), Meaning, f"{where}.meaning") or Meaning.OTHER,
            self._words(entry, "keys", where),
            **flags,
        )

    def _versions(self, entry: dict[str, Any], where: str) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        text = entry.get("versions", "")
        bounds: dict[str, tuple[int, ...]] = {}
        for part in text.split(",") if isinstance(text, str) and text.strip() else ():
            found = _BOUND.fullmatch(part.strip())
            if found is None or found[1] in bounds:
                self._wrong(f"{where}.versions", f'cannot be read: "{text}"', 'versions = ">=2.0, <3"')
                break
            bounds[found[1]] = tuple(int(number) for number in found[2].split("."))
        if not isinstance(text, str):
            self._wrong(f"{where}.versions", "must be text", 'versions = ">=2.0, <3"')
        return bounds.get(">="), bounds.get("<")

    def _signs(self, entry: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
        words = self._words(entry, key, where)
        for word in words:
            if word not in SIGNS:
                self._wrong(f"{where}.{key}", f'no sign is called "{word}"', _guess(word, SIGNS))
        return tuple(word for word in words if word in SIGNS)

    def _patterns(self, entry: dict[str, Any], key: str, known: Sequence[str], where: str) -> Patterns:
        table, where = entry.get(key, {}), f"{where}.{key}"
        if not isinstance(table, dict):
            self._wrong(where, "must be a table of patterns by region", f"{key} = {{ footer = '...' }}")
            return {}
        self._known(table, known, where)
        made: dict[str, tuple[re.Pattern[str], ...]] = {}
        for name, value in table.items():
            found = [self._pattern(one, f"{where}.{name}") for one in (value if isinstance(value, list) else [value])]
            made[name] = tuple(pattern for pattern in found if pattern is not None)
        return {name: patterns for name, patterns in made.items() if name in known and patterns}

    def _pattern(self, value: object, where: str) -> re.Pattern[str] | None:
        if not isinstance(value, str) or not value:
            self._wrong(where, "must be a regular expression as text")
            return None
        try:
            return compile_pattern(value)
        except re.error as error:
            self._wrong(where, f"not a regular expression: {error}")
            return None

    def _word(self, value: object, words: type[_Word], where: str) -> _Word | None:
        known = [str(word) for word in words]
        if isinstance(value, str) and value in known:
            return words(value)
        self._wrong(where, f"must be one of {', '.join(known)}", _guess(value, known))
        return None

    def _words(self, entry: dict[str, Any], key: str, where: str = "") -> tuple[str, ...]:
        value = entry.get(key, [])
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            return tuple(value)
        self._wrong(f"{where}.{key}".lstrip("."), "must be a list of words", f'{key} = ["..."]')
        return ()

    def _string(self, entry: dict[str, Any], key: str, where: str, *, empty: bool = False) -> str:
        value = entry.get(key)
        if isinstance(value, str) and (value or empty):
            return value
        self._wrong(f"{where}.{key}", "must be text" if empty else "must be text, and not empty")
        return ""

    def _tables(self, entry: dict[str, Any], key: str, where: str = "") -> list[dict[str, Any]]:
        value = entry.get(key, [])
        if isinstance(value, list) and all(isinstance(one, dict) for one in value):
            return value
        self._wrong(f"{where}.{key}".lstrip("."), "must be an array of tables")
        return []

    def _known(self, entry: Mapping[str, object], known: Sequence[str], where: str) -> None:
        for key in entry:
            if key not in known:
                self._wrong(f"{where}.{key}".lstrip("."), "is not known here", _guess(key, known))

    def _wrong(self, where: str, problem: str, cure: str = "") -> None:
        place = f"{self._name}:{self._line}"
        self.mistakes.append(Mistake(f"{place}: {where}" if where else place, problem, cure))


def _guess(word: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1) if isinstance(word, str) and len(word) < 64 else []
    return f'did you mean "{close[0]}"?' if close else ""
