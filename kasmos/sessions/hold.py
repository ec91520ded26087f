"""What one supervisor holds of one session: its records, its log, a pidfd of its program, its process tree.

Starting (`spawn`), taking over (`adoption`) and finding out the end (`ending`) are written as steps that
work on a `Hold`; `headless` makes a session of it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

import attrs
import trio

from kasmos.model import event as ev
from kasmos.model.session import SessionSpec
from kasmos.model.value import define
from kasmos.sessions import cgroups, layout, processes
from kasmos.sessions.doorman import Doorman
from kasmos.sessions.follow import FollowedLog
from kasmos.sessions.inotify import Mask
from kasmos.sessions.launch import Records
from kasmos.sessions.processes import ProcessEntry, ProcessId
from kasmos.sessions.protocol import Notify
from kasmos.sessions.services import Services
from kasmos.sessions.tree import Kin, Tree, kill_until_none, signal_all, wait_gone

LOOK_LIMIT = 1.0
"""Seconds a signal waits for a look at /proc; then it goes to the program alone."""
KILL_AGAIN = 1.0
"""Seconds that the kernel is given to kill a whole control group."""
POLL_INTERVAL = 0.005
"""Seconds between two looks for a record where the kernel has no watch left for us."""


@define(eq=False)
class Hold:
    """The things of one session, and the few verbs that need several of them."""

    spec: SessionSpec
    path: str
    """The session's directory. A text: one is made for each session."""
    services: Services
    notify: Notify
    doorman: Doorman | None = None
    """Only where we started the session ourselves."""
    program: ProcessId | None = None
    pidfd: int | None = None
    """Of the program; opened while it was proven to be there."""
    log: FollowedLog | None = None
    said: set[ProcessId] = attrs.field(factory=set)
    """Leftovers that were made known."""
    when_swept: Callable[[], Awaitable[None]] | None = None
    """What has to be done, within a bound, when the tree is empty and before the last output is waited for."""
    spared: bool = False
    """Whether a process that outlived the program is left alone."""
    killed: bool = False
    """Whether we have sent it SIGKILL."""
    _knows_all: bool = attrs.field(default=False, init=False)
    """Whether the records can tell nothing more of who is who."""
    records: Records = attrs.field(init=False)
    kin: Kin = attrs.field(init=False)
    tree: Tree = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.records = Records(self.path)
        self.kin = Kin(session_id=self.spec.id, lease=f"{self.path}/{layout.LEASE}", cgroup=self.spec.cgroup)
        self.tree = Tree(self.kin, self.services.scanner, self.spec.leftovers)

    # --- who is who ----------------------------------------------------------------

    def take_records(self) -> None:
        """Learn who is who from the records that exist now, and take hold of the program if it is there.

        Raises:
            OSError: out of descriptors.
        """
        if self._knows_all:
            return
        records, kin = self.records, self.kin
        shim, program, copier = records.shim(), records.program(), self.copier
        if program is not None and self.pidfd is None:
            self.program = program.id
            self.pidfd = processes.open_proven(program.id)
        known = [entry for entry in (shim, copier) if entry is not None]
        kin.known.update(entry.id for entry in (*known, program) if entry is not None)
        if shim is not None:
            kin.sid, kin.since = shim.sid, shim.id.start
        if not (kin.own or self.pidfd is not None or any(map(processes.is_alive, known))):
            # Nobody we know is there: the pids of the others may be somebody else's.
            return
        if shim is not None:
            kin.helpers.update((shim.ppid, shim.id.pid))
        if copier is not None:
            kin.copier = copier.id.pid
            kin.helpers.add(copier.id.pid)
        if program is not None:
            kin.helpers.add(program.ppid)
        # Init inherits whose parent has ended.
        kin.helpers.discard(1)
        # A record that is complete never changes.
        everybody = shim is not None and program is not None and (copier is not None or not self.spec.has_copier)
        self._knows_all = everybody and self.pidfd is not None

    @property
    def copier(self) -> ProcessEntry | None:
        """The copier's record, if there can be one."""
        # What was started is certain only where we did it.
        return self.records.copier() if self.spec.has_copier or not self.kin.own else None

    def has_program(self) -> bool:
        """Whether we hold a pidfd of the proven program: then it runs, or ended a moment ago."""
        return self.pidfd is not None

    @property
    def doorman_is_gone(self) -> bool:
        """Whether no doorman of ours is there any more."""
        return self.doorman is None or self.doorman.ended.is_set()

    @property
    def helpers_are_gone(self) -> bool:
        """Whether doorman, shim and copier have ended."""
        if not self.doorman_is_gone:
            return False
        if self.doorman is not None and self.doorman.has_outlived_all:
            return True
        known = (self.records.shim(), self.copier)
        return not any(entry is not None and processes.is_alive(entry) for entry in known)

    async def wait_helpers_gone(self) -> None:
        """Wait until doorman, shim and copier have ended."""
        if self.doorman is not None:
            await self.doorman.ended.wait()
            if self.doorman.has_outlived_all:
                return
        for entry in (self.records.shim(), self.copier):
            if entry is not None:
                await wait_gone(entry.id, self.services.reserve)

    def is_ready(self) -> bool:
        """Whether the records tell of everybody whom the program needs in order to run."""
        if self.records.program() is None:
            return False
        return not self.spec.has_copier or self.records.copier() is not None

    def watch_records(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call *callback* once `is_ready` has come true, or cannot be told. Returns: what ends the watch."""
        services = self.services

        def look() -> None:
            try:
                ready = self.is_ready()
            except OSError:
                ready = True  # whoever waits meets the same error, where it can be handled
            if ready:
                callback()

        try:
            key = services.inotify.watch(self.path, Mask.CLOSE_WRITE, look)
        except OSError:
            scope = trio.CancelScope()

            async def poll() -> None:
                with scope:
                    while True:
                        look()
                        await trio.sleep(POLL_INTERVAL)

            services.nursery.start_soon(poll)
            return scope.cancel
        return lambda: services.inotify.forget(key)

    # --- signals -------------------------------------------------------------------

    async def signal(self, signum: int) -> None:
        """Signal the program and every other process of its kernel session, helpers excepted."""
        others: set[ProcessId] = set()
        with trio.move_on_after(LOOK_LIMIT):
            members, _ = await self.tree.members()
            others = {member.entry.id for member in members if member.known_by == "session"}
        self._signal_program(signum)
        signal_all(others - {self.program}, signum, reserve=self.services.reserve)

    async def kill(self, *, helpers: bool = False) -> bool:
        """SIGKILL to the whole tree until none is left who may be killed, helpers included if wanted.

        Returns: False when the bound was reached first; this has been made known then.
        """
        services = self.services

        async def find() -> list[ProcessId]:
            members, entries = await self.tree.members(helpers=helpers)
            judged = self.tree.judge(members, entries)
            # Asked to kill, `report` protects nobody but who is not ours.
            return [m.entry.id for m, leftover in judged if m.known_by == "session" or leftover.action == "stopped"]

        async def targets() -> list[ProcessId]:
            return await services.reserve.patiently(find, tell)

        def tell(error: OSError) -> None:
            services.warn(f"who is to be killed cannot be found yet: {error.strerror}")

        # At once: it needs neither a look at /proc nor a descriptor.
        self.killed = True
        self._signal_program(signal.SIGKILL)
        left = await kill_until_none(targets, bound=self.spec.stop.kill_grace, reserve=services.reserve)
        if left and await self._kill_cgroup():
            left = await kill_until_none(targets, bound=KILL_AGAIN, reserve=services.reserve)
        if left:
            await self.notify(ev.SessionUnkillable(self.spec.id, tuple(one.pid for one in left)))
        return left == ()

    async def _kill_cgroup(self) -> bool:
        """Have the kernel kill the whole control group at once, who forks faster than we look included.

        It takes the shim along, so it is the last resort; and who is to be spared must not be in it.
        """
        if not self.kin.cgroup:
            return False
        members, entries = await self.tree.members()
        judged = self.tree.judge(members, entries)
        spared = any(leftover.action == "reported" and m.known_by == "cgroup" for m, leftover in judged)
        return not spared and cgroups.kill(self.kin.cgroup)

    def _signal_program(self, signum: int) -> None:
        if self.pidfd is not None:
            processes.send_signal(self.pidfd, signum)

    # --- log and end ---------------------------------------------------------------

    def follow(self, source: str | None = None) -> None:
        """Follow the log from now on; *source* is another way to it.

        Raises:
            OSError: it cannot be opened.
        """
        if self.log is None:
            fd = os.open(source or f"{self.path}/{layout.OUTPUT}", os.O_RDONLY | os.O_CLOEXEC)
            self._follow(fd, is_new=False)

    def follow_new(self, fd: int) -> None:
        """Follow the log, which was just made, from its beginning; *fd* is a descriptor of it, which is ours now."""
        self._follow(fd, is_new=True)

    def _follow(self, fd: int, *, is_new: bool) -> None:
        spec = self.spec
        self.log = FollowedLog(
            self.path, fd, buffer_bytes=spec.buffer_bytes, max_bytes=spec.max_log_bytes, is_new=is_new
        )
        self.services.follower.add(self.log)

    def drop(self) -> None:
        """Let go of everything; the output in memory stays readable."""
        if self.log is not None:
            self.services.follower.remove(self.log)
            self.log.close()
        if self.pidfd is not None:
            trio.lowlevel.notify_closing(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = None
        if self.kin.sid is not None:
            self.services.scanner.settled.discard(self.kin.sid)
