"""`kas usage`: tokens and money, with what is known told from what is not."""

from __future__ import annotations

import datetime
import sys
import time
from typing import TYPE_CHECKING

import click

from kasmos.cli.context import Place, note, place_of, say

if TYPE_CHECKING:
    from kasmos.daemon.spending import TallyWire

GROUPS = ("session", "task", "run", "agent", "account", "day")
"""Those of `kasmos.daemon.spending`, here again so that help costs no import."""


@click.command("usage")
@click.option("--by", type=click.Choice(GROUPS), default="day", show_default=True, help="What each line is about.")
@click.option(
    "--since", metavar="DAY", help="The first day that counts: 2026-05-01, `today`, or 7d for the last seven."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def usage(ctx: click.Context, by: str, since: str | None, as_json: bool) -> None:
    """Say what agents have used: tokens and USD, by day, agent, account, run, task or session.

    A number that not everybody has told is `at least` that much; `~` marks a guess. By day, agent and account it
    holds what forgotten runs have used as well.
    """
    from kasmos.cli.render.text import columns, look_of
    from kasmos.daemon.spending import usage_wire
    from kasmos.model import codec

    place = place_of(ctx)
    found = usage_wire(place.read_world(), by, None if since is None else first_day(since, _today(place)))
    if as_json:
        say(codec.encode_pretty(found))
        return
    if not found.usage:
        note("nothing has been used" + (f" since {found.since}" if found.since else ""))
        return
    rows: list[tuple[str, ...]] = [(by.upper(), "IN", "OUT", "CACHED", "USD", "TURNS", "SESSIONS")]
    rows += [_row(one.key or "-", one) for one in found.usage]
    if len(found.usage) > 1:
        rows.append(_row("total", found.total))
    look = look_of(place.environ, sys.stdout.encoding, is_terminal=sys.stdout.isatty())
    header, *lines = columns(rows, right=(1, 2, 3, 4, 5, 6))
    say("\n".join((look.paint(header, "bold"), *lines)))


def _today(place: Place) -> datetime.date:
    """The present day of budgets."""
    from kasmos.config.load import load_config
    from kasmos.orchestration.days import day_of

    zone = load_config(place.project, environ=place.environ).config.budgets.zone
    return datetime.date.fromisoformat(day_of(time.time(), zone))


def _row(name: str, one: TallyWire) -> tuple[str, ...]:
    from kasmos.cli.render.text import clean
    from kasmos.daemon.spending import say_figure

    tokens = (say_figure(each) for each in (one.input_tokens, one.output_tokens, one.cached_tokens))
    return (clean(name), *tokens, say_figure(one.cost_usd, money=True), str(one.turns), str(one.sessions))


def first_day(text: str, today: datetime.date) -> str:
    """The day that is meant.

    Raises:
        click.BadParameter: none is.
    """
    if text == "today":
        return today.isoformat()
    if text.endswith("d") and text[:-1].isdecimal() and 0 < int(text[:-1]) < 100_000:
        return (today - datetime.timedelta(days=int(text[:-1]) - 1)).isoformat()
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise click.BadParameter(f"{text!r} is no day: 2026-05-01, today, or 7d", param_hint="--since") from None
