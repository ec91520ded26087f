"""What a command and a daemon do before they begin, and what they leave for later: by structure, never by time."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quart.routing import QuartMap

import kasmos
from kasmos.api.app import MatchedRule
from kasmos.serve.later import MODULES


def told_by(code: str) -> Any:
    """What a fresh interpreter prints as JSON in its last line."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)
    return json.loads(done.stdout.splitlines()[-1])


def test_garbage_is_looked_for_rarely_until_a_command_has_come_up() -> None:
    """While a command comes up the collector looks rarely; then as often as is usual, and never at what there was."""
    usual, rarely, settled, frozen = told_by(
        "import gc, json\nusual = gc.get_threshold()\nfrom kasmos.cli import garbage\ngarbage.look_rarely()\n"
        "rarely = gc.get_threshold()\ngarbage.settle()\n"
        "print(json.dumps([usual, rarely, gc.get_threshold(), gc.get_freeze_count() > 0]))"
    )
    assert rarely[0] > usual[0]
    assert settled == usual
    assert frozen


def test_a_verb_comes_up_while_garbage_is_looked_for_rarely() -> None:
    """`kas` puts the collector off before it imports a verb."""
    usual, there = told_by(
        "import gc, json\nusual = gc.get_threshold()\nfrom kasmos.cli.main import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit:\n    pass\n"
        "print(json.dumps([usual[0], gc.get_threshold()[0]]))"
    )
    assert there > usual


def test_the_log_of_a_daemon_takes_no_rich_in() -> None:
    """structlog is imported without rich, which everybody else still finds."""
    taken, found = told_by(
        "import json, sys\nimport kasmos.telemetry.logs\ntaken = [name for name in sys.modules if name[:4] == 'rich']\n"
        "import rich.table\nprint(json.dumps([taken, rich.table.__name__]))"
    )
    assert taken == []
    assert found == "rich.table"


def test_a_package_that_is_there_already_is_not_kept_out() -> None:
    """Who has imported rich before keeps it."""
    code = "import json, rich\nimport kasmos.telemetry.logs, sys\nprint(json.dumps(sys.modules['rich'] is rich))"
    assert told_by(code) is True


def test_a_routes_url_is_built_when_it_is_asked_for() -> None:
    """A route makes the function that builds its URL only when one is built, and then the URL is right."""
    rule = MatchedRule("/v1/runs/<name>", endpoint="runs.get")
    QuartMap([rule])
    assert rule._build.__func__.__code__.co_filename.endswith("kasmos/api/app.py")
    assert rule.build({"name": "r1"}) == ("", "/v1/runs/r1")
    assert rule.build({"name": "r1", "after": 3}) == ("", "/v1/runs/r1?after=3")


UNUSED = {
    "plans": "nobody has handed anything in",
    "screens": "no screen is there to be read",
    "harnesses": "no agent has said anything",
    "supervision.child": "there is no task",
    "orchestration.assembly": "there is no task",
    "api.documents": "nobody has asked what there is to ask for",
    "cli.errand": "it is no `kas run`",
    "cli.render": "there is nobody to show anything to",
}
"""What a daemon comes up without, and why that is right."""

COMES_UP = """
import json, os, signal, sys
from pathlib import Path
import kasmos.serve

def look():
    there = sorted(name for name in sys.modules if name.startswith("kasmos."))
    Path("there").write_text(json.dumps(there))
    os.kill(os.getpid(), signal.SIGTERM)

kasmos.serve.import_later = look
from kasmos.cli.main import main
main(["daemon", "start", "--foreground"])
"""


