"""What is read out of a question that a program without a terminal asks."""

from __future__ import annotations

from typing import Any

import pytest

from kasmos.model.approval import AskKind
from kasmos.sessions.mailbox import read_ask


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ([{"label": "red", "description": "like a rose"}, {"label": "blue"}], ["red", "blue"]),
        (["red", 7], ["red", "7"]),
        (None, []),
        ("red", []),
    ],
)
def test_options_of_a_question(options: Any, labels: list[str]) -> None:
    """A question is asked with the choices that can be read, whatever a model has put in their place."""
    asked = {"questions": [{"question": "Which colour?", "options": options}]}
    ask = read_ask("1", {"tool_name": "AskUserQuestion", "input": asked})
    assert (ask.kind, ask.text) == (AskKind.QUESTION, "Which colour?")
    assert [option.label for option in ask.options] == labels
