"""A tmux server at work: its control connection, and the news of its end.

Whether the server lives is told by a pidfd and nothing else: one that is stopped, or slow, does not answer, and is
not dead.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress

import trio

from kasmos.exceptions import BackendUnavailableError
from kasmos.sessions import processes, tmux
from kasmos.sessions.hold import Hold
from kasmos.sessions.processes import ProcessEntry
from kasmos.sessions.services import Services
from kasmos.sessions.threads import in_thread
from kasmos.sessions.tmux import Place
from kasmos.sessions.tmux_control import ControlClient, ControlError, ControlLost
from kasmos.sessions.tmux_wire import Notification
from kasmos.sessions.tree import signal_all

GUARD_INTERVAL = 1.0
"""Seconds between two looks at the server's memory, while there are sessions in it."""
GROWTH = 32 * 1024 * 1024
"""Bytes a server may grow before it is looked for loggers that are stopped, reader and guardian alike."""
START_LIMIT = 20.0
"""Seconds the control connection has to come up."""


class Host:
    """One tmux server that runs, and our connection to it. Made by `open_host`."""

    def __init__(self, place: Place, services: Services) -> None:
        self.place = place
        self.dead = trio.Event()
        """Set when the server's process has ended."""
        self.pid = 0
        self.client_env = {"LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath)}
        self.control = ControlClient(place.control_command, self.client_env, _ignore)
        self.holds: set[Hold] = set()
        """The sessions in it that are ours, while they run."""
        self._populated = trio.Event()
        self._services = services
        self._scope = trio.CancelScope()
        self._watch_scope = trio.CancelScope()
        self._guard_scope = trio.CancelScope()
        self._over = trio.Event()

    async def connect(self) -> None:
        """Connect to the server, and watch it from now on.

        Raises:
            BackendUnavailableError: it does not answer.
        """
        self._services.nursery.start_soon(self._run)
        try:
            with trio.fail_after(START_LIMIT):
                ((line, *_),) = await self.control.command(["display-message", "-p", "#{pid}"])
            self.pid = int(line)
            pidfd = os.pidfd_open(self.pid)
        except (trio.TooSlowError, ControlError, ControlLost, OSError, ValueError) as error:
            self._scope.cancel()
            raise BackendUnavailableError(f"the tmux server on {self.place.socket} does not answer: {error}") from error
        except BaseException:
            self._scope.cancel()
            raise
        self._services.nursery.start_soon(self._watch, pidfd)
        self._services.nursery.start_soon(self._guard)

    def add(self, hold: Hold) -> None:
        """A session runs in it."""
        self.holds.add(hold)
        self._populated.set()

    async def _guard(self) -> None:
        """Keep the server from growing behind loggers that were stopped: what they do not take, it keeps in memory.

        They do so themselves unless both processes of one are stopped.
        """
        with self._guard_scope:
            while True:
                await self._populated.wait()
                known = resident(self.pid)
                while self.holds:
                    await trio.sleep(GUARD_INTERVAL)
                    now = resident(self.pid)
                    if now > known + GROWTH:
                        known = now
                        self._continue_loggers()
                self._populated = trio.Event()

    def _continue_loggers(self) -> None:
        for hold in self.holds:
            with suppress(OSError):
                copier = hold.records.copier()
                entries = [copier, *children_of(copier.id.pid)] if copier is not None else []
                for one in entries:
                    entry = processes.read_entry(one.id.pid)
                    if entry is not None and entry.id == one.id and entry.state in "Tt":
                        self._services.warn(f"the logger of {hold.spec.name} was stopped: it goes on")
                        signal_all([one.id], signal.SIGCONT, reserve=self._services.reserve)

    async def _run(self) -> None:
        try:
            with self._scope:
                await self.control.run(self.dead.is_set)
        finally:
            self._over.set()

    async def _watch(self, pidfd: int) -> None:
        try:
            with self._watch_scope:
                await trio.lowlevel.wait_readable(pidfd)
                self.dead.set()
                self._guard_scope.cancel()
                # Nobody answers any more.
                self._scope.cancel()
        finally:
            trio.lowlevel.notify_closing(pidfd)
            os.close(pidfd)

    async def is_there(self, bound: float) -> bool:
        """Whether the server answers, or at least lives and does not answer within *bound* seconds."""
        with trio.move_on_after(bound):
            while not self.dead.is_set():
                try:
                    await self.control.command(["display-message", "-p", "here"])
                except ControlLost:
                    # It broke because the server ended, or will be made anew.
                    with trio.move_on_after(0.2):
                        await self.dead.wait()
                except ControlError:
                    return True
                else:
                    return True
        return not self.dead.is_set()

    async def close(self) -> None:
        """Let go of the connection; the server goes on."""
        self._scope.cancel()
        self._watch_scope.cancel()
        self._guard_scope.cancel()
        await self._over.wait()


def resident(pid: int) -> int:
    """Bytes of memory a process has; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


def children_of(pid: int) -> list[ProcessEntry]:
    """The processes a single-threaded process has forked."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            pids = file.read().split()
    except OSError:
        return []
    entries = (processes.read_entry(int(child)) for child in pids)
    return [entry for entry in entries if entry is not None]


def _ignore(notification: Notification) -> None:
    """Nothing is built on notifications: what counts is told by pidfds and by the log."""


async def open_host(place: Place, services: Services, environ: Mapping[str, str]) -> Host:
    """Start the server of this place if need be, and connect to it.

    Raises:
        BackendUnavailableError: it does not start, or does not answer.
    """
    # In a thread: runs processes, and imports libtmux.
    unscoped = await in_thread(tmux.start, place, environ, limiter=LIMITER)
    if unscoped:
        services.warn(
            f"the tmux server has no scope of its own, since systemd-run says: {unscoped}. It stays in the group of "
            "kasmos' unit, whose restart ends all that runs in tmux, unless the unit has KillMode=process"
        )
    host = Host(place, services)
    await host.connect()
    return host


LIMITER = trio.CapacityLimiter(1)
"""libtmux is used by one thread at a time."""
