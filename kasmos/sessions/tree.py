"""A session's process tree: who belongs to it, who of them may be stopped, and stopping them.

Membership is proven in one of four ways: the kernel session the doorman opened, the session's control group, its id
in the environment, or the lease. Real agents start their tools in kernel sessions of their own and leave them behind,
so the first way alone is not enough; the second alone would hit what a user's own daemon started.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial

import attrs
import trio

from kasmos.model.profile import LeftoverPolicy, Leftovers
from kasmos.model.session import Leftover
from kasmos.model.value import define, frozen
from kasmos.sessions import births, cgroups, processes
from kasmos.sessions.processes import ProcessEntry, ProcessId
from kasmos.sessions.reserve import RETRY_INTERVAL, Reserve
from kasmos.sessions.scanner import Scanner
from kasmos.sessions.threads import in_thread

USER_DAEMONS = frozenset(
    {
        "tmux: server", "screen", "ssh-agent", "gpg-agent", "scdaemon", "dirmngr", "keyboxd", "dbus-daemon",
        "watchman", "dockerd", "containerd", "docker", "podman", "conmon", "mosh-server", "sccache", "buck2d",
    }
)  # fmt: skip
"""Daemons of the user that an agent may happen to start first (`/proc/PID/comm`); reported, never killed."""

REAPERS = frozenset({"systemd", "init"})
"""Programs below which the kernel puts a process whose own parent has ended: as good as none."""

_DAEMON_ARGUMENTS = (b"GradleDaemon", b"KotlinCompileDaemon", b"bazel(")
"""What the command line of a `java` holds when it is such a daemon."""


KILL_INTERVAL = 0.5
"""Seconds between two rounds of SIGKILL."""


@frozen
class Member:
    """A process of a session, and how that is known."""

    entry: ProcessEntry
    known_by: str
    """`session`, `cgroup`, `marker` or `lease`."""


@define
class Kin:
    """What is known of a session's own processes; filled in as the records appear."""

    session_id: str
    lease: str
    sid: int | None = None
    """Kernel session id: the doorman's pid."""
    own: bool = False
    """Whether we opened that kernel session. Otherwise its number proves nothing: the session may be gone, and the
    number in use again; at each look somebody of it has to be there who is known."""
    known: set[ProcessId] = attrs.field(factory=set)
    """Who of that kernel session is known, from the records and from earlier looks."""
    since: int = 0
    """Nothing of the session is older, in clock ticks since boot."""
    helpers: set[int] = attrs.field(factory=set)
    """Pids of doorman, shim, recorder and copier: never signalled together with the program."""
    host: int | None = None
    """Pid of the tmux server above it all, which is ours: nobody is spared for descending from it."""
    copier: int | None = None
    """Pid of the copier, with `output = "pipe"`."""
    cgroup: str = ""
    """The session's control group; empty where it has none."""


