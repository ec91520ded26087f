"""`/v1/approvals`: what waits for a person, answered once, with every mistake told."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kasmos.model import event as ev
from kasmos.model.approval import Answer, AnswerKind, Ask, AskKind, Meaning, Option
from tests.e2e.api_world import Api, open_api
from tests.e2e.test_api import problem

OPTIONS = (Option("Yes", Meaning.ALLOW_ONCE), Option("No", Meaning.DENY))


@pytest.fixture
async def api(root: Path) -> AsyncIterator[Api]:
    """A served API with a session that asks two things."""
    async with open_api(root) as api:
        api.orchestrator.start_run()
        api.orchestrator.start_session("r1", "1")
        rm = Ask("1", tool="Bash", command="rm x", options=OPTIONS)
        api.orchestrator.commit(ev.ApprovalRequested("s-r1-1-1", "bcdf", rm, "no rule allows it"))
        question = Ask("2", kind=AskKind.QUESTION, text="Which?")
        api.orchestrator.commit(ev.ApprovalRequested("s-r1-1-1", "ghjk", question))
        yield api


async def test_list(api: Api) -> None:
    """What waits is listed, oldest first; sessions, tasks and the snapshot say that they wait."""
    found = (await api.get("/v1/approvals")).json()["approvals"]
    assert [one["approval_id"] for one in found] == ["bcdf", "ghjk"]
    assert found[0]["task_id"] == "r1.1"
    assert found[0]["options"][0] == {"label": "Yes", "meaning": "allow_once"}
    assert (await api.get("/v1/sessions?status=waiting")).json()["sessions"][0]["approval"] == "ghjk"
    assert (await api.get("/v1/tasks?status=waiting")).json()["tasks"][0]["approval"] == "ghjk"
    status = (await api.get("/v1/status")).json()
    assert [one["id"] for one in status["attention"] if one["kind"] == "approval"] == ["bcdf", "ghjk"]
    problem(await api.get("/v1/approvals?status=lost"), 400, "invalid_query")


@pytest.mark.parametrize(
    ("name", "body", "answer"),
    [
        ("bcdf", {"decision": "allow_once"}, Answer(AnswerKind.ALLOW_ONCE)),
        ("bcdf", {"decision": "deny", "reason": "no"}, Answer(AnswerKind.DENY, "no", own_words=True)),
        ("bcdf", {"decision": "choose", "option": 2}, Answer(AnswerKind.CHOOSE, option=1)),
        ("ghjk", {"decision": "text", "text": "Blue"}, Answer(AnswerKind.TEXT, "Blue")),
    ],
)
async def test_answer(api: Api, name: str, body: dict[str, object], answer: Answer) -> None:
    """An answer is passed on in the name of the user at the other end of the socket."""
    response = await api.post(f"/v1/approvals/{name}", body)
    assert response.status_code == 202
    assert (response.json()["by"], response.json()["who"]) == ("person", getpass.getuser())
    assert api.orchestrator.asked[-1][1:3] == (name, answer)
    problem(await api.post(f"/v1/approvals/{name}", body), 409, "already_resolved")


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("zzzz", {"decision": "deny"}, 404, "unknown_approval"),
        ("bcdf", {}, 400, "invalid_body"),
        ("bcdf", {"decision": "yes"}, 400, "invalid_body"),
        ("bcdf", {"decision": "allow_once", "text": "x"}, 400, "invalid_body"),
        ("bcdf", {"decision": "choose"}, 400, "invalid_body"),
        ("bcdf", {"decision": "choose", "option": 0}, 400, "invalid_body"),
        ("bcdf", {"decision": "choose", "option": 3}, 409, "answer_not_offered"),
        ("bcdf", {"decision": "allow_always"}, 409, "answer_not_offered"),
        ("bcdf", {"decision": "text", "text": "x"}, 409, "answer_not_offered"),
        ("ghjk", {"decision": "allow_once"}, 409, "answer_not_offered"),
        ("ghjk", {"decision": "choose", "option": 1}, 409, "answer_not_offered"),
        ("ghjk", {"decision": "text", "text": ""}, 409, "answer_not_offered"),
    ],
)
async def test_refused(api: Api, name: str, body: dict[str, object], status: int, code: str) -> None:
    """What cannot be answered so is refused, and nobody is told anything."""
    problem(await api.post(f"/v1/approvals/{name}", body), status, code)
    assert api.orchestrator.asked == []


async def test_stale(api: Api) -> None:
    """What is asked no more is stale."""
    api.orchestrator.commit(ev.ApprovalWithdrawn("s-r1-1-1", "bcdf", "gone"))
    problem(await api.post("/v1/approvals/bcdf", {"decision": "deny"}), 409, "stale_approval")
    assert (await api.get("/v1/approvals/bcdf")).json()["status"] == "withdrawn"
