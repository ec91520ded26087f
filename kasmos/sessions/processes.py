"""Processes as the kernel knows them: identity, exit status, signals.

A pid alone is no identity: it is reused. Here a process is a pid *and* its start time, signals go
through a pidfd whose process was proven after it was opened, and nothing is found by name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import signal
import struct
import time
from collections.abc import Iterable, Iterator

from kasmos.model.session import ExitStatus
from kasmos.model.value import frozen

# include/uapi/linux/pidfd.h: _IOWR(0xFF, 11, struct pidfd_info), first published size (64 bytes).
_PIDFD_GET_INFO = (3 << 30) | (64 << 16) | (0xFF << 8) | 11
_PIDFD_INFO_EXIT = 1 << 3
# include/uapi/linux/prctl.h
_PR_GET_CHILD_SUBREAPER = 37
_TICKS = os.sysconf("SC_CLK_TCK")
_INFO = struct.Struct("=QQ11Ii")


@frozen
class ProcessId:
    """A process that cannot be mistaken for another one: pid and start time."""

    pid: int
    start: int
    """Start time in clock ticks since boot, field 22 of `/proc/PID/stat` (proc(5))."""


@frozen
class ProcessEntry:
    """One line of the process table."""

    id: ProcessId
    ppid: int
    sid: int
    """Kernel session id (setsid(2)); not a kasmos session."""
    comm: str
    tty: int
    """Controlling terminal, 0 for none."""
    state: str
    """One letter as in proc(5); `Z` is a process that has ended as a whole and was not yet waited for."""
    exit_code: int | None = None
    """The wait status, while the process is a zombie and we may see it."""
    markers: frozenset[str] = frozenset()
    """Session ids found in its environment, own and inherited ones."""


def parse_stat(line: bytes) -> ProcessEntry:
    """Read a `/proc/PID/stat` line.

    Raises:
        ValueError: it is not one.
    """
    # The name is in parentheses and may itself hold parentheses and blanks: cut at the last one.
    open_at, close_at = line.index(b"("), line.rindex(b")")
    rest = line[close_at + 2 :].split()
    state = rest[0].decode()
    if state == "Z" and int(rest[17]) > 1:
        state = "S"  # its first thread has ended, others run on (pthread_exit(3) in `main`)
    return ProcessEntry(
        id=ProcessId(int(line[:open_at]), int(rest[19])),
        ppid=int(rest[1]),
        sid=int(rest[3]),
        comm=line[open_at + 1 : close_at].decode(errors="replace"),
        tty=int(rest[4]),
        state=state,
        exit_code=int(rest[49]) if state == "Z" and len(rest) > 49 else None,
    )


def read_entry(pid: int) -> ProcessEntry | None:
    """The process that has this pid now, or None.

    Raises:
        OSError: out of descriptors or memory: it cannot be told, which is not the same as None.
    """
    try:
        return parse_stat(read_once(f"/proc/{pid}/stat", 4096))
    except (OSError, ValueError) as error:
        if is_exhaustion(error):
            raise
        return None


def listed() -> Iterator[tuple[int, int]]:
    """Every pid there is, with the inode of its directory in /proc: a pid that is used anew has another one."""
    with os.scandir("/proc") as directory:
        for one in directory:
            if one.name.isdigit():
                yield int(one.name), one.inode()


def read_once(path: str, limit: int) -> bytes:
    """What one read gives of a file in /proc. No file object: there are ten of these for each session."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)


def read_if_there(path: str, limit: int) -> bytes | None:
    """As `read_once`; None where there is nothing to be read, or not for us.

    Raises:
        OSError: out of descriptors or memory: it cannot be told.
    """
    try:
        return read_once(path, limit)
    except OSError as error:
        if is_exhaustion(error):
            raise
        return None


