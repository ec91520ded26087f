"""Tasks that are handed in by themselves, from the request to the outcome, with a real supervisor and real programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from kasmos.model import event as ev
from tests.e2e.supervisor_world import Site, make_site

SEED = {
    "prompt": "Triage this issue and label it.",
    "context": {"issue_url": "https://github.com/org/repo/issues/42"},
    "model": "claude-opus-4-7",
}


@pytest.fixture
def site(root: Path) -> Site:
    return make_site(root)


async def test_submit_and_poll(site: Site) -> None:
    """A task is accepted with 202, its id and its place, and polling tells how it ended."""
    async with site.supervisor() as here:
        response = await here.http.post("/v1/tasks", json={**SEED, "agent": "cat", "stream": False})
        assert response.status_code == 202
        told = response.json()
        assert told["task_id"].startswith("task_")
        assert response.headers["Location"] == f"/v1/tasks/{told['task_id']}"
        task = await here.ended(told["task_id"])
        assert (task["status"], task["attempts"], task["exit"]["code"]) == ("succeeded", 1, 0)
        assert task["task_id"] == told["task_id"]
        output = await here.http.get(f"/v1/tasks/{told['task_id']}/output")
        # The prompt is the task's, byte for byte.
        assert output.content == SEED["prompt"].encode()


async def test_stream_true_answers_with_lines_that_carry_the_task(site: Site) -> None:
    """With `stream: true` and no `Accept` the answer is NDJSON, each line with the task's id, until the task ends."""
    async with site.supervisor() as here:
        body = {**SEED, "agent": "cat", "stream": True}
        async with here.http.stream("POST", "/v1/tasks", json=body, headers={"Accept": "*/*"}) as response:
            assert (response.status_code, response.headers["Content-Type"]) == (200, "application/x-ndjson")
            lines = [json.loads(line) async for line in response.aiter_lines()]
    (task_id,) = {line["task_id"] for line in lines}
    kinds = [line["type"] for line in lines]
    assert (kinds[0], kinds[-1]) == ("run_started", "task_ended")
    assert "".join(line["text"] for line in lines if line["type"] == "output") == SEED["prompt"]
    assert kinds.index("output") < kinds.index("session_ended")
    assert lines[-1]["outcome"] == "succeeded"
    assert site.events()[-1] == ev.SupervisorStopped("left in order")
    assert task_id.startswith("task_")


async def test_the_accept_header_makes_a_stream_as_well(site: Site) -> None:
    """Who accepts server-sent events alone is given them."""
    async with site.supervisor() as here:
        headers = {"Accept": "text/event-stream"}
        response = await here.http.post("/v1/tasks", json={"prompt": "echo hi"}, headers=headers)
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert "event: task_ended" in response.text
        assert "event: output" in response.text


async def test_the_context_is_a_file_for_the_program(site: Site) -> None:
    """The program finds the context, as JSON, in the file that `KASMOS_CONTEXT` names; its checks do, too."""
    async with site.supervisor() as here:
        context = {"issue": 42, "labels": ["ä", None]}
        checks = ['grep -q 42 "$KASMOS_CONTEXT"']
        task_id = await here.submit('cat "$KASMOS_CONTEXT"', context=context, checks=checks)
        assert (await here.ended(task_id))["status"] == "succeeded"
        output = await here.http.get(f"/v1/tasks/{task_id}/output")
        assert json.loads(output.content) == context


async def test_the_context_in_the_prompt(site: Site) -> None:
    """When asked for, the context is shown to the agent below its prompt as well."""
    async with site.supervisor() as here:
        task_id = await here.submit("Triage.", agent="cat", context={"issue": 42}, context_in_prompt=True)
        await here.ended(task_id)
        output = await here.http.get(f"/v1/tasks/{task_id}/output")
        assert output.text.startswith("Triage.\n\nContext:\n\n```json\n")
        assert '"issue":42' in output.text


async def test_what_a_task_says_reaches_its_program(site: Site) -> None:
    """Model, directory, environment and name are those that were asked for."""
    (site.project / "below").mkdir()
    async with site.supervisor() as here:
        task_id = await here.submit("hello", agent="model", model="opus", name="greeter")
        task = await here.ended(task_id)
        assert (task["name"], task["model"]) == ("greeter", "opus")
        assert (await here.http.get("/v1/sessions/greeter/output")).text == "opus hello\n"
        script = 'pwd; echo "$COLOUR $KASMOS_TASK ${KASMOS_WAVE-none}"'
        task_id = await here.submit(script, workdir="below", env={"COLOUR": "red"})
        await here.ended(task_id)
        output = (await here.http.get(f"/v1/tasks/{task_id}/output")).text
        assert output.splitlines() == [str(site.project / "below"), f"red {task_id} none"]


