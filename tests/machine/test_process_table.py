"""One look at the process table, while processes are born behind its back."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio

from kasmos.sessions import process_table, processes
from kasmos.sessions.process_table import ProcessTable
from kasmos.sessions.processes import ProcessEntry
from kasmos.sessions.reserve import Reserve
from kasmos.sessions.scanner import PURSUITS, Scanner

NEWEST = process_table.newest_id


@contextmanager
def born_meanwhile(monkeypatch: pytest.MonkeyPatch, bear: Callable[[], int]) -> Iterator[list[int]]:
    """Something is born as soon as the directory was read, and told by its id."""
    ids: list[int] = []
    asked = itertools.count()

    def newest() -> int:
        if next(asked) == 1:
            ids.append(bear())
        return NEWEST()

    monkeypatch.setattr(process_table, "newest_id", newest)
    yield ids


def own_start() -> int:
    """When this process was started."""
    entry = processes.read_entry(os.getpid())
    assert entry is not None
    return entry.id.start


@pytest.mark.parametrize("many", [250, 0], ids=["asked-one-by-one", "directory-read-again"])
def test_who_is_born_during_a_look_is_seen(monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    """A process that is born behind the back of whoever reads /proc is in the table, once, with its markers."""
    monkeypatch.setattr(process_table, "MANY_BORN", many)
    children: list[subprocess.Popen[bytes]] = []

    def bear() -> int:
        children.append(subprocess.Popen(["/bin/sleep", "1000"], env={"KASMOS_SESSION_ID": "s"}))
        # In the middle of its `execve` its environment seems empty.
        while not processes.read_markers(children[-1].pid):
            time.sleep(0.001)
        return children[-1].pid

    try:
        with born_meanwhile(monkeypatch, bear) as ids:
            sure, _ = ProcessTable().scan(settled=(), since=own_start())
    finally:
        for child in children:
            child.kill()
            child.wait()
    (born,) = [entry for entry in sure if entry.id.pid in ids]
    assert born.markers == {"s"}
    assert len({entry.id for entry in sure}) == len(sure)


def test_a_thread_is_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads have ids as well, which lead to something in /proc; none is taken for a process."""
    go = threading.Event()
    threads: list[threading.Thread] = []

    def bear() -> int:
        threads.append(threading.Thread(target=go.wait))
        threads[-1].start()
        assert threads[-1].native_id is not None
        return threads[-1].native_id

    try:
        with born_meanwhile(monkeypatch, bear) as ids:
            sure, unsure = ProcessTable().scan(settled=(), since=0)
    finally:
        go.set()
        for thread in threads:
            thread.join()
    assert not {entry.id.pid for entry in sure + unsure} & set(ids)


def test_a_look_that_cannot_keep_up_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody is born at each look at who was born, the look ends, and is not complete."""
    newest = itertools.count(NEWEST())
    monkeypatch.setattr(process_table, "newest_id", lambda: next(newest))
    table = ProcessTable()
    table.scan(settled=(), since=own_start())
    assert not table.complete


def test_without_a_word_of_the_newest_the_directory_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc does not tell the newest id, a look is what its directory shows."""

    def refused() -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(process_table, "newest_id", refused)
    table = ProcessTable()
    sure, _ = table.scan(settled=(), since=own_start())
    assert os.getpid() in {entry.id.pid for entry in sure}
    assert table.complete


@pytest.mark.parametrize(("incomplete", "looks"), [(0, 1), (3, 4), (1000, PURSUITS)])
async def test_whoever_cannot_keep_up_looks_again(monkeypatch: pytest.MonkeyPatch, incomplete: int, looks: int) -> None:
    """A look that could not keep up is made again, until one could, or so many have not."""
    made = 0

    def scan(table: ProcessTable, **kwargs: object) -> tuple[list[ProcessEntry], list[ProcessEntry]]:
        nonlocal made
        made += 1
        table.complete = made > incomplete
        return [], []

    monkeypatch.setattr(ProcessTable, "scan", scan)
    reserve = Reserve()
    async with trio.open_nursery() as nursery:
        assert await Scanner(nursery, reserve, pytest.fail).look(0) == []
    reserve.close()
    assert made == looks


@pytest.mark.parametrize("inherits", [False, True])
def test_a_child_of_ours_is_known_until_it_is_waited_for(inherits: bool) -> None:
    """Whom we forked is told from others until it was waited for; not where orphans become our children as well."""
    # In a process of its own: whether this one inherits orphans is not known.
    code = f"""
import ctypes, os, subprocess
from kasmos.sessions import processes
inherits = {inherits}
assert ctypes.CDLL(None).prctl(36, int(inherits), 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, start_new_session=True)
assert processes.is_our_child(child.pid) is not inherits
assert not processes.is_our_child(os.getppid())
child.stdin.close()
os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
assert processes.is_our_child(child.pid) is not inherits
assert child.wait() == 0
assert not processes.is_our_child(child.pid)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
