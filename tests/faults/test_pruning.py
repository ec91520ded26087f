"""Forgetting, killed at any of its steps: the journal proves itself, nothing unfinished is lost, nothing runs again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from kasmos.model import event as ev
from kasmos.model.view import RunState
from kasmos.store.lock import read_holder

from ..conftest import Kas
from .oracle import LIMIT, Scene, Task

NOTHING_IS_KEPT = "[retention]\nmax_runs = 0"


@pytest.fixture
def scene(kas: Kas) -> Iterator[Scene]:
    scene = Scene(kas)
    yield scene
    pid = read_holder(scene.root.lock_path)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        scene.wait(lambda: read_holder(scene.root.lock_path) is None)


@pytest.mark.parametrize("point", ["journal.before-prune", "journal.after-prune"])
def test_daemon_killed_while_it_forgets(scene: Scene, point: str) -> None:
    """A daemon that is killed while it forgets is followed by one that goes on, and has forgotten all or nothing."""
    scene.write_plan([Task("done_")])
    assert scene.run().code == 0
    (old,) = scene.world().runs
    plan = scene.write_plan([Task("until_exists go; done_")], name="other.md")
    with scene.start("run", str(plan)) as running:
        scene.wait_started("1", running, times=2)
        running.kill()
    scene.configure(tables=NOTHING_IS_KEPT)
    with scene.start("daemon", "start", "--foreground", failpoints=f"{point}=kill") as daemon:
        assert daemon.process.wait(LIMIT) == -signal.SIGKILL
    # The journal is whole: it is read with its proofs.
    assert (old in scene.world().runs) == (point == "journal.before-prune")
    with scene.start("daemon", "start", "--foreground") as daemon:
        scene.wait(lambda: old not in scene.world().runs, daemon)
        scene.let("go")
        # Directories go after what the journal knew of them.
        scene.wait(lambda: not scene.world().runs and not any(scene.root.sessions.iterdir()), daemon)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
    assert len(scene.lines("done")) == 2, "the run under way was finished, and nothing was done twice"
    assert any(isinstance(record.event, ev.EventsPruned) for record in scene.records())


def test_gc_forgets_what_nobody_supervises(scene: Scene) -> None:
    """`kas gc` forgets by `[retention]`, too, and leaves an unfinished run alone."""
    scene.write_plan([Task("done_")])
    assert scene.run().code == 0
    scene.write_plan([Task("until_exists go; done_")], name="other.md")
    with scene.start("run", "other.md") as running:
        scene.wait_started("1", running, times=2)
        running.signal(signal.SIGINT)
        assert running.wait() == 130
    scene.configure(tables=NOTHING_IS_KEPT)
    assert "would forget 1 run" in scene.kas("gc", "--dry-run").stdout
    assert len(scene.world().runs) == 2
    result = scene.kas("gc")
    assert "forgot 1 run" in result.stdout, result
    assert scene.only_run().state is RunState.INTERRUPTED
    scene.let("go")
    assert scene.kas("resume").code == 0
    assert scene.only_run().state is RunState.ENDED
