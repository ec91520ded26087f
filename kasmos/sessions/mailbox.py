"""The mailbox of a session that asks without a terminal: files that outlive whoever supervises it.

`NAME.ask` is a question, put there through a `Letterbox`; `NAME.answer` is its answer, put there once, whole or not
at all; `NAME.gone` says that it is asked no more. Names sort by age. What has neither answer nor end still stands.

Both are JSON in the words of claude's permission tool (`tool_name`, `input`; `behavior`), whoever asks. The mediator
says more: `paths`, all files it is about; `exact`, false where something else may run; `choices`, what may be answered;
`reason`, how a person's reason for a no reaches the program, which is then the `reason` of the answer.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import trio

from kasmos.exceptions import SessionClosedError, SessionError, StaleApprovalError
from kasmos.model.approval import Answer, AnswerKind, Ask, AskKind, Meaning, Option, ReasonGoes
from kasmos.sessions.held import either
from kasmos.sessions.inotify import Inotify, Mask

_CHOICES = (Option("Yes", Meaning.ALLOW_ONCE), Option("No", Meaning.DENY))
_QUESTION = "AskUserQuestion"
_PATHS = ("file_path", "path", "notebook_path")


class Mailbox:
    """One session's mailbox. Used in the Trio thread; the files are few and small.

    Args:
        directory: where its files are.
        inotify: tells of new ones.
        over: set when the session has ended.
    """

    def __init__(self, directory: str, inotify: Inotify, over: trio.Event) -> None:
        self._place = directory
        self._inotify = inotify
        self._over = over
        self._key: int | None = None
        self._changed = trio.Event()

    @cached_property
    def _directory(self) -> Path:
        return Path(self._place)

    async def wait_ask(self, seen: str | None) -> Ask | None:
        """Wait until something else than *seen* is asked; see `AskSource.wait_ask`."""
        await trio.lowlevel.checkpoint()
        while True:
            changed = self._watch()
            name = self._oldest()
            if name != seen:
                return None if name is None else read_ask(name, self._read(name))
            if self._over.is_set():
                raise SessionClosedError("its session has ended")
            await either(changed, self._over)

    async def answer(self, ask: Ask, answer: Answer) -> None:
        """Give the answer; see `AskSource.answer`."""
        await trio.lowlevel.checkpoint()
        if self._over.is_set() or not self._stands(ask.identity):
            raise StaleApprovalError(f"this is not asked any more: {ask.subject}")
        told = json.dumps(words_of(self._read(ask.identity), answer))
        draft = self._directory / f".{ask.identity}.answer"
        try:
            draft.write_text(told, encoding="utf-8")
            os.rename(draft, self._directory / f"{ask.identity}.answer")
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            raise SessionError(f"the answer could not be written: {error.strerror}") from error
        self._fired()

    @property
    def asks(self) -> bool:
        """Whether anything is asked at this moment. Looks at its files."""
        return self._oldest() is not None

    def close(self) -> None:
        """Watch it no more."""
        if self._key is not None:
            self._inotify.forget(self._key)
            self._key = None

    def _watch(self) -> trio.Event:
        if self._key is None:
            with suppress(OSError):  # out of watches, or the directory is gone: what is asked is seen when one looks
                self._key = self._inotify.watch(str(self._directory), Mask.MOVED_TO, self._fired)
        return self._changed

    def _fired(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _stands(self, name: str) -> bool:
        place = self._directory
        ended = (place / f"{name}.answer").exists() or (place / f"{name}.gone").exists()
        return not ended and (place / f"{name}.ask").exists()

    def _oldest(self) -> str | None:
        with suppress(OSError):
            names = sorted(name.removesuffix(".ask") for name in os.listdir(self._directory) if name.endswith(".ask"))
            for name in names:
                if not name.startswith(".") and self._stands(name):
                    return name
        return None

    def _read(self, name: str) -> dict[str, Any]:
        try:
            said = json.loads((self._directory / f"{name}.ask").read_text(encoding="utf-8", errors="replace"))
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}


def read_ask(identity: str, said: dict[str, Any]) -> Ask:
    """What is asked, from the arguments of the permission tool."""
    tool = str(said.get("tool_name", ""))
    given = said.get("input")
    given = given if isinstance(given, dict) else {}
    if tool == _QUESTION:
        question = _first_question(given)
        options, text = _options(question.get("options")), str(question.get("question", ""))
        return Ask(identity, AskKind.QUESTION, tool, text=text, options=options, evidence="permission tool")
    command = given.get("command")
    told = said.get("paths")
    paths = told if isinstance(told, list) else [given.get(name) for name in _PATHS]
    path, *more = [path for path in paths if isinstance(path, str) and path] or [""]
    choices = said.get("choices")
    return Ask(
        identity,
        AskKind.PERMISSION,
        tool,
        command=command if isinstance(command, str) else "",
        path=path,
        text=str(given.get("description", "")),
        options=tuple(one for one in _CHOICES if not isinstance(choices, list) or one.meaning.value in choices),
        evidence=str(said.get("evidence", "permission tool")),
        exact=said.get("exact") is not False,
        more_paths=tuple(more) if isinstance(told, list) else (),
        reason_goes=ReasonGoes.ANSWER if "reason" not in said else _reason_goes(said["reason"]),
    )


def _reason_goes(said: object) -> ReasonGoes:
    return ReasonGoes(said) if isinstance(said, str) and said in list(ReasonGoes) else ReasonGoes.NOWHERE


def _options(told: object) -> tuple[Option, ...]:
    """What may be chosen: objects with a label, or plain texts, as some models write them."""
    each = told if isinstance(told, list) else []
    return tuple(Option(str(one.get("label", one) if isinstance(one, dict) else one)) for one in each)


def _first_question(given: dict[str, Any]) -> dict[str, Any]:
    questions = given.get("questions")
    first = questions[0] if isinstance(questions, list) and questions else given
    return first if isinstance(first, dict) else {}


def words_of(said: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """An answer as the permission tool gives it, to what was asked of it."""
    given = said.get("input")
    given = given if isinstance(given, dict) else {}
    if answer.kind is AnswerKind.DENY:
        told = {"behavior": "deny", "message": answer.text or "a person said no"}
        # The permission tool's answer is claude's, which knows no more of it.
        return {**told, "reason": answer.text} if "reason" in said and answer.own_words else told
    asked = read_ask("", said)
    options = asked.options
    if asked.kind is AskKind.QUESTION:
        text = answer.text
        if answer.kind is AnswerKind.CHOOSE and answer.option is not None and answer.option < len(options):
            text = options[answer.option].label
        return {"behavior": "allow", "updatedInput": {**given, "answers": {asked.text: text}}}
    chosen = answer.option if answer.kind is AnswerKind.CHOOSE else None
    if chosen is not None and not (0 <= chosen < len(options) and options[chosen].meaning is Meaning.ALLOW_ONCE):
        return {"behavior": "deny", "message": "a person said no"}
    return {"behavior": "allow", "updatedInput": given}
