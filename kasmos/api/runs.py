"""`/v1/runs`: submit a plan, look at its run, let it go on, end it, try again."""

from __future__ import annotations

import base64
import binascii
import os.path
from typing import Any, cast

from quart import Response, request

from kasmos.api.access import Routes
from kasmos.api.answers import answer, page_of
from kasmos.api.app import the_service
from kasmos.api.questions import (
    Query,
    a_count,
    a_duration,
    a_flag,
    a_text,
    a_word,
    read_body,
    some_words,
)
from kasmos.daemon.access import Needs
from kasmos.daemon.terms import STDIN, RunOverrides
from kasmos.daemon.wire import run_detail_wire, run_wire
from kasmos.exceptions import Mistake, RequestError
from kasmos.model.plan import Origin
from kasmos.orchestration.intake import ACCEPT_TIMEOUT

routes = Routes("runs")

MARKDOWN = "text/markdown"
"""A body of this type is the document itself, as if from standard input, with everything as configured."""

_SUBMISSION = {
    "document": a_text,
    "document_base64": a_text,
    "source": a_word,
    "fresh": a_flag,
    "agent": a_word,
    "mode": a_word,
    "max_concurrent": a_count,
    "task_timeout": a_duration,
    "on_failure": a_word,
}


@routes.get("/v1/runs", Needs.READ)
async def get_runs() -> Response:
    """Runs of plans, newest first; `origin=task` has those of tasks that were handed in by themselves."""
    query = Query(("origin", "limit", "cursor"))
    origin, page = query.choice("origin", ("plan", "task", "all"), "plan"), query.page()
    query.done()
    runs = the_service().runs.list(None if origin == "all" else Origin(origin or "plan"))
    return answer(page_of(runs, page, key=lambda run: run.id, render=run_wire, name="runs"))


@routes.post("/v1/runs", Needs.ADMIN)
async def post_run() -> Response:
    """Start, continue or join the run of a plan document: as JSON, or the Markdown itself."""
    Query(()).done()
    if request.mimetype == MARKDOWN:
        document = cast(bytes, await request.get_data(as_text=False))
        body: dict[str, Any] = {"document_base64": base64.b64encode(document).decode()}
    else:
        body = await read_body(_SUBMISSION)
    submitted = await the_service().runs.submit(
        _document(body),
        _source(body),
        fresh=body.get("fresh", False),
        overrides=RunOverrides(
            agent=body.get("agent"),
            mode=body.get("mode"),
            max_concurrent=body.get("max_concurrent"),
            task_timeout=body.get("task_timeout"),
            on_failure=body.get("on_failure"),
        ),
        patience=ACCEPT_TIMEOUT,
    )
    return answer(submitted, 202, location=f"/v1/runs/{submitted.run_id}")


@routes.get("/v1/runs/<name>", Needs.READ)
async def get_run(name: str) -> Response:
    """One run with its tasks."""
    Query(()).done()
    service = the_service()
    return answer(run_detail_wire(service.world, service.runs.get(name)))


@routes.post("/v1/runs/<name>/advance", Needs.ADMIN)
async def post_advance(name: str) -> Response:
    """Let a parked run go on."""
    Query(()).done()
    await read_body({})
    return answer(run_wire(await the_service().runs.advance(name)), 202)


@routes.post("/v1/runs/<name>/continue", Needs.ADMIN)
async def post_continue(name: str) -> Response:
    """Take up a run that was interrupted."""
    Query(()).done()
    await read_body({})
    return answer(run_wire(await the_service().runs.continue_run(name)), 202)


@routes.post("/v1/runs/<name>/cancel", Needs.ADMIN)
async def post_cancel(name: str) -> Response:
    """End a run for good."""
    Query(()).done()
    body = await read_body({"reason": a_text})
    run = await the_service().runs.cancel(name, body.get("reason", "cancelled by request"))
    return answer(run_wire(run), 202)


@routes.post("/v1/runs/<name>/retry", Needs.ADMIN)
async def post_retry(name: str) -> Response:
    """Try tasks again; none named means all that did not succeed."""
    Query(()).done()
    body = await read_body({"tasks": some_words, "resume": a_flag})
    resume = body.get("resume", False)
    return answer(run_wire(await the_service().runs.retry(name, body.get("tasks", ()), resume=resume)), 202)


def _document(body: dict[str, Any]) -> bytes:
    text, encoded = body.get("document"), body.get("document_base64")
    if (text is None) == (encoded is None):
        raise _wrong("document", "one of document and document_base64 is needed")
    if encoded is None:
        return str(text).encode()
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong("document_base64", f"it is not base64: {error}") from error


def _source(body: dict[str, Any]) -> str:
    source: str = body.get("source", STDIN)
    if source != STDIN and (not os.path.isabs(source) or "\0" in source):
        raise _wrong("source", "it is not a path that means the same here", "an absolute path, or -")
    return source


def _wrong(name: str, problem: str, cure: str = "") -> RequestError:
    return RequestError(400, "invalid_body", "the body is wrong", [Mistake(f"$.{name}", problem, cure)])
