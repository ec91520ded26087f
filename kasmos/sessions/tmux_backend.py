"""The tmux backend: programs in terminals that outlive their supervisor, on a server of the state root's own.

It shares the services, the session directories and the records of the headless backend.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from kasmos.exceptions import BackendUnavailableError, SessionLostError
from kasmos.model.session import Capabilities, ExitStatus, SessionHandle, SessionSpec
from kasmos.sessions import adoption, tmux, tmux_launch, tmux_start
from kasmos.sessions.ending import clear_up, close_log
from kasmos.sessions.headless import HeadlessBackend
from kasmos.sessions.hold import Hold
from kasmos.sessions.last_screen import load_screen, save_screen
from kasmos.sessions.protocol import FindRecogniser, Notify, OutputChunk
from kasmos.sessions.threads import in_thread
from kasmos.sessions.tmux_control import ControlLost
from kasmos.sessions.tmux_host import LIMITER, Host, open_host
from kasmos.sessions.tmux_pane import Pane, end_pane
from kasmos.sessions.tmux_session import CAPABILITIES, TmuxSession

LEAVE_LIMIT = 15.0
"""Seconds that ending an unused server may take."""
_HANGUP = 1


class TmuxBackend:
    """Runs programs in tmux; made by `open_tmux`."""

    def __init__(
        self,
        root: Path,
        headless: HeadlessBackend,
        environ: Mapping[str, str],
        find_recogniser: FindRecogniser | None,
    ) -> None:
        self._root = root
        self._find_recogniser = find_recogniser
        self._headless = headless
        self._environ = environ
        self._host: Host | None = None
        self._opening = trio.Lock()

    @property
    def capabilities(self) -> Capabilities:
        """What sessions of this backend can do."""
        return CAPABILITIES

    @asynccontextmanager
    async def open(self, spec: SessionSpec, *, notify: Notify) -> AsyncGenerator[TmuxSession, None]:
        """Start a program; see `Backend.open`."""
        host = await self.host()
        hold = Hold(spec, os.fspath(self._directory(spec.id)), self._headless.services, notify)
        pane = await tmux_start.start(hold, host, self._headless.boot_id)
        session = TmuxSession(hold, self._headless.boot_id, None, pane, self._find_recogniser)
        try:
            yield session
        finally:
            await session.leave()  # noqa: ASYNC102  # it shields itself, within a bound

    @asynccontextmanager
    async def adopt(
        self, spec: SessionSpec, handle: SessionHandle, *, notify: Notify
    ) -> AsyncGenerator[TmuxSession, None]:
        """Take hold of a session of an earlier supervisor; see `Backend.adopt`."""
        directory = self._directory(handle.session_id)
        started = await adoption.what_was_started(directory, spec, self._headless.services)
        hold = Hold(started, os.fspath(directory), self._headless.services, notify)
        same_boot = handle.boot_id == self._headless.boot_id
        try:
            host = await self._host_that_runs() if same_boot else None
            pane = await self._find_pane(hold, host)
            status = await adoption.adopt(hold, same_boot=same_boot)
            if host is not None and pane is None:
                pane = await self._find_pane(hold, host)  # it was on its way
            if pane is None and same_boot:
                await self._judge_without_pane(hold, status)
        except BaseException:
            hold.drop()
            raise
        pane = pane or Pane(host or self._no_host(), "")
        session = TmuxSession(hold, handle.boot_id, status, pane, self._find_recogniser)
        try:
            yield session
        finally:
            await session.leave()  # noqa: ASYNC102  # it shields itself, within a bound

    def _no_host(self) -> Host:
        """Stands for a server that has ended."""
        host = Host(tmux.Place("tmux", "", ""), self._headless.services)
        host.dead.set()
        host.control.close()
        return host

    async def _find_pane(self, hold: Hold, host: Host | None) -> Pane | None:
        if host is None:
            return None
        pane = Pane(host, tmux_launch.tmux_name(hold.spec.id))
        shim = hold.records.shim()
        with suppress(ControlLost):
            if await pane.find(shim.ppid if shim is not None else None):
                hold.kin.host = host.pid

                async def when_swept() -> None:
                    await end_pane(pane, lambda lines: save_screen(hold.path, lines))

                hold.when_swept = when_swept
                return pane
        return None

    async def _judge_without_pane(self, hold: Hold, status: ExitStatus | None) -> None:
        """A program that runs without its terminal, or ended with it, has lost its tmux server.

        Raises:
            SessionLostError: that is so.
        """
        if status is not None and not (status.signal == _HANGUP and not status.certain):
            return
        await hold.kill()
        await clear_up(hold)
        await close_log(hold)
        raise SessionLostError("the tmux server ended, and its terminal with it")

    def read_output(self, session_id: str, offset: int, limit: int) -> OutputChunk:
        """Read the log of a session that has ended. Blocks on the disk; safe from any thread."""
        return self._headless.read_output(session_id, offset, limit)

    def forget(self, session_ids: Iterable[str]) -> None:
        """Remove the directories of sessions that have ended, last screens included. Blocks on the disk."""
        self._headless.forget(session_ids)

    def last_screen(self, session_id: str) -> str | None:
        """The last screen of a session that has ended, if it was kept. Blocks on the disk."""
        lines = load_screen(os.fspath(self._directory(session_id)))
        return None if lines is None else "\n".join(lines)

    def _directory(self, session_id: str) -> Path:
        return self._root / "sessions" / session_id

    # --- the server ----------------------------------------------------------------

    async def host(self) -> Host:
        """The server, started if need be.

        Raises:
            BackendUnavailableError: tmux is missing or too old, or its server does not start.
        """
        async with self._opening:
            if self._host is None or self._host.dead.is_set():
                await self._close_host()
                place = await in_thread(self._place, limiter=LIMITER)
                self._host = await open_host(place, self._headless.services, self._environ)
            return self._host

    async def _host_that_runs(self) -> Host | None:
        """The server if it runs; it is not started for what is adopted."""
        if self._host is not None and not self._host.dead.is_set():
            return self._host
        try:
            if not await in_thread(self._is_serving, limiter=LIMITER):
                return None
            return await self.host()
        except BackendUnavailableError as error:
            self._headless.services.warn(f"sessions in tmux cannot be taken over: {error}")
            return None

    def _place(self) -> tmux.Place:
        binary = tmux.find_binary(self._environ.get("PATH"))
        return tmux.prepare(self._root, binary, self._environ.get("XDG_RUNTIME_DIR"))

    def _is_serving(self) -> bool:
        socket = tmux.socket_path(self._root, self._environ.get("XDG_RUNTIME_DIR"))
        return socket.exists() and tmux.is_serving(self._place())

    async def _close_host(self) -> None:
        if self._host is not None:
            await self._host.close()
            self._host = None

    async def leave(self) -> None:
        """Let go of the server, and end it if nothing is left in it. Bounded."""
        await self._close_host()
        socket = tmux.socket_path(self._root, self._environ.get("XDG_RUNTIME_DIR"))
        if not socket.exists():  # as short as a look can be
            return
        with suppress(BackendUnavailableError, OSError):
            place = await in_thread(self._place, limiter=LIMITER)
            await in_thread(tmux.end_if_unused, place, self._root / "sessions", limiter=LIMITER)


@asynccontextmanager
async def open_tmux(
    root: Path,
    headless: HeadlessBackend,
    *,
    environ: Mapping[str, str] | None = None,
    find_recogniser: FindRecogniser | None = None,
) -> AsyncGenerator[TmuxBackend, None]:
    """Open the backend on a state root, beside its headless backend. tmux is started with the first session.

    Args:
        root: the directory that holds `sessions/`.
        headless: its services are shared.
        environ: where `PATH` and `XDG_RUNTIME_DIR` are; `os.environ` when None.
        find_recogniser: how screens are read; without it no session can tell whether it waits for a person.

    Cancellation: reaches the block.
    """
    backend = TmuxBackend(root, headless, os.environ if environ is None else environ, find_recogniser)
    try:
        yield backend
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_LIMIT):
            await backend.leave()
