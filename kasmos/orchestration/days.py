"""Days in a named zone: which one an instant belongs to, and when the next one begins."""

from __future__ import annotations

import datetime
import functools
import time
import zoneinfo


def day_of(at: float, zone: str) -> str:
    """The day of a wall-clock instant: ISO 8601."""
    return _day_of_second(int(at // 1), zone, time.tzname)


@functools.lru_cache(maxsize=16)
def _day_of_second(second: int, zone: str, _where: tuple[str, str]) -> str:
    # Asked several times for each session: days begin with a second, in every zone.
    return _local(second, zone).date().isoformat()


def next_day_at(at: float, zone: str) -> float:
    """When the next day begins: a wall-clock instant."""
    today = _local(at, zone)
    tomorrow = datetime.datetime.combine(today.date() + datetime.timedelta(days=1), datetime.time())
    # A day that begins with its second hour, where clocks are changed at midnight, begins with it here, too.
    if zone == "local":
        return tomorrow.timestamp()
    return tomorrow.replace(tzinfo=_zone(zone)).timestamp()


def _local(at: float, zone: str) -> datetime.datetime:
    utc = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return utc.astimezone(None if zone == "local" else _zone(zone))


def _zone(zone: str) -> datetime.tzinfo:
    return datetime.UTC if zone == "UTC" else zoneinfo.ZoneInfo(zone)