class Tree:
    """The processes of one session."""

    def __init__(self, kin: Kin, scanner: Scanner, leftovers: Leftovers) -> None:
        self.kin = kin
        self._scanner = scanner
        self._leftovers = leftovers

    async def members(self, *, helpers: bool = False) -> tuple[list[Member], list[ProcessEntry]]:
        """The members, with or without helpers, and the whole process table they were found in."""
        kin = self.kin
        entries = await self._scanner.look(kin.since)
        is_proven = self._is_session_proven(entries)
        grouped = self._grouped(entries)
        found = []
        for entry in entries:
            if entry.state == "Z" or entry.id.start < kin.since or entry.id.pid == os.getpid():
                continue
            if self._is_helper(entry) and not helpers:
                continue
            if is_proven and entry.sid == kin.sid:
                found.append(Member(entry, "session"))
            elif entry.id.pid in grouped:
                found.append(Member(entry, "cgroup"))
            elif kin.session_id in entry.markers:
                found.append(Member(entry, "marker"))
        return found, entries

    def is_surely_empty(self, program: ProcessId | None) -> bool:
        """Whether nobody but helpers can be left of a program that has just ended; if not, a look at /proc tells.

        Cheap, and all that most programs of a moment need. A lease that is held is looked for apart from it.
        """
        kin = self.kin
        if program is None or not kin.own or kin.cgroup:
            return False
        others = self._scanner.settled

        def belongs(pid: int, sid: int) -> bool:
            if sid == kin.sid:
                return True
            # Whoever has left a kernel session cannot join another that is there already, and nobody in those of other
            # sessions of ours, or of a doorman that is just starting, acts for this one. Anywhere else, a daemon may.
            if sid in others or processes.is_our_child(sid):
                return False
            markers = processes.read_markers(pid)
            return markers is None or kin.session_id in markers

        return births.nobody_since(program, belongs)

    def _grouped(self, entries: list[ProcessEntry]) -> set[int]:
        """Pids of those in the session's control group; who was born there since the look is added to *entries*."""
        pids = set(cgroups.members(self.kin.cgroup)) if self.kin.cgroup else set()
        for pid in pids - {entry.id.pid for entry in entries}:
            entry = processes.read_entry(pid)
            # Between the two looks the pid may have become somebody else's.
            if entry is not None and pid in cgroups.members(self.kin.cgroup):
                entries.append(entry)
        return pids

    async def helpers(self) -> list[ProcessId]:
        """Doorman, shim, recorder and copier, as far as they are there."""
        entries = await self._scanner.look(self.kin.since)
        if not self._is_session_proven(entries):
            return []
        return [entry.id for entry in entries if self._is_helper(entry) and entry.sid == self.kin.sid]

    def _is_session_proven(self, entries: Iterable[ProcessEntry]) -> bool:
        """Whether the kernel session with our number is still ours; then everybody in it is known from now on.

        The kernel does not use a number anew while anybody is in the session, one not yet waited for included.
        """
        kin = self.kin
        if kin.own or kin.sid is None:
            return kin.own
        session = [entry for entry in entries if entry.sid == kin.sid]
        if not any(entry.id in kin.known or kin.session_id in entry.markers for entry in session):
            return False
        kin.known.update(entry.id for entry in session)
        return True

    def _is_helper(self, entry: ProcessEntry) -> bool:
        kin = self.kin
        # The copier's `cat` is a process of its own.
        return entry.id.pid in kin.helpers or (kin.copier is not None and entry.ppid == kin.copier)

    async def holders(self, entries: Sequence[ProcessEntry]) -> list[Member]:
        """Members that are known by the lease alone. Slow: looks at every descriptor on the machine."""
        own = self.kin.helpers | {os.getpid()}
        # A child of ours that is between its fork and its exec holds copies of all our descriptors, for an instant.
        young = [
            entry
            for entry in entries
            if entry.id.start >= self.kin.since
            and entry.id.pid not in own
            and entry.ppid != os.getpid()
            and entry.state != "Z"
        ]
        # In a thread: thousands of readlinks.
        held = await in_thread(processes.holders_of, self.kin.lease, young)
        return [Member(entry, "lease") for entry in held]

    def judge(
        self,
        members: Iterable[Member],
        entries: Sequence[ProcessEntry],
        is_there: Callable[[ProcessEntry], bool] = processes.is_alive,
    ) -> list[tuple[Member, Leftover]]:
        """What is to be done with each member that outlived its program.

        Args:
            members: who is judged.
            entries: what the look found.
            is_there: whether a process above them, that is nobody's of the session, is still there.
        """
        members = list(members)
        table = {entry.id.pid: entry for entry in entries}
        ours = {member.entry.id.pid for member in members} | self.kin.helpers
        above = _ancestors(os.getpid(), table) | {os.getpid(), 0, 1, self.kin.host or 0}
        judged = []
        for member in members:
            why = self._spared(member, table, ours, above, is_there)
            entry = member.entry
            judged.append(
                (
                    member,
                    Leftover(
                        pid=entry.id.pid,
                        name=entry.comm,
                        action="reported" if why else "stopped",
                        reason=why or f"known by {member.known_by}",
                    ),
                )
            )
        return judged

    def _spared(
        self,
        member: Member,
        table: dict[int, ProcessEntry],
        ours: Collection[int],
        above: Collection[int],
        is_there: Callable[[ProcessEntry], bool],
    ) -> str:
        entry = member.entry
        if self._leftovers.policy is LeftoverPolicy.REPORT:
            return "leftovers are only reported"
        if entry.comm in self._leftovers.spare:
            return "spared by name"
        if member.known_by == "session":
            return ""
        ancestors = (_find(pid, table) for pid in _ancestors(entry.id.pid, table) if pid not in above)
        line = [entry, *(one for one in ancestors if one is not None)]
        daemon = next((one for one in line if _is_user_daemon(one)), None)
        if daemon is not None:
            return f"belongs to the user's {daemon.comm}"
        if member.known_by == "cgroup":
            return ""
        strangers = (one for one in line if one.id.pid not in ours and one.comm not in REAPERS)
        # Of one that was about to end when it was looked at, nothing told whose it was; it is gone by now.
        stranger = next(filter(is_there, strangers), None)
        if stranger is not None:
            return f"was started by {stranger.comm} (pid {stranger.id.pid}), which is not of this session"
        return "has a terminal" if entry.tty else ""


