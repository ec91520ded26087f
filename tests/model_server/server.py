"""Sockets, and the steps carried out."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import h11
import trio

from .anthropic import Anthropic
from .book import Book, Entry
from .chat import Chat
from .dialect import SUBMIT, Answer, Asked, Dialect, Failure, prose_edit, tool_call
from .gemini import Gemini
from .responses import Responses
from .script import ANSWERS, ScriptError, Step, decide_step, find_script

SIDE_TEXT = "Work on what was asked"
SIDE_JSON = json.dumps({"next_speaker": "user", "reasoning": "all is said", "title": SIDE_TEXT, "isNewTopic": False})


def find_dialect(path: str) -> Dialect | None:
    """The wire format spoken at a path."""
    if path.endswith("/v1/messages"):
        return Anthropic()
    if path.endswith("/responses"):
        return Responses()
    if path.endswith("/chat/completions"):
        return Chat()
    if path.endswith((":generateContent", ":streamGenerateContent")):
        return Gemini()
    return None


class Exchange:
    """One connection with one request and its answer; it is closed afterwards, which every client understands."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._wire = h11.Connection(h11.SERVER)
        self._head_only = False

    async def receive(self) -> tuple[h11.Request, bytes] | None:
        """The request and its body; None when the client has nothing to say."""
        request, body = None, b""
        while True:
            event = self._wire.next_event()
            if event is h11.NEED_DATA:
                if self._wire.they_are_waiting_for_100_continue:
                    await self._send(h11.InformationalResponse(status_code=100, headers=[]))
                self._wire.receive_data(await self._stream.receive_some())
            elif isinstance(event, h11.Request):
                request = event
                self._head_only = event.method == b"HEAD"
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                return request, body
            else:
                return None

    async def wait_gone(self) -> None:
        """Wait until the client has hung up."""
        while await self._stream.receive_some():
            pass

    async def begin(self, status: int, kind: str, headers: Mapping[str, str] | None = None) -> None:
        """Send the head of an answer."""
        fields = {"content-type": kind, "connection": "close", **(headers or {})}
        await self._send(h11.Response(status_code=status, headers=list(fields.items())))

    async def send(self, data: bytes) -> None:
        """Send a piece of an answer; a client that asked for its head alone gets none."""
        if not self._head_only:
            await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """Send the end of an answer."""
        await self._send(h11.EndOfMessage())

    async def document(self, status: int, document: object, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer in JSON."""
        await self.begin(status, "application/json", headers)
        await self.send(json.dumps(document).encode())
        await self.end()

    async def _send(self, event: h11.Event) -> None:
        await self._stream.send_all(self._wire.send(event) or b"")


async def serve_model(
    book: Book, port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve on loopback; reports its port when it listens."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    task_status.started(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(partial(_serve_connection, book), listeners)


async def _serve_connection(book: Book, stream: trio.SocketStream) -> None:
    exchange = Exchange(stream)
    try:
        received = await exchange.receive()
        if received is None:
            return
        request, body = received
        target = urlsplit(request.target.decode())
        if target.path.startswith("/mock/"):
            await _answer_test(book, exchange, request.method.decode(), target.path, parse_qs(target.query))
            return
        entry = book.enter(request.method.decode(), target.path, time.time())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_notice_gone, exchange, entry, nursery.cancel_scope)
            await _answer_program(book, exchange, entry, body)
            nursery.cancel_scope.cancel()
        book.tell()
    except* (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
        pass  # clients come and go


async def _notice_gone(exchange: Exchange, entry: Entry, scope: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError):
        await exchange.wait_gone()
    if not entry.ended:
        entry.ended = "gone"
    scope.cancel()


async def _answer_test(book: Book, exchange: Exchange, method: str, path: str, query: Mapping[str, list[str]]) -> None:
    """What tests ask of the server itself."""
    first = {name: values[0] for name, values in query.items()}
    conversation = first.get("conversation")
    if path == "/mock/requests":
        at_least, ended = int(first.get("at_least", 0)), int(first.get("ended", 0))
        await exchange.document(200, await book.wait_entries(conversation, at_least, ended))
    elif path.startswith("/mock/requests/"):
        await exchange.document(200, book.entries[int(path.rpartition("/")[2]) - 1].body)
    elif path == "/mock/usage" and conversation:
        await exchange.document(200, book.handed_out(conversation))
    elif path.startswith("/mock/gates/") and method == "POST":
        book.open_gate(path.removeprefix("/mock/gates/"))
        await exchange.document(200, {})
    else:
        await exchange.document(404, {"error": f"there is no {path}"})


async def _answer_program(book: Book, exchange: Exchange, entry: Entry, raw: bytes) -> None:
    """What programs ask."""
    dialect = find_dialect(entry.path) if entry.method == "POST" else None
    try:
        body = json.loads(raw or b"{}")
    except ValueError:
        dialect, body = None, {}
        entry.error = "the body is not JSON"
    entry.body = body
    if dialect is None:
        await _refuse(book, exchange, entry, 404, entry.error or f"there is no {entry.method} {entry.path} here")
        return
    asked = dialect.read(entry.path, body)
    entry.dialect, entry.model, entry.stream = dialect.name, asked.model, asked.stream
    try:
        found = find_script(asked.said)
        if found is None:
            await _refuse(book, exchange, entry, 400, "no [[mock NAME: ...]] in what a user said")
            return
        script, rounds = found
        entry.conversation = script.conversation
        entry.side = asked.helper or not (asked.tools or asked.prose)
        failed = book.failed[script.conversation, str(script.steps)]
        index, step = decide_step(script, rounds, failed)
        if entry.side and step.verb not in ("fail", "quota"):
            # Programs ask for titles and the like in between; those are not held up, but fail as all else does.
            step = Step("say", {"text": SIDE_JSON if asked.schema else SIDE_TEXT})
        entry.step = step.verb
        if step.verb in ("fail", "quota", "cut") and not entry.side:
            failed[index] += 1
        book.tell()
        await _take_step(book, exchange, entry, dialect, asked, step)
    except (ScriptError, LookupError) as error:
        await _refuse(book, exchange, entry, 400, str(error))


async def _take_step(book: Book, exchange: Exchange, entry: Entry, dialect: Dialect, asked: Asked, step: Step) -> None:
    if step.verb == "hang":
        await trio.sleep_forever()
    if step.verb in ("fail", "quota"):
        reset = float(step["reset"]) if step["reset"] else None
        status = int(step["status"] or 429)
        entry.status = status
        document, headers = dialect.failure(Failure(status, reset, quota=step.verb == "quota"), time.time())
        await exchange.document(status, document, headers)
        entry.ended = "sent"
        return
    answer = _answer(book, entry, asked, step)
    entry.status = 200
    if asked.stream:
        kind, (before, after) = "text/event-stream", dialect.stream(answer)
    else:
        kind, (before, after) = "application/json", ([], [json.dumps(dialect.whole(answer)).encode()])
    if before or step.verb != "hold":
        await exchange.begin(200, kind)
        await exchange.send(b"".join(before))
    book.tell()
    if step.verb == "cut":
        entry.ended = "cut"
        return
    if step.verb == "hold":
        await book.wait_gate(step["gate"])
        if not before:
            await exchange.begin(200, kind)
    for event in after[:-2]:
        if step.verb == "slow":
            await trio.sleep(float(step["seconds"]) / len(after))
        await exchange.send(event)
    # Told before it is sent: a program that has all it needs hangs up, whatever is still on its way.
    entry.ended, entry.usage = "sent", answer.usage
    await exchange.send(b"".join(after[-2:]))
    await exchange.end()


def _answer(book: Book, entry: Entry, asked: Asked, step: Step) -> Answer:
    answer = Answer(f"mock_{entry.n}", asked.model, book.next_usage(entry.conversation))
    if asked.submits and step.verb in ANSWERS:
        command = f"echo {SUBMIT} && echo {shlex.quote(step.text)}"
        return attrs.evolve(answer, call=tool_call(Step("run", {"command": command}), asked.tools, f"call_{entry.n}"))
    if step.verb in ANSWERS:
        return attrs.evolve(answer, text=step.text, thought=step["thought"])
    if asked.prose:
        return attrs.evolve(answer, text=prose_edit(step))
    return attrs.evolve(answer, call=tool_call(step, asked.tools, f"call_{entry.n}"))


async def _refuse(book: Book, exchange: Exchange, entry: Entry, status: int, why: str) -> None:
    """Say honestly that there is no scripted answer, to the program and in the log."""
    entry.status, entry.error = status, why
    document: dict[str, Any] = {"type": "error", "error": {"type": "invalid_request_error", "message": why}}
    await exchange.document(status, document)
    entry.ended = "sent"