def is_exhaustion(error: BaseException) -> bool:
    """Whether this error tells of the machine or of us, and nothing of what was looked at."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


def is_alive(entry: ProcessEntry) -> bool:
    """Whether exactly this process exists and has not ended."""
    now = read_entry(entry.id.pid)
    return now is not None and now.id == entry.id and now.state != "Z"


def is_at_work(entry: ProcessEntry) -> bool:
    """Whether exactly this process exists and has not begun to end: from then on its environment cannot be read.

    Raises:
        OSError: no descriptor is left to look with.
    """
    threads = f"/proc/{entry.id.pid}/task"
    try:
        names = os.listdir(threads)
    except OSError as error:
        if is_exhaustion(error):
            raise
        return False
    # Whoever ends gives up its memory first, and may be held up before it is a zombie. The first thread may have
    # ended while others run on.
    memory = (read_if_there(f"{threads}/{name}/statm", 256) for name in names)
    return any(one is not None and not one.startswith(b"0 ") for one in memory) and is_alive(entry)


def read_markers(pid: int) -> frozenset[str] | None:
    """The kasmos session ids in a process's environment; empty when there are none or we may not look.

    Returns: None when the environment itself is empty: between two instants of an `execve` it seems so.
    """
    data = read_if_there(f"/proc/{pid}/environ", 1 << 20)
    if data is None:
        return frozenset()
    if not data:
        return None
    if b"KASMOS_" not in data:
        return frozenset()
    found: set[str] = set()
    for item in data.split(b"\0"):
        if item.startswith((b"KASMOS_SESSION_ID=", b"KASMOS_ANCESTORS=")):
            found.update(item.partition(b"=")[2].decode(errors="replace").split(":"))
    return frozenset(found - {""})


def age(identity: ProcessId) -> float:
    """Seconds since a process was started, to a clock tick (10 ms)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - identity.start / _TICKS


def is_our_child(pid: int) -> bool:
    """Whether this is a process that we have forked, and not yet waited for; False where that cannot be told."""
    if _inherits_orphans():
        return False
    try:
        # Only a look: whoever waits for it is told all the same.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


@functools.cache
def _inherits_orphans() -> bool:
    """Whether the kernel makes children of ours of those whose parents have ended: as init, or as a subreaper."""
    import ctypes  # only of a supervisor, once

    answer = ctypes.c_int(1)
    told = ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0) == 0
    return os.getpid() == 1 or not told or bool(answer.value)


def holders_of(path: str, entries: Iterable[ProcessEntry]) -> list[ProcessEntry]:
    """Those of *entries* that have the file at *path* open. Blocks; reads every descriptor's identity."""
    try:
        wanted = os.stat(path)
    except OSError:
        return []
    found = []
    for entry in entries:
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{entry.id.pid}/fd"):
                with contextlib.suppress(OSError):
                    seen = os.stat(f"/proc/{entry.id.pid}/fd/{fd}")
                    if (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino):
                        found.append(entry)
                        break
    return found


def lease_is_held(path: str) -> bool:
    """Whether any process holds the lease; False when there is none."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if is_exhaustion(error):
            raise
        return False
    try:
        # Shared: two who look at the same time do not see each other.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def open_proven(identity: ProcessId) -> int | None:
    """A pidfd of exactly this process, or None when it is gone.

    The pidfd is opened first and the identity checked afterwards: from then on it cannot change.

    Raises:
        OSError: out of descriptors.

    Ownership: the caller closes it.
    """
    try:
        fd = os.pidfd_open(identity.pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):
            return None
        raise
    try:
        proven = (entry := read_entry(identity.pid)) is not None and entry.id == identity
    except OSError:
        os.close(fd)
        raise
    if not proven:
        os.close(fd)
        return None
    return fd


def send_signal(fd: int, signum: int) -> bool:
    """Send a signal through a pidfd; False when the process is gone or may not be signalled."""
    try:
        signal.pidfd_send_signal(fd, signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def exit_status_of(fd: int, identity: ProcessId) -> ExitStatus | None:
    """The exact exit status of a process whose pidfd has become readable, or None when the kernel will not say.

    Two sources: `PIDFD_GET_INFO` once it was waited for (Linux 6.15), the stat line before.
    """
    # Waited for between the two looks: the first source has it then, hence the second round.
    for _ in range(2):
        status = _info_exit(fd)
        if status is None:
            entry = read_entry(identity.pid)
            if entry is not None and entry.id == identity:
                status = entry.exit_code
        if status is not None:
            return ExitStatus.from_wait_status(status)
    return None


def has_exit_info() -> bool:
    """Whether this kernel tells the exit status of any process through its pidfd (Linux 6.15)."""
    fd = os.pidfd_open(os.getpid())
    try:
        fcntl.ioctl(fd, _PIDFD_GET_INFO, bytearray(_INFO.pack(_PIDFD_INFO_EXIT, 0, *[0] * 12)))
    except OSError as error:
        # ESRCH: understood, but there is nothing to tell of the living.
        return error.errno == errno.ESRCH
    else:
        return True
    finally:
        os.close(fd)


def _info_exit(fd: int) -> int | None:
    buffer = bytearray(_INFO.pack(_PIDFD_INFO_EXIT, 0, *[0] * 12))
    try:
        fcntl.ioctl(fd, _PIDFD_GET_INFO, buffer)
    except OSError:
        return None
    fields = _INFO.unpack(buffer)
    return int(fields[-1]) if fields[0] & _PIDFD_INFO_EXIT else None
