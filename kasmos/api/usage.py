"""`/v1/usage` and `/v1/accounts`: what was used, and which accounts may be used."""

from __future__ import annotations

import datetime
import time

from quart import Response

from kasmos.api.access import Routes
from kasmos.api.answers import answer
from kasmos.api.app import the_service
from kasmos.api.approvals import who_asks
from kasmos.api.questions import Query, read_body
from kasmos.daemon.access import Needs
from kasmos.daemon.spending import GROUPS, account_wire, usage_wire
from kasmos.exceptions import Mistake, RequestError

routes = Routes("usage")


@routes.get("/v1/usage", Needs.READ)
async def get_usage() -> Response:
    """What was used, `by` session, task, run, agent, account or day, `since` a day."""
    query = Query(("by", "since"))
    by = query.choice("by", GROUPS, "day") or "day"
    since = query.text("since")
    query.done()
    if since is not None and not _is_day(since):
        mistake = Mistake("query.since", f"{since!r} is no day", "a date such as 2026-05-01")
        raise RequestError(400, "invalid_query", "the query is wrong", [mistake])
    return answer(usage_wire(the_service().world, by, since))


def _is_day(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


@routes.get("/v1/accounts", Needs.READ)
async def get_accounts() -> Response:
    """Every account that was used, and whether anything is started on it."""
    Query(()).done()
    views = the_service().world.accounts.values()
    return answer({"accounts": [account_wire(view, time.time()) for view in views]})


@routes.post("/v1/accounts/<name>/resume", Needs.ADMIN)
async def post_resume(name: str) -> Response:
    """Let a parked account be used again."""
    Query(()).done()
    await read_body({})
    return answer(account_wire(await the_service().release_account(name, who_asks()), time.time()), 202)
