"""`kas run`, the ordinary way: waves, needs, checks, retries, time-outs, policies, output."""

from __future__ import annotations

import json
import signal
from itertools import accumulate

import pytest

from kasmos.cli.run import MODES
from kasmos.model.profile import ExecutionMode
from kasmos.model.task import CauseKind, Outcome
from kasmos.model.view import Ended, RunView

from ..conftest import Kas
from ..faults.oracle import Scene, Task, without_tmux


@pytest.fixture
def scene(kas: Kas) -> Scene:
    return Scene(kas)


def outcomes(run: RunView) -> list[str]:
    return [str(task.outcome) for task in run.tasks.values()]


def cause_kind(run: RunView, task_id: str) -> CauseKind:
    state = run.tasks[task_id].state
    assert isinstance(state, Ended)
    return state.cause.kind


def order(scene: Scene) -> list[str]:
    return [f"{line.what} {line.task}" for line in scene.ledger]


# --- waves --------------------------------------------------------------------------


def test_waves_run_in_order(scene: Scene) -> None:
    """No task of a wave starts before every task of the wave before has ended."""
    scene.write_plan([Task("count 2 0.05; done_"), Task("done_")], [Task("done_")], [Task("done_")])
    result = scene.run()
    assert result.code == 0, result.stderr
    assert result.stderr == ""
    assert [line.task for line in scene.lines("start")][2:] == ["3", "4"]
    assert order(scene).index("start 3") > max(order(scene).index("done 1"), order(scene).index("done 2"))
    assert order(scene).index("start 4") > order(scene).index("done 3")
    scene.judge()


def test_needs_override_the_barrier(scene: Scene) -> None:
    """A task that names what it needs starts as soon as that has succeeded, beside the wave before its own."""
    scene.write_plan([Task("done_"), Task("until_exists go; done_")], [Task("touch $BOOK/go; done_", "needs = [1]")])
    assert scene.run().code == 0
    assert order(scene).index("start 3") < order(scene).index("done 2")
    scene.judge()


def test_max_concurrent(scene: Scene) -> None:
    """Never more tasks at once than `--max-concurrent` says, and as many as it says."""
    # The first two wait for each other: without the other neither ends.
    pair = [Task(f'touch "$BOOK/{mine}"; until_exists {other}; done_') for mine, other in ("ab", "ba")]
    scene.write_plan([*pair, *[Task("sleep 0.1; done_")] * 4])
    assert scene.run("--max-concurrent", "2").code == 0
    steps = {"start": 1, "done": -1}
    # A program's last line comes before its end is seen, and the next one's first line after that.
    assert max(accumulate(steps[line.what] for line in scene.ledger)) == 2
    scene.judge()


def test_advance_by_hand(scene: Scene) -> None:
    """Without automatic advance the run waits after each wave, until `kas advance` from another terminal."""
    scene.configure(orchestration="auto_advance_waves = false")
    scene.write_plan([Task("done_")], [Task("done_")], [Task("done_")])
    with scene.start() as running:
        for wave in (1, 2):
            scene.wait(lambda: scene.world().runs and scene.only_run().state == "parked", running)
            assert len(scene.lines("start")) == wave
            advanced = scene.kas("advance")
            assert advanced.code == 0, advanced.stderr
            scene.wait_started(str(wave + 1), running)
        assert running.wait() == 0
        assert "kas advance" in running.stdout
    scene.judge()


# --- tasks --------------------------------------------------------------------------


def test_retries_back_off(scene: Scene) -> None:
    """A task that fails is tried again, later each time, as often as it may be; the last attempt counts."""
    scene.write_plan(
        [Task('echo x >>"$BOOK/tries"; [ $(wc -l <"$BOOK/tries") = 3 ] || exit 5; done_', "retries = 2")],
        [Task("exit 6", "retries = 1")],
    )
    result = scene.run()
    assert result.code == 1
    run = scene.only_run()
    assert outcomes(run) == ["succeeded", "failed"]
    assert [task.attempts for task in run.tasks.values()] == [3, 2]
    delays = [record.event.delay for record in scene.records() if hasattr(record.event, "delay")]
    assert delays == [0.05, 0.1, 0.05]
    started = [session.starting_mono for session in scene.world().sessions.values() if session.task_id == "1"]
    assert started[1] - started[0] >= 0.05
    assert started[2] - started[1] >= 0.1


