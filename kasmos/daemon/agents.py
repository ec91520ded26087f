"""The agents there are, and whether they can run: for whoever chooses one. Looks at the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from kasmos.config.schema import Config
from kasmos.model.profile import AgentProfile
from kasmos.model.value import frozen
from kasmos.sessions.environment import child_environment


@frozen
class AgentWire:
    """An agent profile."""

    name: str
    program: str
    mode: str
    model: str | None
    takes_model: bool
    """Whether a task may name another model."""
    enabled: bool
    default: bool
    usable: bool
    path: str | None
    """Where its program is."""
    reason: str
    """Why it cannot be used."""


def describe_agents(config: Config, environ: Mapping[str, str], project: str) -> tuple[AgentWire, ...]:
    """Every profile, by name. Blocks on the disk."""
    default = config.orchestration.default_agent
    return tuple(_describe(config.agents[name], environ, project, default) for name in sorted(config.agents))


def _describe(profile: AgentProfile, environ: Mapping[str, str], project: str, default: str | None) -> AgentWire:
    from kasmos.plans import takes_model

    program = profile.program[0]
    env = child_environment(environ, env_pass=profile.env_pass, env=profile.env, own={})
    if "/" in program:
        whole = os.path.join(project, program)
        path = whole if os.path.isfile(whole) and os.access(whole, os.X_OK) else None
    else:
        path = shutil.which(program, path=env.get("PATH", os.defpath))
    reason = "" if path is not None else f"the program {program!r} was not found"
    if not profile.enabled:
        reason = "it is disabled"
    return AgentWire(
        name=profile.name,
        program=program,
        mode=profile.execution_mode.value,
        model=profile.model,
        takes_model=takes_model(profile),
        enabled=profile.enabled,
        default=profile.name == default,
        usable=not reason,
        path=path,
        reason=reason,
    )
