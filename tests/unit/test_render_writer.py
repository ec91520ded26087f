"""`kasmos.cli.render.writer`: whoever reads slowly, or not at all, stalls nobody."""

from __future__ import annotations

import errno
import io
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

import pytest

from kasmos.cli.render.writer import Writer, write_bytes, write_text

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Held(io.StringIO):
    """A stream that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        assert self.go.wait(30)
        return super().write(text)


class Broken(io.StringIO):
    """A stream whose reader has left."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code
        self.tried = 0

    def write(self, text: str) -> int:
        self.tried += 1
        raise OSError(self.code, "broken")


def test_text_arrives_in_order() -> None:
    """Everything is written, in the order in which it was given, before `close` returns."""
    out, err = io.StringIO(), io.StringIO()
    writer = Writer(out, err)
    for number in range(500):
        writer.out(f"{number}\n")
        if number % 100 == 0:
            writer.err(f"{number}\n")
    writer.close()
    assert out.getvalue().split() == [str(number) for number in range(500)]
    assert err.getvalue().split() == ["0", "100", "200", "300", "400"]


class Counted(io.StringIO):
    """A stream that counts how often it is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


def test_text_that_gathers_is_written_in_one_piece() -> None:
    """What is given within the time for gathering is written together, and whoever flushes does not wait for that."""
    out = Counted()
    writer = Writer(out, io.StringIO(), gather=1e6)
    for number in range(100):
        writer.out(f"{number}\n")
    writer.flush(30)
    assert out.getvalue().split() == [str(number) for number in range(100)]
    assert out.writes == 1
    writer.out("more\n")
    writer.close()
    assert out.getvalue().endswith("99\nmore\n")


def test_a_stream_that_does_not_take_anything_blocks_nobody() -> None:
    """Giving text returns at once while the terminal is held; nothing is lost when it is let go."""
    held = Held()
    writer = Writer(held, io.StringIO())
    writer.out("first\n")
    assert held.entered.wait(30)
    writer.out("second\n")
    assert writer.busy
    writer.flush(0.0)
    assert held.getvalue() == ""
    held.go.set()
    writer.close()
    assert held.getvalue() == "first\nsecond\n"
    assert not writer.busy


@pytest.mark.parametrize("code", [errno.EPIPE, errno.EIO, errno.ENOSPC])
def test_a_broken_stdout_is_silenced_for_good(code: int) -> None:
    """After the first failure nothing is written to stdout any more, and stderr goes on."""
    out, err = Broken(code), io.StringIO()
    writer = Writer(out, err)
    writer.out("one\n")
    writer.flush()
    writer.out("two\n")
    writer.err("still here\n")
    writer.close()
    assert out.tried == 1
    assert writer.silenced
    assert err.getvalue() == "still here\n"


def test_a_closed_stream_is_silenced() -> None:
    """A stream that Python has closed is no error either."""
    out = io.StringIO()
    out.close()
    writer = Writer(out, io.StringIO())
    writer.out("one\n")
    writer.close()
    assert writer.silenced


def test_what_the_encoding_lacks_is_escaped() -> None:
    """Text that the stream cannot encode is spelt, never an error."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    write_text(stream, "✓ done \udcff\n")
    assert raw.getvalue() == b"\\u2713 done \\udcff\n"


class Sparing(io.RawIOBase):
    """What Python writes to where it does not buffer: it takes a part at a time, at last nothing more."""

    def __init__(self, room: int = 1000) -> None:
        super().__init__()
        self.taken = b""
        self.room = room

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int | None:
        if not self.room:
            return None
        part = bytes(data)[: min(7, self.room)]
        self.taken += part
        self.room -= len(part)
        return len(part)


def test_what_is_taken_in_parts_is_written_whole() -> None:
    """Without Python's buffer, too, all of a text is written, and it is an error where it cannot be."""
    sparing = Sparing()
    write_text(cast("TextIO", SimpleNamespace(buffer=sparing, encoding="utf-8")), "a line of some length\n" * 5)
    assert sparing.taken == b"a line of some length\n" * 5
    full = Sparing(room=10)
    with pytest.raises(BlockingIOError):
        write_bytes(cast("BinaryIO", full), b"more than ten bytes")
    assert full.taken == b"more than "
