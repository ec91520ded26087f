"""`kas agents` asks the programs that are there for their versions, and whether somebody is logged in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kasmos.exceptions import ConfigError
from tests.unit.test_agents_cli import kas


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".kasmos").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    return tmp_path


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_profiles(project: Path) -> None:
    """Every profile is listed with its harness, program, version, whether that is known, and its login."""
    program(project / "bin/claude", 'case $1 in --version) echo "2.1.50 (Claude Code)";; auth) exit 1;; esac')
    program(project / "bin/codex", 'case $1 in --version) echo "codex-cli 7.0";; esac')
    program(project / "bin/mine", "exit 9")
    (project / ".kasmos/config.toml").write_text(
        '[agents.a]\nprogram = "bin/claude"\n[agents.b]\nprogram = "bin/codex"\n'
        '[agents.c]\nprogram = "bin/mine"\n[agents.d]\nprogram = "bin/nosuch"\n'
    )
    result = kas("--json")
    found = {one["agent"]: one for one in json.loads(result.stdout)}
    a, b, c, d = (found[name] for name in "abcd")
    assert (a["harness"], a["version"], a["version_known"], a["logged_in"]) == ("claude", "2.1.50", True, False)
    assert (b["harness"], b["version"], b["version_known"], b["logged_in"]) == ("codex", "7.0", False, True)
    assert (c["harness"], c["version"], c["path"]) == ("generic", None, str(project / "bin/mine"))
    assert d["path"] is None
    table = kas().output
    assert "7.0 (unknown to kasmos)" in table
    assert "not found" in table


def test_profiles_offline(project: Path) -> None:
    """With --offline no program is started."""
    program(project / "bin/claude", "touch started")
    (project / ".kasmos/config.toml").write_text('[agents.a]\nprogram = "bin/claude"\n')
    assert "claude" in kas("--offline").output
    assert not (project / "started").exists()


def test_profile_names_its_harness(project: Path) -> None:
    """A profile may say which harness its program has; a harness that is not there is a mistake with its cure."""
    program(project / "bin/wrapper", 'echo "2.1.50"')
    text = '[agents.a]\nprogram = "bin/wrapper"\nharness = "claude"\n'
    (project / ".kasmos/config.toml").write_text(text)
    found = {one["agent"]: one for one in json.loads(kas("--json").stdout)}
    assert (found["a"]["harness"], found["a"]["version"]) == ("claude", "2.1.50")
    (project / ".kasmos/config.toml").write_text(text.replace('"claude"', '"clod"'))
    result = kas()
    assert isinstance(result.exception, ConfigError)
    assert "agents.a.harness: 'clod'" in str(result.exception)
    assert "claude, codex" in str(result.exception)