def test_checks(scene: Scene) -> None:
    """A task succeeds only if its checks pass; they run after exit 0, in order, and their output is kept."""
    scene.write_plan(
        [
            Task("done_", 'checks = ["echo one >>$BOOK/checks", "echo two >>$BOOK/checks"]'),
            Task("done_", 'checks = ["echo not good enough; exit 9", "touch $BOOK/never"]'),
            Task("exit 1", 'checks = ["touch $BOOK/never"]'),
        ]
    )
    result = scene.run()
    assert result.code == 1
    run = scene.only_run()
    assert outcomes(run) == ["succeeded", "failed", "failed"]
    assert (scene.book / "checks").read_text() == "one\ntwo\n"
    assert not (scene.book / "never").exists()
    assert cause_kind(run, "2") is CauseKind.CHECK
    assert "not good enough" in result.stdout
    assert "not good enough" in scene.kas("logs", "w1t2-work-check1").stdout


def test_timeout(scene: Scene) -> None:
    """A task that takes longer than it may is stopped, even if it does not listen, and has timed out."""
    scene.configure(stop_grace=0.3)
    # On a busy machine its time may be over before it has begun not to listen: then it is given more.
    for timeout in (0.3, 3, 30):
        deaf = Task("trap '' TERM; note deaf; while :; do sleep 0.05; done", f"timeout = {timeout}")
        scene.write_plan([deaf, Task("done_")])
        result = scene.run()
        assert result.code == 1
        run = list(scene.world().runs.values())[-1]
        assert outcomes(run) == ["timed_out", "succeeded"]
        if any(line.session in run.tasks["1"].sessions for line in scene.lines("deaf")):
            break
    assert scene.world().sessions[run.tasks["1"].sessions[0]].killed


def test_program_that_is_not_there(scene: Scene) -> None:
    """A program that cannot be started fails its task with that cause; the others go on."""
    scene.configure(tables='[agents.ghost]\nprogram = "no-such-program-here"')
    scene.write_plan([Task("", 'agent = "ghost"'), Task("count 3; done_")])
    result = scene.run()
    assert result.code == 1
    run = scene.only_run()
    assert outcomes(run) == ["failed", "succeeded"]
    assert cause_kind(run, "1") is CauseKind.START
    assert "no-such-program-here" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


# --- policies -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("stop", ["failed", "succeeded", "skipped", "skipped"]),
        ("continue", ["failed", "succeeded", "succeeded", "skipped"]),
        ("fail_fast", ["failed", "cancelled", "skipped", "skipped"]),
    ],
)
def test_on_failure(scene: Scene, policy: str, expected: list[str]) -> None:
    """After a failed task, `on_failure` decides what becomes of its siblings and of the later waves."""
    second = "until_exists never" if policy == "fail_fast" else "until_exists go; done_"
    scene.write_plan(
        [Task("until_exists both; touch $BOOK/go; exit 4"), Task(f"touch $BOOK/both; {second}")],
        [Task("done_"), Task("done_", "needs = [1]")],
    )
    result = scene.run("--on-failure", policy)
    assert result.code == 1
    run = scene.only_run()
    assert outcomes(run) == expected
    assert cause_kind(run, "1") is CauseKind.EXIT
    for task_id, task in run.tasks.items():
        assert isinstance(task.state, Ended)
        if task.outcome in (Outcome.SKIPPED, Outcome.CANCELLED):
            assert task.state.cause.because_of == ("1",), task_id


# --- what it prints, and other modes ------------------------------------------------


