"""From a plan's task and its profile to the sessions that are run for it."""

from __future__ import annotations

import uuid
from typing import Any

import attrs
import pytest

from kasmos.exceptions import BackendUnavailableError, ConfigError, PlanError
from kasmos.model.plan import Check, PlanTask, RunSettings
from kasmos.model.profile import (
    AgentProfile,
    ExecutionMode,
    LeftoverPolicy,
    Leftovers,
    Limits,
    OutputMode,
    PromptMode,
    RestartPolicy,
    StopPolicy,
)
from kasmos.model.session import SessionKind, SessionSpec
from kasmos.model.view import RunView
from kasmos.orchestration.assembly import TaskRecipe
from kasmos.orchestration.kitchen import Kitchen
from kasmos.sessions.registry import require_backend
from kasmos.sessions.scripted import ScriptedBackend
from kasmos.supervision.handover import Thread
from kasmos.supervision.recipe import Recipe
from kasmos.supervision.termination import terminate
from tests.simulation import plan
from tests.strategies import Ledger, started

PROFILE = AgentProfile(
    name="coder",
    program=("claude", "-p"),
    flags=("--model", "{model}"),
    model="opus",
    prompt=PromptMode.STDIN,
    env={"COLOR": "never", "LEVEL": "profile"},
    env_pass=("MY_KEY",),
    timeout=60.0,
    stop=StopPolicy(stop_grace=3.0),
    restart=RestartPolicy(max_restarts=2),
    leftovers=Leftovers(LeftoverPolicy.REPORT, ("redis",)),
    limits=Limits(nice=5),
    retry_lost=True,
)
TASK = PlanTask(
    "2", 2, 1, "Write it", "Body.", checks=(Check("make"), Check("make test", timeout=9.0)), env={"LEVEL": "task"}
)
OTHER = PlanTask("1", 1, 1, "Design it", "Body.")


def run_of(*tasks: PlanTask, **settings: Any) -> RunView:
    ledger = Ledger(started(plan(*tasks), RunSettings(**{"default_agent": "coder", **settings}), run_id="ab12"))
    return attrs.evolve(ledger.world.runs["ab12"], project="/home/me/project")


def recipe(
    task: PlanTask = TASK,
    profiles: dict[str, AgentProfile] | None = None,
    kitchen: dict[str, Any] | None = None,
    **settings: Any,
) -> TaskRecipe:
    run = run_of(OTHER, task, **settings)
    found = {"coder": PROFILE} if profiles is None else profiles
    made = Kitchen(
        profiles=lambda: found,
        environ={"PATH": "/bin", "MY_KEY": "k", "SECRET": "s"},
        backends={},
        new_suffix=lambda: "xyzab",
    )
    return TaskRecipe(run, run.tasks[task.id], attrs.evolve(made, **(kitchen or {})))


def test_the_session_of_an_attempt() -> None:
    """An attempt's session is all that profile, task and run say, under an id that no other has."""
    spec = recipe(kitchen={"buffer_bytes": 100, "max_log_bytes": 1000}).agent(3)
    assert (spec.id, spec.name, spec.kind) == ("ab12-2a3-xyzab", "w1t2-write-it", SessionKind.AGENT)
    structured = ("--output-format", "stream-json", "--verbose")
    assert spec.argv == ("claude", "-p", "--model", "opus", *structured, "--session-id", spec.conversation)
    assert uuid.UUID(spec.conversation)
    assert spec.harness == "claude"
    assert spec.stdin_prompt
    assert "This is task 2 of wave 1. 1 other task runs beside it" in spec.prompt
    assert (spec.cwd, spec.backend, spec.output) == ("/home/me/project", ExecutionMode.HEADLESS, OutputMode.FILE)
    assert (spec.run_id, spec.task_id, spec.attempt, spec.check, spec.profile) == ("ab12", "2", 3, None, "coder")
    assert (spec.leftovers, spec.limits) == (PROFILE.leftovers, PROFILE.limits)
    assert spec.stop == attrs.evolve(PROFILE.stop, stop_signal="SIGINT")
    assert (spec.buffer_bytes, spec.max_log_bytes) == (100, 1000)
    assert len(spec.profile_digest) == 16


def test_the_sessions_of_a_takeover() -> None:
    """A conversation is opened in a terminal and gone on with as profile and task say, told nothing but what is new."""
    made = recipe()
    spec = made.agent(2, Thread("c-1", attended=True))
    assert spec.argv == ("claude", "--model", "opus", "--resume", "c-1")
    assert (spec.backend, spec.attended, spec.attempt, spec.harness) == (ExecutionMode.TMUX, True, 2, "")
    assert (spec.prompt, spec.stdin_prompt, spec.conversation) == ("", False, "c-1")
    assert spec.env == {**made.agent(2).env, "KASMOS_SESSION_ID": spec.id}
    on = made.agent(2, Thread("c-1", "Now the rest.", from_person=True))
    assert (on.backend, on.attended, on.harness, on.conversation) == (ExecutionMode.HEADLESS, False, "claude", "c-1")
    assert on.argv[-2:] == ("--resume", "c-1")
    assert (on.prompt, on.stdin_prompt) == ("Now the rest.", True)
    assert "has left" in made.agent(2, Thread("c-1", from_person=True)).prompt
    assert made.agent(2, Thread("c-1")).prompt.startswith("You were interrupted.")
    assert made.quit_keys()[0] == "C-c"


