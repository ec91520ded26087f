"""`kas doctor` on this machine, in projects that are sound and in ones that are not."""

from __future__ import annotations

import json
from typing import Any

from ..conftest import Kas


def findings(output: str, area: str) -> list[dict[str, Any]]:
    return [finding for finding in json.loads(output)["findings"] if finding["area"] == area]


def test_doctor_of_a_sound_project(kas: Kas) -> None:
    """Where everything is there, it exits 0, says so in its last line and leaves nothing behind."""
    result = kas("doctor")
    assert result.code == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "everything that is needed is there"
    assert "no supervisor" in result.stdout
    assert list(kas.cwd.iterdir()) == []


def test_doctor_of_a_wrong_configuration(kas: Kas) -> None:
    """Every mistake of the configuration is a problem of its own, and the rest is looked at all the same."""
    (kas.cwd / ".kasmos").mkdir()
    (kas.cwd / ".kasmos" / "config.toml").write_text("[orchestration]\nmax_concurent = 1\nretries = -1\n")
    result = kas("doctor", "--json")
    assert result.code == 1, result.stderr
    assert [finding["level"] for finding in findings(result.stdout, "project")] == ["problem", "problem"]
    assert findings(result.stdout, "machine")
    assert json.loads(result.stdout)["problems"] == 2


def test_doctor_of_missing_agents(kas: Kas) -> None:
    """A profile whose program is not there is a problem with a cure, unless it is not enabled."""
    (kas.cwd / ".kasmos").mkdir()
    (kas.cwd / ".kasmos" / "config.toml").write_text(
        '[agents.one]\nprogram = "no-such-agent"\n'
        '[agents.two]\nprogram = "no-such-agent"\nenabled = false\n'
        '[agents.claude]\nprogram = "/nowhere/claude"\n'
    )
    result = kas("doctor", "--json")
    assert result.code == 1, result.stderr
    levels = {found["text"].partition(":")[0]: found for found in findings(result.stdout, "agents")}
    assert {name: found["level"] for name, found in levels.items()} == {
        "shell": "fine",
        "one": "problem",
        "two": "fine",
        "claude": "problem",
    }
    assert "npm install" in levels["claude"]["cure"]
