"""What tests of headless agents that ask look at: approvals that wait, and marks that approved commands leave."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from ..conftest import Kas

LIMIT = 60.0


def wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LIMIT
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def asked(kas: Kas, words: str) -> str:
    """The id of what waits for a person and is told with these words, if anything does."""
    found = re.search(rf"^(\w{{4}}) .*{words}", kas("approvals").stdout, re.MULTILINE)
    return found[1] if found else ""


def marks(kas: Kas) -> int:
    path = kas.cwd / "marks"
    return len(path.read_text().splitlines()) if path.exists() else 0
