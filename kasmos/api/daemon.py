"""`/v1/daemon`: what kind of supervisor this is, how to make it leave, and how to make it read its configuration."""

from __future__ import annotations

import math
import os

from quart import Response

from kasmos import __version__
from kasmos.api.access import Routes
from kasmos.api.answers import answer
from kasmos.api.app import the_service
from kasmos.api.questions import Query, a_flag, read_body
from kasmos.daemon.access import Needs
from kasmos.daemon.leaving import count_waiting
from kasmos.daemon.life import StopOrder
from kasmos.daemon.service import Service

routes = Routes("daemon")


@routes.get("/v1/daemon", Needs.READ)
async def get_daemon() -> Response:
    """How it stands with the daemon."""
    Query(()).done()
    service = the_service()
    verdict = await service.health.check()
    return answer({**_standing(service), "healthy": verdict.well, "problems": list(verdict.problems)})


@routes.post("/v1/daemon/stop", Needs.ADMIN)
async def post_stop() -> Response:
    """Make it leave: at once, or with `drain` when what runs has ended; `timeout` seconds are waited for that.

    `stop` decides about what runs then: stopped, or left running for the next daemon. Unsaid, the configuration does.
    """
    Query(()).done()
    body = await read_body({"drain": a_flag, "timeout": _seconds, "stop": a_flag})
    service = the_service()
    service.life.request_stop(
        StopOrder(body.get("drain", False), body.get("timeout"), body.get("stop"), "asked for by `kas daemon stop`")
    )
    return answer(_standing(service), 202)


@routes.post("/v1/daemon/reload", Needs.ADMIN)
async def post_reload() -> Response:
    """Make it read its configuration again; a wrong one is refused with every mistake, and nothing changes."""
    Query(()).done()
    await read_body({})
    change = await the_service().life.reload()
    return answer(
        {"applied": list(change.applied), "needs_restart": list(change.restart), "warnings": list(change.warnings)}
    )


def _standing(service: Service) -> dict[str, object]:
    world, life = service.world, service.life
    live = [session for session in world.sessions.values() if session.state.live]
    return {
        "daemon": life.daemon,
        "phase": life.phase.value,
        "ready": life.ready,
        "pid": os.getpid(),
        "version": __version__,
        "project": service.project,
        "workspace": service.workspace,
        "addresses": list(life.addresses),
        "running": len(live),
        "queued": count_waiting(world),
        "seq": world.seq,
    }


def _seconds(value: object) -> str:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    return "" if fits else "a number of seconds"