def _ancestors(pid: int, table: dict[int, ProcessEntry]) -> set[int]:
    found: set[int] = set()
    entry = _find(pid, table)
    while entry is not None and entry.ppid not in found and entry.ppid > 0:
        found.add(entry.ppid)
        entry = _find(entry.ppid, table)
    return found


def _find(pid: int, table: dict[int, ProcessEntry]) -> ProcessEntry | None:
    """A process of the table, or one that is older than what was looked at."""
    if pid not in table:
        entry = processes.read_entry(pid)
        if entry is None:
            return None
        table[pid] = entry
    return table[pid]


def _is_user_daemon(entry: ProcessEntry) -> bool:
    if entry.comm in USER_DAEMONS:
        return True
    if entry.comm != "java":
        return False
    try:
        with open(f"/proc/{entry.id.pid}/cmdline", "rb", buffering=0) as file:
            line = file.read(65_536)
    except OSError:
        return False
    return any(word in line for word in _DAEMON_ARGUMENTS)


def signal_all(targets: Iterable[ProcessId], *signums: int, reserve: Reserve) -> None:
    """Send signals to processes whose identity is proven first; gone ones are passed over.

    So are those that cannot be proven for want of a descriptor: who has to be sure looks again.
    """
    for target in targets:
        try:
            fd = reserve.helped(partial(processes.open_proven, target))
        except OSError:
            continue
        if fd is None:
            continue
        try:
            for signum in signums:
                processes.send_signal(fd, signum)
        finally:
            os.close(fd)


async def wait_all_gone(targets: Iterable[ProcessId], reserve: Reserve) -> None:
    """Wait until every one of these processes has ended."""
    for target in targets:
        await wait_gone(target, reserve)


async def wait_gone(target: ProcessId, reserve: Reserve) -> None:
    """Wait until this process has ended; at once if it is gone."""
    while True:
        try:
            fd = reserve.helped(partial(processes.open_proven, target))
            break
        except OSError as error:
            if not processes.is_exhaustion(error):
                raise
            await trio.sleep(RETRY_INTERVAL)
    if fd is None:
        return
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        trio.lowlevel.notify_closing(fd)
        os.close(fd)


async def kill_until_none(
    targets: Callable[[], Awaitable[list[ProcessId]]], *, bound: float, reserve: Reserve
) -> tuple[ProcessId, ...] | None:
    """Send SIGKILL to what *targets* finds, until it finds nothing.

    Returns: what is still there after *bound* seconds, None where nobody could look; empty when all are gone.
    """
    left: tuple[ProcessId, ...] | None = None
    with trio.move_on_after(bound):
        while True:
            left = tuple(await targets())
            if not left:
                return ()
            signal_all(left, signal.SIGKILL, reserve=reserve)
            # One that does not go must not hide others that are still being forked.
            with trio.move_on_after(KILL_INTERVAL):
                await wait_all_gone(left, reserve)
    return left
