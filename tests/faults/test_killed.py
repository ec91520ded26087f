"""`kill -9` of the supervisor at every commit point, and at random instants under load."""

from __future__ import annotations

import random
import re
import signal
import time
from pathlib import Path

import pytest

import kasmos
from kasmos import failpoints
from kasmos.model.task import Outcome

from ..conftest import Kas
from .oracle import LIMIT, Running, Scene, Task

CALM = (
    (
        Task("count 20 0.005; done_"),
        Task("count 3; if first; then exit 1; fi; done_", "retries = 1"),
        Task("count 3; done_", 'checks = ["sleep 0.05; echo check >>\\"$BOOK/checks\\"", "test -d \\"$BOOK\\""]'),
    ),
    (Task("count 5 0.02; done_", "needs = [1]"), Task("count 2; done_")),
)
"""Two waves, a retry, checks, a need."""
STUBBORN = (
    (
        Task("if first; then trap '' TERM; sleep 30; sleep 30; fi; count 3; done_", "retries = 1\ntimeout = 8"),
        Task("count 20 0.01; done_"),
    ),
    (Task("count 2; done_"),),
)
"""A task that runs out of time and does not care for SIGTERM; its second attempt is good, and far from that time."""
LOUD = ((Task("dd if=/dev/zero bs=4096 count=64 2>&1 | tr '\\\\0' x; sleep 0.1; echo; count 3; done_"),),)
"""A task that writes more than is kept of its log."""

SLOW = ((Task("until_exists go; count 3; done_"), Task("until_exists go; count 3; done_")), (Task("done_"),))
"""Tasks that last until they are let go."""

LOG_POINTS = ("log.base-written", "log.punched")
STOP_POINTS = ("session.stop-requested", "session.stop-signalled", "session.kill-requested", "session.killed")
PRUNING_POINTS = ("journal.before-prune", "journal.after-prune")  # tests/faults/test_pruning.py
FOLD_POINTS = ("fold.half-written", "fold.written", "fold.kept")  # tests/faults/test_journal.py
SIGNALLED_POINTS = ("task.put-back",)
SINGLE_POINTS = ("task.accepted",)  # tests/faults/test_killed_tasks.py
TYPED_POINTS = ("prompt.delivering", "prompt.typed", "prompt.delivered")  # tests/e2e/test_typed_killed.py
TAKEOVER_POINTS = ("takeover.requested", "takeover.handed-back")  # tests/faults/test_killed_takeover.py
RECOVERY_POINTS = {"recovery.adopted": "session.released", "recovery.tombstone": "session.prepared"}
"""What a second supervisor passes, and where the first one was killed before."""
ELSEWHERE = (
    *PRUNING_POINTS, *FOLD_POINTS, *SIGNALLED_POINTS, *RECOVERY_POINTS, *SINGLE_POINTS, *TYPED_POINTS, *TAKEOVER_POINTS,
)  # fmt: skip
FIRST_POINTS = [point for point in failpoints.POINTS if point not in ELSEWHERE]
AGAIN = {
    "session.intent": (4,),
    "session.spawned": (3,),
    "session.released": (4,),
    "session.program-ended": (5,),
    "session.ended": (3, 6),
    "check.intent": (2,),
    "task.ended": (3, 5),
    "wave.ended": (2,),
    "journal.before-commit": (2, 5, 12),
    "journal.after-commit": (2, 5, 12),
}
"""Further visits to points that are passed more than once."""


@pytest.fixture
def scene(kas: Kas) -> Scene:
    return Scene(kas)


def test_points_are_those_in_the_source() -> None:
    """Every named failpoint is in the source, and every one in the source is named."""
    package = Path(kasmos.__file__).parent
    text = "".join(path.read_text() for path in package.rglob("*.py"))
    calls = re.findall(r"(?<!place\.)\breach\(([^)]*)\)", text)
    assert {name for call in calls for name in re.findall(r'"([^"]+)"', call)} == set(failpoints.POINTS)


@pytest.mark.parametrize(
    ("point", "count"),
    [(point, 1) for point in FIRST_POINTS] + [(point, count) for point in AGAIN for count in AGAIN[point]],
)
def test_killed_at(scene: Scene, point: str, count: int) -> None:
    """A supervisor that is killed at a commit point loses nothing, and its successor runs nothing twice."""
    capped = point in LOG_POINTS
    if capped:
        scene.configure(tables='[logs]\nmax_bytes = "64KiB"')
    elif point in STOP_POINTS:
        scene.configure(stop_grace=0.3)
    scene.write_plan(*(LOUD if capped else STUBBORN if point in STOP_POINTS else CALM))
    killed = scene.run(failpoints=f"{point}=kill@{count}")
    assert killed.code == -signal.SIGKILL, killed.stdout + killed.stderr
    finish(scene, capped=capped)


