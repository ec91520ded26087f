"""The API tells and does what the service knows and can, over a real socket."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing

from kasmos.api import errors
from kasmos.api.app import MAX_BODY
from kasmos.api.output import MAX_WAIT
from kasmos.daemon.reading import OutputReader
from kasmos.exceptions import RequestError
from kasmos.model import event as ev
from kasmos.model.codec import decode_record
from kasmos.model.profile import ExecutionMode
from kasmos.model.task import Cause, CauseKind, Outcome
from tests.e2e.api_world import LIMIT, PLAN, Api, FakeOrchestrator, make_app, open_api


@pytest.fixture
async def api(root: Path) -> AsyncIterator[Api]:
    """A served API with nothing in it."""
    async with open_api(root) as api:
        yield api


def problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """The body of an answer that has to be this problem."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body: dict[str, object] = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code), body
    assert body["detail"]
    return body


# --- looking --------------------------------------------------------------------------


async def test_health(api: Api) -> None:
    """`GET /healthz` answers with the version and where the journal is."""
    response = await api.get("/healthz")
    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    assert response.json()["seq"] == 0
    assert response.headers["x-kasmos-api"] == "1"


async def test_a_run_is_shown_with_its_tasks(api: Api) -> None:
    """A run shows where it, its waves and each of its tasks stand, in single words."""
    api.orchestrator.start_run("r1", tasks=3)
    api.orchestrator.start_session("r1", "1")
    api.orchestrator.start_session("r1", "2")
    api.orchestrator.end_task("r1", "1", code=3)
    cause = Cause(CauseKind.EXIT, "exit 9")
    api.orchestrator.commit(ev.TaskRetryScheduled("r1", "2", attempt=1, delay=5.0, cause=cause))
    body = (await api.get("/v1/runs/r1")).json()
    assert body["run"]["status"] == "running"
    assert body["run"]["waves"] == [{"number": 1, "title": "", "status": "running", "tasks": ["r1.1", "r1.2", "r1.3"]}]
    assert body["run"]["counts"] == {"failed": 1, "waiting": 1, "queued": 1}
    first, second, third = body["tasks"]
    assert (first["task_id"], first["status"], first["exit"]["code"]) == ("r1.1", "failed", 3)
    assert first["cause"]["message"] == "exit 3"
    assert (second["status"], second["retry_at"]) == ("waiting", "2023-11-14T22:13:34.000Z")
    assert (third["status"], third["session_id"], third["attempts"]) == ("queued", None, 0)


async def test_a_parked_run_waits(api: Api) -> None:
    """A run that is parked after a wave is `waiting` and asks for attention."""
    api.orchestrator.start_run()
    api.orchestrator.commit(ev.RunParked("r1", 1))
    assert (await api.get("/v1/runs/r1")).json()["run"]["status"] == "waiting"
    assert [item["kind"] for item in (await api.get("/v1/status")).json()["attention"]] == ["parked"]


async def test_names_are_resolved(api: Api) -> None:
    """Tasks and sessions are found by id, by name, by number in the newest run, and by an id's beginning."""
    api.orchestrator.start_run("old", tasks=1)
    api.orchestrator.start_session("old", "1")
    api.orchestrator.start_run("new", tasks=2)
    api.orchestrator.start_session("new", "2")
    assert (await api.get("/v1/tasks/old.1")).json()["task_id"] == "old.1"
    assert (await api.get("/v1/tasks/1")).json()["task_id"] == "new.1"
    assert (await api.get("/v1/sessions/w1t2-task-2")).json()["session_id"] == "s-new-2-1"
    assert (await api.get("/v1/sessions/2")).json()["session_id"] == "s-new-2-1"
    assert (await api.get("/v1/sessions/s-o")).json()["session_id"] == "s-old-1-1"
    problem(await api.get("/v1/sessions/s-"), 409, "ambiguous")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/runs/none", "unknown_run"),
        ("/v1/tasks/none", "unknown_task"),
        ("/v1/tasks/none/events", "unknown_task"),
        ("/v1/tasks/r1.1/output", "no_session"),
        ("/v1/sessions/none", "unknown_session"),
        ("/v1/sessions/none/output", "unknown_session"),
        ("/v1/tasks?run=none", "unknown_run"),
        ("/v1/events?run=none", "unknown_run"),
        ("/v1/none", "not_found"),
        ("/v1/runs/", "not_found"),
        ("/", "not_found"),
    ],
)
async def test_what_is_unknown_is_not_found(api: Api, path: str, code: str) -> None:
    """Whatever does not exist is a 404 with a code that says what it is."""
    api.orchestrator.start_run()
    problem(await api.get(path), 404, code)


