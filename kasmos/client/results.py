"""What a supervisor answers, as values. What a newer one says beside is passed over."""

from __future__ import annotations

from collections.abc import Mapping

from kasmos.model.agent_event import AgentEvent
from kasmos.model.value import frozen


@frozen
class Exit:
    """How a program ended: a code, a signal, or neither (unknown)."""

    code: int | None
    signal: int | None
    certain: bool
    text: str


@frozen
class Why:
    """Why a task ended as it did, or is tried again."""

    kind: str
    message: str
    session_id: str | None = None
    exit: Exit | None = None
    because_of: tuple[str, ...] = ()
    tail: str = ""


@frozen
class Warned:
    """Something that is doubtful about what was asked."""

    place: str
    problem: str
    cure: str = ""


@frozen
class Submission:
    """A task that was accepted."""

    task_id: str
    status: str
    repeated: bool
    """It had been handed in before, with the same key."""
    cursor: int
    """All its events have numbers above this one."""
    warnings: tuple[Warned, ...] = ()

    @property
    def id(self) -> str:
        """The task's id."""
        return self.task_id


@frozen
class Takeover:
    """A person has a headless task's conversation, or is to have it."""

    phase: str
    """`requested`, `attended` or `handed_back`."""
    who: str
    since: str
    now: bool = False
    conversation: str = ""


@frozen
class Task:
    """A task as it stands."""

    task_id: str
    run_id: str
    name: str
    title: str
    status: str
    """`queued`, `running`, `waiting`, then the outcome."""
    attempts: int
    agent: str | None = None
    model: str | None = None
    needs: tuple[str, ...] = ()
    session_id: str | None = None
    exit: Exit | None = None
    cause: Why | None = None
    takeover: Takeover | None = None
    """The person who has its conversation, or is to have it."""
    submitted_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    seconds: float | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return self.task_id

    @property
    def ended(self) -> bool:
        """Whether it has its outcome."""
        return self.status not in ("queued", "running", "waiting")

    @property
    def succeeded(self) -> bool:
        """Whether its outcome is the one that was hoped for."""
        return self.status == "succeeded"


@frozen
class SessionOutput:
    """A piece of what a session wrote, in a feed."""

    session_id: str
    offset: int
    """Where it begins in the session's output, in bytes."""
    next_offset: int
    lost: int
    """Bytes before it that are gone."""
    text: str
    ended: bool
    """Nothing will follow."""


@frozen
class AgentSaid:
    """What a session's agent says or does, and where that stands."""

    session_id: str
    offset: int
    """Of the line of output that it comes from, in bytes."""
    cursor: str
    """The place behind it: who goes on there misses nothing and sees nothing twice."""
    event: AgentEvent


@frozen
class AgentEnded:
    """A session's agent says nothing any more."""

    session_id: str
    cursor: str
    conclusion: Concluded | None = None


@frozen
class Failed:
    """What an agent's program failed by, in its own words."""

    kind: str
    message: str
    shortfall: str | None = None
    retry_after: float | None = None
    reset_at: str | None = None
    status: int | None = None


@frozen
class Concluded:
    """What an agent's program said of its own end."""

    outcome: str
    failure: Failed | None = None
    conversation: str | None = None
    model: str | None = None


@frozen
class Gap:
    """The events between two numbers are missing: they were pruned."""

    after: int
    before: int


@frozen
class TaskOutput:
    """A piece of what a task's agent writes."""

    task_id: str
    session_id: str
    offset: int
    next_offset: int
    lost: int
    text: str


@frozen
class Run:
    """A run as it stands."""

    run_id: str
    status: str
    title: str
    goal: str
    source: str
    counts: Mapping[str, int]
    last_seq: int
    origin: str = "plan"
    started_at: str | None = None
    ended_at: str | None = None
    seconds: float | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return self.run_id


@frozen
class Session:
    """A session as it stands."""

    session_id: str
    name: str
    kind: str
    backend: str
    status: str
    attempt: int
    profile: str
    output_bytes: int
    run_id: str | None = None
    task_id: str | None = None
    pid: int | None = None
    exit: Exit | None = None
    started_at: str | None = None
    ended_at: str | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return self.session_id


@frozen
class Agent:
    """An agent profile."""

    name: str
    program: str
    mode: str
    usable: bool
    reason: str = ""
    model: str | None = None
    default: bool = False


@frozen
class Page:
    """The body of a list's answer."""

    next_cursor: str | None = None
    tasks: tuple[Task, ...] = ()
    runs: tuple[Run, ...] = ()
    sessions: tuple[Session, ...] = ()
    agents: tuple[Agent, ...] = ()


@frozen
class RunDetail:
    """The body of the answer about one run."""

    run: Run
    tasks: tuple[Task, ...] = ()
