"""`kas advance`: let a run go on that waits after a wave."""

from __future__ import annotations

import click

from kasmos.cli.context import complete, place_of, run_ids, say


@click.command("advance")
@click.argument("run", required=False, shell_complete=complete(run_ids))
@click.pass_context
def advance(ctx: click.Context, run: str | None) -> None:
    """Let RUN (the newest one that waits, when none is named) go on past the wave it waits after."""
    from kasmos.exceptions import SupervisionError
    from kasmos.model.view import RunState
    from kasmos.store.lookup import find_run

    place = place_of(ctx)
    world = place.read_world()
    if run is not None:
        run_id = find_run(world, run).id
    else:
        parked = [one.id for one in world.runs.values() if one.state is RunState.PARKED]
        if not parked:
            raise SupervisionError("no run waits for `kas advance`")
        run_id = parked[-1]
    supervisor = place.reach(f"`kas resume {run_id}` takes the run up, then `kas advance` lets it go on")
    supervisor.post(f"/v1/runs/{run_id}/advance")
    say(f"run {run_id} goes on")
