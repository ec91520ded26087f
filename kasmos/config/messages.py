"""How a wrong value is told: what it was, what it may have been meant to be. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from kasmos.model.wording import did_you_mean, name_kind

_SHOWN = 60


def show(value: object) -> str:
    """A value as a message may show it: quoted, on one line, never long."""
    if isinstance(value, str):
        short = value if len(value) <= _SHOWN else value[: _SHOWN - 3] + "..."
        return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in short) + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and (isinstance(value, float) or abs(value) < 10**18):
        return str(value)
    return name_kind(value)


def without_quotes(value: object, right: str | tuple[str, ...]) -> str:
    """The cure for a number or truth value that was written as text."""
    if not isinstance(value, str) or len(value) > _SHOWN:
        return ""
    fits = value in right if isinstance(right, tuple) else re.fullmatch(right, value) is not None
    return f"without the quotes: {value}" if fits else ""


def one_of(words: Iterable[str]) -> str:
    """`one of "a", "b"`."""
    return "one of " + ", ".join(f'"{word}"' for word in words)


def guess(value: object, known: Iterable[str]) -> str:
    """Suggest a known word for a value that may not even be text."""
    return did_you_mean(value, known) if isinstance(value, str) else ""


def as_list(value: object) -> str:
    """The cure for text where a list belongs."""
    words = split_words(value) if isinstance(value, str) and len(value) <= _SHOWN else None
    return "write [" + ", ".join(show(word) for word in words) + "]" if words else ""


def split_words(text: str) -> list[str] | None:
    """The words of a shell-style text; None when a quote is not closed."""
    try:
        return shlex.split(text)
    except ValueError:
        return None