async def test_a_browser_that_comes_to_nothing_is_told_where_to_look(api: Api) -> None:
    """Where there is nothing, the answer names the description of the API."""
    assert "GET /docs" in (await api.get("/")).json()["detail"]


async def test_lists_come_in_pages(api: Api) -> None:
    """A list is cut at its limit, and its cursor leads to the rest, also when new runs begin meanwhile."""
    for number in range(5):
        api.orchestrator.start_run(f"r{number}", tasks=1)
    first = (await api.get("/v1/runs?limit=2")).json()
    assert [run["run_id"] for run in first["runs"]] == ["r4", "r3"]
    api.orchestrator.start_run("r5", tasks=1)
    second = (await api.get(f"/v1/runs?limit=3&cursor={first['next_cursor']}")).json()
    assert [run["run_id"] for run in second["runs"]] == ["r2", "r1", "r0"]
    assert second["next_cursor"] is None
    problem(await api.get("/v1/runs?cursor=gone"), 400, "bad_cursor")


async def test_tasks_are_filtered(api: Api) -> None:
    """Tasks are chosen by run, by status and by agent."""
    api.orchestrator.start_run("r1", tasks=2)
    api.orchestrator.start_run("r2", tasks=2)
    api.orchestrator.start_session("r1", "2")

    async def ids(query: str) -> list[str]:
        return [task["task_id"] for task in (await api.get(f"/v1/tasks?{query}")).json()["tasks"]]

    assert await ids("") == ["r2.1", "r2.2", "r1.1", "r1.2"]
    assert await ids("run=r1") == ["r1.1", "r1.2"]
    assert await ids("status=running") == ["r1.2"]
    assert await ids("status=queued&run=r2&limit=1") == ["r2.1"]
    assert await ids("agent=claude") == []


async def test_sessions_are_filtered(api: Api) -> None:
    """Sessions are chosen by run, by state, and by whether they are live."""
    api.orchestrator.start_run("r1", tasks=2)
    for task in ("1", "2"):
        api.orchestrator.start_session("r1", task)
    api.orchestrator.end_task("r1", "1")
    for query, count in (("", 2), ("live=true", 1), ("live=false", 1), ("status=ended", 1), ("run=r1", 2)):
        assert len((await api.get(f"/v1/sessions?{query}")).json()["sessions"]) == count, query


async def test_every_mistake_in_a_query_is_reported(api: Api) -> None:
    """A query that is wrong in several ways is answered with all of them."""
    body = problem(await api.get("/v1/tasks?limit=0&status=busy&colour=red"), 400, "invalid_query")
    places = [mistake["place"] for mistake in body["mistakes"]]  # type: ignore[attr-defined]
    assert sorted(places) == ["query.colour", "query.limit", "query.status"]


async def test_status_is_a_capped_snapshot(api: Api) -> None:
    """The snapshot lists what is unfinished and live, newest first, and says how much it left out."""
    for number in range(25):
        api.orchestrator.start_run(f"r{number}", tasks=1)
    session = api.orchestrator.start_session("r24", "1")
    session.write(b"abc")
    body = (await api.get("/v1/status")).json()
    assert body["schema"] == 1
    assert body["seq"] == api.orchestrator.world.seq
    assert (len(body["runs"]), body["left_out"]["runs"]) == (20, 5)
    assert body["runs"][0]["run_id"] == "r24"
    assert [item["output_bytes"] for item in body["sessions"]] == [3]
    assert body["counts"]["tasks"] == {"queued": 24, "running": 1}


