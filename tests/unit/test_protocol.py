"""What docs/sessions.md says of the session protocol."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kasmos.sessions.protocol import AskSource, Backend, ExecutionSession, ProcessSession, TerminalSession

PAGE = Path(__file__).parents[2] / "docs" / "sessions.md"


@pytest.mark.parametrize("protocol", [Backend, ExecutionSession, TerminalSession, ProcessSession, AskSource])
def test_every_method_is_compared(protocol: type) -> None:
    """The table of backends has a row for every method of a session and its backend."""
    first = re.findall(r"^\| ([^|]*`[^|]*)\|.*\|.*\|.*\|$", PAGE.read_text(), re.M)
    named = {name.rpartition(".")[2] for cell in first for name in re.findall(r"`([\w.]+)`", cell)}
    assert {name for name in vars(protocol) if not name.startswith("_")} - named == set()
