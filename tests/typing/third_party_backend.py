"""A backend that somebody else wrote, held to the protocol by the type checker alone.

Where a line carries `type: ignore`, the error is the point: mypy tells when it would be accepted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import assert_type

import trio

from kasmos.exceptions import InteractiveOnlyError, SessionStartError
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import UNKNOWN_EXIT, Capabilities, ExitStatus, SessionHandle, SessionSpec, StopReason
from kasmos.orchestration.kitchen import Kitchen
from kasmos.sessions.protocol import (
    Backend,
    ExecutionSession,
    Notify,
    OutputChunk,
    SessionNeverStarted,
    Terminate,
    Update,
)
from kasmos.supervision.termination import stop, terminate


class CloudSession:
    """A session on somebody else's machine."""

    def __init__(self, spec: SessionSpec, notify: Notify) -> None:
        self._spec = spec
        self._notify = notify
        self._done = trio.Event()
        self._exit: ExitStatus | None = None

    @property
    def spec(self) -> SessionSpec:
        return self._spec

    @property
    def handle(self) -> SessionHandle:
        return SessionHandle(self._spec.id)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(processes=False)

    @property
    def notify(self) -> Notify:
        return self._notify

    @property
    def pid(self) -> int | None:
        return None

    @property
    def exit(self) -> ExitStatus | None:
        return self._exit

    async def wait(self) -> ExitStatus:
        await self._done.wait()
        return self._exit or UNKNOWN_EXIT

    async def signal(self, signum: int) -> None: ...

    async def kill(self) -> None:
        self._done.set()

    def detach(self) -> None: ...

    def read_nowait(self, offset: int, limit: int = 65_536) -> OutputChunk:
        return OutputChunk(offset, b"")

    async def read(self, offset: int, limit: int = 65_536) -> OutputChunk:
        return self.read_nowait(offset, limit)

    @property
    def output_bytes(self) -> int:
        return 0

    def has_updated(self) -> Update:
        return Update(changed=False, prompt=False)

    def capture(self, start: int | None = None, end: int | None = None) -> str:
        return ""

    async def screen(self, start: int | None = None, end: int | None = None, *, ansi: bool = False) -> str:
        return ""

    async def attach(self) -> None:
        raise InteractiveOnlyError("attach")

    async def send_keys(self, keys: str) -> None:
        raise InteractiveOnlyError("send_keys")

    async def tap_enter(self) -> None:
        raise InteractiveOnlyError("tap_enter")

    async def send_permission_response(self, choice: str) -> None:
        raise InteractiveOnlyError("send_permission_response")

    async def set_detached_size(self, width: int, height: int) -> None:
        raise InteractiveOnlyError("set_detached_size")


class CloudBackend:
    """Sessions on somebody else's machine."""

    def __init__(self, terminate: Terminate) -> None:
        self._terminate = terminate

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(processes=False)

    @asynccontextmanager
    async def open(self, spec: SessionSpec, *, notify: Notify) -> AsyncGenerator[CloudSession, None]:
        if not spec.argv:
            raise SessionStartError("nothing to run")
        session = CloudSession(spec, notify)
        try:
            yield session
        finally:
            with trio.CancelScope(shield=True):
                await self._terminate(session)

    @asynccontextmanager
    async def adopt(
        self, spec: SessionSpec, handle: SessionHandle, *, notify: Notify
    ) -> AsyncGenerator[CloudSession, None]:
        if handle.version != 1:
            raise SessionNeverStarted(handle.session_id)
        yield CloudSession(spec, notify)

    def read_output(self, session_id: str, offset: int, limit: int) -> OutputChunk:
        return OutputChunk(offset, b"")

    def forget(self, session_ids: Iterable[str]) -> None: ...


class Forgetful(CloudBackend):
    """Removes sessions one by one, which is not what was asked for."""

    def forget(self, session_ids: int) -> None: ...  # type: ignore[override]


class NoBackend:
    """Not a backend at all."""


async def use(spec: SessionSpec, notify: Notify) -> None:
    backend: Backend = CloudBackend(terminate)
    kitchen = Kitchen(profiles=dict, environ={}, backends={ExecutionMode.HEADLESS: backend}, new_suffix=lambda: "x")
    assert_type(kitchen.backends[ExecutionMode.HEADLESS], Backend)
    async with backend.open(spec, notify=notify) as session:
        assert_type(session, ExecutionSession)
        assert_type(await session.wait(), ExitStatus)
        assert_type(session.exit, ExitStatus | None)
        assert_type(await session.read(0), OutputChunk)
        assert_type(await stop(session, reason=StopReason.REQUESTED), ExitStatus | None)
    not_one: Backend = NoBackend()  # type: ignore[assignment]
    not_one_either: Backend = Forgetful(terminate)  # type: ignore[assignment]
    async with not_one.open(spec), not_one_either.adopt(spec):  # type: ignore[call-arg]
        pass
