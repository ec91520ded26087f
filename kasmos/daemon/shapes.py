"""The shapes that leave the supervisor as JSON: compact, flat, with stable words.

Views hold what the fold needs; these hold what a reader wants. Instants are RFC 3339 in UTC,
durations are seconds. `kasmos.daemon.wire` makes them. New fields may be added at any time;
none is renamed.
"""

from __future__ import annotations

from collections.abc import Mapping

from kasmos.exceptions import Mistake
from kasmos.model.approval import Answer, Option
from kasmos.model.session import Leftover
from kasmos.model.value import frozen


@frozen
class ExitWire:
    """How a program ended: a code, a signal, or neither (unknown)."""

    code: int | None
    signal: int | None
    certain: bool
    text: str


@frozen
class CauseWire:
    """Why a task ended as it did."""

    kind: str
    message: str
    session_id: str | None
    exit: ExitWire | None
    because_of: tuple[str, ...]
    failure: str | None
    """What kind of failure the program met with, where it is understood."""
    tail: str


@frozen
class SessionWire:
    """One session."""

    session_id: str
    name: str
    kind: str
    backend: str
    status: str
    run_id: str | None
    task_id: str | None
    attempt: int
    check: int | None
    profile: str
    pid: int | None
    starting_at: str
    started_at: str | None
    ended_at: str | None
    seconds: float | None
    exit: ExitWire | None
    stop_reason: str | None
    killed: bool
    detached: bool
    unkillable: tuple[int, ...]
    leftovers: tuple[Leftover, ...]
    output_bytes: int
    last_output_at: str | None
    """When it last wrote something, while it lives."""
    output_lost: int
    """How many times output was declared lost."""
    reason: str
    approval: str | None = None
    """Id of what it waits for a person to answer."""
    waited: float = 0.0
    """Seconds it has waited for people, without the present wait."""
    screen: str = ""
    """What its terminal shows: ready, working, dialog, limit and so on; empty where nothing is known."""
    screen_note: str = ""
    """What a person should know about that."""
    delivery: str | None = None
    """What has become of a prompt that is typed: delivering, delivered or failed."""
    awaits: str = ""
    """Who of it waits for input that nobody gives, and for what; empty where nothing is known of such."""
    attended: bool = False
    """Whether it is a headless task's conversation in a terminal, for the person who took it over."""


@frozen
class FailureWire:
    """What an agent's program failed by, in its own words."""

    kind: str
    message: str
    shortfall: str | None
    retry_after: float | None
    reset_at: str | None
    status: int | None


@frozen
class ConclusionWire:
    """What an agent's program said of its own end."""

    outcome: str
    failure: FailureWire | None
    conversation: str | None
    """The id by which the program resumes it."""
    model: str | None


@frozen
class ApprovalWire:
    """Something that a session asks, and what became of it."""

    approval_id: str
    status: str
    session_id: str
    name: str
    """Of the session."""
    task_id: str | None
    kind: str
    tool: str
    command: str
    path: str
    text: str
    options: tuple[Option, ...]
    evidence: str
    why: str
    """Why a person has to answer."""
    answer: Answer | None
    by: str | None
    who: str
    reason: str
    requested_at: str
    resolved_at: str | None
    settled_at: str | None
    more_paths: tuple[str, ...] = ()
    """Further files that the same yes is for."""
    reason_goes: str = ""
    """How a person's reason for a no reaches the program: `answer`, `message`, `turn`, `input`, or not at all."""


@frozen
class TakeoverWire:
    """A person has a headless task's conversation, or is to have it."""

    phase: str
    """`requested` (until its turn has ended), `attended`, or `handed_back` (until its terminal has ended)."""
    who: str
    since: str
    now: bool
    """Whether its turn is interrupted for it."""
    conversation: str


@frozen
class TaskWire:
    """One task of a run."""

    task_id: str
    run_id: str
    number: int
    wave: int
    name: str
    title: str
    agent: str | None
    model: str | None
    """What it asked for instead of its agent's own."""
    needs: tuple[str, ...]
    status: str
    attempts: int
    session_id: str | None
    """Its newest session that ran the agent."""
    sessions: tuple[str, ...]
    exit: ExitWire | None
    """Of that session."""
    cause: CauseWire | None
    """Why it ended, or why it is tried again."""
    retry_at: str | None
    submitted_at: str
    """When its run was accepted."""
    started_at: str | None
    ended_at: str | None
    seconds: float | None
    approval: str | None = None
    """Id of what it waits for a person to answer."""
    takeover: TakeoverWire | None = None
    """The person who has its conversation, or is to have it."""


@frozen
class TaskSubmittedWire:
    """The answer to a task that was handed in."""

    task_id: str
    status: str
    repeated: bool
    """It had been handed in before, with the same `Idempotency-Key`."""
    cursor: int
    """All events of a task that was handed in for the first time have numbers above this one."""
    warnings: tuple[Mistake, ...]


@frozen
class WaveWire:
    """One wave of a run."""

    number: int
    title: str
    status: str
    tasks: tuple[str, ...]


@frozen
class RunWire:
    """One run, without its tasks."""

    run_id: str
    status: str
    title: str
    goal: str
    source: str
    project: str
    origin: str
    """`plan`, or `task` for one that was handed in by itself."""
    on_failure: str
    max_concurrent: int
    wave: int | None
    """Number of the newest wave that has started."""
    waves: tuple[WaveWire, ...]
    counts: Mapping[str, int]
    """Tasks by status; only what there is."""
    cancel_reason: str | None
    started_at: str
    ended_at: str | None
    seconds: float | None
    """From its start to its end, the time between an interruption and the next supervisor included."""
    last_seq: int
    """Journal number of the newest event about it."""


@frozen
class RunDetailWire:
    """One run with its tasks."""

    run: RunWire
    tasks: tuple[TaskWire, ...]


@frozen
class Attention:
    """Something that a person should look at."""

    kind: str
    id: str
    message: str


@frozen
class StatusWire:
    """The snapshot for pollers."""

    schema: int
    version: str
    pid: int
    project: str
    started_at: str
    accepting: bool
    seq: int
    """Number of the newest event; a stream of events resumed from here misses nothing."""
    uptime: float
    """Seconds since its start. The `ETag` does not know of it."""
    queue_depth: int
    """Tasks handed in by themselves that wait for a slot, or for other tasks."""
    queue_limit: int
    runs: tuple[RunWire, ...]
    """Unfinished ones of plans, newest first."""
    tasks: tuple[TaskWire, ...]
    """Unfinished ones that were handed in by themselves and are under way, newest first."""
    sessions: tuple[SessionWire, ...]
    """Live ones, newest first."""
    attention: tuple[Attention, ...]
    counts: Mapping[str, Mapping[str, int]]
    left_out: Mapping[str, int]
    """How many entries the lists above were shortened by."""
