"""The output buffer and the log file: bounds, offsets, and what is told about lost bytes."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos import failpoints
from kasmos.sessions import output
from kasmos.sessions.follow import CROWD, LONGEST_INTERVAL, REARM_INTERVAL, interval_for
from kasmos.sessions.output import LogFile, OutputBuffer, decode_from, last_lines, lines_between
from kasmos.sessions.protocol import OutputChunk

# --- OutputBuffer -----------------------------------------------------------------


@given(st.integers(1, 40), st.lists(st.binary(max_size=60)))
def test_buffer_holds_newest_bytes(capacity: int, pieces: list[bytes]) -> None:
    """A buffer holds exactly the newest bytes, at their absolute offsets, and never more than its capacity."""
    buffer = OutputBuffer(capacity)
    for piece in pieces:
        buffer.append(piece)
    whole = b"".join(pieces)
    assert buffer.end == len(whole)
    assert buffer.start == max(0, len(whole) - capacity)
    assert buffer.read(buffer.start, len(whole) + 1) == OutputChunk(buffer.start, whole[-capacity:])


@given(st.binary(max_size=50), st.integers(0, 60), st.integers(0, 60))
def test_buffer_reads_any_part(data: bytes, offset: int, limit: int) -> None:
    """A read gives the bytes from its offset up to its limit, and none from past the end."""
    buffer = OutputBuffer(64)
    buffer.append(data)
    assert buffer.read(offset, limit) == OutputChunk(offset, data[offset : offset + limit])


def test_buffer_read_older_than_held() -> None:
    """An offset that is older than what is held is answered with None, to be read from the log."""
    buffer = OutputBuffer(4)
    buffer.append(b"abcdef")
    assert buffer.read(1, 10) is None
    assert buffer.read(2, 10) == OutputChunk(2, b"cdef")


def test_buffer_skip() -> None:
    """After bytes that were never seen the buffer starts again at the new offset."""
    buffer = OutputBuffer(10)
    buffer.append(b"abc")
    buffer.skip_to(100)
    buffer.append(b"xyz")
    assert (buffer.start, buffer.end, buffer.text()) == (100, 103, "xyz")
    assert buffer.read(3, 10) is None


def test_buffer_skip_to_the_end_keeps_all() -> None:
    """Skipping to where the buffer ends already changes nothing."""
    buffer = OutputBuffer(10)
    buffer.append(b"abc")
    buffer.skip_to(3)
    assert (buffer.start, buffer.text()) == (0, "abc")


def test_buffer_refuses_to_go_back() -> None:
    """Bytes that were seen cannot be unseen: skipping back is refused."""
    buffer = OutputBuffer(10)
    buffer.append(b"abc")
    with pytest.raises(ValueError, match="go back"):
        buffer.skip_to(2)


def test_buffer_without_room_is_refused() -> None:
    """A buffer that could hold nothing is refused."""
    with pytest.raises(ValueError, match="at least one byte"):
        OutputBuffer(0)


def test_buffer_is_cheap_when_empty() -> None:
    """A buffer that nothing was written to does not reserve its capacity."""
    buffer = OutputBuffer(1 << 30)
    assert sys.getsizeof(buffer._data) < 200


def test_buffer_memory_is_bounded() -> None:
    """However much is written, in whatever pieces, a buffer keeps little more than its capacity in memory."""
    buffer = OutputBuffer(10_000)
    for piece in [b"x" * 7] * 20_000 + [b"y" * 100_000] + [b"z" * 999] * 200:
        buffer.append(piece)
        assert sys.getsizeof(buffer._data) < 12_500


def test_buffer_written_and_read_by_threads() -> None:
    """Threads that read while another writes see a continuous text, each byte at its own offset."""
    pattern = bytes(range(251))
    buffer = OutputBuffer(5_000)
    wrong: list[OutputChunk] = []
    done = threading.Event()

    def look() -> None:
        cursor = 0
        while not done.is_set() or cursor < buffer.end:
            chunk = buffer.read(cursor, 1_000)
            if chunk is None:
                cursor = buffer.start
                continue
            if any(byte != (chunk.offset + i) % 251 for i, byte in enumerate(chunk.data)):
                wrong.append(chunk)
            cursor = chunk.end

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(400):
        buffer.append(pattern)
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert buffer.end == 400 * 251


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(0, ""), (1, "c"), (2, "b\nc"), (3, "a\nb\nc"), (9, "a\nb\nc")],
)
def test_buffer_tail(lines: int, expected: str) -> None:
    """The tail is the last lines; a last line without a newline counts as one."""
    buffer = OutputBuffer(100)
    buffer.append(b"a\nb\nc")
    assert buffer.tail(lines) == expected


def test_buffer_tail_of_one_long_line() -> None:
    """Of a line longer than the bound the tail gives the newest part, without half a character at its head."""
    buffer = OutputBuffer(1_000)
    buffer.append("ü".encode() * 300)
    assert buffer.tail(5, max_bytes=11) == "ü" * 5


# --- text -------------------------------------------------------------------------


@given(st.lists(st.text(alphabet="ab\r\x00é", max_size=5), max_size=6), st.integers(1, 8), st.booleans())
def test_last_lines_like_tail(parts: list[str], lines: int, ended: bool) -> None:
    """Last lines are what `tail -n` prints: newlines and nothing else end a line."""
    text = "\n".join(parts) + ("\n" if ended else "")
    kept = text.split("\n")
    keep = kept[-lines - 1 :] if text.endswith("\n") else kept[-lines:]
    assert last_lines(text.encode(), lines) == "\n".join(keep)


def test_decode_keeps_bytes_that_cannot_be_decoded_visible() -> None:
    """What is not UTF-8 is replaced, never dropped, and never an error."""
    assert decode_from(b"a\xff\x00b", cut=False) == "a\ufffd\x00b"
    assert decode_from("é".encode()[1:] + b"x", cut=False) == "\ufffdx"


def test_decode_after_a_cut_drops_the_halved_character() -> None:
    """Where the text was cut by us, the rest of a halved character is left out."""
    assert decode_from("€uro".encode()[2:], cut=True) == "uro"


def test_lines_between() -> None:
    """Lines are counted as a Python slice counts them, and a carriage return does not end one."""
    assert lines_between("a\nb\rb\nc\n", None, None) == "a\nb\rb\nc"
    assert lines_between("a\nb\nc", 1, None) == "b\nc"
    assert lines_between("a\nb\nc\n", -2, -1) == "b"
    assert lines_between("", None, None) == ""


# --- LogFile ----------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    (tmp_path / "output.log").touch()
    return LogFile(tmp_path)


def write(directory: Path, data: bytes) -> None:
    with (directory / "output.log").open("ab") as file:
        file.write(data)


def numbered(count: int) -> bytes:
    """Lines of eight bytes that tell their own offset."""
    return b"".join(b"%07d\n" % (8 * i) for i in range(count))


def test_log_reads_by_offset(tmp_path: Path, log: LogFile) -> None:
    """A log gives its bytes by absolute offset."""
    write(tmp_path, b"0123456789")
    assert (log.base, log.end) == (0, 10)
    assert log.read(3, 4) == OutputChunk(3, b"3456")


def test_log_past_its_end(tmp_path: Path, log: LogFile) -> None:
    """Past the end of a log there is an empty chunk, and the cursor stays where it is."""
    write(tmp_path, b"0123")
    assert log.read(4, 10) == OutputChunk(4, b"")
    assert log.read(9, 10) == OutputChunk(9, b"")


def test_log_absent(tmp_path: Path) -> None:
    """Where there is no log there is an error, not an empty text."""
    with pytest.raises(FileNotFoundError):
        LogFile(tmp_path).read(0, 10)


def test_log_deleted_with_its_directory(tmp_path: Path) -> None:
    """A log that was deleted, with its directory, is still read through an open descriptor."""
    directory = tmp_path / "session"
    directory.mkdir()
    write(directory, numbered(4000))
    fd = os.open(directory / "output.log", os.O_RDONLY)
    try:
        log = LogFile(directory, fd=fd)
        assert log.cap(8192) is not None
        base = log.base
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
        chunk = log.read(0, 8)
        assert (chunk.data, chunk.lost) == (b"%07d\n" % base, base)
        assert log.base == base
    finally:
        os.close(fd)


def test_log_truncated_by_the_program(tmp_path: Path, log: LogFile) -> None:
    """After a declared truncation offsets go on, and all that was before is told as lost."""
    write(tmp_path, b"before")
    os.truncate(tmp_path / "output.log", 0)
    log.declare_truncation(6)
    write(tmp_path, b"after")
    assert (log.base, log.end) == (6, 11)
    assert log.read(2, 100) == OutputChunk(6, b"after", lost=4)
    assert LogFile(tmp_path).read(0, 100) == OutputChunk(6, b"after", lost=6)
    assert log.tail_lines(1) == "after"


def test_log_truncated_twice(tmp_path: Path, log: LogFile) -> None:
    """A second truncation raises the base again."""
    for offset, text in ((3, b"abc"), (7, b"defg")):
        write(tmp_path, text)
        os.truncate(tmp_path / "output.log", 0)
        log.declare_truncation(offset)
    write(tmp_path, b"h")
    assert log.read(0, 9) == OutputChunk(7, b"h", lost=7)


def test_log_cap_with_room_left(tmp_path: Path, log: LogFile) -> None:
    """A log within its bound, or little above it, is left alone."""
    write(tmp_path, numbered(1000))
    assert log.cap(8000) is None
    assert log.cap(7000) is None
    assert not (tmp_path / "output.base").exists()


def test_log_cap_frees_the_head(tmp_path: Path, log: LogFile) -> None:
    """A capped log keeps at least its bound of newest bytes at the same offsets, and frees the rest on the disk."""
    whole = numbered(40_000)
    write(tmp_path, whole)
    base = log.cap(20_000)
    assert base is not None
    assert base % 4096 == 0
    assert len(whole) - base >= 20_000
    assert log.read(0, 1 << 20) == OutputChunk(base, whole[base:], lost=base)
    status = (tmp_path / "output.log").stat()
    assert status.st_size == len(whole)
    assert status.st_blocks * 512 < 40_000
    assert (tmp_path / "output.base").read_text() == f"{base} 0\n"


def test_log_cap_again_and_again(tmp_path: Path, log: LogFile) -> None:
    """However often a growing log is capped, what is read is a true suffix, and the disk use stays bounded."""
    whole = b""
    bases = [0]
    for _ in range(30):
        piece = numbered(1500)
        whole += piece
        write(tmp_path, piece)
        if (base := log.cap(16_384)) is not None:
            bases.append(base)
        assert log.read(0, 1 << 20).data == whole[log.base :]
        assert (tmp_path / "output.log").stat().st_blocks * 512 < 60_000
    assert bases == sorted(set(bases))
    assert len(bases) > 10


def test_log_cap_after_truncation(tmp_path: Path, log: LogFile) -> None:
    """Capping counts in the file's positions and tells in absolute offsets."""
    write(tmp_path, b"x" * 1000)
    os.truncate(tmp_path / "output.log", 0)
    log.declare_truncation(1000)
    whole = numbered(8_000)
    write(tmp_path, whole)
    base = log.cap(8_192)
    assert base is not None
    assert log.read(0, 1 << 20) == OutputChunk(base, whole[base - 1000 :], lost=base)


