"""Codex's app server: JSON-RPC without its version. One thread, one turn.

What is asked for is decided by `approvalPolicy`. It is `untrusted`, by which codex asks for every command it does not
know to be harmless and for every change of a file, unless the command line names another: as an argument, codex
0.169 takes `untrusted` from no configuration any more, from the client it does.
"""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Sequence
from typing import Any

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

_SHELLS = frozenset(("sh", "bash", "zsh", "dash"))
_ASKED = {
    "item/commandExecution/requestApproval": "command",
    "item/fileChange/requestApproval": "files",
    "item/permissions/requestApproval": "permissions",
    "mcpServer/elicitation/request": "elicitation",
}


class AppServer:
    """Has codex do one prompt; see `Speaker`.

    Args:
        link: to the program and to the supervisor.
        prompt: what is to be done.
        conversation: the thread to go on with; empty for a new one.
        cwd: where to work.
        command: the program's command line.
    """

    def __init__(self, link: Link, prompt: str, conversation: str, cwd: str, command: Sequence[str]) -> None:
        self._link = link
        self._prompt = prompt
        self._conversation = conversation
        self._settings: dict[str, Any] = {"cwd": cwd}
        if not any(word.startswith("approval_policy=") for word in command):
            self._settings["approvalPolicy"] = "untrusted"
        self._requests = Requests()
        self._thread = self._turn = ""
        self._changes: dict[str, list[Any]] = {}
        """What each change of files is about that may be asked about, by its item."""
        self._asked: dict[Any, tuple[str, Message, Message]] = {}
        """What the supervisor is asked: its kind, the request's parameters and the question, by the request's id."""

    def begin(self) -> None:
        """Introduce ourselves."""
        client = {"name": "kasmos", "title": "kasmos", "version": "1"}
        self._request("initialize", {"clientInfo": client}, self._initialized)

    def take(self, message: Message) -> None:
        """Take what codex says."""
        method = message.get("method")
        if type(method) is not str:
            self._requests.respond(message)
        elif "id" in message:
            self._take_request(method, message["id"], dict_of(message.get("params")))
        else:
            self._take_notice(method, dict_of(message.get("params")))

    def answer(self, key: Any, allowed: bool, words: str = "") -> None:
        """Pass on what the supervisor says."""
        kind, params, question = self._asked.pop(key, ("", {}, {}))
        if words and not allowed and self._turn:
            # Before the answer: once that is there, codex asks its model on, and what is steered then comes too late.
            said = [{"type": "text", "text": told_of_no(question, words)}]
            steered = {"threadId": self._thread, "expectedTurnId": self._turn, "input": said}
            self._request("turn/steer", steered, lambda message: None)
        result: Any
        if kind == "permissions":
            result = {"permissions": params.get("permissions") if allowed else {}, "scope": "turn"}
        elif kind == "elicitation":
            result = {"action": "accept", "content": {}} if allowed else {"action": "decline"}
        else:
            result = {"decision": "accept" if allowed else "decline"}
        self._link.send({"id": key, "result": result})

    def interrupt(self) -> bool:
        """Ask for the turn's end."""
        if not self._turn:
            return False
        self._request("turn/interrupt", {"threadId": self._thread, "turnId": self._turn}, lambda message: None)
        return True

    # -- before the turn ---------------------------------------------------------------------------------

    def _request(self, method: str, params: Message, then: Any, *, hidden: str = "") -> None:
        message = {"id": self._requests.new(then), "method": method, "params": params}
        shown = {key: value for key, value in params.items() if key != hidden}
        self._link.send(message, {**message, "params": shown})

    def _initialized(self, message: Message) -> None:
        if self._failed(message):
            return
        self._link.send({"method": "initialized"})
        if self._conversation:
            resumed = {"threadId": self._conversation, "excludeTurns": True, **self._settings}
            self._request("thread/resume", resumed, self._threaded)
        else:
            self._request("thread/start", self._settings, self._threaded)

    def _threaded(self, message: Message) -> None:
        if self._failed(message):
            return
        self._thread = text_of(dict_of(dict_of(message.get("result")).get("thread")).get("id"))
        said = [{"type": "text", "text": self._prompt}]
        self._link.opened()
        self._request("turn/start", {"threadId": self._thread, "input": said}, self._turned, hidden="input")

    def _turned(self, message: Message) -> None:
        if not self._failed(message):
            self._turn = text_of(dict_of(dict_of(message.get("result")).get("turn")).get("id")) or self._turn

    def _failed(self, message: Message) -> bool:
        if "error" in message:
            self._link.end(1)
        return "error" in message

    # -- during the turn ---------------------------------------------------------------------------------

    def _take_notice(self, method: str, params: Message) -> None:
        item = dict_of(params.get("item"))
        match method:
            case "item/started" if item.get("type") == "fileChange" and len(self._changes) < MOST_KEPT:
                self._changes[text_of(item.get("id"))] = list_of(item.get("changes"))
            case "item/completed":
                self._changes.pop(text_of(item.get("id")), None)
            case "serverRequest/resolved":
                key = params.get("requestId")
                if self._is_key(key) and self._asked.pop(key, None) is not None:
                    self._link.withdraw(key)
            case "turn/started" if params.get("threadId") == self._thread:
                self._turn = self._turn or text_of(dict_of(params.get("turn")).get("id"))
            case "turn/completed" if params.get("threadId") == self._thread:
                # A helper of codex may have turns of its own.
                turn = dict_of(params.get("turn"))
                if self._turn in ("", turn.get("id")):
                    self._link.end(0 if turn.get("status") == "completed" else 1)

    @staticmethod
    def _is_key(key: Any) -> bool:
        return type(key) in (int, str)

    def _take_request(self, method: str, key: Any, params: Message) -> None:
        if not self._is_key(key):
            return
        kind = _ASKED.get(method)
        if kind is None:
            words = f"kasmos does not answer {method}"
            self._link.send({"id": key, "error": {"code": METHOD_NOT_FOUND, "message": words}})
            return
        question = {
            "command": _of_command,
            "files": lambda params: _of_files(params, self._changes.get(text_of(params.get("itemId")))),
            "permissions": _of_permissions,
            "elicitation": _of_elicitation,
        }[kind](params)
        id_ = text_of(params.get("itemId"))
        question = {**question, "tool_use_id": id_, "evidence": "app server", "reason": "message"}
        self._asked[key] = kind, params, question
        self._link.ask(key, question)


