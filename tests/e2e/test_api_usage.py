"""`/v1/usage` and `/v1/accounts`: sums with what is unknown told, and an account that is let go on."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kasmos.model import event as ev
from kasmos.model.usage import FailureKind, Usage, UsageSource
from tests.e2e.api_world import Api, open_api
from tests.e2e.test_api import problem


@pytest.fixture
async def api(root: Path) -> AsyncIterator[Api]:
    """A served API with two sessions, of which one does not say what it cost."""
    async with open_api(root) as api:
        api.orchestrator.start_run()
        for task, cost, day in (("1", 0.5, "2026-05-01"), ("2", None, "2026-05-02")):
            api.orchestrator.start_session("r1", task)
            reported = UsageSource.REPORTED
            usage = Usage(100, 20, cost_usd=cost, source=reported, cost_source=reported)
            api.orchestrator.commit(ev.SessionUsed(f"s-r1-{task}-1", usage, day, turns=2))
        yield api


async def test_usage(api: Api) -> None:
    """Sums come by whatever is asked for, from a day on; with an unknown part they say at least how much."""
    found = (await api.get("/v1/usage?by=day")).json()
    assert [one["key"] for one in found["usage"]] == ["2026-05-01", "2026-05-02"]
    assert found["usage"][0]["cost_usd"] == {"value": 0.5, "source": "reported", "at_least": False, "unknown": 0}
    assert found["usage"][1]["cost_usd"] == {"value": None, "source": "unknown", "at_least": True, "unknown": 1}
    assert (found["total"]["cost_usd"]["value"], found["total"]["cost_usd"]["at_least"]) == (0.5, True)
    assert found["total"]["input_tokens"] == {"value": 200, "source": "reported", "at_least": False, "unknown": 0}
    by_task = (await api.get("/v1/usage?by=task&since=2026-05-02")).json()
    assert [(one["key"], one["turns"]) for one in by_task["usage"]] == [("r1.2", 2)]
    problem(await api.get("/v1/usage?by=moon"), 400, "invalid_query")
    problem(await api.get("/v1/usage?since=yesterday"), 400, "invalid_query")


async def test_accounts(api: Api) -> None:
    """A parked account is seen, needs attention, and is released in the name of who asks."""
    api.orchestrator.commit(ev.AccountParked("work", FailureKind.AUTH, "key refused"))
    [one] = (await api.get("/v1/accounts")).json()["accounts"]
    assert (one["account"], one["parked"], one["kind"], one["until_at"]) == ("work", True, "auth", None)
    [concern] = [one for one in (await api.get("/v1/status")).json()["attention"] if one["kind"] == "account"]
    assert "key refused" in concern["message"]
    assert "kas accounts resume work" in concern["message"]
    response = await api.post("/v1/accounts/work/resume")
    assert (response.status_code, response.json()["parked"]) == (202, False)
    assert api.orchestrator.asked[-1] == ("release_account", "work", getpass.getuser())
    problem(await api.post("/v1/accounts/work/resume"), 409, "conflict")
    problem(await api.post("/v1/accounts/moon/resume"), 404, "unknown_account")
