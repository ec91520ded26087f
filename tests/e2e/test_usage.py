"""Usage, budgets and accounts as a person meets them: scripts that tell what agents tell, through the whole of kas."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
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


def ask(scene: Scene, method: str, path: str, body: object = None) -> tuple[int, Mapping[str, str], str]:
    """Status, headers and body of an answer."""
    with closing(http.client.HTTPConnection("kasmos")) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(os.fspath(scene.root.socket))
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, response.read().decode()


def plan(*scripts: str) -> str:
    tasks = (f"### Task {number}: Do {number}\n\n{block(script)}" for number, script in enumerate(scripts, 1))
    return "## Wave 1\n\n" + "\n".join(tasks)


COSTS = "output = [{{ usage = {{ input = 1000, output = 50, cost = {0} }}, turns = 3 }}]"


@pytest.fixture(autouse=True)
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is about noon here: what is spent today is not spent yesterday a moment later."""
    monkeypatch.setenv("TZ", f"NOON{time.gmtime().tm_hour - 12:+d}")


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


def test_a_run_spends_what_it_spends_once(kas: Kas, project: Path) -> None:
    """What the tasks of a run cost is taken from its budget once, though the run is shown as well."""
    (project / "plan.md").write_text(plan(*(COSTS.format(0.5) for _ in range(4))))
    result = kas("run", "plan.md", "--budget-daily", "2.25", "--max-concurrent", "1")
    assert result.code == 0, result.stdout + result.stderr


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
    answer = ask(daemon, "POST", "/v1/tasks", {"prompt": "x"})
    assert 0 < int(answer[1]["retry-after"]) <= 86_400 + 3601
    exposition = ask(daemon, "GET", "/metrics")[2].splitlines()
    assert 'kasmos_tokens_total{account="work",agent="coder",kind="input",source="reported"} 1000.0' in exposition
    assert 'kasmos_cost_usd_total{account="work",agent="coder",source="reported"} 1.25' in exposition
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


STREAM = """\
{"type":"system","subtype":"init","session_id":"c-1","model":"claude-x","tools":[]}
{"type":"assistant","message":{"id":"m1","model":"claude-x","role":"assistant","content":[{"type":"text","text":"Done."}],\
"usage":{"input_tokens":1000,"output_tokens":40,"cache_read_input_tokens":500,"cache_creation_input_tokens":0}},\
"session_id":"c-1"}
"""
RESULT = """\
{"type":"result","subtype":"success","is_error":false,"result":"Done.","session_id":"c-1","num_turns":1,\
"total_cost_usd":0.75,"usage":{"input_tokens":1000,"output_tokens":40,"cache_read_input_tokens":500,\
"cache_creation_input_tokens":0}}
"""
LIMITED = """\
{"type":"result","subtype":"success","is_error":true,"api_error_status":401,"session_id":"c-1","num_turns":1,\
"result":"Invalid API key","total_cost_usd":0,"usage":{"input_tokens":0,"output_tokens":0}}
"""


def claude(scene: Scene, *pieces: str) -> None:
    """Have an agent that writes this, as claude would, and exits 0."""
    program = scene.kas.cwd / "claude"
    lines = ["#!/bin/sh", 'printf "%s\\n" "$@" >arguments']
    for number, piece in enumerate(pieces):
        (scene.kas.cwd / f"piece{number}").write_text(piece)
        lines.append(f"cat piece{number}")
    program.write_text("\n".join(lines) + "\n")
    program.chmod(0o755)
    config = f'[orchestration]\ndefault_agent = "c"\n[agents.c]\nprogram = "{program}"\nflags = ["-p"]\n'
    (scene.kas.cwd / ".kasmos" / "config.toml").write_text(config)
    (scene.kas.cwd / "plan.md").write_text("## Wave 1\n\n### Task 1: Do it\n\nPlease.\n")


def test_the_stream_of_a_program_is_read(kas: Kas, scene: Scene) -> None:
    """What a program says in its own stream is its usage, and it is told what its budgets have left."""
    claude(scene, STREAM, RESULT)
    assert kas("run", "plan.md", "--budget-daily", "5").code == 0
    [total] = json.loads(kas("usage", "--by", "agent", "--json").stdout)["usage"]
    assert (total["key"], total["turns"]) == ("c", 1)
    assert [total[name]["value"] for name in ("input_tokens", "cached_tokens", "cost_usd")] == [1000, 500, 0.75]
    assert total["cost_usd"]["source"] != "unknown"
    arguments = (kas.cwd / "arguments").read_text().splitlines()
    assert arguments[:3] == ["--max-budget-usd", "5.00", "-p"]


@pytest.mark.parametrize(("pieces", "word"), [((STREAM,), "without a result"), ((STREAM, LIMITED), "Invalid API key")])
def test_exit_0_proves_nothing(kas: Kas, scene: Scene, pieces: tuple[str, ...], word: str) -> None:
    """A program that exits 0 and never said that it is done, or said that it is not, has failed."""
    claude(scene, *pieces)
    result = kas("run", "plan.md")
    assert result.code == 1
    assert word in result.stdout


def test_usage_over_a_kill(kas: Kas, scene: Scene) -> None:
    """A program that goes on while its supervisor is killed is followed again from the first byte, and paid once."""
    claude(scene, STREAM, RESULT)
    program = kas.cwd / "claude"
    program.write_text(program.read_text().replace("cat piece1", "until test -e go; do sleep 0.05; done; cat piece1"))
    with kas.running("run", "plan.md") as first:
        scene.wait(lambda: scene.root.db.exists() and read_world(scene.root.db).ledger.days)
        first.send_signal(signal.SIGKILL)
        first.wait()
    [entry] = read_world(scene.root.db).ledger.entries()
    assert (entry.tally.input.amount, entry.tally.cost.unknown) == (1000, 1)
    (kas.cwd / "go").touch()
    assert kas("run", "plan.md").code == 0
    world = read_world(scene.root.db)
    [entry] = world.ledger.entries()
    assert (entry.tally.tokens.amount, entry.tally.cost.amount, entry.tally.sessions) == (1040, 0.75, 1)
    assert entry.tally.cost.unknown == 0
    assert len(world.sessions) == 1