def _of_command(params: Message) -> Message:
    command = text_of(params.get("command"))
    told = [text_of(params.get("reason"))]
    wider = [name for name in ("networkApprovalContext", "additionalPermissions") if params.get(name)]
    told += [f"{name}: {json.dumps(params[name], sort_keys=True)}" for name in wider]
    decisions = params.get("availableDecisions")
    can_be_allowed = type(decisions) is not list or "accept" in decisions
    return {
        "tool_name": "shell",
        "input": {"command": _unwrapped(command), "description": "\n".join(filter(None, told))},
        "exact": bool(command) and not wider,
        "choices": ["allow_once", "deny"] if can_be_allowed else ["deny"],
    }


def _unwrapped(command: str) -> str:
    """What the shell is handed; codex tells the whole command, quoted."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    if len(words) == 3 and posixpath.basename(words[0]) in _SHELLS and words[1] in ("-c", "-lc"):
        return words[2]
    return command


def _of_files(params: Message, changes: list[Any] | None) -> Message:
    paths: list[str] = []
    for change in map(dict_of, changes or ()):
        paths += filter(None, (text_of(change.get("path")), text_of(dict_of(change.get("kind")).get("move_path"))))
    root = text_of(params.get("grantRoot"))
    told = [text_of(params.get("reason")), f"and to write below {root} from now on" if root else ""]
    return {
        "tool_name": "apply_patch",
        "input": {"description": "\n".join(filter(None, told))},
        "paths": paths,
        "exact": bool(paths) and not root,
    }


def _of_permissions(params: Message) -> Message:
    wanted = json.dumps(params.get("permissions"), sort_keys=True)
    told = "\n".join(filter(None, (text_of(params.get("reason")), wanted)))
    return {"tool_name": "request_permissions", "input": {"description": told}, "exact": False}


def _of_elicitation(params: Message) -> Message:
    """What a server of tools wants to know; only a plain yes can be given."""
    wants_more = bool(dict_of(params.get("requestedSchema")).get("required")) or params.get("mode") == "url"
    return {
        "tool_name": text_of(params.get("serverName")) or "mcp",
        "input": {"description": text_of(params.get("message"))},
        "exact": False,
        "choices": ["deny"] if wants_more else ["allow_once", "deny"],
    }
