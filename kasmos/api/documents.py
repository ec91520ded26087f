"""What each route is asked with and what it answers, as data. A test holds it against the routes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from kasmos.api.answers import JSON
from kasmos.api.lines import NDJSON, SSE
from kasmos.api.output import MAX_BYTES, MAX_OFFSET, MAX_WAIT
from kasmos.api.questions import DEFAULT_LIMIT, MAX_LIMIT
from kasmos.api.sessions import MOST_LINES
from kasmos.api.streams import MAX_SEQ
from kasmos.api.task_body import LABEL, LONGEST_TIMEOUT, MOST_NEEDS, MOST_RETRIES
from kasmos.daemon.agents import AgentWire
from kasmos.daemon.shapes import (
    ApprovalWire,
    ConclusionWire,
    RunDetailWire,
    RunWire,
    SessionWire,
    StatusWire,
    TaskSubmittedWire,
    TaskWire,
)
from kasmos.daemon.spending import GROUPS, AccountWire, UsageWire
from kasmos.daemon.terminals import LARGEST, ScreenWire, SentWire
from kasmos.daemon.terms import Submitted
from kasmos.model.agent_event import AGENT_EVENT_KINDS
from kasmos.model.approval import ApprovalState
from kasmos.model.plan import OnFailure
from kasmos.model.profile import ExecutionMode
from kasmos.model.task import Outcome
from kasmos.model.units import DURATION_PATTERN
from kasmos.model.value import frozen
from kasmos.model.view import SessionState

Schema = dict[str, Any]


@frozen
class Document:
    """What a route is asked with, and what it answers."""

    method: str = "GET"
    answer: type | Schema | None = None
    statuses: tuple[int, ...] = (200,)
    query: Mapping[str, Schema] = attrs.field(factory=dict)
    headers: Mapping[str, Schema] = attrs.field(factory=dict)
    body: Schema | None = None
    takes: tuple[str, ...] = ()
    """Media types other than JSON that its body may have."""
    streams: tuple[str, ...] = ()
    """Media types other than JSON that it may answer with."""
    says: Mapping[int, str] = attrs.field(factory=dict)
    uses: tuple[type, ...] = ()
    """Kinds that the answer's schema refers to."""

    def kinds(self) -> Iterator[type]:
        """Everything that has to be among the components."""
        if isinstance(self.answer, type):
            yield self.answer
        yield from self.uses


def _whole(least: int, most: int, default: int | None = None) -> Schema:
    found: Schema = {"type": "integer", "minimum": least, "maximum": most}
    return found if default is None else {**found, "default": default}


