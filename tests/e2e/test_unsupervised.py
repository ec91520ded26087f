"""Programs that outlive their supervisor: what is told of them, and that it is true."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from kasmos.model.view import SessionView
from kasmos.store.reader import read_world
from kasmos.store.stateroot import StateRoot, find_state_root
from tests.conftest import Kas
from tests.e2e.test_cli_read import CONFIG, LIMIT, await_file, write_plan

SCRIPT = "echo hello; touch up; while ! test -e go; do sleep 0.05; done; echo bye; exit 4"


@pytest.fixture
def state(kas: Kas) -> StateRoot:
    """The state root of a project in which a program runs whose supervisor was killed."""
    (kas.cwd / ".kasmos").mkdir()
    (kas.cwd / ".kasmos" / "config.toml").write_text(CONFIG)
    with kas.running("run", write_plan(kas.cwd, [SCRIPT], ["true"])) as run:
        await_file(kas.cwd / "up")
        state = find_state_root(kas.cwd, environ=os.environ)
        give_up = time.monotonic() + LIMIT
        # That it runs is recorded a moment after it does.
        while the_session(state).pid is None:
            assert time.monotonic() < give_up, "it was not recorded that the program runs"
            time.sleep(0.02)
        run.kill()
        run.wait(LIMIT)
    return state


def the_session(state: StateRoot) -> SessionView:
    """The session of the first task."""
    return next(iter(read_world(state.db).sessions.values()))


def exit_record(state: StateRoot) -> Path:
    """Where the end of the program is recorded; waits for it."""
    record = state.session_dir(the_session(state).id) / "exit"
    give_up = time.monotonic() + LIMIT
    while not record.read_text().strip():
        assert time.monotonic() < give_up, "the program has not ended"
        time.sleep(0.02)
    return record


def test_what_still_runs(kas: Kas, state: StateRoot) -> None:
    """A program at work is told from one that is supervised, and no command pretends to stop it."""
    name = "w1t1-job"
    assert "runs without a supervisor" in kas("ps").stdout
    assert f"{name}" in kas("status").stdout
    assert "runs without a supervisor" in kas("status").stdout
    assert "runs without a supervisor" in kas("why", "1").stdout
    stop = kas("stop", name)
    assert (stop.code, "is still at work" in stop.stderr, "kas stop --all" in stop.stderr) == (3, True, True)
    assert "interrupted" in kas("doctor").stdout, "the tree does not say that the run is running"
    (kas.cwd / "go").touch()
    exit_record(state)


def test_what_has_ended(kas: Kas, state: StateRoot) -> None:
    """A program that has ended is not said to run; how it ended is told before a supervisor has recorded it."""
    (kas.cwd / "go").touch()
    exit_record(state)
    status = kas("status").stdout
    assert "ended (exit 4), not yet recorded" in status
    assert "1 not recorded, 1 queued" in status
    assert "running" not in status.replace("supervisor: not running", "").replace("supervisor is not running", "")
    assert "ended (exit 4), not yet recorded" in kas("ps").stdout
    assert "ended (exit 4), not yet recorded after " in kas("why", "1").stdout
    assert "ended (exit 4), not yet recorded" in kas("why").stdout
    (found,) = json.loads(kas("status", "--json").stdout)["found"]
    assert (found["state"], found["exit"]["code"]) == ("ended", 4)
    (session,) = json.loads(kas("ps", "--json").stdout)
    assert session["found"] == found
    stop = kas("stop", "w1t1")
    assert (stop.code, "ended (exit 4), not yet recorded" in stop.stderr) == (3, True)
    followed = kas("logs", "-f", "1")
    assert (followed.code, followed.stdout) == (0, "hello\nbye\n")


def test_the_recorded_end_is_the_programs(kas: Kas, state: StateRoot) -> None:
    """A session that ended unseen is recorded as having taken as long as its program ran, not until it was found."""
    (kas.cwd / "go").touch()
    ended = exit_record(state).stat().st_mtime
    while time.time() < ended + 1.5:
        time.sleep(0.1)
    assert kas("resume").code == 1
    session = the_session(state)
    assert session.ended_at == pytest.approx(ended, abs=0.3)
    assert session.ended_mono is not None
    assert session.ended_mono - session.starting_mono == pytest.approx(ended - session.starting_at, abs=0.3)
    (task, _) = next(iter(read_world(state.db).runs.values())).tasks.values()
    assert task.ended_mono == session.ended_mono, "so has its task"


def test_stop_all_becomes_the_supervisor(kas: Kas, state: StateRoot) -> None:
    """Without a supervisor `kas stop --all` takes up what runs, stops it, and ends the run for good."""
    pid = the_session(state).pid
    assert pid is not None
    stopped = kas("stop", "--all")
    assert stopped.code == 0, stopped.stderr
    assert not Path(f"/proc/{pid}").exists()
    (run,) = read_world(state.db).runs.values()
    assert not run.unfinished
    assert [task.outcome for task in run.tasks.values()] == ["cancelled", "cancelled"]
    assert kas("stop", "--all").stdout == "nothing runs\n"
