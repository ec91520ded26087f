"""Room for new sessions: where the disk had none, whoever is to begin one waits until there is some.

That a disk has room again is told by nobody, so it is tried: by one Trio task for all who wait, only while somebody has
found that there is none, and ever more rarely.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

import trio

FIRST_PAUSE = 0.5
"""Seconds after which it is tried for the first time."""
LONGEST_PAUSE = 30.0


class Room:
    """Whether there is room for new sessions; made by `open_room`. Belongs to the Trio thread."""

    def __init__(self) -> None:
        self.shortage = ""
        """Why there is none, in words; empty while there is."""
        self._found = trio.Event()
        self._short = trio.Event()

    def found_short(self, reason: str) -> None:
        """A session could not be begun for want of room. Never blocks."""
        if not self.shortage:
            self._found = trio.Event()
        self.shortage = reason
        self._short.set()

    async def wait(self) -> None:
        """Wait until there is room, as far as is known."""
        while self.shortage:
            await self._found.wait()

    async def watch(self, probe: Callable[[], Awaitable[None]], report: Callable[[str], None]) -> NoReturn:
        """Try whether there is room again, whenever there was none, until cancelled.

        Args:
            probe: takes some room and gives it back; raises `OSError` where there is none.
            report: is told in a sentence when it begins, and when it is over.
        """
        pause, over_at = FIRST_PAUSE, -math.inf
        while True:
            await self._short.wait()
            since = trio.current_time()
            if since - over_at > pause:
                pause = FIRST_PAUSE
            # Else there was some, and not enough: that is not tried as soon again.
            report(f"no session can be begun: {self.shortage}; kasmos goes on supervising and waits for room")
            while self.shortage:
                await trio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                try:
                    await probe()
                except OSError as error:
                    self.shortage = error.strerror or str(error)
                else:
                    self._over()
            over_at = trio.current_time()
            report(f"sessions can be begun again after {over_at - since:.1f} s")

    def _over(self) -> None:
        self.shortage = ""
        self._short = trio.Event()
        self._found.set()


@asynccontextmanager
async def open_room(
    probe: Callable[[], Awaitable[None]], *, report: Callable[[str], None]
) -> AsyncGenerator[Room, None]:
    """Have room looked for beside the block, whenever there is none.

    Args:
        probe: see `Room.watch`.
        report: see `Room.watch`.
    """
    room = Room()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.watch, probe, report)
        yield room
        nursery.cancel_scope.cancel()
