"""`kill -9` of a supervisor at every step of a conversation's way to a person and back."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from kasmos.client.sync import Supervisor
from kasmos.exceptions import ClientError, RequestError
from kasmos.model import event as ev
from kasmos.model.event import Event
from kasmos.model.takeover import TakeoverPhase
from kasmos.model.task import Outcome
from kasmos.model.view import Active, SessionState, TaskView, World
from kasmos.store.journal import read_records, read_world
from kasmos.store.stateroot import find_state_root

from ..conftest import Kas
from ..e2e.talker_world import prepare, talker_config

LIMIT = 240.0
PLAN = "## Wave 1\n\n### Task 1: Talk\n\nwrite one 1; wait go; write two 2\n"
POINTS = (
    "takeover.requested",
    # Its headless turn is interrupted.
    "session.stop-requested",
    "session.stop-signalled",
    "session.program-ended",
    "session.ended",
    # Its conversation is opened in tmux.
    "session.intent@2",
    "session.spawning@2",
    "session.spawned@2",
    "session.released@2",
    "session.started@2",
    # It is handed back, and its terminal ends.
    "takeover.handed-back",
    "session.stop-requested@2",
    "session.program-ended@2",
    "session.swept@2",
    "session.ended@2",
    # It goes on headless.
    "session.intent@3",
    "session.spawned@3",
    "session.started@3",
    "session.program-ended@3",
)


class Person:
    """Sits down beside the agent as soon as that can be, and hands it back; asks again only if it was not heard."""

    def __init__(self, kas: Kas) -> None:
        self.kas = kas
        self.book = kas.cwd.parent / "book"
        prepare(kas.cwd, self.book)
        (kas.cwd / ".kasmos" / "config.toml").write_text(talker_config(self.book))
        (kas.cwd / "plan.md").write_text(PLAN)
        self.root = find_state_root(kas.cwd, environ=os.environ)
        self.supervisor = Supervisor(self.root.socket)

    def events(self) -> list[Event]:
        return [record.event for record in read_records(self.root.db)] if self.root.db.exists() else []

    def see_through(self, armed: str = "", *, attach: bool = True) -> int:
        """Run the plan, and do as a person does, until the supervisor has ended; how it ended."""
        env = {"KASMOS_FAILPOINTS": armed}
        with self.kas.running("run", "plan.md", env=env) as running:
            give_up = time.monotonic() + LIMIT
            while running.poll() is None:
                assert time.monotonic() < give_up, self.ledger()
                with suppress(ClientError, RequestError):
                    self.act(attach=attach)
                time.sleep(0.05)
            return int(running.returncode)

    def act(self, *, attach: bool) -> None:
        found = self.task()
        if found is None:
            return
        world, task = found
        session = world.sessions.get(task.state.session_id) if isinstance(task.state, Active) else None
        running = session is not None and session.state is SessionState.RUNNING
        if attach and running and not any(isinstance(event, ev.TakeoverRequested) for event in self.events()):
            self.supervisor.post(f"/v1/tasks/{task.id}/attach", {"now": True})
        if session is not None and running and session.attended and self.is_at_terminal():
            (self.book / "go").touch()
            held = task.takeover
            if held is not None and held.phase is TakeoverPhase.ATTENDED:
                self.supervisor.post(f"/v1/tasks/{task.id}/detach", {"prompt": "write three 3", "now": True})

    def task(self) -> tuple[World, TaskView] | None:
        world = read_world(self.root.db) if self.root.db.exists() else World()
        return next(((world, task) for run in world.runs.values() for task in run.tasks.values()), None)

    def has_terminal(self) -> bool:
        """Whether the supervisor has written down that the conversation is open in a terminal."""
        found = self.task()
        takeover = found[1].takeover if found is not None else None
        return self.is_at_terminal() and takeover is not None and takeover.phase is TakeoverPhase.ATTENDED

    def is_at_terminal(self) -> bool:
        return any(line.startswith("attended") for line in self.ledger())

    def ledger(self) -> list[str]:
        path = self.book / "ledger"
        return path.read_text().splitlines() if path.exists() else []

    def judge(self) -> None:
        """Every step was done once, by one program at a time, in one conversation and one attempt."""
        world, task = self.task() or pytest.fail("there is no task")
        assert (task.outcome, task.attempts, task.failures) == (Outcome.SUCCEEDED, 1, ())
        texts = [Path(self.kas.cwd / name).read_text() for name in ("one", "two", "three")]
        assert texts == ["1\n", "2\n", "3\n"], self.ledger()
        lines = [line.split(" ") for line in self.ledger()]
        assert [line[0] for line in lines if line[0] in ("headless", "attended", "overlap")] == [
            "headless",
            "attended",
            "headless",
        ], lines
        assert len({line[1] for line in lines}) == 1
        assert not any(session.state.live for session in world.sessions.values())
        assert not any(isinstance(event, ev.TaskRetryScheduled) for event in self.events())


@pytest.fixture
def person(kas: Kas) -> Person:
    return Person(kas)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(person: Person, point: str) -> None:
    """A supervisor that is killed at a step of a takeover loses nothing of it, and the next runs nothing twice."""
    name, _, count = point.partition("@")
    assert person.see_through(f"{name}=kill@{count or 1}") == -signal.SIGKILL, person.ledger()
    assert person.see_through() == 0, person.ledger()
    person.judge()


def test_interrupted(person: Person) -> None:
    """Ctrl-C ends the terminal of a conversation that a person has; the same command opens it again, theirs still."""
    with person.kas.running("run", "plan.md") as running:
        give_up = time.monotonic() + LIMIT
        while not person.has_terminal():
            assert time.monotonic() < give_up
            with suppress(ClientError, RequestError):
                found = person.task()
                if found is not None and found[1].takeover is None:
                    person.supervisor.post(f"/v1/tasks/{found[1].id}/attach", {"now": True})
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.wait(LIMIT) == 130
    found = person.task()
    assert found is not None
    assert found[1].takeover is not None
    assert found[1].takeover.phase is TakeoverPhase.ATTENDED
    assert person.see_through(attach=False) == 0
    lines = [line.split(" ")[0] for line in person.ledger()]
    assert [line for line in lines if line in ("headless", "attended", "overlap")] == [
        "headless",
        "attended",
        "attended",
        "headless",
    ]
    assert [Path(person.kas.cwd / name).read_text() for name in ("one", "two", "three")] == ["1\n", "2\n", "3\n"]
