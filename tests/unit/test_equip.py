"""Profiles made ready for their programs: what is added, what stays the user's, what is told before the start."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from kasmos.harnesses.command import Continuation
from kasmos.harnesses.equip import doubts, equip, equip_attended, harness_of, judge_profile
from kasmos.model.approval import PermissionDefault
from kasmos.model.profile import AgentProfile, ExecutionMode, PromptMode, StopPolicy


def profile(program: str, flags: str = "", **changes: Any) -> AgentProfile:
    return AgentProfile(name="a", program=tuple(program.split()), flags=tuple(flags.split()), **changes)


@pytest.mark.parametrize(
    ("given", "command", "decides"),
    [
        (profile("claude"), "claude -p --output-format stream-json --verbose {prompt}", True),
        (profile("claude", "-p --output-format text"), "claude -p --output-format text {prompt}", False),
        (profile("claude", "-p --output-format=json"), "claude -p --output-format=json {prompt}", True),
        (profile("codex", "exec --json -", prompt=PromptMode.STDIN), "codex exec --json -", True),
        (profile("codex", "review"), "codex review", False),
        (profile("npx -y @openai/codex@0.169.0"), "npx -y @openai/codex@0.169.0 exec --json {prompt}", True),
        (profile("codex", model="m", effort="low"), "codex exec --json -m {model} -c model_reasoning_effort=low", True),
        (profile("gemini", "-p {prompt}"), "gemini -p {prompt} -o stream-json", True),
        (profile("aider", "--message {prompt} --yes-always"), None, True),
        (profile("./mine", "x", harness="claude"), "./mine -p x --output-format stream-json --verbose {prompt}", True),
        (profile("./mine", "x", model="m"), "./mine x", False),
        (profile("claude", prompt=PromptMode.SCRIPT), "claude", False),
        (profile("claude", execution_mode=ExecutionMode.TMUX), "claude", False),
        (profile("claude", execution_mode=ExecutionMode.SCRIPTED), "claude", False),
    ],
)
def test_command_of_a_profile(given: AgentProfile, command: str | None, decides: bool) -> None:
    """A known program is asked for its events where nothing else is spelled out, and then its own word decides."""
    ready = equip(given)
    words = (*ready.profile.program, *ready.profile.flags)
    if command is not None:
        said = command.replace("=low", '="low"').split()
        assert list(words[: len(said)]) == said
    assert ready.decides is decides


def test_equipping_twice() -> None:
    """What is ready is not made ready once more: no flag doubles."""
    for program in ("claude", "codex", "opencode", "gemini", "qwen", "aider", "mini"):
        once = equip(profile(program, model="m", permission_default=PermissionDefault.BYPASS)).profile
        assert equip(once).profile == once


def test_surroundings_of_a_known_program() -> None:
    """The harness keeps its program quiet and knows its best signal; what the profile says comes first."""
    ready = equip(profile("claude", env={"DISABLE_TELEMETRY": "0"})).profile
    assert ready.env["DISABLE_AUTOUPDATER"] == "1"
    assert ready.env["DISABLE_TELEMETRY"] == "0"
    assert ready.stop.first_signal == "SIGINT"
    assert equip(profile("claude", stop=StopPolicy("SIGTERM"))).profile.stop.first_signal == "SIGTERM"
    assert equip(profile("./mine")).profile.stop.first_signal == "SIGTERM"


def test_a_conversation_is_gone_on_with() -> None:
    """A conversation's id goes to where the program wants it."""

    def words(program: str, continuation: Continuation) -> str:
        return " ".join(equip(profile(program), conversation="i", continuation=continuation).profile.flags)

    assert "--session-id i" in words("claude", Continuation.NEW)
    assert "--resume i" in words("claude", Continuation.RESUME)
    assert words("codex", Continuation.RESUME) == "exec --json resume i {prompt}"


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (profile("claude"), "claude --resume i"),
        (profile("claude", "-p --output-format stream-json --verbose --model x"), "claude --model x --resume i"),
        (profile("claude", "--output-format=json -p {prompt} --max-turns 9"), "claude --resume i"),
        (profile("claude", "-p --session-id z --continue"), "claude --resume i"),
        (profile("claude", model="m", effort="high"), "claude --model {model} --effort high --resume i"),
        (
            profile("claude", permission_default=PermissionDefault.BYPASS),
            "claude --permission-mode bypassPermissions --resume i",
        ),
        (
            profile("codex", "exec --json --sandbox workspace-write -o out.txt -", prompt=PromptMode.STDIN),
            "codex --no-daemon --sandbox workspace-write resume i",
        ),
        (profile("npx -y @openai/codex@0.169.0 exec"), "npx -y @openai/codex@0.169.0 --no-daemon resume i"),
        (profile("opencode", "run --format json --auto"), "opencode --auto -s i"),
        (profile("gemini", "--skip-trust -o stream-json -y -p {prompt}"), "gemini --skip-trust -y --resume i"),
        (profile("qwen", "-o stream-json -y", prompt=PromptMode.STDIN), "qwen -y --resume i"),
        (profile("./mine", "x -p", harness="claude"), "./mine x --resume i"),
        (profile("codex", "review"), None),
        (profile("aider"), None),
        (profile("mini"), None),
        (profile("./mine"), None),
        (profile("claude", prompt=PromptMode.SCRIPT), None),
    ],
)
def test_a_headless_conversation_in_a_terminal(given: AgentProfile, command: str | None) -> None:
    """What is only for a headless turn is left out, and the rest of a profile stays; nothing is made up for others."""
    ready = equip_attended(given, "i")
    words = None if ready is None else " ".join((*ready.profile.program, *ready.profile.flags))
    assert words == command
    assert ready is None or (ready.profile.prompt, ready.decides) == (PromptMode.TYPE, False)


