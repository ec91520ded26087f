"""Durations and sizes as people write them: `90s`, `1h30m`, `64MiB`. Pure."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(?:[0-9]{1,12}(?:[.][0-9]{1,9})?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d)")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

_SIZE = re.compile(r"([0-9]{1,12}(?:[.][0-9]{1,9})?) ?(B|[kK]B|MB|GB|TB|KiB|MiB|GiB|TiB)")
_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}

_NUMBER = re.compile(r"[0-9]{1,12}(?:[.][0-9]{1,9})?")

DURATION_EXAMPLES = 'seconds such as 90, or text such as "90s", "10m", "1h30m"'
SIZE_EXAMPLES = 'bytes such as 65536, or text such as "64KiB", "10MB", "1GiB"'
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)? ?(B|[kK]B|MB|GB|TB|KiB|MiB|GiB|TiB)$"


def parse_duration(text: str) -> float:
    """Read a duration from an option or a variable, where a bare number is seconds too.

    Raises:
        ValueError: it is something else; the message says what would be right.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    seconds = duration_with_unit(text)
    if seconds is None:
        raise ValueError(f"expected {DURATION_EXAMPLES}")
    return seconds


def parse_size(text: str) -> int:
    """Read a size from an option or a variable, where a bare number is bytes too.

    Raises:
        ValueError: it is something else; the message says what would be right.
    """
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    size = size_with_unit(text)
    if size is None:
        raise ValueError(f"expected {SIZE_EXAMPLES}")
    return size


def duration_with_unit(text: str) -> float | None:
    """Seconds in a text whose every number has a unit; None when it is none."""
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))


def size_with_unit(text: str) -> int | None:
    """Bytes in a number with a unit; None when it is none, or not a whole number of bytes."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    size = float(match[1]) * _BYTES[match[2].replace("k", "K")]
    return int(size) if size.is_integer() else None


def render_duration(seconds: float) -> str:
    """A duration in its largest units: `90.0` is `1m30s`."""
    left = round(seconds * 1000)
    parts = []
    for unit, size in _SECONDS.items():
        count, left = divmod(left, round(size * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def render_size(size: int) -> str:
    """A size in the largest unit that divides it: `65536` is `64KiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"
