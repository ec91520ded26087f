"""Events: facts that have happened, in the past tense. The journal is a list of them.

Every event is frozen data. Which journal number it got and when, is in the `Record` around it.
New fields need a default, and no field is ever renamed: journals of every released version load for ever.
"""

from __future__ import annotations

from kasmos.model.approval import Answer, Ask, ResolvedBy
from kasmos.model.plan import Origin, Plan, RunSettings
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import ExitStatus, Leftover, SessionKind, StopReason, WaitSource
from kasmos.model.task import Cause, Outcome
from kasmos.model.usage import DayTally, Failure, FailureKind, Usage
from kasmos.model.value import frozen


@frozen
class SupervisorStarted:
    """A supervisor took the state root."""

    pid: int
    boot_id: str
    version: str
    stays: bool = False
    """Whether it is a daemon, which stays when all its work has ended."""


@frozen
class SupervisorStopped:
    """A supervisor left the state root in order. Its absence tells of a crash."""

    reason: str


@frozen
class EventsPruned:
    """Everything from event `first` to this one, which has the number of the last of them, was forgotten."""

    first: int
    seal: int
    """Holds the two ends of the gap together; see `kasmos.store.chain`."""
    usage: tuple[DayTally, ...] = ()
    """What forgotten sessions have used: sums outlive what they are sums of."""


@frozen
class AccountParked:
    """Nothing is started on an account, until an instant or until a person has said so."""

    account: str
    kind: FailureKind
    message: str
    """What the program said."""
    until_at: float | None = None
    """Wall clock; None is until `AccountReleased`."""
    by_session: str = ""
    """The session that met with it."""


@frozen
class AccountReleased:
    """A person let an account be used again."""

    account: str
    who: str = ""


@frozen
class AccessRefused:
    """Somebody asked over TCP without the right token. Only the first attempt and the last that is listened to."""

    address: str
    reason: str
    attempts: int = 1


@frozen
class RunStarted:
    """A run of a plan was accepted."""

    run_id: str
    plan: Plan
    source: str
    """The plan's real path, or `-`."""
    key: str
    """What makes two plans the same plan: the real path, or for `-` the digest."""
    digest: str
    """SHA-256 of the document."""
    settings: RunSettings
    project: str
    """The directory the tasks run in."""
    origin: Origin = Origin.PLAN
    needs: tuple[str, ...] = ()
    """Ids of tasks of other runs that must have succeeded before anything of this one starts."""
    request_key: str = ""
    """The `Idempotency-Key` it was handed in with; `digest` is then that of what was asked."""


@frozen
class RunContinued:
    """A new supervisor took up an unfinished run."""

    run_id: str


@frozen
class RunInterrupted:
    """The supervisor was asked to leave with the run unfinished."""

    run_id: str
    reason: str


@frozen
class RunCancelRequested:
    """The run is to be ended for good."""

    run_id: str
    reason: str


@frozen
class RunParked:
    """A wave has ended and the run waits for `advance`."""

    run_id: str
    wave: int
    """The wave that has ended."""


@frozen
class RunAdvanced:
    """Somebody let the run go on past a parked wave."""

    run_id: str
    wave: int
    """The wave it was parked after."""


@frozen
class RunReopened:
    """A run that had ended was taken up again by `retry`."""

    run_id: str


@frozen
class RunEnded:
    """Every task of the run has an outcome."""

    run_id: str
    outcome: Outcome


@frozen
class WaveStarted:
    """The first task of the wave may start."""

    run_id: str
    wave: int


@frozen
class WaveEnded:
    """Every task of the wave has an outcome."""

    run_id: str
    wave: int
    outcome: Outcome


@frozen
class TaskRetryScheduled:
    """An attempt did not succeed and another will follow."""

    run_id: str
    task_id: str
    attempt: int
    """The attempt that did not succeed."""
    delay: float
    """Seconds until the next one."""
    cause: Cause


@frozen
class TaskPutBack:
    """An unfinished task went back to pending; its sessions so far no longer count."""

    run_id: str
    task_id: str
    reason: str
    conversation: str = ""
    """The program's conversation that the next attempts go on with; empty for a new one."""
    waits: bool = False
    """It is to go on by itself when it may: what failed before still counts."""


