"""Which agent a task has, and where its sessions run."""

from __future__ import annotations

from collections.abc import Mapping

from kasmos.model.event import RunStarted
from kasmos.model.profile import AgentProfile, ExecutionMode
from kasmos.model.view import RunView, TaskView
from kasmos.sessions.protocol import Backend
from kasmos.sessions.registry import require_backend


def mode_of(run: RunView, profile: AgentProfile) -> ExecutionMode:
    """The backend a profile's sessions run in, as this run was started."""
    override = run.settings.execution_mode
    return ExecutionMode(override) if override is not None else profile.execution_mode


def agent_name(run: RunView, task: TaskView) -> str | None:
    """The profile a task runs with."""
    return task.spec.agent or run.settings.default_agent


def require_backends(
    started: RunStarted, profiles: Mapping[str, AgentProfile], backends: Mapping[ExecutionMode, Backend]
) -> None:
    """See to it that every task of a run can run here.

    Raises:
        BackendUnavailableError: one cannot.
    """
    run = RunView(
        id=started.run_id, plan=started.plan, source="", key="", digest="", settings=started.settings,
        project="", started_at=0, started_mono=0, tasks={},
    )  # fmt: skip
    for task in started.plan.tasks:
        name = agent_name(run, TaskView(run_id=run.id, spec=task))
        profile = profiles.get(name) if name is not None else None
        if profile is not None:
            require_backend(backends, mode_of(run, profile))
