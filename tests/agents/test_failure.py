"""What becomes of a task when the model's side fails, or a tool is refused."""

from __future__ import annotations

import json
import signal

import pytest

from kasmos.model import event as ev
from kasmos.model.task import CauseKind, Outcome
from kasmos.model.view import Ended

from .conftest import LIMIT, Workshop
from .programs import RECIPES

UNAUTHORISED = {"claude": 1, "codex": 1, "opencode": 1, "gemini": 145, "qwen": 0, "aider": 0, "mini": 1}
"""How each program exits when its key is wrong."""
DONE = 'checks = ["test -e done.txt"]'


@pytest.mark.parametrize("name", RECIPES)
def test_wrong_key(shop: Workshop, name: str) -> None:
    """A task whose program is told that its key is wrong fails: by its exit, or by its check where it exits with 0."""
    shop.equip(name)
    shop.write_tasks({name: "fail 401"}, settings=DONE)
    result = shop.kas("run", "plan.md", timeout=LIMIT)
    assert result.code == 1, shop.output()
    status = shop.session().exit
    assert status is not None
    assert status.code == UNAUTHORISED[name], shop.output()
    assert shop.outcome() is Outcome.FAILED
    assert {entry["status"] for entry in shop.asked(name)} == {401}
    failure = shop.conclusion(name)["failure"]
    assert failure is not None
    assert failure["kind"] == "auth", f"{failure}\n{shop.output()}"


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "mini"])
def test_passing_overload(shop: Workshop, name: str) -> None:
    """A program that gets over an overloaded model by itself has done its task at the first attempt."""
    shop.equip(name)
    shop.write_tasks({name: f"fail {529 if name == 'claude' else 503} 1 ;; say done"})
    result = shop.kas("run", "plan.md", timeout=LIMIT)
    assert result.code == 0, shop.output()
    assert shop.only_run().tasks["1"].attempts == 1
    assert [entry["step"] for entry in shop.asked(name)] == ["fail", "say"]


@pytest.mark.parametrize("name", ["claude", "codex", "opencode", "gemini", "qwen"])
def test_denied_tool(shop: Workshop, name: str) -> None:
    """A program that is refused a tool exits with 0 and has not done it: its own word tells, else the task's check."""
    shop.equip(name, may="nothing")
    path = shop.kas.cwd / "done.txt"
    # Gemini and qwen do not even offer the tool; a model that calls it all the same is told so.
    unoffered = f"call write_file {json.dumps({'file_path': str(path), 'content': 'x'})}"
    steps = {"opencode": f"run touch {path}", "gemini": unoffered, "qwen": unoffered}
    step = steps.get(name, f"write {path} x")
    shop.write_tasks({name: f"{step} ;; say done"}, settings=DONE)
    result = shop.kas("run", "plan.md", timeout=LIMIT)
    assert result.code == 1, shop.output()
    assert not path.exists()
    status = shop.session().exit
    assert status is not None
    assert status.code == 0, shop.output()
    state = shop.only_run().tasks["1"].state
    assert isinstance(state, Ended)
    # Of a tool that is not there gemini does not say that it was refused: only the check tells.
    assert state.cause.kind is (CauseKind.CHECK if name == "gemini" else CauseKind.AGENT)
    failure = shop.conclusion(name)["failure"]
    assert (failure and failure["kind"]) == (None if name == "gemini" else "tool_denied")


@pytest.mark.parametrize("name", ["claude", "codex", "gemini"])
def test_quota(shop: Workshop, name: str) -> None:
    """An account that has used up what it may use is parked: its task waits, and nothing more is asked of the model."""
    shop.equip(name)
    shop.write_tasks({name: "quota 3600"})
    with shop.start() as running:
        shop.wait(lambda: shop.told(ev.AccountParked), running)
        running.signal(signal.SIGINT)
        assert running.wait() == 130
    assert shop.outcome() is None
    assert len(shop.session_ids) == 1
    failure = shop.conclusion(name)["failure"]
    assert failure is not None
    assert failure["kind"] in ("quota", "rate_limit") if name == "claude" else failure["kind"] == "quota", failure


def test_quota_is_waited_for(shop: Workshop) -> None:
    """A parked account goes on after its reset: nothing is asked meanwhile, siblings wait, nothing is done twice."""
    shop.equip("codex", settings="max_concurrent = 1")
    shop.plan.write_text(
        "# Plan\n\n## Wave 1\n\n"
        + "".join(
            f"### Task {n}: codex\n\n[[mock {shop.conversation(f'codex{n}')}: {steps}]]\n\n"
            f'```toml kasmos\nagent = "codex"\n```\n\n'
            for n, steps in enumerate(("say first", "quota 1 1 ;; say second", "say third"), 1)
        )
    )
    result = shop.kas("run", "plan.md", timeout=2 * LIMIT)
    assert result.code == 0, f"{result.stdout}\n{result.stderr}"
    (parked,) = shop.told(ev.AccountParked)
    assert isinstance(parked, ev.AccountParked)
    assert parked.until_at is not None
    first, second, third = (shop.asked(f"codex{n}") for n in (1, 2, 3))
    assert [entry["step"] for entry in (*first, *second, *third)] == ["say", "quota", "say", "say"]
    # The program tells it to the minute.
    assert second[0]["at"] < parked.until_at < second[0]["at"] + 1 + 120
    assert min(second[1]["at"], third[0]["at"]) >= parked.until_at
    assert {task.outcome for task in shop.only_run().tasks.values()} == {Outcome.SUCCEEDED}


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_cut_stream(shop: Workshop, name: str) -> None:
    """A program that asks again after a cut stream has done its task at once; claude does not stream then."""
    shop.equip(name)
    shop.write_tasks({name: "cut 1 ;; say done"})
    result = shop.kas("run", "plan.md", timeout=LIMIT)
    assert result.code == 0, shop.output()
    assert [(entry["ended"], entry["stream"]) for entry in shop.asked(name)] == [
        ("cut", True),
        ("sent", name == "codex"),
    ]
