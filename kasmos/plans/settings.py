"""What a task may say about how it is run: the keys of a settings block, read strictly."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from kasmos.model.located import LocatedTable, Path
from kasmos.model.plan import Check
from kasmos.model.units import DURATION_EXAMPLES, duration_with_unit
from kasmos.model.value import frozen
from kasmos.model.wording import did_you_mean, name_kind
from kasmos.plans.findings import Findings, quote

TASK_KEYS = ("agent", "needs", "timeout", "retries", "checks", "files", "env")
"""What a settings block in a task may set."""
DEFAULT_KEYS = ("agent", "timeout", "retries", "checks", "env")
"""What a settings block in the preamble may set, for every task of the plan."""

_NEED = re.compile(r"[0-9]{1,9}(?:[.][0-9]{1,9})?")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_TIMEOUT = 366 * 86400.0
_MOST_RETRIES = 1000


@frozen
class Settings:
    """The settings of one task, or the defaults of a plan. None means: not said."""

    agent: str | None = None
    needs: tuple[str, ...] | None = None
    """As written: `N` or `WAVE.N`."""
    timeout: float | None = None
    retries: int | None = None
    checks: tuple[Check, ...] | None = None
    files: tuple[str, ...] | None = None
    env: Mapping[str, str] = attrs.field(factory=dict, repr=lambda env: repr(sorted(env)))
    lines: Mapping[str, int] = attrs.field(factory=dict)
    """The line in the document of each key that was said."""

    def over(self, defaults: Settings) -> Settings:
        """These settings, completed by defaults. `env` is merged; every other key is taken whole."""
        said = attrs.asdict(self, recurse=False)
        filled = {
            key: value if value is not None else getattr(defaults, key)
            for key, value in said.items()
            if key not in ("env", "lines")
        }
        return Settings(**filled, env={**defaults.env, **self.env}, lines={**defaults.lines, **self.lines})


NO_SETTINGS = Settings()


def read_settings(
    table: LocatedTable, at: Path, keys: tuple[str, ...], findings: Findings, first_line: int = 1
) -> Settings:
    """Read the settings among the keys of a table. Other keys are the caller's to judge.

    Args:
        table: the TOML text the table stands in.
        at: the path of the table in it.
        keys: the settings that may be set here.
        findings: where every mistake is noted.
        first_line: the line of the document that the TOML text starts in.
    """
    reader = _Reader(table, at, findings, first_line)
    values = reader.value_at(at)
    said: dict[str, Any] = {key: _READERS[key](reader, key, values[key]) for key in keys if key in values}
    lines = {key: reader.line(key) for key in said}
    return Settings(**{key: value for key, value in said.items() if value is not None}, lines=lines)


def judge_unknown_key(key: str, known: tuple[str, ...], line: int, findings: Findings) -> None:
    """Note that a key is none of the known ones, with what may have been meant."""
    cure = did_you_mean(key, known) or f"known here: {', '.join(known)}"
    findings.mistake(line, f"unknown key {quote(key)}", cure)


def parse_duration(value: object) -> float | None:
    """Read a duration: seconds, or text such as `"90s"`, `"10m"`, `"1h30m"`. None when it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    return duration_with_unit(value) if isinstance(value, str) else None


