"""`/v1/sessions`: sessions of all tasks, their output, stopping, and typing where there is a terminal."""

from __future__ import annotations

from quart import Response

from kasmos.api.access import Routes
from kasmos.api.answers import answer, page_of
from kasmos.api.app import the_service
from kasmos.api.output import output_answer
from kasmos.api.questions import Query, a_flag, a_text, a_word, read_body
from kasmos.daemon.access import Needs
from kasmos.daemon.wire import session_status, session_wire
from kasmos.model.view import SessionState, SessionView

routes = Routes("sessions")


@routes.get("/v1/sessions", Needs.READ)
async def get_sessions() -> Response:
    """Sessions, newest first; `live=true` leaves out those that have ended."""
    query = Query(("run", "status", "live", "limit", "cursor"))
    status = query.choice("status", ("waiting", *(state.value for state in SessionState)))
    live = query.choice("live", ("true", "false"))
    run, page = query.text("run"), query.page()
    query.done()
    service = the_service()
    run_id = service.get_run(run).id if run is not None else None
    sessions = [
        session
        for session in service.list_sessions()
        if run_id in (None, session.run_id)
        and status in (None, session_status(session))
        and (live is None or session.state.live == (live == "true"))
    ]
    return answer(page_of(sessions, page, key=lambda item: item.id, render=_render, name="sessions"))


@routes.get("/v1/sessions/<name>", Needs.READ)
async def get_session(name: str) -> Response:
    """One session."""
    Query(()).done()
    return answer(_render(the_service().get_session(name)))


@routes.get("/v1/sessions/<name>/output", Needs.READ)
async def get_output(name: str) -> Response:
    """A session's output."""
    return await output_answer(the_service().get_session(name).id)


@routes.get("/v1/sessions/<name>/screen", Needs.READ)
async def get_screen(name: str) -> Response:
    """What a session's terminal shows now, or showed last; without a terminal, its last lines of output."""
    query = Query(("ansi",))
    ansi = query.choice("ansi", ("true", "false"), "false")
    query.done()
    screen = await the_service().read_screen(name, ansi=ansi == "true")
    return answer(
        {
            "session_id": screen.session_id,
            "interactive": screen.interactive,
            "lines": screen.text.split("\n"),
            "ended": screen.ended,
        }
    )


@routes.post("/v1/sessions/<name>/stop", Needs.ADMIN)
async def post_stop(name: str) -> Response:
    """Stop a session, politely and then firmly."""
    Query(()).done()
    await read_body({})
    return answer(_render(await the_service().stop_session(name)), 202)


@routes.post("/v1/sessions/<name>/keys", Needs.ADMIN)
async def post_keys(name: str) -> Response:
    """Type keys."""
    Query(()).done()
    terminal = the_service().get_terminal(name)
    body = await read_body({"keys": a_word}, ("keys",))
    await terminal.send_keys(body["keys"])
    return answer({"sent": True})


@routes.post("/v1/sessions/<name>/input", Needs.ADMIN)
async def post_input(name: str) -> Response:
    """Type a text, and Enter unless `enter` is false."""
    Query(()).done()
    terminal = the_service().get_terminal(name)
    body = await read_body({"text": a_text, "enter": a_flag}, ("text",))
    if body["text"]:
        await terminal.send_keys(body["text"])
    if body.get("enter", True):
        await terminal.tap_enter()
    return answer({"sent": True})


@routes.post("/v1/sessions/<name>/permission", Needs.ADMIN)
async def post_permission(name: str) -> Response:
    """Answer a permission prompt."""
    Query(()).done()
    terminal = the_service().get_terminal(name)
    body = await read_body({"choice": a_word}, ("choice",))
    await terminal.send_permission_response(body["choice"])
    return answer({"sent": True})


def _render(session: SessionView) -> object:
    service = the_service()
    return session_wire(session, service.output_bytes(session), service.last_output_at(session))
