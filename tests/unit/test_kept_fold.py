"""What is kept of a fold: a cache that is right, or as if it were not there."""

from __future__ import annotations

import shutil
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from kasmos.model import event as ev
from kasmos.model.clock import Clock
from kasmos.model.codec import CodecError
from kasmos.model.event import Event, Record
from kasmos.model.plan import Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import ExitStatus, SessionKind
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.usage import Usage, UsageSource
from kasmos.model.view import World
from kasmos.store import keeping, kept_fold
from kasmos.store.fold import fold
from kasmos.store.journal import Journal, open_journal, read_world
from kasmos.store.kept_fold import path_of
from kasmos.store.kept_world import load_world, render_world
from kasmos.store.pruning import Forgotten
from kasmos.store.salvage import open_or_salvage
from tests import strategies

CLOCK = Clock(wall=lambda: 5e8, mono=lambda: 7.0)
LIMIT = 60.0


def kept(world: World) -> World:
    return load_world((name, memoryview(data)) for name, data in render_world(world))


def assert_same(one: World, other: World) -> None:
    """Equal, and in the same order: what is listed newest first is listed by it."""
    assert one == other
    for table in ("runs", "sessions", "approvals", "accounts"):
        assert list(getattr(one, table)) == list(getattr(other, table))
    assert list(one.ledger.conversations) == list(other.ledger.conversations)


@given(strategies.journals(), st.data())
def test_kept_anywhere_and_folded_on(records: list[Record], data: st.DataObject) -> None:
    """Whatever a journal holds: what is kept at any point of it, folded on, is the fold of all of it."""
    cut = data.draw(st.integers(0, len(records)))
    assert_same(fold(records[cut:], kept(fold(records[:cut]))), fold(records))


def test_pieces_of_something_else() -> None:
    """Pieces that are not those of a world are refused, whatever is wrong with them."""
    run = fold([Record(1, 0.0, 0.0, event) for event in life("a")[:1]])
    pieces = [(name, memoryview(data)) for name, data in render_world(run)]
    for wrong in (
        pieces[1:],
        [*pieces, ("other", memoryview(b""))],
        [(name, data[:-1]) for name, data in pieces],
    ):
        with pytest.raises(CodecError):
            load_world(wrong)


# --- beside a journal -------------------------------------------------------------------


def life(run_id: str) -> list[Event]:
    """All that is recorded of a run with one task and one session."""
    plan = Plan(waves=(Wave(1, (PlanTask(id="t", number=1, wave=1, title="t", body=""),)),))
    session = f"{run_id}-s"
    used = Usage(input_tokens=7, output_tokens=3, source=UsageSource.REPORTED)
    return [
        ev.RunStarted(run_id, plan, "/p", f"/p{run_id}", "d", RunSettings(), "/"),
        ev.SessionStarting(session, "n", SessionKind.AGENT, ExecutionMode.HEADLESS, "boot", run_id=run_id, task_id="t"),
        ev.SessionStarted(session, 7),
        ev.SessionUsed(session, used, "2026-01-01"),
        ev.SessionEnded(session, ExitStatus(code=0)),
        ev.TaskEnded(run_id, "t", Outcome.SUCCEEDED, Cause(CauseKind.DONE, "done")),
        ev.RunEnded(run_id, Outcome.SUCCEEDED),
    ]


