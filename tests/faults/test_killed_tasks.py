"""A supervisor that is killed at any point while a task is handed in and run: the task is done, and done once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kasmos.client.sync import Supervisor
from kasmos.exceptions import ClientError
from kasmos.store.stateroot import find_state_root
from tests.conftest import Kas

LIMIT = 120.0
CONFIG = '[orchestration]\ndefault_agent = "shell"\nmax_concurrent = 2\n'
HOLD = "## Wave 1\n\n### Task 1: Hold the door\n\n```sh\nuntil test -e over; do sleep 0.05; done\n```\n"
BODY = {"prompt": "echo once >> ran; sleep 0.2"}
KEY = {"Idempotency-Key": "the key"}

# The plan's own task passes the points of sessions first.
POINTS = (
    "task.accepted=kill",
    "session.intent=kill@2",
    "session.spawned=kill@2",
    "session.released=kill@2",
    "session.started=kill@2",
    "session.program-ended=kill",
    "session.ended=kill",
    "task.ended=kill",
    "run.ended=kill",
    "journal.before-commit=kill@6",
    "journal.after-commit=kill@6",
    "journal.before-commit=kill@8",
    "journal.after-commit=kill@8",
)


@pytest.fixture
def supervisor(kas: Kas) -> Supervisor:
    (kas.cwd / ".kasmos").mkdir()
    (kas.cwd / ".kasmos" / "config.toml").write_text(CONFIG)
    (kas.cwd / "plan.md").write_text(HOLD)
    return Supervisor(find_state_root(kas.cwd, environ=os.environ).socket)


def hand_in(supervisor: Supervisor, process: subprocess.Popen[str]) -> dict[str, Any]:
    """Hand the task in, as soon as somebody listens, unless who was to is killed before."""
    give_up = time.monotonic() + LIMIT
    while not supervisor.alive() and process.poll() is None:
        assert time.monotonic() < give_up, "nobody listens"
        time.sleep(0.02)
    return dict(supervisor.post("/v1/tasks", BODY, headers=KEY))


@pytest.mark.parametrize("armed", POINTS)
def test_an_accepted_task_is_done_once(kas: Kas, supervisor: Supervisor, armed: str) -> None:
    """Whenever the supervisor is killed, the same request to the next one is the same task, and it runs once."""
    told: dict[str, Any] | None = None
    with kas.running("run", "plan.md", env={"KASMOS_FAILPOINTS": armed}) as first:
        # Killed before it could answer, nobody knows whether it was accepted.
        with suppress(ClientError):
            told = hand_in(supervisor, first)
        assert first.wait(LIMIT) == -signal.SIGKILL
    with kas.running("run", "plan.md") as second:
        again = hand_in(supervisor, second)
        assert told is None or told["task_id"] == again["task_id"]
        assert _outcome(supervisor, again["task_id"]) == "succeeded"
        assert supervisor.get("/v1/runs?origin=task")["next_cursor"] is None
        assert [run["run_id"] for run in supervisor.get("/v1/runs?origin=task")["runs"]] == [again["task_id"]]
        (kas.cwd / "over").touch()
        second.communicate(timeout=LIMIT)
        assert second.returncode == 0
    assert Path(kas.cwd / "ran").read_text() == "once\n"


def _outcome(supervisor: Supervisor, task_id: str) -> str:
    lines = supervisor.stream_lines(f"/v1/tasks/{task_id}/events")
    events = [json.loads(line) for line in lines]
    seqs = [event["seq"] for event in events if "seq" in event]
    assert seqs == sorted(set(seqs))
    return str(events[-1]["outcome"])
