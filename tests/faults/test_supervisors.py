"""Two supervisors at once, one that dies under another, and one whose ground is taken away."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
import trio

from kasmos.cli import foreground
from kasmos.cli.render.junit import junit
from kasmos.config.load import load_config
from kasmos.daemon.terms import RunOverrides
from kasmos.exceptions import RequestError, StoreError
from kasmos.model import event as ev
from kasmos.model.clock import Clock
from kasmos.model.task import Outcome
from kasmos.model.view import RunView, SessionView, TaskView
from kasmos.serve import Options, open_engine
from kasmos.store.journal import read_world

from ..conftest import Kas
from .oracle import LIMIT, Scene, Task

WAITING = [Task("until_exists go; count 2; done_")] * 2
"""Tasks that end when they are let go."""


@pytest.fixture
def scene(kas: Kas) -> Scene:
    return Scene(kas)


def supervisors(scene: Scene) -> int:
    return sum(isinstance(record.event, ev.SupervisorStarted) for record in scene.records())


# --- at once ------------------------------------------------------------------------


def test_ten_at_once(scene: Scene) -> None:
    """Of ten commands for the same plan at the same instant one supervises, the others follow; all tell the outcome."""
    scene.write_plan([Task("until_exists go; count 2; done_")] * 3, [Task("done_")])
    every = [scene.start() for _ in range(10)]
    try:
        scene.wait(lambda: len(scene.lines("start")) == 3, *every)
        scene.wait(lambda: sum("following run" in one.text() for one in every) == 9, *every)
        scene.let("go")
        assert [one.wait() for one in every] == [0] * 10
    finally:
        for one in every:
            one.__exit__()
    assert all("succeeded" in one.stdout for one in every)
    assert supervisors(scene) == 1
    scene.judge()


def test_other_plan_is_handed_over(scene: Scene) -> None:
    """A second plan is run by the supervisor there is; each command ends with the outcome of its own plan."""
    scene.write_plan(WAITING)
    scene.write_plan([Task("count 2; done_; exit 1")], name="other.md")
    with scene.start() as first:
        scene.wait(lambda: len(scene.lines("start")) == 2, first)
        with scene.start("run", "other.md") as second:
            assert second.wait() == 1
        assert first.process.poll() is None
        scene.let("go")
        assert first.wait() == 0
    assert supervisors(scene) == 1
    for run_id in scene.world().runs:
        scene.judge(run_id)


def test_supervisor_stays_for_the_plan_of_another(scene: Scene) -> None:
    """A supervisor whose own run has ended goes on until the runs that were handed to it have."""
    scene.write_plan([Task("until_exists first; done_")])
    scene.write_plan([Task("until_exists go; count 2; done_")], name="other.md")
    with scene.start() as first:
        scene.wait_started("1", first)
        with scene.start("run", "other.md") as second:
            scene.wait(lambda: len(scene.lines("start")) == 2, first, second)
            scene.let("first")
            scene.wait(lambda: scene.lines("done"), first, second)
            scene.wait(lambda: any(not run.unfinished for run in scene.world().runs.values()), first, second)
            assert first.process.poll() is None
            scene.let("go")
            assert second.wait() == 0
        assert first.wait() == 0
    assert supervisors(scene) == 1


def test_follower_takes_over(scene: Scene) -> None:
    """When the supervisor is killed, whoever followed it becomes the supervisor, with the same programs."""
    scene.write_plan(WAITING, [Task("done_")])
    with scene.start() as first:
        scene.wait(lambda: len(scene.lines("start")) == 2, first)
        with scene.start() as second:
            scene.wait(lambda: "following run" in second.text(), first, second)
            first.kill()
            scene.wait(lambda: scene.world().supervisor_pid == second.process.pid, second)
            scene.let("go")
            assert second.wait() == 0
    assert len(scene.lines("start")) == 3
    scene.judge()


def test_supervisor_that_does_not_answer_dies(scene: Scene) -> None:
    """Who waits for a supervisor that has the lock and does not answer takes over when that one dies."""
    scene.write_plan(WAITING)
    with scene.start() as first:
        scene.wait(lambda: len(scene.lines("start")) == 2 and connections(scene) == 1, first)
        first.signal(signal.SIGSTOP)
        with scene.start() as second:
            scene.wait(lambda: connections(scene) == 2, second)
            first.kill()
            scene.wait(lambda: scene.world().supervisor_pid == second.process.pid, second)
            scene.let("go")
            assert second.wait() == 0
    assert len(scene.lines("start")) == 2
    scene.judge()


def connections(scene: Scene) -> int:
    """How many ends of the supervisor's socket there are; one is the door itself."""
    return Path("/proc/net/unix").read_text().count(f" {scene.root.socket}\n")