def _word(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def _object(required: tuple[str, ...] = (), **fields: Schema) -> Schema:
    found: Schema = {"type": "object", "properties": fields, "additionalProperties": False}
    return {**found, "required": list(required)} if required else found


def _list_of(name: str, kind: type) -> Schema:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{kind.__name__}"}}
    return {
        "type": "object",
        "properties": {name: items, "next_cursor": {"type": ["string", "null"]}},
        "required": [name],
    }


def _agent_event() -> Schema:
    kind = {"type": "string", "enum": list(AGENT_EVENT_KINDS)}
    return {
        "type": "object",
        "properties": {
            "type": {"const": "agent_event"},
            "session_id": {"type": "string"},
            "offset": {"type": "integer", "minimum": 0, "description": "of the line of output that it comes from"},
            "cursor": {"type": "string", "description": "the place behind it"},
            "event": {"type": "object", "properties": {"type": kind}, "required": ["type"]},
        },
        "required": ["type", "session_id", "offset", "cursor", "event"],
    }


TEXT: Schema = {"type": "string"}
WORD: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
ANY: Schema = {"type": "object"}
DURATION: Schema = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_TIMEOUT},
        {"type": "string", "pattern": DURATION_PATTERN},
    ],
    "description": "seconds, or a text such as 10m",
}
PAGE: Mapping[str, Schema] = {"limit": _whole(1, MAX_LIMIT, DEFAULT_LIMIT), "cursor": TEXT}
PLACE: Mapping[str, Schema] = {"after": _whole(0, MAX_SEQ), "cursor": _whole(0, MAX_SEQ)}
RESUME: Mapping[str, Schema] = {"Last-Event-ID": TEXT}
EMPTY = _object()
TASK_STATUSES = ("queued", "running", "waiting", *(outcome.value for outcome in Outcome))
OUTPUT = Document(
    query={
        "offset": _whole(-MAX_OFFSET, MAX_OFFSET, 0),
        "limit": _whole(1, MAX_BYTES),
        "wait": {"type": "number", "minimum": 0, "maximum": MAX_WAIT},
        "format": _word("raw", "text"),
    },
    streams=("application/octet-stream", "text/plain"),
)
AGENT_EVENTS = Document(
    answer={
        "type": "object",
        "properties": {
            "session_id": TEXT,
            "cursor": {**TEXT, "description": "where to go on"},
            "lost": {"type": "integer", "minimum": 0},
            "ended": FLAG,
            "conclusion": {"anyOf": [{"$ref": "#/components/schemas/ConclusionWire"}, {"type": "null"}]},
            "events": {"type": "array", "items": _agent_event()},
        },
        "required": ["session_id", "cursor", "lost", "ended", "conclusion", "events"],
    },
    uses=(ConclusionWire,),
    query={
        "cursor": {"type": "string", "pattern": r"^[0-9]{1,18}(\.[0-9]{1,9})?$"},
        "limit": _whole(1, MAX_LIMIT, DEFAULT_LIMIT),
        "wait": {"type": "number", "minimum": 0, "maximum": MAX_WAIT},
    },
    headers=RESUME,
    streams=(JSON, NDJSON, SSE),
    says={200: "A page of them; or all of them, as a stream, until the session has ended."},
)
CHECK: Schema = {"anyOf": [WORD, _object(("command",), command=WORD, timeout=DURATION)]}
TASK_BODY = _object(
    ("prompt",),
    prompt={"type": "string", "pattern": r"\S"},
    agent=WORD,
    model={"type": "string", "minLength": 1, "maxLength": 256},
    context={"type": "object", "description": "for the program: a file named in KASMOS_CONTEXT"},
    context_in_prompt={**FLAG, "description": "show it to the agent as well"},
    workdir=WORD,
    timeout=DURATION,
    retries=_whole(0, MOST_RETRIES),
    checks={"type": "array", "items": CHECK},
    env={"type": "object", "additionalProperties": TEXT},
    needs={"type": "array", "items": WORD, "maxItems": MOST_NEEDS},
    name={"type": "string", "pattern": f"^{LABEL.pattern}$"},
    **{"continue": {**WORD, "description": "a task whose program's conversation it goes on with"}},
    stream={**FLAG, "description": "answer with a stream of everything about it"},
)
RUN_BODY = _object(
    document=TEXT,
    document_base64=TEXT,
    source={"type": "string", "pattern": r"^(-|/[^\u0000]*)$"},
    fresh=FLAG,
    agent=WORD,
    mode=_word(*ExecutionMode),
    max_concurrent=_whole(1, 10_000),
    task_timeout=DURATION,
    on_failure=_word(*OnFailure),
)


def _get(answer: type | Schema | None = None, **facts: Any) -> Document:
    return Document(answer=answer, **facts)


def _pages(name: str, kind: type, **query: Schema) -> Document:
    return Document(answer=_list_of(name, kind), uses=(kind,), query={**query, **PAGE})


def _post(
    answer: type | Schema | None, body: Schema = EMPTY, statuses: tuple[int, ...] = (202,), **facts: Any
) -> Document:
    return Document(method="POST", answer=answer, body=body, statuses=statuses, **facts)


