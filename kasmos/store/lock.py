"""The lock of a state root: one supervisor at a time, by `flock` and nothing else.

The kernel gives it up when its holder dies, however it dies, so there is never anything to unlock by hand.
What is written in the file is for people and for messages; nothing is decided by it.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from kasmos.exceptions import StateLockedError, StoreError

_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_THIS_LIFE = uuid.uuid4().hex


def boot_id() -> str:
    """What tells this boot of the machine from every other.

    Where the kernel has none, every life of kasmos counts as a boot: there, sessions do not outlive it.
    """
    try:
        return _BOOT_ID.read_text().strip()
    except FileNotFoundError:
        return _THIS_LIFE


class StateLock:
    """A lock that is held. Given by `acquire_lock` and `acquire_lock_nowait`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def still_ours(self) -> bool:
        """Whether the lock file at its path is still the one that is locked.

        If it was removed or replaced, another supervisor can take the state root: begin nothing new.
        """
        return _is_at(self.path, self._descriptor)


@contextmanager
def acquire_lock_nowait(path: Path) -> Iterator[StateLock]:
    """Hold the lock at *path* for the scope.

    Raises:
        StateLockedError: somebody else holds it; names the process.
        StoreError: the file cannot be opened.
    """
    descriptor = _try(path)
    if descriptor is None:
        raise StateLockedError(_who_holds(path))
    with _held(path, descriptor) as lock:
        yield lock


@asynccontextmanager
async def acquire_lock(path: Path, wait: float) -> AsyncIterator[StateLock]:
    """Hold the lock at *path* for the scope, after waiting for it up to *wait* seconds.

    A child of a killed supervisor that is just being started holds the lock until its `exec`, some
    milliseconds. A blocking `flock` cannot be cancelled, so this asks again and again, for a bounded time.

    Raises:
        StateLockedError: somebody else holds it; names the process.
        StoreError: the file cannot be opened.

    Cancellation: the lock is not held.
    """
    # Verbs that only ask for the lock start in half the time without Trio.
    import trio

    give_up = trio.current_time() + wait
    pause = _FIRST_PAUSE
    while (descriptor := _try(path)) is None:
        left = give_up - trio.current_time()
        if left <= 0:
            raise StateLockedError(_who_holds(path))
        await trio.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST_PAUSE)
    with _held(path, descriptor) as lock:
        yield lock


def read_holder(path: Path) -> int | None:
    """Pid of the process that says it holds the lock at *path*, if that process lives; None if unknown."""
    try:
        pid, started, boot = path.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if boot == boot_id() and started == _started(pid) != "" else None


@contextmanager
def _held(path: Path, descriptor: int) -> Iterator[StateLock]:
    try:
        yield StateLock(path, descriptor)
    finally:
        # Nobody is named while nobody holds it: closing comes last, so that no later holder's name is wiped.
        try:
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)


def _try(path: Path) -> int | None:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(f"the lock {path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(path, descriptor):
                # Between open and flock somebody removed it: this lock guards nothing.
                os.close(descriptor)
                continue
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {_started('self')} {boot_id()}\n".encode(), 0)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            raise StoreError(f"the lock {path} cannot be taken: {error.strerror}") from error
        return descriptor


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _started(pid: str) -> str:
    """Start time of a process in clock ticks since boot: with its pid, it names one process. Empty if unknown."""
    try:
        text = Path("/proc", pid, "stat").read_text(errors="replace")
    except OSError:
        return ""
    return text.rpartition(") ")[2].split(" ")[19]


def _who_holds(path: Path) -> str:
    holder = read_holder(path)
    if holder is None:
        return (
            f"the state root {path.parent} is in use by another process (for a moment, if a supervisor has just died): "
            "try again, or look for it with `fuser` on the lock"
        )
    return f"the state root {path.parent} belongs to another supervisor (pid {holder}): stop it, or use that one"
