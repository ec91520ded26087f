"""`kas stop`: end a session or a task, or everything, for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kasmos.cli.context import Place, complete, live_session_names, place_of, say

if TYPE_CHECKING:
    from kasmos.model.view import SessionView, World


@click.command("stop")
@click.argument("name", required=False, shell_complete=complete(live_session_names))
@click.option("--all", "everything", is_flag=True, help="End every unfinished run for good.")
@click.pass_context
def stop(ctx: click.Context, name: str | None, everything: bool) -> None:
    """Stop session or task NAME, or end every run: politely, then firmly.

    A task that waits or has not begun is stopped too: it will not run. Ctrl-C in `kas run`, in contrast, puts
    unfinished tasks back, to go on later. Without a supervisor, `--all` becomes it for as long as that takes.
    """
    if (name is None) == (not everything):
        raise click.UsageError("one of NAME and --all is needed", ctx)
    place = place_of(ctx)
    if name is None:
        ctx.exit(_stop_all(ctx, place))
    _stop_one(place, place.read_world(), name)


def _stop_all(ctx: click.Context, place: Place) -> int:
    unfinished = [run.id for run in place.read_world().runs.values() if run.unfinished]
    if place.supervisor_pid() is None:
        if not unfinished:
            say("nothing runs")
            return 0
        from kasmos.cli import foreground

        # What was left at work has to be taken up to be stopped, and tasks that have not begun to be recorded as such.
        request = foreground.Request(cancel="kas stop --all")
        foreground.complete(foreground.place_of(ctx), request)
    place.reach("its supervisor is just leaving: try again").post("/v1/stop", {"all": True})
    match unfinished:
        case []:
            ended = "every run is being ended: the sessions"
        case [one]:
            ended = f"run {one} is being ended: its sessions"
        case _:
            ended = f"runs {', '.join(unfinished)} are being ended: their sessions"
    say(f"{ended} are stopped, what has not begun will not run")
    return 0


def _stop_one(place: Place, world: World, name: str) -> None:
    from kasmos.exceptions import SupervisionError
    from kasmos.model.view import Ended
    from kasmos.store.lookup import find_session, match_sessions, match_tasks

    sessions = match_sessions(world, name)
    # Where a name may mean several, it is not for us to choose, even if all the others have ended.
    live = [session for session in sessions if session.state.live] if len(sessions) == 1 else []
    tasks = [task for task in match_tasks(world, name) if not isinstance(task.state, Ended)]
    if live:
        place.reach(_cure_of(place, live[0])).post(f"/v1/sessions/{live[0].id}/stop")
        say(f"{name} (session {live[0].id}) is being stopped")
    elif len(sessions) < 2 and len(tasks) == 1:
        cure = "what has not begun is not started; `kas stop --all` ends its run for good"
        place.reach(cure).post(f"/v1/tasks/{tasks[0].id}/cancel")
        say(f"{name} (task {tasks[0].id}) is stopped")
    else:
        session = find_session(world, name)
        raise SupervisionError(f"{name} (session {session.id}) has ended already")


def _cure_of(place: Place, session: SessionView) -> str:
    """What to do about a live session without a supervisor."""
    from kasmos.cli.found import look_around

    found = look_around(place, place.read_world()).get(session.id)
    if found is not None and not found.fate.at_work:
        return f"session {session.id}: {found}; `kas resume` records it"
    pid = f" (pid {found.pid})" if found is not None and found.pid is not None else ""
    return f"session {session.id}{pid} is still at work; `kas resume` takes it up again, `kas stop --all` ends its run"
