"""`/v1/agents`: the agents there are, and whether they can run."""

from __future__ import annotations

from quart import Response

from kasmos.api.access import Routes
from kasmos.api.answers import answer
from kasmos.api.app import the_service
from kasmos.api.questions import Query
from kasmos.daemon.access import Needs

routes = Routes("agents")


@routes.get("/v1/agents", Needs.READ)
async def get_agents() -> Response:
    """Every agent profile, whether its program is there, and if not, why it cannot be used."""
    Query(()).done()
    return answer({"agents": await the_service().list_agents()})