def test_log_cap_interrupted_before_the_punch(tmp_path: Path, log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """If capping stops between declaring and freeing, nothing wrong is read, and the next cap frees both parts."""
    whole = numbered(8_000)
    write(tmp_path, whole)
    monkeypatch.setattr(failpoints, "_armed", {"log.base-written": ("error", 1)})
    with pytest.raises(OSError, match=r"log\.base-written"):
        log.cap(8_192)
    base = log.base
    assert base > 0
    assert log.read(0, 1 << 20) == OutputChunk(base, whole[base:], lost=base)
    write(tmp_path, whole)
    assert log.cap(8_192) is not None
    assert (tmp_path / "output.log").stat().st_blocks * 512 < 30_000


def test_log_cap_where_the_file_system_cannot(tmp_path: Path, log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where holes cannot be punched, nothing is given up and nothing is left behind."""
    write(tmp_path, numbered(8_000))
    monkeypatch.setattr(output, "_fallocate", lambda: None)
    with pytest.raises(OSError, match="fallocate") as caught:
        log.cap(8_192)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert log.base == 0
    assert os.listdir(tmp_path) == ["output.log"]


def test_log_cap_beside_a_truncation(tmp_path: Path, log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that truncates its log while it is capped does not lose what it writes next."""
    write(tmp_path, numbered(8_000))
    punch = output._punch

    def punch_after_the_program(fd: int, position: int, length: int) -> None:
        punch(fd, position, length)
        if position:  # the probe: the program comes right after it
            os.truncate(tmp_path / "output.log", 0)
            write(tmp_path, b"new")

    monkeypatch.setattr(output, "_punch", punch_after_the_program)
    log.cap(8_192)
    log.declare_truncation(64_000)
    assert log.read(0, 100) == OutputChunk(64_000, b"new", lost=64_000)


@pytest.mark.parametrize("text", [b"", b"4096", b"4096 0", b"x 0\n", b"-1 0\n", b"0 5\n", b"4096 0\n0 0\n", b"\0" * 64])
def test_log_with_a_damaged_base(tmp_path: Path, log: LogFile, text: bytes) -> None:
    """If the base cannot be understood, the punched head is still not taken for output."""
    whole = numbered(8_000)
    write(tmp_path, whole)
    base = log.cap(8_192)
    (tmp_path / "output.base").write_bytes(text)
    assert base is not None
    chunk = LogFile(tmp_path).read(0, 1 << 20)
    assert (chunk.offset, chunk.lost, chunk.data) == (base, base, whole[base:])


def test_log_base_lost_while_known(tmp_path: Path, log: LogFile) -> None:
    """Who knew the base once goes on knowing it when the file disappears."""
    write(tmp_path, numbered(8_000))
    base = log.cap(8_192)
    (tmp_path / "output.base").unlink()
    assert log.base == base


def test_log_read_while_it_is_capped(tmp_path: Path, log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is overtaken by a cap is told of the loss and never given zeros."""
    whole = numbered(8_000)
    write(tmp_path, whole)
    pread = os.pread

    def pread_after_a_cap(fd: int, count: int, position: int) -> bytes:
        LogFile(tmp_path).cap(8_192)
        return pread(fd, count, position)

    monkeypatch.setattr(os, "pread", pread_after_a_cap)
    chunk = log.read(0, 1 << 20)
    assert chunk.offset == chunk.lost > 0
    assert chunk.data == whole[chunk.offset :]


def test_log_tail(tmp_path: Path, log: LogFile) -> None:
    """The tail of a log is its last lines, within a bound of bytes."""
    write(tmp_path, numbered(100) + b"last")
    assert log.tail_lines(2) == "0000792\nlast"
    assert log.tail_lines(50, max_bytes=6) == "2\nlast"
    assert log.tail_lines(0) == ""


def test_a_crowd_is_looked_at_less_often() -> None:
    """What following logs costs does not grow with how many are written at once; and none waits long."""
    assert [interval_for(busy) for busy in (0, 1, CROWD)] == [REARM_INTERVAL] * 3
    assert interval_for(5 * CROWD) == pytest.approx(5 * REARM_INTERVAL)
    assert interval_for(100_000) == LONGEST_INTERVAL
