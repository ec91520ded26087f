"""The headless backend: programs as child processes, without a terminal, that outlive their supervisor.

How a program is started is in `spawn` and `launch`, how one is taken over in `adoption`, what its end means in
`ending`, who belongs to it in `tree`, its output in `follow`. Here they are put together: one `HeadlessSession`
per program.
"""

from __future__ import annotations

import enum
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from kasmos.exceptions import BackendUnavailableError, InteractiveOnlyError, SessionClosedError, SessionLostError
from kasmos.model import codec
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import Capabilities, ExitStatus, SessionHandle, SessionSpec
from kasmos.sessions import adoption, layout, spawn
from kasmos.sessions.cgroups import Cgroups, find_cgroups
from kasmos.sessions.ending import RECORD_GRACE, finish
from kasmos.sessions.hold import Hold
from kasmos.sessions.launch import Records
from kasmos.sessions.output import LogFile, lines_between
from kasmos.sessions.processes import lease_is_held
from kasmos.sessions.protocol import Notify, OutputChunk, Terminate
from kasmos.sessions.services import Services, open_services

__all__ = ["CLAIM_GRACE", "HeadlessBackend", "HeadlessSession", "lease_is_held", "open_headless"]

CLAIM_GRACE = 5.0
"""Seconds a shim that holds the lease has to claim its directory, or to start the program."""

_CAPABILITIES = Capabilities(interactive=False, adoption=True, detach=True, processes=True)


class _Unreadable(enum.Enum):
    """What is found in the place of a specification that cannot be read."""

    UNREADABLE = enum.auto()


def _stored_in(directory: str) -> SessionSpec | _Unreadable | None:
    records = Records(directory)
    try:
        spec = records.spec()
        if spec is not None:
            return spec
        # The specification is written before anything is spawned; it may have been removed since.
        somebody = records.shim() or records.program() or lease_is_held(f"{directory}/{layout.LEASE}")
    except (OSError, codec.CodecError):
        return _Unreadable.UNREADABLE
    return _Unreadable.UNREADABLE if somebody else None


class HeadlessBackend:
    """Runs programs as child processes; made by `open_headless`."""

    def __init__(self, sessions: Path, services: Services, boot_id: str) -> None:
        self._sessions = sessions
        self._services = services
        self._boot_id = boot_id

    @property
    def capabilities(self) -> Capabilities:
        """What sessions of this backend can do."""
        return _CAPABILITIES

    @asynccontextmanager
    async def open(self, spec: SessionSpec, *, notify: Notify) -> AsyncGenerator[HeadlessSession, None]:
        """Start a program; see `Backend.open`."""
        hold = Hold(spec, self._sessions / spec.id, self._services, notify)
        await spawn.start(hold, self._boot_id)
        session = HeadlessSession(hold, self._boot_id, None)
        try:
            yield session
        finally:
            await session._leave()  # noqa: ASYNC102  # it shields itself, within a bound

    @asynccontextmanager
    async def adopt(
        self, spec: SessionSpec, handle: SessionHandle, *, notify: Notify
    ) -> AsyncGenerator[HeadlessSession, None]:
        """Take hold of a session of an earlier supervisor; see `Backend.adopt`."""
        directory = self._sessions / handle.session_id
        started = await adoption.what_was_started(directory, spec, self._services)
        hold = Hold(started, directory, self._services, notify)
        try:
            status = await adoption.adopt(hold, same_boot=handle.boot_id == self._boot_id)
        except BaseException:
            # Whatever was found out, or not: nothing is held that would have to be ended.
            hold.drop()
            raise
        session = HeadlessSession(hold, handle.boot_id, status)
        try:
            yield session
        finally:
            await session._leave()  # noqa: ASYNC102  # it shields itself, within a bound

    def read_output(self, session_id: str, offset: int, limit: int) -> OutputChunk:
        """Read the log of a session that has ended. Blocks on the disk; safe from any thread."""
        return LogFile(self._sessions / session_id).read(offset, limit)

    def stored_specs(self) -> dict[str, SessionSpec | None]:
        """What was started in the session directories there are, known to a journal or not. Blocks on the disk.

        Returns: None for a fragment: it was never written whole, and nothing runs in it. The rest is `unreadable`.

        Raises:
            OSError: the directories cannot be listed.
        """
        return {name: spec for name, spec in self._look_through() if not isinstance(spec, _Unreadable)}

    def unreadable(self) -> tuple[str, ...]:
        """The session directories that may belong to a session that runs, but do not say which. Blocks on the disk.

        Raises:
            OSError: the directories cannot be listed.
        """
        return tuple(name for name, spec in self._look_through() if isinstance(spec, _Unreadable))

    def _look_through(self) -> Iterator[tuple[str, SessionSpec | _Unreadable | None]]:
        try:
            names = sorted(os.listdir(self._sessions))
        except FileNotFoundError:
            return
        for name in names:
            yield name, _stored_in(f"{self._sessions}/{name}")

    def forget(self, session_ids: Iterable[str]) -> None:
        """Remove the directories of sessions that have ended. Blocks on the disk."""
        for session_id in session_ids:
            shutil.rmtree(self._sessions / session_id, ignore_errors=True)


