"""A daemon whose disk is full: it goes on supervising, refuses new work with the reason, and recovers by itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ..conftest import Kas
from .namespace import in_mount_namespace
from .oracle import Scene, Task

DRIVER = r"""
import os, signal, subprocess, sys, time
from pathlib import Path
from kasmos.client.sync import Supervisor
from kasmos.exceptions import RequestError

state, book, *command = sys.argv[1:]
book, ballast, plan = Path(book), Path(state, "ballast"), Path("plan.md").absolute()
said = book / "said"

def until(holds):
    give_up = time.monotonic() + 45
    while not (found := holds()):
        assert time.monotonic() < give_up, said.read_text()
        assert daemon.poll() is None, said.read_text()
        time.sleep(0.02)
    return found

def ledger():
    try:
        return (book / "ledger").read_text()
    except FileNotFoundError:
        return ""

def fill():
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass

def submit(name):
    other = plan.with_name(name)
    other.write_bytes(plan.read_bytes() + name.encode())
    return supervisor.submit_run(other.read_bytes(), str(other))

with said.open("wb") as out:
    daemon = subprocess.Popen(command, stdout=out, stderr=out)
until(lambda: "daemon ready" in said.read_text())
(socket,) = Path(state).rglob("kas.sock")
supervisor = Supervisor(socket)
submit("first.md")
until(lambda: ledger().count("start") == 1)
fill()
(book / "go").touch()
until(lambda: ledger().count("done") == 1)
until(lambda: "waits for space" in said.read_text())
told = supervisor.get("/v1/daemon")
assert told["healthy"] is False and told["problems"], told
assert supervisor.alive(), "no command reaches it"
status = subprocess.run([*command[:-2], "status"], capture_output=True, text=True)
assert status.returncode == 1 and "cannot be written" in status.stdout + status.stderr, status
for hand_in in (lambda: submit("second.md"), lambda: supervisor.post("/v1/tasks", {"prompt": "true"})):
    try:
        hand_in()
    except RequestError as refusal:
        assert (refusal.status, refusal.code) == (503, "store_unavailable"), refusal
        assert "nothing new is taken on" in refusal.detail, refusal
    else:
        raise AssertionError("it was accepted")
assert ledger().count("start") == 1
ballast.unlink()
until(lambda: supervisor.get("/v1/daemon")["healthy"])
submit("third.md")
until(lambda: ledger().count("done") == 2)
daemon.send_signal(signal.SIGTERM)
assert daemon.wait(60) == 0, said.read_text()
"""


def test_full_disk(kas: Kas, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the daemon answers, says that it is not well, and takes nothing on; with room it goes on."""
    scene = Scene(kas)
    scene.write_plan([Task("until_exists go; done_")])
    disk = root / "disk"
    disk.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(disk))
    done = in_mount_namespace(
        'mount -t tmpfs -o size=2m none "$1"; cd "$4"; '
        'exec "$2" -c "$3" "$1" "$5" "$2" -m kasmos daemon start --foreground',
        str(disk), sys.executable, DRIVER, str(kas.cwd), str(scene.book),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
