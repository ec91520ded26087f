"""What happens to the journal when its disk, its file or its process does not live up to expectations."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest
import trio

from kasmos.exceptions import JournalCorruptError
from kasmos.model.clock import Clock
from kasmos.model.event import Record, SupervisorStopped
from kasmos.store.journal import open_journal, read_records, read_world
from kasmos.store.salvage import open_or_salvage
from tests.faults.namespace import in_mount_namespace

EVENTS = 150
LIMIT = 120.0
CLOCK = Clock(wall=lambda: 5e8, mono=lambda: 7.0)


@attrs.frozen
class Specimen:
    """A journal's files as bytes, and what they told when they were sound."""

    db: bytes
    wal: bytes
    history: tuple[Record, ...]

    def place(self, path: Path, *, db: bytes | None = None, wal: bytes | None = None) -> None:
        for file in path.parent.iterdir():
            file.unlink()
        path.write_bytes(self.db if db is None else db)
        if wal is not None:
            path.with_name("state.db-wal").write_bytes(wal)


async def specimen(path: Path, count: int, word: str) -> Specimen:
    history: list[Record] = []
    async with open_journal(path, clock=CLOCK, announce=print, on_commit=history.extend) as journal:
        for number in range(count):
            await journal.append(SupervisorStopped(f"{word} {number} " + "x" * (number % 90)))
        # Still open: the newest events are in the write-ahead log only, as after `kill -9`.
        files = trio.Path(path), trio.Path(path.with_name("state.db-wal"))
        return Specimen(await files[0].read_bytes(), await files[1].read_bytes(), tuple(history))


@pytest.fixture(scope="module")
def torn() -> Specimen:
    """A journal as `kill -9` leaves it: almost everything is in the write-ahead log."""
    with tempfile.TemporaryDirectory() as directory:
        return trio.run(specimen, Path(directory, "state.db"), EVENTS, "event")


@pytest.fixture(scope="module")
def settled(torn: Specimen) -> Specimen:
    """The same journal as an orderly end leaves it: everything is in the file, nothing beside it."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "state.db")
        torn.place(path, wal=torn.wal)
        open_or_salvage(path, print).database.close()
        assert not path.with_name("state.db-wal").exists()
        return attrs.evolve(torn, db=path.read_bytes(), wal=b"")


@pytest.fixture
def path() -> Iterator[Path]:
    """Where to put a journal: in memory if possible, because it is made durable some thousand times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Path(directory, "state.db")


def open_damaged(path: Path, history: Sequence[Record]) -> tuple[int, list[str]]:
    """Open whatever is at *path*, require a beginning of *history*, and return its length and what was announced.

    A length of -1 means that it was refused, and left as it was.
    """
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    try:
        told = read_world(path).seq
    except JournalCorruptError:
        told = -1
    said: list[str] = []
    try:
        opened = open_or_salvage(path, said.append)
    except JournalCorruptError:
        assert told <= 0
        assert {file.name: file.read_bytes() for file in path.parent.iterdir()}.items() >= before.items()
        return -1, said
    opened.database.close()
    assert read_records(path) == list(history[: opened.last_seq])
    assert opened.last_seq >= 1, "an empty world took the place of one that was not"
    assert told in (-1, opened.last_seq)
    if said:
        assert path.with_name("state.db.damaged-1").read_bytes() == before["state.db"]
    return opened.last_seq, said


