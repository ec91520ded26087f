"""One layer of a configuration (a file, the variables, the flags) to settings by path, with every mistake noted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from kasmos.config.keys import AGENT, KEYS, Key, Path, Table
from kasmos.config.kinds import WrongValueError
from kasmos.config.lookup import BY_PATH, TABLE_BY_PATH, children, pattern_of, render_path
from kasmos.config.messages import show
from kasmos.config.origin import Origin, OriginKind, Setting
from kasmos.exceptions import Mistake
from kasmos.model.value import define
from kasmos.model.wording import did_you_mean, name_kind

FOREIGN_VARIABLES = (
    "KASMOS_SESSION_ID", "KASMOS_MANAGED", "KASMOS_PROJECT", "KASMOS_TASK", "KASMOS_WAVE", "KASMOS_PEERS",
    "KASMOS_ANCESTORS", "KASMOS_FAILPOINTS", "KASMOS_CONTEXT", "KASMOS_PYTHON",
)  # fmt: skip
"""Variables of running sessions, scripts and tests: no part of the configuration."""


@define(eq=False)
class Findings:
    """What was noted while layers were read; reading goes on after each."""

    mistakes: list[Mistake] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)
    agents: dict[str, Origin] = attrs.field(factory=dict)
    """Where each agent is spoken of last, whatever is said of it."""
    failed: dict[Path, list[Mistake]] = attrs.field(factory=dict)
    """Keys that were said, but not rightly: that they are missing is no second mistake."""

    def mistake(self, origin: Origin, path: Path, problem: str, cure: str = "", suffix: str = "") -> None:
        """Note something that must be put right."""
        found = Mistake(place_of(origin, path) + suffix, problem, cure)
        self.failed.setdefault(path, []).append(found)
        self.mistakes.append(found)

    def warn(self, origin: Origin, path: Path, problem: str) -> None:
        """Note something that is allowed but hardly meant."""
        self.warnings.append(f"{place_of(origin, path)} {problem}")


def place_of(origin: Origin, path: Path) -> str:
    """Say where: `FILE:LINE: key.path`, or the variable or flag."""
    if origin.kind in (OriginKind.VARIABLE, OriginKind.FLAG):
        return origin.name
    return f"{origin}: {render_path(path)}"


Settings = dict[Path, Setting]


def read_table(values: Mapping[str, Any], locate: Callable[[Path], Origin], findings: Findings) -> Settings:
    """Read a parsed document, strictly.

    Args:
        values: what the TOML text holds.
        locate: says where a key stands.
        findings: where every mistake is noted, in document order.
    """
    reader = _TableReader(locate, findings)
    reader.table(TABLE_BY_PATH[()], (), values)
    return {**reader.moved, **reader.settings}


@define(eq=False)
class _TableReader:
    locate: Callable[[Path], Origin]
    findings: Findings
    settings: Settings = attrs.field(factory=dict)
    moved: Settings = attrs.field(factory=dict)

    def table(self, table: Table, path: Path, values: Mapping[str, Any]) -> None:
        known = children(table.path)
        for name in sorted(values, key=lambda name: self.locate((*path, name)).line or 0):
            here = (*path, name)
            entry = self._entry(table, known, here)
            if isinstance(entry, Key):
                self._key(entry, here, values[name])
            elif entry is not None:
                self._sub_table(entry, here, values[name])

    def _entry(self, table: Table, known: Mapping[str, Key | Table], path: Path) -> Key | Table | None:
        name = path[-1]
        if name in known and name != "*":
            return known[name]
        if "*" not in known:
            cure = _where_it_belongs(name, table.path, known)
            self.findings.mistake(
                self.locate(path), path, "unknown key" if table.path else "unknown table or key", cure
            )
            return None
        try:
            if table.name_rule is not None:
                table.name_rule.read(name)
        except WrongValueError as error:
            for problem in error.problems:
                self.findings.mistake(self.locate(path), path, f"the name {problem.problem}", problem.cure)
            return None
        return known["*"]

    def _sub_table(self, table: Table, path: Path, value: object) -> None:
        if table.path == AGENT:
            self.findings.agents[path[-1]] = self.locate(path)
        if isinstance(value, Mapping):
            self.table(table, path, value)
        elif table.short:
            short = (*path, table.short)
            self._key(BY_PATH[(*table.path, table.short)], short, value, said_at=path)
        else:
            self.findings.mistake(
                self.locate(path), path, f"must be a table, not {name_kind(value)}", f"write [{render_path(path)}]"
            )

    def _key(self, key: Key, path: Path, value: object, said_at: Path = ()) -> None:
        said_at = said_at or path
        origin = self.locate(said_at)
        setting = _read_key(key, said_at, value, origin, self.findings)
        if setting is None:
            return
        if key.former:
            self.findings.warn(origin, path, key.former)
            if key.moved_to:
                self.moved[key.moved_to] = setting
        else:
            self.settings[path] = setting


def read_variables(environ: Mapping[str, str], findings: Findings) -> Settings:
    """Read the variables that set keys. An empty one is as good as none."""
    settings: Settings = {}
    known = {key.variable: key for key in KEYS if key.variable}
    for name, key in known.items():
        if text := environ.get(name, ""):
            setting = _read_text(key, key.path, text, Origin(OriginKind.VARIABLE, name), findings)
            if setting is not None:
                settings[key.path] = setting
    for name in sorted(environ):
        if not name.startswith("KASMOS_") or name in known or name in FOREIGN_VARIABLES:
            continue
        # Others may have variables of that prefix, so this is no mistake.
        if guess := did_you_mean(name, known, cutoff=0.9):
            findings.warnings.append(f"the variable {name} sets nothing: {guess}")
    return settings


def read_flags(flags: Mapping[str, object], findings: Findings) -> Settings:
    """Read flags by key path. A text is read as a variable's would be; None is as good as none."""
    settings: Settings = {}
    for dotted, value in flags.items():
        path = tuple(dotted.split("."))
        pattern = pattern_of(path)
        key = None if pattern is None else BY_PATH[pattern]
        if key is None or key.former:
            cure = did_you_mean(dotted, [".".join(key.path) for key in KEYS if not key.former])
            findings.mistake(Origin(OriginKind.FLAG, f"flag {show(dotted)}"), path, "unknown key", cure)
        elif value is not None:
            origin = Origin(OriginKind.FLAG, key.flag or dotted)
            read = _read_text if isinstance(value, str) else _read_key
            setting = read(key, path, value, origin, findings)  # type: ignore[arg-type]  # the kind was asked for
            if setting is not None:
                settings[path] = setting
    return settings


