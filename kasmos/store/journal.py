"""The journal: every fact, durable before anybody acts on it, and the world that the facts fold to.

One Trio task writes. It takes everything that waits, crosses into a thread once, and commits one
transaction; so many appenders at once cost little more than one. Where the file is in memory there is
no disk to wait for, and the thread would cost more than the commit: then there is none. The world is
advanced in the Trio thread, in the order of commits, and never shows what is not durable.

A disk that takes nothing stops nobody's agents: the writer keeps what it has and tries again, and
appenders wait, so that nothing new begins. Only damage to the file itself ends the journal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from kasmos.exceptions import StoreError
from kasmos.lanes import Lanes, in_thread_or_here, is_no_thread
from kasmos.model.clock import Clock
from kasmos.model.codec import encode_event, event_kind
from kasmos.model.event import Event, Record, SessionStarting
from kasmos.model.value import define
from kasmos.model.view import World
from kasmos.store.chain import Row, link_of
from kasmos.store.database import UnwritableError
from kasmos.store.filesystem import is_in_memory
from kasmos.store.fold import apply, forget, restore
from kasmos.store.keeping import Keeper
from kasmos.store.pruning import Forgotten, decide_carried
from kasmos.store.reader import read_records, read_world
from kasmos.store.salvage import Opened, open_or_salvage
from kasmos.store.unwritten import what_becomes_of

__all__ = ["Journal", "open_journal", "read_records", "read_world"]

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 2.0
CLOSE_TIMEOUT = 5.0
"""Seconds that a disk which hangs is waited for when all is written, or given up."""
COMPANY_WAIT = 0.005
"""Seconds that what nobody waits for may wait for company: most often it is committed with what comes next."""


@define(eq=False)
class _Job:
    """What one call wants written, together and in order."""

    records: tuple[Record, ...]
    rows: list[Row]
    over: trio.Event | None
    """Set when it is durable, or never will be."""
    durable: bool = False


class Journal:
    """An open journal. Made by `open_journal`; belongs to one Trio thread."""

    def __init__(
        self,
        opened: Opened,
        keeper: Keeper,
        clock: Clock,
        on_commit: Callable[[Sequence[Record]], None],
        announce: Callable[[str], None],
        *,
        in_memory: bool = False,
    ) -> None:
        self.world: World = opened.world
        """The fold of everything that is durable. Read it; only the journal advances it."""
        self.healthy = True
        """False while nothing can be written."""
        self.measure: Callable[[int, float], None] = _measure_nothing
        """Told of each transaction: how many events, and the seconds from its beginning until it was durable."""
        self._database = opened.database
        self._keeper = keeper
        self._clock = clock
        self._on_commit = on_commit
        self._announce = announce
        self._in_memory = in_memory
        self._seq = opened.last_seq
        self._link = opened.folded.footing.link
        self._run_of = {session.id: session.run_id for session in opened.world.sessions.values()}
        self._waiting: list[_Job] = []
        self._writing: list[_Job] = []
        self._work = trio.lowlevel.ParkingLot()
        self._lane = Lanes(1)
        self._thread = self._lane.limiter
        self._closing = False
        self._over = False
        self._left_behind = False
        """Whether a write was given up that the disk had at work."""
        # The journal outlives the cancellation of what writes to it; `_finish` gives this shield its deadline.
        self._scope = trio.CancelScope(shield=True)

    async def append(self, *events: Event) -> tuple[Record, ...]:
        """Record *events*, all or none, next to each other; return when they are durable and folded.

        Raises:
            StoreError: the journal is closed, or ended before they were durable.
            CodecError: one of them cannot be encoded; none was recorded.

        Cancellation: they are recorded nevertheless: only the waiting is given up.
        """
        job = self._enqueue(events, trio.Event())
        await self._wait(job)
        return job.records

    def append_nowait(self, *events: Event) -> None:
        """Record *events*, all or none, next to each other, after everything that was appended before.

        They are durable within milliseconds, no later than whatever is appended after them, and at the latest when
        the journal is closed.

        Raises:
            StoreError: the journal is closed.
            CodecError: one of them cannot be encoded; none was recorded.
        """
        self._enqueue(events, None)

    async def prune(self, decide: Callable[[World], Forgotten]) -> int:
        """Forget what is over; how many events that were. Their numbers are never given out again.

        Args:
            decide: given the world when nothing is on its way that could contradict it. Must not block.

        Raises:
            StoreError: it cannot be done at present, and nothing has changed; or the journal is closed.

        Cancellation: before it is decided, nothing is done; after that, no effect.
        """
        async with self._keeper.steady:
            return await self._prune(decide)

    async def _prune(self, decide: Callable[[World], Forgotten]) -> int:
        while self._waiting or self._writing:
            await self.flush()
        if self._over:
            raise StoreError("the journal is closed")
        forgotten = decide(self.world)
        carried = decide_carried(forgotten, self.world)
        # At once, so that nobody takes up what is being forgotten.
        gone = forget(self.world, forgotten.run_ids, forgotten.session_ids)
        try:
            with trio.CancelScope(shield=True):
                rows = await trio.to_thread.run_sync(self._database.prune, forgotten, carried, limiter=self._thread)
        except UnwritableError as error:
            restore(self.world, gone)
            raise StoreError(f"the journal cannot be pruned: {error}") from error
        except BaseException:
            restore(self.world, gone)
            raise
        for session_id in gone.sessions:
            self._run_of.pop(session_id, None)
        self._keeper.pruned(rows)
        return rows

    async def flush(self) -> None:
        """Return when everything that has been appended so far is durable and folded.

        Raises:
            StoreError: the journal is closed, or ended before that.

        Cancellation: only the waiting is given up.
        """
        await self._wait(self._enqueue((), trio.Event()))

    async def wait_stuck(self, seconds: float) -> None:
        """Wait until something has waited for so many seconds to be written, and still does.

        Raises:
            StoreError: the journal is closed.

        Cancellation: no effect.
        """
        while True:
            while not (self._waiting or self._writing):
                await self._work.park()
            with trio.move_on_after(seconds) as patience:
                await self.flush()
            if patience.cancelled_caught:
                return

    @property
    def unwritten(self) -> tuple[Event, ...]:
        """What has been appended and is not durable yet, in order."""
        jobs = (job for job in (*self._writing, *self._waiting) if not job.durable)
        return tuple(record.event for job in jobs for record in job.records)

    async def probe(self) -> None:
        """Write something that is no event, to know that the disk takes it.

        Raises:
            StoreError: it does not, with the reason; or the journal is closed.

        Cancellation: it may still be written, behind our backs.
        """
        if self._over:
            raise StoreError("the journal is closed")
        try:
            await trio.to_thread.run_sync(self._database.probe, limiter=self._thread, abandon_on_cancel=True)
        except UnwritableError as error:
            raise StoreError(f"the journal cannot be written: {error}") from error
        except RuntimeError as error:
            if not is_no_thread(error):
                raise
            raise StoreError(f"the journal cannot be written: {error}") from error

    def _enqueue(self, events: Sequence[Event], over: trio.Event | None) -> _Job:
        if self._over:
            raise StoreError("the journal is closed: nothing can be recorded any more")
        # Encoded first: an event that cannot be encoded must not leave a hole.
        encoded = [(event, event_kind(event), encode_event(event)) for event in events]
        at, mono = self._clock.wall(), self._clock.mono()
        job = _Job(tuple(Record(self._seq + 1 + i, at, mono, event) for i, event in enumerate(events)), [], over)
        for event, kind, body in encoded:
            self._seq += 1
            self._link = link_of(self._link, self._seq, at, mono, kind, body)
            run_id, session_id = self._belongs_to(event)
            job.rows.append((self._seq, at, mono, kind, run_id, session_id, body.decode(), self._link))
        self._waiting.append(job)
        self._work.unpark_all()
        return job

    def _belongs_to(self, event: Event) -> tuple[str | None, str | None]:
        session_id: str | None = getattr(event, "session_id", None)
        if isinstance(event, SessionStarting):
            self._run_of[event.session_id] = event.run_id
        if session_id is not None:
            return self._run_of.get(session_id), session_id
        return getattr(event, "run_id", None), None

    async def _wait(self, job: _Job) -> None:
        assert job.over is not None
        await job.over.wait()
        if not job.durable:
            raise StoreError("the journal ended before this could be recorded")

    async def _write(self) -> None:
        """Write whatever waits, until the journal is closed and nothing waits any more."""
        try:
            with self._scope:
                while self._waiting or not self._closing:
                    if not self._waiting:
                        await self._work.park()
                        continue
                    if not self._closing and all(job.over is None for job in self._waiting):
                        with trio.move_on_after(COMPANY_WAIT):
                            await self._await_urgent()
                    if self._in_memory:
                        # Whoever is about to append joins this transaction, as on the way to a thread.
                        await trio.lowlevel.checkpoint()
                    await self._write_all()
        finally:
            self._over = True
            for job in (*self._writing, *self._waiting):
                if job.over is not None:
                    job.over.set()

    async def _await_urgent(self) -> None:
        while not self._closing and all(job.over is None for job in self._waiting):
            await self._work.park()

    async def _write_all(self) -> None:
        """Make everything that waits durable, however long it takes, and fold it."""
        delay, since = 0.0, 0.0
        while True:
            self._writing += self._waiting
            self._waiting = []
            rows = [row for job in self._writing for row in job.rows]
            try:
                if rows:
                    begun = self._clock.mono()
                    await self._append(rows, again=bool(delay))
                    self.measure(len(rows), self._clock.mono() - begun)
                break
            except UnwritableError as error:
                if self.healthy:
                    since = self._clock.mono()
                    self._fell_ill(error)
                delay = min(delay * 2 or _FIRST_DELAY, _LONGEST_DELAY)
                await trio.sleep(delay)
        if not self.healthy:
            self.healthy = True
            waited = self._clock.mono() - since
            self._announce(f"the journal can be written again after {waited:.1f} s; nothing was lost")
        self._fold()

    async def _append(self, rows: list[Row], again: bool) -> None:
        if self._in_memory and self._lane.idle:
            try:
                self._database.append_at_once(rows, again=again)
                return
            except UnwritableError as error:
                if not error.busy:
                    raise
            # Somebody else writes, whoever that is: waiting for them is for a thread.
            again = True
        append = partial(self._database.append, rows, again=again)
        try:
            # A disk that hangs must not keep us from leaving; the limiter keeps others from what is left behind.
            await trio.to_thread.run_sync(append, limiter=self._thread, abandon_on_cancel=True)
        except trio.Cancelled:
            self._left_behind = True
            raise
        except RuntimeError as error:
            # Agents have used up the processes of this user: as with a full disk, it is tried again.
            if not is_no_thread(error):
                raise
            raise UnwritableError(str(error), full=False) from error

    def _fell_ill(self, error: UnwritableError) -> None:
        self.healthy = False
        waits = "waits for space" if error.full else "tries again"
        self._announce(f"the journal cannot be written: {error}; kasmos goes on supervising and {waits}")

    def _fold(self) -> None:
        committed = [record for job in self._writing for record in job.records]
        for record in committed:
            apply(self.world, record)
        for job in self._writing:
            job.durable = True
        if committed:
            link = next(job.rows[-1][-1] for job in reversed(self._writing) if job.rows)
            self._keeper.advanced(committed[-1].seq, link, len(committed))
            self._on_commit(committed)
        for job in self._writing:
            if job.over is not None:
                job.over.set()
        self._writing = []

    def _finish(self, within: float) -> None:
        self._closing = True
        self._scope.deadline = trio.current_time() + within
        self._work.unpark_all()

    def _lost(self, within: float) -> str:
        """What is to be said of what could not be written, if there is any."""
        lost = self.unwritten
        if not lost:
            return ""
        unless = ", unless a disk that hangs takes some of them after all" if self._left_behind else ""
        said = f"the journal could not be written within {within:g} s: {len(lost)} events are lost{unless}"
        return "; ".join([said, *what_becomes_of(lost)])


def _measure_nothing(events: int, seconds: float) -> None:
    """Nobody wants to know."""


def _ignore(what: object) -> None:
    """Do nothing about it."""


@asynccontextmanager
async def open_journal(
    path: Path,
    *,
    clock: Clock,
    announce: Callable[[str], None],
    note: Callable[[str], None] = _ignore,
    on_commit: Callable[[Sequence[Record]], None] = _ignore,
    close_timeout: float = 10.0,
) -> AsyncIterator[Journal]:
    """Open the journal at *path*, make it if there is none, salvage it if it is damaged.

    The caller holds the lock of the state root. When the scope is left, what was appended is written first.

    Args:
        path: the database file.
        clock: gives the instants of the records.
        announce: is given sentences that somebody has to read: damage, a full disk, recovery.
        note: is given, in the Trio thread, why the start had to fold more than it should, or the next one will have to.
        on_commit: is given the records of each commit, in the Trio thread, after they were folded and before
            the appenders go on. It must neither block nor fail.
        close_timeout: how long leaving may take while nothing can be written.

    Raises:
        JournalCorruptError: nothing of it can be read, and it was left as it is; or it was damaged under us.
        StoreError: it cannot be opened, or belongs to a newer kasmos; somebody else writes to it;
            or, on leaving, not everything could be written.

    Cancellation: what was appended before is still written, within *close_timeout*.
    """
    said: list[str] = []
    noted: list[str] = []
    journal: Journal | None = None
    opened = await trio.to_thread.run_sync(open_or_salvage, path, said.append, noted.append)
    try:
        for text in said:
            announce(text)
        for text in noted:
            note(text)
        if foreign := opened.folded.footing.foreign:
            kinds = ", ".join(sorted(foreign))
            announce(f"{sum(foreign.values())} events of a newer kasmos were passed over in the journal: {kinds}")
        keeper = Keeper(path, opened.folded, opened.database.in_place, note)
        journal = Journal(opened, keeper, clock, on_commit, announce, in_memory=is_in_memory(path.parent))
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keeper.run)
                nursery.start_soon(journal._write)
                try:
                    yield journal
                finally:
                    keeper.give_up()
                    journal._finish(close_timeout)
        except BaseExceptionGroup as group:
            if len(group.exceptions) > 1:
                raise
            failure = group.exceptions[0]
        if failure is not None:
            # The nursery is ours: what the body raised leaves as it came.
            raise failure
        await keeper.finish()
        if lost := journal._lost(close_timeout):
            raise StoreError(lost)
    finally:
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True) as patience:
            # It writes at most one log's worth.
            await in_thread_or_here(opened.database.close, journal._thread if journal is not None else None)
        if patience.cancelled_caught:
            note(f"the journal is left open: its disk has not answered for {CLOSE_TIMEOUT:g} s")
