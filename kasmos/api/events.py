"""`/v1/events` and `/v1/tasks/{id}/events`: the journal as a stream that can be resumed anywhere.

Every event has its journal number. A client that comes back with the last number it saw, as
`after`, `cursor` or `Last-Event-ID`, misses nothing and sees nothing twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import trio
from quart import Blueprint, Response, request
from quart.wrappers.response import IterableBody

from kasmos.api.answers import must_accept
from kasmos.api.app import KasmosApp, the_service, this_app
from kasmos.api.lines import HEARTBEATS, NDJSON, SSE, pieces
from kasmos.api.questions import Query
from kasmos.daemon.bus import Subscription
from kasmos.exceptions import Mistake
from kasmos.model.event import Record, TaskEnded
from kasmos.model.view import Ended

routes = Blueprint("events", __name__)

HEARTBEAT_INTERVAL = 15.0
"""Seconds of silence after which a reader is told that we are still there."""

MAX_SEQ = 2**62

Wanted = Callable[[Record], bool]


@routes.get("/v1/events")
async def get_events() -> Response:
    """Every event, or every event about one run, until the client leaves."""
    query = Query(("after", "cursor", "run"))
    after, run = _after(query), query.text("run")
    query.done()
    service = the_service()
    run_id = service.get_run(run).id if run is not None else None

    def wanted(record: Record) -> bool:
        return run_id is None or service.concerns(record, run_id)

    return await _stream(after, wanted, lambda record: False)


@routes.get("/v1/tasks/<name>/events")
async def get_task_events(name: str) -> Response:
    """Every event about one task, until it has ended."""
    query = Query(("after", "cursor"))
    after = _after(query)
    query.done()
    service = the_service()
    task = service.get_task(name)
    run_id, task_id = task.run_id, task.spec.id

    def wanted(record: Record) -> bool:
        return service.concerns(record, run_id, task_id)

    def last(record: Record) -> bool:
        # An end that a retry has undone is not the last one.
        present = service.world.runs[run_id].tasks[task_id]
        return isinstance(record.event, TaskEnded) and isinstance(present.state, Ended)

    return await _stream(after, wanted, last)


def _after(query: Query) -> int:
    """Where to resume: the query counts, else what a browser sends by itself, else the beginning."""
    after = query.integer("after", -1, 0, MAX_SEQ)
    cursor = query.integer("cursor", -1, 0, MAX_SEQ)
    if after >= 0 and cursor >= 0 and after != cursor:
        query.mistakes.append(Mistake("query.cursor", "it means the same as after", "one of them"))
    header = request.headers.get("Last-Event-ID", "")
    seen = int(header) if header.isascii() and header.isdecimal() and len(header) < 19 else 0
    return next((number for number in (after, cursor) if number >= 0), seen)


async def _stream(after: int, wanted: Wanted, last: Wanted) -> Response:
    kind = must_accept(NDJSON, SSE)
    subscription = await the_service().subscribe(after)
    response = Response(content_type=kind)
    response.timeout = None
    response.headers["X-Accel-Buffering"] = "no"
    if request.method == "HEAD":
        subscription.close()
    else:
        response.response = IterableBody(_Lines(this_app(), subscription, kind, wanted, last))
    return response


class _Lines:
    """The body of a stream: wanted events as text, piece by piece. Closed by Quart, however the stream ends."""

    def __init__(self, app: KasmosApp, subscription: Subscription, kind: str, wanted: Wanted, last: Wanted) -> None:
        self._app = app
        self._subscription = subscription
        self._kind = kind
        self._wanted = wanted
        self._last = last
        self._pieces: deque[bytes] = deque()
        self._over = False
        self._put_off_heartbeat()

    def __aiter__(self) -> _Lines:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._over:
                raise StopAsyncIteration
            await self._refill()
        return self._pieces.popleft()

    async def aclose(self) -> None:
        """Stop listening."""
        self._subscription.close()

    async def _refill(self) -> None:
        records = await self._next()
        if records is None:
            self._over = True
            return
        chosen = [record for record in records if self._wanted(record)]
        end = next((i for i, record in enumerate(chosen, 1) if self._last(record)), None)
        self._over = end is not None
        text = b"".join(self._app.lines.render(record, self._kind) for record in chosen[:end])
        if text or trio.current_time() >= self._beat_at:
            self._pieces.extend(pieces(text or HEARTBEATS[self._kind]))
            self._put_off_heartbeat()

    def _put_off_heartbeat(self) -> None:
        self._beat_at = trio.current_time() + HEARTBEAT_INTERVAL

    async def _next(self) -> Sequence[Record] | None:
        """The next records; none when it is time for a heartbeat; None when the stream is to end."""
        records: Sequence[Record] | None = ()
        with self._app.waiting(self._beat_at - trio.current_time()):
            # Empty only when the bus is closed.
            records = await self._subscription.receive() or None
        if not records and self._app.closing:
            # What has happened until now is still handed out: a follower sees its run's end.
            return await self._subscription.receive_ready() or None
        return records
