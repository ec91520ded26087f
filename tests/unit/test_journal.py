"""The journal, used as its users use it, on a real file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from kasmos.exceptions import StoreError
from kasmos.model.clock import Clock
from kasmos.model.codec import CodecError, encode_event
from kasmos.model.event import (
    Event,
    Record,
    SessionDetached,
    SessionStarted,
    SessionStarting,
    SupervisorStarted,
    SupervisorStopped,
    TaskPutBack,
)
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import SessionKind
from kasmos.store import journal as journal_module
from kasmos.store.chain import link_of, seed_of
from kasmos.store.database import Database
from kasmos.store.filesystem import is_in_memory
from kasmos.store.journal import Journal, open_journal, read_records, read_world

LIMIT = 60.0


@attrs.define
class Desk:
    """A journal's surroundings: a clock that is set by hand, and everything that was announced and committed."""

    db: Path
    now: float = 1000.0
    said: list[str] = attrs.field(factory=list)
    committed: list[Record] = attrs.field(factory=list)
    spoke: trio.Event = attrs.field(factory=trio.Event)

    def announce(self, text: str) -> None:
        self.said.append(text)
        self.spoke.set()
        self.spoke = trio.Event()

    def on_commit(self, records: Sequence[Record]) -> None:
        self.committed += records

    def open(self, close_timeout: float = 10.0, note: Callable[[str], None] = lambda text: None):  # type: ignore[no-untyped-def]  # the context manager's type has no public name
        clock = Clock(wall=lambda: self.now + 5e8, mono=lambda: self.now)
        return open_journal(
            self.db,
            clock=clock,
            announce=self.announce,
            note=note,
            on_commit=self.on_commit,
            close_timeout=close_timeout,
        )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "state.db")


def stopped(number: int) -> Event:
    return SupervisorStopped(f"reason {number}")


def starting(session_id: str, run_id: str | None) -> Event:
    return SessionStarting(
        session_id=session_id,
        name=session_id,
        kind=SessionKind.AGENT,
        backend=ExecutionMode.HEADLESS,
        boot_id="b",
        run_id=run_id,
    )


async def test_append_returns_numbered_records_that_are_folded(desk: Desk) -> None:
    """`append` returns the records with their numbers and instants, and the world shows them already."""
    async with desk.open() as journal:
        first, second = await journal.append(SupervisorStarted(pid=7, boot_id="b", version="1"), stopped(1))
        assert (first.seq, second.seq) == (1, 2)
        assert (first.at, first.mono) == (5e8 + 1000, 1000)
        assert journal.world.seq == 2
        assert journal.world.boot_id == "b"
        assert desk.committed == [first, second]


async def test_append_of_nothing(desk: Desk) -> None:
    """An `append` of no events uses up no number and returns no records."""
    async with desk.open() as journal:
        assert await journal.append() == ()
        assert (await journal.append(stopped(1)))[0].seq == 1


async def test_reopened_journal_continues(desk: Desk) -> None:
    """A journal that is opened again tells the same world and goes on with the next number."""
    async with desk.open() as journal:
        await journal.append(starting("s1", None))
        before = journal.world
    async with desk.open() as journal:
        assert journal.world == before
        assert (await journal.append(stopped(1)))[0].seq == 2
    assert desk.said == []


async def test_concurrent_appends_keep_the_order_of_calls(desk: Desk) -> None:
    """Numbers follow the order of calls, the events of one call stay together, and each is committed once."""
    calls: list[tuple[Event, ...]] = []
    returned: list[Record] = []

    async def append_some(journal: Journal, who: int) -> None:
        for number in range(5):
            events = (TaskPutBack(f"r{who}", f"t{number}", "a"), TaskPutBack(f"r{who}", f"t{number}", "b"))
            calls.append(events)
            records = await journal.append(*events)
            assert journal.world.seq >= records[-1].seq
            returned.extend(records)

    async with desk.open() as journal, trio.open_nursery() as nursery:
        for who in range(32):
            nursery.start_soon(append_some, journal, who)
    assert [record.event for record in desk.committed] == [event for events in calls for event in events]
    assert [record.seq for record in desk.committed] == list(range(1, 321))
    assert read_records(desk.db) == desk.committed
    assert sorted(returned, key=lambda record: record.seq) == desk.committed


async def test_append_nowait_comes_before_what_is_appended_later(desk: Desk) -> None:
    """What was queued without waiting is durable no later than the next `append`, and numbered before it."""
    async with desk.open() as journal:
        journal.append_nowait(stopped(1))
        assert journal.world.seq == 0
        (record,) = await journal.append(stopped(2))
        assert record.seq == 2
        assert read_world(desk.db).seq == 2


async def test_flush_waits_for_everything_queued(desk: Desk) -> None:
    """After `flush` everything that was queued before it can be read from the file."""
    async with desk.open() as journal:
        for number in range(10):
            journal.append_nowait(stopped(number))
        await journal.flush()
        assert [record.event for record in read_records(desk.db)] == [stopped(number) for number in range(10)]


