"""What is seen to before anything is begun: what cannot go well is refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from kasmos.cli.programs import missing_programs
from kasmos.cli.render.files import check_writable
from kasmos.cli.request import Document, Place, Request
from kasmos.exceptions import Mistake, PlanError
from kasmos.harnesses.equip import equip_all
from kasmos.model.profile import ExecutionMode, PromptMode
from kasmos.orchestration.assembly import refusals
from kasmos.plans import load_plan
from kasmos.sessions.environment import child_environment, keys_not_passed
from kasmos.sessions.tmux import find_binary

STDIN = "-"


def require_writable(path: str | None) -> None:
    """Refuse a report that cannot be written before the run, not after it.

    Raises:
        click.UsageError: it cannot.
    """
    if path is None:
        return
    try:
        check_writable(path)
    except OSError as error:
        raise click.UsageError(f"the report {path} cannot be written: {error.strerror or error}") from error


def read_document(plan: str) -> Document:
    """Read a plan.

    Raises:
        PlanError: it cannot be read.
    """
    if plan == STDIN:
        return Document(STDIN, sys.stdin.buffer.read())
    try:
        return Document(os.path.realpath(plan), Path(plan).read_bytes())
    except OSError as error:
        raise PlanError([Mistake(plan, f"cannot be read: {error.strerror}")]) from error


def check(place: Place, request: Request, document: Document) -> tuple[str, ...]:
    """Refuse a wrong plan before anything is touched; what the person should know all the same.

    Raises:
        PlanError: with every mistake.
        BackendUnavailableError: a task runs in tmux, and there is none.
    """
    config = place.configure(request.overrides.flags())
    default = config.orchestration.default_agent
    mode = None if request.overrides.mode is None else ExecutionMode(request.overrides.mode)
    parsed = load_plan(document.data, document.source, equip_all(config.agents, mode), default)
    used = dict.fromkeys(name for task in parsed.plan.tasks if (name := task.agent or default) is not None)
    if ExecutionMode.TMUX in {mode or config.agents[name].execution_mode for name in used}:
        find_binary(place.environ.get("PATH"))
    refused = refusals(config.agents, used, place.environ, mode)
    if refused:
        raise PlanError(refused)
    warnings = list(map(str, missing_programs(parsed.plan, config.agents, default, place.environ, place.project)))
    for profile in (config.agents[name] for name in used):
        environment = child_environment(place.environ, env_pass=profile.env_pass, env=profile.env, own={})
        missing = keys_not_passed(place.environ, environment)
        # A script is no agent: it is not expected to use a model.
        if missing and profile.prompt is not PromptMode.SCRIPT:
            names = ", ".join(missing)
            warnings.append(f"{names} is set here but not passed to agent {profile.name!r}: name it in its `env_pass`")
    return tuple(warnings)