def test_the_environment_of_an_attempt() -> None:
    """A program sees the allowed part of the environment, the profile's and the task's variables, and who it is."""
    quiet = {
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    assert recipe().agent(1).env == quiet | {
        "PATH": "/bin",
        "MY_KEY": "k",
        "COLOR": "never",
        "LEVEL": "task",
        "KASMOS_MANAGED": "1",
        "KASMOS_PROJECT": "/home/me/project",
        "KASMOS_SESSION_ID": "ab12-2a1-xyzab",
        "KASMOS_TASK": "2",
        "KASMOS_WAVE": "1",
        "KASMOS_PEERS": "1",
    }


def test_the_session_of_a_check() -> None:
    """A check is a shell command in its task's surroundings, with its output through a pipe and an id of its own."""
    spec = recipe().check(3, 1)
    assert (spec.id, spec.name, spec.kind) == ("ab12-2a3c1-xyzab", "w1t2-write-it-check2", SessionKind.CHECK)
    assert spec.argv == ("sh", "-c", "make test")
    assert (spec.output, spec.check, spec.attempt, spec.cwd) == (OutputMode.PIPE, 1, 3, "/home/me/project")
    assert spec.env["KASMOS_SESSION_ID"] == spec.id
    assert spec.env["LEVEL"] == "task"
    assert (spec.prompt, spec.stdin_prompt) == ("", False)


@pytest.mark.parametrize(
    ("mode", "override", "agent", "check"),
    [
        ("headless", None, "headless", "headless"),
        ("tmux", None, "tmux", "headless"),
        ("scripted", None, "scripted", "scripted"),
        ("headless", "scripted", "scripted", "scripted"),
        ("tmux", "headless", "headless", "headless"),
    ],
)
def test_where_a_session_runs(mode: str, override: str | None, agent: str, check: str) -> None:
    """A run's mode counts before the profile's; a check needs no terminal, and is scripted only beside a script."""
    profiles = {"coder": attrs.evolve(PROFILE, execution_mode=ExecutionMode(mode))}
    made = recipe(profiles=profiles, execution_mode=override)
    assert (made.agent(1).backend, made.check(1, 0).backend) == (agent, check)


def test_policies_come_from_the_profile() -> None:
    """Restart policy and what happens to losses are the profile's."""
    made = recipe()
    kept: Recipe = made
    assert (kept.policy, kept.retry_lost, kept.checks) == (PROFILE.restart, True, 2)
    assert [made.check_timeout(index) for index in (0, 1)] == [60.0, 9.0]


@pytest.mark.parametrize(("of_task", "of_run", "expected"), [(None, 0, 0), (None, 3, 3), (0, 3, 0), (2, 3, 2)])
def test_retries(of_task: int | None, of_run: int, expected: int) -> None:
    """The task's own number of retries counts before the run's, none at all among them."""
    assert recipe(attrs.evolve(TASK, retries=of_task), retries=of_run).retries == expected


@pytest.mark.parametrize(
    ("of_task", "of_profile", "of_run", "expected"),
    [(0.0, 7.0, 9.0, 0.0), (None, 7.0, 9.0, 7.0), (None, None, 9.0, 9.0), (None, None, None, None)],
)
def test_timeouts(
    of_task: float | None, of_profile: float | None, of_run: float | None, expected: float | None
) -> None:
    """The task's time limit counts before the profile's, and that before the run's."""
    profiles = {"coder": attrs.evolve(PROFILE, timeout=of_profile)}
    made = recipe(attrs.evolve(TASK, timeout=of_task), profiles, task_timeout=of_run)
    assert made.timeout == made.check_timeout(0) == expected


def test_the_task_names_its_agent() -> None:
    """A task's own agent counts before the run's default."""
    profiles = {"coder": PROFILE, "tester": attrs.evolve(PROFILE, name="tester", program=("codex",))}
    assert recipe(attrs.evolve(TASK, agent="tester"), profiles).agent(1).argv[0] == "codex"


@pytest.mark.parametrize(
    ("profiles", "words"),
    [({}, "agent 'coder' is not configured"), ({"coder": attrs.evolve(PROFILE, enabled=False)}, "is disabled")],
)
def test_an_agent_that_is_not_there(profiles: dict[str, AgentProfile], words: str) -> None:
    """A task whose agent is missing or disabled has policies, so that it can be judged, and no session."""
    made = recipe(profiles=profiles)
    assert made.retries == 0
    with pytest.raises(ConfigError, match=words) as refused:
        made.agent(1)
    assert "[agents.coder]" in str(refused.value)
    with pytest.raises(ConfigError, match=words):
        made.check(1, 0)


def test_a_mended_profile_counts_from_the_next_attempt_on() -> None:
    """What a session is made of is looked up when it is made."""
    profiles = {"coder": PROFILE}
    made = recipe(profiles=profiles)
    assert made.agent(1).argv[0] == "claude"
    profiles["coder"] = attrs.evolve(PROFILE, program=("codex",))
    assert made.agent(2).argv[0] == "codex"


def test_a_task_without_a_script() -> None:
    """A task that has nothing to run for its agent is a mistake of the plan."""
    with pytest.raises(PlanError, match="task 2"):
        recipe(profiles={"coder": attrs.evolve(PROFILE, prompt=PromptMode.SCRIPT)}).agent(1)


async def test_a_backend_by_its_mode() -> None:
    """A session's backend is the one of its mode; where there is none, the error says what would do."""
    backend = ScriptedBackend({}, terminate=terminate)
    made = recipe(kitchen={"backends": {ExecutionMode.SCRIPTED: backend}})
    spec = SessionSpec(id="s", name="s", argv=(), cwd="/", backend=ExecutionMode.SCRIPTED)
    assert made.backend(spec) is backend
    with pytest.raises(BackendUnavailableError, match='use "headless"'):
        require_backend({}, ExecutionMode.TMUX)