@asynccontextmanager
async def open_headless(
    root: Path,
    *,
    terminate: Terminate,
    boot_id: str | None = None,
    warn: Callable[[str], None] = lambda text: None,
    claim_grace: float = CLAIM_GRACE,
    with_cgroups: bool = True,
) -> AsyncGenerator[HeadlessBackend, None]:
    """Open the backend on a state root.

    Args:
        root: the directory that holds `sessions/`.
        terminate: the stop ladder for scopes that are left with the program running.
        boot_id: this boot; read from the kernel when None.
        warn: is told, once each, what does not work as configured on this machine.
        claim_grace: seconds adoption waits for a shim that is on its way to start its program.
        with_cgroups: whether sessions get control groups of their own, where they can.

    Raises:
        BackendUnavailableError: not Linux, or out of inotify instances.

    Cancellation: reaches the block; sessions in it find all they need to end.
    """
    if not sys.platform.startswith("linux"):  # checked at run time
        raise BackendUnavailableError("headless sessions need Linux (pidfd, inotify, /proc)")
    if boot_id is None:
        boot_id = _read_boot_id()
    found = find_cgroups(root) if with_cgroups else None
    place = found if isinstance(found, Cgroups) else None
    if place is not None:
        place.tidy(root / "sessions")
    async with open_services(terminate=terminate, warn=warn, claim_grace=claim_grace, cgroups=place) as services:
        yield HeadlessBackend(root / "sessions", services, boot_id)


