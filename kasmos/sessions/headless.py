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

import attrs
import trio

from kasmos.exceptions import BackendUnavailableError, InteractiveOnlyError
from kasmos.model import codec
from kasmos.model.approval import Answer, Ask
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import Capabilities, CgroupUse, ExitStatus, SessionHandle, SessionSpec
from kasmos.sessions import adoption, layout, spawn
from kasmos.sessions.cgroups import Cgroups, find_cgroups
from kasmos.sessions.held import HeldSession
from kasmos.sessions.hold import Hold
from kasmos.sessions.launch import Records
from kasmos.sessions.mailbox import Mailbox
from kasmos.sessions.output import LogFile
from kasmos.sessions.processes import lease_is_held
from kasmos.sessions.protocol import Notify, OutputChunk, Terminate
from kasmos.sessions.services import Services, open_services

__all__ = ["CLAIM_GRACE", "HeadlessBackend", "HeadlessSession", "lease_is_held", "open_headless"]

CLAIM_GRACE = 5.0
"""Seconds a shim that holds the lease has to claim its directory, or to start the program."""

_CAPABILITIES = Capabilities(interactive=False, adoption=True, detach=True, processes=True)
_ASKING = attrs.evolve(_CAPABILITIES, asks=True)


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
        self._where = os.fspath(sessions)
        self.services = services
        """Shared with other backends of real processes in the same state root."""
        self.boot_id = boot_id

    @property
    def capabilities(self) -> Capabilities:
        """What sessions of this backend can do."""
        return _CAPABILITIES

    @asynccontextmanager
    async def open(self, spec: SessionSpec, *, notify: Notify) -> AsyncGenerator[HeadlessSession, None]:
        """Start a program; see `Backend.open`."""
        hold = Hold(spec, f"{self._where}/{spec.id}", self.services, notify)
        await spawn.start(hold, self.boot_id)
        session = HeadlessSession(hold, self.boot_id, None)
        try:
            yield session
        finally:
            await session.leave()  # noqa: ASYNC102  # it shields itself, within a bound

    @asynccontextmanager
    async def adopt(
        self, spec: SessionSpec, handle: SessionHandle, *, notify: Notify
    ) -> AsyncGenerator[HeadlessSession, None]:
        """Take hold of a session of an earlier supervisor; see `Backend.adopt`."""
        directory = self._sessions / handle.session_id
        started = await adoption.what_was_started(directory, spec, self.services)
        hold = Hold(started, os.fspath(directory), self.services, notify)
        try:
            status = await adoption.adopt(hold, same_boot=handle.boot_id == self.boot_id)
        except BaseException:
            # Whatever was found out, or not: nothing is held that would have to be ended.
            hold.drop()
            raise
        session = HeadlessSession(hold, handle.boot_id, status)
        try:
            yield session
        finally:
            await session.leave()  # noqa: ASYNC102  # it shields itself, within a bound

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
    with_cgroups: CgroupUse = CgroupUse.DELEGATED,
    in_memory: bool = False,
) -> AsyncGenerator[HeadlessBackend, None]:
    """Open the backend on a state root.

    Args:
        root: the directory that holds `sessions/`.
        terminate: the stop ladder for scopes that are left with the program running.
        boot_id: this boot; read from the kernel when None.
        warn: is told, once each, what does not work as configured on this machine.
        claim_grace: seconds adoption waits for a shim that is on its way to start its program.
        with_cgroups: where sessions get control groups of their own.
        in_memory: whether *root* is on no disk, so that nobody has to wait for one.

    Raises:
        BackendUnavailableError: not Linux, or out of inotify instances.

    Cancellation: reaches the block; sessions in it find all they need to end.
    """
    if not sys.platform.startswith("linux"):  # checked at run time
        raise BackendUnavailableError("headless sessions need Linux (pidfd, inotify, /proc)")
    if boot_id is None:
        boot_id = _read_boot_id()
    never = with_cgroups is CgroupUse.NEVER
    found = None if never else find_cgroups(root, delegated=with_cgroups is CgroupUse.DELEGATED)
    place = found if isinstance(found, Cgroups) else None
    if place is not None:
        place.tidy(root / "sessions")
    async with open_services(
        terminate=terminate, warn=warn, claim_grace=claim_grace, cgroups=place, in_memory=in_memory
    ) as services:
        yield HeadlessBackend(root / "sessions", services, boot_id)


def _read_boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class HeadlessSession(HeldSession):
    """One program without a terminal; see `ExecutionSession` for what its methods promise."""

    backend = ExecutionMode.HEADLESS
    _capabilities = _CAPABILITIES

    def __init__(self, hold: Hold, boot_id: str, status: ExitStatus | None) -> None:
        super().__init__(hold, boot_id, status)
        self._mailbox = Mailbox(f"{hold.path}/{layout.ASKS}", hold.services.inotify, self._done)

    @property
    def capabilities(self) -> Capabilities:
        """What this session can do: one with a mailbox asks as well."""
        return _ASKING if self.spec.asks else _CAPABILITIES

    async def wait_ask(self, seen: str | None) -> Ask | None:
        """Wait until something else than *seen* is asked; see `AskSource`."""
        return await self._mailbox.wait_ask(seen)

    async def answer(self, ask: Ask, answer: Answer) -> None:
        """Put the answer into the mailbox; see `AskSource`."""
        await self._mailbox.answer(ask, answer)

    def _waits_for_person(self) -> bool:
        """Whether an ask stands in its mailbox; who has none asks nobody."""
        return self.spec.asks and self._mailbox.asks

    async def leave(self) -> None:
        """The scope is left; see `HeldSession.leave`."""
        try:
            await super().leave()
        finally:
            self._mailbox.close()

    async def screen(self, start: int | None = None, end: int | None = None, *, ansi: bool = False) -> str:
        """The buffered lines: there is no other screen."""
        await trio.lowlevel.checkpoint()
        return self.capture(start, end)

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
