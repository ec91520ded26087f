"""The present, as folded from the journal: what runs, tasks and sessions are now.

A state is a variant that carries only the data that state has. Views are frozen; a
`World` holds the newest view of each thing and is advanced by `kasmos.store.fold`.
Instants `*_at` are wall clock and for people; `*_mono` are monotonic and for durations,
comparable only within one boot (`boot_id`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from kasmos.model.approval import Answer, ApprovalState, Ask, ResolvedBy
from kasmos.model.plan import Origin, Plan, PlanTask, RunSettings
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import ExitStatus, Leftover, SessionKind, StopReason
from kasmos.model.table import Table, table_of
from kasmos.model.takeover import Takeover
from kasmos.model.task import Cause, Outcome
from kasmos.model.usage import DayTally, Failure, FailureKind, Tally, Usage
from kasmos.model.value import define, frozen

# --- sessions ---------------------------------------------------------------------


class SessionState(enum.StrEnum):
    """Where a session stands."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"
    """With an `exit`."""
    START_FAILED = "start_failed"
    NEVER_STARTED = "never_started"
    LOST = "lost"

    @property
    def live(self) -> bool:
        """Whether something of it may still run."""
        return self in _LIVE


_LIVE = frozenset({SessionState.STARTING, SessionState.RUNNING, SessionState.STOPPING})


class DeliveryState(enum.StrEnum):
    """What has become of a prompt that is typed."""

    DELIVERING = "delivering"
    """It may have been typed: it is never typed a second time."""
    DELIVERED = "delivered"
    FAILED = "failed"


@frozen
class SessionView:
    """One session, as the journal knows it."""

    id: str
    name: str
    kind: SessionKind
    backend: ExecutionMode
    boot_id: str
    run_id: str | None
    task_id: str | None
    attempt: int
    check: int | None
    profile: str
    state: SessionState
    starting_at: float
    starting_mono: float
    pid: int | None = None
    started_at: float | None = None
    started_mono: float | None = None
    stop_reason: StopReason | None = None
    stop_mono: float | None = None
    killed: bool = False
    detached: bool = False
    unkillable: tuple[int, ...] = ()
    ended_at: float | None = None
    """When its program ended; where nobody saw that, when its end was recorded. So is `ended_mono`."""
    ended_mono: float | None = None
    exit: ExitStatus | None = None
    end_found: bool = False
    """Whether it had ended before the supervisor that recorded it came."""
    output_bytes: int = 0
    tail: str = ""
    leftovers: tuple[Leftover, ...] = ()
    output_lost: int = 0
    """How many times output was declared lost."""
    reason: str = ""
    """Why it could not start, or is lost."""
    first_seq: int = 0
    """Journal number of the event by which it was begun."""
    last_seq: int = 0
    """Journal number of the newest event about it, its end included, and nothing after that."""
    approvals: tuple[str, ...] = ()
    """Ids of the newest things it asked, oldest first; the older ones are forgotten."""
    waiting_since_mono: float | None = None
    """Since when it waits for a person; its clock stands still."""
    waited: float = 0.0
    """Seconds it waited for people before."""
    harness: str = ""
    """Whose word decides how it ended; empty where only the exit status counts."""
    conversation: str = ""
    """The program's own id of the conversation, as far as it is known."""
    conclusion: Conclusion | None = None
    """What its program said of its end; None where nothing but its exit status counts, or nothing is known yet."""
    delivery: DeliveryState | None = None
    """What has become of the prompt, where it is typed."""
    delivery_reason: str = ""
    """Why the prompt was not delivered."""
    screen: str = ""
    """What its terminal shows, in a word; empty where nothing is known."""
    screen_note: str = ""
    """What a person should know about that."""
    awaits: str = ""
    """Who of it waits for input that nobody gives, and for what; empty where nothing is known of such."""
    account: str = ""
    """The account it uses."""
    usage: Usage | None = None
    """What it has used so far, as it was told last; None where it uses nothing that is counted, or nothing yet."""
    usage_base: Usage | None = None
    """What its conversation had used before it began."""
    shares: tuple[tuple[str, Tally], ...] = ()
    """Day by day what of that counts for it."""
    attended: bool = False
    """Whether it is a headless task's conversation in a terminal, for the person who took it over."""

    @property
    def tally(self) -> Tally:
        """What it has used; nothing where that is not counted."""
        return sum((share for _, share in self.shares), Tally())


@frozen
class Conclusion:
    """What a session's program said of its own end."""

    outcome: Outcome
    failure: Failure | None = None
    conversation: str = ""
    model: str = ""
    """The model that answered, where it was told."""


