"""What a screen asks, as an ask of the approvals; and which keys give an answer. Pure.

Keys are chosen by what an option means, never by its place, and none are pressed that might mean something else.
"""

from __future__ import annotations

from kasmos.exceptions import SessionError
from kasmos.model.approval import Answer, AnswerKind, Ask, AskKind, Meaning, Option, ReasonGoes
from kasmos.model.value import frozen
from kasmos.screens import Choice, ScreenState, Verdict
from kasmos.screens import Meaning as ScreenMeaning
from kasmos.supervision.standing import identity_of

_KINDS = {ScreenState.PERMISSION: AskKind.PERMISSION, ScreenState.QUESTION: AskKind.QUESTION}


@frozen
class Typing:
    """What gives an answer: keys, then perhaps a text and Enter."""

    keys: tuple[str, ...] = ()
    text: str = ""


def ask_of(verdict: Verdict | None) -> Ask | None:
    """What a screen asks; None if it asks nothing. Dialogs that are not understood ask nothing: they are a person's."""
    if verdict is None or verdict.state not in _KINDS:
        return None
    request = verdict.request
    kind = _KINDS[verdict.state]
    tool, command, path = (
        ("", "", "") if request is None else (request.tool or "", request.command or "", request.path or "")
    )
    text = request.question if request is not None else ""
    options = tuple(Option(choice.text, Meaning(choice.meaning.value)) for choice in verdict.choices)
    return Ask(
        identity=identity_of((verdict.state.value, verdict.rule, tool, command, path), shown_of(verdict)),
        kind=kind,
        tool=tool,
        command=command,
        path=path,
        text=text or "\n".join(one.text for one in verdict.evidence),
        options=options,
        evidence=f"screen rule {verdict.rule}",
        exact=request is not None and request.exact,
        reason_goes=ReasonGoes.INPUT,
    )


def shown_of(verdict: Verdict) -> tuple[str, ...]:
    """All that a dialog shows, line by line; what is cut off at its top is missing at the beginning."""
    request = verdict.request
    said = (*request.shown, request.question) if request is not None else ()
    return (*said, *(choice.text for choice in verdict.choices))


def decide_typing(verdict: Verdict, answer: Answer) -> Typing:
    """Decide what gives this answer to this screen.

    Raises:
        SessionError: nothing does for certain; nothing may be pressed.
    """
    match answer.kind:
        case AnswerKind.CHOOSE:
            if answer.option is None or not 0 <= answer.option < len(verdict.choices):
                raise SessionError("its dialog has no such option")
            return Typing(_keys(verdict, verdict.choices[answer.option]))
        case AnswerKind.TEXT:
            return _text(verdict, answer.text)
        case _:
            meaning = ScreenMeaning(answer.kind.value)
            choice = verdict.choice(meaning)
            if choice is None:
                found = sum(one.meaning is meaning for one in verdict.choices)
                many = "several options mean" if found else "no option means"
                raise SessionError(f"{many} {meaning.value.replace('_', ' ')}: choose one by its number")
            return Typing(_keys(verdict, choice))


def _keys(verdict: Verdict, choice: Choice) -> tuple[str, ...]:
    if not choice.keys:
        raise SessionError(f'no key is known that chooses "{choice.text}": answer at the terminal')
    if choice.keys == ("Enter",) and verdict.dangerous_default:
        raise SessionError("Enter alone is never pressed on such a dialog: answer at the terminal")
    moves = choice.keys == ("Enter",) or not {"Up", "Down", "Left", "Right"}.isdisjoint(choice.keys)
    if moves and not any(one.selected for one in verdict.choices):
        raise SessionError("it is not seen which option is chosen at present: answer at the terminal")
    return choice.keys


def _text(verdict: Verdict, text: str) -> Typing:
    if not verdict.choices:
        return Typing((), text)
    own = next((choice for choice in verdict.choices if choice.takes_text), None)
    if own is None:
        raise SessionError("its dialog takes no text: choose one of its options by its number")
    keys = _keys(verdict, own)
    # Moved to, the line of one's own takes the text as it is typed; Enter then sends it.
    return Typing(keys[:-1] if keys[-1] == "Enter" else keys, text)
