"""The bus gives every subscriber every record once, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from kasmos.daemon.bus import Bus, Subscription
from kasmos.model.event import Record, WaveStarted

LIMIT = 60.0


def record(seq: int) -> Record:
    """A record with this number."""
    return Record(seq=seq, at=float(seq), mono=float(seq), event=WaveStarted(run_id="r", wave=seq))


class Journal:
    """A journal in memory: commits, then publishes as the real one does."""

    def __init__(self, count: int = 0, *, keep: int = 4, batch: int = 3) -> None:
        self.records = [record(seq) for seq in range(1, count + 1)]
        self.reads: list[int] = []
        self.bus = Bus(self.history, position=count, keep=keep, batch=batch)

    def history(self, after: int, limit: int) -> Sequence[Record]:
        self.reads.append(after)
        return [item for item in self.records if item.seq > after][:limit]

    def commit(self, count: int = 1) -> None:
        fresh = [record(len(self.records) + 1 + i) for i in range(count)]
        self.records.extend(fresh)
        self.bus.publish(fresh)


async def take(subscription: Subscription, count: int) -> list[int]:
    """The numbers of the next records, at least this many."""
    seen: list[int] = []
    with trio.fail_after(LIMIT):
        while len(seen) < count:
            seen += [item.seq for item in await subscription.receive()]
    return seen


async def test_history_comes_before_the_present() -> None:
    """A subscriber is given history from its cursor on, and then what happens, without a gap or a repeat."""
    journal = Journal(10)
    async with journal.bus.subscribe(4) as subscription:
        assert await take(subscription, 6) == [5, 6, 7, 8, 9, 10]
        journal.commit(2)
        assert await take(subscription, 2) == [11, 12]


async def test_live_records_are_not_read_from_the_journal() -> None:
    """A subscriber that keeps up costs no read of the journal."""
    journal = Journal(3)
    async with journal.bus.subscribe(3) as subscription:
        for _ in range(20):
            journal.commit()
            await take(subscription, 1)
    assert journal.reads == []


async def test_records_of_one_turn_are_one_batch() -> None:
    """What is published while a subscriber is not running reaches it as one batch, up to the limit."""
    journal = Journal(batch=100)
    async with journal.bus.subscribe(0) as subscription, trio.open_nursery() as nursery:
        got: list[tuple[Record, ...]] = []

        async def read() -> None:
            got.append(await subscription.receive())

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(4):
            journal.commit()
    assert [item.seq for item in got[0]] == [1, 2, 3, 4]


async def test_a_subscriber_that_falls_behind_loses_nothing() -> None:
    """A subscriber that is slower than the ring is long reads the rest from the journal."""
    journal = Journal(keep=4)
    async with journal.bus.subscribe(0) as subscription:
        journal.commit()
        assert await take(subscription, 1) == [1]
        for _ in range(50):
            journal.commit()
        assert await take(subscription, 50) == list(range(2, 52))
    assert journal.reads


async def test_memory_is_bounded_however_slow_the_subscribers_are() -> None:
    """The bus holds at most twice its ring, with any number of subscribers that do not read."""
    journal = Journal(keep=8)
    async with journal.bus.subscribe(0), journal.bus.subscribe(0):
        for _ in range(1000):
            journal.commit()
        assert len(journal.bus._ring) <= 16
        assert journal.bus.subscribers == 2
    assert journal.bus.subscribers == 0


async def test_a_record_that_is_committed_and_not_yet_published_is_given_out_once() -> None:
    """History may be ahead of the publication; the publication is then no repeat."""
    journal = Journal(2)
    early = record(3)
    journal.records.append(early)
    async with journal.bus.subscribe(0) as subscription:
        assert await take(subscription, 3) == [1, 2, 3]
        journal.bus.publish([early])
        journal.commit()
        assert await take(subscription, 1) == [4]


async def test_unreadable_history_is_passed_over() -> None:
    """Records that only a newer kasmos can read do not hold a subscriber up."""
    journal = Journal(3)
    journal.records.clear()
    async with journal.bus.subscribe(0) as subscription:
        assert await subscription.receive_ready() == ()
        assert subscription.cursor == 3


async def test_a_cancelled_read_skips_nothing() -> None:
    """A subscriber whose wait is cancelled goes on where it was."""
    journal = Journal()
    async with journal.bus.subscribe(0) as subscription:
        with trio.move_on_after(0):
            await subscription.receive()
        journal.commit(2)
        with trio.CancelScope() as scope:
            scope.cancel()
            await subscription.receive()
        assert await take(subscription, 2) == [1, 2]


async def test_closing_ends_subscriptions_after_the_last_record() -> None:
    """When the bus is closed, a subscriber is given what was published and then comes to its end."""
    journal = Journal()
    async with journal.bus.subscribe(0) as subscription:
        journal.commit(5)
        journal.bus.close()
        seen = [item.seq async for records in subscription for item in records]
    assert seen == [1, 2, 3, 4, 5]


async def test_closing_wakes_those_who_wait() -> None:
    """A subscriber that waits when the bus is closed comes to its end at once."""
    journal = Journal()
    async with journal.bus.subscribe(0) as subscription, trio.open_nursery() as nursery:
        nursery.start_soon(_expect_end, subscription)
        await trio.testing.wait_all_tasks_blocked()
        journal.bus.close()


async def _expect_end(subscription: Subscription) -> None:
    with trio.fail_after(LIMIT):
        assert await subscription.receive() == ()


async def test_publishing_twice_is_a_bug() -> None:
    """Records that are not newer than the newest are refused loudly."""
    journal = Journal(3)
    with pytest.raises(AssertionError, match="once and in order"):
        journal.bus.publish([record(3)])


@given(
    st.lists(st.integers(1, 9), max_size=12),
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.integers(1, 6),
    st.integers(1, 5),
)
async def test_every_subscriber_sees_everything_once(
    commits: list[int], starts: list[int], keep: int, batch: int
) -> None:
    """Whatever the ring's and the batches' sizes, readers at any pace see each record once and in order."""
    journal = Journal(12, keep=keep, batch=batch)
    total = 12 + sum(commits)

    async def read(after: int, pace: int) -> None:
        seen: list[int] = []
        async with journal.bus.subscribe(after) as subscription:
            while len(seen) < total - after:
                seen += [item.seq for item in await subscription.receive()]
                for _ in range(pace):
                    await trio.lowlevel.checkpoint()
        assert seen == list(range(after + 1, total + 1))

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            for pace, after in enumerate(starts):
                nursery.start_soon(read, after, pace)
            for count in commits:
                journal.commit(count)
                await trio.lowlevel.checkpoint()
