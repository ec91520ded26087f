"""Agents under a real supervisor: their own word decides, and what they say is told to people and programs."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Kas
from ..waiting import LIMIT, wait_for
from .asking_world import shown

HERE = Path(__file__).parents[1]
RECORDED = HERE / "data" / "transcripts"


def configure(kas: Kas, transcript: str, keys: str = "", **env: Any) -> None:
    """A profile `coder` whose program says what claude once said."""
    variables = {"REPLAY": RECORDED / transcript, **env}
    lines = [f'{name} = "{value}"' for name, value in variables.items()]
    (kas.cwd / ".kasmos").mkdir(exist_ok=True)
    (kas.cwd / ".kasmos" / "config.toml").write_text(
        f'[orchestration]\ndefault_agent = "coder"\n[agents.coder]\nprogram = "{HERE / "programs" / "replay"}"\n'
        f'harness = "claude"\n{keys}\n[agents.coder.env]\n' + "\n".join(lines) + "\n"
    )
    (kas.cwd / "plan.md").write_text("## Wave 1\n### Task 1: Work\nDo it.\n")


def test_arguments_of_a_known_program(kas: Kas) -> None:
    """A known program gets what it needs for a headless turn, and the plan check shows it."""
    said = kas.cwd / "arguments"
    configure(kas, "claude/text.out", 'model = "opus"', REPLAY_ARGS=said)
    checked = kas("plan", "check", "plan.md")
    assert "-p --output-format stream-json --verbose --model opus" in checked.stdout
    assert kas("run", "plan.md").code == 0
    assert said.read_text().splitlines()[:6] == [
        *("-p", "--output-format", "stream-json", "--verbose"),
        *("--model", "opus"),
    ]


@pytest.mark.parametrize(
    ("transcript", "code", "kind", "words"),
    [
        ("claude/nokey.out", 1, "auth", "Not logged in"),
        ("claude/hang.out", 0, "unknown", "without a result"),
        ("claude/max_turns.out", 1, "max_turns", "turns"),
    ],
)
def test_failures_are_told_by_kind(kas: Kas, transcript: str, code: int, kind: str, words: str) -> None:
    """A failure has its kind and the program's own words wherever it is told."""
    configure(kas, transcript, REPLAY_EXIT=code)
    ran = kas("run", "plan.md", "--junit", "junit.xml")
    assert ran.code == 1
    assert words in (kas.cwd / "junit.xml").read_text()
    assert words in kas("why", "w1t1-work").stdout
    tasks = json.loads(kas("status", "--json").stdout)
    assert f'"failure": "{kind}"' in json.dumps(tasks) or kind == "unknown"


def test_a_supervisor_killed_in_mid_stream(kas: Kas) -> None:
    """What a program says while nobody supervises it counts: the next supervisor reads it from the beginning."""
    gate = kas.cwd / "gate"
    configure(kas, "claude/task.out", REPLAY_GATE=gate)
    with kas.running("run", "plan.md") as first:
        wait_for(lambda: "tool" in kas("logs", "w1t1-work", "--raw").stdout)
        first.send_signal(signal.SIGKILL)
        first.wait()
    gate.touch()
    again = kas("run", "plan.md")
    assert again.code == 0, again.stdout + again.stderr


def test_logs_of_an_agent_are_rendered(kas: Kas) -> None:
    """`kas logs` tells what an agent means by default, also while it works; `--raw` has every byte."""
    gate = kas.cwd / "gate"
    configure(kas, "claude/text.out", REPLAY_GATE=gate)
    with kas.running("run", "plan.md") as run:
        wait_for(lambda: "assistant" in kas("logs", "w1t1-work", "--raw").stdout)
        with kas.running("logs", "-f", "w1t1-work") as follower:
            assert follower.stdout is not None
            first = follower.stdout.readline()
            assert first.strip()
            assert not first.startswith("{")
            gate.touch()
            rest = follower.stdout.read()
            assert follower.wait(LIMIT) == 0
        assert run.wait(LIMIT) == 0
    assert "succeeded" in rest
    assert kas("logs", "w1t1-work", "--raw").stdout == (RECORDED / "claude" / "text.out").read_text()


