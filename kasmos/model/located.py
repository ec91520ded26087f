"""Which line of a TOML text holds which key, so that a mistake in a value can say where it stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

import attrs

from kasmos.model.value import define, frozen

Path = tuple[str | int, ...]

_NAME = r"(?:[A-Za-z0-9_-]++|\"(?:[^\"\\\n]|\\.)*+\"|'[^'\n]*+')"
_KEY_PART = re.compile(_NAME)
_ENTRY = re.compile(rf"(?:[ \t\r\n]|#[^\n]*+)*+((?:\[\[?)?[ \t]*+)({_NAME}(?:[ \t]*+\.[ \t]*+{_NAME})*)")
"""What begins an entry, behind blank lines and comments: `[` or `[[` for the head of a table, and the key."""
# What is repeated possessively takes no letter before it can fail: Python 3.11 before 3.11.5, Debian 12's among them,
# goes on from where the failed attempt had got to.
_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.)*+(?:"(?!"")(?:[^"\\]|\\.)*+)*"{3,5}'
    r"|'''[^']*+(?:'(?!'')[^']*+)*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*+"'
    r"|'[^'\n]*+'"
    r"|#[^\n]*+|[\[\]{}\n]",
    re.S,
)
_AT_LINE = re.compile(r" \(at (?:line (?P<line>[0-9]+), column (?P<column>[0-9]+)|end of document)\)$")
_IN_VALUE = re.compile("Invalid value|Unclosed|Unterminated|Expected \"'")
"""What tomllib says of a value that is cut short, when it says it of the end of the document."""


class TomlSyntaxError(ValueError):
    """The text is not TOML; translated by the reader of the document."""

    def __init__(self, line: int, problem: str, column: int | None = None) -> None:
        self.line = line
        """From 1."""
        self.column = column
        """From 1; None where it is the document that ends too early."""
        self.problem = problem
        super().__init__(problem)


@frozen
class LocatedTable:
    """A parsed TOML text together with the lines its keys stand in."""

    values: dict[str, Any]
    _lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """The line of this key, else of what it stands in, from 1."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return 1


def read_toml(text: str, what: str = "document") -> LocatedTable:
    """Parse TOML and find out where its keys stand.

    Args:
        text: the TOML.
        what: what it is a whole of, for messages.

    Raises:
        TomlSyntaxError: it is not TOML, or nested beyond all reason.
    """
    try:
        values = tomllib.loads(text)
    except RecursionError as error:
        raise TomlSyntaxError(1, "values are nested too deeply") from error
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        message = str(error)
        where = _AT_LINE.search(message)
        last = text.rstrip("\n").count("\n") + 1
        line, column = (int(where["line"]), int(where["column"])) if where and where["line"] else (last, None)
        cut_short = where is not None and column is None and _IN_VALUE.match(message) is not None
        problem = f"the {what} ends inside a value" if cut_short else _AT_LINE.sub("", message)
        raise TomlSyntaxError(line, problem, column) from error
    return LocatedTable(values, _Locator(text.replace("\r\n", "\n")).lines())


@define(eq=False)
class _Locator:
    """Walks over a text that tomllib has accepted; it need not be checked again."""

    _text: str
    _lines: dict[Path, int] = attrs.field(factory=dict)
    _counts: dict[Path, int] = attrs.field(factory=dict)
    """How many tables each array of tables has so far."""

    def lines(self) -> dict[Path, int]:
        text, position, line, counted = self._text, 0, 1, 0
        table: Path = ()
        while entry := _ENTRY.match(text, position):
            line, counted = line + text.count("\n", counted, entry.start(1)), entry.start(1)
            key = entry[2]
            names = (key,) if key.isidentifier() else tuple(_unquote(part) for part in _KEY_PART.findall(key))
            brackets = entry[1].count("[")
            if brackets:
                table = self._resolve(names, is_array=brackets == 2)
                self._note((), table, line)
            else:
                self._note(table, table + names, line)
            position = self._end_of_value(entry.end() + brackets)
        return self._lines

    def _resolve(self, names: tuple[str, ...], *, is_array: bool) -> Path:
        """Put the index of the current element after each name that is an array of tables."""
        path: Path = ()
        for number, name in enumerate(names):
            path = (*path, name)
            if is_array and number == len(names) - 1:
                self._counts[path] = self._counts.get(path, 0) + 1
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        return path

    def _note(self, table: Path, path: Path, line: int) -> None:
        for length in range(len(table) + 1, len(path) + 1):
            self._lines.setdefault(path[:length], line)

    def _end_of_value(self, position: int) -> int:
        depth = 0
        for token in _TOKEN.finditer(self._text, position):
            mark = token[0]
            if mark in ("[", "{"):
                depth += 1
            elif mark in ("]", "}"):
                depth -= 1
            elif mark == "\n" and depth <= 0:
                return token.end()
        return len(self._text)


def _unquote(part: str) -> str:
    if part[0] == "'":
        return part[1:-1]
    if part[0] == '"':
        return next(iter(tomllib.loads(f"{part} = 0")))
    return part
