"""A session whose program is held by the records in its directory, whatever started it.

What is the same with and without a terminal: watching for the end, leaving, signals, output. A backend makes
its kind of session of it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import ClassVar

import trio

from kasmos.exceptions import SessionClosedError, SessionLostError
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import Capabilities, ExitStatus, InputWait, SessionHandle, SessionSpec
from kasmos.sessions.ending import RECORD_GRACE, finish
from kasmos.sessions.hold import Hold
from kasmos.sessions.output import lines_between
from kasmos.sessions.protocol import Notify, OutputChunk, Update
from kasmos.sessions.threads import in_thread
from kasmos.sessions.waits import find_waits


class HeldSession(ABC):
    """One program that is held by its records; see `ExecutionSession` for what its methods promise."""

    backend: ClassVar[ExecutionMode]
    _capabilities: ClassVar[Capabilities]

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
        return SessionHandle(session_id=self.spec.id, backend=self.backend, boot_id=self._boot_id)

    @property
    def capabilities(self) -> Capabilities:
        """What this backend can do."""
        return self._capabilities

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
                await self._wait_program()
                self._exit = await self._find_end()
        # Whatever goes wrong here is told to whoever waits for this session, and to nobody else.
        except Exception as error:
            self._failure = error
        finally:
            self._done.set()
            self._watch_over.set()

    async def _wait_program(self) -> None:
        """Wait for what ends the session: as a rule, the end of its program."""
        if self._hold.pidfd is not None:
            await trio.lowlevel.wait_readable(self._hold.pidfd)

    async def _find_end(self) -> ExitStatus:
        """What is done when the program has ended."""
        return await finish(self._hold)

    async def leave(self) -> None:
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
            if not self._watch_over.is_set() or not hold.doorman_is_gone:
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
            await either(grown, self._done)
        return OutputChunk(offset=offset, data=b"")

    @property
    def output_bytes(self) -> int:
        """Absolute offset of the end of the output seen so far."""
        return self._hold.log.buffer.end if self._hold.log is not None else 0

    def has_updated(self) -> Update:
        """Whether output has arrived since the last call, and whether it waits for a person."""
        changed = self._hold.log is not None and self._hold.log.take_updated()
        return Update(changed, False if self._done.is_set() else self._waits_for_person())

    def capture(self, start: int | None = None, end: int | None = None) -> str:
        """The buffered lines *start* to *end* as text."""
        if self._hold.log is None:
            return ""
        return lines_between(self._hold.log.buffer.text(), start, end)

    def tail(self, lines: int = 20, max_bytes: int = 4096) -> str:
        """The last lines of the output, decoded with replacement."""
        return self._hold.log.buffer.tail(lines, max_bytes) if self._hold.log is not None else ""

    async def look_for_waits(self) -> tuple[InputWait, ...]:
        """Who of its processes waits for input at this moment; see `ProcessSession`."""
        program, services = self._hold.program, self._hold.services
        if program is None or self._done.is_set():
            await trio.lowlevel.checkpoint()
            return ()
        try:
            # In a thread: some tens of files for each process.
            return await in_thread(find_waits, program, services.family, limiter=services.look_limiter)
        except OSError:
            # Out of descriptors, memory or threads: who looks again later sees it.
            return ()

    def last_output_at(self) -> float | None:
        """When it wrote something last."""
        if self._hold.log is None:
            return None
        try:
            found = os.stat(self._hold.log.path)
        except OSError:
            return None
        return found.st_mtime if found.st_size else None

    # --- what depends on whether there is a terminal -----------------------------------

    @abstractmethod
    def _waits_for_person(self) -> bool | None:
        """Whether the program, which runs, waits for a person; see `ExecutionSession.has_updated`."""

    @abstractmethod
    async def screen(self, start: int | None = None, end: int | None = None, *, ansi: bool = False) -> str:
        """See `ExecutionSession.screen`."""

    @abstractmethod
    async def attach(self) -> None:
        """See `ExecutionSession.attach`."""

    @abstractmethod
    async def send_keys(self, keys: str) -> None:
        """See `ExecutionSession.send_keys`."""

    @abstractmethod
    async def tap_enter(self) -> None:
        """See `ExecutionSession.tap_enter`."""

    @abstractmethod
    async def send_permission_response(self, choice: str) -> None:
        """See `ExecutionSession.send_permission_response`."""

    @abstractmethod
    async def set_detached_size(self, width: int, height: int) -> None:
        """See `ExecutionSession.set_detached_size`."""


async def either(one: trio.Event, other: trio.Event) -> None:
    """Wait until one of two things has happened."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait, one)
        nursery.start_soon(wait, other)
