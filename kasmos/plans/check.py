"""Whether a plan can be run: its needs, its agents, its files."""

from __future__ import annotations

import fnmatch
import itertools
import posixpath
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import attrs

from kasmos.exceptions import Mistake, PlanError
from kasmos.model.plan import PlanTask, Wave
from kasmos.model.profile import AgentProfile
from kasmos.model.value import define, frozen
from kasmos.model.wording import did_you_mean
from kasmos.plans.command import compile_task, takes_model
from kasmos.plans.findings import in_document_order, quote
from kasmos.plans.parse import ParsedPlan, read_plan

_MOST_PATTERN_COMPARISONS = 100_000
"""Above this many, patterns of one wave are compared as plain text: a warning is not worth minutes."""
_BUILT_IN = {"shell"}
"""The agents there are where nobody has configured any."""
_HOW_TO_GET_AGENTS = "; `kas config init` writes profiles of the agent programs on this machine"


@frozen
class Checked:
    """What is wrong and what is doubtful in a plan, for the agents there are."""

    mistakes: tuple[Mistake, ...]
    warnings: tuple[Mistake, ...]


def load_plan(data: bytes, source: str, agents: Mapping[str, AgentProfile], default_agent: str | None) -> ParsedPlan:
    """Parse and check a plan document for a run.

    The way in for everything that starts a run: nothing has run yet when it refuses.

    Returns:
        The plan; its warnings are those of the document and those of the check.

    Raises:
        PlanError: with every mistake in the document, and every reason why the agents there are cannot run it.
    """
    read = read_plan(data, source)
    checked = check_plan(read.parsed, agents, default_agent)
    mistakes = in_document_order((*read.mistakes, *checked.mistakes))
    warnings = in_document_order((*read.parsed.warnings, *checked.warnings))
    if mistakes:
        raise PlanError(mistakes, warnings)
    return attrs.evolve(read.parsed, warnings=warnings)


def check_plan(
    parsed: ParsedPlan,
    agents: Mapping[str, AgentProfile],
    default_agent: str | None,
    *,
    require_agent: bool = True,
) -> Checked:
    """Check a plan against itself and against the agents there are.

    Args:
        parsed: the plan.
        agents: the profiles, by name.
        default_agent: the agent of tasks that name none.
        require_agent: whether a task without any agent is a mistake, or only a warning.
    """
    needs = _judge_needs(parsed)
    checker = _AgentChecker(parsed, agents, default_agent, require_agent)
    checker.check()
    warnings = (*checker.warnings, *_shared_files(parsed))
    return Checked(
        in_document_order((*needs, *checker.mistakes)),
        in_document_order(warnings),
    )


def agent_of(task: PlanTask, default_agent: str | None) -> str | None:
    """The name of the agent that runs a task."""
    return task.agent if task.agent is not None else default_agent


# --- needs ---------------------------------------------------------------------------------


def _judge_needs(parsed: ParsedPlan) -> list[Mistake]:
    tasks = {task.id: task for task in parsed.plan.tasks}
    mistakes = []
    for task in tasks.values():
        for need in task.needs:
            place = parsed.place(task, "needs")
            if need not in tasks:
                cure = f"the plan has {_some(tasks)}"
                mistakes.append(Mistake(place, f"task {task.id} needs task {need}, which does not exist", cure))
            elif need == task.id:
                mistakes.append(Mistake(place, f"task {task.id} needs itself: a cycle"))
            elif tasks[need].wave > task.wave:
                # It could only start after its own wave has ended, and its wave cannot end without it.
                problem = f"task {task.id} of wave {task.wave} needs task {need} of the later wave {tasks[need].wave}"
                mistakes.append(Mistake(place, problem, "move one of them to another wave"))
    for cycle in _cycles(tasks):
        chain = " -> ".join((*_shortened(cycle), cycle[0]))
        mistakes.append(Mistake(parsed.place(tasks[cycle[0]], "needs"), f"needs form a cycle: {chain}"))
    return mistakes


def _cycles(tasks: Mapping[str, PlanTask]) -> list[tuple[str, ...]]:
    """One cycle, of more than one task, out of each knot of needs. Linear in the number of needs."""
    knotted = _without_free_tasks(
        {task.id: [need for need in task.needs if need in tasks and need != task.id] for task in tasks.values()}
    )
    cycles = []
    seen: set[str] = set()
    for start in knotted:
        walk: dict[str, int] = {}
        task_id = start
        while task_id not in seen:
            seen.add(task_id)
            walk[task_id] = len(walk)
            task_id = knotted[task_id][0]
        if task_id in walk:
            cycles.append(tuple(itertools.islice(walk, walk[task_id], None)))
    return cycles


