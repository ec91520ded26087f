"""What the words of an error mean: the kind of failure, and when to come back."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable

from kasmos.harnesses.conclusion import FailureKind
from kasmos.harnesses.facts import Rule
from kasmos.model.value import frozen

ZoneOf = Callable[[str], datetime.tzinfo | None]
"""Looks a zone up by the name a program gives it; None if there is none."""

MAX_WORDS = 2000
"""Characters of an error that are kept and looked at."""


@frozen
class Comeback:
    """When a limit is over, as far as the words say it."""

    retry_after: float | None = None
    """Seconds."""
    reset_at: float | None = None
    """Wall clock."""


def classify(words: str, rules: Iterable[Rule], status: int | None = None) -> FailureKind:
    """The kind of failure that the words of an error mean.

    Args:
        words: what the program, or the model's server through it, said.
        rules: the first that matches decides.
        status: HTTP status, where the program tells it.
    """
    words = words[:MAX_WORDS]
    said = next((rule.kind for rule in rules if rule.is_about(words)), None)
    by_status = None if status is None else _kind_of_status(status)
    if said is None:
        return by_status or FailureKind.UNKNOWN
    # A status is exact where words are many-sided; but quota, length and policy come under several statuses.
    if by_status in (FailureKind.AUTH, FailureKind.OVERLOADED) and said in _SHARED:
        return by_status
    return said


_SHARED = (FailureKind.AUTH, FailureKind.OVERLOADED, FailureKind.NETWORK, FailureKind.RATE_LIMIT, FailureKind.UNKNOWN)


def _kind_of_status(status: int) -> FailureKind | None:
    if status in (401, 403):
        return FailureKind.AUTH
    if status == 402:
        return FailureKind.QUOTA
    if status == 429:
        return FailureKind.RATE_LIMIT
    if status == 413:
        return FailureKind.CONTEXT_TOO_LONG
    if status == 408:
        return FailureKind.NETWORK
    return FailureKind.OVERLOADED if status >= 500 else None


_STATUS = re.compile(
    r"(?:\bstatus(?: ?code)?\"?[:= ]+|\bHTTP(?:/[\d.]+)? |\bAPI Error: |[(]|\"code\": ?|\bError code: |last status: )"
    r"([45]\d\d)\b",
    re.IGNORECASE,
)


def status_in(words: str) -> int | None:
    """The HTTP status that the words name, if any."""
    match = _STATUS.search(words[:MAX_WORDS])
    return None if match is None else int(match[1])


_UNITS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0}
_UNITS |= {"h": 3600.0, "hr": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0}
_UNIT = r"(?:ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)\b"
_SPAN = rf"(\d+(?:\.\d+)?\s*{_UNIT}(?:[\s,]*(?:and\s+)?\d+(?:\.\d+)?\s*{_UNIT})*)"
_SPAN = _SPAN.replace(r"\b", r"(?![a-z])")
_AFTER = re.compile(
    rf"(?:try(?:ing)? again|retry(?:ing)?|resets?|reset|wait|available|available again|reset after)\s*(?:in|after|for)?"
    rf"\s*(?:about\s+|~\s*)?{_SPAN}",
    re.IGNORECASE,
)
_SECONDS = re.compile(
    r"(?:retry[-_ ]?after|retry_after_seconds|resets?_in_seconds|retryDelay)\W{1,5}(\d+(?:\.\d+)?)s?", re.IGNORECASE
)
_ONE_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.IGNORECASE)
_EPOCH = re.compile(r"(?:\||resets?_?at\W{1,5}|resetsAt\W{1,5})(1\d{9})(?:\d{3})?\b", re.IGNORECASE)
_ISO = re.compile(r"\b(20\d\d-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)\s?(Z|UTC|[+-]\d\d:?\d\d)?")
_MINUTE = datetime.timedelta(minutes=1)
_JUST_BEEN = datetime.timedelta(minutes=10)
"""How long ago a time of day may be that is not tomorrow's: what was said is read a little later, clocks differ."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CLOCK = re.compile(
    r"(?:resets?|again|until|available)\W{0,3}(?:at|on)?\s*"
    r"(?:(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?"
    r"(?:,?\s+(?P<year>20\d\d))?,?\s*(?:at\s+)?)?"
    r"(?:(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?\s*(?P<half>[ap]\.?m\.?)?)?"
    r"\s*(?:\(?(?P<zone>[A-Z][A-Za-z_]+(?:/[A-Za-z_+-]+)*)\)?)?",
    re.IGNORECASE,
)