DOCUMENTS: Mapping[tuple[str, str], Document] = {
    ("GET", "/healthz"): _get(ANY, statuses=(200, 503), says={503: "It is not well: `problems` says why."}),
    ("GET", "/readyz"): _get(ANY, statuses=(200, 503), says={503: "Not yet, or not any more."}),
    ("GET", "/metrics"): _get(streams=("text/plain",)),
    ("GET", "/openapi.json"): _get(ANY),
    ("GET", "/docs"): _get(streams=("text/html",)),
    ("GET", "/v1/status"): _get(StatusWire, statuses=(200, 304), headers={"If-None-Match": TEXT}),
    ("POST", "/v1/stop"): _post(
        {"type": "object", "properties": {"runs": {"type": "array"}}},
        _object(("all",), all={"const": True}, reason=TEXT),
    ),
    ("GET", "/v1/agents"): _get(_list_of("agents", AgentWire), uses=(AgentWire,)),
    ("GET", "/v1/runs"): _pages("runs", RunWire, origin=_word("plan", "task", "all")),
    ("POST", "/v1/runs"): _post(Submitted, RUN_BODY, takes=("text/markdown",)),
    ("GET", "/v1/runs/<name>"): _get(RunDetailWire),
    ("POST", "/v1/runs/<name>/advance"): _post(RunWire),
    ("POST", "/v1/runs/<name>/continue"): _post(RunWire),
    ("POST", "/v1/runs/<name>/cancel"): _post(RunWire, _object(reason=TEXT)),
    ("POST", "/v1/runs/<name>/retry"): _post(RunWire, _object(tasks={"type": "array", "items": WORD}, resume=FLAG)),
    ("GET", "/v1/tasks"): _pages("tasks", TaskWire, run=TEXT, status=_word(*TASK_STATUSES), agent=TEXT),
    ("POST", "/v1/tasks"): _post(
        TaskSubmittedWire,
        TASK_BODY,
        (200, 202),
        headers={"Idempotency-Key": {"type": "string", "minLength": 1, "maxLength": 255}},
        streams=(NDJSON, SSE),
        says={200: "A stream of everything about it, until it has ended.", 202: "It was accepted."},
    ),
    ("GET", "/v1/tasks/<name>"): _get(TaskWire),
    ("GET", "/v1/tasks/<name>/events"): _get(
        query={**PLACE, "output": _word("true", "false"), "offset": _whole(0, MAX_SEQ)},
        headers=RESUME,
        streams=(NDJSON, SSE),
    ),
    ("GET", "/v1/tasks/<name>/output"): OUTPUT,
    ("GET", "/v1/tasks/<name>/agent-events"): AGENT_EVENTS,
    ("POST", "/v1/tasks/<name>/cancel"): _post(TaskWire),
    ("POST", "/v1/tasks/<name>/retry"): _post(TaskWire, _object(resume=FLAG)),
    ("POST", "/v1/tasks/<name>/attach"): _post(
        TaskWire,
        _object(now=FLAG, check={**FLAG, "description": "only tell whether it may be"}),
        (200, 202),
        says={200: "It may be.", 202: "It comes to pass when its turn has ended."},
    ),
    ("POST", "/v1/tasks/<name>/detach"): _post(TaskWire, _object(prompt=TEXT, done=FLAG, now=FLAG)),
    ("GET", "/v1/sessions"): _pages(
        "sessions",
        SessionWire,
        run=TEXT,
        status=_word(*dict.fromkeys(("waiting", *(state.value for state in SessionState)))),
        live=_word("true", "false"),
    ),
    ("GET", "/v1/sessions/<name>"): _get(SessionWire),
    ("GET", "/v1/sessions/<name>/output"): OUTPUT,
    ("GET", "/v1/sessions/<name>/agent-events"): AGENT_EVENTS,
    ("GET", "/v1/sessions/<name>/screen"): _get(
        ScreenWire,
        query={
            "ansi": _word("true", "false"),
            "start": _whole(-MOST_LINES, MOST_LINES),
            "end": _whole(-MOST_LINES, MOST_LINES),
        },
    ),
    ("GET", "/v1/sessions/<name>/explain"): _get(ANY),
    ("POST", "/v1/sessions/<name>/stop"): _post(SessionWire),
    ("POST", "/v1/sessions/<name>/keys"): _post(
        ANY, _object(("keys",), keys={"anyOf": [WORD, {"type": "array", "items": WORD, "minItems": 1}]}), (200,)
    ),
    ("POST", "/v1/sessions/<name>/input"): _post(
        SentWire, _object(("text",), text=TEXT, enter=FLAG, wait=FLAG, force=FLAG), (200,)
    ),
    ("POST", "/v1/sessions/<name>/resize"): _post(
        ANY, _object(("width", "height"), width=_whole(1, LARGEST), height=_whole(1, LARGEST)), (200,)
    ),
    ("POST", "/v1/sessions/<name>/permission"): _post(ANY, _object(("choice",), choice=WORD), (200,)),
    ("GET", "/v1/approvals"): _pages("approvals", ApprovalWire, status=_word("all", *ApprovalState)),
    ("GET", "/v1/approvals/<name>"): _get(ApprovalWire),
    ("POST", "/v1/approvals/<name>"): _post(
        ApprovalWire,
        _object(("decision",), decision=WORD, reason=TEXT, option=_whole(1, 1000), text=TEXT),
        (200, 202),
        says={202: "The session has not taken the answer yet."},
    ),
    ("GET", "/v1/usage"): _get(UsageWire, query={"by": _word(*GROUPS), "since": {"type": "string", "format": "date"}}),
    ("GET", "/v1/accounts"): _get(_list_of("accounts", AccountWire), uses=(AccountWire,)),
    ("POST", "/v1/accounts/<name>/resume"): _post(AccountWire),
    ("GET", "/v1/events"): _get(query={**PLACE, "run": TEXT}, headers=RESUME, streams=(NDJSON, SSE)),
    ("WEBSOCKET", "/v1/ws"): Document(),
    ("GET", "/v1/daemon"): _get(ANY),
    ("POST", "/v1/daemon/stop"): _post(ANY, _object(drain=FLAG, timeout={"type": "number", "minimum": 0}, stop=FLAG)),
    ("POST", "/v1/daemon/reload"): _post(ANY, statuses=(200,)),
}
