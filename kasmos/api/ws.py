"""`/v1/ws`: events, and output and agents' events of named sessions, over one WebSocket; what is wanted is said, and
unsaid, at any time.

Every message is a JSON object. What nobody reads is not heaped up: a slow reader holds up its own subscriptions alone,
and is dropped when it takes nothing for `server.SEND_TIMEOUT`, with code 1013 and the reason.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio
from quart import websocket

from kasmos.api.access import Routes
from kasmos.api.agent_events import STREAM_EVENTS, ended_value, event_line, lost_value
from kasmos.api.app import KasmosApp, the_service, this_app
from kasmos.api.farewell import end_of_websocket, farewell_of
from kasmos.api.lines import HEARTBEAT_INTERVAL, HEARTBEATS, NDJSON, render_gap
from kasmos.api.streams import MAX_SEQ
from kasmos.daemon.access import Needs
from kasmos.daemon.service import Service
from kasmos.daemon.transcripts import TranscriptReader
from kasmos.exceptions import KasmosError, RequestError
from kasmos.model.codec import CodecError, decode, encode

if TYPE_CHECKING:
    from kasmos.harnesses.placed import Place

routes = Routes("ws")

MAX_SUBSCRIPTIONS = 64
"""Of one connection."""
OUTPUT_PIECE = 16_384
OUTPUT_WAIT = 30.0
"""Seconds after which it is looked anew whether there is output."""
GOING_AWAY = 1001


@routes.websocket("/v1/ws", Needs.READ)
async def open_socket() -> None:
    """Events and output, as they are subscribed to."""
    await _Conversation(this_app(), the_service()).hold()


class _Conversation:
    """One connection: what is subscribed to, and one message at a time."""

    def __init__(self, app: KasmosApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._scopes: dict[str, trio.CancelScope] = {}
        self._sending = trio.Lock()

    async def hold(self) -> None:
        """Listen until the client leaves, or the supervisor does."""
        farewell_of(websocket.scope).words = end_of_websocket()
        with self._app.waiting(math.inf):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat)
                while not self._app.closing:
                    await self._take(await websocket.receive(), nursery)
        await websocket.close(GOING_AWAY, "the supervisor leaves")

    async def _take(self, text: str | bytes, nursery: trio.Nursery) -> None:
        try:
            said = decode(text, dict[str, Any])
            name, work = self._understand(said)
        except CodecError as error:
            await self._refuse(RequestError(400, "invalid_json", f"no JSON object: {error}"), "")
            return
        except RequestError as error:
            await self._refuse(error, _named(said))
            return
        if work is None:
            scope = self._scopes.pop(name, None)
            if scope is not None:
                scope.cancel()
            await self._send({"type": "unsubscribed", "name": name})
        elif name in self._scopes or len(self._scopes) >= MAX_SUBSCRIPTIONS:
            detail = f"{name} is subscribed to already" if name in self._scopes else "there are too many subscriptions"
            await self._refuse(RequestError(409, "conflict", detail), name)
        else:
            scope = self._scopes[name] = trio.CancelScope()
            await self._send({"type": "subscribed", "name": name})
            nursery.start_soon(self._run, name, scope, work)

    def _understand(self, said: dict[str, Any]) -> tuple[str, Callable[[], Awaitable[None]] | None]:
        """The name of the subscription that is meant, and what is to be done for it; None ends it."""
        verb = next((verb for verb in ("subscribe", "unsubscribe") if verb in said), None)
        what = said.get(verb or "")
        if what not in ("events", "output", "agent_events"):
            detail = 'expected {"subscribe": "events", "output" or "agent_events", ...}, or unsubscribe'
            raise RequestError(400, "invalid_message", detail)
        if what == "events":
            after, run = _number(said, "after"), said.get("run")
            run_id = self._service.runs.get(str(run)).id if run is not None and verb == "subscribe" else None
            return "events", (lambda: self._events(after, run_id)) if verb == "subscribe" else None
        view = self._service.sessions.get(str(said.get("session", "")))
        session = view.id
        if what == "agent_events":
            reader = self._service.transcripts.open(view, _place(said)) if verb == "subscribe" else None
            return f"agent_events {session}", None if reader is None else lambda: self._agent_events(reader)
        offset = _number(said, "offset")
        return f"output {session}", (lambda: self._output(session, offset)) if verb == "subscribe" else None

    async def _run(self, name: str, scope: trio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
        try:
            with scope:
                await work()
        except KasmosError as error:
            known = error if isinstance(error, RequestError) else RequestError(409, "conflict", str(error))
            await self._refuse(known, name)
        finally:
            if self._scopes.get(name) is scope:
                del self._scopes[name]

    async def _events(self, after: int, run_id: str | None) -> None:
        async with await self._service.subscribe(after) as subscription:
            seen = after
            async for records in subscription:
                for record in records:
                    if record.seq > seen + 1:
                        await self._send_text(render_gap(seen, record.seq, NDJSON))
                    seen = record.seq
                    if run_id is None or self._service.concerns(record, run_id):
                        await self._send_text(self._app.lines.line(record))

    async def _output(self, session: str, offset: int) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            output = await self._service.sessions.read_output(session, offset, OUTPUT_PIECE, OUTPUT_WAIT)
            chunk = output.chunk
            if chunk.data or chunk.lost or output.ended:
                await self._send(
                    {
                        "type": "output",
                        "session_id": session,
                        "offset": chunk.offset,
                        "next_offset": chunk.end,
                        "lost": chunk.lost,
                        "text": decoder.decode(chunk.data, final=output.ended),
                        "ended": output.ended,
                    }
                )
            offset = chunk.end
            if output.ended:
                return

    async def _agent_events(self, reader: TranscriptReader) -> None:
        while True:
            piece = await reader.take(STREAM_EVENTS, OUTPUT_WAIT)
            if piece.lost:
                await self._send(lost_value(piece))
            for placed in piece.events:
                await self._send_text(event_line(piece.session_id, placed))
            if piece.ended:
                await self._send(ended_value(self._service, piece))
                return

    async def _beat(self) -> None:
        while True:
            await trio.sleep(HEARTBEAT_INTERVAL)
            await self._send_text(HEARTBEATS[NDJSON])

    async def _refuse(self, error: RequestError, name: str) -> None:
        """Say what is wrong, and with which subscription."""
        said = {"type": "error", "name": name, "status": error.status, "code": error.code, "detail": error.detail}
        await self._send(said)

    async def _send(self, message: dict[str, Any]) -> None:
        await self._send_text(encode(message))

    async def _send_text(self, line: bytes) -> None:
        async with self._sending:
            await websocket.send(line.decode().rstrip("\n"))


def _named(said: dict[str, Any]) -> str:
    """What the subscription is called that a message is about, as far as it says so."""
    what = said.get("subscribe", said.get("unsubscribe"))
    if what in ("output", "agent_events"):
        return f"{what} {said.get('session', '')}"
    return "events" if what == "events" else ""


def _place(said: dict[str, Any]) -> Place:
    from kasmos.harnesses.placed import Place

    try:
        return Place.parse(str(said["cursor"])) if said.get("cursor") else Place()
    except ValueError as error:
        raise RequestError(400, "invalid_message", f"cursor: {error}") from error


def _number(said: dict[str, Any], name: str) -> int:
    value = said.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SEQ:
        raise RequestError(400, "invalid_message", f"{name} has to be a whole number from 0 on")
    return value
