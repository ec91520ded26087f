"""A child: one task under supervision, from its first attempt to its outcome.

A child keeps no state of its own that matters. At each turn it asks `transitions.decide_task` what follows from
the journal, does that one thing, makes the result durable, and asks again. So a child that is taken up by a new
supervisor after a crash does exactly what the old one would have done.
"""

from __future__ import annotations

import time
from collections import ChainMap
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Protocol, cast

import attrs
import trio

from kasmos.exceptions import BackendUnavailableError, ConfigError, KasmosError, SessionLostError, SessionStartError
from kasmos.failpoints import reach
from kasmos.model import event as ev
from kasmos.model.approval import ApprovalPolicy
from kasmos.model.event import Event, Record
from kasmos.model.profile import ExecutionMode, RestartPolicy
from kasmos.model.session import ExitStatus, SessionHandle, SessionKind, SessionSpec, StopReason
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.usage import Price, Shortfall, Usage
from kasmos.model.view import SessionView, TaskView, World
from kasmos.screens import Ruleset
from kasmos.sessions.protocol import AskSource, Backend, ExecutionSession, SessionNeverStarted, TerminalSession
from kasmos.store.fold import apply
from kasmos.supervision import transitions
from kasmos.supervision.desk import Desk, DeskTerms, asks_left
from kasmos.supervision.hearing import Reading
from kasmos.supervision.ledger import Ledger
from kasmos.supervision.meter import Meter, MeterTerms
from kasmos.supervision.prompting import deliver_prompt
from kasmos.supervision.terminal import Terminal
from kasmos.supervision.termination import stop
from kasmos.supervision.witness import Witness, make_witness

__all__ = ["STOP_CAUSES", "Child", "Hindrance", "Ledger", "Recipe", "Surroundings", "tail_of"]

START_PATIENCE = 10.0
"""Seconds a start may take at least, however short the limit of what is started: the machine may be busy."""
TAIL_BYTES = 4096
TAIL_LINES = 20

STOP_CAUSES = {
    StopReason.REQUESTED: Cause(CauseKind.STOPPED, "stopped by request"),
    StopReason.CANCELLED: Cause(CauseKind.RUN_CANCELLED, "its run was ended"),
    StopReason.FAIL_FAST: Cause(CauseKind.FAIL_FAST, "stopped because another task of the run failed"),
    StopReason.UNANSWERED: Cause(CauseKind.UNANSWERED, "nobody answered what it asked"),
    StopReason.UNDELIVERED: Cause(CauseKind.UNDELIVERED, "its prompt could not be typed"),
    StopReason.BUDGET: Cause(CauseKind.BUDGET, "stopped because its budget was spent"),
}
"""What a task ends with that was stopped before, or between, its sessions."""


@attrs.frozen
class Hindrance:
    """Why a task's program may not be started now."""

    reason: str
    final: Cause | None = None
    """What the task ends with; None where it waits."""


class Recipe(Protocol):
    """**Protocol.** How a task's sessions are made; the task's configuration, resolved."""

    policy: RestartPolicy
    retries: int
    checks: int
    retry_lost: bool
    timeout: float | None
    approvals: ApprovalPolicy
    accept: frozenset[Shortfall]
    """What may be missing although the program exits 0."""
    exit_grace: float
    """Seconds of silence a program may still run after it has said that it is done."""
    cwd: str
    """Where the task's programs begin. Absolute."""
    typed_max: int
    """Bytes; a text to be typed that is longer goes as a file."""

    def screen_rules(self) -> Ruleset:
        """The rules by which its agent's screen is read. Blocks on the disk.

        Raises:
            ConfigError: they have mistakes.
        """

    def typed_prompt(self, attempt: int) -> str | None:
        """The prompt, where it is typed into the agent's terminal."""

    account: str
    """The account its agent uses; empty for what uses none."""
    may_ask: bool
    """Whether a person is there to see to an account."""

    def agent(self, attempt: int) -> SessionSpec:
        """The session of an attempt."""

    def check(self, attempt: int, index: int) -> SessionSpec:
        """The session of a check."""

    def check_timeout(self, index: int) -> float | None:
        """Seconds a check may take."""

    def hindrance(self, world: World) -> Hindrance | None:
        """Why the agent may not be started now; if nothing is said, it is started."""

    def wait_before_start(self, world: World, now: float, boot_id: str) -> float:
        """Seconds until it is its turn to start on its account; the place in the row is taken."""

    def time_left(self, world: World) -> float | None:
        """Seconds that its budgets leave for a session that starts now."""

    def wall(self) -> float:
        """The wall clock."""

    def day(self) -> str:
        """The present day of budgets."""

    def over_budget(self, world: World, session_id: str) -> str:
        """Why a live session may spend no more; nothing if it may."""

    def price_of(self, model: str) -> Price | None:
        """What a model costs; by an unknown name or none, the one its agent is started with."""

    def backend(self, spec: SessionSpec | SessionView) -> Backend:
        """Where a session runs.

        Raises:
            BackendUnavailableError: nowhere on this machine.
        """