@frozen
class TaskEnded:
    """A task has its outcome."""

    run_id: str
    task_id: str
    outcome: Outcome
    cause: Cause


@frozen
class TakeoverRequested:
    """A person wants a headless task's conversation in a terminal, as soon as the program has ended its turn."""

    run_id: str
    task_id: str
    conversation: str
    """By the program's own id."""
    who: str = ""
    now: bool = False
    """The turn is interrupted for it."""


@frozen
class HandedBack:
    """A conversation that was taken over goes on headless. One that was not opened yet is not taken over at all."""

    run_id: str
    task_id: str
    prompt: str = ""
    """What the program is told; empty is that it should go on."""
    done: bool = False
    """The person has said that nothing is left to be done."""
    now: bool = False
    """A turn that is under way in the terminal is not waited for."""
    who: str = ""
    reason: str = ""
    """Why, where it was no person who gave it back."""


@frozen
class SessionStarting:
    """Intent: committed before anything is spawned."""

    session_id: str
    name: str
    kind: SessionKind
    backend: ExecutionMode
    boot_id: str
    run_id: str | None = None
    task_id: str | None = None
    attempt: int = 1
    check: int | None = None
    """Index of the check, from 0, for sessions of kind `check`."""
    profile: str = ""
    harness: str = ""
    """Whose word decides how it ended, by the harness's name; empty where only the exit status counts."""
    conversation: str = ""
    """The program's conversation, where it was chosen up front or is gone on with."""
    account: str = ""
    """The account it uses, as its profile says."""
    attended: bool = False
    """It is a headless task's conversation in a terminal, for the person who took it over."""


@frozen
class SessionStarted:
    """The program runs."""

    session_id: str
    pid: int | None = None


@frozen
class SessionStartFailed:
    """The program could not be started; nothing is left behind."""

    session_id: str
    reason: str


@frozen
class SessionNeverStarted:
    """Nothing ran for this intent, and it was made sure that nothing will: the same is begun once more."""

    session_id: str
    reason: str = ""
    """Why there was no room for it on the disk: it waits for that. Empty where recovery found it."""


@frozen
class SessionAdopted:
    """A new supervisor took hold of a live session."""

    session_id: str
    pid: int | None = None


@frozen
class SessionDetached:
    """The session was left running for adoption."""

    session_id: str


@frozen
class StopRequested:
    """The session is to stop: committed before any signal."""

    session_id: str
    reason: StopReason


@frozen
class KillSent:
    """Politeness was over: committed before SIGKILL."""

    session_id: str


@frozen
class SessionUnkillable:
    """The session's processes survived SIGKILL for longer than the bound."""

    session_id: str
    pids: tuple[int, ...]


@frozen
class LeftoversFound:
    """Processes outlived the program that started them."""

    session_id: str
    leftovers: tuple[Leftover, ...]


@frozen
class OutputLost:
    """Bytes of the output are gone, declared rather than hidden."""

    session_id: str
    offset: int
    """Absolute offset from which output is available again."""
    reason: str


@frozen
class EndFound:
    """A session that was taken up had ended before: when its program did. `SessionEnded` follows."""

    session_id: str
    ended_mono: float
    """CLOCK_MONOTONIC seconds of this boot."""


@frozen
class SessionUsed:
    """What a session has used so far. Each takes the place of the one before, so that none counts twice."""

    session_id: str
    usage: Usage
    day: str
    """The day on which what is new of it counts: ISO 8601, in the zone of `[budgets]`."""
    turns: int = 0
    seconds: float = 0.0
    """Of running, without the time that was waited for people."""
    conversation: str = ""
    """The conversation it belongs to, where the program told it."""


@frozen
class SessionConcluded:
    """What a session's program said of its own end; `SessionEnded` follows."""

    session_id: str
    outcome: Outcome
    failure: Failure | None = None
    conversation: str = ""
    """The id by which the program resumes it, where it has told one."""
    usage: Usage = Usage()
    """What the program told of it, unknown where it has not."""
    model: str = ""


