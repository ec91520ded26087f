"""`kill -9` of a supervisor whose agents are in tmux: at every step of a session, and at random instants."""

from __future__ import annotations

import random
import signal

import pytest

from ..conftest import Kas
from .oracle import Scene, Task
from .test_killed import finish, kill_at_random, outcome

POINTS = (
    "session.spawning",
    "session.spawned",
    "session.proven",
    "session.released",
    "session.program-ended",
    "session.swept",
)


@pytest.fixture
def scene(kas: Kas) -> Scene:
    return Scene(kas)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(scene: Scene, point: str) -> None:
    """A supervisor that is killed at a step of a session in tmux loses nothing, and the next runs nothing twice."""
    scene.write_plan([Task("count 10 0.01; done_"), Task("count 3; done_")], [Task("count 2; done_")])
    killed = scene.run("--mode", "tmux", failpoints=f"{point}=kill")
    assert killed.code == -signal.SIGKILL, killed.stdout + killed.stderr
    finish(scene)


def test_killed_at_random(scene: Scene) -> None:
    """`kill -9` at random instants under load, again and again: every task is done, once."""
    dice = random.Random(3)
    scene.write_plan([Task(f"count 10 0.0{dice.randint(1, 3)}; done_") for _ in range(10)])
    kills, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        with scene.start("run", "plan.md", "--mode", "tmux", "--max-concurrent", "6") as running:
            if kills < 4:
                kill_at_random(scene, running, dice, most=20)
                kills += 1
            code = outcome(running)
    assert code == 0, running.text()
    scene.judge()
    assert len(scene.lines("done")) == 10


def test_interrupted(scene: Scene) -> None:
    """Ctrl-C ends the sessions and their tmux server, and the same command goes on."""
    scene.write_plan([Task("until_exists go; count 2; done_")])
    with scene.start("run", "plan.md", "--mode", "tmux") as running:
        scene.wait_started("1", running)
        running.signal(signal.SIGINT)
        assert running.wait() == 130
    assert not (scene.root.path / "tmux" / "sock").exists()
    scene.let("go")
    finish(scene)
