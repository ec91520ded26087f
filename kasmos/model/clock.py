"""Time as a value: who needs the time is given a `Clock`, and never asks the machine."""

from __future__ import annotations

from collections.abc import Callable

from kasmos.model.value import frozen


@frozen
class Clock:
    """Where instants come from. The real functions are chosen once, when the process is put together."""

    wall: Callable[[], float]
    """Seconds since the epoch (UTC). May jump in either direction; for people only."""
    mono: Callable[[], float]
    """CLOCK_MONOTONIC seconds: comparable between processes of one boot; for durations."""
