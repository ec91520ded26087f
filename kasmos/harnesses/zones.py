"""Time zones by the names that programs write behind a time of day."""

from __future__ import annotations

import datetime


def zone_of_name(name: str) -> datetime.tzinfo | None:
    """A zone by its name; the empty name is this machine's own."""
    import zoneinfo

    if not name:
        return datetime.datetime.now().astimezone().tzinfo
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None