def test_options_for_a_run_that_is_followed(scene: Scene) -> None:
    """A follower is told which of its options the run it joins does not heed."""
    scene.write_plan(WAITING)
    with scene.start() as first:
        scene.wait(lambda: len(scene.lines("start")) == 2, first)
        with scene.start("run", "plan.md", "--on-failure", "continue") as second:
            scene.wait(lambda: "following run" in second.text(), first, second)
            kept = f"run {scene.only_run().id} keeps what it began with, stop"
            warning = f"warning: on_failure: not applied: {kept}"
            scene.wait(lambda: warning in second.text(), first, second)
            scene.let("go")
            assert second.wait() == 0
        assert first.wait() == 0


def test_follower_is_interrupted(scene: Scene) -> None:
    """Ctrl-C at a follower ends the following, not the run."""
    scene.write_plan(WAITING)
    with scene.start() as first:
        scene.wait(lambda: len(scene.lines("start")) == 2, first)
        with scene.start() as second:
            scene.wait(lambda: "following run" in second.text(), first, second)
            second.signal(signal.SIGINT)
            assert second.wait() == 130
            assert "the run goes on" in second.text()
        scene.let("go")
        assert first.wait() == 0
    scene.judge()


def test_supervisor_of_a_follower_is_interrupted(scene: Scene) -> None:
    """When the supervisor is interrupted, a follower says so and does not claim success."""
    scene.write_plan([Task("if first; then sleep 60; fi; done_")])
    with scene.start() as first:
        scene.wait_started("1", first)
        with scene.start() as second:
            scene.wait(lambda: "following run" in second.text(), first, second)
            first.signal(signal.SIGINT)
            assert first.wait() == 130
            assert second.wait() == 1
            assert "was interrupted" in second.text()
    assert scene.run().code == 0
    scene.judge()


# --- which run ----------------------------------------------------------------------


def interrupted(scene: Scene) -> str:
    """A run that was interrupted in its first task; its id."""
    with scene.start() as running:
        scene.wait_started("1", running)
        running.signal(signal.SIGINT)
        assert running.wait() == 130
    return scene.only_run().id


def test_follower_that_missed_the_end(scene: Scene) -> None:
    """A follower that was asleep while its run ended tells the outcome; it does not run the plan again."""
    scene.write_plan([Task("until_exists go; count 2; done_")])
    with scene.start() as first:
        scene.wait_started("1", first)
        with scene.start() as second:
            scene.wait(lambda: "following run" in second.text(), first, second)
            second.signal(signal.SIGSTOP)
            scene.let("go")
            assert first.wait() == 0
            second.signal(signal.SIGCONT)
            assert second.wait() == 0, second.text()
    assert len(scene.lines("done")) == 1
    assert len(scene.world().runs) == 1


