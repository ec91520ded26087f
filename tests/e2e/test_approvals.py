"""Approvals from outside: `kas run` shows them, the verbs answer them, and the exit codes tell how that went."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from ..conftest import Kas
from ..waiting import LIMIT, wait_for
from .asking_world import shown

PLAN = """\
# Ask

**Goal:** ask

## Wave 1

### Task 1: Remove

```toml scripted
asks = [ASKS]
```
"""
RM = '{ tool = "Bash", command = "rm x", on_allow = "gone", deny_exit = 4 }'
QUESTION = '{ kind = "question", text = "Which colour?", options = [{ label = "Red" }, { label = "Blue" }] }'
CONFIG = """\
[agents.coder]
program = "coder"
execution_mode = "scripted"
"""


def prepare(kas: Kas, asks: str, config: str = "") -> None:
    (kas.cwd / ".kasmos").mkdir(exist_ok=True)
    (kas.cwd / ".kasmos" / "config.toml").write_text(CONFIG + config)
    (kas.cwd / "plan.md").write_text(PLAN.replace("ASKS", asks))


@contextmanager
def running(kas: Kas, asks: str, config: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`kas run` of a plan that asks, once it has asked; and the id."""
    prepare(kas, asks, config)
    with kas.running("run", "plan.md", "--agent", "coder") as process:
        yield process, wait_asked(process)


def wait_asked(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"waits for you: .*\(kas (?:approve|answer) ([a-z]{4})", line):
            return found[1]
    raise AssertionError("it asked nothing")


def test_approve(kas: Kas) -> None:
    """What an agent asks is listed, shown by every view, and approved; the run goes on and succeeds."""
    with running(kas, RM) as (process, name):
        (listed,) = json.loads(kas("approvals", "--json").stdout)
        assert (listed["approval_id"], listed["tool"], listed["command"]) == (name, "Bash", "rm x")
        assert "waits for you: no rule allows it" in kas("approvals").stdout
        assert f"waiting for you: kas approve {name}" in kas("status").stdout
        assert "waiting" in kas("ps").stdout
        assert f"asked {name}: Bash rm x: waits for you" in kas("why", "1").stdout
        result = kas("approve", name)
        assert (result.code, result.stdout) == (0, f"{name} allowed (w1t1-remove: Bash rm x)\n")
        assert process.wait(LIMIT) == 0
    assert re.search(rf"asked {name}: Bash rm x: allowed by \w+", kas("why", "1").stdout)
    assert kas("approvals").stderr == "kas: nothing waits for you\n"


def test_at_a_terminal(kas: Kas) -> None:
    """On a terminal a run shows that it waits for a person, and how to answer."""
    prepare(kas, RM)
    words = r"waiting for you: kas approve ([a-z]{4})"
    with shown(kas, "run", "plan.md", "--agent", "coder") as (process, tty):
        found = wait_for(lambda: re.search(words, tty.text) or process.poll() is not None)
        assert process.poll() is None, tty.text
        assert kas("approve", found[1]).code == 0
        assert process.wait(LIMIT) == 0, tty.text


def test_deny(kas: Kas) -> None:
    """A refusal reaches the program, and its reason the journal."""
    with running(kas, RM) as (process, name):
        assert kas("deny", name, "--reason", "not today").code == 0
        assert process.wait(LIMIT) == 1
    assert "(not today)" in kas("why", "1").stdout


def test_answer(kas: Kas) -> None:
    """A question is answered by an option or a text, and by nothing else."""
    with running(kas, QUESTION) as (process, name):
        for wrong in (("approve", name), ("answer", name, "-n", "3")):
            result = kas(*wrong)
            assert result.code == 4
            assert "options" in result.stderr
        assert kas("answer", name, "-n", "2").code == 0
        assert process.wait(LIMIT) == 0


def test_refusals(kas: Kas) -> None:
    """Who answers what is unknown, answered or gone is told so; without a supervisor nothing can be answered."""
    with running(kas, f"{RM}, {RM}") as (process, first):
        result = kas("approve", "zzzz")
        assert (result.code, result.stderr) == (
            4, "kas: there is no approval 'zzzz'; `kas approvals` lists what waits\n"
        )  # fmt: skip
        assert kas("approve", first).code == 0
        second = wait_asked(process)
        assert "answered already" in kas("deny", first).stderr
        assert kas("approve", second).code == 0
        assert process.wait(LIMIT) == 0
    assert kas("approve", second).code == 3


def test_rule(kas: Kas) -> None:
    """A rule of the configuration answers, and the run's log names it."""
    rules = 'rules = [{ allow = "Bash", command = "rm *", name = "cleanup" }]\n'
    with running(kas, f"{RM}, {QUESTION}", rules) as (process, name):
        assert "allowed by rule cleanup" in kas("approvals", "--all").stdout
        assert kas("answer", name, "-n", "1").code == 0
        assert process.wait(LIMIT) == 0
