"""Following logs: from what a program appends to its log to the buffers that readers look at.

One service for all sessions. Each log has a one-shot watch; after it fired, the log is read at once, and
watched again 20 ms later: a watch per write would slow the writer. A log nobody writes costs nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

import trio

from kasmos.sessions import layout
from kasmos.sessions.inotify import Inotify, Mask
from kasmos.sessions.output import LogFile, OutputBuffer

REARM_INTERVAL = 0.02
"""Seconds between a watch that fired and the next one."""


class FollowedLog:
    """One session's log and the newest part of it in memory."""

    def __init__(self, directory: Path, *, buffer_bytes: int, max_bytes: int | None) -> None:
        self.path = directory / layout.OUTPUT
        self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self.log = LogFile(directory, fd=self.fd)
        self.buffer = OutputBuffer(buffer_bytes)
        self._capacity = buffer_bytes
        self.max_bytes = max_bytes
        self.losses: list[tuple[int, str]] = []
        """Declared losses that were not yet made durable: absolute offset and reason."""
        self.grown = trio.Event()
        """Replaced by a new one each time output arrives, then set."""
        self._capping = False
        self._updated = False
        self._closed = False
        # What must be added to a position in the file; only we change it while we follow the log.
        size = os.fstat(self.fd).st_size
        self._shift = self.log.end - size if size else 0
        if size:
            self.buffer.skip_to(max(self.log.base, self.log.end - buffer_bytes))

    def pull(self) -> bool:
        """Read what has been appended since the last time; True when there was something. Never waits."""
        if self._closed:
            return False
        size = os.fstat(self.fd).st_size
        followed = self.buffer.end
        if size + self._shift < followed:
            # The program opened its log anew with O_TRUNC (`> /dev/stderr`): offsets go on from here.
            self.log.declare_truncation(followed)
            self._shift = followed
            self.losses.append((followed, "the program truncated its output"))
        end = size + self._shift
        if end == followed:
            return False
        if end - followed > self._capacity:
            self.buffer.skip_to(end - self._capacity)
        while self.buffer.end < end:
            data = os.pread(self.fd, end - self.buffer.end, self.buffer.end - self._shift)
            if not data:
                break
            self.buffer.append(data)
        self._updated = True
        event, self.grown = self.grown, trio.Event()
        event.set()
        return True

    def take_updated(self) -> bool:
        """Whether output has arrived since the last call."""
        updated, self._updated = self._updated, False
        return updated

    @property
    def over_cap(self) -> bool:
        """Whether the head of the log is to be given up."""
        return self.max_bytes is not None and not self._capping and self.log.end - self.log.base > self.max_bytes

    async def cap(self, limiter: trio.CapacityLimiter, warn: Callable[[str], None]) -> None:
        """Give up the head of the log beyond the cap."""
        if self.max_bytes is None or self._capping:
            return
        self._capping = True
        try:
            # In a thread: two syncs and a hole.
            await trio.to_thread.run_sync(self.log.cap, self.max_bytes, limiter=limiter)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
                self.max_bytes = None
                warn("logs.max_bytes has no effect: this file system cannot punch holes")
        finally:
            self._capping = False

    def restore(self) -> None:
        """Write the log anew where somebody deleted it while we had it open. Blocks on the disk."""
        with contextlib.suppress(OSError):
            if os.fstat(self.fd).st_nlink or self.path.exists():
                return
            with open(self.path, "xb") as file:
                position = 0
                while data := os.pread(self.fd, 1 << 20, position):
                    file.write(data)
                    position += len(data)

    def close(self) -> None:
        """Let go of the file; what is in memory stays readable."""
        if not self._closed:
            self._closed = True
            self.log = LogFile(self.path.parent)
            os.close(self.fd)


class LogFollower:
    """The service that keeps every followed log's buffer up to date."""

    def __init__(self, inotify: Inotify, warn: Callable[[str], None]) -> None:
        self._inotify = inotify
        self._warn = warn
        self._limiter = trio.CapacityLimiter(2)
        self._keys: dict[FollowedLog, int] = {}
        self._dirty: set[FollowedLog] = set()
        self._wake = trio.Event()

    def add(self, log: FollowedLog) -> None:
        """Follow a log from now on.

        It is watched from the next round on: the log of a program that ends within milliseconds never is.
        """
        self._keys[log] = -1
        self._dirty.add(log)
        self._wake.set()

    def remove(self, log: FollowedLog) -> None:
        """Stop following a log."""
        key = self._keys.pop(log, -1)
        if key >= 0:
            self._inotify.forget(key)
        self._dirty.discard(log)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._wake.wait()
                await trio.sleep(REARM_INTERVAL)
                self._wake = trio.Event()
                batch, self._dirty = self._dirty, set()
                for log in batch:
                    if log not in self._keys:
                        continue
                    self._arm(log)
                    # Between the watch that fired and the new one there may have been writes.
                    log.pull()
                    if log.over_cap:
                        nursery.start_soon(log.cap, self._limiter, self._warn)

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