async def test_status_is_not_sent_twice(api: Api) -> None:
    """A poller that has the present snapshot is answered 304 until something happens."""
    first = await api.get("/v1/status")
    tag = first.headers["etag"]
    again = await api.get("/v1/status", headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    api.orchestrator.start_run()
    after = await api.get("/v1/status", headers={"If-None-Match": tag})
    assert after.status_code == 200
    assert after.headers["etag"] != tag


# --- doing ----------------------------------------------------------------------------


async def test_a_plan_is_submitted(api: Api) -> None:
    """A submitted plan becomes a run, and the answer says where it is found and where its events begin."""
    response = await api.post("/v1/runs", {"document": PLAN, "max_concurrent": 2})
    assert response.status_code == 202
    body = response.json()
    assert response.headers["location"] == f"/v1/runs/{body['run_id']}"
    assert (body["continued"], body["following"], body["cursor"]) == (False, False, 0)
    run = api.orchestrator.world.runs[body["run_id"]]
    assert [task.title for task in run.plan.tasks] == ["First", "Second"]
    assert (run.source, run.key) == ("-", f"digest:{run.digest}")
    assert (run.settings.max_concurrent, run.project) == (2, "/project")


async def test_the_same_plan_is_followed(api: Api, root: Path) -> None:
    """A plan is the same by its real path; a changed document is refused as a conflict."""
    (root / "plan.md").write_text(PLAN)
    (root / "link.md").symlink_to(root / "plan.md")
    first = (await api.post("/v1/runs", {"document": PLAN, "source": str(root / "plan.md")})).json()
    again = (await api.post("/v1/runs", {"document": PLAN, "source": str(root / "link.md")})).json()
    assert (again["run_id"], again["following"]) == (first["run_id"], True)
    changed = {"document": PLAN + "\nmore\n", "source": str(root / "plan.md")}
    problem(await api.post("/v1/runs", changed), 409, "conflict")


async def test_a_wrong_plan_is_refused_with_every_mistake(api: Api) -> None:
    """A document without waves starts nothing; its mistakes have their lines."""
    body = problem(await api.post("/v1/runs", {"document": "hello\n"}), 400, "invalid_plan")
    assert body["mistakes"]
    assert not api.orchestrator.world.runs


async def test_a_document_may_be_any_bytes(api: Api) -> None:
    """Bytes that are no text are for the plan's parser to judge."""
    body = {"document_base64": "IyMgV2F2ZSAx/w=="}
    problem(await api.post("/v1/runs", body), 400, "invalid_plan")


async def test_every_mistake_in_a_body_is_reported(api: Api) -> None:
    """A body that is wrong in several ways is answered with all of them and their JSON paths."""
    body = {"document": 7, "fresh": "yes", "max_concurrent": True, "colour": "red"}
    told = problem(await api.post("/v1/runs", body), 400, "invalid_body")
    places = [mistake["place"] for mistake in told["mistakes"]]  # type: ignore[attr-defined]
    assert sorted(places) == ["$.colour", "$.document", "$.fresh", "$.max_concurrent"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_body"),
        ({"document": PLAN, "document_base64": ""}, "invalid_body"),
        ({"document_base64": "#"}, "invalid_body"),
        ({"document": PLAN, "source": "plan.md"}, "invalid_body"),
        ({"document": PLAN, "mode": "dream"}, "invalid_config"),
        ({"document": PLAN, "task_timeout": "bad"}, "invalid_config"),
        ({"document": PLAN, "agent": "nobody"}, "invalid_plan"),
        ({"document": "\ud800"}, "invalid_json"),
    ],
)
async def test_a_submission_that_makes_no_sense_is_refused(api: Api, body: dict[str, object], code: str) -> None:
    """What is wrong with a submission is told, and nothing starts."""
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    problem(await api.http.post("/v1/runs", content=content, headers=headers), 400, code)
    assert not api.orchestrator.world.runs


async def test_new_work_is_refused_while_draining(api: Api) -> None:
    """While the supervisor shuts down, new work is 503 `draining` with a time to come back; ending work is not."""
    api.orchestrator.start_run()
    api.orchestrator.accepting = False
    for path in ("/v1/runs", "/v1/runs/r1/retry", "/v1/runs/r1/advance", "/v1/tasks/r1.1/retry"):
        response = await api.post(path, {"document": PLAN} if path == "/v1/runs" else None)
        problem(response, 503, "draining")
        assert int(response.headers["retry-after"]) > 0
    assert (await api.post("/v1/runs/r1/cancel")).status_code == 202