async def test_leaving_the_scope_writes_what_is_queued(desk: Desk) -> None:
    """What was queued without waiting is durable when the journal's scope has been left, even by cancellation."""
    with trio.CancelScope() as scope:
        async with desk.open() as journal:
            journal.append_nowait(stopped(1))
            scope.cancel()
            await trio.sleep_forever()
    assert read_world(desk.db).seq == 1


async def test_cancelled_append_is_recorded(desk: Desk) -> None:
    """Cancelling an `append` gives up the waiting, never the record."""
    async with desk.open() as journal:
        with trio.CancelScope() as scope:
            scope.cancel()
            await journal.append(stopped(1))
        assert scope.cancelled_caught
        assert (await journal.append(stopped(2)))[0].seq == 2
    assert [record.event for record in read_records(desk.db)] == [stopped(1), stopped(2)]


async def test_error_of_the_body_leaves_as_it_came(desk: Desk) -> None:
    """An exception of the body is not wrapped into a group by the journal, and loses nothing that was queued."""
    with pytest.raises(LookupError, match="mine"):  # noqa: PT012  # leaving the scope is what is tested
        async with desk.open() as journal:
            journal.append_nowait(stopped(1))
            raise LookupError("mine")
    assert read_world(desk.db).seq == 1


async def test_closed_journal_refuses(desk: Desk) -> None:
    """A journal that was closed takes nothing more."""
    async with desk.open() as journal:
        pass
    with pytest.raises(StoreError, match="closed"):
        journal.append_nowait(stopped(1))


async def test_event_that_cannot_be_encoded_leaves_no_hole(desk: Desk) -> None:
    """If one event of a call cannot be encoded, none of the call is recorded and no number is used up."""
    async with desk.open() as journal:
        with pytest.raises(CodecError):
            await journal.append(stopped(1), SupervisorStopped("\udc80"))
        assert (await journal.append(stopped(2)))[0].seq == 1


async def test_failing_commit_hook_ends_the_journal_loudly(desk: Desk) -> None:
    """A bug in what is called on a commit comes out of the scope; what was committed stays."""

    def fail(records: Sequence[Record]) -> None:
        raise ZeroDivisionError

    clock = Clock(wall=lambda: 0.0, mono=lambda: 0.0)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  # leaving the scope is what is tested
        async with open_journal(desk.db, clock=clock, announce=desk.announce, on_commit=fail) as journal:
            await journal.append(stopped(1))
            await trio.sleep_forever()
    assert read_world(desk.db).seq == 1


async def test_missing_journal_reads_as_empty(desk: Desk) -> None:
    """Where nothing ever ran there is nothing to read, and reading makes no file."""
    assert read_world(desk.db).seq == 0
    assert read_records(desk.db) == []
    assert not desk.db.exists()


async def test_reading_in_pages(desk: Desk) -> None:
    """`read_records` gives what follows a number, in order, at most as many as asked for."""
    async with desk.open() as journal:
        records = await journal.append(*(stopped(number) for number in range(10)))
        assert read_records(desk.db, after=3, limit=4) == list(records[3:7])
        assert read_records(desk.db, after=8) == list(records[8:])
        assert read_records(desk.db, after=10) == []


async def test_reading_one_run(desk: Desk) -> None:
    """The records of a run include those of its sessions, also across a restart of the supervisor."""
    async with desk.open() as journal:
        mine = await journal.append(starting("s1", "r1"))
        await journal.append(starting("s2", "r2"), starting("s3", None))
    async with desk.open() as journal:
        await journal.append(SessionDetached("s2"))
        mine += await journal.append(SessionDetached("s1"), TaskPutBack("r1", "t", "x"))
    assert read_records(desk.db, run_id="r1") == list(mine)
    assert read_records(desk.db, run_id="r1", after=1, limit=1) == [mine[1]]


async def test_journal_is_private(desk: Desk) -> None:
    """Nobody but its owner can read a journal."""
    async with desk.open() as journal:
        await journal.append(stopped(1))
        for file in desk.db.parent.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file


