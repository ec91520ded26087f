"""`kas agents`: what it prints of profiles, programs and transcripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kasmos.cli.main import cli
from kasmos.exceptions import ConfigError

RECORDED = Path(__file__).parents[1] / "data" / "transcripts"


def kas(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["agents", *arguments], input=stdin)


def parsed(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_parse_json() -> None:
    """The events come as JSON lines, then one line with outcome, failure, usage and conversation."""
    *events, last = parsed(
        kas("parse", "--program", "claude", "--exit", "0", "--json", str(RECORDED / "claude/task.out"))
    )
    kinds = [event["type"] for event in events]
    assert kinds == ["tool_call", "message", "tool_result", "message", "usage", "result"]
    assert events[0]["tool"] == "Agent"
    assert last["outcome"] == "succeeded"
    assert last["failure"] is None
    assert last["usage"]["input_tokens"] == 3010
    assert last["usage"]["source"] == "reported"
    assert last["conversation"] == "f5cda21b-eccc-4359-b7e3-71a90d4779b2"


def test_parse_failure() -> None:
    """A failure has its kind, the program's words, and when its limit is over, in RFC 3339."""
    last = parsed(kas("parse", "--program", "codex", "--exit", "1", "--json", str(RECORDED / "codex/limit.out")))[-1]
    assert last["outcome"] == "failed"
    assert last["failure"]["kind"] == "quota"
    assert "usage limit" in last["failure"]["message"]
    assert last["failure"]["reset_at"].startswith("2026-11-")
    assert last["usage"]["input_tokens"] is None


@pytest.mark.parametrize(
    ("exit_", "outcome", "kind"),
    [
        ("143", "failed", "killed"),
        ("-9", "failed", "killed"),
        ("SIGKILL", "failed", "killed"),
        ("term", "failed", "killed"),
        ("-2", "cancelled", "killed"),
        ("unknown", "lost", "unknown"),
        ("0", "failed", "unknown"),
    ],
)
def test_parse_exit(exit_: str, outcome: str, kind: str) -> None:
    """How it ended is told as a code, a signal or `unknown`."""
    last = parsed(kas("parse", "--program", "claude", "--exit", exit_, "--json", str(RECORDED / "claude/hang.out")))[-1]
    assert (last["outcome"], last["failure"]["kind"]) == (outcome, kind)


def test_parse_stdin_and_stderr(tmp_path: Path) -> None:
    """`-` is standard input; what was written to stderr may be given apart, and `--accept` forgives."""
    data = (RECORDED / "codex/write_ro.out").read_bytes()
    arguments = (
        "parse",
        "--program",
        "codex",
        "--exit",
        "0",
        "--json",
        "--stderr",
        str(RECORDED / "codex/write_ro.err"),
        "-",
    )
    assert parsed(kas(*arguments, stdin=data))[-1]["failure"]["kind"] == "tool_denied"
    assert parsed(kas(*arguments, "--accept", "tool_denied", stdin=data))[-1]["outcome"] == "succeeded"


def test_parse_for_people() -> None:
    """Without --json tool calls are folded to a line, and the outcome and the usage stand at the end."""
    result = kas("parse", "--program", "claude", "--exit", "0", str(RECORDED / "claude/bash_default.out"))
    assert "→ Bash echo hi > f.txt" in result.output
    assert "← denied: " in result.output
    assert "failed: tool_denied: it was not allowed to use Bash" in result.output
    assert "2,010 in, 1,000 cached, 201 out, $0.0158" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--program", "nosuch"), "claude, codex"),
        (("--program", "claude", "--exit", "900"), "neither a code"),
        (("--program", "claude", "--accept", "all"), "no_result"),
    ],
)
def test_parse_wrong(arguments: tuple[str, ...], said: str) -> None:
    """Wrong words are answered with the right ones."""
    result = kas("parse", *arguments, "-", stdin=b"")
    assert result.exit_code == 2
    assert said in result.output


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
