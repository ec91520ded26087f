"""What is seen to before anything is begun: the process is put in order, and what cannot go well is refused."""

from __future__ import annotations

import os
import signal
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


def complete_streams() -> None:
    """Put nothing in the place of standard streams that are closed.

    The next file that is opened would take their number, and get what is meant for the person.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: those before it have been seen to.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  # as long as the process


def reset_dispositions() -> None:
    """Undo what a parent made us ignore: programs would inherit it, and exit statuses would be lost.

    With SIGCHLD ignored the kernel reaps our children itself and every exit reads as 0.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # nohup: we go on ignoring it; a handler, unlike SIG_IGN, is not inherited.
        signal.signal(signal.SIGHUP, lambda *_: None)


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
