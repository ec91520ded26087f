"""What a run does next, decided from its folded state alone. Pure.

`decide_run` first settles what has become certain (tasks that will never run, waves and the run that have
ended), then says which children to start and to stop. Children are not its business: it knows them by the
set of tasks that have one. A run that goes on after its supervisor was killed is decided like any other.

Words used here: a task is *idle* while it is pending and has no child; it is *under way* while it has a
child, a session or a back-off; an ending is a *root failure* unless it follows from another task's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import attrs

from kasmos.model.event import RunEnded, RunEvent, RunParked, TaskEnded, WaveEnded, WaveStarted
from kasmos.model.plan import OnFailure, PlanTask, Wave
from kasmos.model.table import Table
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.value import define, frozen
from kasmos.model.view import BackingOff, Ended, Pending, RunState, RunView, TaskKind, TaskView
from kasmos.store.fold import run_outcome

_CONSEQUENCES = (CauseKind.NEED_FAILED, CauseKind.WAVE_FAILED, CauseKind.FAIL_FAST, CauseKind.RUN_CANCELLED)

_VERBS = {
    Outcome.SUCCEEDED: "succeeded",
    Outcome.FAILED: "failed",
    Outcome.TIMED_OUT: "timed out",
    Outcome.CANCELLED: "was cancelled",
    Outcome.SKIPPED: "was skipped",
    Outcome.LOST: "was lost",
}


@frozen
class RunDecision:
    """What is to be done, in this order: commit, start, stop. All tasks by the plan's id."""

    events: tuple[RunEvent, ...] = ()
    """To be committed in this order, before anything else is done."""
    start: tuple[str, ...] = ()
    """Tasks that get a child: first those that are under way already and lost theirs, then fresh ones."""
    stop: tuple[tuple[str, Cause], ...] = ()
    """Tasks whose child is to stop, and why. Named again in every decision until they have ended."""
    left_over: bool = attrs.field(default=False, eq=False)
    """Whether more tasks could start if there were slots."""
    held: bool = attrs.field(default=False, eq=False)
    """Whether tasks could start if their agents might."""


def decide_run(run: RunView, *, busy: frozenset[str], free_slots: int, closed: Collection[str] = ()) -> RunDecision:
    """Decide what *run* does next.

    Deciding again after the events were committed gives no further events, except for tasks started meanwhile.

    Args:
        run: the run as folded.
        busy: tasks that have a live child.
        free_slots: children that may be started beyond the present ones, whatever run they are of. A child
            that takes up a task already under way is started in any case, and counts.
        closed: agents that may start nothing at present. Their tasks wait, and stand in nobody's way.
    """
    if run.state in (RunState.ENDED, RunState.INTERRUPTED):
        return RunDecision()
    draft = _Draft.of(run, busy)
    draft.closed = frozenset(closed)
    halt = _settle(draft)
    # One more than can be started: whether any would be left over is to be known.
    ready = _ready(draft, 1 + max(0, min(free_slots, run.settings.max_concurrent)))
    gate = _gate(draft)
    if not ready and gate is None and not draft.going and not draft.held:
        ready = _unlock(draft)

    resumed = tuple(name for name in draft.going if name in draft.orphans)
    slots = min(free_slots - len(resumed), run.settings.max_concurrent - len(draft.going))
    fresh = tuple(ready[: max(0, slots)])

    _end_waves(draft)
    _start_waves(draft, {*resumed, *fresh})
    if gate is not None and run.state is not RunState.PARKED:
        draft.events.append(RunParked(run.id, gate))
    if not draft.going and next(draft.idle(), None) is None:
        outcome = run_outcome(draft.tasks.values(), run.cancel_reason is not None)
        draft.events.append(RunEnded(run.id, outcome))
    stop = ((name, halt) for name in draft.going) if halt else ()
    return RunDecision(tuple(draft.events), resumed + fresh, tuple(stop), len(ready) > len(fresh), draft.held)


