"""One supervisor per state root, proven with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from kasmos.exceptions import StateLockedError, StoreError
from kasmos.store.lock import acquire_lock, acquire_lock_nowait, boot_id, read_holder
from kasmos.store.stateroot import StateRoot
from tests.faults.namespace import in_mount_namespace

LIMIT = 120.0

HOLDER = """
import sys
from pathlib import Path
from kasmos.exceptions import StateLockedError
from kasmos.store.lock import acquire_lock_nowait
sys.stdin.read(1)
try:
    with acquire_lock_nowait(Path(sys.argv[1])):
        print("won", flush=True)
        sys.stdin.read()
except StateLockedError:
    print("lost", flush=True)
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that takes the lock when it is written to, and holds it until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=0
    )


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("x")
    process.stdin.flush()


def verdict(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_exactly_one_of_many_wins(tmp_path: Path) -> None:
    """However many supervisors start at once, one of them owns the state root."""
    processes = [holder(tmp_path / "lock") for _ in range(6)]
    for process in processes:
        go(process)
    assert sorted(verdict(process) for process in processes) == ["lost"] * 5 + ["won"]
    for process in processes:
        process.communicate(timeout=LIMIT)


async def test_refusal_names_the_holder(tmp_path: Path) -> None:
    """Whoever does not get the lock is told the process that has it; `kill -9` of that one is all it takes."""
    path = tmp_path / "lock"
    with holder(path) as process:
        go(process)
        assert verdict(process) == "won"
        assert read_holder(path) == process.pid
        with pytest.raises(StateLockedError, match=rf"another supervisor \(pid {process.pid}\)"):
            async with acquire_lock(path, wait=0.02):
                pass
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert read_holder(path) is None
    with acquire_lock_nowait(path) as lock:
        assert lock.still_ours()
        assert read_holder(path) == os.getpid()
    assert path.read_bytes() == b""


async def test_lock_is_waited_for(tmp_path: Path) -> None:
    """A lock that is given up within the time one is ready to wait is taken."""
    path = tmp_path / "lock"
    got = trio.Event()

    async def take() -> None:
        async with acquire_lock(path, wait=LIMIT):
            got.set()

    with holder(path) as process:
        go(process)
        assert verdict(process) == "won"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            assert not got.is_set()
            process.kill()
            with trio.fail_after(LIMIT):
                await got.wait()


async def test_waiting_for_the_lock_can_be_cancelled(tmp_path: Path) -> None:
    """Waiting for the lock ends when it is cancelled, and leaves nothing locked."""
    path = tmp_path / "lock"
    with acquire_lock_nowait(path), trio.move_on_after(0.05) as scope:
        async with acquire_lock(path, wait=LIMIT):
            pytest.fail("the lock was given twice")
    assert scope.cancelled_caught
    with acquire_lock_nowait(path):
        pass


def test_started_program_does_not_inherit_the_lock(tmp_path: Path) -> None:
    """A program that a supervisor starts never inherits its lock."""
    path = tmp_path / "lock"
    with acquire_lock_nowait(path):
        process = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with acquire_lock_nowait(path):
            pass
    finally:
        process.kill()
        process.wait()


def test_forged_holder_is_not_believed(tmp_path: Path) -> None:
    """A pid in the lock that now belongs to another process, or to another boot, is not named as the holder."""
    path = tmp_path / "lock"
    with acquire_lock_nowait(path):
        _, started, boot = path.read_text().split()
        for text in (f"1 {started} {boot}\n", f"{os.getpid()} {started} another\n", f"{os.getpid()} 1 {boot}\n", "x"):
            path.write_text(text)
            assert read_holder(path) is None
            with pytest.raises(StateLockedError, match="in use by another process"), acquire_lock_nowait(path):
                pass
    assert boot == boot_id()


def test_removed_lock_is_noticed(tmp_path: Path) -> None:
    """A lock whose file was removed or replaced is no longer ours, and says so."""
    path = tmp_path / "lock"
    with acquire_lock_nowait(path) as lock:
        assert lock.still_ours()
        path.unlink()
        assert not lock.still_ours()
        with acquire_lock_nowait(path) as other:
            assert other.still_ours()
            assert not lock.still_ours()


def test_lock_that_cannot_be_opened(tmp_path: Path) -> None:
    """A lock in a place that does not exist is an error of the store, not of the system."""
    with pytest.raises(StoreError, match="cannot be opened"), acquire_lock_nowait(tmp_path / "missing" / "lock"):
        pass


async def test_lock_of_a_state_root_survives_a_clean_project(tmp_path: Path) -> None:
    """`git clean -fdx` in the project takes nothing from the supervisor that works there."""
    project = tmp_path / "project"
    (project / ".kasmos").mkdir(parents=True)
    await trio.run_process(["git", "init", "-q", str(project)])
    root = StateRoot(tmp_path / "root", project)
    root.prepare()
    async with root.acquire_lock(wait=0) as lock:
        await trio.run_process(["git", "-C", str(project), "clean", "-qffdx"])
        assert not (project / ".kasmos").exists()
        assert lock.still_ours()
        assert root.sessions.is_dir()
        with pytest.raises(StateLockedError), root.acquire_lock_nowait():
            pass


FILL = """
import sys
from pathlib import Path
from kasmos.store.stateroot import StateRoot
try:
    with Path(sys.argv[1], "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
except OSError:
    StateRoot(Path(sys.argv[1], "root")).prepare()
"""


def test_state_root_on_a_full_disk_is_refused(tmp_path: Path) -> None:
    """A state root without a page of free space is refused before anything is started in it."""
    done = in_mount_namespace(
        'mount -t tmpfs -o size=256k none "$1"; exec "$2" -c "$3" "$1"', str(tmp_path), sys.executable, FILL
    )
    assert done.returncode == 1
    assert "cannot be used: No space left on device; choose another one" in done.stderr.splitlines()[-1]
