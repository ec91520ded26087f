"""The orchestrator: what can be asked of runs. Each command is recorded, and then the run's drive acts upon it."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import trio

from kasmos.exceptions import SupervisionError
from kasmos.model import event as ev
from kasmos.model.approval import Answer
from kasmos.model.plan import Origin, Plan, RunSettings
from kasmos.model.session import StopReason
from kasmos.model.takeover import HandBack
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.view import ApprovalView, RunState, RunView, World
from kasmos.orchestration.command import Command
from kasmos.orchestration.driver import Driver
from kasmos.orchestration.intake import Intake, TaskAccepted, TaskSubmission
from kasmos.orchestration.live import LiveSessions
from kasmos.orchestration.modes import require_backends
from kasmos.orchestration.people import People
from kasmos.orchestration.retry import chosen_to_retry
from kasmos.orchestration.scheduler import parked_after
from kasmos.orchestration.slots import is_under_way
from kasmos.orchestration.submission import Accepted, Submission, is_gone_on_with, told_of, unfinished_run
from kasmos.orchestration.treasury import Treasury
from kasmos.sessions.protocol import ExecutionSession
from kasmos.supervision.ledger import Ledger
from kasmos.supervision.supervisor import Supervisor

if TYPE_CHECKING:
    from kasmos.orchestration.kitchen import Kitchen
    from kasmos.supervision.child import Child
    from kasmos.supervision.terminal import Terminal

__all__ = ["Accepted", "LiveSessions", "Orchestrator", "open_orchestrator"]


class Orchestrator:
    """Drives runs; made by `open_orchestrator`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        ledger: Ledger,
        supervisor: Supervisor,
        kitchen: Kitchen,
        live: LiveSessions,
        *,
        max_concurrent: int,
        new_run_id: Callable[[], str],
        untold: str | None = None,
    ) -> None:
        self._ledger = ledger
        self._supervisor = supervisor
        self._kitchen = kitchen
        self._live = live
        self._new_run_id = new_run_id
        self._untold = set() if untold is None else {untold}
        """Runs whose outcome somebody is still to be told, rather than to have everything done twice."""
        self._driver = Driver(nursery, ledger, supervisor, kitchen, max_concurrent)
        self._command = Command(self._driver)
        self._people = People(ledger, supervisor, self._driver, self._command, kitchen.treasury.wall)
        self._intake = Intake(nursery, ledger, self._driver, lambda: f"task_{new_run_id()}")
        self._submitting = trio.Lock()

    # --- what can be asked -------------------------------------------------------------

    @property
    def world(self) -> World:
        """The present, as of the last commit."""
        return self._ledger.world

    @property
    def accepting(self) -> bool:
        """Whether new work is taken."""
        return self._driver.leaving is None

    def live_session(self, session_id: str) -> ExecutionSession | None:
        """The session with this id, if it runs here and now."""
        return self._live.get(session_id)

    def terminal(self, session_id: str) -> Terminal | None:
        """The watch over this session's terminal, if it runs here and now and has one."""
        child = self._child_with(session_id)
        return child.terminal if child is not None else None

    def said(self, session_id: str) -> str | None:
        """What this session's program says or does now, in a line; None where that is not understood."""
        child = self._child_with(session_id)
        return child.said if child is not None else None

    def at_tool(self, session_id: str) -> float | None:
        """Since when this session's agent uses a tool, wall clock; `inf` while it uses none, None where unknown."""
        child = self._child_with(session_id)
        return child.at_tool if child is not None else None

    def _child_with(self, session_id: str) -> Child | None:
        """The child whose session this is, if it runs here and now."""
        view = self.world.sessions.get(session_id)
        if view is None or view.run_id is None or view.task_id is None or self._live.get(session_id) is None:
            return None
        return self._supervisor.children(view.run_id).get(view.task_id)

    @property
    def live_sessions(self) -> list[ExecutionSession]:
        """The sessions that run here and now."""
        return self._live.all()

    @property
    def max_concurrent(self) -> int:
        """How many tasks run side by side, of all runs; what runs already goes on when it is lowered."""
        return self._driver.max_concurrent

    @max_concurrent.setter
    def max_concurrent(self, tasks: int) -> None:
        self._driver.max_concurrent = tasks

    def is_driven(self, run_id: str) -> bool:
        """Whether this supervisor is at work on the run."""
        return self._driver.is_driven(run_id)

    async def wait_idle(self) -> None:
        """Wait until no run is under way, and none is being submitted."""
        await self._driver.wait_idle()

    async def wait_none_live(self) -> None:
        """Wait until no session runs here. Cancellation: no effect."""
        await self._live.wait_none()

    async def leave_when_idle(self) -> None:
        """Wait until no run is under way, and take no new work from that very moment on."""
        await self.wait_idle()
        self.refuse("its work is done")

    # --- runs --------------------------------------------------------------------------

    async def submit(
        self,
        plan: Plan,
        *,
        source: str,
        key: str,
        digest: str,
        settings: RunSettings,
        project: str,
        fresh: bool = False,
        patience: float = math.inf,
    ) -> Accepted:
        """Start a run of a plan, or go on with the unfinished run of the same plan.

        Args:
            patience: seconds to wait for it to be recorded.

        Raises:
            StoreError: it cannot be recorded at present; it may begin all the same, later.
            SupervisionError: the document has changed since its unfinished run began; or the supervisor is leaving.
            BackendUnavailableError: a task's backend cannot run here.

        Cancellation: the run may have been accepted; asking again then follows it.
        """
        submission = Submission(plan, source, key, digest, settings, project, fresh)
        # Until it is decided: where a fresh run takes the place of the only one, nothing runs for a moment.
        with self._driver.submitting():
            async with self._submitting:
                return await self._submit(submission, patience)

    async def _submit(self, submission: Submission, patience: float) -> Accepted:
        self._command.require_accepting()
        old = unfinished_run(self.world, submission.key)
        if old is not None and is_gone_on_with(submission, old):
            following = self.is_driven(old.id)
            if not following:
                await self.continue_run(old.id)
            return Accepted(old.id, continued=True, following=following)
        untold, self._untold = self._untold, set()
        ended = told_of(submission, old, (self.world.runs[name] for name in untold))
        if ended is not None:
            return Accepted(ended.id, continued=True, ended=True)
        started = submission.started(self._new_run_id())
        self._require_backends(started)
        if old is not None:
            await self._abandon(old)
            self._command.require_accepting()
        if self._intake.being_recorded(started.key):
            # Somebody else had less patience. When it is there, it is for us to follow, or not to.
            await self._intake.accept_run(started, patience)
            return await self._submit(submission, patience)
        return Accepted(await self._intake.accept_run(started, patience))

    @property
    def queued_tasks(self) -> int:
        """How many tasks that were handed in by themselves wait for a slot, or for other tasks."""
        return self._driver.queued_tasks

    def find_submitted(self, request_key: str, digest: str) -> TaskAccepted | None:
        """The task that was handed in with this key."""
        return self._intake.find(request_key, digest)

    async def submit_task(self, submission: TaskSubmission) -> TaskAccepted:
        """Accept a task that is handed in by itself: a run of its own, with the same id.

        Raises:
            SupervisionError: the supervisor is leaving.
            BackendUnavailableError: its backend cannot run here.
            StoreError: it cannot be recorded at present.

        Cancellation: the task may have been accepted; asking again with the same key tells.
        """
        found = self.find_submitted(submission.request_key, submission.digest) if submission.request_key else None
        if found is not None:
            return found
        self._command.require_accepting()
        self._require_backends(submission.started("-"))
        return await self._intake.submit(submission)

    async def recover_runs(self, run_ids: Iterable[str]) -> None:
        """Take up runs whose supervisor died with them under way, all with one commit.

        They may end before anybody asks for them; who submits a plan of one first, unchanged, is told of that end.

        Raises:
            SupervisionError: the supervisor is leaving.
        """
        self._command.require_accepting()
        chosen = [run_id for run_id in run_ids if self._command.run(run_id).unfinished and not self.is_driven(run_id)]
        if not chosen:
            return
        self._untold.update(run_id for run_id in chosen if self.world.runs[run_id].origin is Origin.PLAN)
        await self._ledger.append(*(ev.RunContinued(run_id) for run_id in chosen))
        for run_id in chosen:
            self._driver.drive(run_id)

    async def continue_run(self, run_id: str) -> None:
        """Take up an unfinished run.

        Raises:
            SupervisionError: unknown, ended, or the supervisor is leaving.
        """
        async with self._command.over(run_id):
            self._command.require_accepting()
            if not self._command.run(run_id).unfinished:
                raise SupervisionError(f"run {run_id} has ended; `kas retry {run_id}` takes it up again")
            if not self.is_driven(run_id):
                await self._ledger.append(ev.RunContinued(run_id))
                self._driver.drive(run_id)

    async def advance(self, run_id: str) -> None:
        """Let a parked run go on to its next wave.

        Raises:
            SupervisionError: unknown, or not parked.
        """
        async with self._command.over(run_id):
            run = self._command.run(run_id)
            wave = parked_after(run)
            if run.state is not RunState.PARKED or wave is None:
                raise SupervisionError(f"run {run_id} is not parked: it is {run.outcome or run.state}")
            await self._ledger.append(ev.RunAdvanced(run_id, wave))
            self._driver.wake(run_id)

    async def cancel_run(self, run_id: str, reason: str = "requested") -> None:
        """End a run for good; its tasks are stopped.

        Raises:
            SupervisionError: unknown, or ended already.
        """
        async with self._command.over(run_id):
            run = self._command.run(run_id)
            if not run.unfinished:
                raise SupervisionError(f"run {run_id} has ended already: {run.outcome}")
            events = _resume(run)
            if run.cancel_reason is None:
                events.append(ev.RunCancelRequested(run_id, reason))
            if events:
                await self._ledger.append(*events)
            if self.is_driven(run_id) or self.accepting:
                self._driver.drive(run_id)

    async def retry(
        self, run_id: str, task_ids: tuple[str, ...] = (), conversations: Mapping[str, str] | None = None
    ) -> None:
        """Run tasks that did not succeed again, and what was skipped because of them.

        Args:
            run_id: the run.
            task_ids: the plan's ids; empty means every task that did not succeed.
            conversations: by the plan's ids, the programs' conversations that are gone on with.

        Raises:
            SupervisionError: unknown, or nothing to retry.
        """
        async with self._command.over(run_id):
            self._command.require_accepting()
            run = self._command.run(run_id)
            chosen = chosen_to_retry(run, task_ids)
            events: list[ev.RunEvent] = _resume(run) if run.unfinished else [ev.RunReopened(run_id)]
            events += [ev.TaskPutBack(run_id, name, "retried", (conversations or {}).get(name, "")) for name in chosen]
            await self._ledger.append(*events)
            self._driver.drive(run_id)

    async def stop_task(self, run_id: str, task_id: str) -> None:
        """Stop a task for good: cancelled, whatever it is doing.

        Raises:
            SupervisionError: unknown, or not under way.
        """
        self._command.task(run_id, task_id)
        child = self._supervisor.children(run_id).get(task_id)
        if child is not None:
            # Without waiting for a turn: it may be what fills the disk that others wait for.
            child.request_stop(StopReason.REQUESTED)
            return
        async with self._command.over(run_id):
            task = self._command.task(run_id, task_id)
            if self.is_driven(run_id) and is_under_way(task) and task_id not in self._supervisor.children(run_id):
                # Left by an earlier supervisor, and about to be taken up again: something of it may run.
                self._driver.start(run_id, task_id)
            child = self._supervisor.children(run_id).get(task_id)
            if child is not None:
                child.request_stop(StopReason.REQUESTED)
            elif task.outcome is not None:
                raise SupervisionError(f"task {task.id} has ended already: {task.outcome}")
            else:
                cause = Cause(CauseKind.STOPPED, "stopped by request before it started")
                await self._ledger.append(ev.TaskEnded(run_id, task_id, Outcome.CANCELLED, cause))
                self._driver.wake(run_id)

    async def stop_session(self, session_id: str) -> None:
        """Stop the task a session belongs to.

        Raises:
            SupervisionError: unknown, or not under way.
        """
        session = self.world.sessions.get(session_id)
        if session is None or session.run_id is None or session.task_id is None:
            raise SupervisionError(f"there is no session {session_id}")
        if not session.state.live:
            raise SupervisionError(f"session {session.name} has ended already")
        await self.stop_task(session.run_id, session.task_id)

    async def resolve_approval(self, approval_id: str, answer: Answer, who: str, *, patience: float) -> ApprovalView:
        """Answer what a session asks, in the name of a person; see `People.answer`."""
        return await self._people.answer(approval_id, answer, who, patience=patience)

    async def take_over(self, run_id: str, task_id: str, conversation: str, who: str, *, now: bool) -> None:
        """Have a task's conversation opened in a terminal for a person; see `People.take_over`."""
        await self._people.take_over(run_id, task_id, conversation, who, now=now)

    async def hand_back(self, run_id: str, task_id: str, back: HandBack) -> None:
        """Let a conversation that was taken over go on headless; see `People.hand_back`."""
        await self._people.hand_back(run_id, task_id, back)

    async def release_account(self, name: str, who: str) -> None:
        """Let an account be used again, in the name of a person; see `People.release_account`."""
        await self._people.release_account(name, who)

    @property
    def treasury(self) -> Treasury:
        """Whether sessions may be started, and what they may spend."""
        return self._kitchen.treasury

    # --- leaving -----------------------------------------------------------------------

    def refuse(self, reason: str) -> None:
        """Start nothing from now on, whatever is just being asked for: it is time to leave. Never blocks."""
        self._driver.leaving = self._driver.leaving or reason

    def hand_on(self, reason: str) -> None:
        """Start nothing from now on, and leave what is unfinished to the next supervisor, which goes on by itself.

        What runs goes on to its end, unless it is detached or stopped. Never blocks; `wait_idle` then tells when
        nothing of it runs any more.
        """
        self._driver.handing_on = True
        self.refuse(reason)
        self._driver.wake_all()

    async def interrupt(self, reason: str) -> None:
        """Stop what runs and put unfinished tasks back; returns when nothing runs any more.

        Cancellation: the stop has been asked for; what is left running is detached by the supervisor's scope.
        """
        self.refuse(reason)
        self._supervisor.request_stop_all(StopReason.INTERRUPTED)
        self._driver.wake_all()
        await self.wait_idle()

    def hurry(self) -> None:
        """Cut every stop short. Never blocks."""
        self._supervisor.hurry_all()

    # --- checks ------------------------------------------------------------------------

    def _require_backends(self, started: ev.RunStarted) -> None:
        require_backends(started, self._kitchen.profiles(), self._kitchen.backends)

    async def _abandon(self, run: RunView) -> None:
        """End the unfinished run that a fresh one replaces, and wait until nothing of it runs."""
        # It may end by itself meanwhile, which is as good.
        with suppress(SupervisionError):
            await self.cancel_run(run.id, "a fresh run of the same plan was asked for")
        await self._driver.wait_over(run.id)


def _resume(run: RunView) -> list[ev.RunEvent]:
    """What lets decisions be made about this run again: one that was interrupted stands still until then."""
    return [ev.RunContinued(run.id)] if run.state is RunState.INTERRUPTED else []


@asynccontextmanager
async def open_orchestrator(
    ledger: Ledger,
    supervisor: Supervisor,
    kitchen: Kitchen,
    live: LiveSessions,
    *,
    max_concurrent: int,
    new_run_id: Callable[[], str],
    untold: str | None = None,
) -> AsyncGenerator[Orchestrator, None]:
    """Open the orchestrator's nursery.

    Args:
        untold: id of a run that ended and whose supervisor was killed before it could say so. Whoever submits
            its plan next, unchanged, is given that run.

    Leaving the scope ends the driving, not the children: they are the supervisor's.
    """
    async with trio.open_nursery() as nursery:
        yield Orchestrator(
            nursery,
            ledger,
            supervisor,
            kitchen,
            live,
            max_concurrent=max_concurrent,
            new_run_id=new_run_id,
            untold=untold,
        )
        nursery.cancel_scope.cancel()
