"""Sessions as values: what is started, how it is found again, how it ended."""

from __future__ import annotations

import enum
import signal as _signal
from collections.abc import Mapping

import attrs

from kasmos.model.profile import ExecutionMode, Leftovers, Limits, OutputMode, StopPolicy
from kasmos.model.value import frozen


class SessionKind(enum.StrEnum):
    """What a session is for. All kinds are supervised alike."""

    AGENT = "agent"
    CHECK = "check"
    HOOK = "hook"


class StopReason(enum.StrEnum):
    """Why a session was asked to stop."""

    REQUESTED = "requested"
    """A person stopped this session or its task."""
    CANCELLED = "cancelled"
    """Its run was ended for good."""
    TIMEOUT = "timeout"
    """Its time was over."""
    INTERRUPTED = "interrupted"
    """The supervisor was interrupted: the task goes back to pending."""
    FAIL_FAST = "fail_fast"
    """A sibling failed and the run's policy is `fail_fast`."""
    UNANSWERED = "unanswered"
    """It asked, and nobody answered within `approval_timeout`."""
    BUDGET = "budget"
    """What it may spend was spent."""
    SETTLED = "settled"
    """Its program had said that it was done, and did not exit."""
    UNDELIVERED = "undelivered"
    """Its prompt could not be typed."""
    HANDED_OVER = "handed_over"
    """Its turn was interrupted for a person who takes its conversation over."""
    HANDED_BACK = "handed_back"
    """The person has given its conversation back."""


class CgroupUse(enum.StrEnum):
    """Where each session gets a control group of its own. Entering one may take the kernel ten milliseconds."""

    DELEGATED = "delegated"
    """Where a service manager has given us a group to divide."""
    ALWAYS = "always"
    """Wherever we may write."""
    NEVER = "never"


@frozen
class ExitStatus:
    """How a program ended: a code, a signal, or unknown. Three values, never mixed.

    Attributes:
        code: exit code 0 to 255, if it exited.
        signal: signal number, if it was killed by one.
        certain: False where only a shell's word is known (`exit 137` or SIGKILL cannot be told apart).
        out_of_memory: True where the kernel says that it has killed it, because there was no memory left.
    """

    code: int | None = None
    signal: int | None = None
    certain: bool = True
    out_of_memory: bool = False

    @property
    def known(self) -> bool:
        """Whether the program's end is known at all."""
        return self.code is not None or self.signal is not None

    @property
    def succeeded(self) -> bool:
        """True only for a known exit code 0. Unknown is never success."""
        return self.code == 0

    @classmethod
    def from_wait_status(cls, status: int) -> ExitStatus:
        """Read a `wait(2)` status, exact for code and signal."""
        low = status & 0x7F
        return cls(signal=low) if low else cls(code=(status >> 8) & 0xFF)

    @classmethod
    def from_shell(cls, code: int) -> ExitStatus:
        """Read a shell's `$?`, which cannot tell `exit 137` from SIGKILL.

        Returns: a code below 128 for certain; above, the signal that is most likely meant, not certain.
        """
        if code <= 128 or code > 128 + 64:
            return cls(code=code, certain=code <= 128)
        return cls(signal=code - 128, certain=False)

    def __str__(self) -> str:
        sure = "" if self.certain else " (as the shell reported it)"
        if self.signal is not None:
            try:
                name = _signal.Signals(self.signal).name
            except ValueError:
                name = f"signal {self.signal}"
            why = ": the kernel was out of memory for it" if self.out_of_memory else ""
            return f"killed by {name}{sure}{why}"
        if self.code is not None:
            return f"exit {self.code}{sure}"
        return "exit status unknown"


UNKNOWN_EXIT = ExitStatus(certain=False)


