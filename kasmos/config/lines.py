"""TOML text to values, and which line each key stands in.

The scanner walks over text that tomllib has accepted, statement by statement. Keys inside an inline table have the
line of the statement they are part of.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

import attrs

from kasmos.config.keys import Path

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*+)*+")
_SPACES = re.compile(r"[ \t]*+")
_NAME = re.compile(r"[A-Za-z0-9_-]++|\"(?:[^\"\\\n]|\\.)*+\"|'[^'\n]*+'")
_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+"{3,5}'
    r"|'''(?:[^']|'(?!''))*+'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*+"'
    r"|'[^'\n]*+'"
    r"|#[^\n]*+|[\[\]{}\n]",
    re.DOTALL,
)
_AT = re.compile(r" \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)$")
_IN_VALUE = re.compile("Invalid value|Unclosed|Unterminated|Expected \"'")
"""What tomllib says of a value that is cut short, when it says it of the end of the document."""


class TomlError(ValueError):
    """The text is not TOML. Translated to a mistake by the reader of the file."""

    def __init__(self, problem: str, line: int, column: int | None) -> None:
        self.problem = problem
        self.line = line
        self.column = column
        super().__init__(problem)


@attrs.frozen
class Document:
    """A parsed text and the lines of its keys."""

    values: dict[str, Any]
    _lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """The line of this key, else of what it stands in, from 1."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)


def parse_toml(text: str) -> Document:
    """Parse TOML and find out where its keys stand.

    Raises:
        TomlError: it is not TOML, or nested beyond all reason.
    """
    try:
        values = tomllib.loads(text)
    except RecursionError as error:
        raise TomlError("values are nested too deeply", 1, None) from error
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        message = str(error)
        where = _AT.search(message)
        if where is not None and where[1]:
            raise TomlError(message[: where.start()], int(where[1]), int(where[2])) from error
        problem = message[: where.start()] if where else message
        if where is not None and _IN_VALUE.match(message):
            problem = "the document ends inside a value"
        raise TomlError(problem, text.rstrip("\n").count("\n") + 1, None) from error
    return Document(values, _find_lines(text.replace("\r\n", "\n")))


def _find_lines(text: str) -> dict[Path, int]:
    lines: dict[Path, int] = {}
    table: Path = ()
    line, seen = 1, 0
    position = _after(_BLANK, text, 0)
    while position < len(text):
        line, seen = line + text.count("\n", seen, position), position
        if text[position] == "[":
            is_array = text.startswith("[[", position)
            table, position = _names(text, position + (2 if is_array else 1))
            path = table
        else:
            names, position = _names(text, position)
            path = table + names
        for length in range(1, len(path) + 1):
            lines.setdefault(path[:length], line)
        position = _after(_BLANK, text, _end_of_statement(text, position))
    return lines


def _names(text: str, position: int) -> tuple[Path, int]:
    """The dotted key that begins here, and where it ends."""
    names: list[str] = []
    while (name := _NAME.match(text, _after(_SPACES, text, position))) is not None:
        names.append(_unquoted(name[0]))
        position = _after(_SPACES, text, name.end())
        if not text.startswith(".", position):
            break
        position += 1
    return tuple(names), position


def _unquoted(name: str) -> str:
    if name[0] == "'":
        return name[1:-1]
    if name[0] == '"':
        value: str = tomllib.loads(f"name = {name}")["name"]
        return value
    return name


def _end_of_statement(text: str, position: int) -> int:
    """Where the line ends that is in no string and in no bracket. A header's own bracket does no harm."""
    depth = 0
    for token in _TOKEN.finditer(text, position):
        if token[0] in ("[", "{"):
            depth += 1
        elif token[0] in ("]", "}"):
            depth = max(depth - 1, 0)
        elif token[0] == "\n" and depth == 0:
            return token.end()
    return len(text)


def _after(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position