# --- accounts ---------------------------------------------------------------------


@frozen
class Parked:
    """Why nothing is started on an account."""

    kind: FailureKind
    message: str
    since_at: float
    until_at: float | None
    """Wall clock; None is until a person has said so."""
    by_session: str = ""


@frozen
class AccountView:
    """An account that agents use."""

    name: str
    parked: Parked | None = None
    """The newest reason why nothing was to be started on it; with an instant that is over it says nothing any more."""
    streak: int = 0
    """How often it was parked in a row, without a success in between."""
    started_mono: float | None = None
    """When a session was started on it last."""
    boot_id: str = ""
    """The boot that instant is of."""


@define
class UsageLedger:
    """What was used, in sums that outlive the sessions they are sums of."""

    days: dict[str, dict[tuple[str, str], Tally]] = attrs.field(factory=dict)
    """By day, then by agent and account."""
    runs: dict[str, Tally] = attrs.field(factory=dict)
    """By run, while the run is remembered."""
    conversations: dict[str, tuple[str, Usage]] = attrs.field(factory=dict)
    """By conversation: the newest session of it, and what it has used in all."""

    def entries(self) -> list[DayTally]:
        """The sums, oldest day first."""
        return [DayTally(day, *key, sums[key]) for day, sums in sorted(self.days.items()) for key in sorted(sums)]

    def on(self, day: str, *, agent: str | None = None, account: str | None = None) -> Tally:
        """What was used on a day, by everybody or by one agent or on one account."""
        sums = self.days.get(day, {}).items()
        wanted = (tally for key, tally in sums if agent in (None, key[0]) and account in (None, key[1]))
        return sum(wanted, Tally())

    def copy(self) -> UsageLedger:
        """The sums as they are now."""
        days = {day: dict(sums) for day, sums in self.days.items()}
        return UsageLedger(days, dict(self.runs), dict(self.conversations))


# --- approvals --------------------------------------------------------------------


@frozen
class ApprovalView:
    """Something that a session asked, and what became of it."""

    id: str
    """Short, to be typed."""
    session_id: str
    ask: Ask
    requested_at: float
    requested_mono: float
    why: str = ""
    state: ApprovalState = ApprovalState.OPEN
    answer: Answer | None = None
    by: ResolvedBy | None = None
    who: str = ""
    reason: str = ""
    """Why it was answered so, or withdrawn."""
    resolved_at: float | None = None
    settled_at: float | None = None


# --- tasks ------------------------------------------------------------------------


@frozen
class Pending:
    """Nothing has been started for it yet, or it was put back."""


@frozen
class Active:
    """A session of it is under way."""

    session_id: str
    approval_id: str | None = None
    """What the session waits for a person to answer."""
    no_room: str = ""
    """Why the disk has no room for the session: nothing of it has run, and it begins when there is room."""


@frozen
class BackingOff:
    """An attempt did not succeed; the next one follows after a delay."""

    attempt: int
    """The attempt that did not succeed."""
    delay: float
    since_mono: float
    since_at: float
    cause: Cause


@frozen
class Ended:
    """It has its outcome."""

    outcome: Outcome
    cause: Cause
    at: float


TaskState = Pending | Active | BackingOff | Ended


@frozen
class TaskView:
    """One task of one run."""

    run_id: str
    spec: PlanTask
    state: TaskState = Pending()
    sessions: tuple[str, ...] = ()
    """Ids of all its sessions, oldest first."""
    epoch: int = 0
    """Sessions before this index no longer count: the task was put back or retried after them."""
    attempts: int = 0
    """Number of the newest attempt; 0 before the first."""
    failures: tuple[float, ...] = ()
    """Monotonic instants of attempts that did not succeed in this epoch, oldest first."""
    conversation: str = ""
    """The program's conversation that the attempts of this epoch go on with; empty for new ones."""
    takeover: Takeover | None = None
    """The person who has its conversation, or is to have it."""
    started_at: float | None = None
    started_mono: float | None = None
    ended_at: float | None = None
    ended_mono: float | None = None
    ended_seq: int = 0
    """Journal number of the event by which it ended, if it has."""

    @property
    def id(self) -> str:
        """Unique in the state root: `RUN.TASK`, or the plain id of a task that was handed in by itself."""
        return public_task_id(self.run_id, self.spec.id)

    @property
    def outcome(self) -> Outcome | None:
        """Its outcome, once it has ended."""
        return self.state.outcome if isinstance(self.state, Ended) else None