def test_resume_beside_another_supervisor(scene: Scene) -> None:
    """`kas resume RUN` beside the supervisor of another plan has that one take up the run, and follows it."""
    scene.write_plan([Task("if first; then sleep 60; fi; done_")])
    run_id = interrupted(scene)
    scene.write_plan([Task("until_exists go; done_")], name="other.md")
    with scene.start("run", "other.md") as other:
        scene.wait(lambda: len(scene.world().runs) == 2 and connections(scene) == 1, other)
        assert scene.kas("resume", run_id).code == 0
        scene.let("go")
        assert other.wait() == 0
    assert [run.outcome for run in scene.world().runs.values()] == [Outcome.SUCCEEDED] * 2


def test_signal_while_the_journal_is_held(scene: Scene) -> None:
    """A signal is heeded although the supervisor cannot even write down that it has begun."""
    scene.write_plan([Task("done_")])
    assert scene.run().code == 0
    with scene.journal_held(), scene.start() as running:
        scene.wait(lambda: "cannot be written" in running.text(), running)
        running.signal(signal.SIGINT)
        assert running.wait() != 0
    assert len(scene.lines("done")) == 1


def test_web_stack_that_cannot_be_imported(scene: Scene, tmp_path: Path) -> None:
    """Without its API a supervisor does its work all the same, and says what will not reach it."""
    (tmp_path / "quart_trio.py").write_text("raise ImportError('broken on purpose')\n")
    scene.write_plan([Task("until_exists go; done_")])
    with scene.start(env={"PYTHONPATH": str(tmp_path)}) as running:
        scene.wait_started("1", running)
        # It is imported when somebody knocks, who then waits in vain.
        assert scene.kas("daemon", "status").code == 3
        scene.wait(lambda: "broken on purpose" in running.text(), running)
        scene.let("go")
        assert running.wait() == 0, running.text()


def test_changed_plan(scene: Scene) -> None:
    """A changed document with an unfinished run is refused with the choice there is, and both choices work."""
    scene.write_plan([Task("if first; then sleep 60; fi; done_", title="old")])
    run_id = interrupted(scene)
    scene.write_plan([Task("done_", title="new")])
    refused = scene.run()
    assert refused.code == 4
    assert "--fresh" in refused.stderr
    assert f"kas resume {run_id}" in refused.stderr
    assert scene.kas("resume").code == 0
    assert [task.spec.title for task in scene.only_run().tasks.values()] == ["old"]
    scene.judge()


def test_fresh(scene: Scene) -> None:
    """`--fresh` ends the unfinished run for good, and starts anew with the document as it is now."""
    scene.write_plan([Task("if first; then sleep 60; fi; done_", title="old")])
    old = interrupted(scene)
    scene.write_plan([Task("done_", title="new")])
    assert scene.run("--fresh").code == 0
    world = scene.world()
    assert [run.outcome for run in world.runs.values()] == [Outcome.CANCELLED, Outcome.SUCCEEDED]
    assert next(iter(world.runs)) == old
    assert len(scene.lines("done")) == 1


def test_fresh_beside_a_supervisor(scene: Scene) -> None:
    """`--fresh` beside a supervisor ends the run that is under way there, and follows a new one."""
    scene.write_plan([Task("if first; then sleep 60; fi; done_")])
    with scene.start() as first:
        scene.wait_started("1", first)
        with scene.start("run", "plan.md", "--fresh") as second:
            assert second.wait() == 0, second.text()
        assert first.wait() == 1
    assert supervisors(scene) == 1
    assert [run.outcome for run in scene.world().runs.values()] == [Outcome.CANCELLED, Outcome.SUCCEEDED]


def test_stop_all_ends_what_was_interrupted_too(scene: Scene) -> None:
    """`kas stop --all` ends every unfinished run for good, one that was interrupted before this supervisor as well."""
    scene.write_plan([Task("if first; then sleep 60; fi; done_")])
    old = interrupted(scene)
    scene.write_plan([Task("until_exists never")], name="other.md")
    with scene.start("run", "other.md") as running:
        scene.wait(lambda: len(scene.lines("start")) == 2, running)
        stopped = scene.kas("stop", "--all")
        assert stopped.code == 0, stopped.stderr
        assert running.wait() == 1
    world = scene.world()
    assert [run.outcome for run in world.runs.values()] == [Outcome.CANCELLED] * 2
    assert scene.kas("resume", old).code == 4


