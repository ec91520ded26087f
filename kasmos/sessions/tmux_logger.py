"""The logger of one terminal: what tmux gives it goes to the log.

A program of its own: `python -I -S tmux_logger.py SESSION_ID`.

tmux keeps in its own memory, without a bound, what a logger does not take, and all sessions share that memory. So
there are two processes here:

* The **reader** always takes. A thread of it writes, so a disk that hangs holds up the thread and not the reader. What
  waits to be written is bounded; what comes beyond that is dropped, counted, and told in the record `lost`.
* Its parent, the **guardian**, continues a reader that was stopped, and puts another in the place of one that was
  killed. It is in another process group, and not needed for the reader to go on.

It imports next to nothing, and what is built in rather than what is built on it, because one is started with each
session in tmux. It begins in the session's directory,
with standard input from tmux and signals ignored, and belongs to the tmux server: it outlives the supervisor.

The last thing on the terminal is a mark, which is not logged: whoever writes it (`tmux_launch`) keeps the terminal open
until the reader has met it.
"""

from __future__ import annotations

import _thread
import os
import select
import sys
from _queue import SimpleQueue

WAITING_LIMIT = 64 * 1024 * 1024
"""Bytes that may wait to be written: some seconds of a terminal that is written to without a pause."""
PIECE = 65_536
WRITE_LIMIT = 1024 * 1024
"""Bytes that are written at once, where more wait."""
PACE = 20
"""Milliseconds after a small piece in which no other is looked for: one write for many lines."""
PAUSE = 1000
"""Milliseconds until another reader is tried, where one could not be had or has failed."""
HEARD = 3
"""Descriptor that is closed when the mark has been met: whoever waits for that waits for the end of this file."""
RECORD = "lost"
"""A line: `lost` alone, or with how many bytes, and the size of the log when the first of them was dropped."""


class Writer:
    """Writes to the log what it is given, in its order; runs in a thread of its own."""

    def __init__(self, log: int, *, counts: bool) -> None:
        self._log = log
        self._counts = counts
        """Whether the number is known of what was lost; not after a reader that was killed."""
        self._given: SimpleQueue[bytes | int | None] = SimpleQueue()
        """Pieces; a number stands for so many bytes that were dropped; None is the end."""
        self._lost = self._at = 0
        self.taken = self.done = 0
        """Bytes it was given, and those it has dealt with: one number for each thread."""
        self._over = _thread.allocate_lock()
        self._over.acquire()

    def give(self, piece: bytes) -> None:
        """Take a piece. Never blocks."""
        self.taken += len(piece)
        self._given.put(piece)

    def tell_dropped(self, count: int) -> None:
        """So many bytes are missing from here. Never blocks."""
        self._given.put(count)

    def finish(self) -> None:
        """Wait until all is written, for as long as the disk takes."""
        self._given.put(None)
        self._over.acquire()

    def run(self) -> None:
        """Write until the end."""
        last: bytes | int | None = b""
        while last is not None:
            last = self._given.get()
            pieces: list[bytes] = []
            size = 0
            while isinstance(last, bytes):
                pieces.append(last)
                size += len(last)
                if size >= WRITE_LIMIT or self._given.empty():
                    break
                last = self._given.get()
            self._write(b"".join(pieces))
            self.done += size
            if isinstance(last, int):
                self._tell_lost(last)
        self._over.release()

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._log, data) :]
            except OSError as error:
                # As with a full disk: what comes later may find a place again.
                say(f"output was lost: the log could not be written: {error}")
                self._tell_lost(len(data))
                return

    def _tell_lost(self, count: int) -> None:
        if not self._lost:
            self._at = os.fstat(self._log).st_size
        self._lost += count
        tell_lost(f"{self._lost} {self._at}" if self._counts else "")


def tell_lost(what: str) -> None:
    """Record that output was lost; in place, for a disk may be full."""
    try:
        fd = os.open(RECORD, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, f"lost {what}".strip().encode() + b"\n")
        finally:
            os.close(fd)
    except OSError as error:
        say(f"output was lost, and that cannot be recorded: {error}")


