"""Who of a session's processes waits for input, as the kernel shows it at one moment.

A process that waits in a system call shows which one, and with what arguments (`/proc/PID/task/TID/syscall`): so one
that reads standard input or a terminal is told from one that waits for a child, a server or a timer. What follows
from it, and whether something may still come, is not decided here. Blocks on /proc; for use in a thread.

Where the kernel does not show it (CONFIG_HAVE_ARCH_TRACEHOOK, another machine than those in the table), or does not
let us look, nobody is ever seen waiting; those that are stopped are seen all the same.
"""

from __future__ import annotations

import os
import platform
import select
import stat
import struct
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Final

import attrs

from kasmos.model.session import InputWait, WaitSource
from kasmos.model.value import frozen
from kasmos.sessions import processes
from kasmos.sessions.processes import ProcessId

FRESH = 1.0
"""Seconds for which it is believed who descends from whom, at least: looks at many sessions share it."""
STALE = 10.0
"""The same, at most."""
SHARE = 0.001
"""Of a processor, that finding out who descends from whom may take of a machine with very many processes."""
MOST = 500
"""Processes of one session that are looked at."""
TERMINALS = ("/dev/pts/", "/dev/tty", "/dev/console")
_HARMLESS = ("anon_inode:[eventfd]", "anon_inode:[timerfd]", "anon_inode:[signalfd]", "anon_inode:[io_uring]", "pipe:[")
"""What an event loop listens to for its own purposes."""
MOST_POLLED = 1024
"""Descriptors of one `poll` or `select` that are looked at."""
_POLLED = struct.Struct("=ihh")


@frozen
class _Calls:
    """Numbers of system calls on one kind of machine."""

    read: frozenset[int]
    select: frozenset[int]
    poll: frozenset[int]
    epoll: frozenset[int]
    wait: frozenset[int]
    sleep: frozenset[int]


_X86 = _Calls(
    read=frozenset({0, 19}),
    select=frozenset({23, 270}),
    poll=frozenset({7, 271}),
    epoll=frozenset({232, 281, 441}),
    wait=frozenset({61, 247}),
    sleep=frozenset({35, 230}),
)
_ARM = _Calls(
    read=frozenset({63, 65}),
    select=frozenset({72}),
    poll=frozenset({73}),
    epoll=frozenset({22, 441}),
    wait=frozenset({95, 260}),
    sleep=frozenset({101, 115}),
)
_TABLE: Final[Mapping[str, _Calls]] = {"x86_64": _X86, "aarch64": _ARM, "riscv64": _ARM}