def public_task_id(run_id: str, task_id: str) -> str:
    """What a task is called everywhere: `RUN.TASK`; one that was handed in by itself has the plain id of its run."""
    return task_id if task_id == run_id else f"{run_id}.{task_id}"


def parts_of_task_id(public_id: str) -> tuple[str, str]:
    """The run's id, and the task's id in it."""
    run_id, dot, task_id = public_id.partition(".")
    return run_id, task_id if dot else run_id


# --- runs -------------------------------------------------------------------------


class RunState(enum.StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    PARKED = "parked"
    """Waits for `advance` after a wave."""
    INTERRUPTED = "interrupted"
    """Unfinished, and its supervisor left in order; `kas run` or `kas resume` goes on."""
    ENDED = "ended"


class TaskKind(enum.IntEnum):
    """What matters of a task to those who look for tasks."""

    PENDING = 0
    UNDER_WAY = 1
    """A session, or a back-off."""
    SUCCEEDED = 2
    FAILED = 3
    """Ended, and did not succeed."""


_KINDS = {Pending: TaskKind.PENDING, Active: TaskKind.UNDER_WAY, BackingOff: TaskKind.UNDER_WAY}


def kind_of(task: TaskView) -> TaskKind:
    """The kind of a task, by which a run's tasks are counted."""
    state = task.state
    if isinstance(state, Ended):
        return TaskKind.SUCCEEDED if state.outcome is Outcome.SUCCEEDED else TaskKind.FAILED
    return _KINDS[type(state)]


def _wave_of(task: TaskView) -> int:
    return task.spec.wave


def _tasks(tasks: Mapping[str, TaskView]) -> Table[TaskView]:
    return table_of(tasks, kind_of=kind_of, group_of=_wave_of)


@frozen
class RunView:
    """One execution of a plan."""

    id: str
    plan: Plan
    source: str
    key: str
    digest: str
    settings: RunSettings
    project: str
    started_at: float
    started_mono: float
    tasks: Table[TaskView] = attrs.field(converter=_tasks)
    """By the plan's task id, in plan order; counted by `TaskKind` and grouped by wave."""
    state: RunState = RunState.RUNNING
    outcome: Outcome | None = None
    cancel_reason: str | None = None
    """Set once the run is to be ended for good."""
    advanced_to: int = -1
    """Number of the newest wave that `advance` let the run past."""
    waves_started: tuple[int, ...] = ()
    waves_ended: tuple[int, ...] = ()
    ended_at: float | None = None
    ended_mono: float | None = None
    last_seq: int = 0
    """Journal number of the newest event about this run."""
    origin: Origin = Origin.PLAN
    needs: tuple[str, ...] = ()
    """Ids of tasks of other runs that must have succeeded before anything of this one starts."""
    request_key: str = ""
    """The `Idempotency-Key` it was handed in with."""
    first_seq: int = 0
    """Journal number of the event by which it was accepted."""

    @property
    def unfinished(self) -> bool:
        """Whether a supervisor still has work to do for it."""
        return self.state is not RunState.ENDED


def find_task_view(runs: Mapping[str, RunView], public_id: str) -> TaskView | None:
    """The task with exactly this id."""
    run_id, task_id = parts_of_task_id(public_id)
    run = runs.get(run_id)
    return run.tasks.get(task_id) if run is not None else None


# --- the whole --------------------------------------------------------------------


@define
class World:
    """Everything the journal tells, as of `seq`. Advanced in place by the fold only."""

    seq: int = 0
    boot_id: str = ""
    """Boot of the newest supervisor; monotonic instants are comparable within it."""
    boot_seq: int = 0
    """Journal number from which on all instants are of this boot."""
    runs: dict[str, RunView] = attrs.field(factory=dict)
    sessions: dict[str, SessionView] = attrs.field(factory=dict)
    approvals: dict[str, ApprovalView] = attrs.field(factory=dict)
    """By id: all that are not settled, and the newest ones of each session."""
    accounts: dict[str, AccountView] = attrs.field(factory=dict)
    ledger: UsageLedger = attrs.field(factory=UsageLedger)
    supervisor_pid: int | None = None
    """Pid of the newest supervisor, None after it left in order."""
    supervisor_stays: bool = False
    """Whether the newest supervisor is, or was, a daemon."""

    def copy(self) -> World:
        """The world as it is now, which nothing that is folded into the one changes in the other.

        Views are frozen: they are shared.
        """
        return attrs.evolve(
            self,
            runs=dict(self.runs),
            sessions=dict(self.sessions),
            approvals=dict(self.approvals),
            accounts=dict(self.accounts),
            ledger=self.ledger.copy(),
        )
