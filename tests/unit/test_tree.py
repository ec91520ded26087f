"""Unit tests of `kasmos.sessions.tree` and `kasmos.sessions.processes`: who of a process table may be stopped."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import cast

import pytest

from kasmos.model.profile import LeftoverPolicy, Leftovers
from kasmos.sessions.processes import ProcessEntry, ProcessId, is_at_work, parse_stat, read_entry
from kasmos.sessions.scanner import Scanner
from kasmos.sessions.tree import Kin, Member, Tree

US = os.getpid()
STOP = Leftovers()


def entry(pid: int, ppid: int, comm: str = "tool", *, tty: int = 0, state: str = "S") -> ProcessEntry:
    return ProcessEntry(ProcessId(pid, 100), ppid=ppid, sid=pid, comm=comm, tty=tty, state=state)


def judge(
    member: ProcessEntry, *others: ProcessEntry, known_by: str = "marker", leftovers: Leftovers = STOP
) -> tuple[str, str]:
    """What is to be done with *member* in a table of it and *others*, and why."""
    # Judging looks at nothing but what it is given.
    scanner: Scanner = object.__new__(Scanner)
    tree = Tree(Kin("s", "/lease", sid=500, helpers={500, 501}), scanner, leftovers)
    table = [entry(US, 1, "kas"), member, *others]
    [(_, leftover)] = tree.judge([Member(member, known_by)], table, lambda one: one.state != "Z")
    return leftover.action, leftover.reason


@pytest.mark.parametrize(
    ("member", "others"),
    [
        pytest.param(entry(900, 1), (), id="its parent is gone"),
        pytest.param(entry(900, 700), (entry(700, 1, state="Z"),), id="its parent has ended since the look"),
        pytest.param(entry(900, 501), (entry(501, 500), entry(500, US)), id="below the shim"),
        pytest.param(entry(900, 700), (entry(700, 1, "systemd"),), id="below who collects orphans"),
        pytest.param(entry(900, US), (), id="below the supervisor"),
    ],
)
def test_judge_stops_what_is_ours(member: ProcessEntry, others: tuple[ProcessEntry, ...]) -> None:
    """A process known by its mark is stopped if everybody above it is of the session, or gone."""
    assert judge(member, *others) == ("stopped", "known by marker")


@pytest.mark.parametrize(
    ("member", "others", "reason"),
    [
        pytest.param(entry(900, 1, "ssh-agent"), (), "belongs to the user's ssh-agent", id="a daemon"),
        pytest.param(
            entry(900, 800), (entry(800, 700), entry(700, 1, "tmux: server")), "belongs to the user's tmux: server",
            id="below a daemon",
        ),
        pytest.param(
            entry(900, 700), (entry(700, 1, "cron"),), "was started by cron (pid 700), which is not of this session",
            id="below a stranger",
        ),
        pytest.param(entry(900, 1, tty=34816), (), "has a terminal", id="at a terminal"),
    ],
)  # fmt: skip
def test_judge_spares_what_is_not(member: ProcessEntry, others: tuple[ProcessEntry, ...], reason: str) -> None:
    """A process known by its mark is reported if a daemon, a stranger or a terminal speaks for it."""
    assert judge(member, *others) == ("reported", reason)


def test_judge_kernel_session() -> None:
    """In the session's own kernel session everybody is stopped, whatever its name, unless the profile spares it."""
    daemon = entry(900, 1, "ssh-agent", tty=34816)
    assert judge(daemon, known_by="session")[0] == "stopped"
    assert judge(daemon, known_by="session", leftovers=Leftovers(spare=("ssh-agent",)))[0] == "reported"
    assert judge(daemon, known_by="session", leftovers=Leftovers(LeftoverPolicy.REPORT))[0] == "reported"


class Table:
    """A scanner whose looks are told beforehand."""

    def __init__(self) -> None:
        self.entries: list[ProcessEntry] = []

    async def look(self, since: int) -> list[ProcessEntry]:
        return self.entries


