"""Following logs: from what a program appends to its log to the buffers that readers look at.

One service for all sessions. Each log has a one-shot watch; after it fired, the log is read at once, and
watched again 20 ms later, or later still where many are written at once: a watch per write would slow the writer, and
a look has its price. A log nobody writes costs nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator

import trio

from kasmos.sessions import layout
from kasmos.sessions.inotify import Inotify, Mask
from kasmos.sessions.output import LogFile, OutputBuffer
from kasmos.sessions.protocol import OutputChunk
from kasmos.sessions.threads import in_thread

PROOF_BYTES = 64
"""Bytes at the end of what was read that are compared with the file before going on behind them."""
REARM_INTERVAL = 0.02
"""Seconds between a watch that fired and the next one, at least."""
CROWD = 10
"""Logs that are watched anew in one round; for more of them the next round waits longer."""
LONGEST_INTERVAL = 0.25
"""Seconds that a round waits at most."""
FRESH_ROUNDS = 3
"""Rounds in which a new log is looked at before it is watched."""


class FollowedLog:
    """One session's log and the newest part of it in memory.

    Used in the Trio thread, except `read`. Work that waits for the disk is done in `settle`, on a thread.

    Args:
        directory: the session's.
        fd: the log, opened to read, by its path or in another way when it has been deleted. Closed with this.
        buffer_bytes: how much of it is kept in memory.
        max_bytes: how much of it is kept on the disk; None for all.
        is_new: nobody has written to it yet, so that there is nothing to be found out.
    """

    def __init__(
        self, directory: str, fd: int, *, buffer_bytes: int, max_bytes: int | None, is_new: bool = False
    ) -> None:
        self._directory = directory
        self.path = f"{directory}/{layout.OUTPUT}"
        self.fd = fd
        self.log = LogFile(directory, fd=self.fd)
        self.buffer = OutputBuffer(buffer_bytes)
        self._capacity = buffer_bytes
        self.max_bytes = max_bytes
        self.losses: list[tuple[int, str]] = []
        """Losses that were not yet made known: absolute offset and reason."""
        self.grown = trio.Event()
        """Replaced by a new one each time output arrives, then set."""
        self._updated = False
        self._lock = threading.Lock()
        self._borrowers = 0
        """Who uses the descriptor outside the Trio thread: the last of them closes it."""
        self._settling: trio.Event | None = None
        """Set when the settling that is under way is over."""
        self._closed = False
        self._undeclared: int | None = None
        """Offset of a truncation that `output.base` does not tell of yet."""
        self._shift = 0
        if is_new:
            return
        try:
            size, self._shift = self._measure()
            self.buffer.skip_to(max(self.log.base, size + self._shift - buffer_bytes))
        except OSError:
            os.close(self.fd)
            raise

    def _measure(self) -> tuple[int, int]:
        """Size of the file, and what must be added to a position in it; only we change that from now on."""
        while True:
            size, end = os.fstat(self.fd).st_size, self.log.end
            # The program may have written in between.
            if os.fstat(self.fd).st_size == size:
                return size, end - size

    def pull(self) -> bool:
        """Read what has been appended since the last time; True when there was something. Never waits or fails."""
        if self._closed:
            return False
        size = os.fstat(self.fd).st_size
        followed = self.buffer.end
        if size + self._shift < followed or not self._continues(followed):
            # The program opened its log anew with O_TRUNC (`> /dev/stderr`): offsets go on from here.
            self._shift = self._undeclared = followed
            self.losses.append((followed, "the program truncated its output"))
        end = size + self._shift
        if end == followed:
            return False
        if end - followed > self._capacity:
            self.buffer.skip_to(end - self._capacity)
        with contextlib.suppress(OSError):  # a disk that fails to read now is asked again the next time
            while self.buffer.end < end:
                data = os.pread(self.fd, end - self.buffer.end, self.buffer.end - self._shift)
                if not data:
                    break
                self.buffer.append(data)
        self._updated = True
        event, self.grown = self.grown, trio.Event()
        event.set()
        return True

    def _continues(self, followed: int) -> bool:
        """Whether what was read last is still there: a truncated log may have grown past it again meanwhile."""
        start = max(self.buffer.start, followed - PROOF_BYTES)
        known = self.buffer.read(start, followed - start)
        if known is None or not known.data:
            return True
        with contextlib.suppress(OSError):
            found = os.pread(self.fd, len(known.data), start - self._shift)
            # The base is raised before a head is given up: if it was, zeros prove nothing.
            return found == known.data or (self.max_bytes is not None and self.log.base > start)
        return True

    @property
    def written(self) -> int:
        """Absolute offset of the end of the log as it is now, read or not."""
        return self.buffer.end if self._closed else os.fstat(self.fd).st_size + self._shift

    def take_updated(self) -> bool:
        """Whether output has arrived since the last call."""
        updated, self._updated = self._updated, False
        return updated

    def read(self, offset: int, limit: int) -> OutputChunk:
        """Read from memory or from the log. Safe from any thread."""
        chunk = self.buffer.read(offset, limit)
        if chunk is not None:
            return chunk
        if self._undeclared is not None:
            # What is in the file and what is said about it do not match at this moment.
            start = self.buffer.start
            held = self.buffer.read(start, limit)
            return OutputChunk(start, held.data if held is not None else b"", lost=start - offset)
        with self._borrowed() as log:
            return log.read(offset, limit)

    @property
    def needs_settling(self) -> bool:
        """Whether `settle` has something to do."""
        if self._closed or self._settling is not None:
            return False
        return self._undeclared is not None or self._is_over_cap()

    def _is_over_cap(self) -> bool:
        with contextlib.suppress(OSError):
            return self.max_bytes is not None and self.log.end - self.log.base > self.max_bytes
        return False

    async def settle(
        self, limiter: trio.CapacityLimiter, warn: Callable[[str], None], *, finally_: bool = False
    ) -> None:
        """Make truncations durable, give up the head of the log beyond the cap; write a deleted log anew *finally_*.

        What fails is warned of, and tried again the next time.

        Cancellation: waits for the disk.
        """
        while finally_ and self._settling is not None:
            # Whoever closes the log next must not take it away from under that one.
            await self._settling.wait()
        deleted = finally_ and not self._closed and os.fstat(self.fd).st_nlink == 0
        if not (self.needs_settling or deleted):
            return
        self._settling = over = trio.Event()
        declared = self._undeclared
        try:
            # In a thread: syncs, a hole, perhaps a copy of the whole log.
            await in_thread(self._settle, declared, deleted, limiter=limiter)
            if self._undeclared == declared:
                self._undeclared = None
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
                self.max_bytes = None
                warn("logs.max_bytes has no effect: this file system cannot punch holes")
            else:
                warn(f"a session's log could not be put in order: {error.strerror or error}")
        finally:
            self._settling = None
            over.set()

    def _settle(self, declared: int | None, deleted: bool) -> None:
        with self._borrowed() as log:
            if self._closed:
                return
            if declared is not None:
                log.declare_truncation(declared)
            if self.max_bytes is not None:
                log.cap(self.max_bytes)
            if deleted:
                self._restore()

    def _restore(self) -> None:
        """Write the log anew where somebody deleted it while we had it open; holes stay holes."""
        with contextlib.suppress(FileNotFoundError, FileExistsError), open(self.path, "xb") as file:
            size, position = os.fstat(self.fd).st_size, 0
            while position < size:
                try:
                    position = os.lseek(self.fd, position, os.SEEK_DATA)
                except OSError as error:
                    if error.errno == errno.ENXIO:  # nothing but a hole
                        break
                    raise
                data = os.pread(self.fd, 1 << 20, position)
                file.seek(position)
                file.write(data)
                position += len(data)
            file.truncate(size)

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[LogFile]:
        """The log for use in another thread; by its path once the descriptor has been closed."""
        with self._lock:
            closed = self._closed
            self._borrowers += not closed
        if closed:
            yield LogFile(self._directory)
            return
        try:
            yield self.log
        finally:
            with self._lock:
                self._borrowers -= 1
                if self._closed and not self._borrowers:
                    os.close(self.fd)

    def close(self) -> None:
        """Let go of the file, now or when nobody uses it any more; what is in memory stays readable."""
        with self._lock:
            if not self._closed and not self._borrowers:
                os.close(self.fd)
            self._closed = True


def interval_for(busy: int) -> float:
    """Seconds until the next round, when so many logs were written in the last one: their cost together is bounded."""
    return min(LONGEST_INTERVAL, REARM_INTERVAL * max(1.0, busy / CROWD))


class LogFollower:
    """The service that keeps every followed log's buffer up to date."""

    def __init__(self, inotify: Inotify, warn: Callable[[str], None]) -> None:
        self._inotify = inotify
        self._warn = warn
        self._limiter = trio.CapacityLimiter(2)
        self._keys: dict[FollowedLog, int] = {}
        self._dirty: set[FollowedLog] = set()
        self._fresh: dict[FollowedLog, int] = {}
        """New logs, and the rounds in which they are still only looked at."""
        self._wake = trio.Event()

    def add(self, log: FollowedLog) -> None:
        """Follow a log from now on.

        It is looked at in the first rounds, and watched only then: to end a watch costs more than the look, and most
        programs that end at all soon end within milliseconds.
        """
        self._keys[log] = -1
        self._fresh[log] = FRESH_ROUNDS
        self._dirty.add(log)
        self._wake.set()

    def remove(self, log: FollowedLog) -> None:
        """Stop following a log."""
        key = self._keys.pop(log, -1)
        if key >= 0:
            self._inotify.forget(key)
        self._dirty.discard(log)
        self._fresh.pop(log, None)

    async def run(self) -> None:
        """Serve until cancelled."""
        batch: set[FollowedLog] = set()
        async with trio.open_nursery() as nursery:
            while True:
                await self._wake.wait()
                await trio.sleep(interval_for(len(batch)))
                self._wake = trio.Event()
                batch, self._dirty = self._dirty, set()
                for log in batch:
                    if log not in self._keys:
                        continue
                    if self._is_fresh(log):
                        self._dirty.add(log)
                        self._wake.set()
                    else:
                        self._arm(log)
                    # Between the watch that fired and the new one there may have been writes.
                    log.pull()
                    if log.needs_settling:
                        nursery.start_soon(self._settle, log)

    async def _settle(self, log: FollowedLog) -> None:
        """Settle a log, and again for what was written meanwhile: where nothing follows, nobody else would."""
        settled = -1
        while log.needs_settling and log.written != settled:
            settled = log.written
            await log.settle(self._limiter, self._warn)

    def _is_fresh(self, log: FollowedLog) -> bool:
        rounds = self._fresh.pop(log, 0)
        if rounds:
            self._fresh[log] = rounds - 1
        return rounds > 0

    def _arm(self, log: FollowedLog) -> None:
        def fired() -> None:
            self._keys[log] = -1
            log.pull()
            self._dirty.add(log)
            self._wake.set()

        try:
            self._keys[log] = self._inotify.watch(f"/proc/self/fd/{log.fd}", Mask.MODIFY | Mask.ONESHOT, fired)
        except OSError as error:
            # Out of watches: look every so often rather than never.
            if error.errno in (errno.ENOSPC, errno.ENOMEM):
                self._warn("out of inotify watches (fs.inotify.max_user_watches): looking at logs every 20 ms")
            self._dirty.add(log)
            self._wake.set()
