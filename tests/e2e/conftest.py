"""What every test of a whole supervisor gets: programs and people that may take their time."""

from __future__ import annotations

import pytest

from kasmos.daemon import approvals
from kasmos.supervision import delivery, retort, terminal, typist
from tests.waiting import LIMIT


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may take its time to read, to draw and to answer; who waits in vain says for how long."""
    monkeypatch.setattr(approvals, "DELIVERY_PATIENCE", LIMIT)
    monkeypatch.setattr(delivery, "TAKE_PATIENCE", LIMIT)
    monkeypatch.setattr(delivery, "READ_PATIENCE", LIMIT)
    monkeypatch.setattr(delivery, "END_PATIENCE", LIMIT)
    monkeypatch.setattr(retort, "INPUT_PATIENCE", LIMIT)
    monkeypatch.setattr(terminal, "ANSWER_PATIENCE", LIMIT)
    monkeypatch.setattr(typist, "BUSY_PATIENCE", LIMIT)