@frozen
class SessionEnded:
    """The program has ended and nothing of its tree is left running unreported."""

    session_id: str
    exit: ExitStatus
    output_bytes: int = 0
    tail: str = ""
    """The last lines of the output, for causes."""


@frozen
class SessionLost:
    """The session's fate can no longer be learnt."""

    session_id: str
    reason: str


@frozen
class PromptDelivering:
    """Intent: committed before the prompt is typed into the session's terminal, which happens once at the most."""

    session_id: str
    file: str = ""
    """Where the prompt is, if it is too long to be typed: then a line that says so is typed."""


@frozen
class PromptDelivered:
    """The session has taken the prompt."""

    session_id: str
    verified: bool = True
    """Its screen showed that; else there are no rules by which that could be seen."""


@frozen
class DeliveryFailed:
    """A text was not seen to be taken. It is not typed a second time."""

    session_id: str
    reason: str
    screen: str = ""
    """What the terminal showed last."""
    prompt: bool = True
    """Whether the text was the session's prompt."""


@frozen
class ScreenSeen:
    """What a session's screen shows has become something else, and stayed so for a moment."""

    session_id: str
    screen: str
    """A state of `kasmos.screens`: ready, working, dialog and so on; empty when nothing can be said."""
    note: str = ""
    """What a person should know: why something waits."""


@frozen
class InputAwaited:
    """A process of a session was seen to wait for input that nobody gives; or, without words, it is so no more."""

    session_id: str
    what: str = ""
    """Who waits for what, for people."""
    pid: int | None = None
    source: WaitSource | None = None


@frozen
class ApprovalRequested:
    """A session asks for a yes or no, or for an answer."""

    session_id: str
    approval_id: str
    ask: Ask
    why: str = ""
    """Why it is for a person to answer; the verdict's sentence where a rule answers."""
    waits: bool = True
    """Whether it waits for a person; if not, its answer follows in the same commit."""


@frozen
class ApprovalResolved:
    """The answer is known. It has not been sent yet."""

    session_id: str
    approval_id: str
    answer: Answer
    by: ResolvedBy
    who: str = ""
    """The rules' ids, or the person's name."""
    reason: str = ""


@frozen
class ApprovalSending:
    """Intent: committed before the answer is given to the session, which happens once at the most."""

    session_id: str
    approval_id: str


@frozen
class ApprovalDelivered:
    """The session has taken the answer."""

    session_id: str
    approval_id: str


@frozen
class ApprovalWithdrawn:
    """It is asked no more, or the answer could not be delivered; what was answered had no effect that is known."""

    session_id: str
    approval_id: str
    reason: str


SupervisorEvent = SupervisorStarted | SupervisorStopped | AccessRefused | EventsPruned | AccountParked | AccountReleased

RunEvent = (
    RunStarted
    | RunContinued
    | RunInterrupted
    | RunCancelRequested
    | RunParked
    | RunAdvanced
    | RunReopened
    | RunEnded
    | WaveStarted
    | WaveEnded
    | TaskRetryScheduled
    | TaskPutBack
    | TaskEnded
    | TakeoverRequested
    | HandedBack
)

SessionEvent = (
    SessionStarting
    | SessionStarted
    | SessionStartFailed
    | SessionNeverStarted
    | SessionAdopted
    | SessionDetached
    | StopRequested
    | KillSent
    | SessionUnkillable
    | LeftoversFound
    | OutputLost
    | EndFound
    | SessionUsed
    | SessionConcluded
    | SessionEnded
    | SessionLost
    | PromptDelivering
    | PromptDelivered
    | DeliveryFailed
    | ScreenSeen
    | InputAwaited
    | ApprovalRequested
    | ApprovalResolved
    | ApprovalSending
    | ApprovalDelivered
    | ApprovalWithdrawn
)

Event = SupervisorEvent | RunEvent | SessionEvent


@frozen
class Record:
    """An event in the journal."""

    seq: int
    """Its number: strictly growing, never reused."""
    at: float
    """Wall-clock instant, seconds since the epoch (UTC). For people; never for durations."""
    mono: float
    """CLOCK_MONOTONIC seconds; comparable between processes of one boot."""
    event: Event