class Family:
    """Who descends from whom, on the whole machine. Safe from any thread.

    A process that was seen is recognised by its directory's inode and not read again, so that a look costs by the
    number of those that are new.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[int, tuple[int, int]] = {}
        self._children: dict[int, list[int]] = {}
        self._look_at = float("-inf")

    def below(self, pid: int) -> list[int]:
        """A process and all that descend from it, nearest first; at most `MOST`."""
        with self._lock:
            if time.monotonic() >= self._look_at:
                self._look()
            found: list[int] = []
            todo = deque([pid])
            while todo and len(found) < MOST:
                one = todo.popleft()
                found.append(one)
                todo.extend(self._children.get(one, ()))
        return found

    def _look(self) -> None:
        began = time.thread_time()
        seen: dict[int, tuple[int, int]] = {}
        children: dict[int, list[int]] = {}
        for pid, inode in processes.listed():
            known = self._seen.get(pid)
            if known is None or known[0] != inode:
                entry = processes.read_entry(pid)
                if entry is None:
                    continue
                known = (inode, entry.ppid)
            seen[pid] = known
            children.setdefault(known[1], []).append(pid)
        self._seen, self._children = seen, children
        spent = time.thread_time() - began
        self._look_at = time.monotonic() + min(STALE, max(FRESH, spent / SHARE))


def find_waits(program: ProcessId, family: Family) -> tuple[InputWait, ...]:
    """The processes below a program, itself included, that wait for input or are stopped; the deepest first.

    Raises:
        OSError: out of descriptors or memory: it cannot be told.
    """
    itself = _Looked.at(program.pid)
    if itself is None or itself.start != program.start or itself.sleeps:
        return ()
    pids = family.below(program.pid)
    found: list[InputWait] = []
    for pid in reversed(pids):
        seen = _Looked.at(pid)
        if seen is not None:
            found += _wait_of(seen, program, pids)
    return tuple(found)


@frozen
class _Looked:
    """One process, as it was seen."""

    pid: int
    start: int
    ppid: int
    name: str
    state: str
    ticks: int
    calls: tuple[tuple[int, ...], ...]
    """The call that each thread waits in, with its arguments; empty for one that runs."""

    @classmethod
    def at(cls, pid: int) -> _Looked | None:
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                line = file.read(4096)
            entry = processes.parse_stat(line)
            rest = line[line.rindex(b")") + 2 :].split()
            threads = os.listdir(f"/proc/{pid}/task")
        except (OSError, ValueError) as error:
            if processes.is_exhaustion(error):
                raise
            return None
        if entry.state == "Z":
            return None
        calls = tuple(_call(pid, thread) for thread in threads)
        ticks = int(rest[11]) + int(rest[12])
        return cls(pid, entry.id.start, entry.ppid, entry.comm, entry.state, ticks, calls)

    @property
    def waits_for_a_child(self) -> bool:
        """Whether nothing else can happen in it before a child of it has ended."""
        table = _TABLE.get(platform.machine())
        return table is not None and self._is_only_in(table.wait)

    @property
    def sleeps(self) -> bool:
        """Whether it goes on by itself after a while, whatever others do."""
        table = _TABLE.get(platform.machine())
        return self.state != "T" and table is not None and self._is_only_in(table.sleep)

    def _is_only_in(self, calls: Collection[int]) -> bool:
        return len(self.calls) == 1 and bool(self.calls[0]) and self.calls[0][0] in calls


def _call(pid: int, thread: str) -> tuple[int, ...]:
    try:
        with open(f"/proc/{pid}/task/{thread}/syscall", "rb", buffering=0) as file:
            words = file.read(512).split()
        return tuple(int(word, 0) for word in words[:7]) if words and words[0].isdigit() else ()
    except (OSError, ValueError) as error:
        if processes.is_exhaustion(error):
            raise
        return ()


def _wait_of(seen: _Looked, program: ProcessId, family: Collection[int]) -> Iterator[InputWait]:
    common = InputWait(
        pid=seen.pid,
        start=seen.start,
        name=seen.name,
        source=WaitSource.STOPPED,
        ticks=seen.ticks,
        born_at=time.time() - processes.age(ProcessId(seen.pid, seen.start)),
        is_program=seen.pid == program.pid,
    )
    if seen.state == "T":
        yield common
        return
    for fd in _read_by(seen):
        link = _link(seen.pid, fd)
        if link.startswith(TERMINALS):
            yield attrs.evolve(common, source=WaitSource.TERMINAL)
            return
        if link and fd == 0 and _is_pipe(seen.pid, link):
            yield _with_writers(attrs.evolve(common, source=WaitSource.PIPE), seen, _writers(seen.pid, family))
            return
        if fd == 0 and link.startswith("socket:["):
            # Who is at its other end cannot be seen: as a rule, whoever started it.
            above = {seen.ppid} & set(family)
            yield _with_writers(attrs.evolve(common, source=WaitSource.PIPE), seen, above)
            return


def _read_by(seen: _Looked) -> Iterator[int]:
    """The descriptors that a process waits to read from, standard input and terminals."""
    table = _TABLE.get(platform.machine())
    if table is None:
        return
    for call in filter(None, seen.calls):
        number, *arguments = call
        if number in table.read and arguments:
            yield arguments[0]
        elif number in table.select and len(arguments) > 3:
            yield from _of_weight(seen.pid, _selected(seen.pid, *arguments[:4]))
        elif number in table.poll and len(arguments) > 1:
            yield from _of_weight(seen.pid, _polled(seen.pid, *arguments[:2]))
        elif number in table.epoll and arguments:
            yield from _of_weight(seen.pid, _looped(seen.pid, arguments[0]))


def _of_weight(pid: int, fds: Collection[int]) -> list[int]:
    """Those that are standard input or a terminal, if the others are of no weight: what waits for all of these."""
    wanted = []
    for fd in fds:
        link = _link(pid, fd)
        if fd == 0 or link.startswith(TERMINALS):
            wanted.append(fd)
        elif not link.startswith(_HARMLESS):
            return []
    return wanted


def _looped(pid: int, epoll: int) -> list[int]:
    """The descriptors that an event loop (epoll) listens to."""
    lines = _lines(f"/proc/{pid}/fdinfo/{epoll}")
    return [int(line.split()[1]) for line in lines if line.startswith("tfd:")]


def _polled(pid: int, place: int, count: int) -> list[int]:
    """The descriptors in the argument of `poll`; none if it waits for one of them to be written to."""
    size = _POLLED.size
    data = _memory(pid, place, min(count, MOST_POLLED) * size)
    asked = [_POLLED.unpack_from(data, at)[:2] for at in range(0, len(data) - size + 1, size)]
    # A negative one is passed over by the kernel as well.
    asked = [(fd, events) for fd, events in asked if fd >= 0]
    return [] if any(events & select.POLLOUT for _, events in asked) else [fd for fd, _ in asked]


def _selected(pid: int, count: int, readable: int, writable: int, others: int) -> list[int]:
    """The descriptors in the arguments of `select`; none if it waits for more than that one of them can be read."""
    if writable or others:
        return []
    if count == 1:
        return [0]  # the highest descriptor and one more
    # Words of 64 bits; the lowest bit of the first is descriptor 0. All machines in the table are little-endian.
    count = min(count, MOST_POLLED)
    bits = int.from_bytes(_memory(pid, readable, count // 64 * 8 + 8), "little")
    return [fd for fd in range(count) if bits >> fd & 1]


def _memory(pid: int, place: int, size: int) -> bytes:
    """A piece of a process's memory. Whoever may see its system calls may see that; nothing where it is gone."""
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
            return os.pread(file.fileno(), size, place)
    except (OSError, OverflowError) as error:
        if processes.is_exhaustion(error):
            raise
        return b""


