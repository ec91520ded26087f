"""Streams that can be resumed anywhere: the journal's records as lines, for as long as somebody reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from quart import Response, request
from quart.wrappers.response import IterableBody

from kasmos.api import lines
from kasmos.api.app import this_app
from kasmos.api.body import Body
from kasmos.api.farewell import end_of_stream, farewell_of
from kasmos.api.lines import HEARTBEATS, SSE, pieces, render_gap
from kasmos.api.questions import Query
from kasmos.daemon.bus import Subscription
from kasmos.exceptions import Mistake
from kasmos.model.event import Record

MAX_SEQ = 2**62


class Stream(Body):
    """The body of a stream.

    Every event that is wanted, in order. Where events are missing between two, because history was pruned or cannot
    be read, that is said.
    """

    def __init__(self, subscription: Subscription, kind: str) -> None:
        super().__init__(kind)
        self._app = this_app()
        self.lines = self._app.lines
        self._subscription = subscription
        self._seen = subscription.cursor
        self._put_off_heartbeat()

    # --- what a kind of stream decides ------------------------------------------------

    @property
    def heartbeat(self) -> bytes:
        """What is sent when nothing happens. It has no number: a reader that resumes never sees it as its place."""
        return HEARTBEATS[self.kind]

    async def render(self, record: Record) -> bytes:
        """What is told of an event; nothing if it is not wanted."""
        return self.lines.render(record, self.kind)

    def is_last(self, record: Record) -> bool:
        """Whether the stream ends with this event."""
        return False

    async def beside(self) -> bytes:
        """What is to be told beside the events, as far as it is there already."""
        return b""

    def waits_beside(self) -> Callable[[], Awaitable[None]] | None:
        """Waits until there is more to be told beside the events."""
        return None

    # --- the body ---------------------------------------------------------------------

    def close(self) -> None:
        """Stop listening."""
        self._subscription.close()

    async def _refill(self) -> None:
        before = await self.beside()
        records = await self._next(patient=not before)
        text = before + await self.render_all(records) if records else before
        if text or trio.current_time() >= self._beat_at:
            self._pieces.extend(pieces(text or self.heartbeat))
            self._put_off_heartbeat()

    async def render_all(self, records: Sequence[Record]) -> bytes:
        """What is told of these events, gaps included."""
        parts = []
        for record in records:
            parts.append(self._gap_before(record.seq))
            self._seen = record.seq
            parts.append(await self.render(record))
            if self.is_last(record):
                self._over = True
                break
        return b"".join(parts)

    def _gap_before(self, seq: int) -> bytes:
        """What has to be said before the event with this number, if some before it are missing."""
        return render_gap(self._seen, seq, self.kind) if seq > self._seen + 1 else b""

    def _put_off_heartbeat(self) -> None:
        self._beat_at = trio.current_time() + lines.HEARTBEAT_INTERVAL

    async def _next(self, *, patient: bool) -> Sequence[Record]:
        """The next records; none when it is time for something else."""
        records: Sequence[Record] = self._subscription.take_nowait()
        if records:
            await trio.lowlevel.checkpoint()
            return records
        if self._subscription.is_behind or not patient:
            return await self._subscription.receive_ready()
        records = await self._wait()
        if not records and self._app.closing:
            # What has happened until now is still handed out: a follower sees its run's end.
            records = await self._subscription.receive_ready()
            self._over = not records
        return records

    async def _wait(self) -> Sequence[Record]:
        records: Sequence[Record]
        beside = self.waits_beside()
        if beside is None:
            # Without a timer of its own: one for all nudges whoever waits.
            open_still = self._app.closing or await self._subscription.wait_news()
            records = self._subscription.take_nowait() or await self._subscription.receive_ready()
            self._over = not records and not open_still
            return records
        records = ()
        with self._app.waiting(self._beat_at - trio.current_time()):
            records = await self._wait_for_both(beside)
        return records

    async def _wait_for_both(self, beside: Callable[[], Awaitable[None]]) -> Sequence[Record]:
        found: list[Sequence[Record]] = []
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                found.append(await self._subscription.receive())
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            await beside()
            nursery.cancel_scope.cancel()
        self._over = bool(found) and not found[0]
        return found[0] if found else ()


Straight = Callable[[bytes], Awaitable[None]]
"""Sends bytes on a request's connection as they are."""


class AllEvents(Stream):
    """Every event, rendered once for all who stand at the same place.

    For a crowd, what an event costs is what it costs for each of them: it is written to the connection as a chunk that
    is there already, without a turn through the framework and two protocols. By the time a body is asked for, its head
    has been sent.
    """

    def __init__(self, subscription: Subscription, kind: str) -> None:
        super().__init__(subscription, kind)
        self._straight = straight_of(request.scope) if request.http_version == "1.1" else None

    async def _refill(self) -> None:
        if self._straight is None:
            await super()._refill()
            return
        while True:
            records = await self._next(patient=True)
            if records:
                gap = self._gap_before(records[0].seq)
                chunk = self.lines.render_chunk(records, self.kind)
                self._put_off_heartbeat()
                if gap or len(chunk) > lines.PIECE:
                    # History: it goes out piece by piece, each with a deadline of its own.
                    self._pieces.extend(pieces(await self.render_all(records)))
                    return
                self._seen = records[-1].seq
                await self._straight(chunk)
            elif self._over:
                return
            elif trio.current_time() >= self._beat_at:
                self._pieces.append(self.heartbeat)
                self._put_off_heartbeat()
                return

    async def render_all(self, records: Sequence[Record]) -> bytes:
        gap = self._gap_before(records[0].seq)
        self._seen = records[-1].seq
        return gap + self.lines.render_all(records, self.kind)


def stream_answer(stream: Body, *, status: int = 200, location: str | None = None) -> Response:
    """The answer whose body is this stream; without one for HEAD."""
    response = Response(status=status, content_type=stream.kind)
    response.timeout = None
    response.headers["X-Accel-Buffering"] = "no"
    if location is not None:
        response.headers["Location"] = location
    if request.method == "HEAD":
        stream.close()
    else:
        response.response = IterableBody(stream)
        chunked = request.http_version != "1.0"
        farewell_of(request.scope).words = end_of_stream(sse=stream.kind == SSE, chunked=chunked)
    return response


def straight_of(scope: Any) -> Straight | None:
    """How to send on the connection of a request, past everything that stands above it; None where that cannot be."""
    found = scope.get("state", {}).get("straight")
    return found if callable(found) else None


def read_cursor(query: Query) -> int:
    """Where to resume: the query counts, else what a browser sends by itself, else the beginning."""
    after = query.integer("after", -1, 0, MAX_SEQ)
    cursor = query.integer("cursor", -1, 0, MAX_SEQ)
    if after >= 0 and cursor >= 0 and after != cursor:
        query.mistakes.append(Mistake("query.cursor", "it means the same as after", "one of them"))
    header = request.headers.get("Last-Event-ID", "")
    seen = int(header) if header.isascii() and header.isdecimal() and len(header) < 19 else 0
    return next((number for number in (after, cursor) if number >= 0), seen)