@frozen
class SessionSpec:
    """Everything needed to run one program once."""

    id: str
    """Unique on this machine; the `KASMOS_SESSION_ID` of every process of the session."""
    name: str
    """For people: the log's name under `logs/`."""
    argv: tuple[str, ...]
    """`{prompt_file}` and `{script_file}` stand for files in the session's directory."""
    cwd: str
    """Absolute."""
    backend: ExecutionMode = ExecutionMode.HEADLESS
    kind: SessionKind = SessionKind.AGENT
    env: Mapping[str, str] = attrs.field(factory=dict, repr=lambda env: repr(sorted(env)))
    """The whole environment of the program. Values never appear in a repr or in `spec.json`."""
    prompt: str = ""
    """Written to `prompt.md`, byte for byte as UTF-8 (surrogates kept)."""
    script: str | None = None
    """Written to `script.sh` when given."""
    context: str | None = attrs.field(default=None, repr=False)
    """Written to `context.json` when given."""
    stdin_prompt: bool = False
    """Standard input is the prompt file; else `/dev/null`."""
    output: OutputMode = OutputMode.FILE
    leftovers: Leftovers = Leftovers()
    stop: StopPolicy = StopPolicy()
    limits: Limits = Limits()
    buffer_bytes: int = 65_536
    """Size of the in-memory output buffer."""
    max_log_bytes: int | None = None
    """Newest bytes of the log that are kept; None keeps all."""
    run_id: str | None = None
    task_id: str | None = None
    attempt: int = 1
    check: int | None = None
    """Index of the check, from 0, for sessions of kind `check`."""
    profile: str = ""
    profile_digest: str = ""
    harness: str = ""
    """Whose word decides how it ended, by the harness's name; empty where only the exit status counts."""
    conversation: str = ""
    """The program's conversation, where it was chosen up front or is gone on with."""
    attended: bool = False
    """It is a headless task's conversation in a terminal, for the person who took it over."""
    asks: bool = False
    """Whether it asks without a terminal: it has a mailbox, and `{kasmos_mailbox}` in `argv` stands for it."""
    protocol: str = ""
    """The protocol by which the mediator speaks to it (`app_server`, `acp`); empty where nobody has to."""
    handshake_timeout: float = 120.0
    """Seconds of silence a program that is spoken to has until it has opened its session."""
    boot_id: str = ""
    """The boot it was started in; filled in when it is stored."""
    cgroup: str = attrs.field(default="", eq=False)
    """The directory of its control group, where it has one; filled in when it is started."""

    @property
    def has_copier(self) -> bool:
        """Whether a copier stands between the program and its log."""
        return self.output is OutputMode.PIPE or self.backend is ExecutionMode.TMUX


@frozen
class SessionHandle:
    """The serialisable key by which a session is found again after the supervisor is gone."""

    session_id: str
    backend: ExecutionMode = ExecutionMode.HEADLESS
    boot_id: str = ""
    """The boot the session was started in; no process outlives its boot."""
    version: int = 1


@frozen
class Capabilities:
    """What a backend can do. What it cannot, it raises for."""

    interactive: bool = False
    """attach, send_keys, tap_enter, send_permission_response, set_detached_size."""
    adoption: bool = True
    """A live session can be found again by its handle after the supervisor died."""
    detach: bool = True
    """A session can be left running when its scope is left."""
    processes: bool = True
    """Sessions are real processes, with signals and descendants."""
    asks: bool = False
    """The session can be seen asking, and answered: it is an `AskSource` as well."""


class WaitSource(enum.StrEnum):
    """What a process waits for."""

    TERMINAL = "terminal"
    PIPE = "pipe"
    """Its standard input, which is a pipe or a socket."""
    STOPPED = "stopped"
    """To be continued (SIGCONT): it was stopped by a signal."""


@frozen
class InputWait:
    """A process of a session that waited for input at the moment it was looked at."""

    pid: int
    start: int
    """Start time, by which it is not mistaken for another one."""
    name: str
    source: WaitSource
    ticks: int
    """Time of the processor it has used, in the kernel's ticks."""
    born_at: float
    """Wall clock."""
    is_program: bool = False
    """Whether it is the session's program itself."""
    alone: bool = False
    """Nobody but itself could give it something."""
    holder: str = ""
    """Who could, in words."""
    held_above: bool = False
    """All who could are processes that it descends from."""
    stalemate: bool = False
    """They do nothing before one of their children has ended."""


@frozen
class Leftover:
    """A process that outlived the program that started it."""

    pid: int
    name: str
    """As in `/proc/PID/comm`."""
    action: str
    """`stopped`, `reported` or `unkillable`."""
    reason: str = ""
    """How it was recognised, or why it was spared."""
