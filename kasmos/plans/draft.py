"""From what was read to a plan: identities, needs and defaults. The same for every form of document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kasmos.model.plan import Plan, PlanTask, Wave
from kasmos.model.value import frozen
from kasmos.plans.findings import Findings
from kasmos.plans.settings import NO_SETTINGS, Settings


@frozen
class DraftTask:
    """A task as it stands in the document."""

    number: int
    title: str
    body: str
    line: int
    settings: Settings = NO_SETTINGS
    wave: int | None = None
    """The wave its own heading names, as in `### Task 2.1`."""
    script_line: int | None = None
    """Where its script begins, if it has one."""


@frozen
class DraftWave:
    """A wave as it stands in the document."""

    number: int
    title: str
    line: int
    tasks: tuple[DraftTask, ...]


@frozen
class Draft:
    """A document as it stands, nothing resolved."""

    waves: tuple[DraftWave, ...] = ()
    goal: str = ""
    architecture: str = ""
    tech_stack: str = ""
    title: str = ""
    defaults: Settings = NO_SETTINGS


@frozen
class Settled:
    """A plan and where what it says stands in the document."""

    plan: Plan
    lines: dict[tuple[str, str], int]
    """The line of each setting, by task id and key; that of its script by `script`."""


def settle(draft: Draft, findings: Findings) -> Settled:
    """Give every task its id, resolve needs to ids, and apply the plan's defaults.

    Waves and tasks that are numbered wrongly are noted, and settled as far as they can be.
    """
    _judge_waves(draft, findings)
    per_wave = _numbers_per_wave(draft)
    _judge_numbers(draft, findings, per_wave=per_wave)
    _judge_titles(draft, findings)
    known = {_task_id(wave, task, per_wave=per_wave): wave.number for wave, task in _all_tasks(draft)}
    lines: dict[tuple[str, str], int] = {}
    waves = []
    for wave in draft.waves:
        tasks = []
        for drafted in wave.tasks:
            settings = drafted.settings.over(draft.defaults)
            needs = _resolve_needs(wave, settings.needs or (), known, per_wave=per_wave)
            task = _settle_task(_task_id(wave, drafted, per_wave=per_wave), wave, drafted, settings, needs)
            lines.update({(task.id, key): line for key, line in settings.lines.items()})
            if drafted.script_line is not None:
                lines[task.id, "script"] = drafted.script_line
            tasks.append(task)
        waves.append(Wave(wave.number, tuple(tasks), wave.title, wave.line))
    plan = Plan(tuple(waves), draft.goal, draft.architecture, draft.tech_stack, draft.title)
    return Settled(plan, lines)


def _settle_task(
    task_id: str, wave: DraftWave, task: DraftTask, settings: Settings, needs: tuple[str, ...]
) -> PlanTask:
    return PlanTask(
        id=task_id,
        number=task.number,
        wave=wave.number,
        title=task.title,
        body=task.body,
        agent=settings.agent,
        needs=needs,
        timeout=settings.timeout,
        retries=settings.retries,
        checks=settings.checks or (),
        files=settings.files or (),
        env=settings.env,
        line=task.line,
    )


def _all_tasks(draft: Draft) -> Iterator[tuple[DraftWave, DraftTask]]:
    for wave in draft.waves:
        for task in wave.tasks:
            yield wave, task


def _task_id(wave: DraftWave, task: DraftTask, *, per_wave: bool) -> str:
    return f"{wave.number}.{task.number}" if per_wave else str(task.number)


def _resolve_needs(
    wave: DraftWave, needs: tuple[str, ...], known: Mapping[str, int], *, per_wave: bool
) -> tuple[str, ...]:
    """Turn `N` and `WAVE.N` into ids. What names no task stays as written, for the check to report."""
    resolved = []
    for need in needs:
        named_wave, dot, number = need.rpartition(".")
        if per_wave and not dot:
            # Where every wave counts from 1, a bare number means a task of the same wave.
            resolved.append(f"{wave.number}.{need}")
        elif not per_wave and dot and known.get(number) == int(named_wave):
            resolved.append(number)
        else:
            resolved.append(need)
    return tuple(dict.fromkeys(resolved))


def _judge_waves(draft: Draft, findings: Findings) -> None:
    first: dict[int, int] = {}
    newest = -1
    for wave in draft.waves:
        if wave.number in first:
            cure = f"first in line {first[wave.number]}; give each wave a number of its own"
            findings.mistake(wave.line, f"wave {wave.number} appears twice", cure)
        elif wave.number < newest:
            cure = "waves run in the order of their numbers: put them in that order"
            findings.mistake(wave.line, f"wave {wave.number} stands after wave {newest}", cure)
        if not wave.tasks:
            cure = f"add `### Task N: title` under `## Wave {wave.number}`, or remove the wave"
            findings.mistake(wave.line, f"wave {wave.number} has no tasks", cure)
        first.setdefault(wave.number, wave.line)
        newest = max(newest, wave.number)


def _numbers_per_wave(draft: Draft) -> bool:
    """Whether the document numbers its tasks anew in every wave.

    Some do, and mean it: headings that say `### Task WAVE.N`, or more than one wave of several
    tasks, each counting 1, 2, 3. Any other repeated number is a slip of the pen.
    """
    tasks = list(_all_tasks(draft))
    if any(task.wave is not None for _, task in tasks):
        return True
    if len({task.number for _, task in tasks}) == len(tasks):
        return False
    counted = all([task.number for task in wave.tasks] == list(range(1, len(wave.tasks) + 1)) for wave in draft.waves)
    return counted and sum(len(wave.tasks) > 1 for wave in draft.waves) > 1


def _judge_numbers(draft: Draft, findings: Findings, *, per_wave: bool) -> None:
    dotted = any(task.wave is not None for _, task in _all_tasks(draft))
    first: dict[str, int] = {}
    for wave, task in _all_tasks(draft):
        if dotted and task.wave is None:
            cure = f"as in the other headings: `### Task {wave.number}.{task.number}: title`"
            findings.mistake(task.line, f"task {task.number} does not name its wave", cure)
        elif task.wave not in (None, wave.number):
            problem = f"task {task.wave}.{task.number} stands in wave {wave.number}"
            findings.mistake(task.line, problem, f"move it, or number it {wave.number}.{task.number}")
        task_id = _task_id(wave, task, per_wave=per_wave)
        if task_id in first:
            cure = f"first in line {first[task_id]}; task numbers go on through the whole plan"
            findings.mistake(task.line, f"task number {task_id} is used twice", cure)
        first.setdefault(task_id, task.line)


def _judge_titles(draft: Draft, findings: Findings) -> None:
    for _, task in _all_tasks(draft):
        if not task.title:
            findings.warn(task.line, f"task {task.number} has no title", "it is what reports call the task by")
