"""`kas tail`: what a task's agent writes, over all its attempts."""

from __future__ import annotations

import codecs
import json
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from kasmos.cli.context import Place, complete, note, place_of, put, say, task_ids
from kasmos.cli.render.text import clean
from kasmos.model.value import define

if TYPE_CHECKING:
    from kasmos.client.sync import Supervisor

PATIENCE = 15.0
"""Seconds for which a follower waits for another supervisor when its own is gone."""
PAUSE = 0.1


@click.command("tail")
@click.argument("task", shell_complete=complete(task_ids))
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended; exit with 0 only if it succeeded.")
@click.option("--json", "as_json", is_flag=True, help="Print events and output as lines of JSON.")
@click.pass_context
def tail(ctx: click.Context, task: str, follow: bool, as_json: bool) -> None:
    """Print what TASK has written so far; with --follow, until it has ended.

    `kas logs` does so for sessions, and without a supervisor.
    """
    place = place_of(ctx)
    supervisor = place.reach("start one with `kas daemon start`; `kas logs` reads without one")
    found = supervisor.get_task(task)
    if follow:
        ctx.exit(follow_task(place, found["task_id"], 0, output=True, as_json=as_json))
    if found["session_id"] is None:
        note(f"task {found['task_id']} has had no session yet: it is {found['status']}")
        return
    offset, ended = 0, False
    # A character may begin in one piece and end in the next.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while not ended:
        piece = supervisor.read_output(found["session_id"], offset)
        if as_json:
            if text := decoder.decode(piece.data, final=not piece.data):
                line = {"type": "output", "task_id": found["task_id"], "session_id": found["session_id"]}
                say(json.dumps({**line, "offset": piece.offset, "next_offset": piece.next_offset, "text": text}))
        else:
            put(piece.data)
        offset, ended = piece.next_offset, not piece.data


@define
class _Place:
    """How far a stream has been read."""

    seq: int
    session: str = ""
    offset: int = 0
    outcome: str | None = None
    why: str = ""


def follow_task(place: Place, task_id: str, cursor: int, *, output: bool, as_json: bool) -> int:
    """Show a task until it has ended, over as many supervisors as that takes; the exit status.

    Raises:
        ClientError: there is no supervisor any more.
        RequestError: it refuses.
    """
    from kasmos.exceptions import ClientError

    so_far = _Place(cursor)
    while so_far.outcome is None:
        supervisor = _reach_again(place)
        path = f"/v1/tasks/{task_id}/events?after={so_far.seq}"
        if output:
            path += f"&output=true&offset={so_far.offset}"
        try:
            with closing(supervisor.stream_lines(path)) as lines:  # type: ignore[type-var]  # a generator
                for line in lines:
                    _take(json.loads(line), so_far, output=output, as_json=as_json)
        except ClientError:
            # It broke off: where we are is known, and whoever comes next goes on from there.
            continue
    if not as_json:
        why = f": {clean(so_far.why)}" if so_far.outcome != "succeeded" else ""
        note(f"task {task_id} {so_far.outcome.replace('_', ' ')}{why}")
    return 0 if so_far.outcome == "succeeded" else 1


def _reach_again(place: Place) -> Supervisor:
    """The supervisor that runs, or the next one: between two, somebody has to start it."""
    from kasmos.exceptions import ClientError

    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return place.reach("the task goes on when there is one again; `kas tail -f` shows it then")
        except ClientError:
            if time.monotonic() > give_up:
                raise
        # Nobody is there who could tell when somebody is.
        time.sleep(PAUSE)


def _take(line: dict[str, Any], so_far: _Place, *, output: bool, as_json: bool) -> None:
    kind = line["type"]
    so_far.seq = line.get("seq", so_far.seq)
    if kind == "session_starting":
        so_far.session, so_far.offset = line["session_id"], 0
    if kind == "output":
        if line["lost"] and not as_json:
            note(f"{line['lost']} bytes of output are gone")
        so_far.offset = line["next_offset"]
    if as_json and kind != "heartbeat":
        say(json.dumps(line))
    elif kind == "output" and output:
        put(line["text"].encode("utf-8", "replace"))
    if kind == "task_ended":
        so_far.outcome, so_far.why = line["outcome"], line["cause"]["message"]