async def test_new_work_is_refused_while_the_journal_cannot_be_written(api: Api) -> None:
    """Where nothing can be recorded, nothing is taken on, so nothing heaps up to begin later; what ends work is."""
    api.orchestrator.start_run()
    api.orchestrator.writable = False
    for path, body in (("/v1/runs", {"document": PLAN}), ("/v1/tasks", {"prompt": "true"}), ("/v1/runs/r1/retry", {})):
        problem(await api.post(path, body), 503, "store_unavailable")
    assert not api.orchestrator.asked
    assert (await api.post("/v1/runs/r1/cancel")).status_code == 202


async def test_commands_reach_the_orchestrator(api: Api) -> None:
    """Each command is passed on with what it is about."""
    api.orchestrator.start_run(tasks=2)
    api.orchestrator.start_session("r1", "1")
    for path, body in (
        ("/v1/runs/r1/retry", {"tasks": ["r1.1", "2"]}),
        ("/v1/runs/r1/retry", {}),
        ("/v1/tasks/r1.2/cancel", {}),
        ("/v1/tasks/2/retry", {}),
        ("/v1/sessions/s-r1-1-1/stop", {}),
        ("/v1/runs/r1/cancel", {"reason": "enough"}),
    ):
        assert (await api.post(path, body)).status_code == 202, path
    assert api.orchestrator.asked == [
        ("retry", "r1", ("1", "2")),
        ("retry", "r1", ()),
        ("stop_task", "r1", "2"),
        ("retry", "r1", ("2",)),
        ("stop_session", "s-r1-1-1"),
        ("cancel_run", "r1", "enough"),
    ]
    problem(await api.post("/v1/runs/r1/advance"), 409, "conflict")
    problem(await api.post("/v1/runs/r1/retry", {"tasks": ["9"]}), 404, "unknown_task")


async def test_stop_all_ends_every_unfinished_run(api: Api) -> None:
    """`POST /v1/stop` ends all that is unfinished, and only if `all` is said."""
    for run_id in ("r1", "r2", "r3"):
        api.orchestrator.start_run(run_id)
    api.orchestrator.commit(ev.RunEnded("r2", Outcome.SUCCEEDED))
    problem(await api.post("/v1/stop"), 400, "invalid_body")
    response = await api.post("/v1/stop", {"all": True})
    assert response.status_code == 202
    assert [run["run_id"] for run in response.json()["runs"]] == ["r3", "r1"]
    assert [asked[:2] for asked in api.orchestrator.asked] == [("cancel_run", "r3"), ("cancel_run", "r1")]


async def test_a_session_that_has_ended_cannot_be_stopped(api: Api) -> None:
    """Stopping what has ended is a conflict."""
    api.orchestrator.start_run()
    api.orchestrator.start_session("r1", "1")
    api.orchestrator.end_task("r1", "1")
    problem(await api.post("/v1/sessions/s-r1-1-1/stop"), 409, "conflict")


@pytest.mark.parametrize("verb", ["keys", "input", "permission"])
async def test_headless_sessions_cannot_be_typed_into(api: Api, verb: str) -> None:
    """Typing into a session without a terminal is 409 `interactive_only`, live or ended."""
    api.orchestrator.start_run()
    api.orchestrator.start_session("r1", "1")
    problem(await api.post(f"/v1/sessions/1/{verb}"), 409, "interactive_only")
    api.orchestrator.end_task("r1", "1")
    problem(await api.post(f"/v1/sessions/1/{verb}"), 409, "interactive_only")


async def test_a_terminal_is_typed_into(api: Api) -> None:
    """A session with a terminal gets keys; a text is not typed where nobody can see that it is taken."""
    api.orchestrator.start_run()
    session = api.orchestrator.start_session("r1", "1", ExecutionMode.TMUX)
    assert (await api.post("/v1/sessions/1/keys", {"keys": "x"})).status_code == 200
    problem(await api.post("/v1/sessions/1/input", {"text": "hi"}), 409, "session_closed")
    assert session.typed == ["x"]
    problem(await api.post("/v1/sessions/1/keys", {}), 400, "invalid_body")
    session.finish()
    problem(await api.post("/v1/sessions/1/keys", {"keys": "x"}), 409, "session_closed")


# --- output ---------------------------------------------------------------------------