def test_ending_for_good_without_a_supervisor(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    """A run can be ended for good where no supervisor is: its program is stopped, and nothing else is taken up."""
    scene.write_plan([Task("if first; then sleep 60; fi; done_")], name="other.md")
    scene.write_plan([Task("until_exists never")] * 2)
    with scene.start("run", "other.md") as running:
        scene.wait_started("1", running)
        running.signal(signal.SIGINT)
        assert running.wait() == 130
    other = scene.only_run().id
    with scene.start("run", "plan.md", "--max-concurrent", "1") as running:
        scene.wait(lambda: len(scene.lines("start")) == 2, running)
        running.kill()
    left = next(reversed(scene.world().runs))
    place = foreground.Place(scene.kas.cwd, scene.root, dict(os.environ))
    assert foreground.execute(place, foreground.Request(resume=left, cancel="not wanted")) == 0
    assert f"ending run {left} (Plan) for good" in capfd.readouterr().out
    runs = scene.world().runs
    assert [runs[other].outcome, runs[left].outcome] == [None, Outcome.CANCELLED]
    assert len(scene.lines("start")) == 2
    assert foreground.execute(place, foreground.Request(cancel="not wanted")) == 0
    assert scene.world().runs[other].outcome is Outcome.CANCELLED
    assert len(scene.lines("start")) == 2
    with pytest.raises(RequestError, match="no unfinished run"):
        foreground.execute(place, foreground.Request(cancel="not wanted"))


def test_plan_from_standard_input(scene: Scene) -> None:
    """A plan from standard input is the same plan when its content is the same."""
    text = scene.write_plan([Task("if first; then kill -9 $PPID; exit 1; fi; done_")]).read_text()
    slow = text.replace("kill -9 $PPID; exit 1", "until_exists go")
    command = scene.kas.command("run", "-")
    with subprocess.Popen(command, cwd=scene.kas.cwd, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(slow.encode())
        process.stdin.close()
        scene.wait_started("1")
        process.kill()
    scene.let("go")
    assert scene.kas("run", "-", stdin=slow).code == 0
    scene.judge()
    assert scene.kas("run", "-", stdin="# Another\n\n" + slow).code == 0
    assert len(scene.world().runs) == 2


# --- the ground taken away ----------------------------------------------------------


def test_git_clean(scene: Scene) -> None:
    """`git clean -fdx` by an agent, its configuration included, takes nothing from the run."""
    subprocess.run(["git", "init", "-q", scene.kas.cwd], check=True)
    (scene.kas.cwd / ".git" / "info" / "exclude").write_text("plan.md\n")
    scene.write_plan([Task("git clean -qffdx; count 3; done_"), Task("count 3; done_")], [Task("done_")])
    result = scene.run()
    assert result.code == 0, result.stdout + result.stderr
    assert not scene.plan.exists()
    scene.judge()


def test_state_root_is_removed(scene: Scene) -> None:
    """A supervisor whose state root is removed says so, begins nothing new, and does not claim success."""
    scene.write_plan([Task("until_exists go; done_")], [Task("done_")])
    with scene.start() as running:
        scene.wait_started("1", running)
        root = scene.root.path
        # The supervisor answers at once: it removes its socket too, and what is just being written comes after a look.
        scene.wait(lambda: subprocess.run(["rm", "-rf", root], capture_output=True).returncode == 0)
        scene.let("go")
        assert running.wait() not in (0, 70), running.text()
        assert "was removed or replaced" in running.text()
    assert len(scene.lines("start")) == 1
    assert not (root / "lock").exists()


def test_journal_loses_its_tail(scene: Scene, root: Path) -> None:
    """Whatever part of the journal's tail is lost with the supervisor, no program runs twice."""
    scene.write_plan(
        [Task("count 2; done_"), Task("if first; then exit 1; fi; done_", "retries = 1")],
        [Task("count 2; done_", 'checks = ["true"]')],
    )
    assert scene.run(failpoints="task.ended=kill@3").code == -signal.SIGKILL
    saved = root / "saved"
    state = root / "state"
    (scene.root.path / "kas.sock").unlink(missing_ok=True)
    shutil.copytree(state, saved / "state", symlinks=True)
    shutil.copytree(scene.book, saved / "book")
    wal = scene.root.db.with_name("state.db-wal")
    size = wal.stat().st_size
    known = next(offset for offset in range(0, size + 4120, 4120) if knows_a_run(scene.root.db, saved, state, offset))
    dice = random.Random(7)
    for offset in [known, *(dice.randint(known, size) for _ in range(14)), size - 1]:
        restore(saved, state, scene.book)
        os.truncate(wal, offset)
        result = scene.run()
        assert result.code == 0, (offset, result.stdout, result.stderr)
        scene.judge()
        assert [len(scene.lines("start", task)) for task in "123"] == [1, 2, 1], offset


def restore(saved: Path, state: Path, book: Path) -> None:
    for there, here in ((saved / "state", state), (saved / "book", book)):
        shutil.rmtree(here)
        shutil.copytree(there, here, symlinks=True)


def knows_a_run(db: Path, saved: Path, state: Path, offset: int) -> bool:
    shutil.rmtree(state)
    shutil.copytree(saved / "state", state, symlinks=True)
    os.truncate(db.with_name("state.db-wal"), offset)
    try:
        return bool(read_world(db).runs)
    except StoreError:
        return False


# --- the clock ----------------------------------------------------------------------


async def test_clock_set_back(scene: Scene) -> None:
    """A wall clock that is set back by a day in mid-run changes no time-out, no back-off and no duration."""
    scene.write_plan(
        [
            Task("until_exists back; sleep 30", "timeout = 1"),
            Task("until_exists back; if first; then exit 1; fi; done_", "retries = 1"),
        ],
        [Task("count 2; done_")],
    )
    day = 86_400.0
    options = Options(
        project=scene.kas.cwd,
        root=scene.root,
        configure=lambda flags: load_config(scene.kas.cwd, environ=os.environ, flags=flags).config,
        environ=os.environ,
        announce=lambda text: None,
        clock=Clock(lambda: time.time() - day * (scene.book / "back").exists(), time.monotonic),
    )
    with trio.fail_after(LIMIT):
        async with open_engine(options) as engine:
            submitted = await engine.service.runs.submit(
                scene.plan.read_bytes(), str(scene.plan), overrides=RunOverrides(on_failure="continue")
            )
            while len(scene.lines("start")) < 2:  # noqa: ASYNC110  # the programs' file is all there is to look at
                await trio.sleep(0.01)
            scene.let("back")
            await engine.orchestrator.wait_idle()
    world = scene.world()
    run = world.runs[submitted.run_id]
    assert [task.outcome for task in run.tasks.values()] == [Outcome.TIMED_OUT, Outcome.SUCCEEDED, Outcome.SUCCEEDED]
    records = scene.records()
    assert any(later.at < earlier.at - day / 2 for earlier, later in pairwise(records))
    views: list[RunView | TaskView | SessionView] = [run, *run.tasks.values(), *world.sessions.values()]
    lasted = [view.ended_mono - view.started_mono for view in views if view.ended_mono and view.started_mono]
    assert len(lasted) == len(views)
    assert all(0 <= seconds < LIMIT for seconds in lasted)
    assert lasted[1] >= 1
    times = [float(case.attrib["time"]) for case in ElementTree.fromstring(junit(world, run.id, str)).iter("testcase")]
    assert len(times) == 3
    assert all(0 <= seconds < LIMIT for seconds in times)
