"""Where a value came from, and the value together with that."""

from __future__ import annotations

import enum

import attrs

from kasmos.model.value import frozen


class OriginKind(enum.StrEnum):
    """The layers of a configuration, lowest first."""

    DEFAULT = "default"
    FILE = "file"
    VARIABLE = "variable"
    FLAG = "flag"


@frozen
class Origin:
    """Who said it: a file (and the line), a variable, a flag, or nobody."""

    kind: OriginKind = OriginKind.DEFAULT
    name: str = ""
    """The file's path, the variable's or the flag's name; empty for a default."""
    line: int | None = None
    """From 1; None where there are no lines."""

    def __str__(self) -> str:
        if self.kind is OriginKind.DEFAULT:
            return "default"
        return self.name if self.line is None else f"{self.name}:{self.line}"


@frozen
class Setting:
    """One value that was said."""

    value: object = attrs.field(repr=False)
    """As it is in memory."""
    written: object = attrs.field(repr=False)
    """As it is in TOML."""
    origin: Origin
