"""`kas ps`: sessions."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from kasmos.cli.context import note, place_of, say

if TYPE_CHECKING:
    from kasmos.cli.render.text import Look
    from kasmos.model.view import SessionView, World


@click.command("ps")
@click.option("-a", "--all", "everything", is_flag=True, help="Also sessions that have ended.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_context
def ps(ctx: click.Context, everything: bool, as_json: bool) -> None:
    """List the sessions that are alive, newest first."""
    from kasmos.cli.render.text import look_of
    from kasmos.daemon.wire import session_wire
    from kasmos.model import codec

    place = place_of(ctx)
    world = place.read_world()
    sessions = [one for one in reversed(world.sessions.values()) if everything or one.state.live]
    if as_json:
        say(codec.encode_pretty([session_wire(session) for session in sessions]))
    elif sessions:
        look = look_of(place.environ, sys.stdout.encoding, is_terminal=sys.stdout.isatty())
        say(table(world, sessions, look, time.monotonic(), time.time()))
    else:
        note("no session is alive" if world.sessions else "there has been no session yet")
    if place.supervisor_pid() is None and any(session.state.live for session in sessions):
        note("supervisor is not running: this is how it left them; `kas doctor` shows what is alive")


def table(world: World, sessions: list[SessionView], look: Look, mono: float, wall: float) -> str:
    """The sessions as lines with aligned columns."""
    from kasmos.cli.render.facts import session_seconds
    from kasmos.cli.render.text import clean, columns, duration

    rows = [("NAME", "STATE", "TIME", "PID", "AGENT", "ATTEMPT", "SESSION")]
    for one in sessions:
        state = one.state.value.replace("_", " ") if one.exit is None else str(one.exit)
        kind = "" if one.check is None else f" check {one.check + 1}"
        rows.append(
            (
                clean(one.name),
                state,
                duration(session_seconds(world, one, mono, wall)),
                str(one.pid or "-"),
                clean(one.profile) + kind,
                str(one.attempt),
                one.id,
            )
        )
    header, *lines = columns(rows, right=(2, 3, 5))
    return "\n".join((look.paint(header, "bold"), *lines))
