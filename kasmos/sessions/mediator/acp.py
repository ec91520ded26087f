"""The Agent Client Protocol, version 1: JSON-RPC as `opencode acp`, `gemini --acp` and `qwen --acp` speak it.

We offer neither files nor terminals: the program uses its own. An option is chosen by its kind and never by its place,
since some list "always" first; "always" is not offered on, what is to be allowed for good is a rule.
"""

from __future__ import annotations

import shlex
from typing import Any

from kasmos.sessions.mediator.books import Books, Tally, find_books
from kasmos.sessions.mediator.link import (
    METHOD_NOT_FOUND,
    MOST_KEPT,
    Link,
    Message,
    Requests,
    dict_of,
    list_of,
    text_of,
    told_of_no,
)

_VERSION = 1
REPLAYED = 0.5
"""Seconds of silence after which a session that was loaded has told what was said in it: gemini goes on telling after
it has said that it is loaded, and what is told later would be taken for this turn's."""
_DONE = ("end_turn", "max_tokens")
_PATHS = ("file_path", "filePath", "filepath", "path", "notebook_path")
_NO_FILES = ("execute", "fetch", "search", "think", "switch_mode")
"""Kinds of tools whose locations are no files that they change or show."""


class AgentClient:
    """Has a program do one prompt; see `Speaker`.

    Args:
        link: to the program and to the supervisor.
        prompt: what is to be done.
        conversation: the session to go on with; empty for a new one.
        cwd: where to work.
    """

    def __init__(self, link: Link, prompt: str, conversation: str, cwd: str) -> None:
        self._link = link
        self._prompt = prompt
        self._conversation = conversation
        self._place: Message = {"cwd": cwd, "mcpServers": []}
        self._requests = Requests()
        self._session = ""
        self._calls: dict[str, Message] = {}
        """What was told of each tool call, by its id: what is asked may say less."""
        self._asked: dict[Any, tuple[list[Any], Message]] = {}
        """What the supervisor is asked: the options and the question, by the request's id."""
        self._reasons: list[str] = []
        """What is to be told when the turn is over: the protocol has no place for a reason in its answer."""
        self._cancelled = False
        self._books = Books()
        self._used: Tally | None = Tally()
        """By the program's own books; None once they were not to be believed."""

    def begin(self) -> None:
        """Introduce ourselves."""
        can = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
        params = {"protocolVersion": _VERSION, "clientCapabilities": can}
        self._request("initialize", params, self._initialized)

    def take(self, message: Message) -> None:
        """Take what the program says."""
        method, params = message.get("method"), dict_of(message.get("params"))
        if type(method) is not str:
            self._requests.respond(message)
        elif "id" in message:
            self._take_request(method, message["id"], params)
        elif method == "session/update":
            self._note_call(dict_of(params.get("update")))
        elif method == "$/cancel_request":
            key = params.get("requestId")
            if type(key) in (int, str) and self._asked.pop(key, None) is not None:
                self._link.withdraw(key)

    def answer(self, key: Any, allowed: bool, words: str = "") -> None:
        """Pass on what the supervisor says, by the option that means it; a reason is told after the turn."""
        options, question = self._asked.pop(key, ([], {}))
        if words and not allowed:
            self._reasons.append(told_of_no(question, words))
        self._select(key, _option(options, "allow_once" if allowed else "reject_once"))

    def interrupt(self) -> bool:
        """Ask for the turn's end; what is still asked is cancelled, as the protocol wants it."""
        if not self._session or self._cancelled:
            return self._cancelled
        self._cancelled = True
        self._link.send({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": self._session}})
        for key in list(self._asked):
            del self._asked[key]
            self._link.withdraw(key)
            self._select(key, None)
        return True

    # -- before the turn ---------------------------------------------------------------------------------

    def _request(self, method: str, params: Message, then: Any, *, hidden: str = "") -> None:
        message = {"jsonrpc": "2.0", "id": self._requests.new(then), "method": method, "params": params}
        shown = {key: value for key, value in params.items() if key != hidden}
        self._link.send(message, {**message, "params": shown})

    def _initialized(self, message: Message) -> None:
        if self._failed(message):
            return
        result = dict_of(message.get("result"))
        name = text_of(dict_of(result.get("agentInfo")).get("name"))
        self._books = find_books(name, self._link.pid)
        if not self._conversation:
            self._request("session/new", self._place, self._opened)
        elif dict_of(result.get("agentCapabilities")).get("loadSession") is not True:
            self._link.end(1, "the program cannot go on with a conversation: it loads no sessions")
        elif pause := self._books.pause(self._conversation):
            why = f"{name} cannot load a conversation in the minute in which it began: waiting {pause:.0f} s"
            self._link.wait(pause, why, self._load)
        else:
            self._load()

    def _load(self) -> None:
        self._request("session/load", {"sessionId": self._conversation, **self._place}, self._opened)

    def _opened(self, message: Message) -> None:
        if self._failed(message):
            return
        # What is loaded keeps its name.
        session = text_of(dict_of(message.get("result")).get("sessionId")) or self._conversation
        if self._conversation:
            self._link.when_silent(REPLAYED, lambda: self._start(session))
        else:
            self._start(session)

    def _start(self, session: str) -> None:
        self._session = session
        if self._conversation:
            self._books.open(session)
        self._link.opened()
        self._say(self._prompt, hidden="prompt")

    def _say(self, text: str, *, hidden: str = "") -> None:
        said = [{"type": "text", "text": text}]
        self._request("session/prompt", {"sessionId": self._session, "prompt": said}, self._done, hidden=hidden)

    def _failed(self, message: Message) -> bool:
        if "error" in message:
            self._link.end(1)
        return "error" in message

    def _done(self, message: Message) -> None:
        if self._failed(message):
            return
        result = dict_of(message.get("result"))
        used = self._books.close(self._session, result)
        self._used = None if used is None or self._used is None else self._used.plus(used)
        if self._reasons and not self._cancelled:
            text, self._reasons = "\n".join(self._reasons), []
            self._say(text)
            return
        if self._used is not None:
            self._link.remark({"usage": self._used._asdict()})
        self._link.end(0 if result.get("stopReason") in _DONE else 1)

    # -- during the turn ---------------------------------------------------------------------------------

    def _note_call(self, update: Message) -> None:
        id_ = text_of(update.get("toolCallId"))
        if not id_:
            return
        if update.get("status") in ("completed", "failed"):
            self._calls.pop(id_, None)
        elif id_ in self._calls or len(self._calls) < MOST_KEPT:
            kept = {
                key: update[key] for key in ("kind", "rawInput", "locations", "content", "title") if update.get(key)
            }
            self._calls[id_] = {**self._calls.get(id_, {}), **kept}

    def _take_request(self, method: str, key: Any, params: Message) -> None:
        if type(key) not in (int, str):
            return
        if method != "session/request_permission":
            words = f"kasmos does not answer {method}"
            self._link.send({"jsonrpc": "2.0", "id": key, "error": {"code": METHOD_NOT_FOUND, "message": words}})
            return
        options = list_of(params.get("options"))
        if self._cancelled:
            self._select(key, None)
            return
        call = dict_of(params.get("toolCall"))
        known = self._calls.get(text_of(call.get("toolCallId")), {})
        told = {key: value for key, value in call.items() if value}
        question = _question({**known, **told}, options)
        self._asked[key] = options, question
        self._link.ask(key, question)

    def _select(self, key: Any, option: str | None) -> None:
        outcome = {"outcome": "cancelled"} if option is None else {"outcome": "selected", "optionId": option}
        self._link.send({"jsonrpc": "2.0", "id": key, "result": {"outcome": outcome}})


def _option(options: list[Any], kind: str) -> str | None:
    """The option of a kind. Without one that refuses, nothing is chosen, which refuses as well."""
    return next((text_of(one.get("optionId")) for one in map(dict_of, options) if one.get("kind") == kind), None)


def _question(call: Message, options: list[Any]) -> Message:
    given, kind = dict_of(call.get("rawInput")), text_of(call.get("kind"))
    title = text_of(call.get("title"))
    command = given.get("command")
    if type(command) is list and all(type(word) is str for word in command):
        command = shlex.join(command)
    if kind == "execute" and type(command) is not str:
        command = title  # gemini tells it nowhere else
    paths = [text_of(given.get(name)) for name in _PATHS]
    if kind not in _NO_FILES:
        paths += [text_of(dict_of(place).get("path")) for place in list_of(call.get("locations"))]
    paths += [text_of(part.get("path")) for part in map(dict_of, list_of(call.get("content"))) if "path" in part]
    told = [title if title != command else "", text_of(given.get("description"))]
    told += [
        text_of(dict_of(part.get("content")).get("text"))
        for part in map(dict_of, list_of(call.get("content")))
        if part.get("type") == "content"
    ]
    return {
        # A title may be anything, the model's own words among it: no rule may go by that.
        "tool_name": kind or "other",
        "input": {"command": command if type(command) is str else "", "description": "\n".join(filter(None, told))},
        "paths": list(dict.fromkeys(filter(None, paths))),
        "choices": [*(["allow_once"] if _option(options, "allow_once") is not None else []), "deny"],
        "tool_use_id": text_of(call.get("toolCallId")),
        "evidence": "agent client protocol",
        "reason": "turn",
    }
