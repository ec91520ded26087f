"""Room for so many threads: a limiter that costs no turn of the event loop while there is room."""

from __future__ import annotations

from typing import cast

import trio


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
