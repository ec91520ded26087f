"""Agent profiles: named recipes for running one program.

A profile says what is run and under which policies. It knows nothing of tasks,
of plans, or of how a backend does its work.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from kasmos.model.approval import ApprovalPolicy, OnUnanswered, PermissionDefault, Rule
from kasmos.model.usage import Shortfall
from kasmos.model.value import frozen


class ExecutionMode(enum.StrEnum):
    """Which backend a session runs in."""

    HEADLESS = "headless"
    TMUX = "tmux"
    SCRIPTED = "scripted"


class PromptMode(enum.StrEnum):
    """How the program is given its prompt."""

    ARGUMENT = "argument"
    """As one argument: `{prompt}` in `flags`, else appended as the last argument."""
    STDIN = "stdin"
    """As its standard input, which then ends."""
    FILE = "file"
    """As the path of a file: `{prompt_file}` in `flags`, else appended as the last argument."""
    SCRIPT = "script"
    """The task's first fenced `sh` block, run as `program SCRIPT_FILE`."""
    TYPE = "type"
    """Typed into its terminal once its screen says that it takes a prompt; only in tmux."""


class OutputMode(enum.StrEnum):
    """What the program's standard output and error are."""

    FILE = "file"
    """The log file itself. Nothing stands between, so nothing can block or break."""
    PIPE = "pipe"
    """A pipe with a copier that survives the supervisor; for programs that reopen `/dev/stderr`."""


class WhenDone(enum.StrEnum):
    """What becomes of a program in a terminal when the turn is over that its prompt began."""

    STAY = "stay"
    """It stays, for a person to go on with; its task ends when the program does."""
    LEAVE = "leave"
    """It is sent away, and has succeeded."""


class LeftoverPolicy(enum.StrEnum):
    """What happens to processes that outlive the program that started them."""

    STOP = "stop"
    REPORT = "report"


class RestartCondition(enum.StrEnum):
    """When a program that has ended is started again."""

    NEVER = "never"
    ON_FAILURE = "on_failure"
    ALWAYS = "always"


@frozen
class Leftovers:
    """The policy for processes left behind, and program names that are always left alone."""

    policy: LeftoverPolicy = LeftoverPolicy.STOP
    spare: tuple[str, ...] = ()
    """Process names (as in `/proc/PID/comm`) that are reported and never stopped."""


@frozen
class RestartPolicy:
    """When and how often a child is started again.

    Back-off doubles from `backoff` to `backoff_max` and is spread by `jitter`; it starts
    again from the bottom only after the child has run for `quiet_period`. More than
    `max_restarts` within `within` ends the child, whatever the starts did in between
    (the OTP restart intensity).
    """

    condition: RestartCondition = RestartCondition.ON_FAILURE
    max_restarts: int = 5
    """Restarts allowed within `within`."""
    within: float = 600.0
    """Seconds."""
    backoff: float = 1.0
    """Seconds before the first restart."""
    backoff_max: float = 60.0
    """Seconds; the cap of the doubling."""
    jitter: float = 0.1
    """Fraction of the delay that is spread at random, 0 to 1."""
    quiet_period: float = 60.0
    """Seconds of running after which the back-off starts from the bottom again."""


@frozen
class StopPolicy:
    """How a session is stopped: politely, then firmly, always within a bound."""

    stop_signal: str = ""
    """Sent first, together with SIGCONT; empty means the one that is best for the program, else SIGTERM."""
    stop_grace: float = 10.0
    """Seconds between the first signal and SIGKILL."""
    kill_grace: float = 5.0
    """Seconds after SIGKILL until the session is reported unkillable."""

    @property
    def first_signal(self) -> str:
        """The signal in effect."""
        return self.stop_signal or "SIGTERM"


@frozen
class Limits:
    """Resource limits given to the program before it starts. None means: as the supervisor has it."""

    nice: int | None = None
    """-20 (most favourable) to 19."""
    ionice: str | None = None
    """`idle`, `best-effort`, `best-effort:0` to `best-effort:7`, or `realtime:0` to `realtime:7`."""
    rlimits: Mapping[str, int] = attrs.field(factory=dict)
    """Soft and hard limit by name as in `ulimit`: `nofile`, `nproc`, `as`, `cpu`, `fsize`, `core`,
    `data`, `stack`, `memlock`; in bytes, seconds or counts as in `setrlimit(2)`."""


@frozen
class AgentProfile:
    """A named recipe for running one program with a prompt."""

    name: str
    program: tuple[str, ...]
    """The program and its leading arguments."""
    flags: tuple[str, ...] = ()
    """Further arguments; `{prompt}`, `{prompt_file}` and `{model}` are replaced."""
    model: str | None = None
    execution_mode: ExecutionMode = ExecutionMode.HEADLESS
    output: OutputMode | None = None
    """None means `pipe` for `prompt = "script"` and `file` otherwise."""
    leftovers: Leftovers = Leftovers()
    prompt: PromptMode = PromptMode.ARGUMENT
    typed_max: int = 32_768
    """Bytes; a text to be typed that is longer goes as a file, with a line that says where."""
    env: Mapping[str, str] = attrs.field(factory=dict, repr=lambda env: repr(sorted(env)))
    """Added to the program's environment. Values never appear in a repr."""
    env_pass: tuple[str, ...] = ()
    """Names (or `PREFIX_*`) passed on from the supervisor's own environment."""
    timeout: float | None = None
    """Seconds an attempt may take; None means the default of `[orchestration]`."""
    stop: StopPolicy = StopPolicy()
    restart: RestartPolicy = RestartPolicy()
    retry_lost: bool = False
    """Whether an attempt whose fate is unknown may be tried again."""
    enabled: bool = True
    limits: Limits = Limits()
    permission_default: PermissionDefault | None = None
    """What is given to tools that no rule speaks of; None is `prompt` for asks that come, and leaves the program
    as it is."""
    rules: tuple[Rule, ...] = ()
    """What is answered without a person."""
    approval_timeout: float | None = None
    """Seconds a person has to answer; None is for ever."""
    on_unanswered: OnUnanswered = OnUnanswered.DENY
    account: str | None = None
    """The account it uses; None means one of its own, with its name."""
    start_interval: float = 0.0
    """Least seconds between two starts on its account."""

    @property
    def approvals(self) -> ApprovalPolicy:
        """How what its sessions ask is answered."""
        default = self.permission_default or PermissionDefault.PROMPT
        return ApprovalPolicy(self.rules, default, self.approval_timeout, self.on_unanswered)

    effort: str | None = None
    """How hard its model thinks, in the program's own words; already filled in where `flags` have a place for it."""
    harness: str | None = None
    """What is known of its program; None means: told by the program's name."""
    accept: tuple[Shortfall, ...] = ()
    """What may be missing although the program exits 0."""
    when_done: WhenDone = WhenDone.STAY
    """What becomes of it when its turn is over, where its prompt is typed."""
    exit_grace: float = 30.0
    """Seconds of silence it may still run after it has said that it is done."""
    handshake_timeout: float = 120.0
    """Seconds it may keep silent until it has opened its session, where it is spoken to over its protocol."""

    @property
    def metered(self) -> bool:
        """Whether what its sessions use counts: all but scripts, which use no model."""
        return self.prompt is not PromptMode.SCRIPT

    @property
    def account_name(self) -> str:
        """The account in effect."""
        return self.account or self.name

    @property
    def output_mode(self) -> OutputMode:
        """The output mode in effect."""
        if self.output is not None:
            return self.output
        return OutputMode.PIPE if self.prompt is PromptMode.SCRIPT else OutputMode.FILE
