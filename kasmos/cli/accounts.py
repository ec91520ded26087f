"""`kas accounts`: which accounts may be used, and letting one be used again."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

import click

from kasmos.cli.context import complete, note, place_of, say
from kasmos.model.view import World


def account_names(world: World) -> Iterable[tuple[str, str]]:
    """Accounts that are parked, or were."""
    return [(view.name, view.parked.kind.value) for view in world.accounts.values() if view.parked is not None]


@click.group("accounts", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_context
def accounts(ctx: click.Context, as_json: bool) -> None:
    """List the accounts that agents use, and which of them are parked: nothing is started on those."""
    if ctx.invoked_subcommand is not None:
        return
    from kasmos.cli.render.text import clean, columns, local_moment, look_of
    from kasmos.daemon.spending import account_wire
    from kasmos.model import codec
    from kasmos.orchestration.accounts import parked_now

    place = place_of(ctx)
    views, now = list(place.read_world().accounts.values()), time.time()
    if as_json:
        say(codec.encode_pretty([account_wire(view, now) for view in views]))
        return
    if not views:
        note("no account has been used yet")
        return
    rows = [("ACCOUNT", "STATE", "UNTIL", "WHY")]
    for view in views:
        parked = parked_now(view, now)
        if parked is None:
            rows.append((view.name, "open", "", ""))
            continue
        until = f"`kas accounts resume {view.name}`" if parked.until_at is None else local_moment(parked.until_at)
        rows.append((view.name, "parked", until, clean(f"{parked.kind.value.replace('_', ' ')}: {parked.message}")))
    look = look_of(place.environ, sys.stdout.encoding, is_terminal=sys.stdout.isatty())
    header, *lines = columns(rows)
    say("\n".join((look.paint(header, "bold"), *lines)))


@accounts.command("resume")
@click.argument("name", shell_complete=complete(account_names))
@click.pass_context
def resume(ctx: click.Context, name: str) -> None:
    """Let account NAME be used again: its login was mended, or its limit is known to be over."""
    from urllib.parse import quote

    place = place_of(ctx)
    supervisor = place.reach("the next `kas run` tries a refused login again by itself")
    supervisor.post(f"/v1/accounts/{quote(name, safe='')}/resume")
    say(f"account {name} may be used again")
