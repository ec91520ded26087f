"""Who was born since: what can be told of a program's descendants without a look at all of /proc.

The kernel gives out process ids in ascending order, round and round, in the supervisor's own pid namespace also to
those that live in one below it. So whoever descends from a program has one that was given out after the program's,
and for a program of a moment those are few: each is asked about by itself. The answer is *nobody*, or *look*: where
anything is not as expected, one look at /proc tells.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from kasmos.sessions import process_table, processes
from kasmos.sessions.processes import ProcessId

YOUNG = 1.0
"""Seconds within which process ids, where there are `MANY`, do not go round."""
MANY = 32_768
"""The kernel's own default of `pid_max`, for small machines. Where somebody has set it lower, nothing is certain."""
FEW = 250
"""Process ids that are asked about one by one, each in a microsecond: fewer than a round has."""
ROUNDS = 3
"""How often those are asked about that were born while others were: whoever forks faster is looked for in /proc."""


def nobody_since(program: ProcessId, belongs: Callable[[int, int], bool]) -> bool:
    """Whether it is certain that no process that was born after a program, and is still there, belongs to it.

    Args:
        program: has ended.
        belongs: told a pid and its kernel session; whether that process may belong to it. May raise `OSError`
            where that cannot be told.
    """
    first = program.pid + 1
    try:
        if not _can_be_told():
            return False
        for _ in range(ROUNDS):
            last = process_table.newest_id()
            # The age after that: whoever is held up between the two would take the ids of another round for ours.
            if last < first - 1 or last - program.pid > FEW or processes.age(program) > YOUNG:
                return False  # gone round, or too many, or one round may be over
            if last == first - 1:
                return True
            if any(_is_there(pid, belongs) for pid in range(first, last + 1)):
                return False
            first = last + 1
    except (OSError, ValueError, IndexError):
        return False
    return False


def _is_there(pid: int, belongs: Callable[[int, int], bool]) -> bool:
    try:
        sid = os.getsid(pid)
    except ProcessLookupError:
        return False
    return belongs(pid, sid)


@functools.cache
def _can_be_told() -> bool:
    """Whether there are many ids, and /proc/loadavg is the kernel's own.

    In some containers a file system stands in for it, and is seconds behind.
    """
    with open("/proc/sys/kernel/pid_max", "rb", buffering=0) as file:
        many = int(file.read(32)) >= MANY
    return many and os.stat("/proc/loadavg").st_dev == os.stat("/proc").st_dev