@attrs.frozen
class Surroundings:
    """What all children are given."""

    ledger: Ledger
    boot_id: str
    now: Callable[[], float]
    """CLOCK_MONOTONIC."""
    rand: Callable[[], float]
    """Uniform in [0, 1)."""
    started: Callable[[ExecutionSession], None]
    """Told of each session that runs, and of its end by `ended`."""
    ended: Callable[[str], None]
    wall: Callable[[], float] = time.time
    """The wall clock: who is attached is told by it."""


class Child:
    """Supervises one task; made by the orchestrator, run by the supervisor."""

    def __init__(self, run_id: str, task_id: str, recipe: Recipe, around: Surroundings) -> None:
        self.run_id = run_id
        self.task_id = task_id
        self._recipe = recipe
        self._around = around
        self._ledger = around.ledger
        self._session: ExecutionSession | None = None
        self._stop = trio.Event()
        self._stop_reason: StopReason | None = None
        self._stop_cause: Cause | None = None
        self._hurry = trio.Event()
        self._over = False
        """Whether the task's end was recorded together with its last session's."""
        self._starting: trio.CancelScope | None = None
        """Cancelled when a stop is asked for while a session starts."""
        self._patience: trio.CancelScope | None = None
        """Cancelled when a stop is asked for while the child waits for its session's end."""
        self._deadline = float("inf")
        """When the session's time is over, by CLOCK_MONOTONIC, not counting the time it waits for people."""
        self._detached = False
        """Said once, however often it is asked for while `run` is still on its way out."""
        self._desk: Desk | None = None
        """Sees to what the session asks."""
        self._witness: Witness | None = None
        """Reads what the session's program says of itself, where it says anything."""
        self._overstayed = False
        """Whether the session's program stays although it has said that it is done."""
        self._rules: Ruleset | None = None
        """The screen rules of the session that is begun."""
        self.terminal: Terminal | None = None
        """Watches the session's terminal, where it has one."""
        self._meter: Meter | None = None
        """Accounts for what the session uses."""
        self._budget_deadline = float("inf")
        """When what its budgets leave of time is over; counted as `_deadline`."""

    # --- what others ask of it -------------------------------------------------------

    def request_stop(self, reason: StopReason, cause: Cause | None = None) -> None:
        """Stop the task, whatever it is doing; the first reason counts. Never blocks."""
        if self._stop_reason is None:
            self._stop_reason = reason
            self._stop_cause = cause
            self._stop.set()
            for scope in (self._starting, self._patience):
                if scope is not None:
                    scope.cancel()

    def answered(self) -> None:
        """Something that the session asks has been answered; the journal says what. Never blocks."""
        if self._desk is not None:
            self._desk.wake()

    async def wait_settled(self, approval_id: str) -> None:
        """Wait until the session has taken this answer, or never will. Cancellation: no effect."""
        if self._desk is not None:
            await self._desk.wait_settled(approval_id)

    def hurry(self) -> None:
        """Cut the grace of the stop to nothing. Never blocks."""
        self._hurry.set()

    def detach(self) -> None:
        """Leave the running program to the next supervisor. Cancel `run` afterwards. Never blocks."""
        if self._session is not None and self._session.exit is None and not self._detached:
            self._detached = True
            self._session.detach()
            self._ledger.append_nowait(ev.SessionDetached(self._session.spec.id))

    # --- the loop --------------------------------------------------------------------

    @property
    def _task(self) -> TaskView:
        return self._ledger.world.runs[self.run_id].tasks[self.task_id]

    async def run(self) -> None:
        """Take the task from where the journal says it is to its outcome, or put it back.

        Cancellation: a session under way is stopped, or left running if it was detached; the journal says so.
        """
        while True:
            step = self._decide()
            settled = isinstance(step, transitions.Supervise | transitions.Finish | transitions.PutBack)
            if self._stop_reason is not None and not settled:
                await self._end_stopped(self._stop_reason)
                return
            try:
                if await self._perform(step):
                    return
            except KasmosError as error:
                # The task cannot be run as configured: its own failure, nobody else's.
                await self._finish(Outcome.FAILED, Cause(CauseKind.CONFIG, str(error)))
                return

    def _decide(self, sessions: Mapping[str, SessionView] | None = None) -> transitions.Step:
        recipe, task = self._recipe, self._task
        return transitions.decide_task(
            task,
            self._ledger.world.sessions if sessions is None else sessions,
            policy=recipe.policy,
            retries=recipe.retries,
            checks=recipe.checks,
            retry_lost=recipe.retry_lost,
            now=self._around.now(),
            rand=self._around.rand(),
            same_boot=self._same_boot(task),
            wall=recipe.wall(),
            account=self._ledger.world.accounts.get(recipe.account),
            may_ask=recipe.may_ask,
        )

    def _same_boot(self, task: TaskView) -> bool:
        """Whether the task's newest session is of this boot, so that its monotonic instants can be compared."""
        newest = self._ledger.world.sessions.get(task.sessions[-1]) if task.sessions else None
        return newest is None or newest.boot_id == self._around.boot_id

    async def _perform(self, step: transitions.Step) -> bool:
        """Do one thing; True when the child is done."""
        match step:
            case transitions.StartAgent(attempt):
                return await self._start_agent(attempt)
            case transitions.StartCheck(attempt, index):
                await self._open(self._recipe.check(attempt, index), index)
                return self._over
            case transitions.Supervise(session_id):
                await self._adopt(self._ledger.world.sessions[session_id])
                return self._over
            case transitions.BackOff(until):
                # Never nothing: where Trio's clock rounds otherwise than ours, the instant might not come nearer.
                with trio.move_on_after(max(1e-6, until - self._around.now())):
                    await self._stop.wait()
            case transitions.Retry(event):
                await self._ledger.append(event)
                reach("task.retry-scheduled")
            case transitions.Park(event, reason):
                await self._ledger.append(event, ev.TaskPutBack(self.run_id, self.task_id, reason, waits=True))
                reach("task.put-back")
                return True
            case transitions.PutBack(reason):
                await self._put_back(reason)
                return True
            case transitions.Finish(outcome, cause):
                await self._finish(outcome, self._explained(cause))
                return True
        return False

    async def _start_agent(self, attempt: int) -> bool:
        """Start the task's program, if and when that may be; True when the child is done."""
        recipe = self._recipe
        wait = recipe.wait_before_start(self._ledger.world, self._around.now(), self._around.boot_id)
        if wait > 0:
            with trio.move_on_after(wait):
                await self._stop.wait()
            if self._stop_reason is not None:
                return False
        hindrance = recipe.hindrance(self._ledger.world)
        if hindrance is None:
            await self._open(recipe.agent(attempt), None)
            return self._over
        if hindrance.final is not None:
            await self._finish(Outcome.FAILED, hindrance.final)
        else:
            # Whoever waits holds no slot: the task is begun again when it may be.
            await self._ledger.append(ev.TaskPutBack(self.run_id, self.task_id, hindrance.reason, waits=True))
        return True

    def _explained(self, cause: Cause) -> Cause:
        asked = self._stop_cause
        if asked is None or asked.kind is not cause.kind:
            return cause
        # Only who asked for the stop knows which task's end led to it, and which budget it was.
        message = asked.message if cause.kind is CauseKind.BUDGET else cause.message
        return attrs.evolve(cause, because_of=asked.because_of, message=message)

    async def _finish(self, outcome: Outcome, cause: Cause) -> None:
        await self._ledger.append(ev.TaskEnded(self.run_id, self.task_id, outcome, cause))
        reach("task.ended")

    async def _put_back(self, reason: str) -> None:
        await self._ledger.append(ev.TaskPutBack(self.run_id, self.task_id, reason))
        reach("task.put-back")

    async def _end_stopped(self, reason: StopReason) -> None:
        if reason is StopReason.INTERRUPTED:
            await self._put_back("interrupted")
        else:
            cause = self._stop_cause or STOP_CAUSES.get(reason) or Cause(CauseKind.STOPPED, "stopped")
            outcome = Outcome.FAILED if cause.kind is CauseKind.BUDGET else Outcome.CANCELLED
            await self._finish(outcome, cause)

    # --- one session -----------------------------------------------------------------

    async def _open(self, spec: SessionSpec, check: int | None) -> None:
        backend = self._recipe.backend(spec)
        if backend.capabilities.interactive and check is None:
            # Before it is begun: rules with mistakes are the task's failure.
            self._rules = await trio.to_thread.run_sync(self._recipe.screen_rules)
        await self._ledger.append(
            ev.SessionStarting(
                session_id=spec.id,
                name=spec.name,
                kind=spec.kind,
                backend=spec.backend,
                boot_id=self._around.boot_id,
                run_id=self.run_id,
                task_id=self.task_id,
                attempt=spec.attempt,
                check=check,
                profile=spec.profile,
                harness=spec.harness,
                conversation=spec.conversation,
                account=self._recipe.account if check is None else "",
            )
        )
        reach("session.intent" if check is None else "check.intent")
        patience = max(START_PATIENCE, self._limit(spec.kind, check))
        with trio.CancelScope(deadline=trio.current_time() + patience) as starting:
            if self._stop_reason is not None:
                starting.cancel()
            self._starting = starting
            try:
                await self._start(backend, spec, check, starting)
            except (SessionStartError, BackendUnavailableError) as error:
                await self._ledger.append(ev.SessionStartFailed(spec.id, str(error)))
            finally:
                self._starting = None
        if starting.cancelled_caught:
            # The start was given up, and had no effect or was undone. What became of it is found out by adopting it.
            await self._ledger.append(self._given_up(spec))

    async def _start(self, backend: Backend, spec: SessionSpec, check: int | None, starting: trio.CancelScope) -> None:
        async with backend.open(spec, notify=self._notify) as session:
            self._starting, starting.deadline = None, float("inf")
            if starting.cancel_called:
                # Given up too late to have no effect: it ends as its scope is left, and the reason is this one.
                self._ledger.append_nowait(self._given_up(spec))
            self._ledger.append_nowait(ev.SessionStarted(spec.id, session.pid))
            reach("session.started")
            deadline = self._around.now() + self._limit(spec.kind, check)
            await self._supervise(session, deadline, None)

    def _given_up(self, spec: SessionSpec) -> ev.StopRequested:
        return ev.StopRequested(spec.id, self._stop_reason or StopReason.TIMEOUT)

    async def _adopt(self, view: SessionView) -> None:
        spec = SessionSpec(
            id=view.id, name=view.name, argv=(), cwd="/", backend=view.backend, kind=view.kind,
            run_id=view.run_id, task_id=view.task_id, attempt=view.attempt, profile=view.profile,
        )  # fmt: skip
        handle = SessionHandle(session_id=view.id, backend=view.backend, boot_id=view.boot_id)
        try:
            async with self._recipe.backend(view).adopt(spec, handle, notify=self._notify) as session:
                if session.exit is None:
                    self._ledger.append_nowait(ev.SessionAdopted(view.id, session.pid))
                    await self._find_rules(session)
                started = view.started_mono if view.started_mono is not None else view.starting_mono
                await self._supervise(session, started + self._limit(view.kind, view.check), view)
        except SessionNeverStarted:
            # The journal knows better: it was seen to run. What is gone is every trace of it.
            had_started = view.started_mono is not None
            gone = ev.SessionLost(view.id, "nothing is left of it, and its records have been removed")
            await self._ledger.append(gone if had_started else ev.SessionNeverStarted(view.id))
        except SessionLostError as error:
            await self._ledger.append(*self._used_unknown(view), ev.SessionLost(view.id, str(error)))

    def _used_unknown(self, view: SessionView) -> list[ev.Event]:
        """What is recorded of an agent's usage of which nobody can learn anything any more."""
        if view.usage is not None or view.kind is not SessionKind.AGENT or not self._recipe.account:
            return []
        return [ev.SessionUsed(view.id, Usage(), self._recipe.day())] if view.started_mono is not None else []

    async def _find_rules(self, session: ExecutionSession) -> None:
        """Find the screen rules of a session that runs already; it goes on without them if they have mistakes."""
        if not session.capabilities.interactive:
            return
        try:
            self._rules = await trio.to_thread.run_sync(self._recipe.screen_rules)
        except ConfigError as error:
            self._rules = None
            self._ledger.append_nowait(ev.ScreenSeen(session.spec.id, "", f"its screen is not read: {error}"))

    def _limit(self, kind: SessionKind, check: int | None) -> float:
        """Seconds a session may take."""
        recipe = self._recipe
        seconds = recipe.timeout
        if kind is SessionKind.CHECK and check is not None and check < recipe.checks:
            seconds = recipe.check_timeout(check)
        return float("inf") if seconds is None else seconds

    async def _supervise(self, session: ExecutionSession, deadline: float, view: SessionView | None) -> None:
        """Stay with a session until it has ended, or nothing more can be done."""
        self._session = session
        self._deadline = deadline
        self._meter = self._make_meter(session)
        self._budget_deadline = self._find_budget_deadline(session)
        self._witness = self._make_witness(session)
        self._overstayed = False
        self._around.started(session)
        try:
            ended = await self._until_ended(session, view)
            given = self._desk.given if self._desk is not None else None
        finally:
            if self._desk is not None:
                self._desk.close()
            self._session = self._patience = self._desk = self._witness = self._meter = self.terminal = None
            self._around.ended(session.spec.id)
        events = (*asks_left(self._ledger.world, session.spec.id, given), *ended)
        last = self._task_end_with(session.spec.id, events)
        # One commit for all, where the task ends with its session: there is nothing to be done in between.
        await self._ledger.append(*events, *last)
        reach("session.ended")
        if last:
            self._over = True
            reach("task.ended")

    def _task_end_with(self, session_id: str, events: Iterable[Event]) -> tuple[ev.TaskEnded, ...]:
        """The end of the task, if it is certain once these events about its session have been recorded."""
        known = self._ledger.world.sessions.get(session_id)
        if known is None:
            return ()
        after = World(sessions={known.id: known})
        for event in events:
            # What it has used decides nothing here.
            if not isinstance(event, ev.SessionUsed):
                apply(after, Record(0, known.starting_at, self._around.now(), event))
        step = self._decide(ChainMap(after.sessions, self._ledger.world.sessions))
        if not isinstance(step, transitions.Finish):
            return ()
        return (ev.TaskEnded(self.run_id, self.task_id, step.outcome, self._explained(step.cause)),)

    def _make_witness(self, session: ExecutionSession) -> Witness | None:
        known = self._ledger.world.sessions.get(session.spec.id)
        harness = known.harness if known is not None else session.spec.harness
        recipe, meter = self._recipe, self._meter
        return make_witness(
            session,
            harness,
            tells=meter is not None and session.spec.backend is ExecutionMode.SCRIPTED,
            accept=recipe.accept,
            exit_grace=recipe.exit_grace,
            heard=meter.take if meter is not None else None,
            wall=recipe.wall,
        )

    async def _until_ended(self, session: ExecutionSession, view: SessionView | None) -> list[ev.SessionEvent]:
        """Stay until it has ended; what is to be said of its end."""
        status = session.exit or await self._end_or_stop(session, view)
        if isinstance(status, SessionLostError):
            if self._witness is not None:
                await self._witness.hear_out()
            return [*self._used(), ev.SessionLost(session.spec.id, str(status))]
        concluded = await self._conclude(session, status)
        succeeded = status.succeeded if concluded is None else concluded.outcome is Outcome.SUCCEEDED
        tail = tail_of(session, 1 if succeeded else TAIL_LINES)
        ended = ev.SessionEnded(session.spec.id, status, session.output_bytes, tail)
        # What was used is told after the judgement: the last line may be complete only by it.
        return [*self._used(), ended] if concluded is None else [*self._used(), concluded, ended]

    def _used(self) -> list[ev.SessionEvent]:
        """What is to be recorded of the session's usage at its end."""
        if self._meter is None or (self._witness is not None and self._witness.silent):
            return []
        # What an agent used that tells nothing is unknown.
        return [self._meter.snapshot(self._witness.reading if self._witness is not None else Reading())]

    async def _conclude(self, session: ExecutionSession, status: ExitStatus) -> ev.SessionConcluded | None:
        """What the program said of its end, where that decides."""
        if self._witness is None:
            return None
        known = self._ledger.world.sessions.get(session.spec.id)
        # Whoever was done and had to be sent away has not failed by how it went.
        settled = known is not None and known.stop_reason is StopReason.SETTLED
        said = await self._witness.conclude(ExitStatus(code=0) if settled else status)
        if said is None:
            return None
        return ev.SessionConcluded(
            session.spec.id, said.outcome, said.failure, said.conversation or "", said.usage, said.model or ""
        )

    async def _end_or_stop(self, session: ExecutionSession, view: SessionView | None) -> ExitStatus | SessionLostError:
        """Wait for the end; when the time is over or a stop is asked for, bring it about."""
        try:
            if view is not None and view.stop_reason is not None:
                # A stop was under way when the earlier supervisor died: it goes on where it was.
                spent = self._around.now() - view.stop_mono if view.stop_mono is not None else 0.0
                left = 0.0 if view.killed else max(0.0, session.spec.stop.stop_grace - spent)
                status = await stop(session, reason=view.stop_reason, hurry=self._hurry, grace=left, requested=True)
            else:
                # No Trio task of its own for the stop: a thousand sessions are a thousand tasks fewer.
                with trio.CancelScope(deadline=self._patience_deadline(session)) as self._patience:
                    if self._stop_reason is None:
                        return await self._wait_end(session)
                done = StopReason.SETTLED if self._overstayed else None
                reason = self._stop_reason or done or self._time_is_over()
                status = await stop(session, reason=reason, hurry=self._hurry)
        except SessionLostError as error:
            return error
        if status is None:
            # All that can be done has been done: leaving the scope is not to do it once more.
            session.detach()
            return SessionLostError("its processes survived SIGKILL")
        return status

    def _patience_deadline(self, session: ExecutionSession) -> float:
        """When the session's time is over, by Trio's clock."""
        view = self._ledger.world.sessions.get(session.spec.id)
        deadline = transitions.decide_deadline(min(self._deadline, self._budget_deadline), view)
        return trio.current_time() + max(0.0, deadline - self._around.now())

    def _time_is_over(self) -> StopReason:
        """Whose time it was: the task's own, or what its budgets had left."""
        if self._budget_deadline >= self._deadline:
            return StopReason.TIMEOUT
        self._stop_cause = Cause(CauseKind.BUDGET, "stopped because what its budgets had left of time was over")
        return StopReason.BUDGET

    def _find_budget_deadline(self, session: ExecutionSession) -> float:
        left = self._recipe.time_left(self._ledger.world) if self._meter is not None else None
        return float("inf") if left is None else self._around.now() + left

    def _make_meter(self, session: ExecutionSession) -> Meter | None:
        recipe, spec = self._recipe, session.spec
        if spec.kind is not SessionKind.AGENT or not recipe.account:
            return None

        def seconds() -> float:
            view = self._ledger.world.sessions.get(spec.id)
            if view is None:
                return 0.0
            begun = view.started_mono if view.started_mono is not None else view.starting_mono
            return max(0.0, self._around.now() - begun - view.waited)

        terms = MeterTerms(
            day=recipe.day,
            seconds=seconds,
            now=self._around.now,
            price=recipe.price_of,
            over_budget=lambda session_id: recipe.over_budget(self._ledger.world, session_id),
            stop=lambda why: self.request_stop(StopReason.BUDGET, Cause(CauseKind.BUDGET, f"stopped because {why}")),
        )
        return Meter(spec.id, self._ledger, terms)

    async def _wait_end(self, session: ExecutionSession) -> ExitStatus:
        """Wait for the end; where the session can ask, tells something, or has a terminal, see to that meanwhile."""
        duties = self._duties(session)
        if not duties:
            return await session.wait()
        failed: Exception | None = None
        found: ExitStatus | SessionLostError | None = None
        async with trio.open_nursery() as nursery:

            async def do(duty: Callable[[], Awaitable[None]]) -> None:
                nonlocal failed
                try:
                    await duty()
                # As a value: out of the nursery it would come as a group, and be taken for somebody else's.
                except Exception as error:
                    failed = error
                    nursery.cancel_scope.cancel()

            for duty in duties:
                nursery.start_soon(do, duty)
            try:
                found = await session.wait()
            except SessionLostError as error:
                found = error
            nursery.cancel_scope.cancel()
        if failed is not None and found is None:
            raise failed
        if not isinstance(found, ExitStatus):
            assert found is not None
            raise found
        return found

    async def _see_it_through(self, witness: Witness) -> None:
        """Read along; send the program away when it is done and does not go by itself."""
        if await witness.wait_overstayed() and self._patience is not None:
            self._overstayed = True
            self._patience.cancel()

    def _duties(self, session: ExecutionSession) -> list[Callable[[], Awaitable[None]]]:
        """What there is to do while a session runs."""
        duties = self._screen_duties(session)
        if self._witness is not None:
            duties.append(partial(self._see_it_through, self._witness))
        return duties

    def _screen_duties(self, session: ExecutionSession) -> list[Callable[[], Awaitable[None]]]:
        if session.capabilities.asks:
            # What says of itself that it asks is a source of asks.
            self._desk = self._make_desk(session, cast(AskSource, session))
            return [self._desk.run]
        if not session.capabilities.interactive or self._rules is None or session.spec.kind is not SessionKind.AGENT:
            return []
        watched, tell = cast(TerminalSession, session), self._ledger.append_nowait
        terminal = Terminal(watched, self._rules, tell, self._around.wall, self._recipe.typed_max)
        self.terminal = terminal
        self._desk = self._make_desk(session, terminal)
        duties: list[Callable[[], Awaitable[None]]] = [terminal.watch, self._desk.run]
        prompt = self._recipe.typed_prompt(session.spec.attempt)
        if prompt is not None:

            async def type_prompt() -> None:
                if not await deliver_prompt(terminal, prompt, self._ledger, session.spec.id):
                    self.request_stop(StopReason.UNDELIVERED)

            duties.append(type_prompt)
        return duties

    def _make_desk(self, session: ExecutionSession, source: AskSource) -> Desk:
        def reset_clock() -> None:
            if self._patience is not None and self._stop_reason is None:
                self._patience.deadline = self._patience_deadline(session)

        terms = DeskTerms(
            session_id=session.spec.id,
            policy=self._recipe.approvals,
            cwd=self._recipe.cwd,
            now=self._around.now,
            rand=self._around.rand,
            clock=reset_clock,
            unanswered=lambda: self.request_stop(StopReason.UNANSWERED),
        )
        return Desk(source, self._ledger, terms)

    async def _notify(self, event: Event) -> None:
        await self._ledger.append(event)


def tail_of(session: ExecutionSession, lines: int) -> str:
    """The last *lines* lines of a session's output as text, at most `TAIL_BYTES` of it."""
    end = session.output_bytes
    chunk = session.read_nowait(max(0, end - TAIL_BYTES), TAIL_BYTES)
    return "\n".join(chunk.data.decode(errors="replace").splitlines()[-lines:])
