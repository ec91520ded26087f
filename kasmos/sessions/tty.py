"""What the kernel says of a program's terminal."""

from __future__ import annotations

import fcntl
import os
import struct
import termios


def unread_bytes(pid: int) -> int:
    """How much of what was typed a program has not read yet; 0 where its standard input is no terminal, or is gone.

    On a terminal in its usual mode only whole lines count. Never blocks.
    """
    try:
        fd = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        if not os.isatty(fd):
            return 0
        (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
        return int(count)
    except OSError:
        return 0
    finally:
        os.close(fd)
