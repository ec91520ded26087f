"""Merged settings to the configuration, and what is only wrong when all of it is seen together."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping
from typing import Any, TypeVar

import attrs

from kasmos.config.keys import BUILT_IN, RLIMITS, Path
from kasmos.config.layers import Findings, Settings
from kasmos.config.lookup import default_of
from kasmos.config.origin import Origin, OriginKind
from kasmos.config.schema import Config, Daemon, Logs, Orchestration, Retention
from kasmos.model.approval import Rule
from kasmos.model.budget import Budgets, Limit
from kasmos.model.profile import AgentProfile, ExecutionMode, Limits, PromptMode, RestartPolicy, StopPolicy, WhenDone
from kasmos.model.usage import Price, Shortfall
from kasmos.model.wording import did_you_mean

T = TypeVar("T")

_DEFAULT_AGENT: Path = ("orchestration", "default_agent")
_IMPLEMENTING: Path = ("phases", "implementing")
_OURS = re.compile(r"\{(effort|temperature)\}")


def assemble(settings: Settings, environ: Mapping[str, str], findings: Findings) -> Config | None:
    """Build the configuration; None when a mistake was noted that leaves nothing to build."""
    judge_state_root(settings, findings)
    names = list(dict.fromkeys([*(path[1] for path in settings if path[0] == "agents"), *findings.agents]))
    agents = {name: _Agent(name, settings, environ, findings).profile() for name in names}
    _inherit_default_agent(settings, agents)
    _judge_agent_names(settings, agents, findings)
    _judge_tokens(settings, findings)
    judge_zone(settings, findings)
    if findings.mistakes:
        return None
    return Config(
        agents={name: profile for name, profile in agents.items() if profile is not None},
        orchestration=_table(Orchestration, ("orchestration",), settings),
        logs=_table(Logs, ("logs",), settings),
        daemon=_table(Daemon, ("daemon",), settings),
        retention=_table(Retention, ("retention",), settings),
        budgets=_budgets(settings),
        prices={
            name: _table(Price, ("prices", name), settings, ("prices", "*"))
            for name in _names_in(settings, ("prices",))
        },
        phases={path[1]: str(said.value) for path, said in settings.items() if path[0] == "phases"},
        state_root=_value(settings, ("state_root",)),
    )


def _value(settings: Settings, path: Path, pattern: Path | None = None) -> Any:
    return settings[path].value if path in settings else default_of(pattern or path)


def _table(make: type[T], path: Path, settings: Settings, pattern: Path | None = None) -> T:
    """An attrs class whose fields are the keys of a table."""
    fields = [field.name for field in make.__attrs_attrs__]  # type: ignore[attr-defined]
    return make(**{name: _value(settings, (*path, name), (*(pattern or path), name)) for name in fields})


def _names_in(settings: Settings, path: Path) -> list[str]:
    """Names that are the user's choice, in a table."""
    depth = len(path)
    return list(dict.fromkeys(one[depth] for one in settings if one[:depth] == path and len(one) > depth))


def _budgets(settings: Settings) -> Budgets:
    def by_name(what: str) -> dict[str, Limit]:
        path: Path = ("budgets", what)
        return {name: _table(Limit, (*path, name), settings, (*path, "*")) for name in _names_in(settings, path)}

    return Budgets(
        daily=_value(settings, ("budgets", "daily")),
        zone=_value(settings, ("budgets", "zone")),
        per_run=_table(Limit, ("budgets", "per_run"), settings),
        per_task=_table(Limit, ("budgets", "per_task"), settings),
        agents=by_name("agents"),
        accounts=by_name("accounts"),
    )


