"""A child: one task under supervision, from its first attempt to its outcome.

A child keeps no state of its own that matters. At each turn it asks `transitions.decide_task` what follows from
the journal, does that one thing, makes the result durable, and asks again. So a child that is taken up by a new
supervisor after a crash does exactly what the old one would have done.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import trio

from kasmos.exceptions import (
    BackendUnavailableError,
    ConfigError,
    KasmosError,
    NoRoomError,
    SessionLostError,
    SessionStartError,
)
from kasmos.failpoints import reach
from kasmos.model import event as ev
from kasmos.model.event import Event, Record
from kasmos.model.session import SessionHandle, SessionKind, SessionSpec, StopReason
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.usage import Usage
from kasmos.model.view import SessionView, TaskView, World
from kasmos.sessions.protocol import Backend, ExecutionSession, SessionNeverStarted
from kasmos.store.fold import apply
from kasmos.supervision import transitions
from kasmos.supervision.attendant import Attendant, Outset
from kasmos.supervision.desk import Desk, asks_left
from kasmos.supervision.handover import Thread, spent_before
from kasmos.supervision.recipe import Recipe, Surroundings
from kasmos.supervision.stop_order import StopOrder
from kasmos.supervision.termination import note

if TYPE_CHECKING:
    from kasmos.screens import Ruleset
    from kasmos.supervision.terminal import Terminal

START_PATIENCE = 10.0
"""Seconds a start may take at least, however short the limit of what is started: the machine may be busy."""


class Child:
    """Supervises one task; made by the orchestrator, run by the supervisor."""

    def __init__(
        self,
        run_id: str,
        task_id: str,
        recipe: Recipe,
        around: Surroundings,
        record_end: Callable[[tuple[Event, ...]], Awaitable[None]] | None = None,
    ) -> None:
        """Make the child of one task.

        Args:
            run_id: of its run.
            task_id: the plan's id.
            recipe: how its sessions are made.
            around: what all children share.
            record_end: makes the events with which the task ends durable, and what follows from them at once; the
                child does nothing more after that. By default they are recorded by themselves.
        """
        self.run_id = run_id
        self.task_id = task_id
        self._recipe = recipe
        self._around = around
        self._ledger = around.ledger
        self._record_end = record_end
        self._order = StopOrder()
        self._intended: SessionSpec | None = None
        """Its first session, where others have seen to it that the intent is recorded."""
        self._over = False
        """Whether the task's end was recorded together with its last session's."""
        self._attendant: Attendant | None = None
        """Stands beside the session that runs."""

    # --- what others ask of it -------------------------------------------------------

    def request_stop(self, reason: StopReason, cause: Cause | None = None) -> None:
        """Stop the task, whatever it is doing; the first reason counts. Never blocks."""
        self._order.give(reason, cause)

    def hurry(self) -> None:
        """Cut the grace of the stop to nothing. Never blocks."""
        self._order.hurry.set()

    def heed(self) -> None:
        """Somebody wants its conversation, or has given it back; the journal says which. Never blocks."""
        if self._attendant is not None:
            self._attendant.heed()

    def answered(self) -> None:
        """Something that the session asks has been answered; the journal says what. Never blocks."""
        if self._desk is not None:
            self._desk.wake()

    async def wait_settled(self, approval_id: str) -> None:
        """Wait until the session has taken this answer, or never will. Cancellation: no effect."""
        if self._desk is not None:
            await self._desk.wait_settled(approval_id)

    def detach(self) -> None:
        """Leave the running program to the next supervisor. Cancel `run` afterwards. Never blocks."""
        if self._attendant is not None:
            self._attendant.detach()

    @property
    def terminal(self) -> Terminal | None:
        """Watches the session's terminal, where it has one."""
        return self._attendant.terminal if self._attendant is not None else None

    @property
    def said(self) -> str | None:
        """What its session's program says or does now, in a line; None where that is not understood."""
        return self._attendant.said if self._attendant is not None else None

    @property
    def at_tool(self) -> float | None:
        """Since when that program uses a tool, wall clock; `inf` while it uses none, None where that is not known."""
        return self._attendant.at_tool if self._attendant is not None else None

    @property
    def _desk(self) -> Desk | None:
        return self._attendant.desk if self._attendant is not None else None

    # --- the loop --------------------------------------------------------------------

    @property
    def _task(self) -> TaskView:
        return self._ledger.world.runs[self.run_id].tasks[self.task_id]

    def intend(self) -> ev.SessionStarting | None:
        """The intent of its first session, if nothing else is to be done, or waited for, before that is recorded.

        Whoever asks makes it durable, and then lets `run` begin with it: one commit less on the way from what came
        before to the program. Never blocks.
        """
        if self._around.room.shortage or not self._recipe.is_unhindered(self._ledger.world):
            return None
        try:
            step = self._decide()
            if not isinstance(step, transitions.StartAgent) or step.thread is not None:
                return None
            spec = self._recipe.agent(step.attempt)
            if self._recipe.backend(spec).capabilities.interactive:
                return None
        except KasmosError:
            # Its own failure: told of when it runs.
            return None
        self._intended = spec
        return self._intent_of(spec, None)

    async def run(self) -> None:
        """Take the task from where the journal says it is to its outcome, or put it back.

        Cancellation: a session under way is stopped, or left running if it was detached; the journal says so.
        """
        while True:
            try:
                if self._intended is not None:
                    spec, self._intended = self._intended, None
                    await self._begin(spec, None, None)
                    if self._over:
                        return
                step = self._decide()
                settled = isinstance(step, transitions.Supervise | transitions.Finish | transitions.PutBack)
                if self._order.reason is not None and not settled:
                    await self._end_stopped(self._order.reason)
                    return
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
            case transitions.StartAgent() | transitions.StartCheck() if self._around.room.shortage:
                await self._wait_for_room()
            case transitions.StartAgent(attempt, thread):
                return await self._start_agent(attempt, thread)
            case transitions.StartCheck(attempt, index):
                await self._open(self._recipe.check(attempt, index), index)
                return self._over
            case transitions.Supervise(session_id):
                await self._adopt(self._ledger.world.sessions[session_id])
                return self._over
            case transitions.BackOff(until):
                # Never nothing: where Trio's clock rounds otherwise than ours, the instant might not come nearer.
                with trio.move_on_after(max(1e-6, until - self._around.now())):
                    await self._order.given.wait()
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
            case transitions.GiveBack(event):
                await self._ledger.append(event)
                reach("takeover.handed-back")
            case transitions.Finish(outcome, cause):
                await self._finish(outcome, self._order.explain(cause))
                return True
        return False

    async def _wait_for_room(self) -> None:
        """Wait until the disk has room for a session, or a stop."""
        async with trio.open_nursery() as nursery:

            async def stopped() -> None:
                await self._order.given.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(stopped)
            await self._around.room.wait()
            nursery.cancel_scope.cancel()

    async def _start_agent(self, attempt: int, thread: Thread | None) -> bool:
        """Start the task's program, if and when that may be; True when the child is done."""
        recipe = self._recipe
        if thread is not None and thread.attended:
            # What is used there a person decides, who may be just about to see to the account.
            await self._open(recipe.agent(attempt, thread), None)
            return self._over
        wait = recipe.wait_before_start(self._ledger.world, self._around.now(), self._around.boot_id)
        if wait > 0:
            with trio.move_on_after(wait):
                await self._order.given.wait()
            if self._order.reason is not None:
                return False
        hindrance = recipe.hindrance(self._ledger.world)
        if hindrance is None:
            await self._open(recipe.agent(attempt, thread), None)
            return self._over
        if hindrance.final is not None:
            await self._finish(Outcome.FAILED, hindrance.final)
        else:
            # Whoever waits holds no slot: the task is begun again when it may be.
            await self._ledger.append(ev.TaskPutBack(self.run_id, self.task_id, hindrance.reason, waits=True))
        return True

    async def _finish(self, outcome: Outcome, cause: Cause) -> None:
        await self._end_with(ev.TaskEnded(self.run_id, self.task_id, outcome, cause))
        reach("task.ended")

    async def _end_with(self, *events: Event) -> None:
        """Make durable how the task ends."""
        if self._record_end is None:
            await self._ledger.append(*events)
        else:
            await self._record_end(events)

    async def _put_back(self, reason: str) -> None:
        held = self._task.takeover
        # What somebody has worked in goes on; nobody's work is begun anew.
        conversation = held.conversation if held is not None else self._task.conversation
        await self._ledger.append(ev.TaskPutBack(self.run_id, self.task_id, reason, conversation))
        reach("task.put-back")

    async def _end_stopped(self, reason: StopReason) -> None:
        if reason is StopReason.INTERRUPTED:
            await self._put_back("interrupted")
        else:
            cause = self._order.end_cause(reason)
            outcome = Outcome.FAILED if cause.kind is CauseKind.BUDGET else Outcome.CANCELLED
            await self._finish(outcome, cause)

    # --- one session -----------------------------------------------------------------

    async def _open(self, spec: SessionSpec, check: int | None) -> None:
        backend = self._recipe.backend(spec)
        rules: Ruleset | None = None
        if backend.capabilities.interactive and check is None:
            # Before it is begun: rules with mistakes are the task's failure.
            rules = await trio.to_thread.run_sync(self._recipe.screen_rules)
        await self._ledger.append(self._intent_of(spec, check))
        await self._begin(spec, check, rules)

    def _intent_of(self, spec: SessionSpec, check: int | None) -> ev.SessionStarting:
        return ev.SessionStarting(
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
            attended=spec.attended,
        )

    async def _begin(self, spec: SessionSpec, check: int | None, rules: Ruleset | None) -> None:
        """Start a session whose intent is durable, and stay with it."""
        reach("session.intent" if check is None else "check.intent")
        backend = self._recipe.backend(spec)
        outset = Outset(self._time_for(spec), rules)
        patience = max(START_PATIENCE, outset.limit)
        with trio.CancelScope(deadline=trio.current_time() + patience) as starting:
            if self._order.reason is not None:
                starting.cancel()
            self._order.interrupts = starting
            try:
                await self._start(backend, spec, outset, starting)
            except NoRoomError as error:
                # No failure of the task: nothing ran. The same is begun once more when there is room.
                self._around.room.found_short(str(error))
                await self._ledger.append(ev.SessionNeverStarted(spec.id, str(error)))
            except (SessionStartError, BackendUnavailableError) as error:
                await self._ledger.append(ev.SessionStartFailed(spec.id, str(error)))
            finally:
                self._order.interrupts = None
        if starting.cancelled_caught:
            # The start was given up, and had no effect or was undone. What became of it is found out by adopting it.
            await self._ledger.append(self._given_up(spec))

    async def _start(self, backend: Backend, spec: SessionSpec, outset: Outset, starting: trio.CancelScope) -> None:
        async with backend.open(spec, notify=self._notify) as session:
            self._order.interrupts, starting.deadline = None, float("inf")
            if starting.cancel_called:
                # Given up too late to have no effect: it ends as its scope is left, and the reason is this one.
                self._ledger.append_nowait(self._given_up(spec))
            self._ledger.append_nowait(ev.SessionStarted(spec.id, session.pid))
            reach("session.started")
            await self._supervise(session, outset)

    def _given_up(self, spec: SessionSpec) -> ev.StopRequested:
        return ev.StopRequested(spec.id, self._order.reason or StopReason.TIMEOUT)

    async def _adopt(self, view: SessionView) -> None:
        spec = SessionSpec(
            id=view.id, name=view.name, argv=(), cwd="/", backend=view.backend, kind=view.kind,
            run_id=view.run_id, task_id=view.task_id, attempt=view.attempt, profile=view.profile,
        )  # fmt: skip
        handle = SessionHandle(session_id=view.id, backend=view.backend, boot_id=view.boot_id)
        try:
            async with self._recipe.backend(view).adopt(spec, handle, notify=self._notify) as session:
                rules: Ruleset | None = None
                if session.exit is None:
                    self._ledger.append_nowait(ev.SessionAdopted(view.id, session.pid))
                    rules = await self._find_rules(session)
                await self._supervise(session, Outset(self._time_for(view), rules, view))
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

    async def _find_rules(self, session: ExecutionSession) -> Ruleset | None:
        """Find the screen rules of a session that runs already; it goes on without them if they have mistakes."""
        if not session.capabilities.interactive:
            return None
        try:
            return await trio.to_thread.run_sync(self._recipe.screen_rules)
        except ConfigError as error:
            self._ledger.append_nowait(ev.ScreenSeen(session.spec.id, "", f"its screen is not read: {error}"))
            return None

    def _time_for(self, session: SessionSpec | SessionView) -> float:
        """Seconds a session may take of its task's time; a person's time is their own."""
        if session.attended:
            return float("inf")
        limit = self._limit(session.kind, session.check)
        if session.kind is not SessionKind.AGENT:
            return limit
        return limit - spent_before(self._task, self._ledger.world.sessions, session.id, session.attempt)

    def _limit(self, kind: SessionKind, check: int | None) -> float:
        """Seconds a session may take."""
        recipe = self._recipe
        seconds = recipe.timeout
        if kind is SessionKind.CHECK and check is not None and check < recipe.checks:
            seconds = recipe.check_timeout(check)
        return float("inf") if seconds is None else seconds

    async def _supervise(self, session: ExecutionSession, outset: Outset) -> None:
        """Stay with a session until it has ended, or nothing more can be done."""
        attendant = self._attendant = Attendant(session, outset, self._recipe, self._around, self._order)
        self._around.started(session)
        try:
            ended = await attendant.wait_ended()
        finally:
            attendant.close()
            self._attendant = None
            self._around.ended(session.spec.id)
        events = (*asks_left(self._ledger.world, session.spec.id, attendant.given), *ended)
        last = self._task_end_with(session.spec.id, events)
        if not last:
            await self._ledger.append(*events)
            reach("session.ended")
            return
        # One commit for all, where the task ends with its session: there is nothing to be done in between.
        await self._end_with(*events, *last)
        self._over = True
        reach("session.ended")
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
        return (ev.TaskEnded(self.run_id, self.task_id, step.outcome, self._order.explain(step.cause)),)

    async def _notify(self, event: Event) -> None:
        await note(self._ledger.append, event)