@attrs.define
class Desk:
    """A journal on a real file, what was noted about it, and an end to waiting for that."""

    db: Path
    notes: list[str] = attrs.field(factory=list)
    said: list[str] = attrs.field(factory=list)

    @property
    def file(self) -> Path:
        return path_of(self.db)

    def open(self):  # type: ignore[no-untyped-def]  # the context manager's type has no public name
        return open_journal(self.db, clock=CLOCK, announce=self.said.append, note=self.notes.append)

    async def live(self, *runs: str) -> None:
        """A supervisor's life."""
        async with self.open() as journal:
            await self.record(journal, *runs)

    async def record(self, journal: Journal, *runs: str) -> None:
        for run_id in runs:
            await journal.append(*life(run_id))

    def start(self) -> tuple[World, int]:
        """The world at a start, and how many events had not to be folded for it. It is that of the whole journal."""
        opened = open_or_salvage(self.db, self.said.append, self.notes.append)
        opened.database.close()
        bare = self.db.with_name("bare.db")
        shutil.copy(self.db, bare)
        assert_same(opened.world, read_world(bare))
        assert_same(opened.world, read_world(self.db))
        return opened.world, opened.folded.kept_events


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    # However long the disk takes here at the end.
    monkeypatch.setattr(keeping, "END_TIMEOUT", LIMIT)
    return Desk(tmp_path / "state.db")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold is worth keeping after a handful of events."""
    monkeypatch.setattr(keeping, "LEAST", 5)
    monkeypatch.setattr(keeping, "OFTEN", 10)


@pytest.mark.usefixtures("eager")
async def test_kept_at_the_end_and_found_at_the_start(desk: Desk) -> None:
    """What is kept at the end of one supervisor is where the next one begins to fold; its own events are folded."""
    await desk.live("a", "b")
    assert desk.start()[1] == 14
    async with desk.open() as journal:
        assert set(journal.world.runs) == {"a", "b"}
        await journal.append(ev.SupervisorStopped("few"))
    assert desk.start()[1] == 14, "for one event nothing is kept anew"
    assert desk.file.stat().st_mode & 0o777 == 0o600
    assert not desk.notes


async def test_little_is_not_kept(desk: Desk) -> None:
    """A short journal is folded: nothing is kept of it."""
    await desk.live("a", "b")
    assert not desk.file.exists()


@pytest.mark.usefixtures("eager")
async def test_kept_while_work_goes_on(desk: Desk) -> None:
    """It is kept while the supervisor is at work, so that one that is killed leaves little to fold."""
    async with desk.open() as journal:
        await desk.record(journal, "a", "b", "c")
        await until(desk.file.exists)
        # As `kill -9` leaves it.
        copy = Desk(desk.db.with_name("copy.db"))
        for suffix in ("", "-wal"):
            shutil.copy(f"{desk.db}{suffix}", f"{copy.db}{suffix}")
        shutil.copy(desk.file, copy.file)
        assert copy.start()[1] >= 10


async def test_kept_after_a_long_fold(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that had to fold a lot keeps what has come of it, so that the next one need not."""
    await desk.live("a", "b")
    monkeypatch.setattr(keeping, "LEAST", 5)
    monkeypatch.setattr(keeping, "FIRST_PAUSE", 0.01)
    async with desk.open():
        await until(desk.file.exists)
    assert desk.start()[1] == 14


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread does to the disk, which tells nobody."""
    with trio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


def _break_byte(at: int) -> Callable[[bytes], bytes]:
    def broken(data: bytes) -> bytes:
        place = at if at >= 0 else len(data) + at
        return data[:place] + bytes([data[place] ^ 0x20]) + data[place + 1 :]

    return broken


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    "change",
    [
        *(_break_byte(at) for at in (0, 14, 20, 60, 400, -40, -1)),
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"more",
        lambda data: b"\0" * len(data),
    ],
)
async def test_damaged(desk: Desk, change: Callable[[bytes], bytes]) -> None:
    """Whatever becomes of the file: the journal is folded anew, nobody is bothered, and the reason is noted."""
    await desk.live("a", "b")
    desk.file.write_bytes(change(desk.file.read_bytes()))
    world, folded = desk.start()
    assert (set(world.runs), folded) == ({"a", "b"}, 0)
    assert "folded anew" in desk.notes[0]
    assert not desk.said


@pytest.mark.usefixtures("eager")
async def test_a_digest_does_not_save_nonsense(desk: Desk) -> None:
    """A file that is what was written, by somebody who wrote something else, is of no use, and of no harm."""
    await desk.live("a", "b")
    for body in (b"", struct.pack("<II", 9, 99), struct.pack("<II", 0, 2) + b"{}", struct.pack("<II", 0, 1) + b"\xff"):
        data = kept_fold._MAGIC + body
        digest = kept_fold.hashlib.sha256(data).digest()
        desk.file.write_bytes(data + digest)
        assert desk.start()[1] == 0
    assert len(desk.notes) == 4


@pytest.mark.usefixtures("eager")
async def test_other_code_made_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another kasmos made, older or newer, is not used: it may fold in another way."""
    await desk.live("a", "b")
    monkeypatch.setattr(kept_fold, "code_digest", lambda: "other")
    assert desk.start()[1] == 0
    assert "another kasmos" in desk.notes[0]


