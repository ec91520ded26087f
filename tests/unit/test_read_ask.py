"""What is read out of a question that a program without a terminal asks, and what it is answered."""

from __future__ import annotations

from typing import Any

import pytest

from kasmos.model.approval import Answer, AnswerKind, AskKind
from kasmos.sessions.mailbox import read_ask, words_of


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


@pytest.mark.parametrize(
    ("question", "options", "answer", "words"),
    [
        ("Which?", [{"label": "red"}, {"label": "blue"}], Answer(AnswerKind.CHOOSE, option=1), {"Which?": "blue"}),
        ("Which?", ["red", 7], Answer(AnswerKind.CHOOSE, option=1), {"Which?": "7"}),
        (["Which?"], None, Answer(AnswerKind.TEXT, "green"), {"['Which?']": "green"}),
    ],
)
def test_answers_to_a_question(question: Any, options: Any, answer: Answer, words: dict[str, str]) -> None:
    """What was chosen is told by its label, and a text as it is, whatever a model has put in the question's place."""
    asked = {"questions": [{"question": question, "options": options}]}
    told = words_of({"tool_name": "AskUserQuestion", "input": asked}, answer)
    assert told == {"behavior": "allow", "updatedInput": {**asked, "answers": words}}