def test_a_daemon_comes_up_without_what_only_work_needs(tmp_path: Path) -> None:
    """Until it is ready, a daemon imports nothing that reads plans, screens or agents, or that starts tasks."""
    (tmp_path / ".kasmos").mkdir()
    environ = {**os.environ, "KASMOS_STATE_ROOT": str(tmp_path / "r")}
    done = subprocess.run(
        [sys.executable, "-c", COMES_UP], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    there = json.loads((tmp_path / "there").read_text())
    assert "kasmos.api.status" in there
    unused = {
        name: why for name, why in UNUSED.items() if any(f"{one}.".startswith(f"kasmos.{name}.") for one in there)
    }
    assert unused == {}


def test_a_daemon_without_readers_does_not_wait_for_the_grace_that_is_theirs(tmp_path: Path) -> None:
    """Where nobody reads, a daemon that is told to stop is gone: the readers' grace may be an hour."""
    (tmp_path / ".kasmos").mkdir()
    environ = {**os.environ, "KASMOS_STATE_ROOT": str(tmp_path / "r")}
    code = COMES_UP.replace("\nmain(", "\nfrom kasmos.cli.daemon import stand\nstand.LEAVE_GRACE = 3600\nmain(")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_what_is_imported_late_is_imported_when_a_daemon_has_come_up() -> None:
    """Whatever a daemon's rooms import inside a function is there before anybody waits for it."""
    rooms = [Path(kasmos.__file__).parent / room for room in ROOMS]
    late = {name for room in rooms for path in room.rglob("*.py") for name in _imported_in_functions(path)}
    given = set(MODULES) | WEB
    assert late - given == {"kasmos.telemetry.traces"}


def test_when_a_daemon_has_come_up_no_class_is_left_unfinished() -> None:
    """What attrs generates for a class of values is there before work comes, and is not made in the loop."""
    before, after = told_by(
        "import json\nfrom kasmos.model import value\nfrom kasmos.serve import import_later, import_web_stack\n"
        "import_web_stack()\nbefore = len(value._drawn)\nimport_later()\nprint(json.dumps([before, len(value._drawn)]))"
    )
    assert before > 0
    assert after == 0


ROOMS = ("api", "daemon", "orchestration", "supervision", "sessions", "store", "screens", "plans", "harnesses", "serve")
WEB = {"kasmos.api", "kasmos.api.app", "kasmos.api.metrics", "kasmos.api.server"}
"""What `import_web_stack` imports, and the routes with it."""


def _imported_in_functions(path: Path) -> Iterator[str]:
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("kasmos"):
                    yield node.module


NOT_FOR_SCRIPTS = {
    "api": "nobody has knocked",
    "screens": "nothing runs in a terminal",
    "harnesses.dialect": "no program writes a stream that is understood",
    "harnesses.parser": "no program writes a stream that is understood",
    "model.agent_event": "no program writes a stream that is understood",
    "supervision.terminal": "nothing runs in a terminal",
    "cli.daemon": "it is no daemon",
    "cli.render.junit": "no report was asked for",
    "cli.render.summary": "no report was asked for",
    "telemetry.logs": "it has no log",
    "telemetry.metrics": "nobody measures it",
    "telemetry.traces": "nobody traces it",
    "client": "it asks no other supervisor",
}
"""What `kas run` does without where tasks are scripts and nobody asks, and why that is right."""

RUNS = """
import json, os, sys
from kasmos.cli import foreground

def leave(code):
    there = sorted(sys.modules)
    print(json.dumps([code, there]), flush=True)
    os._exit(0)

foreground._leave = leave
from kasmos.cli.main import main
main(["run", "plan.md"])
"""


def test_a_run_of_scripts_does_without_what_only_agents_need(tmp_path: Path) -> None:
    """`kas run` of plain commands imports no web stack, no screens and no dialect of an agent."""
    (tmp_path / ".kasmos").mkdir()
    (tmp_path / ".kasmos/config.toml").write_text(
        '[orchestration]\ndefault_agent = "sh"\n[agents.sh]\nprogram = "sh"\nprompt = "script"\n'
    )
    (tmp_path / "plan.md").write_text("# Plan\n\n## Wave 1\n\n### Task 1: it\n\n```sh\ntrue\n```\n")
    environ = {**os.environ, "KASMOS_STATE_ROOT": str(tmp_path / "r")}
    done = subprocess.run(
        [sys.executable, "-c", RUNS], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stdout
    there = [f"{name}." for name in modules]
    assert "kasmos.supervision.child." in there
    assert {name: why for name, why in NOT_FOR_SCRIPTS.items() if any(f"kasmos.{name}." in one for one in there)} == {}
    heavy = {"quart", "hypercorn", "structlog", "prometheus_client", "rich", "httpx", "libtmux", "asyncio", "xml"}
    assert heavy & set(modules) == set()
