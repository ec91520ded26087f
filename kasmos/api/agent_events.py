"""What agents say: `/v1/sessions/{id}/agent-events` and `/v1/tasks/{id}/agent-events`, as a page or as a stream.

Every event comes with the place behind it, `cursor`. Who goes on there misses nothing and sees nothing twice, whether
the session lives, has ended, or is in the hands of another supervisor by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quart import Response, request

from kasmos.api import lines
from kasmos.api.access import Routes
from kasmos.api.answers import JSON, answer_encoded, must_accept
from kasmos.api.app import KasmosApp, the_service, this_app
from kasmos.api.body import Body
from kasmos.api.lines import HEARTBEATS, NDJSON, SSE, pieces
from kasmos.api.output import MAX_WAIT
from kasmos.api.questions import DEFAULT_LIMIT, MAX_LIMIT, Query
from kasmos.api.streams import stream_answer
from kasmos.daemon.access import Needs
from kasmos.daemon.service import Service
from kasmos.daemon.transcripts import TranscriptPiece, TranscriptReader, conclusion_wire
from kasmos.exceptions import Mistake, RequestError
from kasmos.model.codec import encode

if TYPE_CHECKING:
    from kasmos.harnesses.placed import Place, PlacedEvent

routes = Routes("agent_events")

STREAM_EVENTS = 100
"""Events that a stream takes at once, at most."""
ENDED = "agent_events_ended"


@routes.get("/v1/sessions/<name>/agent-events", Needs.READ)
async def get_session_agent_events(name: str) -> Response:
    """What a session's agent says and does, as typed events."""
    return await _answer(name, of_task=False)


@routes.get("/v1/tasks/<name>/agent-events", Needs.READ)
async def get_task_agent_events(name: str) -> Response:
    """What a task's agent says and does in its newest session, as typed events."""
    return await _answer(name, of_task=True)


async def _answer(name: str, *, of_task: bool) -> Response:
    query = Query(("cursor", "limit", "wait"))
    place = read_place(query.text("cursor") or request.headers.get("Last-Event-ID", ""), query)
    limit = query.integer("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    wait = query.seconds("wait", MAX_WAIT)
    query.done()
    kind = must_accept(JSON, NDJSON, SSE)
    service = the_service()
    session = service.tasks.newest_session(name) if of_task else service.sessions.get(name)
    reader = service.transcripts.open(session, place)
    if kind != JSON:
        # What is there already, so that a refusal is an answer of its own and not a part of the stream.
        return stream_answer(AgentEventStream(service, reader, await reader.take(STREAM_EVENTS), kind))
    piece = await _take(this_app(), reader, limit, wait)
    if not piece.ended:
        service.transcripts.keep(reader)
    return answer_encoded(_page(service, piece))


def _page(service: Service, piece: TranscriptPiece) -> bytes:
    session = service.world.sessions.get(piece.session_id)
    said = {
        "session_id": piece.session_id,
        "cursor": str(piece.place),
        "lost": piece.lost,
        "ended": piece.ended,
        "conclusion": conclusion_wire(session) if session is not None and piece.ended else None,
    }
    events = b",".join(event_line(piece.session_id, placed) for placed in piece.events)
    return encode(said)[:-1] + b',"events":[' + events + b"]}"


async def _take(app: KasmosApp, reader: TranscriptReader, limit: int, wait: float) -> TranscriptPiece:
    if wait > 0:
        with app.waiting(wait):
            return await reader.take(limit, wait)
    # Also when the wait was over or the server is closing: what there is, is the answer.
    return await reader.take(limit)


def read_place(text: str, query: Query) -> Place:
    """Where to go on; the beginning, if nothing is said."""
    # Late, as all that a daemon does without until there is work.
    from kasmos.harnesses.placed import Place

    try:
        return Place.parse(text) if text else Place()
    except ValueError:
        query.mistakes.append(Mistake("query.cursor", f"{text!r} is not possible", "the cursor of an event"))
        return Place()


def event_line(session_id: str, placed: PlacedEvent) -> bytes:
    """One event with its place, as a JSON object."""
    from kasmos.harnesses.events import render_agent_event

    head = {"type": "agent_event", "session_id": session_id, "offset": placed.offset, "cursor": str(placed.after)}
    return encode(head)[:-1] + b',"event":' + render_agent_event(placed.event) + b"}"


def ended_value(service: Service, piece: TranscriptPiece) -> dict[str, Any]:
    """What is said when nothing follows."""
    session = service.world.sessions.get(piece.session_id)
    return {
        "type": ENDED,
        "session_id": piece.session_id,
        "cursor": str(piece.place),
        "conclusion": conclusion_wire(session) if session is not None else None,
    }


def lost_value(piece: TranscriptPiece) -> dict[str, Any]:
    """What is said where output is gone."""
    return {"type": "output_lost", "session_id": piece.session_id, "lost": piece.lost}


class AgentEventStream(Body):
    """The body of a stream.

    Args:
        service: what is served.
        reader: reads the transcript.
        first: what was read already.
        kind: media type.
    """

    def __init__(self, service: Service, reader: TranscriptReader, first: TranscriptPiece, kind: str) -> None:
        super().__init__(kind)
        self._app = this_app()
        self._service = service
        self._reader = reader
        self._tell(first)

    def close(self) -> None:
        """Nothing is held."""

    async def _refill(self) -> None:
        try:
            # Until the next heartbeat, or until the server closes.
            piece = await _take(self._app, self._reader, STREAM_EVENTS, lines.HEARTBEAT_INTERVAL)
        except RequestError as error:
            self._over = True
            told = {"type": error.code, "session_id": self._reader.session_id, "detail": error.detail}
            self._pieces.extend(pieces(self._line(encode(told), error.code)))
            return
        self._tell(piece)
        if not self._pieces:
            self._over = self._app.closing
            self._pieces.append(HEARTBEATS[self.kind])

    def _tell(self, piece: TranscriptPiece) -> None:
        parts = []
        if piece.lost:
            parts.append(self._line(encode(lost_value(piece)), "output_lost"))
        for placed in piece.events:
            line = event_line(piece.session_id, placed)
            parts.append(self._line(line, "agent_event", str(placed.after)))
        if piece.ended:
            self._over = True
            parts.append(self._line(encode(ended_value(self._service, piece)), ENDED, str(piece.place)))
        self._pieces.extend(pieces(b"".join(parts)))

    def _line(self, line: bytes, kind: str, place: str = "") -> bytes:
        if self.kind == NDJSON:
            return line + b"\n"
        number = b"id: %s\n" % place.encode() if place else b""
        return number + b"event: %s\ndata: %s\n\n" % (kind.encode(), line)
