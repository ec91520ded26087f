"""Runs of plans: looked at, handed in, let go on, ended, tried again."""

from __future__ import annotations

import math
from collections.abc import Iterable

import trio

from kasmos.daemon.conversations import find_conversation
from kasmos.daemon.desk import budget_exceeded
from kasmos.daemon.gate import Gate
from kasmos.daemon.naming import run_called
from kasmos.daemon.submission import PreparedRun, not_applied, plan_key, prepare_run
from kasmos.daemon.terms import OrchestratorLike, RunOverrides, Submitted, Surroundings
from kasmos.exceptions import RequestError, SupervisionError
from kasmos.model.plan import Origin
from kasmos.model.view import RunView, World


class Runs:
    """The runs of one supervisor; for what every method may raise see `Service`."""

    def __init__(self, orchestrator: OrchestratorLike, surroundings: Surroundings, gate: Gate) -> None:
        self._orchestrator = orchestrator
        self._surroundings = surroundings
        self._gate = gate

    @property
    def _world(self) -> World:
        return self._orchestrator.world

    def list(self, origin: Origin | None = None) -> tuple[RunView, ...]:
        """Every run, or every one of this origin, newest first."""
        return tuple(run for run in reversed(self._world.runs.values()) if origin in (None, run.origin))

    def get(self, name: str) -> RunView:
        """The run with this id, or whose id alone begins so."""
        return run_called(self._world, name)

    async def submit(
        self,
        document: bytes,
        source: str,
        *,
        fresh: bool = False,
        overrides: RunOverrides | None = None,
        patience: float = math.inf,
    ) -> Submitted:
        """Start a run of a plan document, continue its unfinished one, or join the one under way.

        Args:
            source: the document's absolute path, or `-`.
            fresh: start anew even if there is an unfinished run of the same plan.
            patience: seconds to wait for it to be recorded.

        Raises:
            StoreError: it cannot be recorded at present; it may begin all the same, later.
            PlanError: the document is wrong.
            ConfigError: the configuration or an override is wrong.
            SupervisionError: the document has changed and its run is unfinished.
        """
        self._gate.require_open()
        shortage = self._surroundings.shortage(self._world, None)
        if shortage is not None and not shortage.waits:
            raise budget_exceeded(shortage, self._surroundings)
        asked = overrides or RunOverrides()

        def prepare() -> PreparedRun:
            return prepare_run(document, source, asked, self._surroundings.configure(asked.flags()))

        # In a thread: the configuration may have to be read.
        prepared = await trio.to_thread.run_sync(prepare)
        cursor = self._world.seq
        accepted = await self._orchestrator.submit(
            prepared.plan,
            source=prepared.source,
            key=plan_key(document, source),
            digest=prepared.digest,
            settings=prepared.settings,
            project=self._surroundings.workspace,
            fresh=fresh,
            patience=patience,
        )
        # A run that was under way keeps the settings it began with.
        run = self._world.runs.get(accepted.run_id) if accepted.continued else None
        return Submitted(
            run_id=accepted.run_id,
            continued=accepted.continued,
            following=accepted.following,
            cursor=cursor,
            warnings=prepared.warnings + not_applied(run, prepared.settings, asked),
        )

    async def advance(self, name: str) -> RunView:
        """Let a parked run go on past the wave it waits after."""
        run = self.get(name)
        self._gate.require_open()
        await self._gate.reconfigure()
        await self._orchestrator.advance(run.id)
        return self._world.runs[run.id]

    async def continue_run(self, name: str) -> RunView:
        """Take up a run that was interrupted; one that is under way goes on as it is."""
        run = self.get(name)
        self._gate.require_open()
        await self._gate.reconfigure()
        await self._orchestrator.continue_run(run.id)
        return self._world.runs[run.id]

    async def cancel(self, name: str, reason: str) -> RunView:
        """End a run for good: its sessions are stopped, what has not started never will."""
        run = self.get(name)
        await self._orchestrator.cancel_run(run.id, reason)
        return self._world.runs[run.id]

    async def cancel_all(self, reason: str) -> tuple[RunView, ...]:
        """End every unfinished run for good."""
        asked = []
        for run in self.list():
            if not run.unfinished:
                continue
            try:
                await self._orchestrator.cancel_run(run.id, reason)
            except SupervisionError:
                # It may have ended by itself meanwhile, which is what was wanted.
                if self._world.runs[run.id].unfinished:
                    raise
            else:
                asked.append(self._world.runs[run.id])
        return tuple(asked)

    async def retry(self, name: str, tasks: Iterable[str] = (), *, resume: bool = False) -> RunView:
        """Try tasks of a run again; none named means all that did not succeed.

        Args:
            name: the run.
            tasks: of it.
            resume: go on with their programs' conversations, where there are any.
        """
        run = self.get(name)
        chosen = tuple(_task_of(run, task) for task in tasks)
        self._gate.require_open()
        await self._gate.reconfigure()
        await self._retry(run, chosen, resume=resume)
        return self._world.runs[run.id]

    async def _retry(self, run: RunView, chosen: tuple[str, ...], *, resume: bool) -> None:
        found: dict[str, str] = {}
        for task in run.tasks.values() if resume else ():
            if not chosen or task.spec.id in chosen:
                sessions = self._world.sessions
                found[task.spec.id] = await find_conversation(task, sessions, self._surroundings.read_ended)
        unknown = [name for name in chosen if resume and not found.get(name)]
        if unknown:
            detail = f"task {', '.join(unknown)} has no conversation that is known; retry it without resuming"
            raise RequestError(409, "no_conversation", detail)
        await self._orchestrator.retry(run.id, chosen, found)


def _task_of(run: RunView, name: str) -> str:
    """The id in the plan of a task that is named with or without its run."""
    task_id = name.removeprefix(f"{run.id}.")
    if task_id not in run.tasks:
        raise RequestError(404, "unknown_task", f"run {run.id} has no task {name!r}")
    return task_id
