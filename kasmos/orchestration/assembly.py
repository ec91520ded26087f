"""From a plan's task and its profile to the sessions that are run for it."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import attrs

import kasmos
from kasmos.config.schema import profile_digest
from kasmos.exceptions import ConfigError, Mistake
from kasmos.harnesses.catalog import recognise
from kasmos.harnesses.command import Continuation, limit_arguments
from kasmos.harnesses.equip import Equipped, equip, equip_attended, harness_of, judge_profile
from kasmos.model.approval import ApprovalPolicy
from kasmos.model.budget import Limit
from kasmos.model.plan import PlanTask
from kasmos.model.profile import AgentProfile, ExecutionMode, OutputMode, PromptMode, RestartPolicy, WhenDone
from kasmos.model.session import SessionKind, SessionSpec
from kasmos.model.usage import Price
from kasmos.model.view import RunView, SessionView, TaskView, World
from kasmos.orchestration.budgets import Place, allowance, purses
from kasmos.orchestration.kitchen import Kitchen
from kasmos.orchestration.modes import agent_name, mode_of
from kasmos.plans import compile_task
from kasmos.sessions.environment import child_environment
from kasmos.sessions.protocol import Backend
from kasmos.sessions.registry import require_backend
from kasmos.supervision.handover import Thread
from kasmos.supervision.recipe import Hindrance
from kasmos.telemetry.spans import traceparent

if TYPE_CHECKING:
    from kasmos.screens import Ruleset

PERMISSION_SERVER = (sys.executable, os.path.join(os.path.dirname(kasmos.__file__), "sessions", "permission_server.py"))
"""What runs the server of the permission tool, and its file."""
GO_ON = "You were interrupted. Look at what is done already, do not do it again, and go on where you left off."
"""What a program is told whose task is taken up in the conversation that broke off."""


def refusals(
    profiles: Mapping[str, AgentProfile],
    names: Iterable[str],
    environ: Mapping[str, str],
    mode: ExecutionMode | None = None,
    env: Mapping[str, str] | None = None,
) -> list[Mistake]:
    """What programs would refuse, told before anything is started.

    Args:
        profiles: the configuration's.
        names: the agents that are to be used; those that are missing or disabled are not looked at.
        environ: the supervisor's own environment.
        mode: where they run; None means where each profile says.
        env: variables of the task.
    """
    used = [profiles[name] for name in names if name in profiles and profiles[name].enabled]
    found = []
    for profile in used:
        if profile.harness is None and recognise(profile.program).dialect == "generic":
            continue  # nothing is known of what it would refuse
        whole = child_environment(environ, env_pass=profile.env_pass, env=env or {}, own={})
        found += judge_profile(profile, mode, environment=whole, is_root=os.geteuid() == 0)
    return found


class TaskRecipe:
    """How one task's sessions are made; see `kasmos.supervision.recipe.Recipe`."""

    def __init__(self, run: RunView, task: TaskView, kitchen: Kitchen) -> None:
        self._run = run
        self._task = task
        self._kitchen = kitchen
        profile = self._find_profile()
        self.policy = profile.restart if profile is not None else RestartPolicy()
        self.retries = task.spec.retries if task.spec.retries is not None else run.settings.retries
        self.checks = len(task.spec.checks)
        self.retry_lost = profile is not None and profile.retry_lost
        self.approvals = profile.approvals if profile is not None else ApprovalPolicy()
        self.accept = frozenset(profile.accept if profile is not None else ())
        self.when_done = profile.when_done if profile is not None else WhenDone.STAY
        self.exit_grace = profile.exit_grace if profile is not None else math.inf
        self.typed_max = profile.typed_max if profile is not None else AgentProfile.typed_max
        self.cwd = run.project
        self.account = profile.account_name if profile is not None and profile.metered else ""
        self.may_ask = kitchen.treasury.may_ask
        self._allowance = Limit()
        """What its budgets had left when its session was begun."""
        first = (task.spec.timeout, profile.timeout if profile is not None else None, run.settings.task_timeout)
        self.timeout = next((seconds for seconds in first if seconds is not None), None)

    def _find_profile(self) -> AgentProfile | None:
        name = agent_name(self._run, self._task)
        return self._kitchen.profiles().get(name) if name is not None else None

    def _profile(self) -> AgentProfile:
        profile = self._find_profile()
        if profile is None or not profile.enabled:
            name = agent_name(self._run, self._task)
            what = f"agent {name!r} is not configured" if profile is None else f"agent {name!r} is disabled"
            raise ConfigError([Mistake(f"task {self._task.spec.id}", what, f"add or enable [agents.{name}]")])
        return profile

    def screen_rules(self) -> Ruleset:
        """The rules by which the agent's screen is read; see `Recipe`."""
        return self._kitchen.screen_rules(self._profile().program)

    def typed_prompt(self, attempt: int) -> str | None:
        """The prompt, where it is typed; see `Recipe`."""
        profile = self._find_profile()
        if profile is None or profile.prompt is not PromptMode.TYPE:
            return None
        return self.agent(attempt).prompt

    def agent(self, attempt: int, thread: Thread | None = None) -> SessionSpec:
        """The session of an attempt, with the conversation that it goes on with."""
        profile = self._profile()
        wave = next(wave for wave in self._run.plan.waves if wave.number == self._task.spec.wave)
        mode = mode_of(self._run, profile)
        if thread is None and self._task.conversation:
            thread = Thread(self._task.conversation)
        attended = thread is not None and thread.attended
        if thread is not None and attended:
            mode, equipped = ExecutionMode.TMUX, self._equip_attended(profile, thread)
        else:
            equipped = self._equip(profile, mode, thread)
        profile = equipped.profile
        if profile.prompt is PromptMode.TYPE and mode is not ExecutionMode.TMUX:
            problem = f'agent {profile.name} has prompt = "type", and mode {mode} has no terminal to type into'
            raise ConfigError([Mistake(f"task {self._task.spec.id}", problem, "run it in mode tmux")])
        said = self._said_to_it(thread, equipped)
        command = compile_task(self._run.plan, said, profile, peers=len(wave.tasks) - 1)
        session_id = self._session_id(f"a{attempt}")
        return SessionSpec(
            id=session_id,
            name=self._task.spec.name,
            argv=self._within_budget(command.argv, equipped, mode),
            cwd=self._workdir,
            backend=mode,
            env=self._environment(session_id, profile, len(wave.tasks) - 1),
            prompt="" if attended else command.prompt,
            script=command.script,
            stdin_prompt=command.stdin_prompt,
            context=self._task.spec.context,
            output=profile.output_mode,
            leftovers=profile.leftovers,
            stop=profile.stop,
            limits=profile.limits,
            buffer_bytes=self._kitchen.buffer_bytes,
            max_log_bytes=self._kitchen.max_log_bytes,
            run_id=self._run.id,
            task_id=self._task.spec.id,
            attempt=attempt,
            profile=profile.name,
            profile_digest=profile_digest(profile),
            harness=equipped.facts.name if equipped.decides else "",
            conversation=equipped.conversation,
            attended=attended,
            asks=equipped.asks and mode is ExecutionMode.HEADLESS,
            protocol=equipped.protocol if mode is ExecutionMode.HEADLESS else "",
            handshake_timeout=profile.handshake_timeout,
        )

    def _said_to_it(self, thread: Thread | None, equipped: Equipped) -> PlanTask:
        """The task; of one that goes on in a conversation, its program knows all but that."""
        if thread is None:
            return self._task.spec
        go_on = equipped.facts.conversation.go_on if thread.from_person else GO_ON
        return attrs.evolve(self._task.spec, body=thread.prompt or go_on, single=True)

    def quit_keys(self) -> tuple[str, ...]:
        """Keys that end the agent in a terminal; see `Recipe`."""
        profile = self._find_profile()
        return harness_of(profile).quit_keys if profile is not None else ()

    def _equip_attended(self, profile: AgentProfile, thread: Thread) -> Equipped:
        """The profile made ready to open a conversation in a terminal.

        Raises:
            ConfigError: its program cannot do that.
        """
        profile = attrs.evolve(profile, model=self._task.spec.model or profile.model)
        equipped = equip_attended(profile, thread.conversation)
        if equipped is None:
            problem = f"agent {profile.name} cannot open a headless conversation in a terminal"
            cure = "`kas detach` lets it go on headless; `kas agents` shows which program it is"
            raise ConfigError([Mistake(f"task {self._task.spec.id}", problem, cure)])
        return equipped

    def _equip(self, profile: AgentProfile, mode: ExecutionMode, thread: Thread | None) -> Equipped:
        """The profile made ready for its program.

        Raises:
            ConfigError: the program would refuse to run so.
        """
        mistakes = refusals({profile.name: profile}, [profile.name], self._kitchen.environ, mode, self._task.spec.env)
        if mistakes:
            raise ConfigError(mistakes)
        if self._task.spec.model:
            profile = attrs.evolve(profile, model=self._task.spec.model)
        gone_on_with = thread.conversation if thread is not None else self._task.spec.conversation
        if not gone_on_with:
            return equip(profile, mode, conversation=self._kitchen.new_conversation(), server=PERMISSION_SERVER)
        resume = Continuation.RESUME
        equipped = equip(profile, mode, conversation=gone_on_with, continuation=resume, server=PERMISSION_SERVER)
        if not equipped.facts.conversation.resume or not equipped.conversation:
            problem = f"agent {profile.name} cannot go on with a conversation"
            cure = "another agent, in mode headless; `kas agents` shows their harnesses"
            raise ConfigError([Mistake(f"task {self._task.spec.id}", problem, cure)])
        return equipped

    def check(self, attempt: int, index: int) -> SessionSpec:
        """The session of a check: a shell command, in the task's surroundings."""
        profile = self._profile()
        wave = next(wave for wave in self._run.plan.waves if wave.number == self._task.spec.wave)
        session_id = self._session_id(f"a{attempt}c{index}")
        mode = mode_of(self._run, profile)
        return SessionSpec(
            id=session_id,
            name=f"{self._task.spec.name}-check{index + 1}",
            argv=("sh", "-c", self._task.spec.checks[index].command),
            cwd=self._workdir,
            # A check needs no terminal: it runs headless beside any real backend.
            backend=mode if mode is ExecutionMode.SCRIPTED else ExecutionMode.HEADLESS,
            kind=SessionKind.CHECK,
            context=self._task.spec.context,
            env=self._environment(session_id, profile, len(wave.tasks) - 1),
            output=OutputMode.PIPE,
            stop=profile.stop,
            buffer_bytes=self._kitchen.buffer_bytes,
            max_log_bytes=self._kitchen.max_log_bytes,
            run_id=self._run.id,
            task_id=self._task.spec.id,
            attempt=attempt,
            check=index,
            profile=profile.name,
        )

    def check_timeout(self, index: int) -> float | None:
        """Seconds a check may take: its own limit, else the task's."""
        own = self._task.spec.checks[index].timeout
        return own if own is not None else self.timeout

    def is_unhindered(self, world: World) -> bool:
        """Whether nothing limits what is spent, and its account is open and spreads no starts."""
        if not self.account:
            return True
        profile = self._find_profile()
        if profile is None or profile.start_interval:
            return False
        return self._kitchen.treasury.is_unlimited(world, self.account)

    def hindrance(self, world: World) -> Hindrance | None:
        """Why the agent may not be started now: its account is parked, or a budget is spent. If it may, it will be."""
        if not self.account:
            return None
        found = self._kitchen.treasury.begin(world, self._place())
        if found is None:
            self._allowance = self._left(world)
        return found

    def wait_before_start(self, world: World, now: float, boot_id: str) -> float:
        """Seconds until it is its turn to start on its account."""
        profile = self._find_profile()
        if profile is None or not self.account:
            return 0.0
        return self._kitchen.treasury.wait_before(world, profile, now=now, boot=boot_id)

    def time_left(self, world: World) -> float | None:
        """Seconds that its budgets leave for a session that starts now."""
        return self._left(world).time

    def _left(self, world: World) -> Limit:
        treasury = self._kitchen.treasury
        return allowance(purses(treasury.budgets(), world, self._place(), treasury.day()))

    def _within_budget(self, argv: tuple[str, ...], equipped: Equipped, mode: ExecutionMode) -> tuple[str, ...]:
        """The command, with what it may spend told to a program that has flags for that and was not told already."""
        if mode is not ExecutionMode.HEADLESS or not self._allowance:
            return argv
        at, left = len(equipped.profile.program), self._allowance
        words = limit_arguments(equipped.facts, argv, money=left.money, turns=left.turns)
        return (*argv[:at], *words, *argv[at:])

    def wall(self) -> float:
        """The wall clock."""
        return self._kitchen.treasury.wall()

    def day(self) -> str:
        """The present day of budgets."""
        return self._kitchen.treasury.day()

    def over_budget(self, world: World, session_id: str) -> str:
        """Why a live session may spend no more; nothing if it may."""
        return self._kitchen.treasury.over_budget(world, session_id)

    def price_of(self, model: str) -> Price | None:
        """What a model costs; by an unknown name or none, the one its agent is started with."""
        prices, profile = self._kitchen.treasury.prices(), self._find_profile()
        own = self._task.spec.model or (profile.model if profile is not None else None)
        return prices.get(model) or prices.get(own or "")

    def _place(self) -> Place:
        return Place(self._run.id, self._task.spec.id, agent_name(self._run, self._task) or "", self.account)

    def backend(self, spec: SessionSpec | SessionView) -> Backend:
        """Where a session runs."""
        return require_backend(self._kitchen.backends, spec.backend)

    @property
    def _workdir(self) -> str:
        return self._task.spec.workdir or self._run.project

    def _session_id(self, what: str) -> str:
        base = f"{self._task.id}-" if self._task.spec.single else f"{self._run.id}-{self._task.spec.id}"
        return f"{base}{what}-{self._kitchen.new_suffix()}"

    def _environment(self, session_id: str, profile: AgentProfile, peers: int) -> dict[str, str]:
        own = {
            "KASMOS_MANAGED": "1",
            "KASMOS_PROJECT": self._run.project,
            "KASMOS_SESSION_ID": session_id,
            "KASMOS_TASK": self._task.spec.id,
        }
        if not self._task.spec.single:
            own |= {"KASMOS_WAVE": str(self._task.spec.wave), "KASMOS_PEERS": str(peers)}
        if self._task.spec.context is not None:
            own["KASMOS_CONTEXT"] = self._kitchen.context_path(session_id)
        if self._kitchen.traced:
            own["TRACEPARENT"] = traceparent(self._run.id, self._run.started_at, session_id)
        return child_environment(
            self._kitchen.environ,
            env_pass=profile.env_pass,
            env={**profile.env, **self._task.spec.env},
            own=own,
        )
