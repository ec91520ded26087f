"""Usage, budgets and accounts as a person meets them: scripts that tell what agents tell, through the whole of kas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kasmos.client.sync import Supervisor
from kasmos.exceptions import RequestError
from kasmos.model.usage import FailureKind
from kasmos.store.reader import read_world
from tests.conftest import Kas
from tests.faults.oracle import Scene

CONFIG = """\
[orchestration]
default_agent = "coder"
[agents.coder]
program = "coder"
execution_mode = "scripted"
account = "work"
[agents.other]
program = "other"
execution_mode = "scripted"
"""


def block(script: str) -> str:
    return f"```toml scripted\n{script}\n```\n"


def plan(*scripts: str) -> str:
    tasks = (f"### Task {number}: Do {number}\n\n{block(script)}" for number, script in enumerate(scripts, 1))
    return "## Wave 1\n\n" + "\n".join(tasks)


COSTS = "output = [{{ usage = {{ input = 1000, output = 50, cost = {0} }}, turns = 3 }}]"


@pytest.fixture
def scene(kas: Kas) -> Scene:
    scene = Scene(kas)
    (kas.cwd / ".kasmos" / "config.toml").write_text(CONFIG)
    return scene


@pytest.fixture
def project(kas: Kas, scene: Scene) -> Path:
    return kas.cwd


@pytest.fixture
def daemon(kas: Kas, scene: Scene) -> Iterator[Scene]:
    """A daemon whose day is worth one dollar."""
    result = kas("daemon", "start", "--budget-daily", "1")
    assert result.code == 0, result.stderr
    yield scene
    kas("daemon", "stop", "--stop")


def test_usage_of_a_run(kas: Kas, project: Path) -> None:
    """`kas usage` and `kas why` say what was used, and what is not known of it."""
    (project / "plan.md").write_text(
        plan(COSTS.format(0.25), "output = [{ usage = { input = 10, output = 5 } }]", 'output = ["quiet\\n"]')
    )
    assert kas("run", "plan.md").code == 0
    found = json.loads(kas("usage", "--by", "account", "--json").stdout)
    assert [one["key"] for one in found["usage"]] == ["work"]
    assert (found["total"]["sessions"], found["total"]["turns"]) == (2, 3)
    assert (found["total"]["cost_usd"]["value"], found["total"]["cost_usd"]["at_least"]) == (0.25, True)
    text = kas("usage", "--by", "task").stdout
    assert "at least 0.25" in text
    assert "unknown" in text
    assert "used 1,000 tokens in, 50 out; 0.25 USD" in kas("why", "1").stdout
    assert kas("usage", "--since", "2d", "--by", "agent").stdout.splitlines()[1].startswith("coder")
    assert kas("usage", "--since", "never").code == 2


def test_a_run_within_its_budget(kas: Kas, scene: Scene, project: Path) -> None:
    """`kas run --budget-daily` stops who spends more, starts nothing after that, and the same again is refused."""
    (project / "plan.md").write_text(plan(f"{COSTS.format(2)}\nduration = inf", COSTS.format(1)))
    result = kas("run", "plan.md", "--budget-daily", "1.5", "--max-concurrent", "1")
    assert result.code == 1
    assert "the daily budget is spent: 2.00 of 1.50 USD" in result.stdout
    world = read_world(scene.root.db)
    assert len(world.sessions) == 1
    again = kas("run", "plan.md", "--budget-daily", "1.5")
    assert again.code == 4
    assert "the daily budget is spent: 2.00 of 1.50 USD" in again.stderr
    assert kas("run", "plan.md", "--budget-daily", "much").code == 2


def test_a_refused_login_ends_a_run_that_nobody_watches(kas: Kas, project: Path) -> None:
    """Without a terminal a refused login fails its task at once, with the program's words, and is tried anew."""
    (project / "plan.md").write_text(plan('output = [{ failure = { kind = "auth", message = "bad key" } }]\nexit = 1'))
    for _ in range(2):
        result = kas("run", "plan.md")
        assert result.code == 1
        assert "auth: bad key" in result.stdout


def test_a_daemon_over_its_budget(kas: Kas, daemon: Scene) -> None:
    """Work that may not be paid for is refused with 429 and the time until midnight; metrics say what was spent."""
    spent = kas("submit", "--wait", block(COSTS.format(1.25)))
    assert spent.code == 0, spent.stderr
    refused = kas("submit", block(COSTS.format(1)))
    assert refused.code == 4
    assert "the daily budget is spent: 1.25 of 1.00 USD" in refused.stderr
    supervisor = Supervisor(daemon.root.socket)
    with pytest.raises(RequestError) as error:
        supervisor.post("/v1/tasks", {"prompt": "x"})
    assert (error.value.status, error.value.code) == (429, "budget_exceeded")
    with pytest.raises(RequestError, match="the daily budget is spent"):
        supervisor.submit_run(plan(COSTS.format(1)).encode(), "-")


def test_a_parked_account_of_a_daemon(kas: Kas, daemon: Scene) -> None:
    """A refused login is asked about once: status tells, `kas accounts resume` lets the task go on."""
    script = (
        '[[attempt]]\noutput = [{ failure = { kind = "auth", message = "bad key" } }]\nexit = 1\n[[attempt]]\nexit = 0'
    )
    task = kas("submit", block(script)).stdout.strip()
    daemon.wait(lambda: "bad key" in kas("accounts").stdout)
    assert "`kas accounts resume work`" in kas("status").stdout
    world = read_world(daemon.root.db)
    parked = world.accounts["work"].parked
    assert parked is not None
    assert parked.kind is FailureKind.AUTH
    assert kas("submit", "--wait", "--agent", "other", block("exit = 0")).code == 0
    assert kas("accounts", "resume", "work").code == 0
    daemon.wait(lambda: read_world(daemon.root.db).runs[task].outcome is not None)
    assert read_world(daemon.root.db).runs[task].outcome == "succeeded"
    assert kas("accounts", "resume", "work").code == 4
