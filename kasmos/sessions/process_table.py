"""The process table: one look at every process, and who was born while one looked."""

from __future__ import annotations

import time
from collections.abc import Collection, Container, Iterable

import attrs

from kasmos.sessions.processes import ProcessEntry, is_exhaustion, listed, read_entry, read_markers, read_once


class ProcessTable:
    """The process table, looked at again and again.

    What is too old to be of interest is recognised by its directory's inode and not read again: a pid that is used
    anew gets a new one. So a look costs by the number of young processes, not of all.

    A directory that is read while processes come and go shows none that was born behind the reader's back; and who
    forks and ends at once, as daemons do twice, has always moved on. So after it each id is asked about that was given
    out meanwhile, until there is none: then nobody who was there throughout, or descends from such a one, is missing.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, int]] = {}
        self.reads = 0
        """How many processes the last look had to read; each takes about 10 us."""
        self.complete = True
        """Whether the last look has kept up with what was born meanwhile."""

    def scan(self, *, settled: Collection[int], since: int) -> tuple[list[ProcessEntry], list[ProcessEntry]]:
        """Look at every process that was started at *since* or later, kernel threads excepted.

        Args:
            settled: kernel session ids whose processes need no look at their environment.
            since: start time, in clock ticks.

        Returns: those whose markers are known; and those that are in the middle of an `execve`, whose
            environment seems empty: look at their markers again in a moment.
        """
        look = _Look(settled, since)
        seen: dict[int, tuple[int, int]] = {}
        newest = _newest_if_told()
        for pid, inode in listed():
            known = self._seen.get(pid)
            if known is not None and known[0] == inode and known[1] < since:
                seen[pid] = known
                continue
            entry = look.take(pid)
            if entry is not None:
                seen[pid] = (inode, -1 if _is_kernel(entry) else entry.id.start)
        self._seen = seen
        self.complete = look.take_newborn(newest, seen)
        self.reads = look.reads
        return look.sure, look.unsure


MANY_BORN = 250
"""Ids given out since the last look at them; for more, or where they have gone round, the directory is read again."""
ROUNDS = 50
"""How often one asks who was born while one asked who was born."""
MOST_READS = 500
"""Processes that are read for that; each takes up to 50 us."""


class _Look:
    """What one look at the process table has found."""

    def __init__(self, settled: Collection[int], since: int) -> None:
        self._settled = settled
        self._since = since
        self.sure: list[ProcessEntry] = []
        self.unsure: list[ProcessEntry] = []
        self.reads = 0

    def take(self, pid: int, *, listed: bool = True) -> ProcessEntry | None:
        """Read a process, and keep it if it is of interest.

        Args:
            pid: of it.
            listed: whether it is surely a process: the ids of threads lead to something in /proc as well.
        """
        entry = read_entry(pid)
        self.reads += 1
        if entry is None or _is_kernel(entry) or entry.id.start < self._since:
            return entry
        markers: frozenset[str] | None = frozenset()
        if entry.sid not in self._settled and entry.state != "Z":
            markers = read_markers(pid)
        if not listed and _is_thread(pid):
            return None
        if markers is None:
            self.unsure.append(entry)
        else:
            self.sure.append(attrs.evolve(entry, markers=markers) if markers else entry)
        return entry

    def take_newborn(self, newest: int | None, seen: Container[int]) -> bool:
        """Read who was given an id after *newest*, but for those *seen*; whether none of them was missed."""
        taken: set[int] = set()
        bound = self.reads + MOST_READS
        for _ in range(ROUNDS):
            last = _newest_if_told()
            if last == newest or last is None or newest is None:
                return True
            if self.reads > bound:
                return False
            few = newest < last <= newest + MANY_BORN
            for pid in range(newest + 1, last + 1) if few else [pid for pid, _ in listed()]:
                if pid not in seen and pid not in taken and self.take(pid, listed=not few) is not None:
                    taken.add(pid)
            newest = last
        return False


def newest_id() -> int:
    """The process id, or thread id, that was given out last; the last word of proc_loadavg(5).

    In a container it may be told by a file system that stands in for the kernel's, and is seconds behind.

    Raises:
        OSError: it cannot be read.
    """
    return int(read_once("/proc/loadavg", 256).rsplit(None, 1)[-1])


def _newest_if_told() -> int | None:
    """The newest id; None where /proc does not tell, so that nothing but its directory tells who is there."""
    try:
        return newest_id()
    except (OSError, ValueError, IndexError) as error:
        if is_exhaustion(error):
            raise
        return None


def _is_kernel(entry: ProcessEntry) -> bool:
    return entry.ppid == 2 or entry.id.pid == 2


def _is_thread(pid: int) -> bool:
    """Whether this is the id of a thread that is not its process's first."""
    try:
        status = read_once(f"/proc/{pid}/status", 4096)
    except OSError as error:
        if is_exhaustion(error):
            raise
        return False
    return f"\nTgid:\t{pid}\n".encode() not in status


def scan(*, settled: Collection[int] = (), since: int = 0) -> list[ProcessEntry]:
    """Look once at every process that was started at *since* or later. Blocks, for a pause if need be."""
    entries, unsure = ProcessTable().scan(settled=settled, since=since)
    for pause in EXEC_PAUSES:
        if not unsure:
            break
        time.sleep(pause)
        unsure = again(unsure, entries)
    return entries + unsure


EXEC_PAUSES = (0.0005, 0.002, 0.008)
"""Seconds between looks at the environment of a process that is in the middle of an `execve`."""


def again(unsure: Iterable[ProcessEntry], sure: list[ProcessEntry]) -> list[ProcessEntry]:
    """Look again at the markers of *unsure*; those that are known now go to *sure*, the others are returned."""
    still = []
    for entry in unsure:
        markers = read_markers(entry.id.pid)
        if markers is None:
            still.append(entry)
        else:
            sure.append(attrs.evolve(entry, markers=markers))
    return still
