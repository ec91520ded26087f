"""Work in threads, on a machine that may have no thread left to give."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, TypeVarTuple

import trio

from kasmos.lanes import is_no_thread

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(fn: Callable[[*Ts], T], *args: *Ts, limiter: trio.CapacityLimiter | None = None) -> T:
    """Run a function in a thread, as `trio.to_thread.run_sync` does.

    Raises:
        OSError: `EAGAIN` where the kernel gives no thread (a limit on processes), so that it is handled as every other
            exhaustion is: wait, and try again.

    Cancellation: waits for the function.
    """
    with no_thread_is_exhaustion():
        return await trio.to_thread.run_sync(fn, *args, limiter=limiter)


@contextmanager
def no_thread_is_exhaustion() -> Iterator[None]:
    """Make an `OSError` (`EAGAIN`) of the `RuntimeError` by which Python tells that there is no thread to be had."""
    try:
        yield
    except RuntimeError as error:
        if not is_no_thread(error):
            raise
        raise OSError(errno.EAGAIN, "no thread to be had: a limit on processes (RLIMIT_NPROC, pids.max)") from error