async def test_a_model_without_a_place_is_warned_of(site: Site) -> None:
    """A model that the agent's command has no place for is told of in the answer, and the task runs."""
    async with site.supervisor() as here:
        response = await here.http.post("/v1/tasks", json={"prompt": "true", "model": "opus"})
        (warning,) = response.json()["warnings"]
        assert (warning["place"], "{model}" in warning["cure"]) == ("$.model", True)
        assert (await here.ended(response.json()["task_id"]))["status"] == "succeeded"


async def test_retries_timeout_and_a_failed_check(site: Site) -> None:
    """A task is tried again as often as it says, ended when its time is over, and fails with its check."""
    async with site.supervisor() as here:
        flaky = await here.submit("test -e seen || { touch seen; exit 3; }", retries=1)
        slow = await here.submit("sleep 100", timeout="0.2s")
        wrong = await here.submit("true", checks=[{"command": "exit 4", "timeout": 5}])
        assert (await here.ended(flaky))["attempts"] == 2
        assert (await here.ended(slow))["status"] == "timed_out"
        task = await here.ended(wrong)
        assert (task["status"], task["cause"]["kind"]) == ("failed", "check")


async def test_needs_are_waited_for(site: Site) -> None:
    """A task starts when those it needs have succeeded, and is skipped with its cause when one has not."""
    async with site.supervisor() as here:
        first = await here.submit("while ! test -e go; do sleep 0.02; done; echo 1 >> order")
        second = await here.submit("echo 2 >> order", needs=[first])
        third = await here.submit("echo 3 >> order", needs=[first, second])
        broken = await here.submit("exit 5", needs=[first])
        never = await here.submit("echo never >> order", needs=[broken])
        assert (await here.task(second))["status"] == "queued"
        (site.project / "go").touch()
        assert (await here.ended(third))["status"] == "succeeded"
        task = await here.ended(never)
        assert (task["status"], task["cause"]["kind"], task["cause"]["because_of"]) == (
            "skipped",
            "need_failed",
            [broken],
        )
        assert task["needs"] == [broken]
    assert (site.project / "order").read_text().split() == ["1", "2", "3"]


async def test_a_task_is_cancelled_and_tried_again(site: Site) -> None:
    """A task is stopped for good whether it runs or waits, and can be tried again."""
    async with site.supervisor() as here:
        running = await here.submit("test -e go || sleep 100")
        waiting = await here.submit("true", needs=[running])
        assert (await here.running(running))["status"] == "running"
        for task_id in (waiting, running):
            assert (await here.http.post(f"/v1/tasks/{task_id}/cancel")).status_code == 202
            assert (await here.ended(task_id))["status"] == "cancelled"
        (site.project / "go").touch()
        assert (await here.http.post(f"/v1/tasks/{running}/retry")).status_code == 202
        assert (await here.ended(running))["status"] == "succeeded"


async def test_the_same_key_is_the_same_task(site: Site) -> None:
    """With an `Idempotency-Key`, however often a task is handed in, now or after a restart, there is one of it."""
    headers = {"Idempotency-Key": "key 1"}
    body = {"prompt": "echo once >> ran"}
    ids: list[str] = []
    async with site.supervisor() as here:

        async def submit() -> None:
            response = await here.http.post("/v1/tasks", json=body, headers=headers)
            assert response.status_code == 202
            ids.append(response.json()["task_id"])

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(submit)
        await here.ended(ids[0])
        other = await here.http.post("/v1/tasks", json={"prompt": "echo other"}, headers=headers)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    async with site.supervisor() as here:
        response = await here.http.post("/v1/tasks", json={**body, "stream": False}, headers=headers)
        assert response.json()["repeated"]
        assert {*ids, response.json()["task_id"]} == {ids[0]}
        lines = await here.lines("POST", "/v1/tasks", json={**body, "stream": True}, headers=headers)
        assert [lines[0]["type"], lines[-1]["type"]] == ["run_started", "task_ended"]
    assert (site.project / "ran").read_text() == "once\n"


async def test_the_queue_is_bounded(root: Path) -> None:
    """More tasks than may wait are refused with 429 and a time to come back; running ones do not count."""
    site = make_site(root, '[orchestration]\ndefault_agent = "shell"\nmax_concurrent = 1\nmax_queued = 2\n')
    async with site.supervisor() as here:
        first = await here.submit("sleep 100")
        assert (await here.running(first))["status"] == "running"
        await here.submit("true")
        await here.submit("true")
        response = await here.http.post("/v1/tasks", json={"prompt": "true"})
        assert (response.status_code, response.json()["code"]) == (429, "queue_full")
        assert int(response.headers["Retry-After"]) > 0
        await here.http.post(f"/v1/tasks/{first}/cancel")
        await here.engine.orchestrator.wait_idle()
        await here.submit("true")
        await here.engine.orchestrator.wait_idle()


