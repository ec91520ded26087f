"""Whether the programs of agents are there, looked for as their sessions will look for them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from kasmos.exceptions import Mistake
from kasmos.model.plan import Plan
from kasmos.model.profile import AgentProfile, ExecutionMode
from kasmos.plans import agent_of
from kasmos.sessions.environment import child_environment


def find_program(
    profile: AgentProfile, environ: Mapping[str, str], project: Path, env: Mapping[str, str] | None = None
) -> str | None:
    """Where the program of a profile is; None when a session would not find it.

    Args:
        profile: the profile.
        environ: the supervisor's environment.
        project: the directory that relative paths begin in.
        env: variables of the task, which may name another PATH.
    """
    own = {**profile.env, **(env or {})}
    path = child_environment(environ, env_pass=profile.env_pass, env=own, own={}).get("PATH", os.defpath)
    program = profile.program[0]
    return shutil.which(project / program if "/" in program else program, path=path)


def missing_programs(
    plan: Plan,
    agents: Mapping[str, AgentProfile],
    default_agent: str | None,
    environ: Mapping[str, str],
    project: Path,
) -> tuple[Mistake, ...]:
    """A warning for each agent of a plan whose program is not there. Other agents do not matter."""
    warnings = {}
    looked_for: set[tuple[str, str | None]] = set()
    for task in plan.tasks:
        profile = agents.get(agent_of(task, default_agent) or "")
        if profile is None or profile.execution_mode is ExecutionMode.SCRIPTED or profile.name in warnings:
            continue
        # Once for each agent and PATH, and not for each of a thousand tasks.
        wanted = (profile.name, task.env.get("PATH"))
        if wanted in looked_for:
            continue
        looked_for.add(wanted)
        if find_program(profile, environ, project, task.env) is None:
            program = profile.program[0]
            where = "there" if "/" in program else "on its PATH"
            problem = f"its program {program} is not {where}"
            warnings[profile.name] = Mistake(f"agent {profile.name}", problem, "kas doctor says how to get it")
    return tuple(warnings.values())
