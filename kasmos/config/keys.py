"""The one table of what a configuration can say: key, kind, default, and one line of why.

A path is a tuple of names in which `*` stands for any name: an agent's, a phase's, a variable's. Defaults are
written as they would be in a file. `[tmux]` will be a further table; until then it is a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping

from kasmos.config.addresses import Address, Addresses
from kasmos.config.kinds import (
    LARGEST_INTEGER,
    Anything,
    Choice,
    Count,
    Duration,
    Flag,
    Kind,
    Number,
    Signal,
    Size,
    Text,
    Whole,
)
from kasmos.config.lists import Command, WordOrWords, Words
from kasmos.config.rules import Rules
from kasmos.config.schema import AuthMode, LogFormat, LogLevel, OnStop
from kasmos.model.approval import OnUnanswered, PermissionDefault
from kasmos.model.plan import OnFailure
from kasmos.model.profile import (
    ExecutionMode,
    LeftoverPolicy,
    Leftovers,
    OutputMode,
    PromptMode,
    RestartCondition,
    WhenDone,
)
from kasmos.model.session import CgroupUse
from kasmos.model.usage import Shortfall
from kasmos.model.value import frozen

Path = tuple[str, ...]


@frozen
class Key:
    """One key that can be set."""

    path: Path
    kind: Kind
    why: str
    """One line: what it decides."""
    default: object = None
    """As in a file; None where there is none."""
    example: str = ""
    """A TOML value to show where there is no default."""
    variable: str = ""
    """The environment variable that sets it."""
    flag: str = ""
    """The command-line flag that sets it."""
    secret: bool = False
    """Values are never printed."""
    former: str = ""
    """Not a key of ours: existing files may have it, and this is what a warning says about it."""
    moved_to: Path = ()
    """What a former key is read as."""


@frozen
class Table:
    """One table of keys."""

    path: Path
    why: str
    name_rule: Text | None = None
    """What the names in it must be, where they are the user's choice."""
    short: str = ""
    """The key that a plain value in the table's place sets."""
    former: bool = False
    """Not a table of ours: existing files may have it."""


