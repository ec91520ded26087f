"""A project whose agents are the real programs, and the scripted model server they all speak to."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from kasmos.model.event import Event
from kasmos.model.session import SessionKind
from kasmos.model.task import Outcome
from kasmos.model.view import SessionView

from ..conftest import Kas
from ..faults.oracle import Scene
from .interactive import render_seat
from .programs import Place, render_profile

collect_ignore_glob = [] if os.environ.get("KASMOS_TEST_AGENTS") else ["test_*"]
"""Only scripts/test-agents runs what is here: it installs the programs first."""

LIMIT = 240.0
"""Seconds after which what should have happened has not: the programs are big and the machine may be small."""
PRESS_AGAIN = 30.0
"""Seconds after which a dialog that still stands is pressed once more: sooner, the key may just not have been read."""


@attrs.frozen
class Model:
    """The model server, as tests see it."""

    url: str

    def requests(self, conversation: str | None = None, *, at_least: int = 0, ended: int = 0) -> list[dict[str, Any]]:
        """Its log: of one conversation or all; waits until there are *at_least* requests and *ended* are over."""
        query = f"at_least={at_least}&ended={ended}" + (f"&conversation={conversation}" if conversation else "")
        answer: list[dict[str, Any]] = self._ask(f"/mock/requests?{query}")
        return answer

    def body(self, n: int) -> Mapping[str, Any]:
        """What was sent with request *n*."""
        answer: Mapping[str, Any] = self._ask(f"/mock/requests/{n}")
        return answer

    def handed_out(self, conversation: str) -> Mapping[str, Mapping[str, int]]:
        """Tokens handed out in a conversation, and the number of answers: for `main` and for `side` (titles)."""
        answer: Mapping[str, Mapping[str, int]] = self._ask(f"/mock/usage?conversation={conversation}")
        return answer

    def open_gate(self, name: str) -> None:
        """Let go on what is held at a gate."""
        self._ask(f"/mock/gates/{name}", method="POST")

    def _ask(self, target: str, method: str = "GET") -> Any:
        request = urllib.request.Request(self.url + target, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=LIMIT) as answer:
            return json.load(answer)


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    """One model server for all tests of this worker, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.model_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Model(f"http://127.0.0.1:{int(process.stdout.readline())}")
        process.stdin.close()
        assert process.wait(LIMIT) == 0


