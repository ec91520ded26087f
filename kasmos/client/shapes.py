"""What both clients ask and how they read the answers. No I/O."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from kasmos.client.results import AgentEnded, AgentSaid
from kasmos.exceptions import ClientError, Mistake, RequestError
from kasmos.model.agent_event import agent_event_of
from kasmos.model.codec import convert, decode
from kasmos.model.value import frozen

PROBLEM = "application/problem+json"

NDJSON = "application/x-ndjson"

SILENCE = 60.0
"""Seconds of silence after which a stream is given up: the supervisor sends heartbeats more often."""

TIMEOUT = 30.0
"""Seconds for an answer, beyond what a request asks the supervisor to wait."""

PATIENCE = 30.0
"""Seconds for which a stream tries to reach a supervisor again before it gives up."""

FIRST_PAUSE = 0.05
"""Seconds before the second try; each further pause is twice as long."""

LONGEST_PAUSE = 1.0
"""Seconds."""


@frozen
class OutputPiece:
    """A piece of a session's output, and its place in the whole."""

    session_id: str
    data: bytes
    offset: int
    next_offset: int
    lost: int
    """Bytes between what was asked for and `offset` that are gone."""
    ended: bool
    """Nothing will follow."""


def output_path(session: str, offset: int, limit: int, wait: float) -> str:
    """Where a piece of a session's output is read."""
    query = urlencode({"offset": offset, "limit": limit, "wait": f"{wait:g}"})
    return f"/v1/sessions/{quote(session, safe='')}/output?{query}"


def output_piece(header: Callable[[str], str | None], data: bytes) -> OutputPiece:
    """The piece that an answer is.

    Args:
        header: looks up a header of the answer, in whatever case.
        data: the answer's body.

    Raises:
        ClientError: it is something else.
    """

    def need(name: str) -> str:
        value = header(name)
        if value is None:
            raise ValueError(f"without {name}")
        return value

    try:
        return OutputPiece(
            session_id=need("X-Kasmos-Session"),
            data=data,
            offset=int(need("X-Kasmos-Offset")),
            next_offset=int(need("X-Kasmos-Next-Offset")),
            lost=int(need("X-Kasmos-Lost")),
            ended=need("X-Kasmos-Ended") == "true",
        )
    except ValueError as error:
        raise ClientError(f"the supervisor's answer is no output: {error}") from error


def events_path(after: int, run: str | None) -> str:
    """Where events are streamed."""
    query: dict[str, str | int] = {"after": after}
    if run is not None:
        query["run"] = run
    return f"/v1/events?{urlencode(query)}"


def task_events_path(task: str, after: int, output_from: int | None) -> str:
    """Where everything about a task is streamed."""
    query: dict[str, str | int] = {"after": after}
    if output_from is not None:
        query |= {"output": "true", "offset": output_from}
    return f"/v1/tasks/{quote(task, safe='')}/events?{urlencode(query)}"


def agent_events_path(session: str, cursor: str) -> str:
    """Where what a session's agent says is streamed."""
    query = f"?{urlencode({'cursor': cursor})}" if cursor else ""
    return f"/v1/sessions/{quote(session, safe='')}/agent-events{query}"


def read_agent_line(line: bytes | str) -> AgentSaid | AgentEnded | None:
    """What a line of such a stream says; None for a heartbeat, and what only a newer kasmos knows.

    Raises:
        RequestError: its output was removed meanwhile, or never came to where it was to be gone on with.
        CodecError: it is something else.
    """
    said = decode(line, dict[str, Any])
    match said.get("type"):
        case "agent_event":
            return AgentSaid(
                convert(said.get("session_id"), str),
                convert(said.get("offset"), int),
                convert(said.get("cursor"), str),
                agent_event_of(convert(said.get("event"), dict[str, Any])),
            )
        case "agent_events_ended":
            return convert(said, AgentEnded)
        case "output_gone":
            raise RequestError(410, "output_gone", str(said.get("detail", "")))
        case "cursor_ahead":
            raise RequestError(400, "cursor_ahead", str(said.get("detail", "")))
        case _:
            return None


def submission(document: bytes, source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body that submits a plan document. Options that are None are left out."""
    body: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    body["source"] = source
    try:
        body["document"] = document.decode()
    except UnicodeDecodeError:
        # Not for us to judge: the supervisor's parser says what is wrong, and in which line.
        body["document_base64"] = base64.b64encode(document).decode()
    return body


def read_json(data: bytes) -> Any:
    """The JSON of an answer.

    Raises:
        ClientError: it is something else.
    """
    try:
        return json.loads(data) if data else None
    except ValueError as error:
        raise ClientError(f"the supervisor's answer is not JSON: {error}") from error


def refusal(status: int, kind: str, body: bytes) -> RequestError | ClientError:
    """The error that an answer with this status, media type and body tells of."""
    if kind.partition(";")[0].strip() != PROBLEM:
        return ClientError(f"the supervisor answered {status} without saying why")
    try:
        told: dict[str, Any] = json.loads(body)
        mistakes = [
            Mistake(str(item["place"]), str(item["problem"]), str(item.get("cure", "")))
            for item in told.get("mistakes", ())
        ]
        return RequestError(status, str(told["code"]), str(told["detail"]), mistakes)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return ClientError(f"the supervisor answered {status} and its reason cannot be read: {error!r}")