def _without_free_tasks(needs: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Take away what can run, again and again; what is left waits for itself."""
    waiting = {task_id: len(wanted) for task_id, wanted in needs.items()}
    wanted_by: dict[str, list[str]] = {task_id: [] for task_id in needs}
    for task_id, wanted in needs.items():
        for need in wanted:
            wanted_by[need].append(task_id)
    free = deque(task_id for task_id, count in waiting.items() if count == 0)
    done = set()
    while free:
        task_id = free.popleft()
        done.add(task_id)
        for waiter in wanted_by[task_id]:
            waiting[waiter] -= 1
            if waiting[waiter] == 0:
                free.append(waiter)
    return {
        task_id: [need for need in wanted if need not in done]
        for task_id, wanted in needs.items()
        if task_id not in done
    }


def _shortened(cycle: tuple[str, ...]) -> tuple[str, ...]:
    return (*cycle[:10], f"({len(cycle) - 10} more)") if len(cycle) > 12 else cycle


def _some(tasks: Iterable[str]) -> str:
    names = list(tasks)
    listed = ", ".join(names[:12])
    if len(names) == 1:
        return f"task {listed}"
    return f"tasks {listed} and {len(names) - 12} more" if len(names) > 12 else f"tasks {listed}"


# --- agents --------------------------------------------------------------------------------


@define(eq=False)
class _AgentChecker:
    parsed: ParsedPlan
    agents: Mapping[str, AgentProfile]
    default_agent: str | None
    require_agent: bool
    mistakes: list[Mistake] = attrs.field(factory=list)
    warnings: list[Mistake] = attrs.field(factory=list)

    def check(self) -> None:
        unassigned = []
        for wave in self.parsed.plan.waves:
            for task in wave.tasks:
                name = agent_of(task, self.default_agent)
                if name is None:
                    unassigned.append(task)
                    continue
                profile = self._profile(task, name)
                if profile is not None:
                    self._judge_command(wave, task, profile)
        if unassigned:
            self._judge_unassigned(unassigned)

    def _judge_unassigned(self, tasks: list[PlanTask]) -> None:
        who = _some(task.id for task in tasks)
        verb = "have" if len(tasks) > 1 else "has"
        cure = 'use --agent NAME, set `default_agent` in [orchestration], or `agent = "NAME"` in the plan'
        if set(self.agents) <= _BUILT_IN:
            cure += f"; `--agent shell` runs tasks that are `sh` blocks{_HOW_TO_GET_AGENTS}"
        found = Mistake(self.parsed.place(tasks[0]), f"{who} {verb} no agent and there is no default", cure)
        (self.mistakes if self.require_agent else self.warnings).append(found)

    def _profile(self, task: PlanTask, name: str) -> AgentProfile | None:
        profile = self.agents.get(name)
        if profile is not None and profile.enabled:
            return profile
        # A wrong default is one mistake and not one for each task.
        place = "default agent" if task.agent is None else self.parsed.place(task, "agent")
        if profile is not None:
            self.mistakes.append(Mistake(place, f"agent {quote(name)} is disabled (`enabled = false`)"))
            return None
        known = [name for name, other in self.agents.items() if other.enabled]
        cure = did_you_mean(name, known) or (
            f"there are: {', '.join(sorted(known))}" if known else f"no agents are configured: add [agents.{name}]"
        )
        cure += _HOW_TO_GET_AGENTS if set(known) <= _BUILT_IN else ""
        self.mistakes.append(Mistake(place, f"unknown agent {quote(name)}", cure))
        return None

    def _judge_command(self, wave: Wave, task: PlanTask, profile: AgentProfile) -> None:
        if profile.model is not None and not takes_model(profile):
            problem = f"the model {quote(profile.model)} of agent {profile.name} is not passed to its program"
            self.warnings.append(Mistake(f"agent {profile.name}", problem, "put {model} into its flags"))
        try:
            compile_task(self.parsed.plan, task, profile, peers=len(wave.tasks) - 1)
        except PlanError as error:
            place = self.parsed.place(task)
            self.mistakes += [attrs.evolve(mistake, place=place) for mistake in error.mistakes]


# --- files ---------------------------------------------------------------------------------


def _shared_files(parsed: ParsedPlan) -> Iterator[Mistake]:
    for wave in parsed.plan.waves:
        declared = [(task, posixpath.normpath(name)) for task in wave.tasks for name in task.files]
        for first, second, name in _overlaps(declared):
            if first.id in second.needs or second.id in first.needs:
                continue  # they do not run side by side
            problem = f"tasks {first.id} and {second.id} of wave {wave.number} both declare {quote(name)}"
            cure = "they may run side by side: let one need the other, or put it into a later wave"
            yield Mistake(parsed.place(second, "files"), problem, cure)


def _overlaps(declared: list[tuple[PlanTask, str]]) -> Iterator[tuple[PlanTask, PlanTask, str]]:
    first: dict[str, PlanTask] = {}
    for task, name in declared:
        other = first.setdefault(name, task)
        if other.id != task.id:
            yield other, task, name
    patterns = [(task, name) for task, name in declared if set(name) & set("*?[")]
    if len(patterns) * len(declared) > _MOST_PATTERN_COMPARISONS:
        return
    for owner, pattern in patterns:
        for task, name in declared:
            if task.id != owner.id and name != pattern and fnmatch.fnmatchcase(name, pattern):
                yield owner, task, name