async def test_output_is_read_by_offset(api: Api) -> None:
    """Output is read from any offset, byte for byte, and the headers say where to read on."""
    api.orchestrator.start_run()
    session = api.orchestrator.start_session("r1", "1")
    session.write(b"one\xff\x00two")
    first = await api.get("/v1/sessions/1/output?limit=4")
    assert (first.content, first.headers["x-kasmos-next-offset"]) == (b"one\xff", "4")
    assert first.headers["content-type"] == "application/octet-stream"
    rest = await api.get("/v1/tasks/r1.1/output?offset=4")
    assert (rest.content, rest.headers["x-kasmos-offset"]) == (b"\x00two", "4")
    assert rest.headers["x-kasmos-ended"] == "false"
    tail = await api.get("/v1/sessions/1/output?offset=-3")
    assert (tail.content, tail.headers["x-kasmos-offset"]) == (b"two", "5")


async def test_lost_output_is_counted(api: Api) -> None:
    """A reader that asks for output that is gone is told how much it lost."""
    api.orchestrator.start_run()
    session = api.orchestrator.start_session("r1", "1")
    session.write(b"0123456789")
    session.base = 6
    response = await api.get("/v1/sessions/1/output?offset=2")
    assert (response.content, response.headers["x-kasmos-lost"]) == (b"6789", "4")


async def test_output_as_text_keeps_characters_whole(api: Api) -> None:
    """Text is UTF-8 with replacements, and a character cut by a piece's end is in the next piece."""
    api.orchestrator.start_run()
    session = api.orchestrator.start_session("r1", "1")
    session.write("aä".encode() + b"\xff")
    first = await api.get("/v1/sessions/1/output?format=text&limit=2")
    assert (first.text, first.headers["x-kasmos-next-offset"]) == ("a", "1")
    rest = await api.get("/v1/sessions/1/output?format=text&offset=1")
    assert rest.text == "ä�"
    assert rest.headers["content-type"] == "text/plain; charset=utf-8"


async def test_a_reader_waits_for_output(api: Api) -> None:
    """A long poll is answered when the session writes, not before and not after its wait."""
    api.orchestrator.start_run()
    session = api.orchestrator.start_session("r1", "1")
    answers: list[httpx.Response] = []

    async def poll() -> None:
        answers.append(await api.get(f"/v1/sessions/1/output?wait={MAX_WAIT}"))

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as polling:
            polling.start_soon(poll)
            await session.waited_for.wait()
            session.write(b"late")
    assert answers[0].content == b"late"
    started = trio.current_time()
    empty = await api.get("/v1/sessions/1/output?offset=4&wait=0.05")
    assert (empty.content, empty.headers["x-kasmos-next-offset"]) == (b"", "4")
    assert trio.current_time() - started >= 0.05


async def test_a_waiting_reader_is_told_of_the_end(api: Api) -> None:
    """A long poll at the end of the output is answered as ended once the end is committed."""
    api.orchestrator.start_run()
    session = api.orchestrator.start_session("r1", "1")
    session.write(b"all")
    answers: list[httpx.Response] = []

    async def poll() -> None:
        answers.append(await api.get(f"/v1/sessions/s-r1-1-1/output?offset=3&wait={MAX_WAIT}"))

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as polling:
            polling.start_soon(poll)
            await session.waited_for.wait()
            # The program has ended, and its end is not committed yet.
            session.finish()
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert not answers
            api.orchestrator.end_task("r1", "1")
    assert (answers[0].content, answers[0].headers["x-kasmos-ended"]) == (b"", "true")


async def test_output_outlives_its_session(api: Api) -> None:
    """The output of a session that has ended is read as before, and is gone only when it was removed."""
    api.orchestrator.start_run()
    api.orchestrator.start_session("r1", "1").write(b"kept")
    api.orchestrator.end_task("r1", "1")
    response = await api.get("/v1/sessions/1/output")
    assert (response.content, response.headers["x-kasmos-ended"]) == (b"kept", "true")
    api.orchestrator.ended.clear()
    problem(await api.get("/v1/sessions/1/output"), 410, "output_gone")


async def test_output_that_never_was(api: Api) -> None:
    """A place ahead of all that an ended session has written is refused; what a live one may reach is not."""
    api.orchestrator.start_run()
    session = api.orchestrator.start_session("r1", "1")
    session.write(b"kept")
    assert (await api.get("/v1/sessions/1/output?offset=5")).status_code == 200
    api.orchestrator.end_task("r1", "1")
    assert (await api.get("/v1/sessions/1/output?offset=4")).headers["x-kasmos-ended"] == "true"
    problem(await api.get("/v1/sessions/1/output?offset=5"), 400, "cursor_ahead")


