"""The application: the service behind it, what holds for every request, and the routes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, cast

import trio
from quart import Response, current_app, request
from quart.routing import QuartRule
from quart_trio import QuartTrio

from kasmos.api import lines
from kasmos.api.access import Admission, peer_allowed
from kasmos.api.errors import register_error_handlers
from kasmos.api.lines import LineCache
from kasmos.daemon.access import DEFAULT_POLICY, AccessPolicy, Guard
from kasmos.daemon.service import Service
from kasmos.daemon.status import StatusBoard

__all__ = ["API_REVISION", "KasmosApp", "create_app", "peer_allowed", "the_service", "this_app"]

API_REVISION = "1"
"""Raised when a client that was right is wrong from now on; new fields and routes do not raise it."""

MAX_BODY = 16 * 1024 * 1024
"""Bytes; a plan of this size has tens of thousands of tasks."""

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

BODY_TIMEOUT = 30.0
"""Seconds a request's body may take to arrive."""


class MatchedRule(QuartRule):
    """A route that is looked for, and whose URL nobody builds.

    The function that would build it is generated when it is called: for fifty routes that takes longer than all the
    rest of making the application.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        def build(rule: MatchedRule, **values: object) -> tuple[str, str]:
            return super()._compile_builder(append_unknown)(rule, **values)

        return build


class KasmosApp(QuartTrio):
    """Our routes over one service."""

    url_rule_class = MatchedRule  # type: ignore[assignment]  # as Quart itself has it

    def __init__(self, service: Service, started_at: float) -> None:
        super().__init__("kasmos.api", static_folder=None)
        self.service = service
        self.board = StatusBoard(service, started_at)
        self.lines = LineCache()
        self.admission: Admission
        self._closing = False
        self._waits: set[trio.CancelScope] = set()

    @property
    def closing(self) -> bool:
        """Whether the server is shutting down: streams hand out what there is, and end."""
        return self._closing

    def close(self) -> None:
        """Let every stream and every long poll come to its end. Idempotent."""
        self._closing = True
        for scope in self._waits:
            scope.cancel()
        self.service.nudge()

    async def beat(self) -> NoReturn:
        """Make every silent stream look now and then whether it is time for a sign of life; one timer for all."""
        while True:
            await trio.sleep(lines.HEARTBEAT_INTERVAL / 3)
            self.service.nudge()

    @contextmanager
    def waiting(self, seconds: float) -> Iterator[trio.CancelScope]:
        """Bound a wait inside a request: by time, and by the server's end."""
        with trio.move_on_after(max(0.0, seconds)) as scope:
            if self._closing:
                scope.cancel()
            self._waits.add(scope)
            try:
                yield scope
            finally:
                self._waits.discard(scope)


def this_app() -> KasmosApp:
    """The application that handles the present request."""
    return cast(KasmosApp, current_app._get_current_object())  # type: ignore[attr-defined]  # a werkzeug proxy


def the_service() -> Service:
    """The service behind the present request."""
    return this_app().service


def create_app(service: Service, *, started_at: float, policy: AccessPolicy = DEFAULT_POLICY) -> KasmosApp:
    """Make the application over *service*.

    Args:
        service: what is served.
        started_at: when the supervisor started; wall clock.
        policy: who may do what over TCP.
    """
    # Here, because the routes need this module.
    from kasmos.api import (
        agent_events,
        agents,
        approvals,
        daemon,
        events,
        metrics,
        openapi,
        runs,
        sessions,
        status,
        tasks,
        usage,
        ws,
    )

    app = KasmosApp(service, started_at)
    admission = app.admission = Admission(Guard(policy), service.refused)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.config["BODY_TIMEOUT"] = BODY_TIMEOUT
    # The server has a deadline for every piece that it sends; an answer as a whole needs none.
    app.config["RESPONSE_TIMEOUT"] = None
    # Redirections for slashes would be answered in HTML, and nobody needs them.
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    register_error_handlers(app)
    app.before_request(admission.admit_request)
    app.before_websocket(admission.admit_websocket)
    app.after_request(_mark)
    rooms = (
        status, agents, runs, tasks, sessions, agent_events, approvals, usage, events, ws, daemon, metrics, openapi,
    )  # fmt: skip
    for room in rooms:
        admission.take(app, room.routes)
    admission.require_declared(app)
    return app


async def _mark(response: Response) -> Response:
    response.headers["X-Kasmos-Api"] = API_REVISION
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
    if request.method == "OPTIONS":
        # Nothing has no type.
        response.headers.pop("Content-Type", None)
    has_body = request.content_length or "Transfer-Encoding" in request.headers
    if has_body and (response.status_code >= 400 or request.method in _SAFE_METHODS):
        # Maybe nobody has read the body, and then the server closes the connection: the client has to
        # know before it sends its next request there.
        response.headers["Connection"] = "close"
    return response