def say(text: str) -> None:
    """A line for `shim.log`; the disk may be full."""
    try:  # noqa: SIM105  # contextlib would be one more import
        os.write(2, f"kasmos: {text}\n".encode())
    except OSError:
        pass


class Ear:
    """Finds the mark that ends what session *name* writes, wherever it is cut into pieces.

    CAN ends any sequence that the program has not finished; what follows is a privacy message, which terminals ignore
    (PM of ECMA-48).
    """

    def __init__(self, name: str, *, tells: bool) -> None:
        self._tells = tells
        """Whether somebody waits to be told that the mark was met."""
        self._mark = f"\x18\x1b^kasmos {name}\x1b\\".encode()
        self.held = b""
        """What may be the beginning of a mark."""

    def hear(self, piece: bytes) -> bytes:
        """What is to be logged of what was held and this piece."""
        piece = self.held + piece
        if self._mark in piece:
            piece = piece.replace(self._mark, b"")
            if self._tells:
                self._tells = False
                let_go()
        at = piece.rfind(self._mark[:1], -len(self._mark))
        begins = at >= 0 and self._mark.startswith(piece[at:])
        self.held = piece[at:] if begins else b""
        return piece[:at] if begins else piece


def let_go() -> None:
    """Tell whoever waits for the mark, as far as this process is concerned."""
    try:  # noqa: SIM105  # contextlib would be one more import
        os.close(HEARD)
    except OSError:
        # Started by a supervisor that runs since before there was a mark.
        pass


def read_all(writer: Writer, ear: Ear) -> None:
    """Take what there is until the end, and drop what would be too much."""
    hung_up = select.poll()
    hung_up.register(0, 0)
    dropped = 0
    while piece := os.read(0, PIECE):
        piece = ear.hear(piece)
        if writer.taken - writer.done + len(piece) > WAITING_LIMIT:
            dropped += len(piece)
            continue
        if dropped:
            writer.tell_dropped(dropped)
            dropped = 0
        writer.give(piece)
        if len(piece) < PIECE // 4:
            hung_up.poll(PACE)
    if dropped:
        writer.tell_dropped(dropped)
    writer.give(ear.held)


def read_and_write(log: int, *, first: bool) -> None:
    """Be the reader, the first or one in the place of another."""
    writer = Writer(log, counts=first)
    _thread.start_new_thread(writer.run, ())
    read_all(writer, Ear("".join(sys.argv[1:]), tells=first))
    writer.finish()


def guard(log: int) -> None:
    """Be the guardian of readers, until one of them has come to the end."""
    first, waits = True, False
    while True:
        try:
            reader = os.fork()
        except OSError as error:
            # There are as many processes as may be: some will end.
            if not waits:
                say(f"the logger waits until there may be one more process: {error}")
            waits = True
            select.poll().poll(PAUSE)
            continue
        waits = False
        if not reader:
            os.setpgid(0, 0)
            try:
                read_and_write(log, first=first)
                os._exit(0)
            except Exception as error:
                say(f"the logger failed: {error!r}")
            finally:
                os._exit(1)
        if first:
            # It is the first reader's alone: a part of the mark may be lost with that one, so nobody is to wait on.
            let_go()
        status = wait_for(reader)
        if status == 0:
            return
        first = False
        tell_lost("")
        if not os.WIFSIGNALED(status):
            # It failed, and the next one may fail as it did.
            select.poll().poll(PAUSE)


def wait_for(reader: int) -> int:
    """Wait for the reader's end, and continue it whenever it is stopped; its wait status."""
    while True:
        _, status = os.waitpid(reader, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return status
        import signal

        os.kill(reader, signal.SIGCONT)


def main() -> None:
    """Log what comes on standard input to `output.log` in the working directory."""
    log = os.open("output.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    # Where a log was deleted, this is another way to it.
    os.dup2(log, 1)
    os.close(log)
    guard(1)


if __name__ == "__main__":
    main()
