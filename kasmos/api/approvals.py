"""`/v1/approvals`: what sessions ask, and answering it."""

from __future__ import annotations

import pwd
from typing import Any

from quart import Response, request

from kasmos.api.access import Routes
from kasmos.api.answers import answer, page_of
from kasmos.api.app import the_service
from kasmos.api.questions import Query, a_count, a_text, read_body
from kasmos.daemon.access import Needs
from kasmos.daemon.wire import approval_wire
from kasmos.exceptions import Mistake, RequestError
from kasmos.model.approval import Answer, AnswerKind, ApprovalState
from kasmos.model.view import ApprovalView

routes = Routes("approvals")

_DECISIONS = tuple(kind.value for kind in AnswerKind)


@routes.get("/v1/approvals", Needs.READ)
async def get_approvals() -> Response:
    """Approvals that wait for a person, oldest first; `status` gives others, `all` all that are remembered."""
    query = Query(("status", "limit", "cursor"))
    status = query.choice("status", ("all", *(state.value for state in ApprovalState)), ApprovalState.OPEN.value)
    page = query.page()
    query.done()
    found = the_service().approvals.list(None if status == "all" else ApprovalState(status or ApprovalState.OPEN))
    return answer(page_of(found, page, key=lambda view: view.id, render=_render, name="approvals"))


@routes.get("/v1/approvals/<name>", Needs.READ)
async def get_approval(name: str) -> Response:
    """One approval."""
    Query(()).done()
    return answer(_render(the_service().approvals.get(name)))


@routes.post("/v1/approvals/<name>", Needs.ADMIN)
async def post_approval(name: str) -> Response:
    """Answer what a session asks: `decision`, with a `reason`, an `option` (from 1) or a `text`."""
    Query(()).done()
    fields = {"decision": _a_decision, "reason": a_text, "text": a_text, "option": a_count}
    body = await read_body(fields, ("decision",))
    view = await the_service().approvals.resolve(name, _answer_of(body), who_asks())
    return answer(_render(view), 200 if view.state.settled else 202)


def _a_decision(value: Any) -> str:
    return "" if value in _DECISIONS else f"one of {', '.join(_DECISIONS)}"


def _answer_of(body: dict[str, Any]) -> Answer:
    kind = AnswerKind(body["decision"])
    takes = {AnswerKind.DENY: "reason", AnswerKind.TEXT: "text", AnswerKind.CHOOSE: "option"}.get(kind)
    mistakes = [
        Mistake(f"$.{name}", f"it has no meaning for {kind.value}", "leave it out")
        for name in ("reason", "text", "option")
        if name in body and name != takes
    ]
    if takes in ("text", "option") and takes not in body:
        mistakes.append(Mistake(f"$.{takes}", "it is missing"))
    if mistakes:
        raise RequestError(400, "invalid_body", "the body is wrong", mistakes)
    if kind is AnswerKind.CHOOSE:
        return Answer(kind, option=body["option"] - 1)
    text = body.get(takes, "") if takes is not None else ""
    return Answer(kind, text, own_words=kind is AnswerKind.DENY and bool(text))


def who_asks() -> str:
    """The person, as the kernel knows who is at the other end of the socket."""
    peer = request.scope.get("state", {}).get("peer")
    if peer is None:
        return "somebody over the API"
    try:
        return pwd.getpwuid(peer.uid).pw_name
    except KeyError:
        return f"uid {peer.uid}"


def _render(view: ApprovalView) -> object:
    return approval_wire(the_service().world, view)
