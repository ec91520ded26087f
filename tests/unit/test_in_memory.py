"""A state root that is on no disk: nobody waits for one, so nothing takes the way to a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest
import trio

from kasmos.model.clock import Clock
from kasmos.model.event import SupervisorStopped
from kasmos.sessions.headless import open_headless
from kasmos.store import database as database_module
from kasmos.store import journal as journal_module
from kasmos.store.filesystem import is_in_memory
from kasmos.store.journal import Journal, open_journal, read_records
from kasmos.supervision.termination import terminate

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:5 / /dev rw,nosuid - devtmpfs devtmpfs rw
24 23 0:25 / /dev/shm rw,nosuid,nodev - tmpfs tmpfs rw
25 22 0:26 / /run rw - ramfs ramfs rw
"""


@pytest.mark.parametrize(
    ("path", "memory"),
    [("/dev/shm/root", True), ("/run/kasmos", True), ("/var/lib/kasmos", False), ("/dev/shm-like", False)],
)
def test_what_is_in_memory(path: str, memory: bool) -> None:
    """tmpfs and ramfs are in memory; everything else may have to wait for a disk."""
    assert is_in_memory(Path(path), MOUNTS) is memory


@asynccontextmanager
async def journal_in_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Journal, None]:
    """A journal that takes its directory for one in memory."""
    monkeypatch.setattr(journal_module, "is_in_memory", lambda directory: True)
    async with open_journal(path, clock=Clock(time.time, time.monotonic), announce=pytest.fail) as journal:
        yield journal


async def test_a_journal_in_memory_needs_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is appended where there is no disk is committed where it is, and is durable all the same."""
    async with journal_in_memory(tmp_path / "state.db", monkeypatch) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(trio.to_thread, "run_sync", None)
            (record,) = await journal.append(SupervisorStopped("here"))
        assert read_records(tmp_path / "state.db") == [record]


async def test_appenders_in_memory_share_a_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What several append in the same turn is one transaction, also where there is no disk to wait for."""
    sizes: list[int] = []
    async with journal_in_memory(tmp_path / "state.db", monkeypatch) as journal:
        journal.measure = lambda events, seconds: sizes.append(events)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(journal.append, SupervisorStopped(str(number)))
    assert sum(sizes) == 10
    assert len(sizes) < 5


async def test_what_is_in_a_thread_already_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit never uses the database while a probe or a pruning does so in a thread."""
    entered, go = threading.Event(), threading.Event()
    async with journal_in_memory(tmp_path / "state.db", monkeypatch) as journal:

        def probe() -> None:
            entered.set()
            assert go.wait(60)

        monkeypatch.setattr(journal._database, "probe", probe)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.probe)
            await trio.to_thread.run_sync(entered.wait)
            nursery.start_soon(journal.append, SupervisorStopped("later"))
            await trio.testing.wait_all_tasks_blocked()
            assert read_records(tmp_path / "state.db") == []
            go.set()
        assert len(read_records(tmp_path / "state.db")) == 1


async def test_who_holds_a_journal_in_memory_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program has a transaction in the journal, appenders wait for its end and all others go on."""
    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT_MS", 30_000)
    path = tmp_path / "state.db"
    async with journal_in_memory(path, monkeypatch) as journal:
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.append, SupervisorStopped("later"))
            await trio.testing.wait_all_tasks_blocked()
            assert read_records(path) == []
            other.execute("ROLLBACK")
        other.close()
        assert len(read_records(path)) == 1


@pytest.mark.parametrize("in_memory", [False, True], ids=["disk", "memory"])
async def test_where_sessions_wait_for_the_disk(tmp_path: Path, in_memory: bool) -> None:
    """Directories of sessions are made in a thread, unless there is no disk to wait for."""
    async with open_headless(tmp_path, terminate=terminate, in_memory=in_memory) as backend:
        found = await backend.services.on_disk(threading.get_ident)
    assert (found == threading.get_ident()) is in_memory