@frozen
class _Reader:
    table: LocatedTable
    at: Path
    findings: Findings
    first_line: int

    def line(self, *path: str | int) -> int:
        return self.first_line - 1 + self.table.line((*self.at, *path))

    def value_at(self, path: Path) -> Any:
        value: Any = self.table.values
        for part in path:
            value = value[part]
        return value

    def wrong(self, path: Path, problem: str, cure: str = "") -> None:
        self.findings.mistake(self.line(*path), problem, cure)

    def agent(self, key: str, value: object) -> str | None:
        return self.text((key,), value)

    def text(self, path: Path, value: object) -> str | None:
        name = _name(path)
        if not isinstance(value, str):
            self.wrong(path, f"{name} must be text, not {name_kind(value)}")
            return None
        if not value.strip():
            self.wrong(path, f"{name} must not be empty")
            return None
        if "\0" in value:
            self.wrong(path, f"{name} must not contain a NUL character")
            return None
        return value

    def items(self, key: str, value: object, example: str) -> list[object]:
        if isinstance(value, list):
            return value
        self.wrong((key,), f"{key} must be a list, not {name_kind(value)}", f"such as {example}")
        return []

    def needs(self, key: str, value: object) -> tuple[str, ...]:
        items = self.items(key, value, f"{key} = [1, 2]")
        read = [self.need((key, index), item) for index, item in enumerate(items)]
        return tuple(dict.fromkeys(need for need in read if need is not None))

    def need(self, path: Path, item: object) -> str | None:
        if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 10**9:
            return str(item)
        if isinstance(item, str) and _NEED.fullmatch(item.strip()):
            return ".".join(str(int(part)) for part in item.strip().split("."))
        cure = 'a task\'s number such as 3, or its wave and number as text such as "1.3"'
        self.wrong(path, f"{_name(path)} does not name a task: {_show(item)}", cure)
        return None

    def duration(self, path: Path, value: object) -> float | None:
        seconds = parse_duration(value)
        if seconds is not None and 0 < seconds <= _LONGEST_TIMEOUT:
            return seconds
        problem = f"{_name(path)} must be a duration of more than 0, not {_show(value)}"
        self.wrong(path, problem, DURATION_EXAMPLES)
        return None

    def timeout(self, key: str, value: object) -> float | None:
        return self.duration((key,), value)

    def retries(self, key: str, value: object) -> int | None:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_RETRIES:
            return value
        self.wrong((key,), f"{key} must be a whole number from 0 to {_MOST_RETRIES}, not {_show(value)}")
        return None

    def checks(self, key: str, value: object) -> tuple[Check, ...]:
        items = self.items(key, value, f'{key} = ["make test"]')
        read = [self.check(key, index, item) for index, item in enumerate(items)]
        return tuple(check for check in read if check is not None)

    def check(self, key: str, index: int, item: object) -> Check | None:
        if not isinstance(item, dict):
            command = self.text((key, index), item)
            return None if command is None else Check(command)
        known = ("command", "timeout")
        for name in item:
            if name not in known:
                judge_unknown_key(name, known, self.line(key, index, name), self.findings)
        if "command" not in item:
            self.wrong((key, index), f"{_name((key, index))} must have a command")
            return None
        command = self.text((key, index, "command"), item["command"])
        limit = self.duration((key, index, "timeout"), item["timeout"]) if "timeout" in item else None
        return None if command is None else Check(command, limit)

    def files(self, key: str, value: object) -> tuple[str, ...]:
        items = self.items(key, value, f'{key} = ["src/a.py"]')
        read = [self.text((key, index), item) for index, item in enumerate(items)]
        return tuple(dict.fromkeys(name for name in read if name is not None))

    def env(self, key: str, value: object) -> dict[str, str]:
        if not isinstance(value, dict):
            self.wrong((key,), f"{key} must be a table, not {name_kind(value)}", 'such as env = { NAME = "value" }')
            return {}
        return {name: text for name, text in value.items() if self.variable(key, name, text)}

    def variable(self, key: str, name: str, text: object) -> bool:
        path = (key, name)
        if not _ENV_NAME.fullmatch(name):
            self.wrong(path, f"{quote(name)} is not the name of an environment variable")
        elif not isinstance(text, str):
            self.wrong(path, f"the variable {name} must be text, not {name_kind(text)}", f'{name} = "..."')
        elif "\0" in text:
            self.wrong(path, f"the variable {name} must not contain a NUL character")
        else:
            return True
        return False


_READERS: dict[str, Callable[[_Reader, str, object], object]] = {
    "agent": _Reader.agent,
    "needs": _Reader.needs,
    "timeout": _Reader.timeout,
    "retries": _Reader.retries,
    "checks": _Reader.checks,
    "files": _Reader.files,
    "env": _Reader.env,
}


def _name(path: Path) -> str:
    """A setting, or a part of one, as its reader would call it: `files[2]`, `checks[0].timeout`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _show(value: object) -> str:
    if isinstance(value, str):
        return quote(value)
    return str(value) if isinstance(value, int | float) and abs(value) < 10**15 else name_kind(value)
