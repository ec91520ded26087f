"""`kas runs`: every run there has been."""

from __future__ import annotations

import sys
import time

import click

from kasmos.cli.context import note, place_of, say


@click.command("runs")
@click.option("-a", "--all", "everything", is_flag=True, help="Also tasks that were handed in by themselves.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_context
def runs(ctx: click.Context, everything: bool, as_json: bool) -> None:
    """List runs of plans, newest first."""
    from kasmos.cli.render import facts
    from kasmos.cli.render.text import columns, duration, local_moment, look_of
    from kasmos.cli.status import present_wire
    from kasmos.model import codec
    from kasmos.model.plan import Origin

    place = place_of(ctx)
    world = place.read_world()
    supervised = place.supervisor_pid() is not None
    found = [run for run in reversed(world.runs.values()) if everything or run.origin is Origin.PLAN]
    if as_json:
        say(codec.encode_pretty([present_wire(run, supervised=supervised) for run in found]))
        return
    if not found:
        note("there has been no run yet")
        return
    rows = [("RUN", "STATUS", "STARTED", "TIME", "SUCCEEDED", "PLAN")]
    for run in found:
        counts = facts.count_tasks(run)
        rows.append(
            (
                run.id,
                facts.present_status(run, supervised=supervised).replace("_", " "),
                local_moment(run.started_at),
                duration(facts.run_seconds(world, run, time.monotonic(), time.time())),
                f"{counts['succeeded']}/{len(run.tasks)}",
                facts.run_title(run),
            )
        )
    look = look_of(place.environ, sys.stdout.encoding, is_terminal=sys.stdout.isatty())
    header, *lines = columns(rows, right=(3, 4))
    say("\n".join((look.paint(header, "bold"), *lines)))