AGENT_NAME = Text("a name of letters, digits, `.`, `_` and `-`", r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
PHASE_NAME = Text("a name of letters, digits, `_` and `-`", r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_OWN = "SESSION_ID|MANAGED|PROJECT|TASK|WAVE|PEERS|ANCESTORS|CONTEXT"
VARIABLE_NAME = Text(
    "letters, digits and `_`, and none that kasmos sets itself", rf"(?!KASMOS_(?:{_OWN})$)[A-Za-z_][A-Za-z0-9_]*"
)

AGENT: Path = ("agents", "*")
"""The table of one agent."""
MODEL_NAME = Text("a model's name, without blanks", r"[^\s\x00-\x1f]{1,200}")
_PRICE: Path = ("prices", "*")
_BUDGETS: tuple[tuple[Path, str], ...] = (
    (("budgets", "per_run"), "each run"),
    (("budgets", "per_task"), "each task, of all its attempts together"),
    (("budgets", "agents", "*"), "this agent for a day"),
    (("budgets", "accounts", "*"), "this account for a day"),
)
_RESTART: Path = (*AGENT, "restart")
_LIMITS: Path = (*AGENT, "limits")


def _leftovers(said: object) -> Leftovers:
    if isinstance(said, LeftoverPolicy):
        return Leftovers(said)
    # The kernel keeps 15 bytes of a process's name, and these are compared with what it keeps.
    names = (str(name).encode()[:15].decode(errors="ignore") for name in said) if isinstance(said, tuple) else ()
    return Leftovers(LeftoverPolicy.STOP, tuple(names))


def _budget_variable(path: Path, unit: str) -> str:
    """Where no name of the user's is part of the key, `KASMOS_BUDGET_PER_RUN_MONEY` and its like."""
    return "" if "*" in path else f"KASMOS_BUDGET_{path[-1].upper()}_{unit.upper()}"


TABLES: tuple[Table, ...] = (
    Table((), "A supervisor for agent programs."),
    Table(("orchestration",), "How runs go, where neither the plan nor the command line says otherwise."),
    Table(("logs",), "What is kept of what programs write."),
    Table(("daemon",), "The daemon: `kas daemon start`. Nothing of it concerns `kas run`."),
    Table(("retention",), "What a daemon keeps of what is over; `kas gc` goes by the same."),
    Table(
        ("budgets",),
        "What may be spent. Budgets nest; a day begins at midnight. Where the cost is unknown, money limits nothing.",
    ),
    *(Table(path, f"Budget of {whose}; a plain number is `money`.", short="money") for path, whose in _BUDGETS),
    Table(("budgets", "agents"), "By agent.", name_rule=AGENT_NAME),
    Table(("budgets", "accounts"), "By account.", name_rule=AGENT_NAME),
    Table(("prices",), "What models cost, for programs that do not say it; quote the names.", name_rule=MODEL_NAME),
    Table(_PRICE, "USD for a million tokens."),
    Table(
        ("phases",),
        "Which agent does which phase of the work; `implementing` is the default agent of plans.",
        name_rule=PHASE_NAME,
    ),
    Table(("agents",), "Agent profiles: named recipes for running one program.", name_rule=AGENT_NAME),
    Table(AGENT, "A recipe for running one program. `shell` is built in and runs a task's `sh` block."),
    Table((*AGENT, "env"), "Variables added to the program's environment; never printed.", name_rule=VARIABLE_NAME),
    Table(
        _RESTART,
        "The pauses between the attempts of a task, and how many are too many.",
        short="condition",
    ),
    Table(_LIMITS, "Resource limits of the program; what is not said is as the supervisor has it."),
    Table(("ui",), "Of other programs that read this file.", former=True),
    Table(("telemetry",), "Of other programs that read this file.", former=True),
)

KEYS: tuple[Key, ...] = (
    Key(
        ("state_root",),
        Text(),
        "Where state is kept; relative to the project. The default is the project's own directory in $XDG_STATE_HOME.",
        example='"/var/lib/kasmos/NAME"',
        variable="KASMOS_STATE_ROOT",
        flag="--state-root",
    ),
    # --- [orchestration]
    Key(
        ("orchestration", "max_concurrent"),
        Whole(1, 10_000),
        "How many tasks run side by side.",
        4,
        variable="KASMOS_MAX_CONCURRENT",
        flag="--max-concurrent",
    ),
    Key(
        ("orchestration", "on_failure"),
        Choice(OnFailure),
        "After a failed task: `stop` before the next wave, `continue`, or `fail_fast` (stop its siblings as well).",
        "stop",
        variable="KASMOS_ON_FAILURE",
        flag="--on-failure",
    ),
    Key(
        ("orchestration", "auto_advance_waves"),
        Flag(),
        "Whether the next wave begins by itself; if not, it waits for `kas advance`.",
        True,
        variable="KASMOS_AUTO_ADVANCE_WAVES",
    ),
    Key(
        ("orchestration", "default_agent"),
        AGENT_NAME,
        "The agent of tasks that name none.",
        example='"claude"',
        variable="KASMOS_DEFAULT_AGENT",
        flag="--agent",
    ),
    Key(
        ("orchestration", "task_timeout"),
        Duration(),
        "How long an attempt may take where neither the task nor its agent says; without it, for ever.",
        example='"45m"',
        variable="KASMOS_TASK_TIMEOUT",
        flag="--task-timeout",
    ),
    Key(
        ("orchestration", "retries"),
        Whole(0, 1000),
        "How often a failed task is tried again; [agents.NAME.restart] has the pauses.",
        0,
        variable="KASMOS_RETRIES",
    ),
    Key(
        ("orchestration", "max_queued"),
        Whole(1, 1_000_000),
        "How many tasks that were handed in by themselves may wait; further ones are refused.",
        1000,
        variable="KASMOS_MAX_QUEUED",
    ),
    Key(
        ("orchestration", "cgroups"),
        Choice(CgroupUse),
        "Where each session gets a control group (v2): where one is `delegated` to us, `always`, or `never`.",
        "delegated",
        variable="KASMOS_CGROUPS",
    ),
    # --- [logs]
    Key(
        ("logs", "max_bytes"),
        Size(64 << 10),
        "The newest part of each session's output that is kept on disk; without it, all of it.",
        example='"1GiB"',
        variable="KASMOS_LOGS_MAX_BYTES",
    ),
    Key(
        ("logs", "buffer_bytes"),
        Size(4 << 10, 1 << 30),
        "The newest part of each session's output that is kept in memory.",
        65_536,
        variable="KASMOS_LOGS_BUFFER_BYTES",
    ),
    # --- [daemon]
    Key(
        ("daemon", "listen"),
        Addresses(),
        "Addresses of the HTTP API beside its Unix socket, as HOST:PORT; none unless asked for.",
        [],
        variable="KASMOS_LISTEN",
        flag="--listen",
    ),
    Key(
        ("daemon", "socket"),
        Text(),
        "Path of the API's Unix socket; the default is kas.sock in the state root.",
        example='"/run/kasmos/kas.sock"',
        variable="KASMOS_SOCKET",
        flag="--socket",
    ),
    Key(
        ("daemon", "metrics"),
        Address(),
        "Address of a listener that serves nothing but /metrics, without a token.",
        example='"127.0.0.1:9090"',
        variable="KASMOS_METRICS",
        flag="--metrics",
    ),
    Key(
        ("daemon", "workspace_root"),
        Text(),
        "The directory tasks run in; relative to the project. The default is the project.",
        example='"/srv/work"',
        variable="KASMOS_WORKSPACE_ROOT",
        flag="--workspace-root",
    ),
    Key(
        ("daemon", "max_concurrent"),
        Whole(1, 10_000),
        "How many tasks run side by side; the default is orchestration.max_concurrent.",
        example="8",
        variable="KASMOS_DAEMON_MAX_CONCURRENT",
        flag="--max-concurrent",
    ),
    Key(
        ("daemon", "task_timeout"),
        Duration(),
        "How long an attempt may take; the default is orchestration.task_timeout.",
        example='"10m"',
        variable="KASMOS_DAEMON_TASK_TIMEOUT",
        flag="--task-timeout",
    ),
    Key(
        ("daemon", "on_stop"),
        Choice(OnStop),
        "What a stop does with programs that run: `leave` them to the next daemon, or `stop` them.",
        "leave",
        variable="KASMOS_ON_STOP",
    ),
    Key(
        ("daemon", "drain_timeout"),
        Duration(),
        "How long `kas daemon stop --drain` waits for what runs.",
        "5m",
        variable="KASMOS_DRAIN_TIMEOUT",
        flag="--timeout",
    ),
    Key(
        ("daemon", "http_auth_mode"),
        Choice(AuthMode),
        "TCP: `auto` (a token, but for loopback while none is set), `bearer` (always), `none` (never).",
        "auto",
        variable="KASMOS_HTTP_AUTH_MODE",
        flag="--http-auth-mode",
    ),
    Key(
        ("daemon", "http_admin_token"),
        Text(secret=True),
        "The token of those who may do everything; better in a file.",
        example='"SECRET"',
        variable="KASMOS_HTTP_ADMIN_TOKEN",
        flag="--http-admin-token",
        secret=True,
    ),
    Key(
        ("daemon", "http_admin_token_file"),
        Text(),
        "The file with that token, which counts if both are said; read again when it changes.",
        example='"/etc/kasmos/admin.token"',
        variable="KASMOS_HTTP_ADMIN_TOKEN_FILE",
        flag="--http-admin-token-file",
    ),
    Key(
        ("daemon", "http_readonly_token"),
        Text(secret=True),
        "The token of those who may only look; better in a file.",
        example='"ANOTHER"',
        variable="KASMOS_HTTP_READONLY_TOKEN",
        flag="--http-readonly-token",
        secret=True,
    ),
    Key(
        ("daemon", "http_readonly_token_file"),
        Text(),
        "The file with that token, which counts if both are said; read again when it changes.",
        example='"/etc/kasmos/readonly.token"',
        variable="KASMOS_HTTP_READONLY_TOKEN_FILE",
        flag="--http-readonly-token-file",
    ),
    Key(
        ("daemon", "http_hosts"),
        Words(Text("a host's name", r"[A-Za-z0-9_.-]+"), example='["build.example"]'),
        "TCP: names the API may be asked by, beside addresses and localhost; others are refused.",
        [],
        variable="KASMOS_HTTP_HOSTS",
    ),
    Key(
        ("daemon", "http_origins"),
        Words(Text("an origin", r"https?://[A-Za-z0-9_.:\[\]-]+"), example='["https://board.example"]'),
        "TCP: origins of web pages that may ask; others are refused.",
        [],
        variable="KASMOS_HTTP_ORIGINS",
    ),
    Key(
        ("daemon", "log_format"),
        Choice(LogFormat),
        "The daemon's own log: `json`, `console`, or `auto` (console on a terminal, else json).",
        "auto",
        variable="KASMOS_LOG_FORMAT",
        flag="--log-format",
    ),
    Key(
        ("daemon", "log_level"),
        Choice(LogLevel),
        "What the daemon's own log has: `debug`, `info`, `warning` or `error`, and what is worse.",
        "info",
        variable="KASMOS_LOG_LEVEL",
        flag="--log-level",
    ),
    # --- [retention]
    Key(
        ("retention", "max_age"),
        Duration(),
        "Runs that ended longer ago are forgotten: their events and their sessions' directories.",
        "30d",
        variable="KASMOS_RETENTION_MAX_AGE",
    ),
    Key(
        ("retention", "max_runs"),
        Whole(0, 10_000_000),
        "Of runs that have ended, no more than the newest so many are kept.",
        10_000,
        variable="KASMOS_RETENTION_MAX_RUNS",
    ),
    # --- [budgets]
    Key(
        ("budgets", "daily"),
        Number(0, 1e9),
        "USD that everything together may cost in a day.",
        example="50",
        variable="KASMOS_BUDGET_DAILY",
        flag="--budget-daily",
    ),
    Key(
        ("budgets", "zone"),
        Text("`local`, `UTC`, or a time zone such as `Europe/Berlin`"),
        "Where it is midnight when a day begins: `local`, `UTC`, or a time zone's name.",
        "local",
        variable="KASMOS_BUDGET_ZONE",
    ),
    *(
        Key((*path, unit), kind, why, example=example, variable=_budget_variable(path, unit))
        for path, _ in _BUDGETS
        for unit, kind, why, example in (
            ("money", Number(0, 1e9), "USD.", "5"),
            ("tokens", Whole(0, LARGEST_INTEGER), "Tokens that are read afresh or written.", "2_000_000"),
            ("turns", Whole(0, LARGEST_INTEGER), "Turns of the agent.", "200"),
            ("time", Duration(), "Time of running.", '"2h"'),
        )
    ),
    # --- [prices.MODEL]
    Key((*_PRICE, "input"), Number(0, 1e6), "Tokens read afresh.", example="3"),
    Key((*_PRICE, "output"), Number(0, 1e6), "Tokens written, reasoning included.", example="15"),
    Key((*_PRICE, "cached"), Number(0, 1e6), "Tokens read from the cache; the default is `input`.", example="0.3"),
    Key((*_PRICE, "cache_write"), Number(0, 1e6), "Tokens put into the cache; the default is `input`.", example="3.75"),
    # --- [phases]
    Key(("phases", "*"), AGENT_NAME, "The agent that does this phase.", example='"coder"'),
    # --- [agents.NAME]
    Key(
        (*AGENT, "program"),
        Command(),
        "The program and its leading arguments: shell-style text, or a list. The one key that must be there.",
        example='"claude"',
    ),
    Key(
        (*AGENT, "flags"),
        Words(),
        "Further arguments; {prompt}, {prompt_file}, {script_file}, {model}, {effort}, {temperature} are filled in.",
        [],
    ),
    Key(
        (*AGENT, "harness"),
        Text("the name of a harness", r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"),
        "Which harness knows its program: `claude`, `codex`, ... `generic`; without it, told by the program's name.",
        example='"claude"',
    ),
    Key(
        (*AGENT, "accept"),
        Words(
            Text("`no_result`, `tool_denied`, `empty_answer` or `cut_off`", "|".join(Shortfall)),
            example='["tool_denied"]',
        ),
        "What is no failure although it is missing, where the program's own word decides; see docs/harnesses.md.",
        [],
    ),
    Key(
        (*AGENT, "when_done"),
        Choice(WhenDone),
        'With prompt = "type", when its turn is over: it may `stay`, or has to `leave` after exit_grace: succeeded.',
        "stay",
    ),
    Key(
        (*AGENT, "exit_grace"),
        Duration(),
        "How long it may stay in silence after it has said that it is done; then it is stopped, and has succeeded.",
        "30s",
    ),
    Key(
        (*AGENT, "handshake_timeout"),
        Duration(),
        "How long a program that is asked over its protocol may keep silent until it has opened its session.",
        "2m",
    ),
    Key(
        (*AGENT, "model"),
        Text(),
        "What {model} in flags becomes; a program that is known needs no {model}.",
        example='"opus"',
    ),
    Key(
        (*AGENT, "effort"),
        Text(),
        "What {effort} in flags becomes; a program that is known needs no {effort}.",
        example='"high"',
    ),
    Key((*AGENT, "temperature"), Number(0, 2), "What {temperature} in flags becomes.", example="0.2"),
    Key(
        (*AGENT, "prompt"),
        Choice(PromptMode),
        "How the prompt is given: `argument`, `stdin`, `file`, `script` (its `sh` block is run), or `type` (in tmux).",
        "argument",
    ),
    Key(
        (*AGENT, "typed_max"),
        Size(256, 1 << 20),
        "In tmux: a text to be typed that is longer goes as a file, with a line that says where.",
        32_768,
    ),
    Key(
        (*AGENT, "execution_mode"),
        Choice(ExecutionMode),
        "Where it runs: `headless`, `tmux`, or `scripted` (in memory, for tests).",
        "headless",
    ),
    Key(
        (*AGENT, "output"),
        Choice(OutputMode),
        "Standard output and error: `file`, or `pipe` for programs that reopen /dev/stderr (default for scripts).",
        example='"file"',
    ),
    Key(
        (*AGENT, "leftovers"),
        WordOrWords(LeftoverPolicy, Words(Text("the name of a process"), example='["dockerd"]'), _leftovers),
        "Processes that outlive the program: `stop`, `report`, or stop all but a list of names.",
        "stop",
    ),
    Key(
        (*AGENT, "env_pass"),
        Words(Text("a variable's name or a pattern such as `AWS_*`", r"[A-Za-z0-9_*]+"), example='["AWS_*"]'),
        "Variables of the supervisor's own environment that are passed on, by name or pattern.",
        [],
    ),
    Key(
        (*AGENT, "timeout"),
        Duration(),
        "How long an attempt may take; the default is orchestration.task_timeout.",
        example='"1h"',
    ),
    Key(
        (*AGENT, "stop_signal"),
        Signal(),
        "The signal that asks the program to end; the default is the best that is known for it, else SIGTERM.",
        example='"SIGTERM"',
    ),
    Key((*AGENT, "stop_grace"), Duration(zero=True), "How long it may take to end before it is killed.", "10s"),
    Key((*AGENT, "kill_grace"), Duration(), "How long after that it is reported as unkillable.", "5s"),
    Key(
        (*AGENT, "account"),
        AGENT_NAME,
        "The account it uses; agents with the same one share its limits. The default is the agent's name.",
        example='"work"',
    ),
    Key(
        (*AGENT, "start_interval"),
        Duration(zero=True),
        "Least time between two starts on its account, so that parallel logins do not invalidate each other.",
        0,
    ),
    Key(
        (*AGENT, "retry_lost"),
        Flag(),
        "Whether a task is tried again when nobody knows how its last attempt ended.",
        False,
    ),
    Key((*AGENT, "enabled"), Flag(), "Whether tasks may use it.", True),
    Key(
        (*AGENT, "permission_default"),
        Choice(PermissionDefault),
        "A permission that no rule speaks of: `prompt` waits for a person, `bypass` gives it.",
        example='"prompt"',
    ),
    Key(
        (*AGENT, "rules"),
        Rules(),
        "What needs no person: `allow`, `deny` or `ask` for a tool, and a `command` or `path`; see docs/approvals.md.",
        [],
    ),
    Key(
        (*AGENT, "approval_timeout"),
        Duration(),
        "How long an approval waits for a person; without it, for ever.",
        example='"30m"',
    ),
    Key(
        (*AGENT, "on_unanswered"),
        Choice(OnUnanswered),
        "When nobody has answered within approval_timeout: `deny`, or `stop` the task.",
        "deny",
    ),
    Key(
        (*AGENT, "env", "*"),
        Text(empty=True, secret=True),
        "A variable and its value.",
        example='"value"',
        secret=True,
    ),
    # --- [agents.NAME.restart]
    Key(
        (*_RESTART, "condition"),
        Choice(RestartCondition),
        'When: `never`, `on_failure` or `always`. `restart = "never"` is short for it.',
        "on_failure",
    ),
    Key(
        (*_RESTART, "max_restarts"),
        Whole(0, 1_000_000),
        "More than this within `within` are too many: the task has failed.",
        5,
    ),
    Key((*_RESTART, "within"), Duration(), "The time in which restarts are counted.", "10m"),
    Key((*_RESTART, "backoff"), Duration(zero=True), "The pause before the first restart; it doubles.", "1s"),
    Key((*_RESTART, "backoff_max"), Duration(zero=True), "The longest pause.", "1m"),
    Key((*_RESTART, "jitter"), Number(0, 1), "The part of a pause that is left to chance.", 0.1),
    Key(
        (*_RESTART, "quiet_period"),
        Duration(zero=True),
        "How long it must run before the pauses begin from the first again.",
        "1m",
    ),
    # --- [agents.NAME.limits]
    Key((*_LIMITS, "nice"), Whole(-20, 19), "CPU priority: -20 is the highest, 19 the lowest.", example="10"),
    Key(
        (*_LIMITS, "ionice"),
        Text(
            "`idle`, `best-effort` or `best-effort:0` to `:7`, or `realtime:0` to `:7`",
            r"idle|best-effort(?::[0-7])?|realtime:[0-7]",
        ),
        "Disk priority: `idle`, `best-effort:0` (highest) to `best-effort:7`, `realtime:0` to `realtime:7`.",
        example='"idle"',
    ),
    Key((*_LIMITS, "nofile"), Count(), "Open files of each process.", example="4096"),
    Key((*_LIMITS, "nproc"), Count(), "Processes of the user that runs it, all counted.", example="2000"),
    Key((*_LIMITS, "cpu"), Count(), "CPU seconds of each process.", example="3600"),
    Key((*_LIMITS, "as"), Size(0, unlimited=True), "Address space of each process.", example='"8GiB"'),
    Key((*_LIMITS, "data"), Size(0, unlimited=True), "Data segment of each process.", example='"4GiB"'),
    Key((*_LIMITS, "stack"), Size(0, unlimited=True), "Stack of each process.", example='"8MiB"'),
    Key((*_LIMITS, "memlock"), Size(0, unlimited=True), "Locked memory of each process.", example='"64KiB"'),
    Key((*_LIMITS, "fsize"), Size(0, unlimited=True), "Size of each file it writes, its log too.", example='"1GiB"'),
    Key((*_LIMITS, "core"), Size(0, unlimited=True), "Size of core dumps.", example="0"),
    # --- keys of files that exist already and are read by other programs as well
    Key(("plan_store",), Text(), "", former="has no meaning here and is left alone"),
    Key(("telemetry", "*"), Anything(), "", former="has no meaning here: kasmos sends nothing anywhere"),
    Key(("ui", "*"), Anything(), "", former="has no meaning here and is left alone"),
    Key(
        ("ui", "auto_advance_waves"),
        Flag(),
        "",
        former="is read as orchestration.auto_advance_waves; better say it there",
        moved_to=("orchestration", "auto_advance_waves"),
    ),
)

BUILT_IN: Mapping[Path, object] = {
    ("agents", "shell", "program"): ["sh"],
    ("agents", "shell", "prompt"): "script",
}
"""What is said before any file is read, as in a file."""

RLIMITS = ("nofile", "nproc", "cpu", "as", "data", "stack", "memlock", "fsize", "core")
"""Keys of `limits` that are resource limits by their `ulimit` name."""
