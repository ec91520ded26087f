"""`kas doctor` on this machine, in projects that are sound and in ones that are not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from ..conftest import Kas


def findings(output: str, area: str) -> list[dict[str, Any]]:
    return [finding for finding in json.loads(output)["findings"] if finding["area"] == area]


def test_doctor_of_a_sound_project(kas: Kas) -> None:
    """Where everything is there, it exits 0, says so in its last line and leaves nothing behind."""
    result = kas("doctor")
    assert result.code == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "everything that is needed is there"
    assert "no supervisor" in result.stdout
    assert list(kas.cwd.iterdir()) == []


def test_doctor_of_a_wrong_configuration(kas: Kas) -> None:
    """Every mistake of the configuration is a problem of its own, and the rest is looked at all the same."""
    (kas.cwd / ".kasmos").mkdir()
    (kas.cwd / ".kasmos" / "config.toml").write_text("[orchestration]\nmax_concurent = 1\nretries = -1\n")
    result = kas("doctor", "--json")
    assert result.code == 1, result.stderr
    assert [finding["level"] for finding in findings(result.stdout, "project")] == ["problem", "problem"]
    assert findings(result.stdout, "machine")
    assert json.loads(result.stdout)["problems"] == 2


def test_doctor_of_missing_agents(kas: Kas) -> None:
    """A profile whose program is not there is a problem with a cure, unless it is not enabled."""
    (kas.cwd / ".kasmos").mkdir()
    (kas.cwd / ".kasmos" / "config.toml").write_text(
        '[agents.one]\nprogram = "no-such-agent"\n'
        '[agents.two]\nprogram = "no-such-agent"\nenabled = false\n'
        '[agents.claude]\nprogram = "/nowhere/claude"\n'
    )
    result = kas("doctor", "--json")
    assert result.code == 1, result.stderr
    levels = {found["text"].partition(":")[0]: found for found in findings(result.stdout, "agents")}
    assert {name: found["level"] for name, found in levels.items()} == {
        "shell": "fine",
        "one": "problem",
        "two": "fine",
        "claude": "problem",
    }
    assert "npm install" in levels["claude"]["cure"]


PLAN = """## Wave 1
### Task 1: Wait
```toml kasmos
agent = "shell"
```
```sh
exec sleep 600
```
"""


def pids(nodes: list[dict[str, Any]]) -> Iterator[int]:
    for node in nodes:
        yield node["pid"]
        yield from pids(node["children"])


def wait_for_tree(kas: Kas, supervisor: subprocess.Popen[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tree and its session, once the program of the plan's only task runs."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and supervisor.poll() is None:
        tree = json.loads(kas("doctor", "--json").stdout)["tree"]
        for run in tree["runs"]:
            for task in run["tasks"]:
                for session in task["sessions"]:
                    if session["pid"] in pids(session["processes"]):
                        return tree, session
    supervisor.kill()
    raise AssertionError(f"the program did not start: {supervisor.communicate()}")


def test_doctor_of_a_killed_supervisor(kas: Kas) -> None:
    """The live tree reaches down to the program; after `kill -9` of the supervisor what is left of it is a problem."""
    (kas.cwd / "plan.md").write_text(PLAN)
    with kas.running("run", "plan.md") as supervisor:
        tree, session = wait_for_tree(kas, supervisor)
        assert tree["supervisor"] == supervisor.pid
        assert kas("doctor").code == 0
        supervisor.kill()
        supervisor.wait()
    try:
        result = kas("doctor", "--json")
        assert result.code == 1, result.stderr
        (finding,) = findings(result.stdout, "sessions")
        assert finding["level"] == "problem"
        assert session["id"] in finding["text"]
        assert "kas resume" in finding["cure"]
        assert json.loads(result.stdout)["tree"]["supervisor"] is None
    finally:
        for pid in pids(session["processes"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
