"""The headless backend: programs as child processes, without a terminal, that outlive their supervisor.

How a program is started is in `launch`, who belongs to it in `tree`, its output in `follow`. Here they are put
together: one `HeadlessSession` per program, and the table of cases by which a new supervisor adopts one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from kasmos.exceptions import (
    BackendUnavailableError,
    InteractiveOnlyError,
    SessionClosedError,
    SessionLostError,
    SessionStartError,
)
from kasmos.failpoints import reach
from kasmos.model import event as ev
from kasmos.model.profile import ExecutionMode, OutputMode
from kasmos.model.session import UNKNOWN_EXIT, Capabilities, ExitStatus, SessionHandle, SessionSpec
from kasmos.sessions import launch, layout, processes
from kasmos.sessions.follow import FollowedLog, LogFollower
from kasmos.sessions.inotify import Inotify, Mask
from kasmos.sessions.launch import Records
from kasmos.sessions.output import LogFile, lines_between
from kasmos.sessions.processes import ProcessEntry, ProcessId
from kasmos.sessions.protocol import Notify, OutputChunk, SessionNeverStarted, Terminate
from kasmos.sessions.tree import Kin, Scanner, Tree, kill_until_none, signal_all, wait_all_gone, wait_gone

IDLE_GRACE = 2.0
"""Seconds without new output after which a pipe somebody still holds is no longer waited for."""
RECORD_GRACE = 1.0
"""Seconds the shim has to record the end of a program that has ended."""
CLAIM_GRACE = 5.0
"""Seconds a shim that holds the lease has to claim its directory, or to start the program."""
LEFTOVER_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for processes that outlived their program."""

_CAPABILITIES = Capabilities(interactive=False, adoption=True, detach=True, processes=True)


@attrs.define(eq=False)
class _Services:
    """What all sessions of the backend share."""

    nursery: trio.Nursery
    inotify: Inotify
    follower: LogFollower
    scanner: Scanner
    terminate: Terminate
    soft_nofile: int
    spawn_limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(8))
    disk_limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(8))


class HeadlessBackend:
    """Runs programs as child processes; made by `open_headless`."""

    def __init__(self, sessions: Path, services: _Services, boot_id: str) -> None:
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
        session = HeadlessSession(spec, self._sessions / spec.id, self._services, notify, self._boot_id)
        try:
            await session._start()
            yield session
        finally:
            await session._leave()

    @asynccontextmanager
    async def adopt(
        self, spec: SessionSpec, handle: SessionHandle, *, notify: Notify
    ) -> AsyncGenerator[HeadlessSession, None]:
        """Take hold of a session of an earlier supervisor; see `Backend.adopt`."""
        directory = self._sessions / handle.session_id
        stored = Records(str(directory)).spec()
        session = HeadlessSession(stored or spec, directory, self._services, notify, handle.boot_id)
        try:
            await session._adopt(same_boot=handle.boot_id == self._boot_id)
            yield session
        finally:
            await session._leave()

    def read_output(self, session_id: str, offset: int, limit: int) -> OutputChunk:
        """Read the log of a session that has ended. Blocks on the disk; safe from any thread."""
        return LogFile(self._sessions / session_id).read(offset, limit)

    def stored_specs(self) -> dict[str, SessionSpec | None]:
        """Every session directory there is, known to a journal or not, and what was started in it."""
        try:
            names = sorted(os.listdir(self._sessions))
        except FileNotFoundError:
            return {}
        return {name: Records(f"{self._sessions}/{name}").spec() for name in names}

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
) -> AsyncGenerator[HeadlessBackend, None]:
    """Open the backend on a state root.

    Args:
        root: the directory that holds `sessions/`.
        terminate: the stop ladder for scopes that are left with the program running.
        boot_id: this boot; read from the kernel when None.
        warn: is told, once each, what does not work as configured on this machine.

    Raises:
        BackendUnavailableError: not Linux, or out of inotify instances.

    Cancellation: sessions must have been left before.
    """
    if not sys.platform.startswith("linux"):  # checked at run time
        raise BackendUnavailableError("headless sessions need Linux (pidfd, inotify, /proc)")
    if boot_id is None:
        boot_id = _read_boot_id()
    soft = _raise_descriptor_limit()
    try:
        inotify = Inotify()
    except OSError as error:
        raise BackendUnavailableError(
            f"no inotify instance to be had ({error.strerror}): raise fs.inotify.max_user_instances"
        ) from error
    said: set[str] = set()

    def warn_once(text: str) -> None:
        if text not in said:
            said.add(text)
            warn(text)

    try:
        async with trio.open_nursery() as nursery:
            follower = LogFollower(inotify, warn_once)
            services = _Services(nursery, inotify, follower, Scanner(nursery), terminate, soft)
            nursery.start_soon(inotify.run)
            nursery.start_soon(follower.run)
            yield HeadlessBackend(root / "sessions", services, boot_id)
            nursery.cancel_scope.cancel()
    finally:
        inotify.close()


