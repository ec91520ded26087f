"""The bus: committed records, to everybody who listens, without a gap or a repeat.

A subscriber is nothing but a cursor. The newest records are held once, in a ring that all
subscribers share; whoever is behind the ring reads history from the journal until it has caught
up. So memory is bounded however many subscribers there are and however slow they are, nothing is
ever dropped, and the publisher never waits for anybody.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from operator import attrgetter
from types import TracebackType

import trio

from kasmos.model.event import Record

History = Callable[[int, int], Sequence[Record]]
"""`history(after, limit)`: committed records with numbers above *after*, oldest first, at most *limit*.

Empty only if nothing readable is left above *after*. Blocks on the disk; called in a thread.
"""

_seq = attrgetter("seq")


class Bus:
    """Fan-out of the journal's records.

    Args:
        history: reads the journal.
        position: number of the newest committed record; what is published later has higher numbers.
        keep: how many of the newest records are held in memory.
        batch: the most records a subscriber is given at a time.
    """

    def __init__(self, history: History, *, position: int, keep: int = 4096, batch: int = 512) -> None:
        self._history = history
        self._keep = keep
        self._batch = batch
        self._ring: list[Record] = []
        self._shared: tuple[tuple[int, int], tuple[Record, ...]] = ((-1, -1), ())
        """What was handed out last, and for which place: a crowd of readers stands at the same one."""
        # Every record with a number above the floor is in the ring.
        self._floor = position
        self._newest = position
        self._news = trio.Event()
        self._closed = False
        self._subscribers = 0

    @property
    def newest(self) -> int:
        """Number of the newest record that was published."""
        return self._newest

    @property
    def subscribers(self) -> int:
        """How many subscriptions are open."""
        return self._subscribers

    @property
    def news(self) -> trio.Event:
        """Set at the next publication, or when the bus is closed. Take it *before* looking at the world."""
        return self._news

    def publish(self, records: Sequence[Record]) -> None:
        """Hand over records that were committed, in order. Never blocks; in the Trio thread only."""
        if not records:
            return
        assert records[0].seq > self._newest, "records are published once and in order"
        self._ring.extend(records)
        self._newest = records[-1].seq
        # Trimmed in halves, so that a publication costs the same on average however long the ring is.
        if len(self._ring) > 2 * self._keep:
            cut = len(self._ring) - self._keep
            self._floor = self._ring[cut - 1].seq
            del self._ring[:cut]
        self._wake()

    def close(self) -> None:
        """End every subscription once it has been given all that was published. Idempotent."""
        self._closed = True
        self._wake()

    def subscribe(self, after: int) -> Subscription:
        """Listen to every record with a number above *after*: history first, then live.

        Usage::

            async with bus.subscribe(after) as batches:
                async for records in batches:
                    ...
        """
        return Subscription(self, after)

    def recent(self, after: int) -> Sequence[Record] | None:
        """Every published record with a number above *after*; None if some are not in memory any more."""
        if after < self._floor:
            return None
        return self._ring[self._position(after) :]

    def nudge(self) -> None:
        """Wake everybody who waits, although there is nothing new, so that they look what time it is."""
        self._wake()

    async def reaches(self, seq: int) -> bool:
        """Whether the journal has got as far as *seq*, published or not."""
        # Commits are published a moment after others can read them.
        return self._newest >= seq or bool(await trio.to_thread.run_sync(self._history, seq - 1, 1))

    async def _read(self, cursor: int) -> tuple[Sequence[Record], int]:
        """Records after *cursor* that are there already, and the cursor after them."""
        if cursor >= self._newest:
            return (), cursor
        if cursor >= self._floor:
            records: Sequence[Record] = self._slice(cursor)
            return records, records[-1].seq
        known = self._newest
        # A thread: the journal is on a disk, and the loop must not wait for it.
        records = await trio.to_thread.run_sync(self._history, cursor, self._batch)
        # Records that a newer kasmos wrote may be unreadable here; the cursor has to get past them.
        return records, records[-1].seq if records else max(cursor, known)

    def _slice(self, cursor: int) -> tuple[Record, ...]:
        """The records after a cursor that is in the ring and not at its end; one and the same for all who are there."""
        key = (cursor, self._newest)
        if self._shared[0] != key:
            start = self._position(cursor)
            self._shared = (key, tuple(self._ring[start : start + self._batch]))
        return self._shared[1]

    def _position(self, cursor: int) -> int:
        """Where in the ring the records after *cursor* begin."""
        # Most often numbers have no holes, and it is known without a search.
        guess = max(0, len(self._ring) - (self._newest - cursor))
        if guess < len(self._ring) and self._ring[guess].seq == cursor + 1:
            return guess
        return bisect_right(self._ring, cursor, key=_seq)

    def _wake(self) -> None:
        # One event for all: whatever is published within one turn of the loop is read as one batch.
        self._news.set()
        self._news = trio.Event()


class Subscription:
    """One listener's place in the stream of records."""

    def __init__(self, bus: Bus, after: int) -> None:
        self._bus = bus
        self._cursor = after
        self._open = True
        bus._subscribers += 1

    @property
    def cursor(self) -> int:
        """Number of the newest record that was handed out; where another subscription would resume."""
        return self._cursor

    @property
    def is_behind(self) -> bool:
        """Whether something was published that was not handed out yet."""
        return self._cursor < self._bus.newest

    def take_nowait(self) -> tuple[Record, ...]:
        """The next records, as far as they are in memory; an empty tuple also where they have to be read from disk."""
        if not self._bus._floor <= self._cursor < self._bus.newest:
            return ()
        records = self._bus._slice(self._cursor)
        self._cursor = records[-1].seq
        return records

    async def wait_news(self) -> bool:
        """Wait until there may be more to take, or for a nudge; False when the bus is closed.

        Cancellation: no effect.
        """
        news = self._bus.news
        if self.is_behind or self._bus._closed:
            await trio.lowlevel.checkpoint()
        else:
            await news.wait()
        return not self._bus._closed

    async def receive(self) -> tuple[Record, ...]:
        """Wait for the next records, oldest first.

        Returns: an empty tuple once the bus is closed and everything was handed out.

        Cancellation: nothing is skipped; may be called again.
        """
        while True:
            news, closed = self._bus.news, self._bus._closed
            records = await self.receive_ready()
            if records or closed:
                return records
            await news.wait()

    async def receive_ready(self) -> tuple[Record, ...]:
        """The next records that are there already; an empty tuple when all was handed out.

        Waits for the disk at most.

        Cancellation: nothing is skipped; may be called again.
        """
        await trio.lowlevel.checkpoint()
        while self._cursor < self._bus.newest:
            records, cursor = await self._bus._read(self._cursor)
            self._cursor = cursor
            if records:
                return tuple(records)
        return ()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> tuple[Record, ...]:
        if records := await self.receive():
            return records
        raise StopAsyncIteration

    def close(self) -> None:
        """Stop listening. Idempotent; leaving the scope does it too."""
        if self._open:
            self._open = False
            self._bus._subscribers -= 1

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
