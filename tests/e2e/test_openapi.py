"""The API describes itself, completely and truly."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kasmos.api.documents import DOCUMENTS
from tests.e2e.api_world import PLAN, Api, FakeOrchestrator, make_app, open_api


@pytest.fixture
async def api(root: Path) -> AsyncIterator[Api]:
    async with open_api(root) as api:
        api.orchestrator.start_run()
        api.orchestrator.start_session("r1", "1")
        yield api


def refs(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(refs(item) for item in value.values()))
    return set().union(*(refs(item) for item in value)) if isinstance(value, list) else set()


def test_every_route_describes_itself() -> None:
    """Exactly the routes there are have a description."""
    operations = make_app(FakeOrchestrator()).admission.operations
    assert {(each.method, each.path) for each in operations} == set(DOCUMENTS)
    assert all(each.handler.__doc__ for each in operations)


async def test_the_description_is_whole(api: Api) -> None:
    """The description is OpenAPI 3.1, and whatever it refers to is in it."""
    response = await api.get("/openapi.json")
    described = response.json()
    assert described["openapi"] == "3.1.0"
    for ref in refs(described):
        found: Any = described
        for part in ref.removeprefix("#/").split("/"):
            found = found[part]
    names = [each["operationId"] for methods in described["paths"].values() for each in methods.values()]
    assert len(names) == len(set(names))


async def test_the_description_says_what_is_asked(api: Api) -> None:
    """The parameters and fields that are described are exactly those that are known."""
    names = {"runs": "r1", "tasks": "r1.1", "sessions": "s-r1-1-1", "approvals": "x"}
    for (method, path), document in DOCUMENTS.items():
        if method == "WEBSOCKET" or path == "/metrics":
            continue
        thing = path.split("/")[2:3]
        url = path.replace("<name>", names.get("".join(thing), ""))
        if method == "GET":
            problem = (await api.get(f"{url}?nonsense=1")).json()
            assert problem["code"] == "invalid_query", url
            known = re.sub("^one of ", "", problem["mistakes"][0]["cure"])
            assert set(known.split(", ")) - {"there are none here"} == set(document.query), url
        elif "<name>" not in path or path.endswith(("cancel", "retry")):
            problem = (await api.post(url, {"nonsense": 1})).json()
            assert problem["code"] == "invalid_body", url
            known = re.sub("^one of ", "", problem["mistakes"][0]["cure"])
            assert set(filter(None, known.split(", "))) == set((document.body or {})["properties"]), url


async def test_the_page_loads_nothing_from_anywhere(api: Api) -> None:
    """`/docs` is one page with everything in it."""
    response = await api.get("/docs")
    assert response.headers["Content-Type"].startswith("text/html")
    assert not re.search(r"(src|href)=|https?://|@import|<script", response.text)
    assert "/v1/tasks/{name}/cancel" in response.text
    assert json.dumps(response.text)


async def test_a_plan_as_markdown(root: Path) -> None:
    """A plan may be handed in as the Markdown it is; what is wrong with it is told as for JSON."""
    async with open_api(root) as api:
        head = {"Content-Type": "text/markdown; charset=utf-8"}
        response = await api.http.post("/v1/runs", content=PLAN.encode(), headers=head)
        assert response.status_code == 202
        assert len((await api.get(response.headers["Location"])).json()["tasks"]) == 2
        response = await api.http.post("/v1/runs", content=b"no plan", headers=head)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_plan")