@frozen
class OuterNeeds:
    """What follows for a run from the tasks of other runs that it needs."""

    waiting_for: tuple[str, ...] = ()
    """Ids of those that have not ended: nothing of the run may start."""
    events: tuple[RunEvent, ...] = ()
    """To be committed: the ends of tasks that will never run, because one of those did not succeed."""


def decide_outer_needs(run: RunView, needed: Mapping[str, TaskView | None]) -> OuterNeeds:
    """Decide whether a run has what it needs of others.

    Args:
        needed: by id, the tasks in `run.needs`; None for one that is not known any more.
    """
    idle = [name for name, task in run.tasks.items() if isinstance(task.state, Pending)]
    if not idle or run.cancel_reason is not None or run.state not in (RunState.RUNNING, RunState.PARKED):
        return OuterNeeds()
    for name, task in needed.items():
        if task is None:
            message = f"needs task {name}, which is not known any more"
        elif has_failed(task):
            message = f"needs a task that did not succeed: task {name} {_VERBS[task.outcome or Outcome.LOST]}"
        else:
            continue
        cause = Cause(CauseKind.NEED_FAILED, message, because_of=(name,))
        return OuterNeeds(events=tuple(TaskEnded(run.id, one, Outcome.SKIPPED, cause) for one in idle))
    waiting = (name for name, task in needed.items() if task is not None and not isinstance(task.state, Ended))
    return OuterNeeds(waiting_for=tuple(waiting))


def parked_after(run: RunView) -> int | None:
    """The number of the wave that *run* waits to be advanced past, None if it does not wait."""
    return _gate(_Draft.of(run, frozenset()))


# --- the run as it is being decided -----------------------------------------------


@define
class _Draft:
    """The run with the decisions made so far.

    Nothing here walks through all tasks of a run: what costs by the length of the plan at each turn costs by its
    square in the end.
    """

    run: RunView
    tasks: Table[TaskView]
    busy: frozenset[str]
    going: dict[str, TaskView]
    """Tasks under way, in plan order; those that are not busy lost their child with its supervisor."""
    orphans: frozenset[str]
    """Of those under way, the ones without a child."""
    events: list[RunEvent] = attrs.field(factory=list)
    closed: frozenset[str] = frozenset()
    """Agents that may start nothing at present."""
    held: bool = False
    """Whether a task waits for nothing else than its agent."""

    @classmethod
    def of(cls, run: RunView, busy: frozenset[str]) -> _Draft:
        """Sort out the tasks of *run*."""
        tasks = run.tasks
        names = {task.spec.id for task in tasks.of_kind(TaskKind.UNDER_WAY)}
        names |= {name for name in busy if name in tasks and tasks[name].outcome is None}
        going = {name: tasks[name] for name in sorted(names, key=tasks.place)}
        return cls(run, tasks, busy, going, frozenset(names) - busy)

    def idle(self, wave: Wave | None = None) -> Iterator[TaskView]:
        """Tasks for which nothing has been begun, in plan order; of one wave, or of all."""
        pending = self.tasks.of_kind(TaskKind.PENDING, None if wave is None else wave.number)
        return (task for task in pending if task.spec.id not in self.busy)

    def is_idle(self, name: str) -> bool:
        return name not in self.busy and isinstance(self.tasks[name].state, Pending)

    def end(self, task: TaskView, outcome: Outcome, cause: Cause) -> None:
        name = task.spec.id
        self.events.append(TaskEnded(self.run.id, name, outcome, cause))
        # The instant is the journal's to give; no decision looks at it.
        self.tasks = self.tasks.put(name, attrs.evolve(task, state=Ended(outcome, cause, at=0.0)))
        self.going.pop(name, None)

    def has_ended(self, wave: Wave) -> bool:
        has, number = self.tasks.has, wave.number
        return not (has(TaskKind.PENDING, number) or has(TaskKind.UNDER_WAY, number))

    def has_failed_in(self, wave: Wave) -> bool:
        return self.tasks.has(TaskKind.FAILED, wave.number)

    def is_closed(self, spec: PlanTask) -> bool:
        return bool(self.closed) and (spec.agent or self.run.settings.default_agent) in self.closed

    def needs_met(self, spec: PlanTask) -> bool:
        return all(self.tasks[need].outcome is Outcome.SUCCEEDED for need in spec.needs)


