"""The bytes on both sides of the mediator: lines from the program, and the log that gets all of them."""

from __future__ import annotations

import errno
import os

MOST = 64 << 20
"""Bytes of a line up to which it is read; the log gets longer ones as well."""


class Lines:
    """Cuts a stream into lines, and passes every byte of it on to the log in the order of the lines."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._passing = False
        """Whether the line was found too long: it goes to the log as it comes, and nobody reads it."""

    @property
    def is_between(self) -> bool:
        """Whether the log has whole lines only."""
        return not self._passing

    def feed(self, data: bytes) -> tuple[bytes, list[bytes]]:
        """Take more; what the log gets now, and the lines that are complete, without their ends."""
        *ends, rest = data.split(b"\n")
        log, lines = bytearray(), []
        for end in ends:
            if not self._passing:
                self._held += end
                lines.append(bytes(self._held))
            log += self._held if not self._passing else end
            log += b"\n"
            self._held.clear()
            self._passing = False
        if self._passing:
            log += rest
        else:
            self._held += rest
            if len(self._held) > MOST:
                log += self._held
                self._held.clear()
                self._passing = True
        return bytes(log), lines

    def close(self) -> bytes:
        """The stream has ended: what the log gets of a line without an end, which is no message."""
        rest, self._held = bytes(self._held), bytearray()
        ended = b"\n" if rest or self._passing else b""
        self._passing = False
        return rest + ended


class Log:
    """Standard output. What cannot be written now, because the disk is full, is kept and tried again."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting = bytearray()
        self._deaf = False

    @property
    def is_behind(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._waiting)

    def write(self, data: bytes) -> None:
        """Write; never raises."""
        if not self._deaf:
            self._waiting += data
            self.flush()

    def flush(self) -> None:
        """Try what waits."""
        try:
            while self._waiting:
                with memoryview(self._waiting) as view:
                    written = os.write(self._fd, view)
                del self._waiting[:written]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN):
                # Nobody reads it any more. The turn is worth more than its transcript.
                self._deaf = True
                self._waiting.clear()
