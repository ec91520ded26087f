"""The way out: text to stdout and stderr, written by a thread of its own.

A terminal that is held with Ctrl-S, or a pipe whose reader does not read, blocks whoever writes.
That may be this thread, never the supervisor. A stdout that is closed silences it for good.
"""

from __future__ import annotations

import atexit
import errno
import os
import threading
from collections import deque
from typing import BinaryIO, TextIO

GATHER_TIME = 0.01
"""Seconds in which text gathers for a file or a pipe: a thread that is woken for each line takes turns with the
supervisor's own for the interpreter, and both are slower for it."""
PATIENCE = 2.0
"""Seconds that are waited at the end for what was not written yet."""


class Writer:
    """Writes text in the order in which it was given; never raises, never blocks but in `flush`.

    Args:
        stdout: where `out` writes.
        stderr: where `err` writes.
        gather: seconds in which text gathers before it is written.
    """

    def __init__(self, stdout: TextIO, stderr: TextIO, *, gather: float = 0.0) -> None:
        self._streams = (stdout, stderr)
        self._closed = [False, False]
        self._todo: deque[tuple[int, str]] = deque()
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None
        self._writing = False
        self._leaving = False
        self._gather = gather
        self._awaited = 0
        """How many wait for what was given to be written."""

    def out(self, text: str) -> None:
        """Write to stdout."""
        self._put(0, text)

    def err(self, text: str) -> None:
        """Write to stderr."""
        self._put(1, text)

    @property
    def busy(self) -> bool:
        """Whether something that was given is not written yet."""
        with self._turn:
            return self._writing or bool(self._todo)

    @property
    def silenced(self) -> bool:
        """Whether stdout has been closed under us."""
        return self._closed[0]

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything is written, at most *timeout* seconds."""
        with self._turn:
            self._awaited += 1
            self._turn.notify_all()
            self._turn.wait_for(lambda: not self._writing and not self._todo, timeout)
            self._awaited -= 1

    def close(self) -> None:
        """Write what is left, however long the reader takes, and end the thread. Idempotent."""
        self.flush()
        atexit.unregister(self._at_exit)
        with self._turn:
            self._leaving = True
            self._turn.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._leaving = False

    def _put(self, stream: int, text: str) -> None:
        if not text or self._closed[stream]:
            return
        with self._turn:
            self._todo.append((stream, text))
            if len(self._todo) == 1:
                self._turn.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="kasmos output", daemon=True)
            self._thread.start()
            atexit.register(self._at_exit)

    def _at_exit(self) -> None:
        self.flush(PATIENCE)

    def _work(self) -> None:
        while True:
            with self._turn:
                self._writing = False
                self._turn.notify_all()
                self._turn.wait_for(lambda: self._todo or self._leaving)
                if not self._todo:
                    return
                if self._gather:
                    self._turn.wait_for(lambda: self._awaited or self._leaving, self._gather)
                stream, text = self._todo.popleft()
                # What is waiting for the same stream goes in one piece.
                pieces = [text]
                while self._todo and self._todo[0][0] == stream:
                    pieces.append(self._todo.popleft()[1])
                self._writing = True
            self._write(stream, "".join(pieces))

    def _write(self, stream: int, text: str) -> None:
        if self._closed[stream]:
            return
        try:
            write_text(self._streams[stream], text)
        except (OSError, ValueError):
            self._closed[stream] = True
            silence(self._streams[stream])


def write_text(stream: TextIO, text: str) -> None:
    """Write and flush *text*; what the stream's encoding lacks is escaped.

    Raises:
        OSError, ValueError: the stream is closed or cannot take it.
    """
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(text)
        stream.flush()
        return
    write_bytes(buffer, text.encode(stream.encoding or "utf-8", "backslashreplace"))


def write_bytes(buffer: BinaryIO, data: bytes) -> None:
    """Write and flush all of *data*.

    Where Python does not buffer (`PYTHONUNBUFFERED`, as in many containers), a stream may take a part and say so: of
    a pipe when we are suspended and go on, of a disk that has room for no more.

    Raises:
        OSError, ValueError: the stream is closed or cannot take it.
    """
    rest = memoryview(data)
    while rest:
        written = buffer.write(rest)
        if written is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        rest = rest[written:]
    buffer.flush()


def silence(stream: TextIO) -> None:
    """Put nothing in the place of a stream that is closed, so that the interpreter's last flush is quiet too."""
    try:
        descriptor = stream.fileno()
        nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return
    try:
        os.dup2(nothing, descriptor, inheritable=descriptor <= 2)
    except OSError:
        return
    finally:
        os.close(nothing)