# --- tasks that will never run ----------------------------------------------------


def _settle(draft: _Draft) -> Cause | None:
    """End every task that is certain never to run; the cause for which all the others are to stop, if any."""
    if draft.run.cancel_reason is not None:
        reason = draft.run.cancel_reason
        halt = Cause(CauseKind.RUN_CANCELLED, f"the run was cancelled: {reason}" if reason else "the run was cancelled")
        for task in tuple(draft.idle()):
            draft.end(task, Outcome.CANCELLED, halt)
        _end_back_offs(draft, halt)
        return halt
    # A skipped task may fail its wave, and a failed wave may skip what others need: until nothing changes.
    count = -1
    while count != len(draft.events):
        count = len(draft.events)
        _skip_unmet_needs(draft)
        if draft.run.settings.on_failure is OnFailure.STOP:
            _skip_after_failed_wave(draft)
    if draft.run.settings.on_failure is not OnFailure.FAIL_FAST:
        return None
    roots = [task.spec.id for task in draft.tasks.of_kind(TaskKind.FAILED) if not is_consequence(task)]
    if not roots:
        return None
    halt = Cause(CauseKind.FAIL_FAST, _say(draft, roots), because_of=tuple(roots))
    for task in tuple(draft.idle()):
        draft.end(task, Outcome.SKIPPED, halt)
    _end_back_offs(draft, halt)
    return halt


def _end_back_offs(draft: _Draft, halt: Cause) -> None:
    # Between two attempts nothing runs, so nobody needs to be started only to be stopped.
    for name, task in tuple(draft.going.items()):
        if isinstance(task.state, BackingOff) and name in draft.orphans:
            draft.end(task, Outcome.CANCELLED, halt)


def _skip_unmet_needs(draft: _Draft) -> None:
    needy = [draft.tasks[name] for name in draft.run.plan.needy if name in draft.tasks and draft.is_idle(name)]
    for task in needy:
        unknown = [need for need in task.spec.needs if need not in draft.tasks]
        if unknown:
            message = f"needs task {unknown[0]}, which is not in the plan"
            draft.end(task, Outcome.SKIPPED, Cause(CauseKind.NEED_FAILED, message))
            continue
        failed = [need for need in task.spec.needs if has_failed(draft.tasks[need])]
        if failed:
            roots = _roots(draft, failed)
            via = _say(draft, failed[:1])
            message = f"needs a task that did not succeed: {via}"
            if failed[0] not in roots:
                message += f", because {_say(draft, _roots(draft, failed[:1]))}"
            draft.end(task, Outcome.SKIPPED, Cause(CauseKind.NEED_FAILED, message, because_of=roots))


def _skip_after_failed_wave(draft: _Draft) -> None:
    if not draft.tasks.has(TaskKind.FAILED):
        return
    cause: Cause | None = None
    for wave in draft.run.plan.waves:
        if cause is not None:
            for task in tuple(draft.idle(wave)):
                draft.end(task, Outcome.SKIPPED, cause)
        elif draft.has_failed_in(wave) and draft.has_ended(wave):
            failed = [task.spec.id for task in draft.tasks.of_kind(TaskKind.FAILED, wave.number)]
            roots = _roots(draft, failed)
            message = f"wave {wave.number} did not succeed: {_say(draft, roots)}"
            cause = Cause(CauseKind.WAVE_FAILED, message, because_of=roots)


# --- tasks that may start ---------------------------------------------------------