def test_json(scene: Scene) -> None:
    """With `--json` stdout is one event per line, in order, from the run's beginning to its end, and nothing else."""
    scene.write_plan([Task("count 2; done_"), Task("exit 1")], [Task("done_")])
    result = scene.run("--json")
    assert result.code == 1
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0]["type"] == "run_started"
    assert events[-1]["type"] == "run_ended"
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
    assert {"wave_started", "session_starting", "session_started", "session_ended", "task_ended"} <= {
        event["type"] for event in events
    }


def test_scripted(scene: Scene) -> None:
    """In scripted mode no program runs: each task does what its script says, retries included."""
    scene.plan.write_text(
        "## Wave 1\n### Task 1: two attempts\n"
        "```toml kasmos\nretries = 1\n```\n"
        "```sh\ntouch $BOOK/ran\n```\n"
        '```toml scripted\n[[attempt]]\noutput = ["first\\n"]\nexit = 3\n[[attempt]]\noutput = ["second\\n"]\n```\n'
        "### Task 2: one\n```sh\ntrue\n```\n```toml scripted\nexit = 4\n```\n"
    )
    result = scene.run("--mode", "scripted")
    assert result.code == 1, result.stderr
    assert outcomes(scene.only_run()) == ["succeeded", "failed"]
    assert not (scene.book / "ran").exists()


def test_without_tmux(scene: Scene) -> None:
    """Where there is no tmux, a plan that needs it is refused with the cure before anything is begun."""
    scene.write_plan([Task("done_")])
    result = scene.run("--mode", "tmux", env=without_tmux(scene))
    assert result.code == 4
    assert "needs tmux, which is not on PATH" in result.stderr
    assert "apt" in result.stderr
    assert not scene.root.db.exists()
    assert scene.ledger == []


def test_mode_that_is_unknown(scene: Scene) -> None:
    """A word that is no mode is refused as wrong usage, and nothing is touched."""
    assert tuple(ExecutionMode) == MODES
    scene.write_plan([Task("done_")])
    result = scene.run("--mode", "foo")
    assert result.code == 2
    assert "'foo' is not one of 'headless', 'tmux', 'scripted'" in result.stderr
    assert not scene.root.db.exists()


# --- again --------------------------------------------------------------------------


def test_options_for_a_run_that_is_continued(scene: Scene) -> None:
    """A run that goes on keeps its settings: who asks for others is told which, and what it is that goes on."""
    scene.write_plan([Task("if first; then sleep 60; fi; done_")])
    with scene.start("run", "plan.md", "--max-concurrent", "2") as running:
        scene.wait_started("1", running)
        running.signal(signal.SIGINT)
        assert running.wait() == 130
    run_id = scene.only_run().id
    result = scene.run("--max-concurrent", "2", "--task-timeout", "9m", "--on-failure", "continue")
    assert result.code == 0
    kept = f"not applied: run {run_id} keeps what it began with"
    assert f"warning: task_timeout: {kept}, no value (`kas run --fresh` starts anew)" in result.stdout
    assert f"warning: on_failure: {kept}, stop" in result.stdout
    assert "max_concurrent" not in result.stdout
    assert f"continuing run {run_id} (Plan): 0 of 1 tasks have ended" in result.stdout


def test_trying_again_what_had_ended(scene: Scene) -> None:
    """`kas retry` of a run that ended in order says which tasks it tries again, and nothing of a killed supervisor."""
    scene.write_plan([Task("if first; then exit 1; fi; done_"), Task("done_")], [Task("done_")])
    assert scene.run().code == 1
    result = scene.kas("retry")
    assert result.code == 0, result.stderr
    assert f"trying again in run {scene.only_run().id} (Plan): tasks 1, 3" in result.stdout
    assert "killed" not in result.stdout + result.stderr


# --- what it costs -------------------------------------------------------------------


def test_nobody_is_served_before_they_come(scene: Scene) -> None:
    """A run that nobody asks anything of never imports the web stack."""
    scene.write_plan([Task("done_")])
    result = scene.run(env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.code == 0, result.stderr
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "kasmos.daemon.door" in imported
    assert not imported & {"hypercorn", "quart", "kasmos.api.app"}
