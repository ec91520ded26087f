"""`kas stop`: end a session or a task, or everything, for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kasmos.cli.context import Place, complete, live_session_names, place_of, say

if TYPE_CHECKING:
    from kasmos.model.view import World


@click.command("stop")
@click.argument("name", required=False, shell_complete=complete(live_session_names))
@click.option("--all", "everything", is_flag=True, help="End every unfinished run for good.")
@click.pass_context
def stop(ctx: click.Context, name: str | None, everything: bool) -> None:
    """Stop session or task NAME, or end every run: politely, then firmly.

    A task that waits or has not begun is stopped too: it will not run. Ctrl-C in `kas run`, in contrast, puts
    unfinished tasks back, to go on later.
    """
    if (name is None) == (not everything):
        raise click.UsageError("one of NAME and --all is needed", ctx)
    place = place_of(ctx)
    if name is None:
        _stop_all(place)
    else:
        _stop_one(place, place.read_world(), name)


def _stop_all(place: Place) -> None:
    unfinished = [run.id for run in place.read_world().runs.values() if run.unfinished]
    if not unfinished and place.supervisor_pid() is None:
        say("nothing runs")
        return
    cure = (
        f"run {', '.join(unfinished)} is interrupted; to end it for good, `kas resume {unfinished[-1]}` "
        "and then `kas stop --all`; to leave it, do nothing: without a supervisor nothing new is started"
    )
    place.reach(cure if unfinished else "").post("/v1/stop", {"all": True})
    ended = f"run {', '.join(unfinished)} is being ended" if unfinished else "every run is being ended"
    say(f"{ended}: its sessions are stopped, what has not begun will not run")


def _stop_one(place: Place, world: World, name: str) -> None:
    from kasmos.exceptions import SupervisionError
    from kasmos.model.view import Ended
    from kasmos.store.lookup import find_session, match_sessions, match_tasks

    live = [session for session in match_sessions(world, name) if session.state.live]
    tasks = [task for task in match_tasks(world, name) if not isinstance(task.state, Ended)]
    cure = "`kas resume` takes up what it left, and stops it then; `kas doctor` shows what is alive"
    if len(live) == 1:
        place.reach(cure).post(f"/v1/sessions/{live[0].id}/stop")
        say(f"session {live[0].id} is being stopped")
    elif not live and len(tasks) == 1:
        place.reach(cure).post(f"/v1/tasks/{tasks[0].id}/cancel")
        say(f"task {tasks[0].id} is stopped")
    else:
        session = find_session(world, name)
        raise SupervisionError(f"session {session.id} has ended already")
