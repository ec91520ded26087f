"""`GET /healthz`, `GET /v1/status`, `POST /v1/stop`."""

from __future__ import annotations

from quart import Blueprint, Response

from kasmos import __version__
from kasmos.api.answers import answer, answer_with_tag
from kasmos.api.app import the_service, this_app
from kasmos.api.questions import Query, a_flag, a_text, read_body
from kasmos.daemon.wire import run_wire
from kasmos.exceptions import Mistake, RequestError

routes = Blueprint("status", __name__)


@routes.get("/healthz")
async def get_health() -> Response:
    """Answer at all: the loop turns."""
    Query(()).done()
    service = the_service()
    return answer(
        {
            "status": "ok",
            "version": __version__,
            "project": service.project,
            "accepting": service.accepting,
            "seq": service.world.seq,
        }
    )


@routes.get("/v1/status")
async def get_status() -> Response:
    """The compact snapshot, with an `ETag`."""
    Query(()).done()
    return answer_with_tag(this_app().board.encoded())


@routes.post("/v1/stop")
async def post_stop() -> Response:
    """End every unfinished run for good; `all` has to be said."""
    Query(()).done()
    body = await read_body({"all": a_flag, "reason": a_text})
    if not body.get("all"):
        mistake = Mistake("$.all", "it is missing", "true, to end every unfinished run")
        raise RequestError(400, "invalid_body", "the body is wrong", [mistake])
    runs = await the_service().cancel_all(body.get("reason", "stopped by request"))
    return answer({"runs": [run_wire(run) for run in runs]}, 202)
