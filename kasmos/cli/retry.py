"""`kas retry`: try tasks again that did not succeed."""

from __future__ import annotations

import click

from kasmos.cli.context import all_ids, complete, place_of, say
from kasmos.model.plan import Origin
from kasmos.model.view import RunView, World


@click.command("retry")
@click.argument("names", nargs=-1, metavar="[RUN] [TASK]...", shell_complete=complete(all_ids))
@click.option("--resume", is_flag=True, help="Go on with their programs' conversations, where they broke off.")
@click.pass_context
def retry(ctx: click.Context, names: tuple[str, ...], resume: bool) -> None:
    """Try TASKs again (all that did not succeed, when none is named) of RUN (the newest one).

    Tasks that were skipped because of them are taken up again as well. Without a supervisor, this command becomes
    it and shows the run, as `kas resume` does.

    With --resume, the program goes on with the conversation that broke off, in the same directory.
    """
    place = place_of(ctx)
    run, tasks = choose(place.read_world(), names)
    if place.supervisor_pid() is None:
        from kasmos.cli import foreground

        request = foreground.Request(resume=run.id, retry=tuple(tasks), in_conversation=resume)
        foreground.complete(foreground.place_of(ctx), request)
    supervisor = place.reach("its supervisor is just leaving: try again")
    supervisor.post(f"/v1/runs/{run.id}/retry", {"tasks": tasks, **({"resume": True} if resume else {})})
    what = f"task {', '.join(tasks)}" if tasks else "every task that did not succeed"
    say(f"run {run.id}: {what} will be tried again")


def choose(world: World, names: tuple[str, ...]) -> tuple[RunView, list[str]]:
    """The run and the ids of the tasks that are meant; no tasks means all that did not succeed.

    Raises:
        SupervisionError: there is nothing of that name, or it is not clear what is meant.
    """
    from kasmos.exceptions import SupervisionError
    from kasmos.store.lookup import find_run, find_task, match_tasks

    if not world.runs:
        raise SupervisionError("there has been no run yet")
    plans = (run for run in reversed(world.runs.values()) if run.origin is Origin.PLAN)
    newest = next(plans, next(reversed(world.runs.values())))
    if not names:
        return newest, []
    first, rest = names[0], names[1:]
    # A task's number may begin a run's id: an exact id is a run, then a task is tried, then a run.
    if first in world.runs or not match_tasks(world, first):
        run = find_run(world, first)
    else:
        run, rest = world.runs[find_task(world, first).run_id], names
    return run, [_task_of(world, run, name) for name in rest]


def _task_of(world: World, run: RunView, name: str) -> str:
    from kasmos.exceptions import SupervisionError
    from kasmos.store.lookup import find_task

    if name in run.tasks:
        return name
    task = next((task for task in run.tasks.values() if name in (task.id, task.spec.name)), None)
    task = task or find_task(world, name)
    if task.run_id != run.id:
        raise SupervisionError(f"task {task.id} is of another run than {run.id}: retry one run at a time")
    return task.spec.id
