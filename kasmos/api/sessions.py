"""`/v1/sessions`: sessions of all tasks, their output, stopping, and typing where there is a terminal."""

from __future__ import annotations

from typing import Any

from quart import Response

from kasmos.api.access import Routes
from kasmos.api.answers import answer, page_of
from kasmos.api.app import the_service
from kasmos.api.output import output_answer
from kasmos.api.questions import Query, a_flag, a_text, a_word, read_body, some_words
from kasmos.daemon.access import Needs
from kasmos.daemon.terminals import LARGEST
from kasmos.daemon.verdicts import tried_value, verdict_value
from kasmos.daemon.wire import session_status, session_wire
from kasmos.model.view import SessionState, SessionView

routes = Routes("sessions")

MOST_LINES = 1_000_000


@routes.get("/v1/sessions", Needs.READ)
async def get_sessions() -> Response:
    """Sessions, newest first; `live=true` leaves out those that have ended."""
    query = Query(("run", "status", "live", "limit", "cursor"))
    status = query.choice("status", ("waiting", *(state.value for state in SessionState)))
    live = query.choice("live", ("true", "false"))
    run, page = query.text("run"), query.page()
    query.done()
    service = the_service()
    run_id = service.runs.get(run).id if run is not None else None
    sessions = [
        session
        for session in service.sessions.list()
        if run_id in (None, session.run_id)
        and status in (None, session_status(session))
        and (live is None or session.state.live == (live == "true"))
    ]
    return answer(page_of(sessions, page, key=lambda item: item.id, render=_render, name="sessions"))


@routes.get("/v1/sessions/<name>", Needs.READ)
async def get_session(name: str) -> Response:
    """One session."""
    Query(()).done()
    return answer(_render(the_service().sessions.get(name)))


@routes.get("/v1/sessions/<name>/output", Needs.READ)
async def get_output(name: str) -> Response:
    """A session's output."""
    return await output_answer(the_service().sessions.get(name).id)


@routes.get("/v1/sessions/<name>/screen", Needs.READ)
async def get_screen(name: str) -> Response:
    """What a session's terminal shows now; without a terminal, its last lines of output."""
    query = Query(("ansi", "start", "end"))
    ansi = query.choice("ansi", ("true", "false"), "false")
    start, end = _line(query, "start"), _line(query, "end")
    query.done()
    return answer(await the_service().terminals.screen(name, start, end, ansi=ansi == "true"))


@routes.get("/v1/sessions/<name>/explain", Needs.READ)
async def get_explanation(name: str) -> Response:
    """Which state a session's screen shows, by which rule, and what the other rules saw."""
    Query(()).done()
    verdict, tried = await the_service().terminals.explain(name)
    return answer({**verdict_value(verdict), "tried": [tried_value(one) for one in tried]})


@routes.post("/v1/sessions/<name>/stop", Needs.ADMIN)
async def post_stop(name: str) -> Response:
    """Stop a session, politely and then firmly."""
    Query(()).done()
    await read_body({})
    return answer(_render(await the_service().sessions.stop(name)), 202)


@routes.post("/v1/sessions/<name>/keys", Needs.ADMIN)
async def post_keys(name: str) -> Response:
    """Press keys by their names, if `keys` is a list; type it as it is, if it is a text."""
    Query(()).done()
    terminal = the_service().terminals.require(name)
    body = await read_body({"keys": _some_keys}, ("keys",))
    if isinstance(body["keys"], str):
        await terminal.send_keys(body["keys"])
    else:
        await the_service().terminals.press(name, body["keys"])
    return answer({"sent": True})


@routes.post("/v1/sessions/<name>/input", Needs.ADMIN)
async def post_input(name: str) -> Response:
    """Type a text, and Enter unless `enter` is false, and see to it that the program takes it."""
    Query(()).done()
    the_service().terminals.require(name)
    body = await read_body({"text": a_text, "enter": a_flag, "wait": a_flag, "force": a_flag}, ("text",))
    flags = {flag: body[flag] for flag in ("enter", "wait", "force") if flag in body}
    return answer(await the_service().terminals.send(name, body["text"], **flags))


@routes.post("/v1/sessions/<name>/permission", Needs.ADMIN)
async def post_permission(name: str) -> Response:
    """Press the key that stands for a choice at a permission prompt."""
    Query(()).done()
    the_service().terminals.require(name)
    body = await read_body({"choice": a_word}, ("choice",))
    await the_service().terminals.respond(name, body["choice"])
    return answer({"sent": True})


@routes.post("/v1/sessions/<name>/resize", Needs.ADMIN)
async def post_resize(name: str) -> Response:
    """Set the size of a session's terminal."""
    Query(()).done()
    the_service().terminals.require(name)
    body = await read_body({"width": _a_size, "height": _a_size}, ("width", "height"))
    await the_service().terminals.resize(name, body["width"], body["height"])
    return answer({"width": body["width"], "height": body["height"]})


def _line(query: Query, name: str) -> int | None:
    return None if query.text(name) is None else query.integer(name, 0, -MOST_LINES, MOST_LINES)


def _some_keys(value: Any) -> str:
    return some_words(value) if isinstance(value, list) and value else a_word(value)


def _a_size(value: Any) -> str:
    fits = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST
    return "" if fits else f"a whole number from 1 to {LARGEST}"


def _render(session: SessionView) -> object:
    service = the_service()
    return session_wire(session, service.sessions.output_bytes(session), service.sessions.last_output_at(session))
