"""Agents that ask over a protocol of their own: the same approvals as all others have, whoever dies in between."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from kasmos.store.stateroot import find_state_root

from ..agents.conftest import command_lines, marked
from ..conftest import Kas
from ..waiting import LIMIT, wait_for
from .asking_world import asked, marks

SPEAKER = Path(__file__).parents[1] / "programs" / "speaker"
HARNESSES = {"codex": "shell", "opencode": "execute"}
"""One of each protocol, with the name of its tool."""


def configure(kas: Kas, harness: str, steps: str, *, rules: str = "", more: str = "") -> None:
    """A profile whose program does what its prompt says."""
    (kas.cwd / ".kasmos").mkdir()
    (kas.cwd / ".kasmos" / "config.toml").write_text(
        f'[orchestration]\ndefault_agent = "coder"\n[agents.coder]\nprogram = "{SPEAKER}"\nharness = "{harness}"\n'
        f'permission_default = "prompt"\nrules = [{rules}]\n{more}\n'
    )
    (kas.cwd / "plan.md").write_text(f"## Wave 1\n### Task 1: Work\n{steps}\n")


def task(kas: Kas) -> str:
    return json.dumps(json.loads(kas("status", "--json").stdout))


@pytest.mark.parametrize("harness", HARNESSES)
def test_rules_answer(kas: Kas, harness: str) -> None:
    """What a rule allows runs, what another denies does not; nobody is asked, and the task was denied a tool."""
    tool = HARNESSES[harness]
    rules = f'{{ allow = "{tool}", command = "touch *" }}, {{ deny = "*", command = "rm *", name = "no-rm" }}'
    configure(kas, harness, "ask 0 touch marks\nask 1 rm marks", rules=rules)
    ran = kas("run", "plan.md")
    assert ran.code == 1
    assert (kas.cwd / "marks").exists()
    why = kas("why", "w1t1-work").stdout
    assert "no-rm" in why
    assert "tool_denied" in task(kas)


GOES = {"codex": "goes as a message into its turn", "opencode": "goes as a message when this turn is over"}


@pytest.mark.parametrize("harness", HARNESSES)
def test_a_person_says_why(kas: Kas, harness: str) -> None:
    """A person's reason for a no is sent to the program once, and who gave it is told by which way it goes."""
    configure(kas, harness, "ask 0 touch marks")
    with kas.running("run", "plan.md") as run:
        approval = wait_for(lambda: asked(kas, "w1t1-work"))
        denied = kas("deny", approval, "--reason", "not on Fridays")
        assert denied.code == 0, denied.stderr
        assert GOES[harness] in denied.stdout
        assert run.wait(LIMIT) == 1
    assert not (kas.cwd / "marks").exists()
    log = kas("logs", "--raw", "w1t1-work").stdout
    assert log.count("(touch marks) said no: not on Fridays") == 1
    assert "said no: not on Fridays" in kas("logs", "w1t1-work").stdout
    assert "not on Fridays" in kas("why", "w1t1-work").stdout


def test_rules_say_nothing_more(kas: Kas) -> None:
    """A no of a rule makes no turn of its own."""
    configure(kas, "opencode", "ask 0 touch marks", rules='{ deny = "*", command = "touch *" }')
    assert kas("run", "plan.md").code == 1
    assert kas("logs", "--raw", "w1t1-work").stdout.count('"session/prompt"') == 1


MUTE = {"codex": "the protocol of codex's app server", "opencode": "the Agent Client Protocol"}


@pytest.mark.parametrize("harness", MUTE)
def test_a_program_that_is_mute(kas: Kas, harness: str) -> None:
    """A program that never speaks its protocol fails after its handshake_timeout, with words that say so."""
    configure(kas, harness, "ask 0 touch marks", more='handshake_timeout = "500ms"')
    mute = kas.cwd / "mute"
    mute.write_text("#!/bin/sh\nexec sleep 600\n")
    mute.chmod(0o755)
    config = kas.cwd / ".kasmos" / "config.toml"
    config.write_text(config.read_text().replace(str(SPEAKER), str(mute)))
    assert kas("run", "plan.md").code == 1
    assert f"it does not speak {MUTE[harness]}: nothing came within 0.5 s" in kas("why", "w1t1-work").stdout


def test_paths_are_judged(kas: Kas) -> None:
    """A change of several files is allowed by a rule only if all of them are."""
    configure(kas, "opencode", "files 0 src/a src/b\nfiles 1 src/a other/b", rules='{ allow = "*", path = "src/*" }')
    with kas.running("run", "plan.md") as run:
        approval = wait_for(lambda: asked(kas, "w1t1-work"))
        assert (kas.cwd / "ran").read_text() == "files\n"
        assert "and 1 more" in kas("approvals").stdout
        assert kas("approve", approval).code == 0
        assert run.wait(LIMIT) == 0
    assert (kas.cwd / "ran").read_text() == "files\nfiles\n"


