"""The drive: one Trio task per run that decides from the journal, makes it durable, acts, and waits for news.

It keeps nothing that a new supervisor would miss.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from kasmos.failpoints import reach
from kasmos.model import event as ev
from kasmos.model.event import Record
from kasmos.model.plan import Origin
from kasmos.model.session import StopReason
from kasmos.model.task import CauseKind
from kasmos.model.value import define, frozen
from kasmos.model.view import RunState, RunView, TaskView, World, find_task_view, parts_of_task_id
from kasmos.orchestration.budgets import Place
from kasmos.orchestration.scheduler import RunDecision, decide_outer_needs, decide_run
from kasmos.orchestration.slots import Slots, is_pending
from kasmos.store.fold import apply
from kasmos.supervision.ledger import Ledger
from kasmos.supervision.supervisor import Supervisor

if TYPE_CHECKING:
    from kasmos.orchestration.kitchen import Kitchen
    from kasmos.supervision.child import Child

MOST_INTENDED = 16
"""Sessions whose intents are recorded with what led to them: to make one takes a fraction of a millisecond."""

STOP_REASONS = {
    CauseKind.FAIL_FAST: StopReason.FAIL_FAST,
    CauseKind.RUN_CANCELLED: StopReason.CANCELLED,
}


@define(eq=False)
class _Drive:
    """A run that this supervisor is at work on."""

    wake: trio.Event = attrs.field(factory=trio.Event)
    """Set when something has changed that may matter to the run."""
    over: trio.Event = attrs.field(factory=trio.Event)
    agents: frozenset[str] | None = None
    """Every agent its tasks name; None before the first look."""


@frozen
class _Step:
    """What a run does next."""

    run: RunView
    """As it was decided about."""
    decision: RunDecision
    wants_slots: bool
    """Whether more could start if there were slots."""
    ending: int
    """Children that do nothing more, and still have their slots."""


class Driver:
    """Drives runs until they have ended, or until it is time to leave."""

    def __init__(
        self, nursery: trio.Nursery, ledger: Ledger, supervisor: Supervisor, kitchen: Kitchen, max_concurrent: int
    ) -> None:
        self._nursery = nursery
        self._ledger = ledger
        self._supervisor = supervisor
        self._kitchen = kitchen
        self._slots = Slots(max_concurrent, supervisor, lambda: ledger.world)
        self._drives: dict[str, _Drive] = {}
        self._locks: dict[str, trio.Lock] = {}
        """By run: held from a look at it to the commit of what follows, so that nobody decides by what is past."""
        self._dependents: dict[str, set[str]] = {}
        """By run: those that wait for a task of it."""
        self._singles: set[str] = set()
        self._busy_singles = 0
        self._submissions = 0
        self._idle = trio.Event()
        self._idle.set()
        self._followed: set[tuple[str, str]] = set()
        """Tasks whose ends were acted upon as they were recorded, and whose children are not gone yet."""
        self._held: set[str] = set()
        """Runs with tasks that wait for nothing but their agents' accounts and budgets."""
        self._alarm: trio.CancelScope | None = None
        """Cancelled when the next account opens by itself; None while nobody waits for that."""
        self.leaving: str | None = None
        """Why nothing is begun any more."""
        self.handing_on = False
        """Whether what is unfinished then is left as it is, so that the next supervisor goes on with it by itself."""

    @property
    def world(self) -> World:
        """The present, as of the last commit."""
        return self._ledger.world

    @property
    def max_concurrent(self) -> int:
        """How many tasks run side by side, of all runs; what runs already goes on when it is lowered."""
        return self._slots.limit

    @max_concurrent.setter
    def max_concurrent(self, tasks: int) -> None:
        self._slots.limit = tasks
        self._wake_heads()

    def is_driven(self, run_id: str) -> bool:
        """Whether this supervisor is at work on the run."""
        return run_id in self._drives

    @property
    def queued_tasks(self) -> int:
        """How many tasks that were handed in by themselves wait for a slot, or for other tasks."""
        return len(self._singles) - self._busy_singles

    def lock(self, run_id: str) -> trio.Lock:
        """The lock of a run: held from a look at it to the commit of what follows."""
        return self._locks.setdefault(run_id, trio.Lock())

    def drive(self, run_id: str) -> None:
        """Be at work on a run; one that is driven already looks for news. Never blocks.

        It lines up for slots behind those that came before it, whichever of them gets to look first.
        """
        if self.is_driven(run_id):
            self.wake(run_id)
            return
        drive = self._drives[run_id] = _Drive()
        self._slots.queue(run_id, served=False)
        if self.world.runs[run_id].origin is Origin.TASK:
            self._singles.add(run_id)
        self._stir()
        self._nursery.start_soon(self._drive_run, run_id, drive)

    def wake(self, run_id: str) -> None:
        """Something has changed that may matter to a run. Never blocks."""
        if run_id in self._drives:
            self._drives[run_id].wake.set()
        self._wake_dependents(run_id)

    def wake_all(self) -> None:
        """Something has changed that matters to every run. Never blocks."""
        self._held.clear()
        for drive in self._drives.values():
            drive.wake.set()

    async def wait_over(self, run_id: str) -> None:
        """Wait until this supervisor is not at work on the run any more."""
        drive = self._drives.get(run_id)
        if drive is not None:
            await drive.over.wait()

    @contextmanager
    def submitting(self) -> Iterator[None]:
        """It is being decided what is driven next: whoever waits until nothing is under way waits for that, too."""
        self._submissions += 1
        self._stir()
        try:
            yield
        finally:
            self._submissions -= 1
            self._rest()

    async def wait_idle(self) -> None:
        """Wait until no run is under way, and none is being submitted."""
        while self._drives or self._submissions:
            await self._idle.wait()

    def _stir(self) -> None:
        """Somebody who waits until nothing is under way has to wait again."""
        if self._idle.is_set():
            self._idle = trio.Event()

    def _rest(self) -> None:
        if not self._drives and not self._submissions:
            self._idle.set()

    # --- one run -----------------------------------------------------------------------

    async def _drive_run(self, run_id: str, drive: _Drive) -> None:
        try:
            while True:
                over = await self._locked_turn(run_id)
                self._wake_dependents(run_id)
                self._wake_heads()
                if over:
                    break
                await drive.wake.wait()
                drive.wake = trio.Event()
        finally:
            del self._drives[run_id]
            self._singles.discard(run_id)
            self._held.discard(run_id)
            self._forget_lock(run_id)
            self._slots.leave(run_id)
            drive.over.set()
            self._rest()

    async def _locked_turn(self, run_id: str) -> bool:
        lock = self.lock(run_id)
        try:
            # Without a turn of the event loop where nobody else has it, which is nearly always.
            lock.acquire_nowait()
        except trio.WouldBlock:
            await lock.acquire()
        try:
            return await self._turn(run_id)
        finally:
            lock.release()

    def _forget_lock(self, run_id: str) -> None:
        lock = self._locks.get(run_id)
        if lock is not None and not lock.locked() and not lock.statistics().tasks_waiting:
            del self._locks[run_id]

    async def _turn(self, run_id: str) -> bool:
        """Decide once and act; True when this supervisor is done with the run."""
        children = self._supervisor.children(run_id)
        if self.leaving is not None:
            if children:
                return False
            run = self.world.runs[run_id]
            # A task that was handed in by itself is a promise: the next supervisor keeps it without being asked.
            if run.unfinished and not self.handing_on and run.origin is not Origin.TASK:
                await self._ledger.append(ev.RunInterrupted(run_id, self.leaving))
            return True
        held = await self._look_at_needs(self.world.runs[run_id])
        await self._carry_out(self._decide(self.world.runs[run_id], frozenset(children), held=held))
        return self.world.runs[run_id].state is RunState.ENDED and not self._supervisor.children(run_id)

    def _decide(self, run: RunView, busy: frozenset[str], *, held: bool = False, ending: int = 0) -> _Step:
        """Decide what *run*, as it is or will be in a moment, does next.

        Args:
            run: the run.
            busy: its tasks that have a child.
            held: whether nothing of it may start.
            ending: children that do nothing more, and are not *busy*.
        """
        own = 0 if held else max(0, run.settings.max_concurrent - len(busy))
        shared = self._slots.free_for(run.id, ending)
        closed = self._closed_agents(run)
        decision = decide_run(run, busy=busy, free_slots=min(own, shared), closed=closed)
        return _Step(run, decision, wants_slots=decision.left_over and shared < own, ending=ending)

    async def _carry_out(self, step: _Step, told: tuple[ev.Event, ...] = ()) -> None:
        """Make *told*, and what was decided, durable; then act."""
        run_id, decision = step.run.id, step.decision
        # Only where something is to be committed anyway: of itself, each child does that beside the others.
        begun, intents = self._intend(step) if told or decision.events else ({}, [])
        promised = max(0, len(begun) - step.ending)
        self._slots.promised += promised
        try:
            await self._commit(decision, told, intents)
        finally:
            self._slots.promised -= promised
        started = [
            task_id
            for task_id in decision.start
            if self._start_if_may(run_id, task_id, begun.get(task_id), step.ending)
        ]
        if len(started) < len(decision.start) or step.wants_slots:
            self._slots.queue(run_id, served=bool(started))
        else:
            self._slots.leave(run_id)
        if decision.held and self.world.runs[run_id].unfinished:
            self._hold(run_id)
        children = self._supervisor.children(run_id)
        for task_id, cause in decision.stop:
            if task_id in children:
                children[task_id].request_stop(STOP_REASONS.get(cause.kind, StopReason.REQUESTED), cause)

    async def _record_end(self, run_id: str, task_id: str, events: tuple[ev.Event, ...]) -> None:
        """Record the end of a task, whose child does nothing more, in one commit with what follows from it.

        What follows is what the next turn would decide. It is left to that where it depends on more than the run's
        own tasks, and where somebody else is at work on the run.
        """
        lock, run = self.lock(run_id), self.world.runs[run_id]
        if self.leaving is None and not lock.locked() and not run.needs and not self._spending_decides():
            busy = frozenset(self._supervisor.children(run_id)) - {task_id}
            step = self._decide(self._after(run, events), busy, ending=1)
            if step.decision.events or step.decision.start:
                lock.acquire_nowait()
                try:
                    await self._carry_out(step, events)
                finally:
                    lock.release()
                self._followed.add((run_id, task_id))
                return
        await self._ledger.append(*events)

    def _after(self, run: RunView, events: tuple[ev.Event, ...]) -> RunView:
        """The run as it will be when the end of a task is recorded."""
        after = World(runs={run.id: run})
        for event in events:
            # What is told of its sessions has no effect on the run that is not in the task's end.
            if isinstance(event, ev.TaskEnded):
                # The instant is the journal's to give; no decision looks at it.
                apply(after, Record(run.last_seq, 0.0, 0.0, event))
        return after.runs[run.id]

    def _intend(self, step: _Step) -> tuple[dict[str, Child], list[ev.Event]]:
        """Children, by task, for the first of those that are to be started, and the intents that they begin with."""
        begun: dict[str, Child] = {}
        intents: list[ev.Event] = []
        for task_id in step.decision.start[:MOST_INTENDED]:
            task = step.run.tasks[task_id]
            if is_pending(task):
                child = self._make_child(step.run, task)
                intent = child.intend()
                if intent is not None:
                    begun[task_id] = child
                    intents.append(intent)
        return begun, intents

    def _spending_decides(self) -> bool:
        """Whether what may start depends on what was spent, or on the accounts that are parked."""
        accounts = self.world.accounts.values()
        return bool(self._kitchen.treasury.budgets()) or any(view.parked is not None for view in accounts)

    def _closed_agents(self, run: RunView) -> frozenset[str]:
        """The agents of a run that may start nothing at present, and will some time."""
        treasury, world = self._kitchen.treasury, self.world
        drive = self._drives.get(run.id)
        if not self._spending_decides():
            return frozenset()
        agents = drive.agents if drive is not None else None
        if agents is None:
            default = run.settings.default_agent
            agents = frozenset(name for task in run.plan.tasks if (name := task.agent or default) is not None)
            if drive is not None:
                drive.agents = agents
        profiles = self._kitchen.profiles()
        known = (profiles[name] for name in agents if name in profiles and profiles[name].metered)
        return frozenset(
            profile.name
            for profile in known
            if (found := treasury.hindrance(world, Place(run.id, "", profile.name, profile.account_name)))
            and found.final is None
        )

    def _hold(self, run_id: str) -> None:
        """Have a run looked at again when an account opens, or a session has spent what was set aside for it."""
        self._held.add(run_id)
        seconds = self._kitchen.treasury.opens_in(self.world)
        if seconds is None:
            return
        if self._alarm is None:
            self._alarm = trio.CancelScope()
            self._nursery.start_soon(self._ring, self._alarm)
        # Never nothing: the wall clock may be a little behind.
        self._alarm.deadline = trio.current_time() + max(0.001, seconds)

    async def _ring(self, alarm: trio.CancelScope) -> None:
        with alarm:
            await trio.sleep_forever()
        self._alarm = None
        self._wake_held()

    def _wake_held(self) -> None:
        held, self._held = self._held, set()
        for run_id in held:
            self.wake(run_id)

    async def _look_at_needs(self, run: RunView) -> bool:
        """Whether the run waits for tasks of other runs; what follows from their ends is committed."""
        if not run.needs:
            return False
        runs = self.world.runs
        outer = decide_outer_needs(run, {name: find_task_view(runs, name) for name in run.needs})
        if outer.events:
            await self._ledger.append(*outer.events)
        for name in outer.waiting_for:
            self._dependents.setdefault(parts_of_task_id(name)[0], set()).add(run.id)
        return bool(outer.waiting_for)

    async def _commit(self, decision: RunDecision, told: tuple[ev.Event, ...], intents: Iterable[ev.Event]) -> None:
        events = (*told, *decision.events, *intents)
        if not events:
            return
        await self._ledger.append(*events)
        for event in decision.events:
            match event:
                case ev.WaveStarted():
                    reach("wave.started")
                case ev.WaveEnded():
                    reach("wave.ended")
                case ev.RunEnded():
                    reach("run.ended")

    def _start_if_may(self, run_id: str, task_id: str, child: Child | None, ending: int) -> bool:
        """Give a task its child, unless that may not be any more now that the decision has been committed."""
        # 0. It has been begun with the commit, so it is to be seen to its end; while we leave, that is to put it back.
        if child is not None:
            self._start(child)
            if self.leaving is not None:
                child.request_stop(StopReason.INTERRUPTED)
            return True
        # 1. The supervisor has begun to leave.
        if self.leaving is not None:
            return False
        # 2. Another run may have taken the slot. What is under way already is taken up in any case.
        if is_pending(self.world.runs[run_id].tasks[task_id]) and not self._slots.free_for(run_id, ending):
            return False
        self.start(run_id, task_id)
        return True

    def start(self, run_id: str, task_id: str) -> None:
        """Give a task a child, whether there is a slot or not. Never blocks."""
        run = self.world.runs[run_id]
        self._start(self._make_child(run, run.tasks[task_id]))

    def _make_child(self, run: RunView, task: TaskView) -> Child:
        # Late: a daemon has come up before it needs them (`kasmos.serve.later`).
        from kasmos.orchestration.assembly import TaskRecipe
        from kasmos.supervision.child import Child

        recipe = TaskRecipe(run, task, self._kitchen)
        record_end = partial(self._record_end, run.id, task.spec.id)
        return Child(run.id, task.spec.id, recipe, self._supervisor.surroundings, record_end)

    def _start(self, child: Child) -> None:
        run_id, task_id = child.run_id, child.task_id
        self._slots.taken_up(run_id, task_id)
        single = run_id in self._singles
        self._busy_singles += single

        def ended() -> None:
            self._busy_singles -= single
            if self.world.runs[run_id].tasks[task_id].outcome is not None:
                # Only its run is still to be ended: it waits for nothing.
                self._singles.discard(run_id)
            followed = (run_id, task_id) in self._followed
            self._followed.discard((run_id, task_id))
            if followed and self.leaving is None and self.world.runs[run_id].unfinished:
                # There is nothing to decide that has not been decided.
                self._wake_dependents(run_id)
            else:
                self.wake(run_id)
            self._wake_held()
            self._wake_heads()

        self._supervisor.start(child, ended)

    def _wake_dependents(self, run_id: str) -> None:
        """Something of a run may have ended: those that wait for it look, and wait on if it was something else."""
        for one in self._dependents.pop(run_id, ()):
            if one in self._drives:
                self._drives[one].wake.set()

    def _wake_heads(self) -> None:
        """A slot may have become free: whoever has waited longest is next."""
        if self.leaving is None:
            for run_id in self._slots.heads():
                self.wake(run_id)
