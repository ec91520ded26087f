"""What a session wrote: the newest bytes in memory, and all that is kept in its log.

Everything is addressed by absolute byte offset: the number of bytes written before it since the session
began, whatever has been given up or truncated meanwhile. This room knows bytes, never processes.
The one invariant: a byte that is no longer there is told as lost, never read as something else.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kasmos import failpoints
from kasmos.sessions.layout import OUTPUT, OUTPUT_BASE
from kasmos.sessions.protocol import OutputChunk

TAIL_BYTES = 65_536
"""How far back from the end last lines are looked for, unless told otherwise."""

T = TypeVar("T")

_PUNCH_HOLE = 0x02
_KEEP_SIZE = 0x01


class OutputBuffer:
    """The newest bytes of one session's output, at most *capacity* of them. Safe from any thread.

    An empty buffer costs a few hundred bytes, so a thousand silent sessions cost next to nothing.
    """

    __slots__ = ("_capacity", "_data", "_lock", "_start")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"an output buffer must hold at least one byte, not {capacity}")
        self._capacity = capacity
        self._lock = threading.Lock()
        self._data = bytearray()
        self._start = 0

    @property
    def start(self) -> int:
        """Absolute offset of the oldest byte held."""
        return self._start

    @property
    def end(self) -> int:
        """Absolute offset just after the newest byte. Only grows."""
        with self._lock:
            return self._start + len(self._data)

    def append(self, data: bytes) -> None:
        """Add what was written next; the oldest bytes go when there is no room."""
        with self._lock:
            if len(data) >= self._capacity:
                self._start += len(self._data) + len(data) - self._capacity
                self._data = bytearray(data[-self._capacity :])
                return
            excess = len(self._data) + len(data) - self._capacity
            if excess > 0:
                # Deleting at the front moves a bytearray's start, not its bytes: they are moved
                # once per eighth of the capacity, when it next has to grow.
                del self._data[:excess]
                self._start += excess
            self._data += data

    def skip_to(self, offset: int) -> None:
        """Go on at *offset*: the bytes in between were never seen, so those before it are let go too.

        Raises:
            ValueError: *offset* lies before the end; bytes already seen cannot come again.
        """
        with self._lock:
            end = self._start + len(self._data)
            if offset < end:
                raise ValueError(f"cannot go back from offset {end} to {offset}")
            if offset > end:
                self._data = bytearray()
                self._start = offset

    def drop(self) -> None:
        """Let go of all that is held; offsets go on."""
        with self._lock:
            self._start += len(self._data)
            self._data = bytearray()

    def read(self, offset: int, limit: int) -> OutputChunk | None:
        """Read at most *limit* bytes from *offset*.

        Returns: None if *offset* is older than what is held; an empty chunk at *offset* if nothing
            past it is held yet. A cursor is never sent back, so a reader that saw more in the log stays ahead.
        """
        with self._lock:
            begin = offset - self._start
            if begin < 0:
                return None
            return OutputChunk(offset, bytes(self._data[begin : begin + max(limit, 0)]))

    def text(self) -> str:
        """All that is held, decoded with replacement."""
        with self._lock:
            data, cut = bytes(self._data), self._start > 0
        return decode_from(data, cut=cut)

    def tail(self, lines: int, max_bytes: int = TAIL_BYTES) -> str:
        """The last *lines* lines, as far as they are within the last *max_bytes* bytes held."""
        with self._lock:
            begin = max(len(self._data) - max(max_bytes, 0), 0)
            data, cut = bytes(self._data[begin:]), self._start + begin > 0
        return last_lines(data, lines, cut=cut)


def decode_from(data: bytes, *, cut: bool) -> str:
    """Decode with replacement; if *cut* out of a longer text, without the rest of a halved character."""
    if cut:
        head = 0
        while head < min(3, len(data)) and data[head] & 0xC0 == 0x80:
            head += 1
        data = data[head:]
    return data.decode("utf-8", errors="replace")


def last_lines(data: bytes, lines: int, *, cut: bool = False) -> str:
    """The last *lines* lines of *data* as `tail -n` would print them, decoded with replacement."""
    if lines <= 0:
        return ""
    begin = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(lines):
        begin = data.rfind(b"\n", 0, begin)
        if begin < 0:
            return decode_from(data, cut=cut)
    return decode_from(data[begin + 1 :], cut=False)


def lines_between(text: str, start: int | None, end: int | None) -> str:
    """Lines *start* up to, not including, *end*, counted as a Python slice counts; without a final newline.

    Newlines and nothing else end a line, so a progress bar drawn with carriage returns is one line.
    """
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return "\n".join(lines[start:end])


class LogFile:
    """The blocking side of a session's `output.log`, with what is known about its missing head.

    `output.base` is one line, `BASE SHIFT`: the first absolute offset that is still available, and what must
    be added to a position in the file to get an absolute offset. Without the file both are 0. It is
    replaced as a whole and made durable *before* anything is given up, so a crash between the two
    declares bytes as lost that are still there, never the reverse.

    If the file cannot be understood (somebody wrote to it), the shift is taken as 0 and the base as the
    first byte that is not in a hole: punched bytes are then still not mistaken for output.

    Safe from any thread, and readable from other processes meanwhile. One process alone may change it.
    A *fd* that was opened on the log is read instead of the path, and stays the caller's; so the output
    can be read even when the directory has been removed.

    Every method raises `OSError` as the file system does, `FileNotFoundError` where there is no log.
    """

    def __init__(self, directory: Path | str, *, fd: int | None = None) -> None:
        self._directory = os.fspath(directory)
        self._log = f"{self._directory}/{OUTPUT}"
        self._base_file = f"{self._directory}/{OUTPUT_BASE}"
        self._fd = fd
        # Both numbers only grow, so what was once known stays true if the file disappears.
        self._known = (0, 0)
        self._change = threading.Lock()

    @property
    def base(self) -> int:
        """Absolute offset of the first byte that is still available."""
        return self._with_log(self._load)[0]

    @property
    def end(self) -> int:
        """Absolute offset just after the last byte in the file.

        Smaller than before only when the program has truncated it and this was not declared yet.
        """
        return self._with_log(lambda fd: os.fstat(fd).st_size + self._load(fd)[1])

    def read(self, offset: int, limit: int) -> OutputChunk:
        """Read at most *limit* bytes from *offset*, or from the base if that comes later.

        Returns: a chunk whose `lost` says how many bytes after *offset* are gone; an empty one at *offset*
            if nothing has been written past it yet.
        """
        return self._with_log(lambda fd: self._read(fd, max(offset, 0), limit))

    def tail_lines(self, lines: int, max_bytes: int = TAIL_BYTES) -> str:
        """The last *lines* lines, as far as they are within the last *max_bytes* bytes."""

        def tail(fd: int) -> str:
            base, shift = self._load(fd)
            end = os.fstat(fd).st_size + shift
            chunk = self._read(fd, max(base, end - max_bytes), max_bytes)
            return last_lines(chunk.data, lines, cut=chunk.offset > shift)

        return self._with_log(tail)

    def declare_truncation(self, followed: int) -> None:
        """Record durably that the program truncated its log after *followed* absolute bytes.

        The file's first byte now has the absolute offset *followed*, and nothing before it is available.
        """
        with self._change:
            self._write_base(max(followed, self._known[0]), followed)

    def cap(self, keep: int) -> int | None:
        """Give up the head of the log if clearly more than *keep* bytes are kept. Offsets do not change.

        Works in steps of an eighth of *keep*, at least one block, so it may be called often.

        Returns: the new base, or None if there was nothing to do.

        Raises:
            OSError: `EOPNOTSUPP` where the file system cannot give up a file's head; nothing has changed then.
        """
        with self._change:
            return self._with_log(lambda fd: self._cap(fd, keep))

    def _cap(self, fd: int, keep: int) -> int | None:
        base, shift = self._load(fd)
        size = os.fstat(fd).st_size
        block = 65_536 if keep >= 1 << 20 else 4096
        if size + shift - base <= keep + max(block, keep // 8):
            return None
        position = (size - keep) // block * block
        if position + shift <= base:
            return None
        # The probe is made on the file that is about to become output.base: same file system, no data.
        self._write_base(position + shift, shift, prepare=lambda probe: _punch(probe, 4096, 4096))
        failpoints.reach("log.base-written")
        # A descriptor of a reader or of an unlinked log can be opened anew for writing through /proc.
        writable = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            # The program may have truncated its log meanwhile: what is at these positions now is new.
            if os.fstat(writable).st_size >= size:
                _punch(writable, 0, position)
        finally:
            os.close(writable)
        failpoints.reach("log.punched")
        return position + shift

    def _read(self, fd: int, offset: int, limit: int) -> OutputChunk:
        known = self._load(fd)
        while True:
            base, shift = known
            begin = max(offset, base)
            data = os.pread(fd, max(limit, 0), begin - shift)
            known = self._load(fd)
            # The head may have been given up between looking and reading: then *data* may be zeros.
            if known[1] == shift and (known[0] <= begin or not data):
                break
        return OutputChunk(begin, data, lost=begin - offset)

    def _load(self, fd: int) -> tuple[int, int]:
        try:
            base_fd = os.open(self._base_file, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return self._known
        try:
            found = _parse_base(os.read(base_fd, 64))
        finally:
            os.close(base_fd)
        if found is None:
            found = (_first_data(fd), 0)
        self._known = max(self._known, found)
        return self._known

    def _write_base(self, base: int, shift: int, prepare: Callable[[int], None] | None = None) -> None:
        temporary = f"{self._base_file}.new"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if prepare is not None:
                prepare(fd)
            os.write(fd, b"%d %d\n" % (base, shift))
            os.fsync(fd)
        except OSError:
            os.unlink(temporary)
            raise
        finally:
            os.close(fd)
        os.rename(temporary, self._base_file)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._known = max(self._known, (base, shift))

    def _with_log(self, use: Callable[[int], T]) -> T:
        if self._fd is not None:
            return use(self._fd)
        fd = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return use(fd)
        finally:
            os.close(fd)


def _parse_base(text: bytes) -> tuple[int, int] | None:
    first, space, second = text.partition(b" ")
    if not (space and second.endswith(b"\n") and first.isdigit() and second[:-1].isdigit()):
        return None
    base, shift = int(first), int(second)
    return (base, shift) if base >= shift else None


def _first_data(fd: int) -> int:
    """Position of the first byte that is not in a hole."""
    try:
        return os.lseek(fd, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole, or empty
            return os.fstat(fd).st_size
        raise


@functools.cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    libc = ctypes.CDLL(None, use_errno=True)
    # fallocate64 exists where the plain one takes 32-bit offsets.
    function = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    function.restype = ctypes.c_int
    call: Callable[[int, int, int, int], int] = function
    return call


def _punch(fd: int, position: int, length: int) -> None:
    """Free the blocks of this part of a file; it then reads as zeros and the size stays.

    Raises:
        OSError: `EOPNOTSUPP` where the file system or the machine cannot.
    """
    fallocate = _fallocate()
    if fallocate is None:
        raise OSError(errno.EOPNOTSUPP, "this machine has no fallocate(2)")
    while fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, position, length) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, f"fallocate: {os.strerror(code)}")