def _read_boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _raise_descriptor_limit() -> int:
    """Raise our soft limit on descriptors to the hard one; the old value, which programs get back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


class HeadlessSession:
    """One program without a terminal; see `ExecutionSession` for what its methods promise."""

    def __init__(self, spec: SessionSpec, directory: Path, services: _Services, notify: Notify, boot_id: str) -> None:
        self._spec = spec
        self._directory = directory
        self._services = services
        self._notify = notify
        self._boot_id = boot_id
        self._path = str(directory)
        self._records = Records(self._path)
        self._kin = Kin(session_id=spec.id, lease=f"{self._path}/{layout.LEASE}")
        self._tree = Tree(self._kin, services.scanner, spec.leftovers)
        self._log: FollowedLog | None = None
        self._program: ProcessId | None = None
        self._pidfd: int | None = None
        self._doorman: trio.Process | None = None
        self._doorman_scope = trio.CancelScope()
        self._doorman_done = trio.Event()
        self._news = trio.Event()
        """The program's record has appeared, or the doorman has ended without one."""
        self._done = trio.Event()
        self._exit: ExitStatus | None = None
        self._failure: Exception | None = None
        self._live_scope = trio.CancelScope()
        self._live_over: trio.Event | None = None
        self._detached = False
        self._closed = False

    # --- identity ------------------------------------------------------------------

    @property
    def spec(self) -> SessionSpec:
        """What was asked for."""
        return self._spec

    @property
    def handle(self) -> SessionHandle:
        """The key by which the session is found again."""
        return SessionHandle(session_id=self._spec.id, backend=ExecutionMode.HEADLESS, boot_id=self._boot_id)

    @property
    def capabilities(self) -> Capabilities:
        """What this backend can do."""
        return _CAPABILITIES

    @property
    def notify(self) -> Notify:
        """Makes facts about this session durable."""
        return self._notify

    @property
    def pid(self) -> int | None:
        """The program's process id, once proven."""
        return self._program.pid if self._program is not None else None

    @property
    def exit(self) -> ExitStatus | None:
        """The exit status once `wait` has returned."""
        return self._exit

    # --- starting ------------------------------------------------------------------

    async def _start(self) -> None:
        """From nothing to a proven program, or to nothing."""
        services = self._services
        try:
            # In a thread: a slow disk must not hold up the other sessions.
            await trio.to_thread.run_sync(
                launch.prepare, self._path, self._spec, self._boot_id, limiter=services.disk_limiter
            )
            reach("session.prepared")
            await self._spawn()
            await self._prove()
        except OSError as error:
            await self._undo()
            raise SessionStartError(f"cannot start {self._spec.name}: {error.strerror or error}") from error
        except BaseException:
            await self._undo()
            raise

    async def _spawn(self) -> None:
        command = launch.doorman_command(self._path, self._spec, self._services.soft_nofile)
        reach("session.spawning")
        # The watch is made before there is anything to see.
        key = self._watch_directory(self._news.set)
        gate_read, gate_write = os.pipe2(os.O_CLOEXEC)
        lease = os.open(self._kin.lease, os.O_RDWR | os.O_CLOEXEC)
        output = os.open(f"{self._path}/{layout.OUTPUT}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        errors = os.open(
            f"{self._path}/{layout.SHIM_LOG}", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
            async with self._services.spawn_limiter:
                self._doorman = await self._services.nursery.start(
                    self._run_doorman, command, gate_read, output, errors, lease
                )
            reach("session.spawned")
            assert self._doorman is not None
            self._kin.sid = self._doorman.pid
            self._kin.helpers.add(self._doorman.pid)
            self._services.scanner.settled.add(self._doorman.pid)
            for fd in (gate_read, lease, output, errors):
                os.close(fd)
            gate_read = lease = output = errors = -1
            self._follow()
            await self._news.wait()
            self._take_records()
            reach("session.proven")
            with contextlib.suppress(BrokenPipeError):
                os.write(gate_write, b"\n")
            reach("session.released")
        finally:
            for fd in (gate_read, gate_write, lease, output, errors):
                if fd >= 0:
                    os.close(fd)
            if key is not None:
                self._services.inotify.forget(key)

    def _watch_directory(self, callback: Callable[[], None]) -> int | None:
        def look() -> None:
            if self._records.program() is not None:
                callback()

        try:
            return self._services.inotify.watch(self._path, Mask.CLOSE_WRITE, look)
        except OSError:
            # Out of watches: a patient look every few milliseconds, for this start only.
            async def poll() -> None:
                while not self._doorman_done.is_set() and self._records.program() is None:  # noqa: ASYNC110
                    await trio.sleep(0.005)
                callback()

            self._services.nursery.start_soon(poll)
            return None

    async def _run_doorman(
        self,
        command: list[str],
        gate: int,
        output: int,
        errors: int,
        lease: int,
        *,
        task_status: trio.TaskStatus[trio.Process],
    ) -> None:
        async def dismiss(process: trio.Process) -> None:
            # The doorman alone: the program below it is stopped by the ladder, or left running.
            process.kill()

        try:
            with self._doorman_scope:
                await trio.run_process(
                    command,
                    stdin=gate,
                    stdout=output,
                    stderr=errors,
                    env=dict(self._spec.env),
                    cwd=self._path,
                    start_new_session=True,
                    pass_fds=(lease,),
                    check=False,
                    deliver_cancel=dismiss,
                    task_status=task_status,
                )
        finally:
            self._doorman_done.set()
            self._news.set()

    async def _first(self, *events: trio.Event) -> None:
        """Wait until one of these has happened."""
        async with trio.open_nursery() as nursery:

            async def wait(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            for event in events:
                nursery.start_soon(wait, event)

    def _take_records(self) -> None:
        """Learn who is who from the records that exist now, and hold on to the program."""
        shim, program, copier = self._records.shim(), self._records.program(), self._records.copier()
        kin = self._kin
        if shim is not None:
            kin.sid = shim.sid
            kin.since = shim.id.start
            kin.helpers.update((shim.ppid, shim.id.pid))
            self._services.scanner.settled.add(shim.sid)
        if copier is not None:
            kin.helpers.add(copier.id.pid)
        if program is not None:
            kin.helpers.add(program.ppid)
            self._program = program.id
            if self._pidfd is None:
                self._pidfd = processes.open_proven(program.id)
        kin.helpers.discard(1)

    async def _prove(self) -> None:
        """The program runs, has ended already, or could not be started."""
        if self._program is None:
            await self._doorman_done.wait()
            self._take_records()
            if self._program is None:
                said = self._records.shim_log() or "its shell ended before it could run"
                raise SessionStartError(f"cannot start {self._spec.name}: {said}")
        self._watch_over()

    async def _undo(self) -> None:
        """Nothing is left behind: what was started is killed; a claimed directory stays as evidence."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._spec.stop.kill_grace):
            if self._doorman is not None and not self._done.is_set():
                self._records.entomb()
                await self.kill()
                self._doorman_scope.cancel()
                await self._doorman_done.wait()
        self._drop()
        if not self._records.claimed:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _follow(self) -> None:
        self._log = FollowedLog(
            self._directory, buffer_bytes=self._spec.buffer_bytes, max_bytes=self._spec.max_log_bytes
        )
        self._services.follower.add(self._log)

    # --- the end -------------------------------------------------------------------

    def _watch_over(self) -> None:
        """From now on somebody waits for the program's end."""
        self._live_over = trio.Event()
        self._services.nursery.start_soon(self._live, self._live_over)

    async def _live(self, over: trio.Event) -> None:
        """Wait for the program's end, then find out how it ended and what it left."""
        try:
            with self._live_scope:
                await trio.lowlevel.checkpoint()
                if self._pidfd is not None:
                    await trio.lowlevel.wait_readable(self._pidfd)
                await self._finish()
        # Whatever goes wrong here is told to whoever waits for this session, and to nobody else.
        except Exception as error:
            self._failure = error
        finally:
            self._done.set()
            over.set()

    async def _finish(self) -> None:
        reach("session.program-ended")
        exact = None
        if self._pidfd is not None and self._program is not None:
            exact = processes.exit_status_of(self._pidfd, self._program)
        self._take_records()
        await self.sweep()
        if self._spec.output is OutputMode.PIPE:
            await self._drain()
        status = exact or await self._reported_exit()
        await self._dismiss_helpers()
        if lease_is_held(self._kin.lease):
            # Somebody hid from the first look, but kept the descriptor.
            await self.sweep()
        reach("session.swept")
        if self._log is not None:
            self._log.pull()
            self._log.restore()
            await self._declare_losses()
        self._exit = status

    async def _reported_exit(self) -> ExitStatus:
        """The exit status from the doorman or the record, when the kernel did not tell."""
        with trio.move_on_after(RECORD_GRACE):
            if self._doorman is not None:
                await self._doorman_done.wait()
            else:
                shim = self._records.shim()
                if shim is not None:
                    await wait_gone(shim.id)
        recorded = self._records.exit()
        if recorded is not None:
            return recorded
        return UNKNOWN_EXIT

    async def _dismiss_helpers(self) -> None:
        """The shim ends by itself once it has recorded the exit; one that does not is killed."""
        shim = self._records.shim()
        with trio.move_on_after(RECORD_GRACE):
            if self._doorman is not None:
                await self._doorman_done.wait()
            elif shim is not None:
                await wait_gone(shim.id)
            return
        if self._spec.output is OutputMode.PIPE and self._copier_is_left_to_others:
            return
        helpers = await self._helpers()
        signal_all(helpers, signal.SIGKILL, signal.SIGCONT)
        with trio.move_on_after(RECORD_GRACE):
            await wait_all_gone(helpers)

    @property
    def _copier_is_left_to_others(self) -> bool:
        """Whether a process that was only reported still writes through the copier."""
        return self._records.exit() is not None and self._reported

    _reported = False

    async def _helpers(self) -> list[ProcessId]:
        entries = await self._services.scanner.look(self._kin.since)
        helpers = self._kin.helpers
        return [
            entry.id
            for entry in entries
            if entry.sid == self._kin.sid and (entry.id.pid in helpers or entry.ppid in helpers)
        ]

    async def _drain(self) -> None:
        """Give the copier until the pipe is empty, or the idle grace; never until end-of-file."""
        copier = self._records.copier()
        log = self._log
        if copier is None or log is None:
            return
        while True:
            grown = log.grown
            with trio.move_on_after(IDLE_GRACE) as idle:
                async with trio.open_nursery() as nursery:

                    async def ended(scope: trio.CancelScope = nursery.cancel_scope) -> None:
                        await wait_gone(copier.id)
                        scope.cancel()

                    nursery.start_soon(ended)
                    await grown.wait()
                    nursery.cancel_scope.cancel()
            log.pull()
            if idle.cancelled_caught or processes.read_entry(copier.id.pid) is None:
                return

    async def sweep(self) -> None:
        """Deal with what outlived the program, by the session's leftovers policy."""
        said: set[ProcessId] = set()
        deadline = trio.current_time() + LEFTOVER_GRACE + self._spec.stop.kill_grace
        first = True
        while True:
            doomed = await self._leftovers(said)
            if not doomed:
                return
            signal_all(doomed, *((signal.SIGTERM, signal.SIGCONT) if first else (signal.SIGKILL,)))
            with trio.move_on_after(min(LEFTOVER_GRACE, self._spec.stop.stop_grace)):
                await wait_all_gone(doomed)
            first = False
            if trio.current_time() > deadline:
                await self._notify(ev.SessionUnkillable(self._spec.id, tuple(one.pid for one in doomed)))
                return

    async def _leftovers(self, said: set[ProcessId]) -> list[ProcessId]:
        """What is to be stopped now; everything found is made known once."""
        members, entries = await self._tree.members()
        members = [member for member in members if member.entry.id != self._program]
        if not members and self._lease_is_orphaned():
            members = await self._tree.holders(entries)
        if not members:
            return []
        judged = self._tree.judge(members, entries)
        fresh = [(member, leftover) for member, leftover in judged if member.entry.id not in said]
        if fresh:
            said.update(member.entry.id for member, _ in fresh)
            await self._notify(ev.LeftoversFound(self._spec.id, tuple(leftover for _, leftover in fresh)))
        self._reported = any(leftover.action == "reported" for _, leftover in judged)
        return [member.entry.id for member, leftover in judged if leftover.action == "stopped"]

    def _lease_is_orphaned(self) -> bool:
        """Whether somebody holds the lease although all helpers have gone."""
        helpers_gone = self._doorman_done.is_set() if self._doorman is not None else self._shim_is_gone()
        return helpers_gone and lease_is_held(self._kin.lease)

    def _shim_is_gone(self) -> bool:
        shim = self._records.shim()
        return shim is None or not is_alive(shim)

    async def _declare_losses(self) -> None:
        assert self._log is not None
        while self._log.losses:
            offset, reason = self._log.losses.pop(0)
            await self._notify(ev.OutputLost(self._spec.id, offset, reason))

    # --- adoption ------------------------------------------------------------------

    async def _adopt(self, *, same_boot: bool) -> None:
        """The table of cases in docs/design.md, top to bottom."""
        self._take_records()
        recorded = self._records.exit()
        if recorded is not None:  # 1. it has ended, and it is known how
            await self._adopt_ended(recorded, same_boot)
            return
        if not same_boot:  # 2. no process outlives its boot
            raise SessionLostError("the machine was started anew before its end was recorded")
        if self._is_held():  # 3. it runs
            self._adopt_live()
            return
        records = self._records
        if not records.claimed and not lease_is_held(self._kin.lease):  # 4. nobody has come, nobody will
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if records.entomb():
                reach("recovery.tombstone")
                raise SessionNeverStarted(self._spec.id)
        await self._await_shim()  # 5. somebody is on the way
        self._take_records()
        recorded = records.exit()
        if recorded is not None:
            await self._adopt_ended(recorded, same_boot=True)
        elif self._is_held():
            self._adopt_live()
        elif self._program is None:
            # 6. The pid is recorded before the program runs: without it, it has not run, and now cannot.
            raise SessionNeverStarted(self._spec.id)
        else:  # 7. it ran, it is gone, and nobody saw how it ended
            await self.sweep()
            raise SessionLostError("it ended while nobody watched, and its end was not recorded")

    async def _await_shim(self) -> None:
        """Wait, bounded, until the program is there, or everybody who could bring it has gone; then make sure."""
        appeared = trio.Event()
        key = self._watch_directory(appeared.set)
        try:
            with trio.move_on_after(CLAIM_GRACE):
                # Again, since it may have appeared before the watch was there.
                while self._records.program() is None and lease_is_held(self._kin.lease):
                    shim = self._records.shim()
                    with trio.move_on_after(0.1):
                        await (wait_gone(shim.id) if shim is not None and is_alive(shim) else appeared.wait())
                shim = self._records.shim()
                if shim is not None:
                    # It records the end a moment after the program's.
                    while self._records.exit() is None and is_alive(shim) and self._program_is_gone():
                        await wait_gone(shim.id)
        finally:
            if key is not None:
                self._services.inotify.forget(key)
        if self._records.program() is None:
            if self._records.entomb():
                reach("recovery.tombstone")
            self._take_records()
            await self.kill()

    def _is_held(self) -> bool:
        """Whether we hold a pidfd of the proven program."""
        return self._pidfd is not None

    def _program_is_gone(self) -> bool:
        program = self._records.program()
        return program is not None and not is_alive(program)

    def _adopt_live(self) -> None:
        reach("recovery.adopted")
        self._adopt_log()
        self._watch_over()

    def _adopt_log(self) -> None:
        path = self._directory / layout.OUTPUT
        if not path.exists() and self._program is not None and self._spec.output is OutputMode.FILE:
            # Somebody deleted the log: the program still has it.
            with contextlib.suppress(OSError):
                self._recover_log(path)
        if path.exists():
            self._follow()

    def _recover_log(self, path: Path) -> None:
        assert self._program is not None
        with open(f"/proc/{self._program.pid}/fd/1", "rb") as source, open(path, "xb") as target:
            shutil.copyfileobj(source, target)

    async def _adopt_ended(self, recorded: ExitStatus, same_boot: bool) -> None:
        if (self._directory / layout.OUTPUT).exists():
            self._follow()
        if same_boot:
            await self.sweep()
        if self._log is not None:
            self._log.pull()
        self._exit = recorded
        self._done.set()

    # --- leaving -------------------------------------------------------------------

    async def _leave(self) -> None:
        """The scope is left: detach, or end the program; then let go of everything."""
        if self._closed:
            return
        if not self._detached and not self._done.is_set() and (self._program is not None):
            bound = self._spec.stop.stop_grace + 2 * self._spec.stop.kill_grace + 10
            with trio.CancelScope(shield=True, deadline=trio.current_time() + bound):
                await self._services.terminate(self)
        self._live_scope.cancel()
        self._doorman_scope.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + RECORD_GRACE):
            if self._live_over is not None:
                await self._live_over.wait()
            if self._doorman is not None:
                await self._doorman_done.wait()
        self._drop()

    def _drop(self) -> None:
        self._closed = True
        if self._log is not None:
            self._services.follower.remove(self._log)
            self._log.close()
        if self._pidfd is not None:
            trio.lowlevel.notify_closing(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        if self._kin.sid is not None:
            self._services.scanner.settled.discard(self._kin.sid)

    def detach(self) -> None:
        """Leave the program running when the scope is left."""
        if self._closed:
            raise SessionClosedError(f"{self._spec.name}: its scope has been left")
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
            raise SessionClosedError(f"{self._spec.name}: its scope was left while it ran")
        raise SessionLostError(f"{self._spec.name}: its end could not be followed") from self._failure

    async def signal(self, signum: int) -> None:
        """Signal the processes of the program's kernel session, helpers excepted."""
        if self._done.is_set():
            return
        members, _ = await self._tree.members()
        targets = {member.entry.id for member in members if member.known_by == "session"}
        if self._program is not None:
            targets.add(self._program)
        signal_all(targets, signum)

    async def kill(self) -> None:
        """SIGKILL to the whole tree, until nothing is left that may be killed."""

        async def targets() -> list[ProcessId]:
            members, entries = await self._tree.members()
            judged = self._tree.judge(members, entries)
            # Asked to kill, `report` protects nobody but who is not ours.
            return [m.entry.id for m, leftover in judged if m.known_by == "session" or leftover.action == "stopped"]

        left = await kill_until_none(targets, bound=self._spec.stop.kill_grace)
        if left:
            await self._notify(ev.SessionUnkillable(self._spec.id, tuple(one.pid for one in left)))

    def read_nowait(self, offset: int, limit: int = 65_536) -> OutputChunk:
        """Read output from memory or from the log. Safe from any thread."""
        if self._log is None:
            return OutputChunk(offset=offset, data=b"")
        chunk = self._log.buffer.read(offset, limit)
        return chunk if chunk is not None else self._log.log.read(offset, limit)

    async def read(self, offset: int, limit: int = 65_536) -> OutputChunk:
        """Read output, waiting until there is some or the session has ended."""
        await trio.lowlevel.checkpoint()
        while self._log is not None:
            grown, done = self._log.grown, self._done.is_set()
            chunk = self.read_nowait(offset, limit)
            if chunk.data or done:
                return chunk
            await self._first(grown, self._done)
        return OutputChunk(offset=offset, data=b"")

    @property
    def output_bytes(self) -> int:
        """Absolute offset of the end of the output seen so far."""
        return self._log.buffer.end if self._log is not None else 0

    def has_updated(self) -> bool:
        """Whether output has arrived since the last call."""
        return self._log is not None and self._log.take_updated()

    def capture(self, start: int | None = None, end: int | None = None) -> str:
        """The buffered lines *start* to *end* as text."""
        if self._log is None:
            return ""
        return lines_between(self._log.buffer.text(), start, end)

    def tail(self, lines: int = 20, max_bytes: int = 4096) -> str:
        """The last lines of the output, decoded with replacement."""
        return self._log.buffer.tail(lines, max_bytes) if self._log is not None else ""

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


def is_alive(entry: ProcessEntry) -> bool:
    """Whether exactly this process exists and has not ended."""
    now = processes.read_entry(entry.id.pid)
    return now is not None and now.id == entry.id and now.state != "Z"


def lease_is_held(path: str) -> bool:
    """Whether any process holds the lease; False when there is none."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)
