"""What a screen asks, and the keys that answer it."""

from __future__ import annotations

import pytest

from kasmos.exceptions import SessionError
from kasmos.model.approval import ALLOW, Answer, AnswerKind, ApprovalPolicy, AskKind, Decision, Rule
from kasmos.screens import Choice, Meaning, Request, Screen, ScreenState, Verdict, detect, load_rules
from kasmos.supervision.approval_policy import decide_approval
from kasmos.supervision.asking import Typing, ask_of, decide_typing
from tests.unit.screenshots import text_of

YES = Choice("Yes", Meaning.ALLOW_ONCE, ("1",), selected=True)
NO = Choice("No", Meaning.DENY, ("Escape",))
ASKS = Verdict(
    ScreenState.PERMISSION, "permission", request=Request("Run it?", "Bash", "git status"), choices=(YES, NO)
)
DENY = Answer(AnswerKind.DENY)


def with_choices(*choices: Choice, state: ScreenState = ScreenState.PERMISSION, dangerous: bool = False) -> Verdict:
    return Verdict(state, "rule", request=Request("?"), choices=choices, dangerous_default=dangerous)


def test_ask() -> None:
    """A permission is an ask with what was parsed; its identity does not depend on how wide the terminal is."""
    ask = ask_of(ASKS)
    assert ask is not None
    assert (ask.kind, ask.tool, ask.command, ask.exact) == (AskKind.PERMISSION, "Bash", "git status", True)
    wrapped = Verdict(
        ScreenState.PERMISSION, "permission", request=Request("Run\nit?", "Bash", "git\nstatus"), choices=(YES, NO)
    )
    again = ask_of(wrapped)
    assert again is not None
    assert again.identity == ask.identity


@pytest.mark.parametrize(
    ("program", "name", "old"),
    [
        ("aider", "permission_create-1", "\nhello\n"),
        ("claude", "permission_edit-1", "+goodbye"),
        ("claude", "permission_write-1", "2 world"),
        ("codex", "permission_edit-1", "2 +world"),
        ("gemini", "permission_edit_plain-1", "+ kasmos"),
        ("gemini", "permission_write-1", "2 world"),
        ("opencode", "permission_write-1", "+ world"),
    ],
)
def test_identity_has_the_change(program: str, name: str, old: str) -> None:
    """Two changes of one file are two asks, in every program's own dialog."""
    text = text_of(program, name)
    assert text.count(old) == 1
    first, second = (
        ask_of(detect(Screen.from_text(one), load_rules(program)))
        for one in (text, text.replace(old, f"{old.rstrip()} 2" + "\n" * old.endswith("\n")))
    )
    assert first is not None
    assert second is not None
    assert (first.path, first.options) == (second.path, second.options)
    assert first.identity != second.identity


@pytest.mark.parametrize(
    "state", [one for one in ScreenState if one not in (ScreenState.PERMISSION, ScreenState.QUESTION)]
)
def test_no_ask(state: ScreenState) -> None:
    """Nothing else is an ask: dialogs and what is not understood are for a person at the terminal."""
    assert ask_of(Verdict(state, "rule", choices=(YES, NO))) is None


def test_inexact_is_never_allowed() -> None:
    """By a command that was not read to the letter nothing is allowed, whatever the rules say."""
    policy = ApprovalPolicy((Rule("all", Decision.ALLOW, tool="Bash"),))
    exact, cut = (
        ask_of(Verdict(ScreenState.PERMISSION, "r", request=Request("?", "Bash", "ls", exact=flag), choices=(YES, NO)))
        for flag in (True, False)
    )
    assert exact is not None
    assert cut is not None
    assert decide_approval(exact, policy).decision is Decision.ALLOW
    assert decide_approval(cut, policy).decision is Decision.ASK


def test_keys_by_meaning() -> None:
    """Keys are chosen by what an option means."""
    assert decide_typing(ASKS, ALLOW) == Typing(("1",))
    assert decide_typing(ASKS, DENY) == Typing(("Escape",))
    assert decide_typing(ASKS, Answer(AnswerKind.CHOOSE, option=1)) == Typing(("Escape",))


@pytest.mark.parametrize(
    "verdict",
    [
        with_choices(Choice("Yes", Meaning.ALLOW_ONCE, ("Enter",), selected=True), NO, dangerous=True),
        with_choices(Choice("Yes", Meaning.ALLOW_ONCE, ("Enter",)), NO),
        with_choices(Choice("Yes", Meaning.ALLOW_ONCE, ("Right", "Enter")), NO),
        with_choices(Choice("Yes", Meaning.ALLOW_ONCE, ()), NO),
        with_choices(YES, Choice("Yes, this one", Meaning.ALLOW_ONCE, ("2",)), NO),
        with_choices(NO),
    ],
    ids=["dangerous", "none-chosen", "none-chosen-arrows", "no-key", "two", "not-offered"],
)
def test_no_key(verdict: Verdict) -> None:
    """Where a key might mean something else, none is pressed."""
    with pytest.raises(SessionError):
        decide_typing(verdict, ALLOW)


def test_answer_in_words() -> None:
    """A text goes to the option that takes one, or to a question without options; else it is refused."""
    own = Choice("Type something", Meaning.OTHER, ("Down", "Enter"), takes_text=True)
    first = Choice("Red", Meaning.OTHER, ("Enter",), selected=True)
    text = Answer(AnswerKind.TEXT, "green")
    question = ScreenState.QUESTION
    assert decide_typing(with_choices(first, own, state=question), text) == Typing(("Down",), "green")
    assert decide_typing(with_choices(state=question), text) == Typing((), "green")
    with pytest.raises(SessionError):
        decide_typing(with_choices(first, state=question), text)
