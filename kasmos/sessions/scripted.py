"""The scripted backend: sessions in memory, whose programs are scripts. For tests, kasmos' and its users'.

It keeps the same contract as the backends with real processes and is held to it by the same suite.
Time is Trio's clock, so a mock clock drives it. What runs is the state of a `ScriptedMachine`, which
survives its supervisor as a real machine would; what a program did by now is computed from
its script, its signals and the clock, so nothing has to run in the background for it.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase

import attrs
import trio

from kasmos.exceptions import (
    ConfigError,
    InteractiveOnlyError,
    SessionClosedError,
    SessionError,
    SessionLostError,
    SessionStartError,
)
from kasmos.model.event import Event, LeftoversFound, OutputLost, SessionUnkillable
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import Capabilities, ExitStatus, SessionHandle, SessionKind, SessionSpec
from kasmos.sessions.output import OutputBuffer, decode_from, lines_between
from kasmos.sessions.protocol import Notify, OutputChunk, SessionNeverStarted, Terminate
from kasmos.sessions.script import Fail, Hang, Script, Truncate, script_from_spec

__all__ = ["Fail", "Hang", "Script", "ScriptedBackend", "ScriptedMachine", "ScriptedProgram", "Truncate"]

Scripts = Mapping[str, Script | Sequence[Script]] | Callable[[SessionSpec], Script]
"""Which script a session has: by pattern, or by a function. See `ScriptedBackend`."""

_POLITE = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
_CAPABILITIES = Capabilities(interactive=False, adoption=True, detach=True, processes=False)


class ScriptedProgram:
    """One program on a `ScriptedMachine`: its script, and what became of it so far."""

    def __init__(self, spec: SessionSpec, script: Script) -> None:
        self.spec = spec
        self.script = script
        self.signals: list[int] = []
        """Every signal it was sent while it ran, in order."""
        self.truncations: list[int] = []
        """Absolute offset of each truncation of its log."""
        self.log = OutputBuffer(spec.max_log_bytes or sys.maxsize)
        self.changed = trio.Event()
        """Set, and replaced, whenever something happened that the clock does not tell."""
        self._lock = threading.Lock()
        self._clock = trio.lowlevel.current_clock()
        self._exit: ExitStatus | None = None
        self._lost = False
        self._asked = False
        self._last_words = b""
        now = at = self._clock.current_time()
        self._pending: deque[tuple[float, bytes | Truncate]] = deque()
        for delay, item in script.output:
            at += delay
            self._pending.append((at, item))
        self._end_at = at if script.duration is None else now + script.duration
        self._end = script.exit
        self._lost_at = math.inf if script.lost is None else now + script.lost

    @property
    def exit(self) -> ExitStatus | None:
        """How it ended, if it has."""
        self.advance()
        return self._exit

    @property
    def lost(self) -> bool:
        """Whether its fate can no longer be learnt."""
        self.advance()
        return self._lost

    @property
    def running(self) -> bool:
        """Whether it runs."""
        self.advance()
        return self._exit is None and not self._lost

    @property
    def next_at(self) -> float:
        """Instant of Trio's clock at which it does the next thing by itself."""
        output_at = self._pending[0][0] if self._pending else math.inf
        return min(output_at, self._end_at, self._lost_at)

    def advance(self) -> None:
        """Do what it has done by now. Safe from any thread."""
        with self._lock:
            if self._exit is not None or self._lost:
                return
            now = self._clock.current_time()
            until = min(now, self._end_at, self._lost_at)
            while self._pending and self._pending[0][0] <= until:
                self._write(self._pending.popleft()[1])
            if self._lost_at <= until:
                self._lost = True
            elif self._end_at <= until:
                self.log.append(self._last_words)
                self._exit = self._end

    def send(self, signum: int) -> None:
        """Deliver a signal."""
        if not self.running:
            return
        self.signals.append(signum)
        now = self._clock.current_time()
        if signum == signal.SIGKILL and not self.script.unkillable:
            self.end(ExitStatus(signal=signum))
        elif signum in _POLITE and not self._asked:
            self._asked = True
            status = self.script.ends_on_terminate_with or ExitStatus(signal=signum)
            self._end_by(now + self.script.ignores_terminate_for, status, self.script.last_words)
        self._wake()

    def end(self, status: ExitStatus) -> None:
        """Make it end now, as when somebody else kills it."""
        self._end_by(self._clock.current_time(), status, b"")
        self.advance()
        self._wake()

    def lose(self) -> None:
        """Make its fate unknowable from now on, unless it has ended."""
        with self._lock:
            self._lost_at = min(self._lost_at, self._clock.current_time())
        self.advance()
        self._wake()

    def _end_by(self, at: float, status: ExitStatus, last_words: bytes) -> None:
        self.advance()
        with self._lock:
            if at < self._end_at:
                self._end_at, self._end, self._last_words = at, status, last_words

    def _write(self, item: bytes | Truncate) -> None:
        if isinstance(item, bytes):
            self.log.append(item)
            return
        self.truncations.append(self.log.end)
        self.log.drop()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class ScriptedMachine:
    """What runs, whoever supervises it. Share one between backends to let a supervisor succeed another.

    It keeps count, so that a test can see what must never happen: `starts` above one, or `overlaps`.
    """

    def __init__(self, *, boot_id: str = "") -> None:
        self.boot_id = boot_id or uuid.uuid4().hex
        """Give the supervisor's where sessions are to be adopted by what the journal says of them."""
        self.programs: dict[str, ScriptedProgram] = {}
        """Every program that was started and not forgotten, by session id, in order of their start."""
        self.starts: Counter[str] = Counter()
        """How often each session was started: never more than once."""
        self.overlaps: list[tuple[str, str]] = []
        """Pairs of agent sessions of one task of which the second started while the first still ran."""
        self.peak = 0
        """The largest number of agent sessions that ran at once."""
        self._claimed: set[str] = set()

    @property
    def live(self) -> tuple[str, ...]:
        """Ids of the sessions that run."""
        return tuple(session_id for session_id, program in self.programs.items() if program.running)

    @property
    def live_by_task(self) -> dict[str, tuple[str, ...]]:
        """Ids of the agent sessions that run, by `RUN.TASK`. More than one is a fault."""
        found: dict[str, tuple[str, ...]] = {}
        for session_id, program in self.programs.items():
            if program.running and (key := _task_key(program.spec)):
                found[key] = (*found.get(key, ()), session_id)
        return found

    def claim(self, session_id: str) -> bool:
        """Take the right to run this session, which is given once. False if it is gone."""
        if session_id in self._claimed:
            return False
        self._claimed.add(session_id)
        return True

    def start(self, spec: SessionSpec, script: Script) -> ScriptedProgram:
        """Run a program whose claim was taken."""
        if key := _task_key(spec):
            self.overlaps += [(other, spec.id) for other in self.live_by_task.get(key, ())]
        self.starts[spec.id] += 1
        program = self.programs[spec.id] = ScriptedProgram(spec, script)
        agents = (p for p in self.programs.values() if p.spec.kind is SessionKind.AGENT)
        self.peak = max(self.peak, sum(p.running for p in agents))
        return program

    def reboot(self, *, boot_id: str = "") -> None:
        """Every program that runs is gone, without a word about its end."""
        self.boot_id = boot_id or uuid.uuid4().hex
        for program in self.programs.values():
            program.lose()


def _task_key(spec: SessionSpec) -> str | None:
    if spec.task_id is None or spec.kind is not SessionKind.AGENT:
        return None
    return f"{spec.run_id}.{spec.task_id}"


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

    def has_updated(self) -> bool:
        before, self._seen = self._seen, self.output_bytes
        return self._seen > before

    def capture(self, start: int | None = None, end: int | None = None) -> str:
        chunk = self.read_nowait(self.output_bytes - self.spec.buffer_bytes, self.spec.buffer_bytes)
        return lines_between(decode_from(chunk.data, cut=chunk.offset > 0), start, end)

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
        names = (spec.name, spec.task_id or "", spec.id)
        if spec.kind is not SessionKind.AGENT:
            names = (f"{spec.kind}:{spec.name}",)
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
                await session.leave(self._terminate)


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