@pytest.mark.parametrize("point", RECOVERY_POINTS)
def test_killed_again_during_recovery(scene: Scene, point: str) -> None:
    """A supervisor that is killed while it recovers from a kill leaves the next one no worse off."""
    scene.write_plan(*SLOW)
    killed = scene.run(failpoints=f"{RECOVERY_POINTS[point]}=kill")
    assert killed.code == -signal.SIGKILL, killed.stderr
    killed = scene.run(failpoints=f"{point}=kill")
    assert killed.code == -signal.SIGKILL, killed.stdout + killed.stderr
    scene.let("go")
    finish(scene)


@pytest.mark.parametrize("point", ["session.stop-signalled", "session.kill-requested", *SIGNALLED_POINTS])
def test_killed_while_interrupted(scene: Scene, point: str) -> None:
    """A supervisor that is killed while Ctrl-C is obeyed leaves tasks that are taken up like any others."""
    deaf = "" if point in SIGNALLED_POINTS else "trap '' TERM;"
    scene.configure(stop_grace=0.3 if deaf else LIMIT)
    scene.write_plan([Task(f"if first; then {deaf} note ready; sleep 30; fi; count 3; done_")], [Task("done_")])
    with scene.start(failpoints=f"{point}=kill") as running:
        scene.wait(lambda: scene.lines("ready"), running)
        running.signal(signal.SIGINT)
        assert running.wait() == -signal.SIGKILL
    finish(scene)


def finish(scene: Scene, *, capped: bool = False) -> None:
    """The same command again, without failpoints: it goes on, and all is well."""
    result = scene.run()
    assert "Traceback" not in result.stderr, result.stderr
    assert result.code == 0, result.stdout + result.stderr
    run = scene.only_run()
    assert {task.outcome for task in run.tasks.values()} == {Outcome.SUCCEEDED}
    scene.judge(broken=["1"] if capped else ())
    if capped:
        (line,) = scene.lines("done")
        log = (scene.root.session_dir(line.session) / "output.log").read_bytes()
        assert log.endswith(b"line 1\nline 2\nline 3\ntotal 3\n")


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random(scene: Scene, seed: int) -> None:
    """`kill -9` at random instants under load, again and again: every task is done, once."""
    dice = random.Random(seed)
    scene.configure(output="pipe" if seed % 2 else "file")
    tasks = [Task(f"count 10 0.0{dice.randint(1, 3)}; done_") for _ in range(40)]
    # The last one waits for as many kills as there are to be at least.
    scene.write_plan(tasks[:20], [*tasks[20:], Task("until_exists go; done_")])
    kills, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        with scene.start("run", "plan.md", "--max-concurrent", "8") as running:
            if kills < 15:
                kill_at_random(scene, running, dice, most=2 * len(tasks))
                kills += 1
            if kills == 5:
                scene.let("go")
            code = outcome(running)
    assert kills >= 5
    assert code == 0, running.text()
    scene.judge()
    assert len(scene.lines("done")) == 41


def outcome(running: Running) -> int:
    """How it ended; killed in the last moments, when it had told how all has ended: that may be asked for anew."""
    code = running.wait()
    return 0 if "\nrun " in running.text() else code


def kill_at_random(scene: Scene, running: Running, dice: random.Random, *, most: int) -> None:
    """Kill it at some instant after some programs have done something, unless it ends before.

    Args:
        most: what the programs do is noted in so many lines; once all are there, it is not waited for another one.
    """
    enough = min(len(scene.ledger) + dice.randint(1, 11), most)
    scene.wait(lambda: len(scene.ledger) >= enough or running.process.poll() is not None)
    time.sleep(dice.random() * 0.1)  # any instant will do
    running.process.kill()


def test_killed_after_the_end(scene: Scene) -> None:
    """A run whose supervisor was killed before it could tell how it ended is told about, once, and not repeated."""
    scene.write_plan([Task("done_; exit 3")])
    assert scene.run(failpoints="run.ended=kill").code == -signal.SIGKILL
    told = scene.run()
    assert told.code == 1
    assert "had ended when its supervisor was killed; `kas run --fresh`" in told.stdout
    assert "exit 3" in told.stdout
    assert len(scene.lines("start")) == 1
    assert scene.run().code == 1
    assert len(scene.lines("start")) == 2