async def test_a_supervisor_that_leaves_takes_nothing_and_leaves_the_queue_to_the_next(root: Path) -> None:
    """While it drains, new tasks are refused with 503; what was accepted is done by the next supervisor, unasked."""
    site = make_site(root, '[orchestration]\ndefault_agent = "shell"\nmax_concurrent = 1\n')
    async with site.supervisor() as here:
        first = await here.submit("test -e go || sleep 100; echo 1 >> order")
        second = await here.submit("echo 2 >> order")
        assert (await here.running(first))["status"] == "running"
        here.engine.orchestrator.refuse("time to go")
        response = await here.http.post("/v1/tasks", json={"prompt": "true"})
        assert (response.status_code, response.json()["code"]) == (503, "draining")
        assert int(response.headers["Retry-After"]) > 0
        await here.engine.orchestrator.interrupt("time to go")
        assert {(await here.task(name))["status"] for name in (first, second)} == {"queued"}
    (site.project / "go").touch()
    async with site.supervisor() as here:
        assert (await here.ended(second))["status"] == "succeeded"
    assert (site.project / "order").read_text().split() == ["1", "2"]


async def test_every_mistake_is_named_at_once(site: Site) -> None:
    """A body that is wrong is refused with the JSON path of every mistake; nothing is begun."""
    body = {
        "prompt": " ",
        "context": [],
        "timeout": "soon",
        "retries": -1,
        "env": {"1A": "x"},
        "checks": "true",
        "name": "a b",
        "colour": "red",
        "agent": "nobody",
        "workdir": "nowhere",
        "needs": ["task_none"],
    }
    async with site.supervisor() as here:
        response = await here.http.post("/v1/tasks", json=body)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_body")
        places = {mistake["place"] for mistake in response.json()["mistakes"]}
        assert places == {
            *("$.prompt", "$.context", "$.timeout", "$.retries", "$.checks", "$.name", "$.colour", "$.env['1A']"),
            *("$.agent", "$.workdir", "$.needs[0]"),
        }
        body = {"prompt": "x", "env": {"1A": "x", "B": 1}, "checks": [3, {"command": "", "when": 1}]}
        response = await here.http.post("/v1/tasks", json=body)
        places = {mistake["place"] for mistake in response.json()["mistakes"]}
        assert places == {"$.env['1A']", "$.env.B", "$.checks[0]", "$.checks[1].command", "$.checks[1].when"}
        assert (await here.http.get("/v1/tasks")).json()["tasks"] == []


async def test_tasks_are_listed_and_are_no_plans(site: Site) -> None:
    """A task that was handed in by itself is among the tasks and not among the runs, unless they are asked for."""
    async with site.supervisor() as here:
        task_id = await here.submit("true")
        await here.ended(task_id)
        assert [task["task_id"] for task in (await here.http.get("/v1/tasks")).json()["tasks"]] == [task_id]
        assert (await here.http.get("/v1/runs")).json()["runs"] == []
        (run,) = (await here.http.get("/v1/runs?origin=task")).json()["runs"]
        assert (run["run_id"], run["origin"]) == (task_id, "task")


MENDED = """
[orchestration]
default_agent = "shell"
max_queued = 1

[agents.cat]
program = "cat"
prompt = "stdin"

[agents.new]
program = "cat"
prompt = "stdin"
"""


async def test_what_is_handed_in_is_checked_against_what_it_will_be_made_of(site: Site) -> None:
    """With what it is handed, a supervisor reads its configuration again: an agent that was added can be used."""
    async with site.supervisor() as here:
        (site.project / ".kasmos" / "config.toml").write_text(MENDED)
        task_id = await here.submit("hello", agent="new")
        task = await here.ended(task_id)
        assert (task["status"], task["cause"]["message"]) == ("succeeded", "exit 0")
        assert (await here.http.get("/v1/status")).json()["queue_limit"] == 1
        agents = (await here.http.get("/v1/agents")).json()["agents"]
        assert "new" in {agent["name"] for agent in agents}


async def test_a_retry_is_made_of_the_mended_profile(site: Site) -> None:
    """A mended profile counts for a retry, without a new supervisor; a broken file is refused."""
    config = site.project / ".kasmos" / "config.toml"
    config.write_text('[agents.tool]\nprogram = "false"\nprompt = "stdin"\n')
    async with site.supervisor() as here:
        task_id = await here.submit("hello", agent="tool")
        assert (await here.ended(task_id))["status"] == "failed"
        config.write_text('[agents.tool]\nprogram = "')
        refused = await here.http.post(f"/v1/tasks/{task_id}/retry")
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_config")
        # To look is not to change: what is in force is told of all the same.
        assert (await here.http.get("/v1/agents")).status_code == 200
        config.write_text('[agents.tool]\nprogram = "true"\nprompt = "stdin"\n')
        assert (await here.http.post(f"/v1/tasks/{task_id}/retry")).status_code == 202
        assert (await here.ended(task_id))["status"] == "succeeded"
