"""`kas agents`: what it prints of profiles, programs and transcripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kasmos.cli.main import cli

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