class _Agent:
    """One agent's settings on their way to a profile."""

    def __init__(self, name: str, settings: Settings, environ: Mapping[str, str], findings: Findings) -> None:
        self._name = name
        self._path: Path = ("agents", name)
        self._settings = settings
        self._environ = environ
        self._findings = findings

    def profile(self) -> AgentProfile | None:
        """The profile; None when it has no program."""
        self._judge_backoff()
        if (*self._path, "program") not in self._settings:
            self._judge_missing_program()
            return None
        program, flags = self._command()
        profile = AgentProfile(
            name=self._name,
            program=program,
            flags=flags,
            model=self._get("model"),
            effort=None if self._wants("effort") else self._get("effort"),
            execution_mode=self._get("execution_mode"),
            output=self._get("output"),
            leftovers=self._get("leftovers"),
            prompt=self._get("prompt"),
            typed_max=self._get("typed_max"),
            env={path[3]: said.value for path, said in self._below("env").items()},
            env_pass=self._get("env_pass"),
            timeout=self._get("timeout"),
            stop=StopPolicy(self._get("stop_signal") or "", self._get("stop_grace"), self._get("kill_grace")),
            restart=_table(RestartPolicy, (*self._path, "restart"), self._settings, ("agents", "*", "restart")),
            retry_lost=self._get("retry_lost"),
            enabled=self._get("enabled"),
            limits=self._limits(),
            permission_default=self._get("permission_default"),
            rules=self._rules(),
            approval_timeout=self._get("approval_timeout"),
            on_unanswered=self._get("on_unanswered"),
            account=self._get("account"),
            start_interval=self._get("start_interval"),
            harness=self._get("harness"),
            accept=tuple(map(Shortfall, self._get("accept"))),
            when_done=self._get("when_done"),
            exit_grace=self._get("exit_grace"),
            handshake_timeout=self._get("handshake_timeout"),
        )
        self._judge_placeholders(profile)
        return profile

    def _get(self, *names: str) -> Any:
        return _value(self._settings, (*self._path, *names), ("agents", "*", *names))

    def _below(self, table: str) -> dict[Path, Any]:
        prefix = (*self._path, table)
        return {path: said for path, said in self._settings.items() if path[:3] == prefix and len(path) == 4}

    def _origin(self, *names: str) -> Origin:
        return self._settings[(*self._path, *names)].origin

    def _limits(self) -> Limits:
        said = {path[3]: setting.value for path, setting in self._below("limits").items()}
        rlimits = {name: said[name] for name in RLIMITS if name in said}
        return Limits(nice=said.get("nice"), ionice=said.get("ionice"), rlimits=rlimits)

    def _rules(self) -> tuple[Rule, ...]:
        """The rules, with the home directory filled in."""
        home = self._environ.get("HOME", "").rstrip("/")
        rules: tuple[Rule, ...] = self._get("rules")
        return tuple(
            attrs.evolve(rule, path=home + rule.path[1:]) if home and rule.path and rule.path.startswith("~/") else rule
            for rule in rules
        )

    def _wants(self, name: str) -> bool:
        """Whether the command has a place for this value."""
        return any(f"{{{name}}}" in word for word in (*self._get("program"), *self._get("flags")))

    def _command(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Program and flags, with what is fixed in them filled in."""
        program, flags = tuple(self._get("program")), tuple(self._get("flags"))
        home = self._environ.get("HOME", "")
        if program[0].startswith("~/") and home:
            program = (home.rstrip("/") + program[0][1:], *program[1:])
        values = {"effort": self._get("effort"), "temperature": self._get("temperature")}
        wanted = {name for word in (*program, *flags) for name in _OURS.findall(word)}
        for name, value in values.items():
            if value is None and name in wanted:
                where = "flags" if (*self._path, "flags") in self._settings else "program"
                cure = f"set {name}, or take {{{name}}} out"
                self._findings.mistake(
                    self._origin(where), (*self._path, where), f"has {{{name}}}, and {name} is not set", cure
                )
            elif value is not None and name not in wanted and name != "effort":
                self._warn_unused(name)
        filled = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in values.items()}
        return (
            tuple(_OURS.sub(lambda match: filled[match[1]], word) for word in program),
            tuple(_OURS.sub(lambda match: filled[match[1]], word) for word in flags),
        )

    def _warn_unused(self, name: str) -> None:
        self._findings.warn(
            self._origin(name),
            (*self._path, name),
            f'has no effect: flags has no {{{name}}}; add it as the program wants it, such as "--{name}", "{{{name}}}"',
        )

    def _judge_missing_program(self) -> None:
        if {self._path, (*self._path, "program")} & self._findings.failed.keys():
            return
        origin = self._findings.agents.get(self._name)
        if origin is None:  # spoken of by a flag only
            origin = next(said.origin for path, said in self._settings.items() if path[:2] == self._path)
        known = {path[1] for path in self._settings if path[0] == "agents" and path[-1] == "program"}
        cure = did_you_mean(self._name, known) or f'such as program = "{self._name}"'
        self._findings.mistake(origin, self._path, "has no program", cure)

    def _judge_backoff(self) -> None:
        first, longest = self._get("restart", "backoff"), self._get("restart", "backoff_max")
        path = (*self._path, "restart", "backoff")
        if first > longest and path not in self._settings:
            path = (*self._path, "restart", "backoff_max")
        if first > longest:
            self._findings.mistake(
                self._settings[path].origin, path, f"backoff ({first:g} s) is longer than backoff_max ({longest:g} s)"
            )

    def _judge_placeholders(self, profile: AgentProfile) -> None:
        words = (*profile.program, *profile.flags)
        if profile.prompt is PromptMode.STDIN and profile.execution_mode is ExecutionMode.TMUX:
            where = next(
                (one for one in ("prompt", "execution_mode") if (*self._path, one) in self._settings), "prompt"
            )
            self._findings.mistake(
                self._origin(where),
                (*self._path, where),
                'in tmux standard input is the terminal, so prompt = "stdin" cannot be',
                'prompt = "argument" or "file"',
            )
        if profile.prompt is PromptMode.TYPE and profile.execution_mode is not ExecutionMode.TMUX:
            self._findings.mistake(
                self._origin("prompt"),
                (*self._path, "prompt"),
                'a prompt is typed into a terminal, so prompt = "type" needs execution_mode = "tmux"',
                'execution_mode = "tmux"',
            )
        if profile.when_done is WhenDone.LEAVE and profile.prompt is not PromptMode.TYPE:
            self._findings.mistake(
                self._origin("when_done"),
                (*self._path, "when_done"),
                'only of a program whose prompt is typed is the end of its turn seen, so when_done = "leave" cannot be',
                'prompt = "type", in execution_mode = "tmux"',
            )
        if profile.prompt is not PromptMode.ARGUMENT and any("{prompt}" in word for word in words):
            where = "flags" if (*self._path, "flags") in self._settings else "program"
            self._findings.warn(
                self._origin(where),
                (*self._path, where),
                f'has {{prompt}}, and prompt = "{profile.prompt}" gives the prompt once more',
            )


def _inherit_default_agent(settings: Settings, agents: Mapping[str, AgentProfile | None]) -> None:
    """Let the phase `implementing` name the default agent, unless something else does."""
    said = settings.get(_IMPLEMENTING)
    if said is None or _DEFAULT_AGENT in settings:
        return
    profile = agents.get(str(said.value))
    if profile is not None and profile.enabled:
        settings[_DEFAULT_AGENT] = said


def _judge_agent_names(settings: Settings, agents: Mapping[str, AgentProfile | None], findings: Findings) -> None:
    for path, said in settings.items():
        if path != _DEFAULT_AGENT and path[0] != "phases":
            continue
        name = str(said.value)
        if name not in agents:
            cure = did_you_mean(name, agents) or _how_to_add(name, agents)
            findings.mistake(said.origin, path, f'there is no agent "{name}"', cure)
            continue
        profile = agents[name]
        if profile is not None and not profile.enabled:
            if path == _DEFAULT_AGENT:
                cure = "name another, or set enabled = true in its profile"
                findings.mistake(said.origin, path, f'the agent "{name}" is disabled', cure)
            else:
                findings.warn(said.origin, path, f'names the agent "{name}", which is disabled')


def _how_to_add(name: str, agents: Mapping[str, object]) -> str:
    cure = f"add [agents.{name}]; there is {', '.join(agents)}"
    built_in = {path[1] for path in BUILT_IN}
    return cure if set(agents) - built_in else f"{cure}; `kas config init` writes a file with agents to begin with"


def _judge_tokens(settings: Settings, findings: Findings) -> None:
    """Refuse what would leave open who may do what."""
    admin, readonly = (settings.get(("daemon", f"http_{role}_token")) for role in ("admin", "readonly"))
    if admin is not None and readonly is not None and admin.value == readonly.value:
        # Whoever may only look could do everything.
        problem = "is the same as http_admin_token"
        findings.mistake(readonly.origin, ("daemon", "http_readonly_token"), problem, "two different tokens")


def judge_zone(settings: Settings, findings: Findings) -> None:
    """Note a time zone that this machine does not know."""
    said = settings.get(("budgets", "zone"))
    if said is None or said.value in ("local", "UTC"):
        return
    try:
        zoneinfo.ZoneInfo(str(said.value))
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        problem = f'there is no time zone "{said.value}" on this machine'
        findings.mistake(said.origin, ("budgets", "zone"), problem, '"local", "UTC", or one such as "Europe/Berlin"')


def judge_state_root(settings: Settings, findings: Findings) -> None:
    """Note a state root that is another directory for each working directory."""
    said = settings.get(("state_root",))
    if said is None or str(said.value).startswith(("/", "~")):
        return
    if said.origin.kind is OriginKind.VARIABLE:
        # It would be another directory for each working directory: two supervisors, and none knows of the other.
        findings.mistake(said.origin, ("state_root",), "must be an absolute path")