def test_code_is_told_by_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest of the code is another one when a line of the fold or of the model is."""
    home = Path(kept_fold.kasmos.__file__).parent
    for room in ("model", "store"):
        shutil.copytree(home / room, tmp_path / room)
    monkeypatch.setattr(kept_fold.kasmos, "__file__", str(tmp_path / "__init__.py"))
    digest = kept_fold.code_digest.__wrapped__
    seen = {digest()}
    for name in ("model/view.py", "model/usage.py", "store/fold.py", "store/fold_usage.py", "store/kept_world.py"):
        path = tmp_path / name
        path.write_text(path.read_text() + "\n")
        seen.add(digest())
    assert len(seen) == 6


@pytest.mark.usefixtures("eager")
async def test_of_another_journal(desk: Desk, tmp_path: Path) -> None:
    """What was kept of another journal, or of a later state of this one, is not taken for the present."""
    await desk.live("a")
    early = desk.db.read_bytes()
    await desk.live("b", "c")
    later = desk.file.read_bytes()
    # An older state of the journal was put back, and goes on in another way.
    desk.db.write_bytes(early)
    assert desk.start()[1] == 0
    desk.file.unlink()
    await desk.live("d", "e", "f")
    desk.file.write_bytes(later)
    world, folded = desk.start()
    assert (set(world.runs), folded) == ({"a", "d", "e", "f"}, 0)
    other = Desk(tmp_path / "other.db")
    await other.live("x", "y", "z")
    shutil.copy(other.file, desk.file)
    assert desk.start()[1] == 0
    assert len(desk.notes) == 3


@pytest.mark.usefixtures("eager")
async def test_something_was_forgotten_since(desk: Desk) -> None:
    """What was kept before something was forgotten is not used; a supervisor that forgets keeps it anew at once."""
    await desk.live("a", "b", "c")
    before = desk.file.read_bytes()
    async with desk.open() as journal:
        assert await journal.prune(lambda world: Forgotten(("b",))) == 7
        await until(lambda: desk.file.read_bytes() != before)
    assert desk.start()[1] == 14
    desk.file.write_bytes(before)
    world, folded = desk.start()
    assert (set(world.runs), folded) == ({"a", "c"}, 0)


@pytest.mark.usefixtures("eager")
async def test_what_is_being_forgotten_is_not_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """While something is on its way out of the journal, nothing is kept: it would be gone there and still here."""
    await desk.live("a", "b")
    async with desk.open() as journal:
        reached, go_on = trio.Event(), trio.Event()
        token = trio.lowlevel.current_trio_token()
        prune = journal._database.prune

        def slow(*arguments: object) -> int:
            token.run_sync_soon(reached.set)
            trio.from_thread.run(go_on.wait)
            return prune(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(journal._database, "prune", slow)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.prune, lambda world: Forgotten(("a",)))
            await reached.wait()
            before = desk.file.read_bytes()
            journal._keeper._due.set()
            await trio.testing.wait_all_tasks_blocked()
            assert desk.file.read_bytes() == before
            go_on.set()
    assert desk.start()[1] == 7


@pytest.mark.usefixtures("eager")
async def test_it_cannot_be_kept(desk: Desk) -> None:
    """A disk that does not take it, or anything else in its way, is noted and stops nobody."""
    desk.file.with_name("state.fold.new").mkdir()
    await desk.live("a", "b")
    assert not desk.file.exists()
    assert "cannot be kept" in desk.notes[-1]
    assert not desk.said
    assert set(desk.start()[0].runs) == {"a", "b"}


@pytest.mark.usefixtures("eager")
async def test_the_journal_was_replaced(desk: Desk) -> None:
    """A supervisor whose journal was taken away puts nothing beside the one that is there instead."""
    async with desk.open() as journal:
        await desk.record(journal, "a")
        desk.db.rename(desk.db.with_name("taken.db"))
        desk.db.write_bytes(b"another")
    assert not desk.file.exists()
    assert "another one by now" in desk.notes[-1]


@pytest.mark.usefixtures("eager")
async def test_no_time_at_the_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end waits for it within a bound: what was kept before stays."""
    await desk.live("a")
    before = desk.file.read_bytes()
    monkeypatch.setattr(keeping, "END_TIMEOUT", -1.0)
    await desk.live("b")
    assert desk.file.read_bytes() == before
    assert desk.start()[1] == 7
    assert not desk.file.with_name("state.fold.new").exists()
    assert not desk.notes


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("when", ["at the end", "before"])
async def test_a_disk_that_hangs_keeps_nobody(desk: Desk, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not answer is not waited for at the end, whether it hung before or hangs now."""
    monkeypatch.setattr(keeping, "END_TIMEOUT", 0.05)
    monkeypatch.setattr(keeping, "_LAST_PIECE", 0.05)
    entered, go = threading.Event(), threading.Event()

    def hang(*args: object, **kwargs: object) -> None:
        entered.set()
        assert go.wait(60)

    monkeypatch.setattr(keeping, "write_kept", hang)
    try:
        with trio.fail_after(60):
            async with desk.open() as journal:
                await desk.record(journal, "a")
                if when == "before":
                    await desk.record(journal, "b")
                    assert await trio.to_thread.run_sync(entered.wait, 60)
        assert "its disk does not answer" in desk.notes[-1]
    finally:
        go.set()


async def test_foreign_events_are_told_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that only a newer kasmos understands are told of at each start, also where they were not read again."""
    said: Sequence[str] = ()
    await desk.live("a")
    from kasmos.store import chain

    monkeypatch.setattr(chain, "_KINDS", chain._KINDS - {"session_used"})
    monkeypatch.setattr(keeping, "LEAST", 3)
    for folded in (0, 7):
        desk.said.clear()
        opened = open_or_salvage(desk.db, desk.said.append)
        assert opened.folded.kept_events == folded
        opened.database.close()
        async with desk.open() as journal:
            assert not journal.world.ledger.days
        said = list(desk.said)
        assert said == ["1 events of a newer kasmos were passed over in the journal: session_used"]
