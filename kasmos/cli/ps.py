"""`kas ps`: sessions."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from kasmos.cli.context import note, place_of, say

if TYPE_CHECKING:
    from kasmos.cli.found import Found
    from kasmos.cli.render.text import Look
    from kasmos.model.view import SessionView, World


@click.command("ps")
@click.option("-a", "--all", "everything", is_flag=True, help="Also sessions that have ended.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_context
def ps(ctx: click.Context, everything: bool, as_json: bool) -> None:
    """List the sessions that are alive, newest first."""
    from kasmos.cli.found import look_around
    from kasmos.cli.render.text import look_of
    from kasmos.model import codec

    place = place_of(ctx)
    world = place.read_world()
    found = look_around(place, world)
    sessions = [one for one in reversed(world.sessions.values()) if everything or one.state.live]
    if as_json:
        say(codec.encode_pretty([_wire(session, found.get(session.id)) for session in sessions]))
    elif sessions:
        look = look_of(place.environ, sys.stdout.encoding, is_terminal=sys.stdout.isatty())
        say(table(world, sessions, look, time.monotonic(), time.time(), found))
    else:
        note("no session is alive" if world.sessions else "there has been no session yet")
    if found:
        note("supervisor is not running; `kas resume` takes up what runs, and records what has ended")


def _wire(session: SessionView, found: Found | None) -> dict[str, Any]:
    """A session in the words of the API, and how it was found where no supervisor tells."""
    from kasmos.cli.found import found_wire
    from kasmos.daemon.wire import session_wire
    from kasmos.model import codec

    wire: dict[str, Any] = codec.to_builtins(session_wire(session))
    return {**wire, "found": found_wire(found)} if found is not None else wire


def table(
    world: World, sessions: list[SessionView], look: Look, mono: float, wall: float, found: Mapping[str, Found]
) -> str:
    """The sessions as lines with aligned columns.

    Args:
        world: the journal.
        sessions: those that are shown.
        look: what stdout can show.
        mono: the present, by CLOCK_MONOTONIC.
        wall: the present, by the wall clock.
        found: what has become of sessions without a supervisor.
    """
    from kasmos.cli.found import seconds
    from kasmos.cli.render.text import clean, columns, duration
    from kasmos.daemon.wire import session_status

    rows = [("NAME", "STATE", "TIME", "PID", "AGENT", "ATTEMPT", "SESSION")]
    for one in sessions:
        state = str(found.get(one.id) or one.exit or session_status(one).replace("_", " "))
        kind = "" if one.check is None else f" check {one.check + 1}"
        kind += ", with a person" if one.attended else ""
        rows.append(
            (
                clean(one.name),
                state,
                duration(seconds(world, one, found, mono, wall)),
                str(one.pid or "-"),
                clean(one.profile) + kind,
                str(one.attempt),
                one.id,
            )
        )
    header, *lines = columns(rows, right=(2, 3, 5))
    return "\n".join((look.paint(header, "bold"), *lines))
