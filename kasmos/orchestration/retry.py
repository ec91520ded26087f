"""Which tasks run again when a person asks for a retry. Pure."""

from __future__ import annotations

from collections.abc import Collection

from kasmos.model.plan import OnFailure
from kasmos.model.view import RunView
from kasmos.orchestration.scheduler import because_of, has_failed, is_consequence


def tasks_to_retry(run: RunView, chosen: Collection[str] = ()) -> tuple[str, ...]:
    """The tasks to put back so that the *chosen* ones run again; none chosen means all that did not succeed.

    Beside the chosen ones these are the failures that would have them skipped at once, and the tasks that
    ended as they did because of nothing but those.

    Raises:
        KeyError: a chosen task is not in the run.
    """
    failed = [task for task in run.tasks.values() if has_failed(task)]
    picked = set(chosen) or {task.spec.id for task in failed}
    position = {wave.number: index for index, wave in enumerate(run.plan.waves)}
    policy = run.settings.on_failure
    size = 0
    while size != len(picked):
        size = len(picked)
        needs = {need for name in picked for need in run.tasks[name].spec.needs}
        last = max((position[run.tasks[name].spec.wave] for name in picked), default=0)
        for task in failed:
            roots = because_of(task)
            if (
                task.spec.id in needs
                or (policy is OnFailure.STOP and position[task.spec.wave] < last)
                or (policy is OnFailure.FAIL_FAST and not is_consequence(task))
                or (roots and picked.issuperset(roots))
            ):
                picked.add(task.spec.id)
    return tuple(name for name in run.tasks if name in picked)
