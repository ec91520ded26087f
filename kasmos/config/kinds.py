"""Kinds of values: what may be written for a key, what it is read as, and how it is told to an editor.

Nothing is coerced: text is never a number, `true` is never 1, one word is never a list. Variables and flags are
text by nature; each kind says what a text becomes before it is read as if it stood in a file.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn, Protocol, TypeGuard

from kasmos.config.messages import guess, one_of, show, without_quotes
from kasmos.model import units
from kasmos.model.value import frozen
from kasmos.model.wording import name_kind

LONGEST_DURATION = 366 * 86400.0
"""Seconds. Longer ones are taken for a mistake in the unit."""
LARGEST_INTEGER = 2**63 - 1
"""What TOML promises to carry."""


@frozen
class Problem:
    """One thing that is wrong with a value; `suffix` tells which part of it, such as `[2]`."""

    problem: str
    cure: str = ""
    suffix: str = ""


class WrongValueError(ValueError):
    """A value does not fit its kind. Translated to mistakes, with place and key path, by the reader."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.problem for problem in self.problems))


class Kind(Protocol):
    """**Protocol.** What may be written for a key."""

    def read(self, value: object) -> Any:
        """Turn what TOML gave into what the key is in memory.

        Raises:
            WrongValueError: it does not fit.
        """

    def from_text(self, text: str) -> object:
        """What a variable's or flag's text would be in TOML; the text itself where it would be nothing else."""

    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema."""


def wrong(problem: str, cure: str = "") -> NoReturn:
    """Refuse a value."""
    raise WrongValueError([Problem(problem, cure)])


class Plain:
    """What is text already."""

    def from_text(self, text: str) -> object:
        return text


@frozen
class Text(Plain):
    """Text that is not empty."""

    what: str = "text"
    pattern: str | None = None
    empty: bool = False
    secret: bool = False
    """The text must not appear in a message."""

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            wrong(f"must be {self.what}, not {name_kind(value)}", "put it in quotes" if is_number(value) else "")
        if "\0" in value:
            wrong("must not contain a NUL character")
        if not value.strip() and not self.empty:
            wrong("must not be empty")
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            wrong(f"must be {self.what}" + ("" if self.secret else f", not {show(value)}"))
        return value

    def schema(self) -> dict[str, Any]:
        pattern = {} if self.pattern is None else {"pattern": f"^(?:{self.pattern})$"}
        return {"type": "string", **({} if self.empty else {"minLength": 1}), **pattern}


@frozen
class Anything(Plain):
    """Any value at all."""

    def read(self, value: object) -> object:
        return value

    def schema(self) -> dict[str, Any]:
        return {}


@frozen
class Flag:
    """`true` or `false`."""

    def read(self, value: object) -> bool:
        if not isinstance(value, bool):
            wrong(f"must be true or false, not {show(value)}", without_quotes(value, ("true", "false")))
        return value

    def from_text(self, text: str) -> object:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower(), text)

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@frozen
class Whole:
    """A whole number within bounds."""

    least: int
    most: int

    def read(self, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not self.least <= value <= self.most:
            problem = f"must be a whole number from {self.least} to {self.most}, not {show(value)}"
            wrong(problem, without_quotes(value, r"-?[0-9]+"))
        return value

    def from_text(self, text: str) -> object:
        return bare_number(text)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@frozen
class Number:
    """A number within bounds."""

    least: float
    most: float

    def read(self, value: object) -> float:
        if not is_number(value) or not self.least <= value <= self.most:
            problem = f"must be a number from {self.least:g} to {self.most:g}, not {show(value)}"
            wrong(problem, without_quotes(value, r"-?[0-9]+(?:[.][0-9]+)?"))
        return float(value)

    def from_text(self, text: str) -> object:
        return bare_number(text)

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.least, "maximum": self.most}


@frozen
class Duration:
    """A length of time: a number of seconds, or text with units."""

    zero: bool = False
    """Whether it may be none at all."""

    def read(self, value: object) -> float:
        seconds = units.duration_with_unit(value) if isinstance(value, str) else value
        if not is_number(seconds):
            wrong(f"must be a duration, not {show(value)}", units.DURATION_EXAMPLES)
        if seconds < 0 or (seconds == 0 and not self.zero):
            least = "0 or more" if self.zero else "more than 0"
            wrong(f"must be a duration of {least}, not {show(value)}", units.DURATION_EXAMPLES)
        if seconds > LONGEST_DURATION:
            wrong(f"must be a duration of at most {LONGEST_DURATION / 86400:.0f} days, not {show(value)}")
        return float(seconds)

    def from_text(self, text: str) -> object:
        return bare_number(text)

    def schema(self) -> dict[str, Any]:
        least = {"minimum": 0} if self.zero else {"exclusiveMinimum": 0}
        number = {"type": "number", **least, "maximum": LONGEST_DURATION}
        return {"anyOf": [number, {"type": "string", "pattern": units.DURATION_PATTERN}]}


@frozen
class Size:
    """A number of bytes: a whole number, or text with a unit."""

    least: int
    most: int = LARGEST_INTEGER
    unlimited: bool = False
    """Whether `"unlimited"` may be written; it is read as -1, as in `setrlimit(2)`."""

    def read(self, value: object) -> int:
        if self.unlimited and value == "unlimited":
            return -1
        size = units.size_with_unit(value) if isinstance(value, str) else value
        if not isinstance(size, int) or isinstance(size, bool):
            cure = units.SIZE_EXAMPLES + (', or "unlimited"' if self.unlimited else "")
            wrong(f"must be a size, not {show(value)}", cure)
        if not self.least <= size <= self.most:
            within = f"at least {units.render_size(self.least)}"
            if self.most != LARGEST_INTEGER:
                within += f" and at most {units.render_size(self.most)}"
            wrong(f"must be a size of {within}, not {show(value)}")
        return size

    def from_text(self, text: str) -> object:
        return bare_number(text)

    def schema(self) -> dict[str, Any]:
        number = {"type": "integer", "minimum": self.least, "maximum": self.most}
        words = [{"const": "unlimited"}] if self.unlimited else []
        return {"anyOf": [number, {"type": "string", "pattern": units.SIZE_PATTERN}, *words]}


@frozen
class Count:
    """A whole number that may also be `"unlimited"`, which is read as -1."""

    def read(self, value: object) -> int:
        if value == "unlimited":
            return -1
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_INTEGER:
            cure = without_quotes(value, r"[0-9]+") or 'or "unlimited"'
            wrong(f"must be a whole number of 0 or more, not {show(value)}", cure)
        return value

    def from_text(self, text: str) -> object:
        return bare_number(text)

    def schema(self) -> dict[str, Any]:
        number = {"type": "integer", "minimum": 0, "maximum": LARGEST_INTEGER}
        return {"anyOf": [number, {"const": "unlimited"}]}


@frozen
class Choice(Plain):
    """One of a few words."""

    words: type[enum.StrEnum]

    def read(self, value: object) -> enum.StrEnum:
        known = [str(word) for word in self.words]
        if isinstance(value, str) and value in known:
            return self.words(value)
        wrong(f"must be {one_of(known)}, not {show(value)}", guess(value, known))

    def schema(self) -> dict[str, Any]:
        return {"enum": [str(word) for word in self.words]}


@frozen
class Signal(Plain):
    """A signal that asks a program to end, with or without `SIG`."""

    names: tuple[str, ...] = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")

    def read(self, value: object) -> str:
        if isinstance(value, str):
            name = value if value.startswith("SIG") else f"SIG{value}"
            if name in self.names:
                return name
        cure = guess(value, self.names)
        if isinstance(value, str) and value in ("SIGKILL", "KILL"):
            cure = "to kill at once, set stop_grace = 0"
        wrong(f"must be {one_of(self.names)}, not {show(value)}", cure)

    def schema(self) -> dict[str, Any]:
        return {"enum": [*self.names, *(name.removeprefix("SIG") for name in self.names)]}


def bare_number(text: str) -> object:
    """A text that is only a number, as the number; else the text, whose unit is read later."""
    plain = text.strip()
    if re.fullmatch(r"-?[0-9]{1,18}", plain):
        return int(plain)
    return float(plain) if re.fullmatch(r"-?[0-9]{1,18}[.][0-9]{1,18}", plain) else plain


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number that a float can hold, and not a truth value."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_INTEGER