class Workshop(Scene):
    """A git repository of one test with profiles for real programs, and a conversation name for each task."""

    limit = LIMIT

    def __init__(self, kas: Kas, model: Model, root: Path) -> None:
        super().__init__(kas)
        self.model, self.root_dir = model, root
        self.pressed: dict[tuple[str, str], float] = {}
        """When a dialog that stands before a first prompt was answered, by session and dialog."""
        for arguments in (
            ["init", "--quiet"],
            ["config", "user.name", "Test"],
            ["config", "user.email", "t@localhost"],
        ):
            subprocess.run(["git", *arguments], cwd=kas.cwd, check=True)
        (kas.cwd / ".gitignore").write_text(".kasmos\n.aider*\n")
        (kas.cwd / "f.txt").write_text("hello\nworld\n")
        subprocess.run(["git", "add", "."], cwd=kas.cwd, check=True)
        subprocess.run(["git", "commit", "--quiet", "-m", "Begin"], cwd=kas.cwd, check=True)

    def place(self, name: str) -> Place:
        """What a program's profile is made for in this test."""
        return Place(self.model.url, self.root_dir / "homes" / name)

    def equip(self, *names: str, settings: str = "", tables: str = "", **options: Any) -> None:
        """Write the configuration, with the profiles of these programs.

        Args:
            settings: further lines of `[orchestration]`.
            tables: further tables.
            options: those of `render_profile`.
        """
        try:
            profiles = [render_profile(name, self.place(name), **options) for name in names]
        except LookupError as error:
            pytest.fail(str(error), pytrace=False)
        text = "\n".join([f'[orchestration]\ntask_timeout = "{LIMIT:g}s"\n{settings}', *profiles, tables])
        (self.kas.cwd / ".kasmos" / "config.toml").write_text(text)

    def seat(self, *names: str, orchestration: str = "", tables: str = "", **options: Any) -> None:
        """Write the configuration, with the profiles of these programs in tmux.

        Args:
            orchestration: further lines of `[orchestration]`.
            tables: further tables.
            options: those of `render_seat`.
        """
        try:
            profiles = [render_seat(name, self.place(name), self.kas.cwd, **options) for name in names]
        except LookupError as error:
            pytest.fail(str(error), pytrace=False)
        text = "\n".join([f'[orchestration]\ntask_timeout = "{2 * LIMIT:g}s"\n{orchestration}', *profiles, tables])
        (self.kas.cwd / ".kasmos" / "config.toml").write_text(text)

    def presses(self, session_id: str, dialog: str) -> bool:
        """Whether a person now presses the key that answers a dialog: a second one might answer what comes next."""
        now = time.monotonic()
        if now < self.pressed.get((session_id, dialog), -math.inf) + PRESS_AGAIN:
            return False
        self.pressed[session_id, dialog] = now
        return True

    def conversation(self, name: str) -> str:
        """The conversation of a program in this test: one server serves them all."""
        return f"{name}.{self.root_dir.name}"

    def write_tasks(self, tasks: Mapping[str, str], *, settings: str = "") -> None:
        """Write a plan of one wave with a task for each program, whose model goes through the steps given."""
        lines = ["# Plan", "", "## Wave 1", ""]
        for number, (name, steps) in enumerate(tasks.items(), 1):
            lines += [f"### Task {number}: {name}", "", f"[[mock {self.conversation(name)}: {steps}]]", ""]
            lines += ["```toml kasmos", f'agent = "{name}"', settings, "```", ""]
        self.plan.write_text("\n".join(lines))

    def outcome(self, task: str = "1") -> Outcome | None:
        """How a task has ended."""
        return self.only_run().tasks[task].outcome

    @property
    def session_ids(self) -> list[str]:
        """Every session of a program, in the order in which they began; checks are left out."""
        sessions = self.world().sessions.values()
        return [session.id for session in sessions if session.kind is SessionKind.AGENT]

    def session(self, task: str = "1") -> SessionView:
        """The last session of a task's program."""
        sessions = self.world().sessions.values()
        return [item for item in sessions if item.kind is SessionKind.AGENT and item.task_id == task][-1]

    def told(self, kind: type[Event]) -> list[Event]:
        """The events of this kind in the journal."""
        return [record.event for record in self.records() if isinstance(record.event, kind)]

    def output(self, task: str = "1") -> str:
        """What a task's last session wrote."""
        return (self.root.session_dir(self.session(task).id) / "output.log").read_text(errors="replace")

    def screens(self) -> str:
        """What the terminal of each session shows, or showed last; for messages."""
        sessions = [session for session in self.world().sessions.values() if session.kind is SessionKind.AGENT]
        shown = [self.kas("capture", session.name, timeout=LIMIT).stdout.strip("\n") for session in sessions]
        return "\n".join(f"--- {one.name}\n{screen}" for one, screen in zip(sessions, shown, strict=True))

    def conclusion(self, name: str) -> dict[str, Any]:
        """What `kas agents parse` makes of all that the program has written, and of its exit."""
        status = self.session().exit
        assert status is not None
        log = self.root.session_dir(self.session().id) / "output.log"
        ended = status.code if status.signal is None else -status.signal
        parsed = self.kas("agents", "parse", "--program", name, "--exit", str(ended), "--json", log)
        assert parsed.code == 0, parsed.stderr
        conclusion: dict[str, Any] = json.loads(parsed.stdout.splitlines()[-1])
        return conclusion

    def asked(self, name: str) -> list[dict[str, Any]]:
        """What a program asked of its model, without titles and the like."""
        return [entry for entry in self.model.requests(self.conversation(name)) if not entry["side"]]


def command_lines() -> list[str]:
    """The command line of every process."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it may have gone
            found.append(
                Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            )
    return found


def marked(session_id: str) -> dict[int, str]:
    """The processes that carry a session's mark in their environment, and their command lines."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it may have gone
            if f"KASMOS_SESSION_ID={session_id}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return found


@pytest.fixture
def shop(kas: Kas, model: Model, root: Path) -> Workshop:
    """A project whose agents are the real programs."""
    return Workshop(kas, model, root)
