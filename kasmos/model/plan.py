"""Plans: the document a run executes, as parsed values.

A plan knows nothing of profiles' contents or of how far a run has come.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator, Mapping
from functools import cached_property

import attrs

from kasmos.model.value import frozen


class OnFailure(enum.StrEnum):
    """What a failed task means for the rest of its run."""

    STOP = "stop"
    """Siblings finish; later waves are skipped, each with its cause."""
    CONTINUE = "continue"
    """Later waves run; only tasks that need the failed one are skipped."""
    FAIL_FAST = "fail_fast"
    """Siblings are stopped at once; later waves are skipped."""


class Origin(enum.StrEnum):
    """What a run was begun for."""

    PLAN = "plan"
    """A plan document."""
    TASK = "task"
    """One task that was handed in by itself: the run has that task only, and both have the same id."""


@frozen
class Check:
    """A command that must exit 0 after the program did, or the task has not succeeded."""

    command: str
    """Run by `sh -c` in the task's working directory."""
    timeout: float | None = None
    """Seconds; None means the task's own timeout."""


@frozen
class PlanTask:
    """One unit of work in a plan."""

    id: str
    """Unique in the plan: the task's number as text, or `WAVE.NUMBER` where a plan numbers per wave."""
    number: int
    wave: int
    """The number of the wave it stands in."""
    title: str
    body: str
    """The task's Markdown, without the settings block."""
    agent: str | None = None
    """Profile name; None means the default agent."""
    needs: tuple[str, ...] = ()
    """Ids of tasks that must have succeeded; if any, the wave barrier does not hold this task back."""
    timeout: float | None = None
    """Seconds; None means the profile's, then the default of `[orchestration]`."""
    retries: int | None = None
    """Attempts after the first; None means the default of `[orchestration]`."""
    checks: tuple[Check, ...] = ()
    files: tuple[str, ...] = ()
    """Files the task says it will touch; two tasks of one wave that share one are warned about."""
    env: Mapping[str, str] = attrs.field(factory=dict, repr=lambda env: repr(sorted(env)))
    line: int = 0
    """Line of its heading in the document, from 1; 0 where there is none."""
    single: bool = False
    """Whether it was handed in by itself: its body is the whole prompt."""
    label: str = ""
    """The name it was given, safe as a file name; only a task that was handed in by itself has one."""
    model: str | None = None
    """What `{model}` in the profile's command becomes; None means the profile's own."""
    workdir: str | None = None
    """Absolute path its program and checks run in; None means the project."""
    context: str | None = attrs.field(default=None, repr=False)
    """A JSON object for the program: a file named in `KASMOS_CONTEXT`."""
    conversation: str = ""
    """The program's conversation that it goes on with; empty for a new one."""

    @property
    def name(self) -> str:
        """The session name, safe as a file name: `wWtN-slug-of-the-title`; of a single task its label, or its id."""
        if self.single:
            return self.label or self.id
        slug = _slug(self.title)
        return f"w{self.wave}t{self.number}-{slug}" if slug else f"w{self.wave}t{self.number}"


@functools.lru_cache(maxsize=4096)
def _slug(title: str) -> str:
    """A title as a part of a file name; asked for several times in each session's life."""
    slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in title.lower())
    return "-".join(part for part in slug.split("-") if part)[:32].rstrip("-")


@frozen
class Wave:
    """Tasks that may run side by side; a barrier stands after them."""

    number: int
    tasks: tuple[PlanTask, ...]
    title: str = ""
    line: int = 0


@frozen
class Plan:
    """A goal and the waves of tasks that reach it."""

    waves: tuple[Wave, ...]
    goal: str = ""
    architecture: str = ""
    tech_stack: str = ""
    title: str = ""
    """The document's first level-one heading, if any."""

    @property
    def tasks(self) -> Iterator[PlanTask]:
        """Every task, in wave order."""
        for wave in self.waves:
            yield from wave.tasks

    @cached_property
    def needy(self) -> tuple[str, ...]:
        """Ids of the tasks that need others, in wave order."""
        return tuple(task.id for task in self.tasks if task.needs)

    def task(self, task_id: str) -> PlanTask:
        """The task with this id.

        Raises:
            KeyError: there is none.
        """
        for task in self.tasks:
            if task.id == task_id:
                return task
        raise KeyError(task_id)


@frozen
class RunSettings:
    """What governs one run, fixed when it starts."""

    max_concurrent: int = 4
    on_failure: OnFailure = OnFailure.STOP
    auto_advance_waves: bool = True
    default_agent: str | None = None
    task_timeout: float | None = None
    """Seconds; the default where neither task nor profile has one."""
    retries: int = 0
    """The default where the task has none."""
    execution_mode: str | None = None
    """Overrides every profile's mode, as `--mode` does."""
