"""Threads: room for so many of them, without a turn of the event loop while there is room; and where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import trio

T = TypeVar("T")


class Lanes:
    """How many threads may be at work at a time.

    A `trio.CapacityLimiter` lets everybody else have a turn before it gives room. Whoever goes into a thread waits
    there anyway, and for a program that lives for a millisecond such a turn counts.
    """

    def __init__(self, total: int) -> None:
        self._limiter = trio.CapacityLimiter(total)

    @property
    def limiter(self) -> trio.CapacityLimiter:
        """For `trio.to_thread.run_sync`, which takes whatever has these two methods."""
        return cast(trio.CapacityLimiter, self)

    @property
    def idle(self) -> bool:
        """Whether nobody is at work."""
        return not self._limiter.borrowed_tokens

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Wait for room. Cancellation: no effect; where there is room, it is not noticed here."""
        try:
            self._limiter.acquire_on_behalf_of_nowait(borrower)
        except trio.WouldBlock:
            await self._limiter.acquire_on_behalf_of(borrower)

    def release_on_behalf_of(self, borrower: object) -> None:
        """Make room."""
        self._limiter.release_on_behalf_of(borrower)


async def in_thread_or_here(work: Callable[[], T], limiter: trio.CapacityLimiter | None = None) -> T:
    """Do something in a thread; in everybody's way where the kernel gives none.

    Cancellation: leaves the thread behind.
    """
    try:
        return await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)
    except RuntimeError as error:
        if not is_no_thread(error):
            raise
        return work()


def is_no_thread(error: RuntimeError) -> bool:
    """Whether Python says that the kernel gave no thread (a limit on processes); no class tells it."""
    return "can't start new thread" in str(error)
