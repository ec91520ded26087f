"""A task that is asked for by itself: what can be said of it, and whether it can be run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import attrs

from kasmos.config.schema import Config
from kasmos.exceptions import Mistake, PlanError
from kasmos.model.codec import encode
from kasmos.model.plan import Check, Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import AgentProfile
from kasmos.model.value import frozen

TITLE_LENGTH = 80


@frozen
class TaskRequest:
    """What is asked for."""

    prompt: str
    agent: str | None = None
    model: str | None = None
    context: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    context_in_prompt: bool = False
    """Whether the context is also shown to the agent, below its prompt."""
    workdir: str | None = None
    """Absolute, or below the project."""
    timeout: float | None = None
    """Seconds for each attempt."""
    retries: int | None = None
    checks: tuple[Check, ...] = ()
    env: Mapping[str, str] = attrs.field(factory=dict, repr=lambda env: repr(sorted(env)))
    needs: tuple[str, ...] = ()
    """Other tasks, as they are called."""
    name: str = ""
    continues: str = ""
    """The task whose program's conversation it goes on with."""

    def digest(self) -> str:
        """The same for the same request, whatever the order in which it was said."""
        said = attrs.asdict(self)
        if not self.continues:
            del said["continues"]  # as it was before there was such a thing: keys of earlier requests hold
        return hashlib.sha256(encode(_sorted(said))).hexdigest()


@frozen
class Prepared:
    """A request that can be run."""

    task: PlanTask
    settings: RunSettings
    warnings: tuple[Mistake, ...]


def prepare_task(
    request: TaskRequest, config: Config, project: str, conversation: str = ""
) -> tuple[Prepared | None, tuple[Mistake, ...]]:
    """Check a request against the configuration; what is wrong with it, or the task it comes to.

    Args:
        request: what is asked for.
        config: as it is now.
        project: the directory tasks run in.
        conversation: the program's conversation that it goes on with; empty for a new one.
    """
    from kasmos.harnesses.equip import equip, harness_of
    from kasmos.plans import takes_model

    settings = config.run_settings()
    mistakes: list[Mistake] = []
    warnings: list[Mistake] = []
    profile = _profile(request, config, settings, mistakes)
    workdir = os.path.join(project, os.path.expanduser(request.workdir)) if request.workdir is not None else None
    if workdir is not None and not os.path.isdir(workdir):
        mistakes.append(Mistake("$.workdir", f"there is no directory {workdir}", "one that is there"))
    task = PlanTask(
        id="-",
        number=1,
        wave=1,
        title=request.name or _first_line(request.prompt),
        body=_body(request),
        agent=request.agent or settings.default_agent,
        timeout=request.timeout,
        retries=request.retries,
        checks=request.checks,
        env=dict(request.env),
        single=True,
        label=request.name,
        model=request.model,
        workdir=workdir,
        context=None if request.context is None else encode(request.context).decode(),
        conversation=conversation,
    )
    if profile is not None:
        if profile.enabled:
            mistakes += [attrs.evolve(one, place="$.agent") for one in _refusals(profile, task)]
        if conversation and not harness_of(profile).conversation.resume:
            problem = f"agent {profile.name} cannot go on with a conversation"
            mistakes.append(Mistake("$.continue", problem, "an agent whose harness can; see `kas agents`"))
        profile = equip(attrs.evolve(profile, model=request.model or profile.model)).profile
        if request.model is not None and not takes_model(profile):
            problem = f"agent {profile.name} has no place for a model, so it runs with its own"
            warnings.append(Mistake("$.model", problem, f"{{model}} in flags of [agents.{profile.name}]"))
        mistakes += _not_runnable(task, profile)
    return (None if mistakes else Prepared(task, settings, tuple(warnings))), tuple(mistakes)


def _profile(
    request: TaskRequest, config: Config, settings: RunSettings, mistakes: list[Mistake]
) -> AgentProfile | None:
    name = request.agent or settings.default_agent
    usable = ", ".join(sorted(one.name for one in config.agents.values() if one.enabled))
    if name is None:
        problem = "no agent is named, and the configuration has no default"
        mistakes.append(Mistake("$.agent", problem, f"one of {usable}; or set orchestration.default_agent"))
        return None
    profile = config.agents.get(name)
    if profile is None or not profile.enabled:
        problem = f"agent {name!r} is {'not configured' if profile is None else 'disabled'}"
        mistakes.append(Mistake("$.agent", problem, f"one of {usable}"))
        return None
    return profile


def _refusals(profile: AgentProfile, task: PlanTask) -> list[Mistake]:
    from kasmos.orchestration.assembly import refusals

    return refusals({profile.name: profile}, [profile.name], os.environ, env=task.env)


def _not_runnable(task: PlanTask, profile: AgentProfile) -> list[Mistake]:
    """Why no command comes of it."""
    from kasmos.plans import compile_task

    try:
        compile_task(Plan(waves=(Wave(1, (task,)),)), task, profile, peers=0)
    except PlanError as error:
        wrong = error.mistakes
        return [Mistake("$.model" if "model" in one.problem else "$.prompt", one.problem, one.cure) for one in wrong]
    return []


def _body(request: TaskRequest) -> str:
    if request.context is None or not request.context_in_prompt:
        return request.prompt
    shown = encode(request.context).decode()
    return f"{request.prompt.rstrip()}\n\nContext:\n\n```json\n{shown}\n```\n"


def _first_line(prompt: str) -> str:
    line = next((line.strip() for line in prompt.splitlines() if line.strip()), "")
    return line if len(line) <= TITLE_LENGTH else f"{line[: TITLE_LENGTH - 1]}…"


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value