def test_the_live_view_tells_what_an_agent_says(kas: Kas) -> None:
    """On a terminal, a run shows what its agent says or does now, and not the JSON in which it says so."""
    gate = kas.cwd / "gate"
    configure(kas, "claude/task.out", REPLAY_GATE=gate)
    with shown(kas, "run", "plan.md") as (process, tty):
        wait_for(lambda: "DONE-task" in tty.text or process.poll() is not None)
        assert process.poll() is None, tty.text
        gate.touch()
        assert process.wait(LIMIT) == 0, tty.text
        assert '{"type"' not in tty.text


def test_a_program_that_stays_is_sent_away(kas: Kas) -> None:
    """A program that is done and does not exit is stopped after its grace, and its task has succeeded."""
    configure(kas, "claude/text.out", 'exit_grace = "200ms"\nstop_grace = "200ms"')
    program = kas.cwd / "stays"
    program.write_text(f"#!/bin/sh\n{HERE / 'programs' / 'replay'}\nexec sleep 1000\n")
    program.chmod(0o755)
    config = kas.cwd / ".kasmos" / "config.toml"
    config.write_text(config.read_text().replace(str(HERE / "programs" / "replay"), str(program)))
    ran = kas("run", "plan.md")
    assert ran.code == 0, ran.stdout + ran.stderr


CHOICES = ("--resume", "--session-id")


def conversations(kas: Kas) -> list[str]:
    """How the program was told of its conversation, start by start."""
    said = [json.loads(line) for line in (kas.cwd / "starts").read_text().splitlines()]
    return [" ".join(words[at : at + 2]) for words in said for at, word in enumerate(words) if word in CHOICES]


def remember_starts(kas: Kas) -> None:
    """Let the program keep the arguments of each start, in the directory it is started in."""
    program = kas.cwd / "remembers"
    keep = "import json, sys; open('starts', 'a').write(json.dumps(sys.argv[1:]) + chr(10))"
    program.write_text(f'#!/bin/sh\npython3 -c "{keep}" "$@"\nexec {HERE / "programs" / "replay"}\n')
    program.chmod(0o755)
    config = kas.cwd / ".kasmos" / "config.toml"
    config.write_text(config.read_text().replace(str(HERE / "programs" / "replay"), str(program)))


def test_a_conversation_is_gone_on_with(kas: Kas) -> None:
    """`kas submit --continue` resumes the conversation the program told of, in its directory, with the next prompt."""
    configure(kas, "claude/text.out")
    remember_starts(kas)
    told = json.loads((RECORDED / "claude" / "text.out").read_text().splitlines()[-1])["session_id"]
    elsewhere = kas.cwd / "elsewhere"
    elsewhere.mkdir()
    with kas.running("daemon", "start", "--foreground") as daemon:
        wait_for(lambda: kas("daemon", "status").code == 0)
        first = kas("submit", "--wait", "--workdir", elsewhere, "first")
        assert first.code == 0, first.stdout + first.stderr
        task = first.stderr.split("task ")[1].split()[0]
        following = kas("submit", "--wait", "--continue", task, "next")
        assert following.code == 0, following.stdout + following.stderr
        wrong = kas("submit", "--continue", "nobody", "next")
        assert wrong.code != 0
        assert "continue" in wrong.stderr
        assert kas("daemon", "stop").code == 0
        assert daemon.wait(LIMIT) == 0
    kas.cwd = elsewhere
    chosen, resumed = conversations(kas)
    assert chosen.startswith("--session-id ")
    assert resumed == f"--resume {told}"


def test_a_failed_task_is_resumed(kas: Kas) -> None:
    """`kas retry --resume` takes a task up in the conversation that broke off, and does not say its prompt again."""
    configure(kas, "claude/hang.out", REPLAY_EXIT=1)
    remember_starts(kas)
    assert kas("run", "plan.md").code == 1
    again = kas("retry", "--resume")
    assert again.code == 1, again.stderr
    chosen, resumed = conversations(kas)
    assert chosen.startswith("--session-id ")
    assert resumed.startswith("--resume ")
    last = json.loads((kas.cwd / "starts").read_text().splitlines()[-1])
    assert last[-1].startswith("You were interrupted.")
    assert "Do it." not in last[-1]
