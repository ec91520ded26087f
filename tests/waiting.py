"""Waiting, in tests without an event loop, for what tells nobody when it comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LIMIT = 120.0


def wait_for(what: Callable[[], T], limit: float = LIMIT) -> T:
    """Wait until there is something; it."""
    deadline = time.monotonic() + limit
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found
