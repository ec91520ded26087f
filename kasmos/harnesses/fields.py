"""Reading values whose shape nobody promises: a field that is not what it should be is not there."""

from __future__ import annotations

import re
from typing import Any

MOST = 1 << 53
"""What is more is no count of anything."""

_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])|[\x00-\x08\x0b-\x1f\x7f]")


def dict_of(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if type(value) is dict else {}


def list_of(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if type(value) is list else []


def text_of(value: Any) -> str:
    """The value if it is a text, else an empty one."""
    return value if type(value) is str else ""


def word_of(value: Any) -> str | None:
    """The value if it is a text that is not empty."""
    return value if type(value) is str and value else None


def count_of(value: Any) -> int | None:
    """The value if it counts something."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < MOST else None


def amount_of(value: Any) -> float | None:
    """The value if it is a number that is not negative."""
    return float(value) if type(value) in (int, float) and 0 <= value < MOST else None


def words_of(value: Any) -> str:
    """The text in a value: itself, what its content says, or what its parts say one under the other."""
    if type(value) is str:
        return value
    if type(value) is list:
        return "\n".join(text for text in map(words_of, value) if text)
    if type(value) is dict:
        for key in ("text", "message", "content", "output", "error"):
            text = words_of(value.get(key))
            if text:
                return text
    return ""


def mended(value: Any) -> Any:
    """The value with halves of surrogate pairs replaced, and with numbers of more than 63 bits as text."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return str(value)
    if isinstance(value, dict):
        return {mended(key): mended(one) for key, one in value.items()}
    if isinstance(value, list):
        return [mended(one) for one in value]
    return value


def plain(text: str) -> str:
    """A line of a terminal without its colours."""
    return _ANSI.sub("", text)


def added(one: int | None, other: int | None) -> int | None:
    """The sum of what is known; None if nothing is."""
    if one is None or other is None:
        return one if other is None else other
    return one + other


def instant_of(value: Any) -> float | None:
    """A wall-clock instant, told in seconds or milliseconds since 1970."""
    at = amount_of(value)
    if at is None:
        return None
    at = at / 1000 if at > 1e11 else at
    return at if 1e9 <= at < 1e11 else None
