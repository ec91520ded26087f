"""`/v1/events` and `/v1/tasks/{id}/events`: the journal as a stream that can be resumed anywhere.

Every event has its journal number. A client that comes back with the last number it saw, as
`after`, `cursor` or `Last-Event-ID`, misses nothing and sees nothing twice.
"""

from __future__ import annotations

from quart import Response

from kasmos.api.access import Routes
from kasmos.api.answers import must_accept
from kasmos.api.app import the_service
from kasmos.api.lines import NDJSON, SSE
from kasmos.api.questions import Query
from kasmos.api.streams import MAX_SEQ, AllEvents, Stream, read_cursor, stream_answer
from kasmos.api.task_stream import TaskStream
from kasmos.daemon.access import Needs
from kasmos.daemon.bus import Subscription
from kasmos.daemon.service import Service
from kasmos.model.event import Record

routes = Routes("events")


@routes.get("/v1/events", Needs.READ)
async def get_events() -> Response:
    """Every event, or every event about one run, until the client leaves."""
    query = Query(("after", "cursor", "run"))
    after, run = read_cursor(query), query.text("run")
    query.done()
    kind = must_accept(NDJSON, SSE)
    service = the_service()
    run_id = service.runs.get(run).id if run is not None else None
    subscription = await service.subscribe(after)
    return stream_answer(
        AllEvents(subscription, kind) if run_id is None else _RunStream(subscription, kind, service, run_id)
    )


@routes.get("/v1/tasks/<name>/events", Needs.READ)
async def get_task_events(name: str) -> Response:
    """Every event about one task, until it has ended."""
    query = Query(("after", "cursor", "output", "offset"))
    after, output = read_cursor(query), query.choice("output", ("true", "false"))
    offset = query.integer("offset", 0, 0, MAX_SEQ)
    query.done()
    kind = must_accept(NDJSON, SSE)
    service = the_service()
    task = service.tasks.get(name)
    subscription = await service.subscribe(after)
    return stream_answer(TaskStream(service, subscription, kind, task, output=output == "true", offset=offset))


class _RunStream(Stream):
    """Every event about one run."""

    def __init__(self, subscription: Subscription, kind: str, service: Service, run_id: str) -> None:
        super().__init__(subscription, kind)
        self._service = service
        self._run_id = run_id

    async def render(self, record: Record) -> bytes:
        return self.lines.render(record, self.kind) if self._service.concerns(record, self._run_id) else b""
