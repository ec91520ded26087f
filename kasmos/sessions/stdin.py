"""What the kernel says of a program's standard input: a terminal's, or a pipe's."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import struct
import termios

from kasmos.model.value import frozen
from kasmos.sessions.processes import ProcessEntry, is_alive, is_exhaustion


@frozen
class Pipe:
    """A pipe, as its reader's end shows it."""

    unread: int
    """Bytes in it."""
    hung_up: bool
    """Nobody can write to it any more."""


def unread_bytes(pid: int) -> int:
    """How much of what was typed a program has not read yet; 0 where its standard input is no terminal, or is gone.

    On a terminal in its usual mode only whole lines count. Never blocks.
    """
    try:
        fd = _open(pid)
    except OSError:
        return 0
    try:
        return unread_in(fd) if os.isatty(fd) else 0
    except OSError:
        return 0
    finally:
        os.close(fd)


def pipe_before(entry: ProcessEntry) -> Pipe | None:
    """The pipe that is a process' standard input; None where that is no pipe, or it has ended. Never blocks.

    Raises:
        OSError: there is no descriptor to look with.
    """
    try:
        fd = _open(entry.id.pid)
    except OSError as error:
        if is_exhaustion(error):
            raise
        return None
    try:
        if not is_alive(entry) or not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return None
        look = select.poll()
        look.register(fd, 0)
        return Pipe(unread_in(fd), any(event & select.POLLHUP for _, event in look.poll(0)))
    finally:
        os.close(fd)


def unread_in(fd: int) -> int:
    """Bytes that wait to be read from a pipe, a terminal or a socket.

    Raises:
        OSError: it is none of these.
    """
    (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
    return int(count)


def _open(pid: int) -> int:
    return os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
