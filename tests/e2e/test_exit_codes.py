"""What `kas` exits with: the table of docs/design.md, section 7."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from ..conftest import Kas, Result
from ..faults.oracle import Scene, Task, without_tmux


@pytest.fixture
def scene(kas: Kas) -> Scene:
    return Scene(kas)


def good(scene: Scene) -> Result:
    scene.write_plan([Task("done_")])
    return scene.run()


def failing(scene: Scene) -> Result:
    scene.write_plan([Task("exit 42")])
    return scene.run()


def timing_out(scene: Scene) -> Result:
    scene.write_plan([Task("sleep 60", "timeout = 0.05")])
    return scene.run()


def usage(scene: Scene) -> Result:
    return scene.kas("run")


def unknown_verb(scene: Scene) -> Result:
    return scene.kas("rnu")


def no_such_plan(scene: Scene) -> Result:
    return scene.kas("run", "nowhere.md")


def plan_without_waves(scene: Scene) -> Result:
    scene.plan.write_text("# Nothing\n")
    return scene.run()


def cycle(scene: Scene) -> Result:
    scene.write_plan([Task("done_", "needs = [2]"), Task("done_", "needs = [1]")])
    return scene.run()


def unknown_agent(scene: Scene) -> Result:
    scene.write_plan([Task("done_", 'agent = "nobody"')])
    return scene.run()


def wrong_config(scene: Scene) -> Result:
    scene.configure(orchestration="colour = 3")
    return good(scene)


def wrong_flag(scene: Scene) -> Result:
    scene.write_plan([Task("done_")])
    return scene.run("--max-concurrent", "0")


def unwritable_report(scene: Scene) -> Result:
    scene.write_plan([Task("done_")])
    return scene.run("--junit", "nowhere/report.xml")


def no_supervisor(scene: Scene) -> Result:
    scene.write_plan([Task("if first; then sleep 60; fi; done_")])
    with scene.start() as running:
        scene.wait_started("1", running)
        running.signal(signal.SIGINT)
        running.wait()
    return scene.kas("status", "--watch")


def nothing_to_resume(scene: Scene) -> Result:
    return scene.kas("resume")


def unavailable(scene: Scene) -> Result:
    scene.write_plan([Task("done_")])
    return scene.run("--mode", "tmux", env=without_tmux(scene))


def unusable_state_root(scene: Scene) -> Result:
    scene.write_plan([Task("done_")])
    everybodys = scene.book / "state"
    everybodys.mkdir()
    everybodys.chmod(0o777)
    return scene.run(env={"KASMOS_STATE_ROOT": str(everybodys)})


def bug(scene: Scene) -> Result:
    scene.write_plan([Task("done_")])
    return scene.run(failpoints="run.accepted=error")


@pytest.mark.parametrize(
    ("way", "code", "said"),
    [
        (good, 0, ""),
        (failing, 1, ""),
        (timing_out, 1, ""),
        (usage, 2, "PLAN"),
        (unknown_verb, 2, "run"),
        (no_such_plan, 2, "nowhere.md: cannot be read"),
        (plan_without_waves, 2, "## Wave 1"),
        (cycle, 2, "plan.md:"),
        (unknown_agent, 2, "nobody"),
        (wrong_config, 2, "colour"),
        (wrong_flag, 2, "--max-concurrent"),
        (unwritable_report, 2, "nowhere/report.xml"),
        (no_supervisor, 3, "no supervisor is running"),
        (nothing_to_resume, 4, "unfinished"),
        (unavailable, 4, "tmux"),
        (unusable_state_root, 4, "others can write"),
        (bug, 70, "this is a bug"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_exit_code(scene: Scene, way: Callable[[Scene], Result], code: int, said: str) -> None:
    """Every way a command can end has the exit code of the table, says why on stderr, and shows no traceback."""
    result = way(scene)
    assert result.code == code, result.stdout + result.stderr
    assert said in result.stderr
    assert bool(result.stderr) == (code > 1)
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=lambda value: str(value),
)
def test_exit_code_of_a_follower_that_is_interrupted(scene: Scene, signum: signal.Signals, code: int) -> None:
    """A command that only follows a run exits with its signal's code as well."""
    scene.write_plan([Task("until_exists go; done_")])
    with scene.start() as first:
        scene.wait_started("1", first)
        with scene.start() as second:
            scene.wait(lambda: "following run" in second.text(), first, second)
            second.signal(signum)
            assert second.wait() == code
        scene.let("go")
        assert first.wait() == 0
