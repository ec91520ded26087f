"""`/v1/tasks`: tasks of all runs, their output, and what can be done with one."""

from __future__ import annotations

from functools import partial

from quart import Response, request

from kasmos.api.access import Routes
from kasmos.api.answers import JSON, answer, must_accept, page_of
from kasmos.api.app import the_service
from kasmos.api.approvals import who_asks
from kasmos.api.lines import NDJSON, SSE
from kasmos.api.output import output_answer
from kasmos.api.questions import Query, a_flag, a_text, read_body
from kasmos.api.streams import stream_answer
from kasmos.api.task_body import read_task_body
from kasmos.api.task_stream import TaskStream
from kasmos.daemon.access import Needs
from kasmos.daemon.wire import task_status, task_wire
from kasmos.exceptions import Mistake, RequestError
from kasmos.model.takeover import HandBack
from kasmos.model.task import Outcome
from kasmos.model.view import TaskView

routes = Routes("tasks")

MAX_KEY = 255
"""Characters of an `Idempotency-Key`."""

STATUSES = ("queued", "running", "waiting", *(outcome.value for outcome in Outcome))


@routes.get("/v1/tasks", Needs.READ)
async def get_tasks() -> Response:
    """Tasks, newest run first, in plan order."""
    query = Query(("run", "status", "agent", "limit", "cursor"))
    status = query.choice("status", STATUSES)
    run, agent, page = query.text("run"), query.text("agent"), query.page()
    query.done()
    service = the_service()

    def wanted(task: TaskView) -> bool:
        return status in (None, task_status(task))

    tasks = service.tasks.list(run=run, agent=agent, status=wanted)
    render = partial(task_wire, service.world)
    return answer(page_of(tasks, page, key=lambda task: task.id, render=render, name="tasks"))


@routes.post("/v1/tasks", Needs.ADMIN)
async def post_task() -> Response:
    """Hand in one task; the answer is its id, or a stream of everything about it until it has ended."""
    Query(()).done()
    request_key = _request_key()
    wanted, stream, mistakes = await read_task_body()
    if mistakes:
        await the_service().tasks.refuse(wanted, mistakes)
    kind = must_accept(NDJSON, SSE) if stream else must_accept(JSON, NDJSON, SSE)
    service = the_service()
    submitted = await service.tasks.submit(wanted, key=request_key)
    location = f"/v1/tasks/{submitted.task_id}"
    if kind == JSON:
        return answer(submitted, 202, location=location)
    task = service.tasks.get(submitted.task_id)
    subscription = await service.subscribe(submitted.cursor)
    return stream_answer(TaskStream(service, subscription, kind, task, output=True), location=location)


def _request_key() -> str:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return ""
    if not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        mistake = Mistake(
            "header.Idempotency-Key", "it is not possible", f"1 to {MAX_KEY} printable characters of ASCII"
        )
        raise RequestError(400, "invalid_header", "a header is wrong", [mistake])
    return str(key)


@routes.get("/v1/tasks/<name>", Needs.READ)
async def get_task(name: str) -> Response:
    """One task."""
    Query(()).done()
    return _answer_task(the_service().tasks.get(name))


@routes.get("/v1/tasks/<name>/output", Needs.READ)
async def get_task_output(name: str) -> Response:
    """The output of a task's newest session."""
    service = the_service()
    return await output_answer(service.tasks.newest_session(name).id)


@routes.post("/v1/tasks/<name>/cancel", Needs.ADMIN)
async def post_cancel(name: str) -> Response:
    """Stop a task for good."""
    Query(()).done()
    await read_body({})
    return _answer_task(await the_service().tasks.cancel(name), 202)


@routes.post("/v1/tasks/<name>/retry", Needs.ADMIN)
async def post_retry(name: str) -> Response:
    """Try a task again."""
    Query(()).done()
    body = await read_body({"resume": a_flag})
    return _answer_task(await the_service().tasks.retry(name, resume=body.get("resume", False)), 202)


@routes.post("/v1/tasks/<name>/attach", Needs.ADMIN)
async def post_attach(name: str) -> Response:
    """Have a headless task's conversation opened in a terminal, for a person."""
    Query(()).done()
    body = await read_body({"now": a_flag, "check": a_flag})
    check = body.get("check", False)
    task = await the_service().tasks.attach(name, who_asks(), now=body.get("now", False), check=check)
    return _answer_task(task, 200 if check else 202)


@routes.post("/v1/tasks/<name>/detach", Needs.ADMIN)
async def post_detach(name: str) -> Response:
    """Let a conversation that was taken over go on headless."""
    Query(()).done()
    body = await read_body({"prompt": a_text, "done": a_flag, "now": a_flag})
    back = HandBack(body.get("prompt", ""), body.get("done", False), body.get("now", False), who_asks())
    if back.done and back.prompt:
        mistake = Mistake("$.prompt", "what is done is told nothing", "leave it out")
        raise RequestError(400, "invalid_body", "the body is wrong", [mistake])
    return _answer_task(await the_service().tasks.detach(name, back), 202)


def _answer_task(task: TaskView, status: int = 200) -> Response:
    return answer(task_wire(the_service().world, task), status)
