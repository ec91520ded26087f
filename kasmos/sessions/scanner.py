"""One look at /proc at a time, shared by every session that needs one: ends come in batches.

It knows nothing of who belongs to whom; `tree` does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import attrs
import trio

from kasmos.model.value import define
from kasmos.sessions import process_table, processes
from kasmos.sessions.processes import ProcessEntry
from kasmos.sessions.reserve import RETRY_INTERVAL, Reserve
from kasmos.sessions.threads import in_thread

FEW = 50
"""Young processes that are read without a thread: about half a millisecond."""


PURSUITS = 10
"""Looks at a process table that changes faster than one can look, until the last one has to do."""


class Scanner:
    """One look at /proc shared by all who need one at the same time.

    A look that had begun before the request could have missed what the caller waits for: it gets the next one.
    """

    def __init__(self, nursery: trio.Nursery, reserve: Reserve, warn: Callable[[str], None]) -> None:
        self._nursery = nursery
        self._reserve = reserve
        self._warn = warn
        self._turn = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)
        self._table = process_table.ProcessTable()
        self._next: _Look | None = None
        self.settled: set[int] = set()
        """Kernel sessions opened by our own doormen: nothing in them can have been left by another session."""

    async def look(self, since: int) -> list[ProcessEntry]:
        """Every process started at *since* (clock ticks) or later, with its markers.

        Waits while there is nothing to look with (descriptors, memory): half a look would tell of processes as gone.
        """
        look = self._next
        if look is None:
            look = self._next = _Look(since=since)
            self._nursery.start_soon(self._run, look)
        look.since = min(look.since, since)
        await look.done.wait()
        if look.entries is None:
            raise look.error or RuntimeError("nobody looks any more: the backend has been closed")
        return look.entries

    async def _run(self, look: _Look) -> None:
        try:
            async with self._turn:
                # From here on newcomers have to wait for the next look.
                self._next = None
                look.entries = await self._scan(look.since)
        except OSError as error:
            look.error = error
        finally:
            look.done.set()

    async def _scan(self, since: int) -> list[ProcessEntry]:
        while True:
            try:
                for _ in range(PURSUITS):
                    entries, unsure = await self._look(since)
                    if self._table.complete:
                        break
                for pause in process_table.EXEC_PAUSES:
                    if not unsure:
                        break
                    await trio.sleep(pause)
                    unsure = process_table.again(unsure, entries)
                return entries + unsure
            except OSError as error:
                if not processes.is_exhaustion(error):
                    raise
                self._warn(f"the process table cannot be read ({error.strerror}): ends of sessions may be told later")
            found = self._look_with_reserve(since)
            if found is not None:
                return found
            await trio.sleep(RETRY_INTERVAL)

    def _look_with_reserve(self, since: int) -> list[ProcessEntry] | None:
        # Without a pause or a thread: whoever else waits for a descriptor would take them.
        try:
            with self._reserve.lent():
                entries, unsure = self._table.scan(settled=tuple(self.settled), since=since)
                return None if unsure else entries
        except OSError as error:
            if not processes.is_exhaustion(error):
                raise
            return None

    async def _look(self, since: int) -> tuple[list[ProcessEntry], list[ProcessEntry]]:
        look = partial(self._table.scan, settled=tuple(self.settled), since=since)
        if self._table.reads <= FEW:
            return look()
        # In a thread: /proc of a busy machine takes milliseconds.
        return await in_thread(look, limiter=self._limiter)


@define(eq=False)
class _Look:
    since: int
    done: trio.Event = attrs.field(factory=trio.Event)
    entries: list[ProcessEntry] | None = None
    error: OSError | None = None