def read_built_in(values: Mapping[Path, object]) -> Settings:
    """What is said before any file is read."""
    settings: Settings = {}
    for path, value in values.items():
        pattern = pattern_of(path)
        assert pattern is not None
        settings[path] = Setting(BY_PATH[pattern].kind.read(value), value, Origin())
    return settings


def _read_text(key: Key, path: Path, text: str, origin: Origin, findings: Findings) -> Setting | None:
    return _read_key(key, path, key.kind.from_text(text), origin, findings)


def _read_key(key: Key, path: Path, value: object, origin: Origin, findings: Findings) -> Setting | None:
    try:
        return Setting(key.kind.read(value), value, origin)
    except WrongValueError as error:
        for problem in error.problems:
            findings.mistake(origin, path, problem.problem, problem.cure, problem.suffix)
        return None


def _where_it_belongs(name: str, table: Path, known: Mapping[str, Key | Table]) -> str:
    """The cure for an unknown key: what may be meant here, else where it would be right."""
    ours = [other for other, entry in known.items() if not entry.former]
    if guess := did_you_mean(name, ours):
        return guess
    # The first place wins: keys of tables that come first are meant more often.
    homes = {key.path[-1]: key.path[:-1] for key in reversed(KEYS) if not key.former and key.path[-1] != "*"}
    if name in homes:
        return f"it belongs in {_header(homes[name])}"
    if guess := did_you_mean(name, homes, cutoff=0.8):
        return f"{guess[:-1]} in {_header(homes[guess.split(chr(34))[1]])}?"
    return f"known here: {', '.join(ours)}"


def _header(table: Path) -> str:
    return f"[{'.'.join('NAME' if part == '*' else part for part in table)}]" if table else "the top of the file"