def _ready(draft: _Draft, limit: int) -> list[str]:
    """The first *limit* tasks that may start now, in document order."""
    ready: list[str] = []
    barrier_open = True
    for wave in draft.run.plan.waves:
        if not draft.has_ended(wave):
            for task in draft.idle(wave):
                if draft.needs_met(task.spec) if task.spec.needs else barrier_open:
                    if draft.is_closed(task.spec):
                        draft.held = True
                        continue
                    ready.append(task.spec.id)
                    if len(ready) == limit:
                        return ready
            barrier_open = False
            if not draft.run.plan.needy:
                break
        # Needs override the barrier, not the person: what stands after a wave that has not been advanced past
        # waits for `advance`, or it would depend on the speed of siblings what is there to be looked at.
        if _holds(draft, wave):
            break
    return ready


def _holds(draft: _Draft, wave: Wave) -> bool:
    """Whether nothing after this wave may start before it was advanced past."""
    settings = draft.run.settings
    if settings.auto_advance_waves or wave.number <= draft.run.advanced_to:
        return False
    # A wave of which nothing has run gives nobody anything to look at.
    return wave.number in draft.run.waves_started or not draft.has_ended(wave)


def _gate(draft: _Draft) -> int | None:
    """The wave at which the run is to be parked: all is done up to it, idle tasks stand after it."""
    if draft.run.settings.auto_advance_waves:
        return None
    gate = None
    for wave in draft.run.plan.waves:
        if not draft.has_ended(wave):
            break
        if _holds(draft, wave):
            gate = wave.number
    return gate if next(draft.idle(), None) is not None else None


def _unlock(draft: _Draft) -> list[str]:
    """Choose a task for a run that would stand still, or end what can never run.

    Comes to pass where tasks wait for later waves. A barrier is there to order the work, not to prevent it,
    so the first task whose needs are met goes ahead. Without one, needs wait for each other.
    """
    waiting = list(draft.idle())
    for task in waiting:
        if draft.needs_met(task.spec) and draft.is_closed(task.spec):
            draft.held = True
            return []
        if draft.needs_met(task.spec):
            return [task.spec.id]
    for task in waiting:
        draft.end(task, Outcome.SKIPPED, Cause(CauseKind.NEED_FAILED, "needs a task that waits for this one"))
    return []


# --- waves ------------------------------------------------------------------------


def _end_waves(draft: _Draft) -> None:
    run = draft.run
    # A wave that never started has no end either; its tasks say what became of them.
    under_way = {*run.waves_started}.difference(run.waves_ended)
    for wave in run.plan.waves:
        if wave.number in under_way and draft.has_ended(wave):
            outcome = run_outcome((draft.tasks[spec.id] for spec in wave.tasks), run.cancel_reason is not None)
            draft.events.append(WaveEnded(run.id, wave.number, outcome))


def _start_waves(draft: _Draft, starting: Collection[str]) -> None:
    numbers = {draft.tasks[name].spec.wave for name in starting}
    for wave in draft.run.plan.waves:
        if wave.number in numbers and wave.number not in draft.run.waves_started:
            draft.events.append(WaveStarted(draft.run.id, wave.number))


# --- causes -----------------------------------------------------------------------


def has_failed(task: TaskView) -> bool:
    """Whether it has ended and did not succeed."""
    return isinstance(task.state, Ended) and task.state.outcome is not Outcome.SUCCEEDED


def is_consequence(task: TaskView) -> bool:
    """Whether it ended as it did because of something else than itself."""
    return isinstance(task.state, Ended) and task.state.cause.kind in _CONSEQUENCES


def because_of(task: TaskView) -> tuple[str, ...]:
    """The tasks that led to its end, if it has ended and there are any."""
    return task.state.cause.because_of if isinstance(task.state, Ended) else ()


def _roots(draft: _Draft, failed: Iterable[str]) -> tuple[str, ...]:
    """The tasks whose own failure led to the failure of these."""
    roots = (root for name in failed for root in because_of(draft.tasks[name]) or (name,))
    return tuple(dict.fromkeys(roots))


def _say(draft: _Draft, names: Iterable[str]) -> str:
    """What happened to these tasks, in words."""
    said = []
    for name in names:
        task = draft.tasks.get(name)
        outcome = task.outcome if task else None
        said.append(f"task {name} {_VERBS[outcome] if outcome else 'did not succeed'}")
    return ", ".join(said)
