"""What a command and a daemon do before they begin, and what they leave for later: by structure, never by time."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from quart.routing import QuartMap

from kasmos.api.app import MatchedRule


def told_by(code: str) -> Any:
    """What a fresh interpreter prints as JSON in its last line."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
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