def _with_writers(wait: InputWait, seen: _Looked, writers: Collection[int]) -> InputWait:
    """The same, with what can be said of those who could give it something."""
    others = [pid for pid in writers if pid != seen.pid]
    if not others:
        return attrs.evolve(wait, alone=seen.pid in writers)
    above = _ancestors(seen.ppid)
    looked = [one for one in map(_Looked.at, others) if one is not None]
    nearest = next((one for one in looked if one.pid == seen.ppid), looked[0] if looked else None)
    return attrs.evolve(
        wait,
        holder=f"{nearest.name} (pid {nearest.pid})" if nearest is not None else "",
        held_above=set(others) <= above,
        stalemate=set(others) <= above and bool(looked) and all(one.waits_for_a_child for one in looked),
    )


def _ancestors(pid: int) -> set[int]:
    found: set[int] = set()
    while pid > 1 and pid not in found:
        found.add(pid)
        entry = processes.read_entry(pid)
        if entry is None:
            break
        pid = entry.ppid
    return found


def _writers(reader: int, family: Collection[int]) -> set[int]:
    """Who of a family could write into what a process reads as its standard input."""
    wanted = _identity(reader, "0")
    found = set()
    for pid in family:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError as error:
            if processes.is_exhaustion(error):
                raise
            continue
        if any(_identity(pid, name) == wanted and _may_write(pid, name) for name in names):
            found.add(pid)
    return found


def _identity(pid: int, fd: str) -> tuple[int, int] | None:
    try:
        told = os.stat(f"/proc/{pid}/fd/{fd}")
    except OSError as error:
        if processes.is_exhaustion(error):
            raise
        return None
    return told.st_dev, told.st_ino


def _is_pipe(pid: int, link: str) -> bool:
    if link.startswith("pipe:["):
        return True
    with suppress(OSError):
        return stat.S_ISFIFO(os.stat(f"/proc/{pid}/fd/0").st_mode)
    return False


def _may_write(pid: int, fd: str) -> bool:
    for line in _lines(f"/proc/{pid}/fdinfo/{fd}"):
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _link(pid: int, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError as error:
        if processes.is_exhaustion(error):
            raise
        return ""


def _lines(path: str) -> list[str]:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(65_536).decode(errors="replace").splitlines()
    except OSError as error:
        if processes.is_exhaustion(error):
            raise
        return []
