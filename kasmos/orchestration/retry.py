"""Which tasks run again when a person asks for a retry. Pure."""

from __future__ import annotations

from collections.abc import Collection

from kasmos.exceptions import SupervisionError
from kasmos.model.plan import OnFailure
from kasmos.model.task import Outcome
from kasmos.model.view import Ended, RunView
from kasmos.orchestration.scheduler import because_of, has_failed, is_consequence


def chosen_to_retry(run: RunView, task_ids: tuple[str, ...]) -> tuple[str, ...]:
    """The tasks to put back when a person names these, by the plan's ids; none named means all that did not succeed.

    Raises:
        SupervisionError: one is unknown, or has nothing to be tried again.
    """
    failed = {
        task_id
        for task_id, task in run.tasks.items()
        if isinstance(task.state, Ended) and task.state.outcome is not Outcome.SUCCEEDED
    }
    unknown = [task_id for task_id in task_ids if task_id not in run.tasks]
    if unknown:
        raise SupervisionError(f"run {run.id} has no task {', '.join(unknown)}; it has {', '.join(run.tasks)}")
    wrong = [task_id for task_id in task_ids if task_id not in failed]
    if wrong or not failed:
        named = f"task {', '.join(wrong)}" if wrong else f"run {run.id}"
        raise SupervisionError(f"nothing to retry: {named} has succeeded or is still under way")
    return tasks_to_retry(run, task_ids)


def tasks_to_retry(run: RunView, chosen: Collection[str] = ()) -> tuple[str, ...]:
    """The tasks to put back so that the *chosen* ones run again; none chosen means all that did not succeed.

    Beside the chosen ones these are the failures that would have them skipped once more, and the tasks that
    ended as they did because of nothing but those.

    Raises:
        KeyError: a chosen task is not in the run.
    """
    failed = {name: task for name, task in run.tasks.items() if has_failed(task)}
    picked = _with_obstacles(run, set(chosen) or set(failed))
    followers = {name for name, task in failed.items() if because_of(task) and picked.issuperset(because_of(task))}
    return tuple(name for name in run.tasks if name in picked | followers)


def _with_obstacles(run: RunView, picked: set[str]) -> set[str]:
    """Add the failures that stand in the way of the picked tasks, and of each other."""
    policy = run.settings.on_failure
    position = {wave.number: index for index, wave in enumerate(run.plan.waves)}
    size = 0
    while size != len(picked):
        size = len(picked)
        needs = {need for name in picked for need in run.tasks[name].spec.needs}
        last = max((position[run.tasks[name].spec.wave] for name in picked), default=0)
        for name, task in run.tasks.items():
            in_the_way = (
                name in needs
                or (policy is OnFailure.STOP and position[task.spec.wave] < last)
                or (policy is OnFailure.FAIL_FAST and not is_consequence(task))
            )
            if in_the_way and has_failed(task):
                picked.add(name)
    return picked
