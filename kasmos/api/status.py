"""`GET /healthz`, `GET /v1/status`, `POST /v1/stop`."""

from __future__ import annotations

from quart import Response

from kasmos import __version__
from kasmos.api.access import Routes
from kasmos.api.answers import answer, answer_with_tag
from kasmos.api.app import the_service, this_app
from kasmos.api.questions import Query, a_flag, a_text, read_body
from kasmos.daemon.access import Needs
from kasmos.daemon.wire import run_wire
from kasmos.exceptions import Mistake, RequestError

routes = Routes("status")


@routes.get("/healthz", Needs.NOTHING)
async def get_health() -> Response:
    """Answer at all: the loop turns, and the journal takes what is written; 503 if it does not."""
    Query(()).done()
    service = the_service()
    verdict = await service.health.check()
    return answer(
        {
            "status": "ok" if verdict.well else "unwell",
            "problems": list(verdict.problems),
            "version": __version__,
            "project": service.project,
            "accepting": service.accepting,
            "seq": service.world.seq,
        },
        200 if verdict.well else 503,
    )


@routes.get("/readyz", Needs.NOTHING)
async def get_ready() -> Response:
    """Whether it takes work: 503 until it has hold of what an earlier one left, and from when it begins to leave."""
    Query(()).done()
    service = the_service()
    ready = service.life.ready and service.accepting
    return answer({"ready": ready, "phase": service.life.phase.value}, 200 if ready else 503)


@routes.get("/v1/status", Needs.READ)
async def get_status() -> Response:
    """The compact snapshot, with an `ETag`."""
    Query(()).done()
    board = this_app().board
    return answer_with_tag(board.tag(), lambda: board.encoded()[0])


@routes.post("/v1/stop", Needs.ADMIN)
async def post_stop() -> Response:
    """End every unfinished run for good; `all` has to be said."""
    Query(()).done()
    body = await read_body({"all": a_flag, "reason": a_text})
    if not body.get("all"):
        mistake = Mistake("$.all", "it is missing", "true, to end every unfinished run")
        raise RequestError(400, "invalid_body", "the body is wrong", [mistake])
    runs = await the_service().runs.cancel_all(body.get("reason", "stopped by request"))
    return answer({"runs": [run_wire(run) for run in runs]}, 202)