@pytest.mark.parametrize("part", range(4))
def test_torn_log_at_every_offset_of_its_tail(torn: Specimen, path: Path, part: int) -> None:
    """A write-ahead log cut off anywhere costs at most the events behind the cut, and needs no salvage."""
    size, previous = len(torn.wal), 0
    offsets = (*range(0, size - 4200, 397), *range(size - 4200, size + 1))
    for cut in offsets[part * len(offsets) // 4 : (part + 1) * len(offsets) // 4]:
        torn.place(path, wal=torn.wal[:cut])
        length, said = open_damaged(path, torn.history)
        assert said == []
        assert length >= previous
        previous = length
    assert previous == EVENTS or part < 3


@pytest.mark.parametrize("part", range(4))
def test_truncated_file_at_every_offset_of_its_tail(settled: Specimen, path: Path, part: int) -> None:
    """A database cut off anywhere opens to a beginning of its history, loudly, or is refused and left alone."""
    size = len(settled.db)
    offsets = (*range(0, 600, 7), *range(600, size - 4096, 509), *range(size - 4096, size))
    for cut in offsets[part::4]:
        settled.place(path, db=settled.db[:cut])
        length, said = open_damaged(path, settled.history)
        assert length == -1 or len(said) == 1 or length == EVENTS


def test_truncated_file_beside_its_log(torn: Specimen, path: Path) -> None:
    """A database that is cut off while its log is whole loses nothing that the log still tells."""
    for cut in range(0, len(torn.db), 311):
        torn.place(path, db=torn.db[:cut], wal=torn.wal)
        open_damaged(path, torn.history)


@pytest.mark.parametrize("zeros", [1, 64, 512, 4096])
def test_zeros_anywhere(settled: Specimen, path: Path, zeros: int) -> None:
    """Zeros anywhere in the database never give another history: a beginning of it, or a refusal."""
    for offset in range(0, len(settled.db), max(zeros, 61)):
        damaged = bytearray(settled.db)
        damaged[offset : offset + zeros] = bytes(len(damaged[offset : offset + zeros]))
        settled.place(path, db=bytes(damaged))
        open_damaged(path, settled.history)


def test_zeros_to_the_end(settled: Specimen, path: Path) -> None:
    """A database whose end was never written, only reserved, opens to a beginning or is refused."""
    for offset in range(0, len(settled.db), 503):
        settled.place(path, db=settled.db[:offset].ljust(len(settled.db), b"\0"))
        length, said = open_damaged(path, settled.history)
        assert length in (-1, EVENTS) or len(said) == 1


@pytest.mark.parametrize("size", [0, 1, 512, 4096, 100_000])
def test_file_of_zeros_is_refused(torn: Specimen, path: Path, size: int) -> None:
    """A file of nothing but zeros, or an empty one, is never taken for a new journal."""
    torn.place(path, db=bytes(size), wal=torn.wal)
    assert open_damaged(path, torn.history)[0] == -1
    with pytest.raises(JournalCorruptError):
        read_world(path)
    with pytest.raises(JournalCorruptError, match=r"nothing was changed.*move state\.db\* away"):
        open_or_salvage(path, print)


def test_zeros_behind_the_file(settled: Specimen, path: Path) -> None:
    """Zeros behind the end of the database cost nothing."""
    settled.place(path, db=settled.db + bytes(10_000))
    assert open_damaged(path, settled.history) == (EVENTS, [])


def test_flipped_bits(settled: Specimen, path: Path) -> None:
    """A flipped bit in an event is never read as that event: the history ends before it."""
    flipped = 0
    for record in settled.history[:: EVENTS // 15]:
        event = record.event
        assert isinstance(event, SupervisorStopped)
        # Everywhere, because pages keep remains of what was once moved to another page.
        reason = event.reason.encode()
        settled.place(path, db=settled.db.replace(reason, bytes([reason[0] ^ 1]) + reason[1:]))
        length, said = open_damaged(path, settled.history)
        assert length == (record.seq - 1 or -1), record.seq
        flipped += len(said)
    assert flipped > 10


async def test_log_of_another_journal(settled: Specimen, path: Path) -> None:
    """A write-ahead log of another journal beside the database is found out, and costs nothing."""
    with tempfile.TemporaryDirectory() as directory:
        other = await specimen(Path(directory, "state.db"), EVENTS, "other")
    settled.place(path, wal=other.wal)
    length, said = open_damaged(path, settled.history)
    assert length == EVENTS
    assert len(said) == 1
    assert path.with_name("state.db.damaged-1-wal").read_bytes() == other.wal


def test_salvage_that_was_interrupted(settled: Specimen, torn: Specimen, path: Path) -> None:
    """A salvage that dies between putting the new file in place and removing the old log is made good."""
    settled.place(path, db=settled.db[:-4096])
    length, said = open_damaged(path, settled.history)
    assert 0 < length < EVENTS
    assert len(said) == 1
    path.with_name("state.db-wal").write_bytes(torn.wal)
    path.with_name("state.db.new").write_bytes(b"half")
    said.clear()
    opened = open_or_salvage(path, said.append)
    opened.database.close()
    assert opened.last_seq >= length
    assert read_records(path) == list(settled.history[: opened.last_seq])


def test_log_without_its_file(torn: Specimen, path: Path) -> None:
    """Half a journal is not a new one: a log whose database was removed is refused and kept."""
    torn.place(path, wal=torn.wal)
    path.unlink()
    with pytest.raises(JournalCorruptError, match="is missing"):
        open_or_salvage(path, print)
    assert path.with_name("state.db-wal").read_bytes() == torn.wal


async def test_salvaged_journal_goes_on(settled: Specimen, path: Path) -> None:
    """After a salvage new events follow the last one that was saved, and a second damage keeps both damaged files."""
    settled.place(path, db=settled.db[:-5000])
    for number in (1, 2):
        said: list[str] = []
        async with open_journal(path, clock=CLOCK, announce=said.append) as journal:
            before = journal.world.seq
            records = await journal.append(*(SupervisorStopped(f"{number} {i}" + "y" * 99) for i in range(60)))
            assert records[0].seq == before + 1
        assert len(said) == 1
        assert await trio.Path(path.with_name(f"state.db.damaged-{number}")).exists()
        os.truncate(path, (await trio.Path(path).stat()).st_size - 3000)


WRITER = """
import sys, time, trio
from pathlib import Path
from kasmos.model.clock import Clock
from kasmos.model.event import SupervisorStopped
from kasmos.store import keeping
from kasmos.store.journal import open_journal

keeping.LEAST = keeping.OFTEN = 8

async def one(journal, who, count):
    for number in range(count):
        (record,) = await journal.append(SupervisorStopped(f"{who}.{number}"))
        print(record.seq, record.event.reason, flush=True)

async def main(path, writers, count):
    say = lambda text: print("announced:", text, flush=True)
    async with open_journal(Path(path), clock=Clock(time.time, time.monotonic), announce=say) as journal:
        async with trio.open_nursery() as nursery:
            for who in range(int(writers)):
                nursery.start_soon(one, journal, who, int(count))

trio.run(main, *sys.argv[1:])
"""


def writer(
    path: Path, writers: int, count: int, failpoints: str = "", stdout: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(writers), str(count)],
        stdout=stdout,
        text=True,
        env={**os.environ, "KASMOS_FAILPOINTS": failpoints},
    )


def acknowledged(output: str) -> dict[int, str]:
    # The last line may be half a line: then it was not said.
    lines = [line.split() for line in output.splitlines(keepends=True) if line.endswith("\n")]
    return {int(line[0]): line[1] for line in lines}


def recorded(path: Path) -> dict[int, str]:
    return {record.seq: record.event.reason for record in read_records(path) if hasattr(record.event, "reason")}


@pytest.mark.parametrize("point", ["journal.before-commit", "journal.after-commit"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_killed_at_a_commit(path: Path, point: str, count: int) -> None:
    """`kill -9` around a commit loses no event that was acknowledged, and the history has no hole."""
    with writer(path, 1, 20, f"{point}=kill@{count}") as process:
        said = acknowledged(process.communicate(timeout=LIMIT)[0])
    assert process.returncode == -signal.SIGKILL
    assert len(said) == count - 1
    opened = open_or_salvage(path, pytest.fail)
    opened.database.close()
    found = recorded(path)
    assert found.items() >= said.items()
    assert list(found) == list(range(1, count + (point == "journal.after-commit")))


def test_killed_under_load(path: Path) -> None:
    """`kill -9` in the middle of many writers loses no event that was acknowledged, and the history has no hole."""
    for lines in (1, 150, 400):
        for file in path.parent.iterdir():
            file.unlink()
        with writer(path, 8, 10_000) as process:
            assert process.stdout is not None
            head = "".join(process.stdout.readline() for _ in range(lines))
            process.kill()
            said = acknowledged(head + process.communicate(timeout=LIMIT)[0])
        assert process.returncode == -signal.SIGKILL
        opened = open_or_salvage(path, pytest.fail)
        opened.database.close()
        rows = read_records(path, limit=1_000_000)
        found = {record.seq: record.event.reason for record in rows if isinstance(record.event, SupervisorStopped)}
        assert len(said) >= lines
        assert found.items() >= said.items()
        assert list(found) == list(range(1, len(found) + 1))
        assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("point", ["fold.half-written", "fold.written", "fold.kept"])
@pytest.mark.parametrize("count", [1, 2])
def test_killed_while_the_fold_is_kept(path: Path, point: str, count: int) -> None:
    """`kill -9` while the fold is being kept costs nothing: the next start has all, by what was kept or without it."""
    with writer(path, 1, 200, f"{point}=kill@{count}") as process:
        said = acknowledged(process.communicate(timeout=LIMIT)[0])
    assert process.returncode == -signal.SIGKILL
    assert path.with_name("state.fold.new").exists() == (point != "fold.kept")
    noted: list[str] = []
    opened = open_or_salvage(path, pytest.fail, noted.append)
    opened.database.close()
    assert recorded(path).items() >= said.items()
    assert opened.world.seq == opened.last_seq == len(recorded(path)) >= len(said)
    assert bool(opened.folded.kept_events) == (count == 2 or point == "fold.kept")
    assert not noted
    with writer(path, 1, 20) as process:
        process.communicate(timeout=LIMIT)
    assert not path.with_name("state.fold.new").exists()


@pytest.mark.parametrize("point", ["journal.before-commit", "journal.after-commit"])
def test_error_at_a_commit(path: Path, point: str) -> None:
    """A commit that fails is tried again, also if it had succeeded: every event is there exactly once."""
    with writer(path, 3, 5, f"{point}=error@2") as process:
        output = process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 0
    assert sorted(recorded(path).values()) == sorted(f"{who}.{number}" for who in range(3) for number in range(5))
    said = [line for line in output.splitlines() if line.startswith("announced")]
    assert len(said) == 2
    assert "tries again" in said[0]
    assert "can be written again" in said[1]


FULL_DISK = """
import os, sys, time, trio
from pathlib import Path
from kasmos.model.clock import Clock
from kasmos.model.event import SupervisorStopped
from kasmos.store.journal import open_journal

async def main(directory):
    said, ill = [], trio.Event()
    def say(text):
        said.append(text)
        ill.set()
    path, ballast = Path(directory, "state.db"), Path(directory, "ballast")
    async with open_journal(path, clock=Clock(time.time, time.monotonic), announce=say) as journal:
        await journal.append(SupervisorStopped("before"))
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(journal.append, SupervisorStopped(f"{number} " + "x" * 1000))
            await ill.wait()
            assert not journal.healthy
            seen = journal.world.seq
            assert seen < 101
            ballast.unlink()
        assert journal.healthy and journal.world.seq == 101
    print("\\n".join(said))

trio.run(main, sys.argv[1])
"""


def test_full_disk(tmp_path: Path) -> None:
    """On a full disk the journal says so once, waits for space, and then records everything."""
    done = in_mount_namespace(
        'mount -t tmpfs -o size=256k none "$1"; exec "$2" -c "$3" "$1"', str(tmp_path), sys.executable, FULL_DISK
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == (
        "the journal cannot be written: database or disk is full; kasmos goes on supervising and waits for space"
    )
    assert "can be written again" in second


READ = """
import sys
from pathlib import Path
from kasmos.store.reader import read_records, read_world
print(read_world(Path(sys.argv[1])).seq, len(read_records(Path(sys.argv[1]))))
"""


@pytest.mark.parametrize("ending", ["orderly", "killed"])
def test_reading_on_a_read_only_file_system(torn: Specimen, settled: Specimen, tmp_path: Path, ending: str) -> None:
    """A journal can be read where nothing can be written, whichever way its supervisor had ended."""
    path = tmp_path / "state.db"
    if ending == "orderly":
        settled.place(path)
    else:
        torn.place(path, wal=torn.wal)
    done = in_mount_namespace(
        'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; ! touch "$1/x"; exec "$2" -c "$3" "$1/state.db"',
        str(tmp_path),
        sys.executable,
        READ,
    )
    assert done.stdout == f"{EVENTS} {EVENTS}\n", done.stderr


@pytest.mark.parametrize("ending", ["orderly", "killed"])
def test_reading_on_a_full_disk(torn: Specimen, settled: Specimen, tmp_path: Path, ending: str) -> None:
    """A journal can be read where there is no room for what SQLite makes beside it, whichever way it was left."""
    path = tmp_path / "state.db"
    if ending == "orderly":
        settled.place(path)
    else:
        torn.place(path, wal=torn.wal)
    (tmp_path / "disk").mkdir()
    done = in_mount_namespace(
        'mount -t tmpfs -o size=8m none "$1/disk"; cp "$1"/state.db* "$1/disk"; '
        '! dd if=/dev/zero of="$1/disk/filler" bs=4096; exec "$2" -c "$3" "$1/disk/state.db"',
        str(tmp_path),
        sys.executable,
        READ,
    )
    assert done.stdout == f"{EVENTS} {EVENTS}\n", done.stderr


def test_reading_beside_a_writer(path: Path) -> None:
    """A reader in another process always sees a growing beginning of the history, and disturbs nobody."""
    with writer(path, 4, 400, stdout=subprocess.DEVNULL) as process:
        seen = 0
        while process.poll() is None:
            numbers = [record.seq for record in read_records(path, limit=100_000)]
            assert numbers == list(range(1, len(numbers) + 1))
            assert len(numbers) >= seen
            seen = len(numbers)
    assert process.returncode == 0
    assert len(recorded(path)) == 1000
    assert read_world(path).seq == 1600
