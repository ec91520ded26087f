"""The scripted backend: sessions in memory, whose programs are scripts. For tests, kasmos' and its users'.

It keeps the same contract as the backends with real processes and is held to it by the same suite.
Time is Trio's clock, so a mock clock drives it. What runs is the state of a `ScriptedMachine`; give two
backends the same one to let a supervisor succeed another.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase

import attrs
import trio

from kasmos.exceptions import (
    ConfigError,
    InteractiveOnlyError,
    NoRoomError,
    SessionClosedError,
    SessionError,
    SessionLostError,
    SessionStartError,
    StaleApprovalError,
)
from kasmos.model.approval import Answer, Ask
from kasmos.model.event import Event, LeftoversFound, OutputLost, SessionUnkillable
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import Capabilities, ExitStatus, SessionHandle, SessionKind, SessionSpec
from kasmos.sessions.output import OutputBuffer, decode_from, lines_between
from kasmos.sessions.protocol import Notify, OutputChunk, SessionNeverStarted, Terminate, Update
from kasmos.sessions.script import Fail, Hang, NoRoom, Script, ScriptedAsk, Truncate, script_from_spec
from kasmos.sessions.scripted_machine import ScriptedMachine, ScriptedProgram

__all__ = ["Fail", "Hang", "Script", "ScriptedAsk", "ScriptedBackend", "ScriptedMachine", "ScriptedProgram", "Truncate"]

Scripts = Mapping[str, Script | Sequence[Script]] | Callable[[SessionSpec], Script]
"""Which script a session has: by pattern, or by a function. See `ScriptedBackend`."""

_CAPABILITIES = Capabilities(interactive=False, adoption=True, detach=True, processes=False, asks=True)


class ScriptedSession:
    """A session whose program is a script. See `ExecutionSession` for what its methods promise."""

    def __init__(self, program: ScriptedProgram, handle: SessionHandle, notify: Notify) -> None:
        self._program = program
        self._handle = handle
        self._notify = notify
        self._reporting = trio.Lock()
        self._reported_truncations = 0
        self._reported_leftovers = False
        self._exit: ExitStatus | None = None
        self._seen = 0
        self._detached = False
        self._closed = False

    def __repr__(self) -> str:
        return f"<ScriptedSession {self.spec.id} {self._exit or 'running'}>"

    @property
    def spec(self) -> SessionSpec:
        return self._program.spec

    @property
    def handle(self) -> SessionHandle:
        return self._handle

    @property
    def capabilities(self) -> Capabilities:
        return _CAPABILITIES

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
        await trio.lowlevel.checkpoint()
        while True:
            changed = self._program.changed
            running = self._program.running
            await self._report(ended=not running)
            if not running:
                break
            self._check_open()
            await self._sleep(changed)
        self._exit = self._program.exit
        if self._exit is None:
            raise SessionLostError(f"session {self.spec.id}: its fate can no longer be learnt")
        return self._exit

    async def signal(self, signum: int) -> None:
        await trio.lowlevel.checkpoint()
        if self._program.running:
            self._check_open()
            self._program.send(signum)

    async def kill(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self._program.running:
            return
        self._check_open()
        self._program.send(signal.SIGKILL)
        with trio.move_on_after(self.spec.stop.kill_grace):
            while self._program.running:
                await self._sleep(self._program.changed)
        if self._program.running:
            await self._notify(SessionUnkillable(self.spec.id, pids=()))

    def detach(self) -> None:
        if self._closed:
            raise SessionClosedError(f"session {self.spec.id}: its scope has been left")
        self._detached = True

    def read_nowait(self, offset: int, limit: int = 65_536) -> OutputChunk:
        self._program.advance()
        return _read(self._program.log, offset, limit)

    async def read(self, offset: int, limit: int = 65_536) -> OutputChunk:
        await trio.lowlevel.checkpoint()
        while True:
            changed = self._program.changed
            running = self._program.running
            chunk = self.read_nowait(offset, limit)
            if chunk.data or not running:
                return chunk
            await self._sleep(changed)

    @property
    def output_bytes(self) -> int:
        self._program.advance()
        return self._program.log.end

    def has_updated(self) -> Update:
        before, self._seen = self._seen, self.output_bytes
        return Update(self._seen > before, self._program.asking is not None)

    def capture(self, start: int | None = None, end: int | None = None) -> str:
        chunk = self.read_nowait(self.output_bytes - self.spec.buffer_bytes, self.spec.buffer_bytes)
        return lines_between(decode_from(chunk.data, cut=chunk.offset > 0), start, end)

    async def screen(self, start: int | None = None, end: int | None = None, *, ansi: bool = False) -> str:
        await trio.lowlevel.checkpoint()
        return self.capture(start, end)

    def tail(self, lines: int = 20, max_bytes: int = 4096) -> str:
        """The last lines of the output, decoded with replacement."""
        self._program.advance()
        return self._program.log.tail(lines, max_bytes)

    async def attach(self) -> None:
        await self._refuse("attach")

    async def send_keys(self, keys: str) -> None:
        await self._refuse("send_keys")

    async def tap_enter(self) -> None:
        await self._refuse("tap_enter")

    async def send_permission_response(self, choice: str) -> None:
        await self._refuse("send_permission_response")

    async def set_detached_size(self, width: int, height: int) -> None:
        await self._refuse("set_detached_size")

    async def wait_ask(self, seen: str | None) -> Ask | None:
        await trio.lowlevel.checkpoint()
        while True:
            changed = self._program.changed
            asking = self._program.asking
            if (asking.identity if asking is not None else None) != seen:
                return asking
            await self._sleep(changed)

    async def answer(self, ask: Ask, answer: Answer) -> None:
        await trio.lowlevel.checkpoint()
        asking = self._program.asking
        if asking is None or asking.identity != ask.identity:
            raise StaleApprovalError(f"session {self.spec.id} does not ask this any more: {ask.subject}")
        self._check_open()
        self._program.answer(answer)

    async def leave(self, terminate: Terminate) -> None:
        """End the program unless it was detached; the session is closed then."""
        try:
            if self._program.running and not self._detached:
                stop = self.spec.stop
                # Whoever leaves may be cancelled already; the ladder must be climbed none the less.
                with trio.move_on_after(stop.stop_grace + 2 * stop.kill_grace + 5.0, shield=True):
                    await self._stop(terminate)
        finally:
            self._closed = True

    async def _stop(self, terminate: Terminate) -> None:
        try:
            await terminate(self)
        except Exception:
            # A ladder that broke must not leave the program running.
            await self.kill()
            raise

    async def _refuse(self, verb: str) -> None:
        await trio.lowlevel.checkpoint()
        raise InteractiveOnlyError(f"{verb}: session {self.spec.id} is scripted and has no terminal")

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosedError(f"session {self.spec.id}: its scope has been left")

    async def _sleep(self, changed: trio.Event) -> None:
        with trio.move_on_at(self._program.next_at):
            await changed.wait()

    async def _report(self, *, ended: bool) -> None:
        """Tell what has to be told before anybody learns of the end: once, however many wait."""
        async with self._reporting:
            for offset in self._program.truncations[self._reported_truncations :]:
                await self._notify(OutputLost(self.spec.id, offset, "the program truncated its log"))
                self._reported_truncations += 1
            leftovers = self._program.script.leftovers
            if ended and leftovers and not self._reported_leftovers:
                await self._notify(LeftoversFound(self.spec.id, leftovers))
                self._reported_leftovers = True


class ScriptedBackend:
    """Runs scripts as sessions on a `ScriptedMachine`.

    Args:
        scripts: a function from spec to script (by default the one that serves `execution_mode = "scripted"`);
            or a mapping, of which the first key that matches counts. A key is a pattern as in a shell, for the
            session's name, task id or id; of sessions of another kind than `agent`, for `KIND:NAME` only.
            A sequence of scripts has one per attempt, and its last holds for all that follow.
        terminate: the stop ladder.
        machine: where the programs run; a new one by default.
    """

    def __init__(
        self,
        scripts: Scripts = script_from_spec,
        *,
        terminate: Terminate,
        machine: ScriptedMachine | None = None,
    ) -> None:
        self.machine = machine or ScriptedMachine()
        self._scripts = scripts
        self._terminate = terminate
        self._crashed = False

    @property
    def capabilities(self) -> Capabilities:
        return _CAPABILITIES

    def crash(self) -> None:
        """Behave as if this supervisor was killed: from now on no scope ends its program and nothing is told."""
        self._crashed = True

    @asynccontextmanager
    async def open(self, spec: SessionSpec, *, notify: Notify) -> AsyncIterator[ScriptedSession]:
        """Start a script. See `Backend.open`."""
        program = await self._start(spec)
        handle = SessionHandle(spec.id, ExecutionMode.SCRIPTED, self.machine.boot_id)
        async with self._scope(program, handle, notify) as session:
            yield session

    @asynccontextmanager
    async def adopt(
        self, spec: SessionSpec, handle: SessionHandle, *, notify: Notify
    ) -> AsyncIterator[ScriptedSession]:
        """Take hold of a script that runs or ran on the machine. See `Backend.adopt`."""
        await trio.lowlevel.checkpoint()
        program = self.machine.programs.get(handle.session_id)
        if program is None:
            # 1. Not on this machine, and of this boot: it never ran, and the claim sees to it that it never will.
            # 2. Of another boot, or of the memory of a supervisor that is gone: nobody knows.
            self.machine.claim(handle.session_id)
            if handle.boot_id in ("", self.machine.boot_id):
                raise SessionNeverStarted(handle.session_id)
            raise SessionLostError(f"session {handle.session_id}: it ran in another boot of the machine")
        if program.lost:
            raise SessionLostError(f"session {handle.session_id}: its fate can no longer be learnt")
        async with self._scope(program, handle, notify) as session:
            if not program.running:
                # How it ended is known from the first moment: nobody is to think that it has yet to end.
                await session.wait()
            yield session

    def read_output(self, session_id: str, offset: int, limit: int) -> OutputChunk:
        """Read the output of a session that has ended.

        Raises:
            SessionLostError: nothing is stored of this session.
        """
        program = self.machine.programs.get(session_id)
        if program is None:
            raise SessionLostError(f"nothing is stored of session {session_id}")
        program.advance()
        return _read(program.log, offset, limit)

    def forget(self, session_ids: Iterable[str]) -> None:
        """Remove what is stored of sessions that have ended. They still cannot be started again.

        Raises:
            SessionError: one of them runs; nothing was removed.
        """
        session_ids = set(session_ids)
        if running := session_ids.intersection(self.machine.live):
            raise SessionError(f"still running: {', '.join(sorted(running))}")
        for session_id in session_ids:
            self.machine.programs.pop(session_id, None)

    async def _start(self, spec: SessionSpec) -> ScriptedProgram:
        await trio.lowlevel.checkpoint()
        script = self._script(spec)
        match script.start:
            case Fail():
                await trio.sleep(script.start.after)
                raise SessionStartError(script.start.message)
            case NoRoom():
                raise NoRoomError("no room")
            case Hang():
                await trio.sleep(script.start.seconds)
        if not self.machine.claim(spec.id):
            raise SessionStartError(f"session {spec.id} was started before, or never will be")
        return self.machine.start(spec, script)

    def _script(self, spec: SessionSpec) -> Script:
        if callable(self._scripts):
            try:
                return self._scripts(spec)
            except ConfigError as error:
                raise SessionStartError(str(error)) from error
        agent = spec.kind is SessionKind.AGENT
        names = (spec.name, spec.task_id or "", spec.id) if agent else (f"{spec.kind}:{spec.name}",)
        for pattern, script in self._scripts.items():
            if any(fnmatchcase(name, pattern) for name in names):
                if isinstance(script, Script):
                    return script
                return script[min(spec.attempt, len(script)) - 1]
        raise SessionStartError(f"no script for session {spec.id} (looked for {', '.join(filter(None, names))})")

    @asynccontextmanager
    async def _scope(
        self, program: ScriptedProgram, handle: SessionHandle, notify: Notify
    ) -> AsyncIterator[ScriptedSession]:
        async def tell(event: Event) -> None:
            if not self._crashed:
                await notify(event)

        session = ScriptedSession(program, handle, tell)
        try:
            yield session
        finally:
            if not self._crashed:
                await session.leave(self._terminate)  # noqa: ASYNC102  # it shields itself, within a bound


def _read(log: OutputBuffer, offset: int, limit: int) -> OutputChunk:
    offset = max(offset, 0)
    while True:
        chunk = log.read(offset, limit)
        if chunk is not None:
            return chunk
        start = log.start
        chunk = log.read(start, limit)
        if chunk is not None:
            return attrs.evolve(chunk, lost=start - offset)
