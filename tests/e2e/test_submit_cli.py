"""`kas submit` and `kas tail`, against a supervisor that runs, and without one."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kasmos.store.stateroot import find_state_root
from tests.conftest import Kas, PatientKas
from tests.waiting import LIMIT, wait_for

CONFIG = """\
[orchestration]
default_agent = "shell"
max_concurrent = 2
"""
HOLD = """\
## Wave 1

### Task 1: Hold the door

```sh
until test -e over; do sleep 0.05; done
```
"""


@pytest.fixture
def project(kas: Kas) -> Path:
    folder = kas.cwd / ".kasmos"
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG)
    (kas.cwd / "plan.md").write_text(HOLD)
    return kas.cwd


@pytest.fixture
def supervisor(kas: Kas, project: Path) -> Iterator[Callable[[], None]]:
    """A `kas run` that is under way; call it to kill it, and have another one take over."""
    with kas.running("run", "plan.md") as first:
        wait_for(find_state_root(project, environ=os.environ).socket.exists)
        with kas.running("run", "plan.md") as second:

            def kill() -> None:
                # A follower has not the patience for a successor that has yet to start.
                assert second.stdout is not None
                assert any("following run" in line for line in second.stdout)
                first.send_signal(signal.SIGKILL)
                first.wait()

            yield kill
            (project / "over").touch()
            second.communicate(timeout=240)
        if first.poll() is None:
            first.communicate(timeout=240)


def test_submit_prints_the_id(kas: Kas, project: Path, supervisor: Callable[[], None]) -> None:
    """`kas submit` prints the task's id; `kas tail` what it wrote; `kas status` and `kas runs` know it."""
    done = kas("submit", "echo hello")
    assert done.code == 0
    task_id = done.stdout.strip()
    assert re.fullmatch(r"task_[a-z0-9]+", task_id)
    assert kas("tail", "-f", task_id).stdout == "hello\n"
    assert kas("tail", task_id).stdout == "hello\n"
    assert task_id not in kas("runs").stdout
    assert task_id in kas("runs", "--all").stdout
    (line,) = map(json.loads, kas("tail", task_id, "--json").stdout.splitlines())
    assert (line["text"], line["offset"], line["next_offset"]) == ("hello\n", 0, 6)
    sleeper = kas("submit", "sleep 1000", "--name", "sleeper").stdout.strip()
    waiting = kas("submit", "true", "--need", sleeper).stdout.strip()
    assert "1 queued" in kas("status").stdout
    assert kas("stop", "sleeper").code == 0
    assert kas("tail", "-f", waiting).code == 1


def test_wait_exits_with_the_status(kas: Kas, supervisor: Callable[[], None]) -> None:
    """`--wait` exits with 0 for success and 1 for anything else; `--follow` prints the output, `--json` the events."""
    assert kas("submit", "true", "--wait").code == 0
    done = kas("submit", "exit 3", "--wait")
    assert (done.code, done.stderr.splitlines()[-1].endswith(" failed: exit 3")) == (1, True)
    done = kas("submit", "-", "--follow", stdin='cat "$KASMOS_CONTEXT"', env={})
    assert done.code == 1  # There is no context, and cat says so.
    done = kas("submit", 'cat "$KASMOS_CONTEXT"', "--context", '{"a": 1}', "--follow")
    assert (done.code, json.loads(done.stdout)) == (0, {"a": 1})
    done = kas("submit", "echo hi", "--follow", "--json")
    kinds = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    assert (kinds[0], kinds[-1], "output" in kinds) == ("run_started", "task_ended", True)


def test_mistakes_are_named(kas: Kas, project: Path, supervisor: Callable[[], None]) -> None:
    """What is wrong with a task is said whole, before it is handed in or by the supervisor."""
    assert kas("submit", "true", "--context", "nowhere.json").code == 2
    (project / "list.json").write_text("[]")
    assert "no JSON object" in kas("submit", "true", "--context", "list.json").stderr
    done = kas("submit", " ", "-a", "nobody", "--need", "task_none", "--timeout", "soon", "--context-in-prompt")
    assert done.code == 2
    for place in ("PROMPT", "--agent", "--need", "--timeout"):
        assert f"kas: {place}: " in done.stderr
    assert "$." not in done.stderr
    done = kas("submit", "\udcff")
    assert (done.code, "PROMPT: it is no UTF-8 (byte 1)" in done.stderr) == (2, True)


def test_without_a_supervisor(kas: Kas, project: Path) -> None:
    """Without a supervisor both exit with 3 and say what to do."""
    for arguments in (("submit", "true"), ("tail", "task_x")):
        done = kas(*arguments)
        assert done.code == 3
        assert "kas daemon start" in done.stderr


def test_a_task_outlives_its_supervisor(kas: Kas, project: Path, supervisor: Callable[[], None]) -> None:
    """When the supervisor is killed, a follower goes on with the next one: nothing is lost, nothing comes twice."""
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.1; done; touch done"
    # However long the next one takes to come up here.
    patient = PatientKas(project, {"kasmos.cli.tail.PATIENCE": LIMIT})
    with patient.running("submit", script, "--follow") as follower:
        assert follower.stdout is not None
        first = follower.stdout.readline()
        supervisor()
        # Not by `communicate`: that passes over what came together with the first line.
        rest = follower.stdout.read()
        assert follower.stderr is not None
        told = follower.stderr.read()
        assert follower.wait(240) == 0, told
    assert "task" in told, told
    assert (first + rest).split() == [str(number) for number in range(1, 11)]
    assert (project / "done").exists()