def forge(db: Path, kind: str, body: bytes) -> None:
    """Append a row as a newer kasmos would."""
    with sqlite3.connect(db) as connection:
        (journal_id,) = connection.execute("SELECT value FROM meta WHERE key = 'journal_id'").fetchone()
        newest = connection.execute("SELECT seq, link FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        seq, link = newest or (0, seed_of(journal_id))
        row = (seq + 1, 1.0, 1.0, kind, body.decode(), link_of(link, seq + 1, 1.0, 1.0, kind, body))
        connection.execute("INSERT INTO events (seq, at, mono, kind, body, link) VALUES (?, ?, ?, ?, ?, ?)", row)
    connection.close()


async def test_events_of_a_newer_kasmos_are_passed_over(desk: Desk) -> None:
    """Unknown kinds of events are counted and passed over, and their numbers are not used again."""
    async with desk.open() as journal:
        await journal.append(stopped(1))
    forge(desk.db, "session_teleported", b'{"to": "mars"}')
    forge(desk.db, "session_teleported", b'{"to": "moon"}')
    async with desk.open() as journal:
        assert desk.said == ["2 events of a newer kasmos were passed over in the journal: session_teleported"]
        assert (await journal.append(stopped(2)))[0].seq == 4
    foreign: list[str] = []
    assert [record.seq for record in read_records(desk.db, limit=2, on_foreign=foreign.append)] == [1, 4]
    assert foreign == ["session_teleported"] * 2
    assert read_world(desk.db).seq == 4


async def test_known_event_that_cannot_be_understood_is_refused(desk: Desk) -> None:
    """A supervisor does not act on half-understood facts: it refuses the journal and names the event; readers go on."""
    async with desk.open() as journal:
        await journal.append(stopped(1))
    forge(desk.db, "supervisor_stopped", b'{"reason": 17}')
    with pytest.raises(StoreError, match=r"newer kasmos.*event 2: supervisor_stopped"):
        async with desk.open():
            pass
    assert read_world(desk.db).seq == 1


async def test_journal_of_a_newer_version_is_refused(desk: Desk) -> None:
    """A journal of a newer format is refused, with both versions, and not changed."""
    async with desk.open() as journal:
        await journal.append(stopped(1))
    with sqlite3.connect(desk.db) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    before = desk.db.read_bytes()
    with pytest.raises(StoreError, match=r"version 9.*knows version 3"):
        async with desk.open():
            pass
    with pytest.raises(StoreError, match=r"version 9.*knows version 3"):
        read_world(desk.db)
    assert desk.db.read_bytes() == before


async def test_unwritable_journal_waits(desk: Desk) -> None:
    """While nothing can be written the journal says so once, appenders wait, and nothing is lost or doubled."""
    away = desk.db.with_name("away.db")
    async with desk.open() as journal:
        await journal.append(stopped(1))
        desk.db.rename(away)
        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.append, stopped(2))
                await desk.spoke.wait()
                assert not journal.healthy
                assert journal.world.seq == 1
                nursery.start_soon(journal.append, stopped(3))
                await trio.sleep(0.25)  # for the second and third attempt
                desk.now += 60
                away.rename(desk.db)
        assert journal.healthy
        assert "cannot be written" in desk.said[0]
        assert "was removed; kasmos goes on supervising and tries again" in desk.said[0]
        assert desk.said[1:] == ["the journal can be written again after 60.0 s; nothing was lost"]
    assert [record.event for record in read_records(desk.db)] == [stopped(1), stopped(2), stopped(3)]


async def test_unwritable_journal_does_not_close_silently(desk: Desk) -> None:
    """A journal that cannot be written until its scope is left says how many events are lost, in bounded time."""
    with trio.fail_after(LIMIT), pytest.raises(StoreError, match="2 events are lost"):  # noqa: PT012  # leaving raises
        async with desk.open(close_timeout=0.05) as journal:
            await journal.append(stopped(1))
            desk.db.unlink()
            journal.append_nowait(stopped(2), stopped(3))


async def test_a_disk_that_hangs_keeps_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal whose disk does not answer is left in bounded time, and says what may be lost; so is a probe of it."""
    if is_in_memory(desk.db.parent):
        pytest.skip("where the journal is on no disk, there is none to hang")
    go, noted = threading.Event(), list[str]()
    monkeypatch.setattr(journal_module, "CLOSE_TIMEOUT", 0.1)

    def hang(self: Database, rows: object, *, again: bool = False) -> None:
        assert go.wait(60)

    match = "2 events are lost, unless a disk that hangs takes some of them after all; .*: s1"
    try:
        with trio.fail_after(LIMIT), pytest.raises(StoreError, match=match):  # noqa: PT012  # leaving raises
            async with desk.open(close_timeout=0.1, note=noted.append) as journal:
                await journal.append(stopped(1))
                monkeypatch.setattr(Database, "append", hang)
                journal.append_nowait(stopped(2), SessionStarted("s1"))
                await journal.wait_stuck(0.1)
                assert journal.unwritten == (stopped(2), SessionStarted("s1"))
                with trio.move_on_after(0.1) as patience:
                    await journal.probe()
                assert patience.cancelled_caught
        assert noted == ["the journal is left open: its disk has not answered for 0.1 s"]
    finally:
        go.set()
        monkeypatch.undo()


async def test_being_stuck_is_not_being_busy(desk: Desk) -> None:
    """A journal that writes is not stuck, nor is one that has nothing to write."""
    async with desk.open() as journal, trio.open_nursery() as nursery:
        stuck = trio.Event()

        async def watch() -> None:
            await journal.wait_stuck(LIMIT)
            stuck.set()

        nursery.start_soon(watch)
        for number in range(1, 50):
            await journal.append(stopped(number))
        await trio.testing.wait_all_tasks_blocked()
        assert not stuck.is_set()
        nursery.cancel_scope.cancel()


async def test_encoding_is_readable_with_ordinary_tools(desk: Desk) -> None:
    """The journal is an ordinary table with one JSON object per event."""
    async with desk.open() as journal:
        await journal.append(starting("s1", "r1"))
    connection = sqlite3.connect(desk.db)
    rows = connection.execute("SELECT seq, kind, run_id, session_id, body FROM events").fetchall()
    connection.close()
    assert rows == [(1, "session_starting", "r1", "s1", encode_event(starting("s1", "r1")).decode())]