def read_comeback(words: str, now: float | None = None, zone_of: ZoneOf | None = None) -> Comeback:
    """When to come back, as an error's words tell it.

    Args:
        words: the program's own.
        now: when it said them, wall clock; without it a time of day without a date says nothing.
        zone_of: looks zones up; the empty name is the machine's own. UTC without it.
    """
    words = words[:MAX_WORDS]
    match = _EPOCH.search(words)
    if match is not None:
        return _comeback(float(match[1]), now)
    match = _AFTER.search(words)
    after = sum(_seconds(one) for one in _ONE_SPAN.findall(match[1])) if match else None
    if after is None and (match := _SECONDS.search(words)) is not None:
        after = float(match[1])
    if after is not None:
        return Comeback(retry_after=after, reset_at=None if now is None else now + after)
    match = _ISO.search(words)
    if match is not None and re.search(r"reset|again|until|available", words, re.IGNORECASE):
        return _comeback(_iso(match), now)
    for match in _CLOCK.finditer(words):
        if match["hour"] is not None or match["month"] is not None:
            return _comeback(_clock(match, now, zone_of), now)
    return Comeback()


def _comeback(at: float | None, now: float | None) -> Comeback:
    if at is None:
        return Comeback()
    return Comeback(retry_after=max(at - now, 0.0) if now is not None else None, reset_at=at)


def _seconds(span: tuple[str, str]) -> float:
    unit = span[1].lower()
    return float(span[0]) * (_UNITS.get(unit) or _UNITS.get(unit.removesuffix("s")) or 1.0)


def _iso(match: re.Match[str]) -> float | None:
    zone = (match[2] or "Z").replace("UTC", "Z")
    try:
        return datetime.datetime.fromisoformat(match[1].replace(" ", "T") + zone.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def _clock(match: re.Match[str], now: float | None, zone_of: ZoneOf | None) -> float | None:
    zone = _zone(match["zone"], zone_of)
    here = None if now is None else datetime.datetime.fromtimestamp(now, zone)
    if here is None and (match["year"] is None or match["month"] is None):
        return None
    hour, minute = int(match["hour"] or 0), int(match["minute"] or 0)
    if match["half"]:
        hour = hour % 12 + (12 if match["half"][0] in "pP" else 0)
    elif match["minute"] is None and match["month"] is None:
        return None  # a lone number is no time of day
    try:
        if match["month"] is None:
            assert here is not None  # as tested above
            at = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return _nearest(at, here).timestamp()
        month = _MONTHS.index(match["month"].lower()) + 1
        year = int(match["year"]) if match["year"] else here.year if here is not None else 0
        at = datetime.datetime(year, month, int(match["day"]), hour, minute, tzinfo=zone)
        if match["year"] is None and here is not None and at < here - datetime.timedelta(days=180):
            at = at.replace(year=year + 1)  # in December, of January
        return at.timestamp()
    except (ValueError, OverflowError):
        return None


def _nearest(at: datetime.datetime, here: datetime.datetime) -> datetime.datetime:
    """A time of day, told to the minute: of today if it is to come or has just been, else of tomorrow."""
    if at > here:
        return at
    if here - at < _MINUTE:
        return at + _MINUTE
    return at if here - at < _JUST_BEEN else at + datetime.timedelta(days=1)


def _zone(name: str | None, zone_of: ZoneOf | None) -> datetime.tzinfo:
    if name is not None and name.upper() in ("UTC", "GMT", "Z"):
        return datetime.UTC
    found = None if zone_of is None else zone_of(name or "") or zone_of("")
    return found or datetime.UTC