@pytest.mark.parametrize("harness", HARNESSES)
def test_a_person_answers_over_deaths(kas: Kas, harness: str) -> None:
    """A question outlives its supervisor: the next one finds the same approval, and the answer arrives once."""
    configure(kas, harness, "ask 0 echo mark >>marks")
    with kas.running("run", "plan.md") as first:
        approval = wait_for(lambda: asked(kas, "w1t1-work"))
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert marks(kas) == 0
    with kas.running("run", "plan.md") as second:
        assert wait_for(lambda: asked(kas, "w1t1-work")) == approval
        # The journal tells of it before the new supervisor can be reached.
        wait_for(lambda: kas("approve", approval).code == 0)
        assert second.wait(LIMIT) == 0
    assert marks(kas) == 1
    assert "allowed by" in kas("why", "w1t1-work").stdout
    told = json.loads(kas("status", "--json").stdout)
    assert "lost" not in json.dumps(told)


def test_a_turn_ends_without_a_supervisor(kas: Kas) -> None:
    """A turn that is answered and goes on ends as it should while nobody supervises; its end is known afterwards."""
    configure(kas, "codex", "ask 0 echo mark >>marks\ngate")
    with kas.running("run", "plan.md") as first:
        assert kas("approve", wait_for(lambda: asked(kas, "w1t1-work"))).code == 0
        wait_for(lambda: marks(kas))
        first.send_signal(signal.SIGKILL)
        first.wait()
    (kas.cwd / "gate").touch()
    assert kas("run", "plan.md").code == 0
    assert marks(kas) == 1


def test_nobody_answers(kas: Kas) -> None:
    """When the time for an answer is over, the program is told no, and goes on."""
    configure(kas, "codex", "ask 0 echo mark >>marks", more='approval_timeout = "1s"')
    assert kas("run", "plan.md").code == 1
    assert marks(kas) == 0
    assert "nobody answered" in kas("why", "w1t1-work").stdout


def test_taken_back_by_the_program(kas: Kas) -> None:
    """What the program asks no more waits for nobody, and an answer to it is refused as stale."""
    configure(kas, "codex", "asks 0 true\ngate\nresolve 0\nask 1 echo mark >>marks")
    with kas.running("run", "plan.md") as run:
        old = wait_for(lambda: asked(kas, "w1t1-work"))
        (kas.cwd / "gate").touch()
        new = wait_for(lambda: found if (found := asked(kas, "w1t1-work")) not in ("", old) else "")
        assert kas("approve", old).code == 4
        assert kas("approve", new).code == 0
        assert run.wait(LIMIT) == 0
    assert marks(kas) == 1


@pytest.mark.parametrize("harness", HARNESSES)
def test_a_stop_leaves_no_tree(kas: Kas, harness: str) -> None:
    """A stop in mid-turn ends the turn, the program and its tools in sessions of their own."""
    number = 10**7 + time.time_ns() % 10**6
    configure(kas, harness, f"tool sleep {number}\nsleep")
    with kas.running("run", "plan.md") as run:
        wait_for(lambda: f"sleep {number}" in command_lines())
        assert kas("stop", "w1t1-work").code == 0
        assert run.wait(LIMIT) == 1
    assert f"sleep {number}" not in command_lines()
    (session,) = find_state_root(kas.cwd, environ=os.environ).session_dir("x").parent.iterdir()
    assert marked(session.name) == {}
    assert "stopped" in kas("why", "w1t1-work").stdout


def test_a_program_that_breaks(kas: Kas) -> None:
    """A program that ends in the middle of a turn has failed, however it exits."""
    configure(kas, "codex", "exit 0")
    assert kas("run", "plan.md").code == 1
    assert "in the middle of its turn" in kas("why", "w1t1-work").stdout


@pytest.mark.parametrize("harness", HARNESSES)
def test_a_conversation_goes_on(kas: Kas, harness: str) -> None:
    """`kas retry --resume` goes on with the conversation that the program told of."""
    configure(kas, harness, "")
    (kas.cwd / "plan.md").write_text(
        '## Wave 1\n### Task 1: Work\nlong 1\n```toml kasmos\nchecks = ["test -e go"]\n```\n'
    )
    assert kas("run", "plan.md").code == 1
    (kas.cwd / "go").touch()
    assert kas("retry", "--resume").code == 0
    raw = kas("logs", "w1t1-work", "--raw").stdout
    assert "thread/resume" in raw or "session/load" in raw
    assert "of old" not in kas("logs", "w1t1-work").stdout
