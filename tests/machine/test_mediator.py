"""The mediator between a program that asks over a protocol and the session's mailbox: real processes, no supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kasmos
from tests.waiting import LIMIT, wait_for

MEDIATOR = Path(kasmos.__file__).parent / "sessions" / "mediator" / "__main__.py"
SPEAKER = Path(__file__).parents[1] / "programs" / "speaker"
PROTOCOLS = ("app_server", "acp")


class Turn:
    """One turn of the speaker, with the mailbox that a supervisor would look into."""

    def __init__(self, directory: Path, protocol: str) -> None:
        self.directory, self.protocol = directory, protocol
        self.box = directory / "box"
        self.box.mkdir()
        self.log = directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self, *steps: str, conversation: str = "", program: str = str(SPEAKER), limit: str = "60"
    ) -> subprocess.Popen[bytes]:
        (self.directory / "prompt").write_text("\n".join(steps))
        words = [str(self.box), conversation, limit, "--", program, self.protocol]
        with (self.directory / "prompt").open() as prompt, self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", str(MEDIATOR), self.protocol, *words],
                stdin=prompt,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, "SPEAKER_LOG": str(self.directory / "told")},
            )
        return self.process

    def end(self) -> int:
        assert self.process is not None
        return self.process.wait(LIMIT)

    def standing(self) -> list[str]:
        """What is asked and has neither answer nor end, oldest first."""
        names = {path.stem for path in self.box.glob("[!.]*.ask")}
        return sorted(names - {path.stem for path in self.box.glob("[!.]*") if path.suffix != ".ask"})

    def question(self, count: int = 1) -> dict[str, Any]:
        """The oldest question, when there are so many."""
        wait_for(lambda: len(self.standing()) >= count)
        said: dict[str, Any] = json.loads((self.box / f"{self.standing()[0]}.ask").read_text())
        return said

    def answer(self, behavior: str, name: str | None = None, **more: str) -> None:
        name = name or wait_for(self.standing)[0]
        draft = self.box / f".{name}.answer"
        draft.write_text(json.dumps({"behavior": behavior, **more}))
        draft.rename(self.box / f"{name}.answer")

    def told(self) -> list[dict[str, Any]]:
        """What the program was told."""
        return [json.loads(line) for line in (self.directory / "told").read_text().splitlines()]

    @property
    def ran(self) -> str:
        path = self.directory / "ran"
        return path.read_text() if path.exists() else ""


@pytest.fixture(params=PROTOCOLS)
def turn(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Turn]:
    made = Turn(tmp_path, request.param)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def test_allowed(turn: Turn) -> None:
    """What is asked is put into the mailbox, word for word, and runs when the answer is yes."""
    turn.start("ask 0 echo yes >>ran")
    said = turn.question()
    assert said["input"]["command"] == "echo yes >>ran"
    assert said["tool_name"] == {"app_server": "shell", "acp": "execute"}[turn.protocol]
    assert turn.ran == ""
    turn.answer("allow")
    assert turn.end() == 0
    assert turn.ran == "yes\n"


def test_denied(turn: Turn) -> None:
    """What was denied does not run, and the program's turn goes on: it chose the option that says no, not the first."""
    turn.start("ask 0 echo yes >>ran", "ask 1 echo later >>ran")
    turn.answer("deny")
    turn.question()
    turn.answer("allow")
    assert turn.end() == 0
    assert turn.ran == "later\n"


def test_several_at_once(turn: Turn) -> None:
    """Questions that stand side by side are answered one by one, each request with its own answer."""
    turn.start("asks 5 echo five", "asks 6 echo six", "settle 6 echo six >>ran", "settle 5 echo five >>ran")
    assert turn.question(2)["input"]["command"] == "echo five"
    first, second = turn.standing()
    turn.answer("allow", second)
    turn.answer("deny", first)
    assert turn.end() == 0
    assert _answers(turn) == {5: False, 6: True}
    assert turn.ran == "six\n"


def _answers(turn: Turn) -> dict[int, bool]:
    found = {}
    for message in turn.told():
        result = message.get("result", {})
        if "decision" in result:
            found[message["id"]] = result["decision"] == "accept"
        if "outcome" in result:
            found[message["id"]] = result["outcome"].get("optionId") == "y"
    return found


def test_taken_back(turn: Turn) -> None:
    """What the program asks no more is withdrawn from the mailbox; a late answer to it is told nobody."""
    turn.start("asks 0 echo yes >>ran", "gate", "resolve 0", "ask 1 echo next >>ran")
    turn.question()
    (old,) = turn.standing()
    (turn.directory / "gate").touch()
    wait_for((turn.box / f"{old}.gone").exists)
    turn.answer("allow", old)
    turn.question()
    turn.answer("allow")
    assert turn.end() == 0
    assert turn.ran == "next\n"
    assert 0 not in _answers(turn)


def test_files(turn: Turn) -> None:
    """Every file of a change is in the question."""
    turn.start("files 0 /a/b.txt /a/c.txt")
    assert turn.question()["paths"] == ["/a/b.txt", "/a/c.txt"]
    turn.answer("allow")
    assert turn.end() == 0
    assert turn.ran == "files\n"


