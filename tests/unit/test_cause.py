"""What people are told of an end."""

from __future__ import annotations

import pytest

from kasmos.model.task import Cause, CauseKind


@pytest.mark.parametrize(
    ("word", "message", "said"),
    [
        ("failed", "exit 3", "failed: exit 3"),
        ("lost", "lost: the machine was restarted", "lost: the machine was restarted"),
        ("timed out", "timed out", "timed out"),
        ("timed out", "timed out after 5 s", "timed out after 5 s"),
        ("lost", "lostness", "lost: lostness"),
    ],
)
def test_no_word_twice(word: str, message: str, said: str) -> None:
    """An end is told without saying its word twice."""
    assert Cause(CauseKind.LOST, message).after(word) == said
