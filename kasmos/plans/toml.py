"""The TOML form of a plan: the same plan, for programs that write plans."""

from __future__ import annotations

import re
from typing import Any

from kasmos.model.located import LocatedTable, Path, TomlSyntaxError, read_toml
from kasmos.model.value import frozen
from kasmos.plans.command import first_script
from kasmos.plans.draft import Draft, DraftTask, DraftWave
from kasmos.plans.findings import Findings
from kasmos.plans.settings import DEFAULT_KEYS, NO_SETTINGS, TASK_KEYS, judge_unknown_key, read_settings

_TOP_KEYS = ("title", "goal", "architecture", "tech_stack", "defaults", "wave")
_WAVE_KEYS = ("number", "title", "task")
_TASK_KEYS = ("number", "title", "body", "script", *TASK_KEYS)
_BACKTICKS = re.compile("`{3,}")
_LARGEST_NUMBER = 10**9 - 1


def read_toml_plan(text: str, findings: Findings) -> Draft:
    """Read a TOML document with `\\n` as its line ends, noting every mistake."""
    try:
        table = read_toml(text)
    except TomlSyntaxError as error:
        findings.mistake(error.line, f"not TOML: {error.problem}")
        return Draft()
    return _Reader(table, findings).draft()


def script_block(script: str) -> str:
    """Render a script as the fenced block in which a task's body would hold it."""
    longest = max((len(run) for run in _BACKTICKS.findall(script)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}sh\n{script.removesuffix(chr(10))}\n{fence}"


@frozen
class _Reader:
    table: LocatedTable
    findings: Findings

    def draft(self) -> Draft:
        values = self.table.values
        self._judge_keys((), values, _TOP_KEYS)
        waves = self._tables((), values, "wave")
        if not waves and not isinstance(values.get("wave"), dict):
            cure = "add `[[wave]]` with `[[wave.task]]` under it"
            self.findings.mistake(1, "the plan has no waves", cure)
        defaults = NO_SETTINGS
        if self._is_table(("defaults",), values.get("defaults", {})):
            self._judge_keys(("defaults",), values.get("defaults", {}), DEFAULT_KEYS)
            if "defaults" in values:
                defaults = read_settings(self.table, ("defaults",), DEFAULT_KEYS, self.findings)
        return Draft(
            waves=self._waves(waves),
            goal=self._text((), values, "goal"),
            architecture=self._text((), values, "architecture"),
            tech_stack=self._text((), values, "tech_stack"),
            title=self._text((), values, "title"),
            defaults=defaults,
        )

    def _waves(self, tables: list[tuple[Path, dict[str, Any]]]) -> tuple[DraftWave, ...]:
        waves = []
        number = newest = 0
        for path, values in tables:
            self._judge_keys(path, values, _WAVE_KEYS)
            number = self._number(path, values, number + 1)
            tasks = []
            for task_path, task_values in self._tables(path, values, "task"):
                task = self._task(task_path, task_values, newest + 1)
                newest = task.number
                tasks.append(task)
            title = self._text(path, values, "title")
            waves.append(DraftWave(number, title, self.table.line(path), tuple(tasks)))
        return tuple(waves)

    def _task(self, path: Path, values: dict[str, Any], next_number: int) -> DraftTask:
        self._judge_keys(path, values, _TASK_KEYS)
        body = self._text(path, values, "body").strip("\n").rstrip()
        script = self._text(path, values, "script")
        if script:
            body = f"{body}\n\n{script_block(script)}".strip("\n")
        return DraftTask(
            number=self._number(path, values, next_number),
            title=self._text(path, values, "title"),
            body=body,
            line=self.table.line(path),
            settings=read_settings(self.table, path, TASK_KEYS, self.findings),
            script_line=self.table.line((*path, "script" if script else "body")) if first_script(body) else None,
        )

    def _tables(self, path: Path, values: dict[str, Any], key: str) -> list[tuple[Path, dict[str, Any]]]:
        """The tables of an array of tables; what is none is noted."""
        found = values.get(key, [])
        name = ".".join([*(part for part in path if isinstance(part, str)), key])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            cure = f"write `[[{name}]]` above each {key}"
            self.findings.mistake(self.table.line((*path, key)), f"{name} must be an array of tables", cure)
            return []
        return [((*path, key, index), item) for index, item in enumerate(found)]

    def _judge_keys(self, path: Path, values: dict[str, Any], known: tuple[str, ...]) -> None:
        for key in values:
            if key not in known:
                judge_unknown_key(key, known, self.table.line((*path, key)), self.findings)

    def _is_table(self, path: Path, value: object) -> bool:
        if isinstance(value, dict):
            return True
        self.findings.mistake(self.table.line(path), f"{path[-1]} must be a table", f"write `[{path[-1]}]`")
        return False

    def _text(self, path: Path, values: dict[str, Any], key: str) -> str:
        value = values.get(key, "")
        if isinstance(value, str):
            return value
        self.findings.mistake(self.table.line((*path, key)), f"{key} must be text", f'{key} = "..."')
        return ""

    def _number(self, path: Path, values: dict[str, Any], default: int) -> int:
        value = values.get("number", default)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_NUMBER:
            return value
        line = self.table.line((*path, "number"))
        self.findings.mistake(line, f"number must be a whole number from 0 to {_LARGEST_NUMBER}")
        return default
