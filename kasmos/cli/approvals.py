"""`kas approvals`, `approve`, `deny` and `answer`: what agents ask, and the person's word on it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from kasmos.cli.context import complete, note, place_of, say

if TYPE_CHECKING:
    from kasmos.cli.render.text import Look
    from kasmos.model.view import ApprovalView, World

_WIDTH = 100
"""Cells of what is asked that are shown in a list."""
_REASON_GOES = {
    "": "; the reason is for the journal alone: its program takes a yes or no, and nothing with it",
    "message": "; its protocol has no place for the reason, which goes as a message into its turn",
    "turn": "; its protocol has no place for the reason, which goes as a message when this turn is over",
    "input": "; its dialog has no place for the reason, which is typed into its input after it",
}
"""What is to be said of a reason, where it does not go with the answer."""


def approval_ids(world: World) -> Iterable[tuple[str, str]]:
    """Ids of what waits for a person, newest first."""
    return [(view.id, view.ask.subject) for view in reversed(waiting(world))]


def waiting(world: World) -> list[ApprovalView]:
    """What waits for a person, oldest first."""
    from kasmos.model.approval import ApprovalState

    return [view for view in world.approvals.values() if view.state is ApprovalState.OPEN]


@click.command("approvals")
@click.option("-a", "--all", "everything", is_flag=True, help="Also what has been answered or withdrawn of late.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_context
def approvals(ctx: click.Context, everything: bool, as_json: bool) -> None:
    """List what agents ask and a person has to answer, oldest first."""
    from kasmos.cli.render.text import look_of
    from kasmos.daemon.wire import approval_wire
    from kasmos.model import codec

    place = place_of(ctx)
    world = place.read_world()
    found = list(world.approvals.values()) if everything else waiting(world)
    if as_json:
        say(codec.encode_pretty([approval_wire(world, view) for view in found]))
    elif found:
        look = look_of(place.environ, sys.stdout.encoding, is_terminal=sys.stdout.isatty())
        say(table(world, found, look, time.time()))
    else:
        note("nothing waits for you" if not everything else "nothing has been asked")
    if waiting(world) and place.supervisor_pid() is None:
        note("supervisor is not running; `kas resume` takes up what runs, and then it can be answered")


def table(world: World, views: list[ApprovalView], look: Look, wall: float) -> str:
    """The approvals as lines with aligned columns, and how to answer them."""
    from kasmos.cli.render.text import clean, columns, duration, shorten
    from kasmos.model.approval import ApprovalState
    from kasmos.orchestration.approvals import told

    rows = [("ID", "NAME", "SINCE", "ASKS", "STATE")]
    for view in views:
        session = world.sessions.get(view.session_id)
        is_open = view.state is ApprovalState.OPEN
        rows.append(
            (
                view.id,
                clean(session.name if session is not None else view.session_id),
                duration(max(0.0, wall - view.requested_at)),
                shorten(clean(view.ask.subject), _WIDTH, look.cut),
                clean(f"waits for you: {view.why}" if is_open else told(view)),
            )
        )
    header, *lines = columns(rows, right=(2,))
    body = [look.paint(header, "bold"), *lines]
    for view in views:
        if view.state is ApprovalState.OPEN and view.ask.options:
            body += [f"{view.id}  {n}. {clean(option.label)}" for n, option in enumerate(view.ask.options, 1)]
    return "\n".join(body)


@click.command("approve")
@click.argument("approval", shell_complete=complete(approval_ids))
@click.option("--always", is_flag=True, help="And let the program not ask for the like again.")
@click.pass_context
def approve(ctx: click.Context, approval: str, always: bool) -> None:
    """Allow what APPROVAL asks for, this once."""
    _resolve(ctx, approval, {"decision": "allow_always" if always else "allow_once"})


@click.command("deny")
@click.argument("approval", shell_complete=complete(approval_ids))
@click.option("--reason", metavar="TEXT", default="", help="Told to programs that take one, and to the journal.")
@click.pass_context
def deny(ctx: click.Context, approval: str, reason: str) -> None:
    """Refuse what APPROVAL asks for."""
    _resolve(ctx, approval, {"decision": "deny", **({"reason": reason} if reason else {})})


@click.command("answer")
@click.argument("approval", shell_complete=complete(approval_ids))
@click.argument("text", required=False)
@click.option("--option", "-n", type=click.IntRange(min=1), help="Choose this option of the dialog, from 1.")
@click.pass_context
def answer(ctx: click.Context, approval: str, text: str | None, option: int | None) -> None:
    """Answer the question APPROVAL with TEXT, or choose one of its options."""
    if (text is None) == (option is None):
        raise click.UsageError("one of TEXT and --option is needed", ctx)
    said: dict[str, Any] = {"decision": "choose", "option": option} if text is None else {"decision": "text"}
    _resolve(ctx, approval, said if text is None else {**said, "text": text})


def _resolve(ctx: click.Context, approval: str, body: dict[str, Any]) -> None:
    from urllib.parse import quote

    place = place_of(ctx)
    supervisor = place.reach("`kas resume` takes up what runs, and then it can be answered")
    view = supervisor.post(f"/v1/approvals/{quote(approval, safe='')}", body)
    words = {"allow_once": "allowed", "allow_always": "allowed, and not asked again", "deny": "denied"}
    subject = " ".join(part for part in (view["tool"], view["command"] or view["path"]) if part)
    what = f"{view['name']}: {subject or view['text'].strip().partition(chr(10))[0] or view['kind']}"
    said = f"{approval} {words.get(body['decision'], 'answered')} ({what})"
    if "reason" in body:
        said += _REASON_GOES.get(view["reason_goes"], "")
    if view["status"] != "delivered":
        said += "; the answer is recorded, and given as soon as the session takes it"
    from kasmos.cli.render.text import clean

    say(clean(said))