def _read_boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class HeadlessSession:
    """One program without a terminal; see `ExecutionSession` for what its methods promise."""

    def __init__(self, hold: Hold, boot_id: str, status: ExitStatus | None) -> None:
        self._hold = hold
        self._boot_id = boot_id
        self._exit = status
        self._failure: Exception | None = None
        self._done = trio.Event()
        self._watch_scope = trio.CancelScope()
        self._watch_over = trio.Event()
        self._detached = False
        self._closed = False
        if status is None:
            hold.services.nursery.start_soon(self._watch)
        else:
            self._done.set()
            self._watch_over.set()

    # --- identity ------------------------------------------------------------------

    @property
    def spec(self) -> SessionSpec:
        """What was asked for."""
        return self._hold.spec

    @property
    def handle(self) -> SessionHandle:
        """The key by which the session is found again."""
        return SessionHandle(session_id=self.spec.id, backend=ExecutionMode.HEADLESS, boot_id=self._boot_id)

    @property
    def capabilities(self) -> Capabilities:
        """What this backend can do."""
        return _CAPABILITIES

    @property
    def notify(self) -> Notify:
        """Makes facts about this session durable."""
        return self._hold.notify

    @property
    def pid(self) -> int | None:
        """The program's process id, once proven."""
        return self._hold.program.pid if self._hold.program is not None else None

    @property
    def exit(self) -> ExitStatus | None:
        """The exit status once `wait` has returned."""
        return self._exit

    # --- the end -------------------------------------------------------------------

    async def _watch(self) -> None:
        """Wait for the program's end, then find out how it ended and what it left."""
        try:
            with self._watch_scope:
                if self._hold.pidfd is not None:
                    await trio.lowlevel.wait_readable(self._hold.pidfd)
                self._exit = await finish(self._hold)
        # Whatever goes wrong here is told to whoever waits for this session, and to nobody else.
        except Exception as error:
            self._failure = error
        finally:
            self._done.set()
            self._watch_over.set()

    async def _leave(self) -> None:
        """The scope is left: detach, or end the program; then let go of everything."""
        hold = self._hold
        try:
            if not self._detached and not self._done.is_set():
                stop = self.spec.stop
                bound = stop.stop_grace + 2 * stop.kill_grace + 10
                with trio.CancelScope(shield=True, deadline=trio.current_time() + bound):
                    await hold.services.terminate(self)
        finally:
            # Also where the stop could not be made durable: then it goes on, and can be adopted.
            self._watch_scope.cancel()
            if hold.doorman is not None:
                hold.doorman.dismiss()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + RECORD_GRACE):
                await self._watch_over.wait()
                if hold.doorman is not None:
                    await hold.doorman.ended.wait()
            self._closed = True
            hold.drop()

    def detach(self) -> None:
        """Leave the program running when the scope is left."""
        if self._closed:
            raise SessionClosedError(f"{self.spec.name}: its scope has been left")
        self._detached = True

    # --- using it ------------------------------------------------------------------

    async def wait(self) -> ExitStatus:
        """Wait for the program's end; see `ExecutionSession.wait`."""
        await self._done.wait()
        if self._exit is not None:
            return self._exit
        if isinstance(self._failure, SessionLostError):
            raise self._failure
        if self._failure is None:
            raise SessionClosedError(f"{self.spec.name}: its scope was left while it ran")
        raise SessionLostError(f"{self.spec.name}: its end could not be followed") from self._failure

    async def signal(self, signum: int) -> None:
        """Signal the processes of the program's kernel session, helpers excepted."""
        if not self._done.is_set():
            await self._hold.signal(signum)

    async def kill(self) -> None:
        """SIGKILL to the whole tree, until nothing is left that may be killed."""
        if not self._done.is_set():
            await self._hold.kill()

    def read_nowait(self, offset: int, limit: int = 65_536) -> OutputChunk:
        """Read output from memory or from the log. Safe from any thread."""
        if self._hold.log is None:
            return OutputChunk(offset=offset, data=b"")
        return self._hold.log.read(offset, limit)

    async def read(self, offset: int, limit: int = 65_536) -> OutputChunk:
        """Read output, waiting until there is some or the session has ended."""
        await trio.lowlevel.checkpoint()
        while self._hold.log is not None:
            grown, done = self._hold.log.grown, self._done.is_set()
            chunk = self.read_nowait(offset, limit)
            if chunk.data or done:
                return chunk
            await _either(grown, self._done)
        return OutputChunk(offset=offset, data=b"")

    @property
    def output_bytes(self) -> int:
        """Absolute offset of the end of the output seen so far."""
        return self._hold.log.buffer.end if self._hold.log is not None else 0

    def has_updated(self) -> bool:
        """Whether output has arrived since the last call."""
        return self._hold.log is not None and self._hold.log.take_updated()

    def capture(self, start: int | None = None, end: int | None = None) -> str:
        """The buffered lines *start* to *end* as text."""
        if self._hold.log is None:
            return ""
        return lines_between(self._hold.log.buffer.text(), start, end)

    def tail(self, lines: int = 20, max_bytes: int = 4096) -> str:
        """The last lines of the output, decoded with replacement."""
        return self._hold.log.buffer.tail(lines, max_bytes) if self._hold.log is not None else ""

    async def attach(self) -> None:
        """Not without a terminal."""
        raise _interactive_only("attach")

    async def send_keys(self, keys: str) -> None:
        """Not without a terminal."""
        raise _interactive_only("send_keys")

    async def tap_enter(self) -> None:
        """Not without a terminal."""
        raise _interactive_only("tap_enter")

    async def send_permission_response(self, choice: str) -> None:
        """Not without a terminal."""
        raise _interactive_only("send_permission_response")

    async def set_detached_size(self, width: int, height: int) -> None:
        """Not without a terminal."""
        raise _interactive_only("set_detached_size")


def _interactive_only(verb: str) -> InteractiveOnlyError:
    return InteractiveOnlyError(
        f'{verb} needs a terminal and headless sessions have none; use execution_mode = "tmux" for this agent'
    )


async def _either(one: trio.Event, other: trio.Event) -> None:
    """Wait until one of two things has happened."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait, one)
        nursery.start_soon(wait, other)
