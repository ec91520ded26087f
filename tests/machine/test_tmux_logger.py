"""The logger of a terminal, as the process that it is, between a socket as tmux gives it and its log."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import pytest

from kasmos.sessions import tmux_launch, tmux_logger
from kasmos.sessions.launch import CopierLoss, Records
from kasmos.sessions.tmux_host import children_of
from tests.waiting import LIMIT, wait_for

PIECE = b"0123456789abcdef" * 4096
MARK = b"\x18\x1b^kasmos s1\x1b\\"
LISTENING = ("sh", "-c", 'exec 3<>heard; exec "$@"', "sh")


@attrs.define
class Logger:
    """A logger at work."""

    directory: Path
    process: subprocess.Popen[bytes]
    feed: socket.socket

    @property
    def log(self) -> Path:
        return self.directory / "output.log"

    def reader(self) -> int:
        """Pid of its reader, as soon as there is one."""
        return wait_for(lambda: children_of(self.process.pid))[0].id.pid

    def end(self) -> CopierLoss | None:
        """Give nothing more; what it said was lost."""
        self.feed.close()
        assert self.process.wait(LIMIT) == 0
        return Records(str(self.directory)).copier_lost()


@pytest.fixture
def logger(root: Path) -> Iterator[Logger]:
    """A logger with a log."""
    (root / "output.log").touch()
    yield from start(root)


@pytest.fixture
def hung(root: Path) -> Iterator[Logger]:
    """A logger whose log takes nothing: a pipe that nobody reads stands in for a disk that hangs."""
    os.mkfifo(root / "output.log")
    held = os.open(root / "output.log", os.O_RDWR | os.O_CLOEXEC)
    yield from start(root)
    os.close(held)


def start(root: Path) -> Iterator[Logger]:
    (root / "lost").write_bytes(b" " * 32)
    os.mkfifo(root / "heard")
    feed, theirs = socket.socketpair()
    with open(root / "shim.log", "wb") as errors:
        command = [*LISTENING, sys.executable, "-I", "-S", tmux_logger.__file__, "s1"]
        process = subprocess.Popen(command, cwd=root, stdin=theirs, stderr=errors, start_new_session=True)
    theirs.close()
    feed.settimeout(LIMIT)
    with process:
        yield Logger(root, process, feed)
        feed.close()
        for child in children_of(process.pid):
            with suppress(ProcessLookupError):  # it may be just ending
                os.kill(child.id.pid, signal.SIGKILL)
        process.kill()


def test_all_is_written(logger: Logger) -> None:
    """What it is given is in the log to the byte, in pieces of any size."""
    given = b"".join(bytes([n % 256]) * n for n in range(1, 2000))
    for at in range(0, len(given), 70_001):
        logger.feed.sendall(given[at : at + 70_001])
    assert logger.end() is None
    assert logger.log.read_bytes() == given


def test_end_is_not_waited_for(logger: Logger) -> None:
    """It ends with its terminal, and the last words are written."""
    logger.feed.sendall(b"last words")
    assert logger.end() is None
    assert logger.log.read_bytes() == b"last words"


@pytest.mark.parametrize("who", ["reader", "guardian"])
def test_stopped(logger: Logger, who: str) -> None:
    """If one of its two processes is stopped, it goes on taking what it is given, and loses nothing."""
    reader = logger.reader()
    for _ in range(3):
        os.kill(reader if who == "reader" else logger.process.pid, signal.SIGSTOP)
        for _ in range(200):
            logger.feed.sendall(PIECE)
    os.kill(logger.process.pid, signal.SIGCONT)
    assert logger.end() is None
    assert logger.log.stat().st_size == 600 * len(PIECE)


@contextmanager
def waiting(logger: Logger) -> Iterator[select.poll]:
    """Whoever waits for the logger to have heard all; it has when there is something to poll."""
    logger.reader()  # the shell before it has opened its end by now
    fd = os.open(logger.directory / "heard", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        told = select.poll()
        told.register(fd)
        yield told
    finally:
        os.close(fd)


def test_mark(logger: Logger) -> None:
    """Whoever has written the mark is told as soon as all before it was heard; the mark is not logged."""
    with waiting(logger) as told:
        logger.feed.sendall(b"words\x18" + MARK[:5])
        assert not told.poll(100)
        logger.feed.sendall(MARK[5:] + b"more")
        assert told.poll(LIMIT * 1000)
    assert logger.end() is None
    assert logger.log.read_bytes() == b"words\x18more"


def test_older_supervisor(root: Path) -> None:
    """A supervisor that runs since before there was a mark starts it without a name and without `heard`; it logs."""
    (root / "lost").write_bytes(b" " * 32)
    command = [sys.executable, "-I", "-S", tmux_logger.__file__]
    done = subprocess.run(command, cwd=root, input=b"words", timeout=LIMIT, start_new_session=True, check=False)
    assert done.returncode == 0
    assert (root / "output.log").read_bytes() == b"words"
    assert Records(str(root)).copier_lost() is None


def test_logger_that_cannot_be_attached(root: Path) -> None:
    """Nobody waits for a logger that says no, though no supervisor is at the gate any more to hear it."""
    (root / "copier").mkdir()  # no place for its record
    os.mkfifo(root / "heard")
    os.mkfifo(root / "gate")
    command = ["sh", "-c", tmux_launch.LOGGER, "sh", root, sys.executable, tmux_logger.__file__]
    fd = os.open(root / "heard", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as shell:
        try:
            wait_for(lambda: (root / "shim.log").exists() and (root / "shim.log").read_bytes())
            told = select.poll()
            told.register(fd, 0)
            assert told.poll(LIMIT * 1000)
            assert shell.poll() is None
        finally:
            shell.kill()
            os.close(fd)


def test_beginning_of_a_mark(logger: Logger) -> None:
    """What only looks like the beginning of a mark is logged."""
    logger.feed.sendall(b"words" + MARK[:-1])
    assert logger.end() is None
    assert logger.log.read_bytes() == b"words" + MARK[:-1]


def test_mark_and_killed_reader(logger: Logger) -> None:
    """Nobody waits for a mark of which a reader that was killed may have had a part."""
    with waiting(logger) as told:
        os.kill(logger.reader(), signal.SIGKILL)
        assert told.poll(LIMIT * 1000)
    logger.feed.sendall(MARK + b"words" + MARK)
    assert logger.end() == CopierLoss()
    assert logger.log.read_bytes() == b"words"


def test_killed_reader(logger: Logger) -> None:
    """A reader that is killed is replaced, and that something may be missing is said, and not how much."""
    logger.feed.sendall(b"before")
    wait_for(lambda: logger.log.read_bytes() == b"before")
    os.kill(logger.reader(), signal.SIGKILL)
    logger.feed.sendall(b" and after")
    assert logger.end() == CopierLoss()
    assert logger.log.read_bytes() == b"before and after"


POOR = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("logger", sys.argv[1])
logger = importlib.util.module_from_spec(spec)
spec.loader.exec_module(logger)
logger.PAUSE = 1
fork, refused = os.fork, []

def poor_fork():
    if len(refused) < 3:
        refused.append(1)
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()

logger.os.fork = poor_fork
"""
FAILS = """
class Paused:
    def poll(self, milliseconds):
        os._exit(7 if milliseconds == logger.PAUSE else 8)

def fail(*args, **more):
    raise MemoryError

refused += [1, 1, 1]
logger.read_and_write = fail
logger.select.poll = Paused
"""


