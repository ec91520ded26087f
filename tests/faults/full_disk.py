"""Supervisors on a disk that is full: run in a mount namespace, with a state root on two megabytes.

Each case is a person with a disk: it starts `kas` in the project, fills the disk, looks, and makes room or does not.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kasmos.client.sync import Supervisor
from kasmos.exceptions import RequestError
from kasmos.model import event as ev
from kasmos.store.reader import read_records
from kasmos.store.stateroot import find_state_root
from tests.faults.small_disk import fill

LIMIT = 180.0


class Ground:
    """One disk, one project, and who supervises it."""

    def __init__(self, state: Path, book: Path, project: Path) -> None:
        self.state, self.book, self.project = state, book, project
        self.said = book / "said"
        self.process: subprocess.Popen[bytes] | None = None

    # --- kas --------------------------------------------------------------------------

    def start(self, *arguments: str) -> None:
        """Start a supervisor that stays with us."""
        with self.said.open("ab") as out:
            self.process = subprocess.Popen(self._command(arguments), stdout=out, stderr=out, cwd=self.project)

    def start_daemon(self, *arguments: str) -> Supervisor:
        """Start a daemon; how to reach it."""
        ready = self.text().count("daemon ready")
        self.start("daemon", "start", "--foreground", *arguments)
        self.until(lambda: self.text().count("daemon ready") > ready)
        (socket,) = self.state.rglob("kas.sock")
        return Supervisor(socket)

    def kas(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end."""
        return subprocess.run(
            self._command(arguments), cwd=self.project, capture_output=True, text=True, timeout=LIMIT, check=False
        )

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "kasmos", *arguments]

    def end(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit status."""
        assert self.process is not None
        self.process.send_signal(signum)
        return self.process.wait(LIMIT)

    # --- what there is to see ---------------------------------------------------------

    def text(self) -> str:
        """What the supervisor has said."""
        return self.said.read_text() if self.said.exists() else ""

    def count(self, word: str) -> int:
        """How often programs have written a word into the ledger."""
        try:
            return (self.book / "ledger").read_text().count(word)
        except FileNotFoundError:
            return 0

    def until(self, holds: Callable[[], Any]) -> None:
        """Wait until something holds; the supervisor lives meanwhile."""
        give_up = time.monotonic() + LIMIT
        while not holds():
            assert time.monotonic() < give_up, self.text()
            assert self.process is None or self.process.poll() is None, self.text()
            time.sleep(0.01)

    @property
    def root(self) -> Path:
        """The state root."""
        (db,) = self.state.rglob("state.db")
        return db.parent

    def events(self) -> list[ev.Event]:
        """What the journal says."""
        return [record.event for record in read_records(self.root / "state.db")]

    # --- the disk ---------------------------------------------------------------------

    def fill(self) -> None:
        """Leave not a byte."""
        fill(self.state)

    def make_room(self) -> None:
        """Give it all back."""
        (self.state / "filler").unlink()


# --- `kas run` --------------------------------------------------------------------------


def waits(here: Ground, *, end: int = 0) -> None:
    """Nothing new begins while the disk is full; with room again all is done."""
    here.start("run", "plan.md")
    here.until(lambda: here.count("start") == 2 and here.text().count("started (pid") == 2)
    here.fill()
    (here.book / "go").touch()
    here.until(lambda: here.count("done") == 2 and "waits for space" in here.text())
    time.sleep(0.3)  # for whatever might be begun nevertheless
    assert here.count("start") == 2
    assert here.process is not None
    if end:
        assert here.end(end) == (-end if end == signal.SIGKILL else 4), here.text()
        here.make_room()
        here.start("run", "plan.md")
    else:
        assert here.process.poll() is None
        here.make_room()
    assert here.process.wait(LIMIT) == 0, here.text()


def killed(here: Ground) -> None:
    """As `waits`, and the supervisor is killed while it waits."""
    waits(here, end=signal.SIGKILL)


def interrupted(here: Ground) -> None:
    """As `waits`, and it is told to stop while it waits: it does, and says by its status that this is not recorded."""
    waits(here, end=signal.SIGINT)
    assert "are not recorded" in here.text()


# --- the daemon -------------------------------------------------------------------------


def refuses(here: Ground) -> None:
    """A daemon answers, says that it is not well, and takes nothing on; with room it goes on."""
    daemon = here.start_daemon()
    plan = here.project / "plan.md"

    def submit(name: str) -> None:
        other = plan.with_name(name)
        other.write_bytes(plan.read_bytes() + name.encode())
        daemon.submit_run(other.read_bytes(), str(other))

    submit("first.md")
    here.until(lambda: here.count("start") == 1)
    here.fill()
    (here.book / "go").touch()
    here.until(lambda: here.count("done") == 1 and "waits for space" in here.text())
    told = daemon.get("/v1/daemon")
    assert told["healthy"] is False, told
    assert told["problems"], told
    assert daemon.alive(), "no command reaches it"
    status = here.kas("daemon", "status")
    assert status.returncode == 1, status
    assert "cannot be written" in status.stdout, status
    assert [one["kind"] for one in daemon.get("/v1/status")["attention"]] == ["disk_full"]
    for hand_in in (lambda: submit("second.md"), lambda: daemon.post("/v1/tasks", {"prompt": "true"})):
        with pytest.raises(RequestError, match="nothing new is taken on") as refused:
            hand_in()
        assert (refused.value.status, refused.value.code) == (503, "store_unavailable")
    # Whoever would be the supervisor itself, were there none, is told the same.
    run = here.kas("run", "plan.md")
    assert run.returncode == 4, run
    assert "nothing new is taken on" in run.stderr, run
    assert here.count("start") == 1
    here.make_room()
    here.until(lambda: daemon.get("/v1/daemon")["healthy"])
    submit("third.md")
    here.until(lambda: here.count("done") == 2)
    assert here.end() == 0, here.text()


def task_waits(here: Ground) -> None:
    """A task that was accepted while there was room for the journal only waits, and succeeds in its first attempt."""
    # The journal goes on for a while in the room that it has. Here for ever, since sessions have a disk of their own.
    root = find_state_root(here.project, environ=os.environ)
    root.prepare()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", root.sessions], check=True)
    daemon = here.start_daemon()
    filler = fill(root.sessions)
    name = daemon.post("/v1/tasks", {"prompt": "echo start >>$BOOK/ledger"})["task_id"]
    here.until(lambda: daemon.get(f"/v1/tasks/{name}")["status"] == "waiting")
    assert here.count("start") == 0
    assert "no session can be begun" in here.text()
    attention = daemon.get("/v1/status")["attention"]
    assert {(one["kind"], one["id"]) for one in attention} >= {("disk_full", name), ("disk_full", "state_root")}
    assert "waits for room on the disk" in here.kas("status").stdout
    # Neither is it waited for by who drains, nor forgotten by who is killed.
    drained = here.kas("daemon", "stop", "--drain")
    assert "drained; nothing ran; 1 task wait" in drained.stdout, drained
    daemon = here.start_daemon()
    here.until(lambda: daemon.get(f"/v1/tasks/{name}")["status"] == "waiting")
    assert here.end(signal.SIGKILL) == -signal.SIGKILL
    filler.unlink()
    daemon = here.start_daemon()
    here.until(lambda: daemon.get(f"/v1/tasks/{name}")["status"] == "succeeded")
    task = daemon.get(f"/v1/tasks/{name}")
    assert task["attempts"] == 1, task
    assert here.count("start") == 1
    assert here.end() == 0, here.text()


def leaves(here: Ground) -> None:
    """A daemon that is told to stop leaves what runs running, says what is not recorded, and exits 4."""
    name = _have_one_run(here)
    before = here.events()
    assert here.end() == 4, here.text()
    assert "left running" in here.text()
    assert "is not recorded" in here.text() or "are not recorded" in here.text()
    assert "found out by the next start" in here.text()
    assert here.events() == before, "what could not be recorded is there"
    here.make_room()
    daemon = here.start_daemon()
    task = daemon.get(f"/v1/tasks/{name}")
    assert task["status"] == "running", task
    (here.book / "go").touch()
    here.until(lambda: daemon.get(f"/v1/tasks/{name}")["status"] == "succeeded")
    assert here.count("start") == 1
    assert here.end() == 0, here.text()


def hurries(here: Ground) -> None:
    """A second signal cuts the wait for the disk short."""
    daemon = here.start_daemon()
    here.fill()
    _exhaust(here, daemon)
    assert here.process is not None
    here.process.send_signal(signal.SIGTERM)
    here.until(lambda: "leaving" in here.text())
    assert here.end() == 4, here.text()


def stops(here: Ground) -> None:
    """What is stopped by order although nothing can be recorded is begun anew by the next daemon, as is promised."""
    name = _have_one_run(here)
    stopped = here.kas("daemon", "stop", "--stop")
    assert stopped.returncode == 0, stopped
    assert "it could not record what it did" in stopped.stdout, stopped
    assert here.process is not None
    assert here.process.wait(LIMIT) == 4, here.text()
    here.make_room()
    (here.book / "go").touch()
    daemon = here.start_daemon()
    here.until(lambda: daemon.get(f"/v1/tasks/{name}")["status"] == "succeeded")
    assert here.count("start") == 2
    assert here.end() == 0, here.text()


def _have_one_run(here: Ground) -> str:
    """Start a daemon, hand in a task that runs until the book says `go`, and leave its disk no room; the task's id."""
    daemon = here.start_daemon()
    prompt = "echo start >>$BOOK/ledger; until [ -e $BOOK/go ]; do sleep 0.1; done"
    name: str = daemon.post("/v1/tasks", {"prompt": prompt})["task_id"]
    here.until(lambda: here.count("start") == 1)
    # It runs before that is recorded.
    here.until(lambda: any(isinstance(event, ev.SessionStarted) for event in here.events()))
    here.fill()
    _exhaust(here, daemon)
    return name


def _exhaust(here: Ground, daemon: Supervisor) -> None:
    """Have things happen until the journal has used up the room that it had."""

    def hand_in() -> None:
        with suppress(RequestError):
            while "waits for space" not in here.text():
                daemon.post("/v1/tasks", {"prompt": "true", "context": {"ballast": "x" * 4096}})

    # Beside us: the last one waits for some seconds until it is refused.
    threading.Thread(target=hand_in, daemon=True).start()
    here.until(lambda: "waits for space" in here.text())


CASES = {case.__name__: case for case in (waits, killed, interrupted, refuses, task_waits, leaves, hurries, stops)}


def main(case: str, state: str, book: str, project: str, kept: str) -> None:
    """Play a case, and keep what is on the disk, which nobody else can see."""
    here = Ground(Path(state), Path(book), Path(project))
    os.environ["BOOK"] = book
    try:
        CASES[case](here)
    finally:
        if here.process is not None and here.process.poll() is None:
            here.process.kill()
            here.process.wait()
        (Path(state) / "filler").unlink(missing_ok=True)
        shutil.copytree(state, kept, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))


if __name__ == "__main__":
    main(*sys.argv[1:])
