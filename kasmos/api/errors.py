"""Errors as `application/problem+json` (RFC 9457) with a stable `code`. Nothing else leaves us, never HTML."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from quart import Response, current_app
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from kasmos.exceptions import (
    BackendUnavailableError,
    ConfigError,
    DeliveryError,
    InteractiveOnlyError,
    KasmosError,
    Mistake,
    PlanError,
    RequestError,
    SessionBusyError,
    SessionClosedError,
    SessionError,
    SessionLostError,
    StaleApprovalError,
    StateLockedError,
    StoreError,
    SupervisionError,
)
from kasmos.model.codec import encode
from kasmos.model.value import frozen

if TYPE_CHECKING:
    from quart_trio import QuartTrio

_log = logging.getLogger("kasmos.api")

_CODES: dict[type[KasmosError], tuple[int, str]] = {
    PlanError: (400, "invalid_plan"),
    ConfigError: (400, "invalid_config"),
    InteractiveOnlyError: (409, "interactive_only"),
    SessionBusyError: (409, "session_busy"),
    SessionClosedError: (409, "session_closed"),
    DeliveryError: (409, "delivery_failed"),
    SessionLostError: (409, "session_lost"),
    StaleApprovalError: (409, "stale_approval"),
    SessionError: (409, "session_error"),
    SupervisionError: (409, "conflict"),
    BackendUnavailableError: (409, "backend_unavailable"),
    StateLockedError: (503, "state_locked"),
    StoreError: (503, "store_unavailable"),
}

_HTTP_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "request_timeout",
    413: "too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
}

RETRY_AFTER = 5
"""Seconds after which a refused client may ask again."""


@frozen
class Problem:
    """The body of every answer that is an error."""

    title: str
    status: int
    code: str
    detail: str
    mistakes: tuple[Mistake, ...] = ()


def register_error_handlers(app: QuartTrio) -> None:
    """Answer every error as a problem, whoever raised it."""
    app.register_error_handler(KasmosError, _from_kasmos)
    app.register_error_handler(HTTPException, _from_http)
    app.register_error_handler(Exception, _from_bug)


def problem(
    status: int, code: str, detail: str, mistakes: Iterable[Mistake] = (), retry_after: int | None = None
) -> Response:
    """The answer for an error."""
    title = code.replace("_", " ").capitalize()
    body = Problem(title=title, status=status, code=code, detail=detail, mistakes=tuple(mistakes))
    response = Response(encode(body), status=status, content_type="application/problem+json")
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="kasmos"'
    if status in (429, 503):
        response.headers["Retry-After"] = str(RETRY_AFTER if retry_after is None else retry_after)
    return response


async def _from_kasmos(error: KasmosError) -> Response:
    if isinstance(error, RequestError):
        return problem(error.status, error.code, error.detail, error.mistakes, error.retry_after)
    for kind, (status, code) in _CODES.items():
        if isinstance(error, kind):
            return problem(status, code, str(error), getattr(error, "mistakes", ()))
    return await _from_bug(error)


def _detail(error: HTTPException) -> str:
    if isinstance(error, NotFound):
        return "there is nothing at this path; GET /docs and GET /openapi.json tell what there is"
    if isinstance(error, MethodNotAllowed):
        return f"this path knows {', '.join(sorted(error.valid_methods or ()))}"
    if isinstance(error, RequestEntityTooLarge):
        return f"a body has {current_app.config['MAX_CONTENT_LENGTH']} bytes at most"
    return error.description or error.name


async def _from_http(error: HTTPException) -> Response:
    status = error.code or 500
    code = _HTTP_CODES.get(status, "bad_request" if status < 500 else "internal")
    response = problem(status, code, _detail(error))
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


async def _from_bug(error: Exception) -> Response:
    # A bug of ours: the reader is told that much and no more, the log has the rest.
    _log.error("a request failed by a bug of kasmos", exc_info=error)
    return problem(500, "internal", "kasmos has a bug; its log has the traceback")