async def test_output_of_what_is_forgotten_while_it_is_read(api: Api) -> None:
    """Whoever reads on in a session that has been forgotten meanwhile is told that its output is gone."""
    api.orchestrator.start_run()
    api.orchestrator.start_session("r1", "1").write(b"kept")
    api.orchestrator.end_task("r1", "1")
    session = api.app.service.sessions.get("1")
    reader = OutputReader(api.orchestrator, api.orchestrator.bus, api.orchestrator.read_ended)
    del api.orchestrator.world.sessions[session.id]
    with pytest.raises(RequestError) as gone:
        await reader.read(session, 0, 10, 0.0)
    assert (gone.value.status, gone.value.code) == (410, "output_gone")


# --- events ---------------------------------------------------------------------------


class Events:
    """A stream that is read line by line."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.lines = response.aiter_lines()

    async def take(self, count: int) -> list[str]:
        with trio.fail_after(LIMIT):
            return [await anext(self.lines) for _ in range(count)]

    async def seqs(self, count: int) -> list[int]:
        return [decode_record(line).seq for line in await self.take(count)]


async def test_events_are_history_and_then_the_present(api: Api) -> None:
    """A stream begins with what has happened and goes on with what happens."""
    api.orchestrator.start_run()
    async with api.http.stream("GET", "/v1/events") as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        events = Events(response)
        assert await events.seqs(2) == [1, 2]
        api.orchestrator.start_session("r1", "1")
        assert await events.seqs(2) == [3, 4]


@pytest.mark.parametrize(
    ("query", "headers"),
    [("?after=2", {}), ("?cursor=2", {}), ("", {"Last-Event-ID": "2"}), ("?after=2", {"Last-Event-ID": "9"})],
)
async def test_events_resume_anywhere(api: Api, query: str, headers: dict[str, str]) -> None:
    """A stream resumes after the number that the client saw last, however it says so."""
    api.orchestrator.start_run()
    api.orchestrator.start_session("r1", "1")
    async with api.http.stream("GET", f"/v1/events{query}", headers=headers) as response:
        assert await Events(response).seqs(2) == [3, 4]


async def test_events_as_server_sent_events(api: Api) -> None:
    """With `Accept: text/event-stream` each event has its number as its id."""
    api.orchestrator.start_run()
    headers = {"Accept": "text/event-stream"}
    async with api.http.stream("GET", "/v1/events?after=1", headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        number, kind, data, blank = await Events(response).take(4)
    assert (number, kind, blank) == ("id: 2", "event: wave_started", "")
    assert decode_record(data.removeprefix("data: ")).seq == 2


async def test_events_of_one_run(api: Api) -> None:
    """A stream of one run has the events of its sessions too, and no other run's."""
    api.orchestrator.start_run("r1")
    api.orchestrator.start_run("r2")
    api.orchestrator.start_session("r2", "1")
    api.orchestrator.start_session("r1", "1")
    async with api.http.stream("GET", "/v1/events?run=r1") as response:
        assert await Events(response).seqs(4) == [1, 2, 7, 8]


async def test_events_of_one_task_end_with_it(api: Api) -> None:
    """A stream of one task ends with the task."""
    api.orchestrator.start_run("r1")
    api.orchestrator.start_session("r1", "1")
    api.orchestrator.start_session("r1", "2")
    api.orchestrator.end_task("r1", "1")
    response = await api.get("/v1/tasks/1/events")
    kinds = [json.loads(line)["type"] for line in response.text.splitlines()]
    assert kinds == ["session_starting", "session_started", "session_ended", "task_ended"]