def in_session(pid: int, *, start: int = 100, markers: frozenset[str] = frozenset()) -> ProcessEntry:
    return ProcessEntry(ProcessId(pid, start), ppid=1, sid=500, comm="tool", tty=0, state="S", markers=markers)


async def test_kernel_session_of_an_adopted_session() -> None:
    """Of a kernel session that we did not open somebody must be known at each look; else it is another's."""
    table = Table()
    tree = Tree(Kin("s", "/lease", sid=500, known={ProcessId(510, 100)}), cast(Scanner, table), STOP)

    async def found(*entries: ProcessEntry) -> list[int]:
        table.entries = list(entries)
        members, _ = await tree.members()
        return [member.entry.id.pid for member in members]

    assert await found(in_session(510), in_session(511)) == [510, 511]
    # 510 has ended; 511 was seen beside it.
    assert await found(in_session(511), in_session(512)) == [511, 512]
    # The same numbers, but none of those processes: the number was used anew.
    assert await found(in_session(510, start=900), in_session(513, start=900)) == []
    # Whoever bears the mark proves it as well.
    marked = in_session(514, start=901, markers=frozenset({"s"}))
    assert await found(in_session(513, start=900), marked) == [513, 514]


async def test_kernel_session_of_our_own() -> None:
    """A kernel session that we opened is ours as long as we hold it."""
    table = Table()
    tree = Tree(Kin("s", "/lease", sid=500, own=True), cast(Scanner, table), STOP)
    table.entries = [in_session(511)]
    members, _ = await tree.members()
    assert [member.known_by for member in members] == ["session"]


def stat(name: str, state: str, *, threads: int = 1, exit_code: int = 0) -> bytes:
    fields = [state, "1", "2", "3", *["0"] * 13, str(threads), "0", "77", *["0"] * 29, str(exit_code)]
    return f"42 ({name}) {' '.join(fields)}".encode()


@pytest.mark.parametrize("name", ["sh", "a b", "a) S 9 (b", ")"])
def test_parse_stat_name(name: str) -> None:
    """A process may have blanks and parentheses in its name."""
    found = parse_stat(stat(name, "S"))
    assert (found.id, found.comm, found.ppid, found.sid) == (ProcessId(42, 77), name, 1, 3)


def test_parse_stat_zombie() -> None:
    """A zombie tells its wait status; one with threads left is none."""
    assert parse_stat(stat("sh", "Z", exit_code=1792)).exit_code == 1792
    alive = parse_stat(stat("sh", "Z", threads=2, exit_code=1792))
    assert (alive.state, alive.exit_code) == ("S", None)


@pytest.mark.parametrize("line", [b"", b"42", b"42 (sh", b"42 (sh) S 1"])
def test_parse_stat_torn(line: bytes) -> None:
    """Half a line is no process."""
    with pytest.raises((ValueError, IndexError)):
        parse_stat(line)


def test_at_work() -> None:
    """A process is at work until it has begun to end, whether or not it was waited for."""
    us = read_entry(US)
    assert us is not None
    assert is_at_work(us)
    with subprocess.Popen(["/bin/sh", "-c", "exit 3"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        ended = read_entry(child.pid)
        assert ended is not None
        assert not is_at_work(ended)
    assert not is_at_work(ended)


SECOND_THREAD = """
import _thread, ctypes, time
def second():
    time.sleep(0.1)
    print("ready", flush=True)
    time.sleep(600)
_thread.start_new_thread(second, ())
ctypes.CDLL(None).syscall(%d, 0)
"""
EXIT = {"x86_64": 60}.get(platform.machine(), 93)
"""Number of the system call that ends a thread and not its process."""


def test_at_work_in_another_thread() -> None:
    """A process is at work also when its first thread has ended."""
    with subprocess.Popen([sys.executable, "-c", SECOND_THREAD % EXIT], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        found = read_entry(child.pid)
        assert found is not None
        assert is_at_work(found)
        child.kill()
