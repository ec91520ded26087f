"""Finding one's way in the table of keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kasmos.config.keys import KEYS, TABLES, Key, Path, Table
from kasmos.config.kinds import WrongValueError

BY_PATH: Mapping[Path, Key] = {key.path: key for key in KEYS}
TABLE_BY_PATH: Mapping[Path, Table] = {table.path: table for table in TABLES}


def children(table: Path) -> dict[str, Key | Table]:
    """What can stand in a table, by name; `*` for any name."""
    depth = len(table) + 1
    found: list[Key | Table] = [*KEYS, *TABLES]
    return {entry.path[-1]: entry for entry in found if len(entry.path) == depth and entry.path[:-1] == table}


def keys_in(table: Path) -> tuple[Key, ...]:
    """The keys that stand in a table itself, in order, without former ones."""
    return tuple(key for key in KEYS if key.path[:-1] == table and not key.former)


def pattern_of(path: Path) -> Path | None:
    """The path in the table of keys that this path is an instance of; None when there is none."""
    pattern: Path = ()
    for name in path:
        entries = children(pattern)
        if name in entries and name != "*":
            pattern = (*pattern, name)
        elif "*" in entries and _is_allowed(name, pattern):
            pattern = (*pattern, "*")
        else:
            return None
    return pattern if pattern in BY_PATH else None


def _is_allowed(name: str, table: Path) -> bool:
    rule = TABLE_BY_PATH[table].name_rule
    try:
        return rule is None or bool(rule.read(name))
    except WrongValueError:
        return False


def default_of(path: Path) -> Any:
    """The default of a key, read."""
    key = BY_PATH[path]
    return None if key.default is None else key.kind.read(key.default)


def render_path(path: Path) -> str:
    """A path as it is written in TOML."""
    return ".".join(name if _is_bare(name) else _quoted(name) for name in path)


def _is_bare(name: str) -> bool:
    return bool(name) and name.isascii() and all(c.isalnum() or c in "_-" for c in name)


def _quoted(name: str) -> str:
    short = name if len(name) <= 60 else name[:57] + "..."
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else repr(c)[1:-1] for c in short) + '"'
