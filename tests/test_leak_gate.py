"""The leak gate notices every kind of leak, names it, and removes it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import trio

from tests.leaks import close_gate, open_gate

SOON = 0.2
"""Enough patience to look twice; nothing here is on its way out unless the test says so."""


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_nothing_left(root: Path) -> None:
    """A test that leaves nothing behind passes, at once."""
    gate = open_gate([root])
    begin = time.monotonic()
    assert close_gate(gate, patience=60) == []
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("everywhere", [True, False])
def test_child_left(root: Path, everywhere: bool) -> None:
    """A child process that still runs is named and killed."""
    gate = open_gate([root], everywhere=everywhere)
    child = subprocess.Popen(["sleep", "1000"])
    (leak,) = close_gate(gate, patience=SOON)
    assert f"process {child.pid} (sleep): a descendant of the test: sleep 1000" in leak
    assert gone(child.pid)
    assert child.wait() == 0  # reaped by the gate: nobody can know its status any more


def test_zombie_left(root: Path) -> None:
    """A child that has ended but was never waited for is a leak too."""
    gate = open_gate([root])
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    (leak,) = close_gate(gate, patience=SOON)
    assert f"process {pid} " in leak
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_child_before_the_test(root: Path) -> None:
    """What was there before the test is not its leak."""
    with subprocess.Popen(["sleep", "1000"]) as child:
        gate = open_gate([root])
        assert close_gate(gate, patience=SOON) == []
        assert child.poll() is None
        child.kill()


def test_child_on_its_way_out(root: Path) -> None:
    """What ends by itself within the patience is waited for, and is no leak."""
    gate = open_gate([root])
    reader, writer = os.pipe()
    # A grandchild, so that its zombie is not ours.
    subprocess.run(["sh", "-c", f"(read x; exit 0) <&{reader} &"], pass_fds=[reader], cwd=root, check=True)
    os.close(reader)
    threading.Timer(0.2, os.close, [writer]).start()
    assert close_gate(gate) == []


def orphan(program: list[str], *, stdin: int = subprocess.DEVNULL, cwd: Path | str = "/", env: dict[str, str]) -> int:
    """Start a program in a kernel session of its own below a parent that ends; it must print its pid first."""
    read, write = os.pipe()
    subprocess.run(["setsid", "-f", *program], stdin=stdin, stdout=write, cwd=cwd, env=env, check=True)
    os.close(write)
    pid = int(os.read(read, 100))
    os.close(read)
    return pid


@pytest.mark.parametrize("trace", ["environ", "cmdline", "cwd"])
def test_orphan_left(root: Path, trace: str) -> None:
    """An orphan in a kernel session of its own is found by its environment, command line or directory alone."""
    gate = open_gate([root])
    code = "import os, signal; print(os.getpid(), flush=True); os.close(1); signal.pause()"
    pid = orphan(
        [sys.executable, "-c", code, *([str(root)] if trace == "cmdline" else [])],
        cwd=root if trace == "cwd" else "/",
        env={"MARK": str(root)} if trace == "environ" else {},
    )
    (leak,) = close_gate(gate, patience=SOON)
    assert leak.startswith(f"process {pid} (python")
    assert "names a directory of the test" in leak
    assert gone(pid)


def test_descriptor_left(root: Path) -> None:
    """A descriptor that stays open is named and closed."""
    gate = open_gate([root])
    fd = os.open(root, os.O_RDONLY)
    assert close_gate(gate, patience=SOON) == [f"descriptor {fd} -> {root}"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_descriptor_held_by_garbage(root: Path) -> None:
    """A descriptor that only garbage holds is closed with it, and is no leak."""
    gate = open_gate([root])
    cycle: list[object] = [socket.socket()]
    cycle.append(cycle)
    del cycle
    with pytest.warns(ResourceWarning):
        leaks = close_gate(gate, patience=SOON)
    assert leaks == []


def test_thread_left(root: Path) -> None:
    """A thread that still runs is named."""
    gate = open_gate([root])
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="stray")
    thread.start()
    try:
        assert close_gate(gate, patience=SOON) == ["thread 'stray' is still running"]
    finally:
        end.set()
        thread.join()


def test_idle_worker_threads_of_trio(root: Path) -> None:
    """Trio's idle worker threads are kept by Trio for a while, and are no leak."""

    async def main() -> None:
        await trio.to_thread.run_sync(time.monotonic)

    gate = open_gate([root])
    trio.run(main)
    assert close_gate(gate, patience=SOON) == []


def test_abandoned_worker_thread_of_trio(root: Path) -> None:
    """A worker thread of Trio that was abandoned at its work is a leak."""
    end = threading.Event()

    async def main() -> None:
        with trio.move_on_after(0.05):
            await trio.to_thread.run_sync(end.wait, abandon_on_cancel=True)

    gate = open_gate([root])
    trio.run(main)
    try:
        (leak,) = close_gate(gate, patience=SOON)
        assert "still running" in leak
    finally:
        end.set()


def test_listener_without_a_trace(root: Path) -> None:
    """Who listens on a socket in the test's directory is found by the socket, if nothing else tells."""
    gate = open_gate([root])
    code = (
        "import os, signal, socket; s = socket.socket(socket.AF_UNIX)\n"
        "s.bind(os.path.join(os.read(0, 4096).decode(), 'sock')); s.listen()\n"
        "print(os.getpid(), flush=True); os.close(1); signal.pause()"
    )
    read, write = os.pipe()
    os.write(write, str(root).encode())
    pid = orphan([sys.executable, "-c", code], stdin=read, env={})
    os.close(read)
    os.close(write)
    assert close_gate(gate, patience=SOON) == [f"socket {root}/sock: still listened on by [{pid}]"]
    assert gone(pid)


def test_gate_kills_what_forks(root: Path) -> None:
    """A program that keeps forking is killed to its last descendant."""
    gate = open_gate([root])
    child = subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 1000 & sleep 1000 & wait; done"])
    assert len(close_gate(gate, patience=SOON)) >= 1
    assert gone(child.pid)
    child.returncode = -signal.SIGKILL