async def test_a_silent_stream_has_heartbeats(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing happens, a stream carries heartbeats, which have no number."""
    monkeypatch.setattr("kasmos.api.lines.HEARTBEAT_INTERVAL", 0.02)
    async with open_api(root) as api:
        async with api.http.stream("GET", "/v1/events") as response:
            assert json.loads((await Events(response).take(1))[0]) == {"type": "heartbeat"}
        async with api.http.stream("GET", "/v1/events", headers={"Accept": "text/event-stream"}) as response:
            assert (await Events(response).take(2)) == [": heartbeat", ""]


async def test_a_cursor_from_another_journal_is_refused(api: Api) -> None:
    """A number that the journal has never reached is an error, not a wait for ever."""
    problem(await api.get("/v1/events?after=99"), 400, "cursor_ahead")


async def test_long_history_arrives_whole(api: Api) -> None:
    """A reader that begins long ago gets every event of a long history once."""
    for number in range(3000):
        api.orchestrator.start_run(f"r{number}", tasks=1)
    async with api.http.stream("GET", "/v1/events") as response:
        events = Events(response)
        assert await events.seqs(6000) == list(range(1, 6001))


# --- HTTP -----------------------------------------------------------------------------


async def test_methods(api: Api) -> None:
    """A wrong method is 405 with the right ones; HEAD has no body and OPTIONS names the methods."""
    response = await api.http.put("/v1/runs")
    problem(response, 405, "method_not_allowed")
    assert "GET, HEAD" in response.json()["detail"]
    assert set(response.headers["allow"].replace(" ", "").split(",")) == {"GET", "HEAD", "OPTIONS", "POST"}
    head = await api.http.head("/v1/status")
    assert (head.status_code, head.content) == (200, b"")
    options = await api.http.options("/v1/runs")
    assert options.status_code == 200
    assert "POST" in options.headers["allow"]
    assert "content-type" not in options.headers
    stream = await api.http.head("/v1/events")
    assert (stream.status_code, stream.content) == (200, b"")
    assert stream.headers["content-type"] == "application/x-ndjson"


@pytest.mark.parametrize("path", ["/v1/status", "/v1/runs", "/v1/events", "/healthz"])
async def test_what_cannot_be_accepted_is_refused(api: Api, path: str) -> None:
    """A client that wants none of what there is gets 406."""
    problem(await api.get(path, headers={"Accept": "image/png"}), 406, "not_acceptable")
    head = await api.http.head(path, headers={"Accept": "*/*"})
    assert head.status_code == 200


async def test_bodies_have_to_be_json(api: Api) -> None:
    """A body of another kind is 415, one that is no JSON object is 400; no body at all is an empty one."""
    api.orchestrator.start_run()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    problem(await api.http.post("/v1/stop", content=b"all=1", headers=form), 415, "unsupported_media_type")
    kind = {"Content-Type": "application/json"}
    for content in (b"{", b"[]", b"\xff", b"1"):
        problem(await api.http.post("/v1/stop", content=content, headers=kind), 400, "invalid_json")
    assert (await api.http.post("/v1/runs/r1/cancel")).status_code == 202


async def test_a_bug_is_a_problem_too(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """A bug of ours is a 500 without a word of its inside; the log has the traceback."""

    def broken(session_id: str) -> None:
        raise ZeroDivisionError("secret")

    api.orchestrator.start_run()
    api.orchestrator.start_session("r1", "1")
    api.orchestrator.live_session = broken  # type: ignore[method-assign]
    response = await api.get("/v1/sessions/1")
    problem(response, 500, "internal")
    assert "secret" not in response.text
    assert "ZeroDivisionError" in caplog.text


async def test_a_large_body_is_refused(api: Api) -> None:
    """A body beyond the limit is 413, and the next request is answered."""
    response = await api.http.post(
        "/v1/runs", content=b"x" * (17 * 1024 * 1024), headers={"Content-Type": "application/json"}
    )
    problem(response, 413, "too_large")
    assert response.json()["detail"] == f"a body has {MAX_BODY} bytes at most"
    assert (await api.get("/healthz")).status_code == 200


def test_every_route_is_documented() -> None:
    """`docs/api.md` lists exactly the routes there are, and every code of an error."""
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    told = set(re.findall(r"^\| `(GET|POST) (\S+)` \|", text, re.MULTILINE))
    there = set()
    for rule in make_app(FakeOrchestrator()).url_map.iter_rules():
        thing = str(rule).split("/")[2:3]
        path = str(rule).replace("<name>", "{" + "".join(thing).removesuffix("s") + "}")
        there |= {(method, path) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    assert told == there
    for _, code in errors._CODES.values():
        assert f"`{code}`" in text