def test_an_id_is_chosen_where_every_version_takes_one() -> None:
    """A new conversation gets its id up front where that is safe, and where the profile does not speak of one."""

    def chosen(program: str, flags: str = "") -> str:
        return equip(profile(program, flags), conversation="i").conversation

    assert chosen("claude") == "i"
    assert chosen("claude", "-p --resume x") == ""
    assert chosen("claude", "-p --session-id=x") == ""
    assert chosen("gemini") == chosen("codex") == chosen("aider") == ""


def test_what_a_program_refuses() -> None:
    """A permission that the program cannot give is told before the start, with the cure."""
    asking = profile("aider", permission_default=PermissionDefault.PROMPT)
    (said,) = judge_profile(asking, environment={}, is_root=False)
    assert "cannot ask" in said.problem
    assert "tmux" in (said.cure or "")
    assert judge_profile(asking, ExecutionMode.TMUX, environment={}, is_root=False) == []
    bypass = profile("claude", permission_default=PermissionDefault.BYPASS)
    assert judge_profile(bypass, environment={}, is_root=True)
    assert judge_profile(bypass, environment={"IS_SANDBOX": "1"}, is_root=True) == []
    (unknown,) = judge_profile(profile("claude", harness="nobody"), environment={}, is_root=False)
    assert "no harness" in unknown.problem
    assert harness_of(profile("claude", harness="nobody")).name == "claude"


def test_what_a_program_is_never_told() -> None:
    """A model or an effort for which the program has no argument is doubted; where it has one, it is passed."""
    assert doubts(profile("claude", model="m", effort="high")) == []
    found = doubts(profile("./mine", model="m", effort="high"))
    assert [one.place for one in found] == ["agents.a.model", "agents.a.effort"]
    assert doubts(attrs.evolve(profile("./mine", "--model {model}"), model="m")) == []


@pytest.mark.parametrize(
    ("given", "command", "protocol"),
    [
        (profile("codex", model="m", effort="low"), "codex app-server -c S -c M -c E", "app_server"),
        (profile("codex", "exec --json --skip-git-repo-check -"), "codex app-server -c S", "app_server"),
        (profile("codex", "exec -s read-only -m x"), 'codex app-server -c sandbox_mode="read-only" -c X', "app_server"),
        (profile("codex", "--full-auto"), "codex exec --full-auto --json {prompt}", ""),
        (profile("codex", "review"), "codex review", ""),
        (profile("gemini", "--skip-trust -o stream-json -p {prompt}"), "gemini --acp --skip-trust", "acp"),
        (profile("gemini", "--approval-mode=auto_edit"), None, ""),
        (profile("qwen", model="m"), "qwen --acp -m {model}", "acp"),
        (profile("opencode", "run --format json"), "opencode acp", "acp"),
        (profile("codex", execution_mode=ExecutionMode.TMUX), "codex", ""),
    ],
)
def test_who_is_spoken_to(given: AgentProfile, command: str | None, protocol: str) -> None:
    """Who asks over a protocol is started for that, with what the profile says in the words for it."""
    given = attrs.evolve(given, permission_default=PermissionDefault.PROMPT)
    ready = equip(given)
    short = {
        "S": 'sandbox_mode="workspace-write"',
        "M": 'model="{model}"',
        "E": 'model_reasoning_effort="low"',
        "X": 'model="x"',
    }
    if command is not None:
        assert [*ready.profile.program, *ready.profile.flags] == [short.get(word, word) for word in command.split()]
    assert ready.protocol == protocol
    assert ready.asks is bool(protocol)
    if protocol:
        assert ready.profile.prompt is PromptMode.STDIN
        assert equip(ready.profile).profile == ready.profile
    assert judge_profile(given, environment={}, is_root=False) == []


def test_a_spoken_conversation() -> None:
    """Of the conversation that is gone on with the mediator speaks, not the arguments; none is chosen."""
    asking = profile("codex", permission_default=PermissionDefault.PROMPT)
    assert equip(asking, conversation="i").conversation == ""
    resumed = equip(asking, conversation="i", continuation=Continuation.RESUME)
    assert resumed.conversation == "i"
    assert "i" not in resumed.profile.flags


def test_a_model_by_the_environment() -> None:
    """Where a program takes its model from the environment alone, it is told there, and nobody doubts it."""
    asking = profile("opencode", permission_default=PermissionDefault.PROMPT, model='a"b/c')
    ready = equip(asking).profile
    assert json.loads(ready.env["OPENCODE_CONFIG_CONTENT"]) == {"model": 'a"b/c'}
    assert json.loads(ready.env["OPENCODE_PERMISSION"])["*"] == "ask"
    assert doubts(attrs.evolve(asking, model="a/b")) == []
    assert "OPENCODE_CONFIG_CONTENT" not in equip(attrs.evolve(asking, model=None)).profile.env
    assert "OPENCODE_PERMISSION" not in equip(profile("opencode", "--auto")).profile.env