def run_logger(root: Path, changes: str) -> subprocess.CompletedProcess[bytes]:
    """A logger in which something is otherwise, with some words to log."""
    (root / "lost").write_bytes(b" " * 32)
    os.mkfifo(root / "heard")
    command = [*LISTENING, sys.executable, "-c", f"{changes}\nlogger.main()", tmux_logger.__file__]
    return subprocess.run(command, cwd=root, input=b"words", capture_output=True, timeout=LIMIT, start_new_session=True)


def test_no_process_to_be_had(root: Path) -> None:
    """Where there are as many processes as may be, it waits for its reader, and nothing is lost."""
    done = run_logger(root, POOR)
    assert done.returncode == 0
    assert done.stderr.count(b"waits until there may be one more process") == 1
    assert (root / "output.log").read_bytes() == b"words"
    assert Records(str(root)).copier_lost() is None


def test_failing_reader(root: Path) -> None:
    """After a reader that failed it pauses: the next one may fail in the same way, and readers would never end."""
    done = run_logger(root, POOR + FAILS)
    assert done.returncode == 7
    assert b"the logger failed: MemoryError()" in done.stderr
    assert Records(str(root)).copier_lost() == CopierLoss()


def test_disk_hangs(hung: Logger) -> None:
    """While the disk hangs it takes all it is given, in bounded memory; what it cannot keep is counted exactly."""
    count = tmux_logger.WAITING_LIMIT // len(PIECE) + 300
    for _ in range(count):
        hung.feed.sendall(PIECE)
    reader = hung.reader()
    assert resident(reader) < tmux_logger.WAITING_LIMIT + 40_000_000
    hung.feed.shutdown(socket.SHUT_WR)
    received, there = 0, True
    log = os.open(hung.log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    while there or hung.process.poll() is None:
        there = bool(select.select([log], [], [], 0.05)[0])
        received += len(os.read(log, 1 << 20)) if there else 0
    os.close(log)
    lost = hung.end()
    assert lost is not None
    assert lost.count
    assert received + lost.count == count * len(PIECE)


def test_full_disk(root: Path) -> None:
    """Where nothing can be written, all is taken and its loss is counted."""
    (root / "output.log").symlink_to("/dev/full")
    for logger in start(root):
        logger.feed.sendall(PIECE)
        assert logger.end() == CopierLoss(len(PIECE), 0)


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
