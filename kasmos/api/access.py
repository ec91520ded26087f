"""Who is let in: by the kernel's word on the Unix socket, by `kasmos.daemon.access` over TCP; what each route needs.

A route says what it needs when it is registered; one that does not cannot be. What is no route needs admin.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio
from quart import Blueprint, Response, Websocket, request, websocket
from quart.wrappers import Request
from quart_trio import QuartTrio

from kasmos.daemon.access import Guard, Needs, Refusal
from kasmos.exceptions import KasmosInternalError, RequestError
from kasmos.model.value import frozen

Handler = Callable[..., Awaitable[Any]]
H = TypeVar("H", bound=Handler)


@frozen
class Operation:
    """One thing that can be asked."""

    method: str
    path: str
    needs: Needs
    handler: Handler
    endpoint: str
    """Its name, unique among all."""


class Routes:
    """The routes of one kind of thing."""

    def __init__(self, name: str) -> None:
        self.blueprint = Blueprint(name, f"kasmos.api.{name}")
        self.operations: list[Operation] = []

    def get(self, path: str, needs: Needs) -> Callable[[H], H]:
        """Register a question."""
        return self._register("GET", path, needs)

    def post(self, path: str, needs: Needs) -> Callable[[H], H]:
        """Register a command."""
        return self._register("POST", path, needs)

    def websocket(self, path: str, needs: Needs) -> Callable[[H], H]:
        """Register a WebSocket."""

        def register(handler: H) -> H:
            self.operations.append(Operation("WEBSOCKET", path, needs, handler, self._endpoint(handler)))
            self.blueprint.websocket(path)(handler)
            return handler

        return register

    def _endpoint(self, handler: Handler) -> str:
        return f"{self.blueprint.name}.{handler.__name__}"

    def _register(self, method: str, path: str, needs: Needs) -> Callable[[H], H]:
        def register(handler: H) -> H:
            self.operations.append(Operation(method, path, needs, handler, self._endpoint(handler)))
            self.blueprint.route(path, methods=[method])(handler)
            return handler

        return register


class Admission:
    """Lets requests in, or not.

    Args:
        guard: judges those over TCP.
        tell: is told of refusals that are worth a record.
    """

    def __init__(self, guard: Guard, tell: Callable[[Refusal], None]) -> None:
        self._guard = guard
        self._tell = tell
        self._needs: dict[str, Needs] = {}
        self.operations: list[Operation] = []

    def take(self, app: QuartTrio, routes: Routes) -> None:
        """Register routes with the application."""
        for operation in routes.operations:
            self._needs[operation.endpoint] = operation.needs
        self.operations += routes.operations
        app.register_blueprint(routes.blueprint)

    def require_declared(self, app: QuartTrio) -> None:
        """Refuse an application with a route that does not say what it needs.

        Raises:
            KasmosInternalError: there is one.
        """
        for rule in app.url_map.iter_rules():
            if rule.endpoint not in self._needs:
                raise KasmosInternalError(f"the route {rule} does not say what it needs")

    async def admit_request(self) -> None:
        """Judge the present request, before it is handled."""
        self._admit(request)

    async def admit_websocket(self) -> Response | None:
        """Judge the present WebSocket, before it is accepted."""
        self._admit(websocket)
        return None

    def _admit(self, asked: Request | Websocket) -> None:
        state = asked.scope.get("state", {})
        if not state.get("tcp", False):
            # The socket's mode keeps others out already; this holds if somebody loosens it.
            peer = state.get("peer")
            if not peer_allowed(peer.uid if peer is not None else None):
                raise RequestError(403, "forbidden_peer", "only the supervisor's own user and root may talk to it")
            return
        rule = asked.url_rule
        needs = self._needs.get(rule.endpoint, Needs.ADMIN) if rule is not None else Needs.ADMIN
        client = asked.scope.get("client") or ("?", 0)
        try:
            self._guard.judge(needs, asked.headers.get, str(client[0]), trio.current_time())
        finally:
            news, self._guard.news = self._guard.news, []
            for refusal in news:
                self._tell(refusal)


def peer_allowed(peer_uid: int | None) -> bool:
    """Whether a process of this user may talk to us: our own user, or root."""
    return peer_uid in (os.getuid(), 0)
