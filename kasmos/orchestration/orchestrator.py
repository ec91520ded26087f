"""The orchestrator: drives every run by asking the scheduler and doing what it says.

One Trio task per run. It decides from the journal, makes the decision durable, acts, and waits until something
has changed. It keeps nothing that a new supervisor would miss.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from kasmos.exceptions import SupervisionError
from kasmos.failpoints import reach
from kasmos.model import event as ev
from kasmos.model.approval import Answer, ResolvedBy
from kasmos.model.plan import Plan, RunSettings
from kasmos.model.session import StopReason
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.view import Active, ApprovalView, BackingOff, Ended, Pending, RunState, RunView, TaskView, World
from kasmos.orchestration.approvals import require_not_stale, require_open
from kasmos.orchestration.assembly import Kitchen, TaskRecipe, agent_name, mode_of
from kasmos.orchestration.retry import tasks_to_retry
from kasmos.orchestration.scheduler import RunDecision, decide_run, parked_after
from kasmos.sessions.protocol import ExecutionSession
from kasmos.sessions.registry import require_backend
from kasmos.supervision.child import Child, Ledger
from kasmos.supervision.supervisor import Supervisor

COMMIT_TIMEOUT = 5.0
"""Seconds that who gave a command waits for it to be recorded before they are told that it cannot be."""
STOP_REASONS = {
    CauseKind.FAIL_FAST: StopReason.FAIL_FAST,
    CauseKind.RUN_CANCELLED: StopReason.CANCELLED,
}


@attrs.frozen
class Accepted:
    """What became of a plan that was handed in."""

    run_id: str
    continued: bool = False
    """An unfinished run of the same plan goes on."""
    following: bool = False
    """That run was under way already."""
    ended: bool = False
    """That run had ended, and its supervisor was killed before it could say so."""


@attrs.define(eq=False)
class _Drive:
    """A run that this supervisor is at work on."""

    wake: trio.Event = attrs.field(factory=trio.Event)
    """Set when something has changed that may matter to the run."""
    over: trio.Event = attrs.field(factory=trio.Event)


class LiveSessions:
    """The sessions that run at this moment, by id."""

    def __init__(self) -> None:
        self._sessions: dict[str, ExecutionSession] = {}

    def started(self, session: ExecutionSession) -> None:
        """A session runs."""
        self._sessions[session.spec.id] = session

    def ended(self, session_id: str) -> None:
        """A session has ended."""
        self._sessions.pop(session_id, None)

    def all(self) -> list[ExecutionSession]:
        """Every session that runs."""
        return list(self._sessions.values())

    def get(self, session_id: str) -> ExecutionSession | None:
        """The live session with this id."""
        return self._sessions.get(session_id)


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
        self._nursery = nursery
        self._ledger = ledger
        self._supervisor = supervisor
        self._kitchen = kitchen
        self._live = live
        self._max_concurrent = max_concurrent
        self._new_run_id = new_run_id
        self._untold = set() if untold is None else {untold}
        """Runs whose outcome somebody is still to be told, rather than to have everything done twice."""
        self._drives: dict[str, _Drive] = {}
        self._locks: dict[str, trio.Lock] = {}
        """By run: held from a look at it to the commit of what follows, so that nobody decides by what is past."""
        self._orphans: set[tuple[str, str]] | None = None
        """Tasks an earlier supervisor left under way and that have no child yet; None before the first look."""
        self._leaving: str | None = None
        self._idle = trio.Event()
        self._idle.set()
        self._submitting = trio.Lock()
        self._submissions = 0

    # --- what can be asked -------------------------------------------------------------

    @property
    def world(self) -> World:
        """The present, as of the last commit."""
        return self._ledger.world

    @property
    def accepting(self) -> bool:
        """Whether new work is taken."""
        return self._leaving is None

    def live_session(self, session_id: str) -> ExecutionSession | None:
        """The session with this id, if it runs here and now."""
        return self._live.get(session_id)

    @property
    def live_sessions(self) -> list[ExecutionSession]:
        """The sessions that run here and now."""
        return self._live.all()

    def is_driven(self, run_id: str) -> bool:
        """Whether this supervisor is at work on the run."""
        return run_id in self._drives

    async def wait_idle(self) -> None:
        """Wait until no run is under way, and none is being submitted."""
        while self._drives or self._submissions:
            await self._idle.wait()

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
    ) -> Accepted:
        """Start a run of a plan, or go on with the unfinished run of the same plan.

        Raises:
            SupervisionError: the document has changed since its unfinished run began; or the supervisor is leaving.
            BackendUnavailableError: a task's backend cannot run here.

        Cancellation: the run may have been accepted; asking again then follows it.
        """
        # Until it is decided: where a fresh run takes the place of the only one, nothing runs for a moment.
        self._submissions += 1
        self._stir()
        try:
            return await self._submit(plan, source, key, digest, settings, project, fresh)
        finally:
            self._submissions -= 1
            self._rest()

    async def _submit(
        self, plan: Plan, source: str, key: str, digest: str, settings: RunSettings, project: str, fresh: bool
    ) -> Accepted:
        async with self._submitting:
            self._require_accepting()
            old = self._unfinished(key)
            # One that is being cancelled is nothing to go on with: it ends, as for a fresh run.
            if old is not None and not fresh and old.cancel_reason is None:
                if old.digest != digest:
                    raise SupervisionError(_changed(old))
                following = self.is_driven(old.id)
                if not following:
                    await self.continue_run(old.id)
                return Accepted(old.id, continued=True, following=following)
            untold, self._untold = self._untold, set()
            for run in (self.world.runs[name] for name in untold):
                if old is None and not fresh and not run.unfinished and _is_same(run, key, digest):
                    return Accepted(run.id, continued=True, ended=True)
            run_id = self._new_run_id()
            started = ev.RunStarted(
                run_id=run_id, plan=plan, source=source, key=key, digest=digest, settings=settings, project=project
            )
            self._require_backends(started)
            if old is not None:
                await self._abandon(old)
                self._require_accepting()
            await self._ledger.append(started)
            reach("run.accepted")
            self._drive(run_id)
            return Accepted(run_id)

    async def recover_run(self, run_id: str) -> None:
        """Take up a run whose supervisor died with it under way.

        It may end before anybody asks for it; who submits its plan first, unchanged, is told of that end.

        Raises:
            SupervisionError: unknown, ended, or the supervisor is leaving.
        """
        self._untold.add(run_id)
        await self.continue_run(run_id)

    async def continue_run(self, run_id: str) -> None:
        """Take up an unfinished run.

        Raises:
            SupervisionError: unknown, ended, or the supervisor is leaving.
        """
        async with self._command(run_id):
            self._require_accepting()
            if not self._run(run_id).unfinished:
                raise SupervisionError(f"run {run_id} has ended; `kas retry {run_id}` takes it up again")
            if not self.is_driven(run_id):
                await self._ledger.append(ev.RunContinued(run_id))
                self._drive(run_id)

    async def advance(self, run_id: str) -> None:
        """Let a parked run go on to its next wave.

        Raises:
            SupervisionError: unknown, or not parked.
        """
        async with self._command(run_id):
            run = self._run(run_id)
            wave = parked_after(run)
            if run.state is not RunState.PARKED or wave is None:
                raise SupervisionError(f"run {run_id} is not parked: it is {run.outcome or run.state}")
            await self._ledger.append(ev.RunAdvanced(run_id, wave))
            self._wake(run_id)

    async def cancel_run(self, run_id: str, reason: str = "requested") -> None:
        """End a run for good; its tasks are stopped.

        Raises:
            SupervisionError: unknown, or ended already.
        """
        async with self._command(run_id):
            run = self._run(run_id)
            if not run.unfinished:
                raise SupervisionError(f"run {run_id} has ended already: {run.outcome}")
            events = _resume(run)
            if run.cancel_reason is None:
                events.append(ev.RunCancelRequested(run_id, reason))
            if events:
                await self._ledger.append(*events)
            if self.is_driven(run_id) or self._leaving is None:
                self._drive(run_id)

    async def retry(self, run_id: str, task_ids: tuple[str, ...] = ()) -> None:
        """Run tasks that did not succeed again, and what was skipped because of them.

        Args:
            run_id: the run.
            task_ids: the plan's ids; empty means every task that did not succeed.

        Raises:
            SupervisionError: unknown, or nothing to retry.
        """
        async with self._command(run_id):
            self._require_accepting()
            run = self._run(run_id)
            chosen = self._to_retry(run, task_ids)
            events: list[ev.RunEvent] = _resume(run) if run.unfinished else [ev.RunReopened(run_id)]
            events += [ev.TaskPutBack(run_id, task_id, "retried") for task_id in chosen]
            await self._ledger.append(*events)
            self._drive(run_id)

    def _to_retry(self, run: RunView, task_ids: tuple[str, ...]) -> tuple[str, ...]:
        failed = {
            task_id
            for task_id, task in run.tasks.items()
            if isinstance(task.state, Ended) and task.state.outcome is not Outcome.SUCCEEDED
        }
        unknown = [task_id for task_id in task_ids if task_id not in run.tasks]
        if unknown:
            raise SupervisionError(f"run {run.id} has no task {', '.join(unknown)}; it has {', '.join(run.tasks)}")
        wrong = [task_id for task_id in task_ids if task_id not in failed]
        if wrong or not failed:
            named = f"task {', '.join(wrong)}" if wrong else f"run {run.id}"
            raise SupervisionError(f"nothing to retry: {named} has succeeded or is still under way")
        return tasks_to_retry(run, task_ids)

    async def stop_task(self, run_id: str, task_id: str) -> None:
        """Stop a task for good: cancelled, whatever it is doing.

        Raises:
            SupervisionError: unknown, or not under way.
        """
        async with self._command(run_id):
            run = self._run(run_id)
            if task_id not in run.tasks:
                raise SupervisionError(f"run {run_id} has no task {task_id}; it has {', '.join(run.tasks)}")
            task = run.tasks[task_id]
            if self.is_driven(run_id) and _is_under_way(task) and task_id not in self._supervisor.children(run_id):
                # Left by an earlier supervisor, and about to be taken up again: something of it may run.
                self._start(run_id, task_id)
            child = self._supervisor.children(run_id).get(task_id)
            if child is not None:
                child.request_stop(StopReason.REQUESTED)
            elif task.outcome is not None:
                raise SupervisionError(f"task {task.id} has ended already: {task.outcome}")
            else:
                cause = Cause(CauseKind.STOPPED, "stopped by request before it started")
                await self._ledger.append(ev.TaskEnded(run_id, task_id, Outcome.CANCELLED, cause))
                self._wake(run_id)

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
        """Answer what a session asks, in the name of a person.

        Args:
            approval_id: the approval.
            answer: what the session is told.
            who: the person, for the journal.
            patience: seconds to wait until the session has taken the answer.

        Returns: the approval as it is then: delivered, or still on its way.

        Raises:
            SupervisionError: unknown, or answered already.
            StaleApprovalError: it is not asked any more; the session was told nothing.

        Cancellation: the answer may have been recorded; it is given then.
        """
        run_id, task_id = self._asker(approval_id)
        async with self._command(run_id):
            session_id = require_open(self.world, approval_id).session_id
            answered = ev.ApprovalResolved(session_id, approval_id, answer, ResolvedBy.PERSON, who, answer.text)
            await self._ledger.append(answered)
            child = self._supervisor.children(run_id).get(task_id)
            if child is not None:
                child.answered()
        if child is not None:
            with trio.move_on_after(patience):
                await child.wait_settled(approval_id)
                # That it was delivered may be on its way to the journal.
                await self._ledger.append()
        return require_not_stale(self.world, approval_id, answered)

    def _asker(self, approval_id: str) -> tuple[str, str]:
        session = self.world.sessions.get(require_open(self.world, approval_id).session_id)
        if session is None or session.run_id is None or session.task_id is None:
            raise SupervisionError(f"approval {approval_id} belongs to no task of this supervisor")
        return session.run_id, session.task_id

    @asynccontextmanager
    async def _command(self, run_id: str) -> AsyncGenerator[None, None]:
        """Have a run to oneself, from a look at it to the commit of what follows.

        Who asked cannot go away in between: what is recorded is also acted upon.

        Raises:
            SupervisionError: there is no such run; or nothing can be recorded.
        """
        self._run(run_id)
        async with self._lock(run_id):
            # Bounded, since a full disk must not keep anybody from leaving.
            commit = trio.CancelScope(shield=True, deadline=trio.current_time() + COMMIT_TIMEOUT)
            with commit:
                yield
        if commit.cancelled_caught:
            await trio.lowlevel.checkpoint_if_cancelled()
            raise SupervisionError("nothing can be recorded at present; what was asked for may still come to pass")

    def _lock(self, run_id: str) -> trio.Lock:
        return self._locks.setdefault(run_id, trio.Lock())

    # --- leaving -----------------------------------------------------------------------

    def refuse(self, reason: str) -> None:
        """Start nothing from now on, whatever is just being asked for: it is time to leave. Never blocks."""
        self._leaving = self._leaving or reason

    async def interrupt(self, reason: str) -> None:
        """Stop what runs and put unfinished tasks back; returns when nothing runs any more.

        Cancellation: the stop has been asked for; what is left running is detached by the supervisor's scope.
        """
        self.refuse(reason)
        self._supervisor.request_stop_all(StopReason.INTERRUPTED)
        self._wake_all()
        await self.wait_idle()

    def hurry(self) -> None:
        """Cut every stop short. Never blocks."""
        self._supervisor.hurry_all()

    # --- the drive ---------------------------------------------------------------------

    def _drive(self, run_id: str) -> None:
        if self.is_driven(run_id):
            self._wake(run_id)
            return
        drive = self._drives[run_id] = _Drive()
        self._stir()
        self._nursery.start_soon(self._drive_run, run_id, drive)

    async def _drive_run(self, run_id: str, drive: _Drive) -> None:
        try:
            while True:
                async with self._lock(run_id):
                    if await self._turn(run_id):
                        break
                await drive.wake.wait()
                drive.wake = trio.Event()
        finally:
            del self._drives[run_id]
            drive.over.set()
            self._rest()

    def _stir(self) -> None:
        """Somebody who waits until nothing is under way has to wait again."""
        if self._idle.is_set():
            self._idle = trio.Event()

    def _rest(self) -> None:
        if not self._drives and not self._submissions:
            self._idle.set()

    async def _turn(self, run_id: str) -> bool:
        """Decide once and act; True when this supervisor is done with the run."""
        children = self._supervisor.children(run_id)
        if self._leaving is not None:
            if children:
                return False
            if self.world.runs[run_id].unfinished:
                await self._ledger.append(ev.RunInterrupted(run_id, self._leaving))
            return True
        run = self.world.runs[run_id]
        free = max(0, min(self._free_slots(run_id), run.settings.max_concurrent - len(children)))
        decision = decide_run(run, busy=frozenset(children), free_slots=free)
        await self._commit(decision)
        for task_id in decision.start:
            if self._may_start(run_id, task_id):
                self._start(run_id, task_id)
        children = self._supervisor.children(run_id)
        for task_id, cause in decision.stop:
            if task_id in children:
                children[task_id].request_stop(STOP_REASONS.get(cause.kind, StopReason.REQUESTED), cause)
        return self.world.runs[run_id].state is RunState.ENDED and not self._supervisor.children(run_id)

    async def _commit(self, decision: RunDecision) -> None:
        if not decision.events:
            return
        await self._ledger.append(*decision.events)
        for event in decision.events:
            match event:
                case ev.WaveStarted():
                    reach("wave.started")
                case ev.WaveEnded():
                    reach("wave.ended")
                case ev.RunEnded():
                    reach("run.ended")

    def _may_start(self, run_id: str, task_id: str) -> bool:
        """Whether a task may still be given a child, now that the decision to do so has been committed."""
        task = self.world.runs[run_id].tasks[task_id]
        # 1. The supervisor has begun to leave.
        if self._leaving is not None:
            return False
        # 2. Another run may have taken the slot. What is under way already is taken up in any case.
        return not isinstance(task.state, Pending) or self._free_slots(run_id) > 0

    def _free_slots(self, run_id: str) -> int:
        """How many children this run may start, beside those for what other runs are still to take up again."""
        orphans = self._find_orphans() if self._orphans is None else self._orphans
        self._orphans = {(run, task) for run, task in orphans if _is_under_way(self.world.runs[run].tasks[task])}
        others = sum(1 for run, _ in self._orphans if run != run_id)
        return self._max_concurrent - len(self._supervisor) - others

    def _find_orphans(self) -> set[tuple[str, str]]:
        going = (run for run in self.world.runs.values() if run.state in (RunState.RUNNING, RunState.PARKED))
        return {(run.id, name) for run in going for name, task in run.tasks.items() if _is_under_way(task)}

    def _start(self, run_id: str, task_id: str) -> None:
        run = self.world.runs[run_id]
        if self._orphans:
            self._orphans.discard((run_id, task_id))
        recipe = TaskRecipe(run, run.tasks[task_id], self._kitchen)
        child = Child(run_id, task_id, recipe, self._supervisor.surroundings)
        # A slot that becomes free may be another run's.
        self._supervisor.start(child, self._wake_all)

    def _wake(self, run_id: str) -> None:
        if run_id in self._drives:
            self._drives[run_id].wake.set()

    def _wake_all(self) -> None:
        for drive in self._drives.values():
            drive.wake.set()

    # --- checks ------------------------------------------------------------------------

    def _require_accepting(self) -> None:
        if self._leaving is not None:
            raise SupervisionError("the supervisor is leaving and takes no new work; try again when it has left")

    def _run(self, run_id: str) -> RunView:
        run = self.world.runs.get(run_id)
        if run is None:
            raise SupervisionError(f"there is no run {run_id}; `kas runs` lists them")
        return run

    def _unfinished(self, key: str) -> RunView | None:
        found = [run for run in self.world.runs.values() if run.key == key and run.unfinished]
        return found[-1] if found else None

    async def _abandon(self, run: RunView) -> None:
        """End the unfinished run that a fresh one replaces, and wait until nothing of it runs."""
        # It may end by itself meanwhile, which is as good.
        with suppress(SupervisionError):
            await self.cancel_run(run.id, "a fresh run of the same plan was asked for")
        drive = self._drives.get(run.id)
        if drive is not None:
            await drive.over.wait()

    def _require_backends(self, started: ev.RunStarted) -> None:
        run = RunView(
            id=started.run_id, plan=started.plan, source="", key="", digest="", settings=started.settings,
            project="", started_at=0, started_mono=0, tasks={},
        )  # fmt: skip
        profiles = self._kitchen.profiles()
        for task in started.plan.tasks:
            name = agent_name(run, TaskView(run_id=run.id, spec=task))
            profile = profiles.get(name) if name is not None else None
            if profile is not None:
                require_backend(self._kitchen.backends, mode_of(run, profile))


def _resume(run: RunView) -> list[ev.RunEvent]:
    """What lets decisions be made about this run again: one that was interrupted stands still until then."""
    return [ev.RunContinued(run.id)] if run.state is RunState.INTERRUPTED else []


def _is_under_way(task: TaskView) -> bool:
    return isinstance(task.state, Active | BackingOff)


def _is_same(run: RunView, key: str, digest: str) -> bool:
    return (run.key, run.digest) == (key, digest)


def _changed(run: RunView) -> str:
    return (
        f"the plan {run.source} has changed since its unfinished run {run.id} began; "
        f"choose: `kas run --fresh` ends that run and starts anew with the document as it is now, "
        f"`kas resume {run.id}` goes on with the plan as it was"
    )


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
