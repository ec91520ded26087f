"""The ground on which real programs meet real trouble: the headless backend and a supervisor's memory."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest
import trio

from kasmos.model.event import Event
from kasmos.model.profile import StopPolicy
from kasmos.model.session import CgroupUse, ExitStatus, SessionHandle, SessionSpec
from kasmos.sessions.headless import HeadlessBackend, HeadlessSession, open_headless
from kasmos.sessions.launch import Records
from kasmos.sessions.process_table import scan
from kasmos.sessions.processes import ProcessEntry, has_exit_info, read_entry
from kasmos.supervision.termination import terminate

LIMIT = 120.0
"""Seconds after which what should have happened has not."""
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
PROGRAMS = Path(__file__).parent.parent / "programs"

needs_exit_info = pytest.mark.skipif(
    not has_exit_info(), reason="this kernel does not tell the exit status of other people's children (Linux 6.15)"
)
"""For tests of what is known for certain of an end that only the parent saw, or a newer kernel tells."""

E = TypeVar("E", bound=Event)


@attrs.define
class Ground:
    """A state root, and what supervisors on it made durable."""

    root: Path
    events: list[Event] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)

    def backend(self, **options: Any) -> AbstractAsyncContextManager[HeadlessBackend]:
        """A supervisor's backend, as each new supervisor opens its own; without control groups unless asked for."""
        options.setdefault("with_cgroups", CgroupUse.NEVER)
        return open_headless(self.root / "root", terminate=terminate, warn=self.warnings.append, **options)

    def spec(self, *argv: str | Path, **changes: Any) -> SessionSpec:
        """A new session that is to run this command."""
        # Unique on the machine: other tests run at the same time, and processes are told apart by it.
        session_id = f"{Path(argv[0]).name}-{uuid.uuid4().hex[:12]}"
        spec = SessionSpec(
            id=session_id,
            name=Path(argv[0]).name,
            argv=tuple(map(str, argv)),
            cwd=str(self.root),
            env={"PATH": os.environ["PATH"], "HOME": str(self.root), "KASMOS_SESSION_ID": session_id},
            stop=StopPolicy(stop_grace=LIMIT),
        )
        return attrs.evolve(spec, **changes)

    def sh(self, script: str, **changes: Any) -> SessionSpec:
        """A new session that is to run this shell script."""
        return self.spec("/bin/sh", "-c", script, **changes)

    def python(self, script: str, **changes: Any) -> SessionSpec:
        """A new session that is to run this Python program."""
        return self.spec("/usr/bin/env", "python3", "-c", script, **changes)

    async def notify(self, event: Event) -> None:
        """Makes events durable, as far as this ground goes."""
        await trio.lowlevel.checkpoint()
        self.events.append(event)

    def told(self, kind: type[E]) -> list[E]:
        """The events of this kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def directory(self, spec: SessionSpec) -> Path:
        """Where a session's files are."""
        return self.root / "root" / "sessions" / spec.id

    def records(self, spec: SessionSpec) -> Records:
        """What is recorded of a session now."""
        return Records(str(self.directory(spec)))

    @asynccontextmanager
    async def opened(self, spec: SessionSpec, **options: Any) -> AsyncIterator[HeadlessSession]:
        """A session under a supervisor of its own."""
        async with self.backend(**options) as backend, backend.open(spec, notify=self.notify) as session:
            yield session

    @asynccontextmanager
    async def adopted(self, spec: SessionSpec, *, boot: str = BOOT, **options: Any) -> AsyncIterator[HeadlessSession]:
        """The same session under the next supervisor, which knows no more of it than its handle."""
        handle = SessionHandle(session_id=spec.id, boot_id=boot)
        bare = SessionSpec(id=spec.id, name=spec.name, argv=(), cwd="/")
        async with (
            self.backend(**options) as backend,
            backend.adopt(bare, handle, notify=self.notify) as session,
        ):
            yield session

    async def detached(self, spec: SessionSpec) -> int:
        """Start a session and let go of it, as a supervisor does that dies; its program's pid."""
        async with self.opened(spec) as session:
            session.detach()
        assert session.pid is not None
        return session.pid

    async def run(self, spec: SessionSpec) -> ExitStatus:
        """A whole session; how it ended."""
        async with self.opened(spec) as session:
            return await ended(session)

    async def adopt_end(self, spec: SessionSpec) -> ExitStatus:
        """Adopt a session and wait for its end."""
        async with self.adopted(spec) as session:
            return await ended(session)

    def output(self, spec: SessionSpec) -> bytes:
        """What is in the log."""
        return (self.directory(spec) / "output.log").read_bytes()

    def left(self, spec: SessionSpec) -> list[ProcessEntry]:
        """Processes that carry the session's mark."""
        return [entry for entry in scan() if spec.id in entry.markers]


@pytest.fixture
def ground(root: Path, state_home: Path) -> Ground:
    """A ground; whatever a test leaves of it is killed by the leak gate, and fails the test."""
    return Ground(root)


@pytest.fixture
def gate(root: Path) -> Iterator[Gate]:
    """A gate for programs to wait at."""
    gate = Gate(root / "gate")
    yield gate
    gate.close()


class Gate:
    """A place where programs wait until they are let on: `read x <gate`, in the directory of the test."""

    wait = "read -r _ <gate"

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        # Both ways: to open it blocks nobody, and nothing is lost while nobody waits yet.
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def open(self, count: int = 1) -> None:
        """Let this many waiting programs on; the others when the gate is closed."""
        if self._fd >= 0:
            os.write(self._fd, b"\n" * count)

    def close(self) -> None:
        """Let everybody on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


async def ended(session: HeadlessSession) -> ExitStatus:
    """Wait for a session's end, but not for ever."""
    with trio.fail_after(LIMIT):
        return await session.wait()


async def wrote(session: HeadlessSession, text: bytes) -> bytes:
    """Read until *text* has been seen."""
    seen = b""
    with trio.fail_after(LIMIT):
        while text not in seen:
            chunk = await session.read(len(seen))
            assert chunk.data, f"ended after {seen!r}"
            seen += chunk.data
    return seen


async def everything(session: HeadlessSession) -> bytes:
    """The whole output of a session that has ended."""
    seen = b""
    while (chunk := await session.read(len(seen), 1 << 20)).data:
        assert (chunk.offset, chunk.lost) == (len(seen), 0)
        seen += chunk.data
    return seen


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that tells nobody when it comes true."""
    with trio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110  # there is no event for it: that is the point
            await trio.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    entry = read_entry(pid)
    return entry is not None and entry.state != "Z"


def kill(*pids: int) -> None:
    """SIGKILL to processes of the test's own making."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
