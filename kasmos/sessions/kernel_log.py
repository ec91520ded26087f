"""What the kernel's log says of processes it has killed because there was no memory left.

Nothing else names them: counters (`oom_kill`) only say that there was one. Who may read the log is the machine's choice
(`kernel.dmesg_restrict`); in a pid namespace of one's own it speaks of other numbers. Then nothing is known.
"""

from __future__ import annotations

import os
import re
import time

from kasmos.sessions import processes
from kasmos.sessions.processes import ProcessId

KERNEL_LOG = "/dev/kmsg"
_LONGEST = 8192
"""Bytes of a record; a shorter buffer is refused."""
_FIRST_NAMESPACE = "pid:[4026531836]"
"""The pid namespace the machine has started with (PROC_PID_INIT_INO)."""
_KILLED = re.compile(rb"Killed process (\d+) |oom-kill:.*,pid=(\d+),")
"""The second line is written before the process is killed, but may be left out if there are many."""
SLACK = 10.0
"""Seconds by which the log's clock may differ from ours; it takes far longer for a pid to come round again."""


def was_short_of_memory(process: ProcessId, path: str = KERNEL_LOG) -> bool:
    """Whether the kernel says that it has killed this process, which has ended, for want of memory. Blocks, some ms.

    False where that cannot be known.
    """
    try:
        if os.readlink("/proc/self/ns/pid") != _FIRST_NAMESPACE:
            return False
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return names(read_records(fd), process.pid, time.monotonic() - processes.age(process) - SLACK)
    finally:
        os.close(fd)


def names(records: list[bytes], pid: int, since: float) -> bool:
    """Whether records of the kernel's log say that this process was killed for want of memory.

    Args:
        records: as `/dev/kmsg` gives them: `PRIORITY,NUMBER,MICROSECONDS,...;TEXT`.
        pid: of the process.
        since: seconds since the machine was started; what is older is of another process.
    """
    for record in records:
        head, _, text = record.partition(b";")
        found = _KILLED.search(text)
        if found is None or int(found[1] or found[2]) != pid:
            continue
        fields = head.split(b",")
        if len(fields) > 2 and fields[2].isdigit() and int(fields[2]) / 1e6 >= since:
            return True
    return False


def read_records(fd: int) -> list[bytes]:
    """All records of the log, from the oldest one that is kept."""
    records: list[bytes] = []
    while True:
        try:
            record = os.read(fd, _LONGEST)
        except BrokenPipeError:
            continue  # what was to come next has been overwritten: on with the oldest there is
        except OSError:
            return records  # the end (EAGAIN), or not for us
        if not record:
            return records
        records.append(record)
