"""What a plan document comes to when it is handed in: checked whole, with the settings of its run."""

from __future__ import annotations

import hashlib
import os

import attrs

from kasmos.config.schema import Config
from kasmos.daemon.terms import STDIN, RunOverrides
from kasmos.exceptions import ConfigError, Mistake, PlanError
from kasmos.model.plan import Plan, RunSettings
from kasmos.model.profile import ExecutionMode
from kasmos.model.value import frozen
from kasmos.model.view import RunView

_SETTINGS = {
    "agent": "default_agent",
    "mode": "execution_mode",
    "max_concurrent": "max_concurrent",
    "task_timeout": "task_timeout",
    "on_failure": "on_failure",
}
"""Which setting of a run each of `RunOverrides` is."""


@frozen
class PreparedRun:
    """A document that has been found right."""

    plan: Plan
    source: str
    digest: str
    settings: RunSettings
    warnings: tuple[Mistake, ...]


def prepare_run(document: bytes, source: str, overrides: RunOverrides, config: Config) -> PreparedRun:
    """Parse and check a document against a configuration. Blocks on the disk.

    Raises:
        PlanError: the document is wrong, or its programs would be refused.
        ConfigError: an override is wrong.
    """
    # Late, as all that a daemon does without until there is work.
    from kasmos.harnesses.equip import equip_all
    from kasmos.orchestration.assembly import refusals
    from kasmos.plans import load_plan

    settings = config.run_settings()
    if overrides.mode is not None:
        settings = attrs.evolve(settings, execution_mode=_mode(overrides.mode))
    wanted = settings.execution_mode
    mode = None if wanted is None else ExecutionMode(wanted)
    parsed = load_plan(document, source, equip_all(config.agents, mode), settings.default_agent)
    names = dict.fromkeys(task.agent or settings.default_agent or "" for task in parsed.plan.tasks)
    refused = refusals(config.agents, names, os.environ, mode)
    if refused:
        raise PlanError(refused)
    return PreparedRun(
        plan=parsed.plan,
        source=source if source == STDIN else os.path.realpath(source),
        digest=hashlib.sha256(document).hexdigest(),
        settings=settings,
        warnings=parsed.warnings,
    )


def not_applied(run: RunView | None, wanted: RunSettings, overrides: RunOverrides) -> tuple[Mistake, ...]:
    """What was asked for this run, and comes too late: its settings are those it began with."""
    if run is None or not run.unfinished:
        return ()
    warnings = []
    for option, setting in _SETTINGS.items():
        kept = getattr(run.settings, setting)
        if getattr(overrides, option) is not None and getattr(wanted, setting) != kept:
            what = f"run {run.id} keeps what it began with, {'no value' if kept is None else kept}"
            warnings.append(Mistake(option, f"not applied: {what}", "`kas run --fresh` starts anew"))
    return tuple(warnings)


def plan_key(document: bytes, source: str) -> str:
    """What makes two documents the same plan: the file they are in; where there is none, their content."""
    return f"digest:{hashlib.sha256(document).hexdigest()}" if source == STDIN else os.path.realpath(source)


def _mode(word: str) -> str:
    if word not in list(ExecutionMode):
        known = ", ".join(mode.value for mode in ExecutionMode)
        raise ConfigError([Mistake("mode", f"there is no execution mode {word!r}", f"one of {known}")])
    return word