def test_garbage(turn: Turn) -> None:
    """Lines that are no messages, messages without sense and unknown requests are logged, and the turn goes on."""
    turn.start("garbage", "ask 0 echo yes >>ran")
    turn.answer("allow")
    assert turn.end() == 0
    assert b"not json\n" in turn.log.read_bytes()
    assert turn.ran == "yes\n"


def test_long_line(turn: Turn) -> None:
    """A line of 50 MB gets into the log whole, and what comes after it is understood."""
    turn.start("long 50", "ask 0 echo yes >>ran")
    turn.answer("allow")
    assert turn.end() == 0
    assert max(map(len, turn.log.read_bytes().splitlines())) > 50 << 20
    assert turn.ran == "yes\n"


@pytest.mark.parametrize(("step", "code"), [("exit 3", 3), ("exit 0", 1), ("kill", 137)])
def test_program_ends(turn: Turn, step: str, code: int) -> None:
    """A program that ends in mid-turn ends the mediator in its way, never with success; what it asked is withdrawn."""
    turn.start("asks 0 echo yes >>ran", "gate", step)
    turn.question()
    (turn.directory / "gate").touch()
    assert turn.end() == code
    assert b"in the middle of its turn" in turn.log.read_bytes()
    assert turn.standing() == []


MUTE = {
    "silent": "exec sleep 600",
    "chatty": "echo 'Error: no key is set' >&2; while :; do echo Thinking...; sleep 0.05; done",
    "deaf": """read -r line; printf '{"jsonrpc": "2.0", "id": 1, "result": {}}\\n'; exec sleep 600""",
}
"""Programs that never come to their turn: one says nothing, one nothing of the protocol, one nothing but its name."""


@pytest.mark.parametrize("kind", MUTE)
def test_mute_program(turn: Turn, kind: str) -> None:
    """A program that keeps silent before its turn is given up after its time, with words that say so; it is killed."""
    program = turn.directory / "mute"
    program.write_text(f"#!/bin/sh\n{MUTE[kind]}\n")
    program.chmod(0o755)
    turn.start(program=str(program), limit="1")
    assert turn.end() == 1
    before, _, remark = turn.log.read_text().partition('{"dir": "="')
    words = json.loads('{"dir": "="' + remark.splitlines()[0])["msg"]["error"]
    assert "(handshake_timeout)" in words
    assert words.endswith("its last words: Thinking..." if "Thinking..." in before else "it wrote nothing else")


@pytest.mark.parametrize(("line", "words"), [("exit 3", "exited 3"), ("kill -9 $$", "was killed by signal 9")])
def test_program_ends_before_its_turn(turn: Turn, line: str, words: str) -> None:
    """Of a program that ends before its turn it is not said that it was in the middle of it."""
    program = turn.directory / "brief"
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)
    turn.start(program=str(program))
    assert turn.end() in (3, 137)
    assert f"kasmos: the program {words} before its turn began\n" in turn.log.read_text()


def test_turn_fails(turn: Turn) -> None:
    """A turn that has failed is no success."""
    turn.start("fail for some reason")
    assert turn.end() == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(turn: Turn, number: signal.Signals) -> None:
    """A signal is the wish that the turn ends: the program is asked to, exits, and the mediator dies of the signal."""
    process = turn.start("asks 0 echo yes >>ran", "sleep")
    turn.question()
    process.send_signal(number)
    assert turn.end() == -number
    wish = {"app_server": "turn/interrupt", "acp": "session/cancel"}[turn.protocol]
    said = [json.loads(line) for line in turn.log.read_text().splitlines() if line.startswith('{"dir": ">"')]
    assert wish in [one["msg"].get("method") for one in said]
    assert turn.standing() == []


def test_stubborn_program(turn: Turn) -> None:
    """A program that heeds neither the wish, nor the end of its input, nor SIGTERM is killed."""
    process = turn.start("stall", "tool echo $PPID >.pid && mv .pid pid", "asks 0 true", "gate")
    turn.question()
    pid = turn.directory / "pid"
    wait_for(pid.exists)
    process.send_signal(signal.SIGTERM)
    assert turn.end() == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_conversation_goes_on(turn: Turn) -> None:
    """An earlier conversation is taken up by its id."""
    turn.start("ask 0 true", conversation="c-1")
    turn.answer("allow")
    assert turn.end() == 0
    opening = turn.told()[2 if turn.protocol == "app_server" else 1]
    assert opening["method"] in ("thread/resume", "session/load")
    assert "c-1" in opening["params"].values()


def test_no_program(turn: Turn) -> None:
    """A program that cannot be started is told of."""
    turn.start(program="/no/such/program")
    assert turn.end() == 127
    assert b"/no/such/program: No such file" in turn.log.read_bytes()


def test_a_policy_of_ones_own(tmp_path: Path) -> None:
    """Codex asks for all that is not known to be harmless, unless the command line says otherwise."""
    turn = Turn(tmp_path, "app_server")
    turn.start("ask 0 true")
    turn.answer("allow")
    assert turn.end() == 0
    (opening,) = [message for message in turn.told() if message.get("method") == "thread/start"]
    assert opening["params"]["approvalPolicy"] == "untrusted"
