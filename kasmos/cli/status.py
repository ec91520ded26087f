"""`kas status`: what runs, how far it is, and what a person should look at.

The truth comes from the journal and the lock: a run that the journal has under way while nobody holds the
lock is interrupted, whatever was written down last.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import attrs
import click

from kasmos.cli.context import Place, complete, place_of, run_ids, say
from kasmos.model.value import frozen

if TYPE_CHECKING:
    from kasmos.cli.found import Found
    from kasmos.cli.render.text import Look
    from kasmos.daemon.wire import RunWire
    from kasmos.model.view import RunView, TaskView, World

SCHEMA = 1
"""Version of the shape of `kas status --json`."""
MANY_TASKS = 40
"""With more tasks, those of which there is nothing to say are only counted."""
MAX_ATTENTION = 10


@click.command("status")
@click.argument("run", required=False, shell_complete=complete(run_ids))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--watch", is_flag=True, help="Show it again whenever something happens, until Ctrl-C.")
@click.pass_context
def status(ctx: click.Context, run: str | None, as_json: bool, watch: bool) -> None:
    """Show unfinished runs (or the newest one, or RUN), their waves and tasks, and what needs attention."""
    place = place_of(ctx)
    world = place.read_world()
    if watch:
        from kasmos.cli.watch import watch_status

        watch_status(place, world, run, as_json=as_json)
        return
    pid = place.supervisor_pid()
    if as_json:
        say(render_json(place, world, pid, choose(world, run), pretty=True))
    else:
        say(render_text(place, world, pid, choose(world, run), time.monotonic(), time.time()))


def look(place: Place) -> Look:
    """What stdout can show."""
    from kasmos.cli.render.text import look_of

    return look_of(place.environ, sys.stdout.encoding, is_terminal=sys.stdout.isatty())


def choose(world: World, name: str | None) -> list[RunView]:
    """The run with this name; without one the unfinished runs, or else the newest, oldest first.

    Raises:
        SupervisionError: there is no run of that name.
    """
    if name is not None:
        from kasmos.store.lookup import find_run

        return [find_run(world, name)]
    runs = list(world.runs.values())
    return [run for run in runs if run.unfinished] or runs[-1:]


# --- for programs -----------------------------------------------------------------


@frozen
class SupervisorWire:
    """The supervisor that runs here."""

    pid: int
    socket: str


def present_wire(run: RunView, *, supervised: bool) -> RunWire:
    """A run as JSON has it, with the status it has if there is no supervisor."""
    from kasmos.cli.render.facts import present_status
    from kasmos.daemon.wire import run_wire

    return attrs.evolve(run_wire(run), status=present_status(run, supervised=supervised))


def render_json(place: Place, world: World, pid: int | None, runs: Iterable[RunView], *, pretty: bool) -> str:
    """The same in the words of the API: runs with tasks, live sessions and how they were found, attention."""
    from kasmos.cli.found import found_wire, look_around
    from kasmos.daemon import wire
    from kasmos.model import codec

    supervisor = SupervisorWire(pid, str(place.root.socket)) if pid is not None else None
    value = {
        "schema": SCHEMA,
        "project": str(place.project),
        "state_root": str(place.root.path),
        "supervisor": supervisor,
        "seq": world.seq,
        "runs": [
            wire.RunDetailWire(
                run=present_wire(run, supervised=pid is not None),
                tasks=tuple(wire.task_wire(world, task) for task in run.tasks.values()),
            )
            for run in runs
        ],
        "sessions": [wire.session_wire(one) for one in world.sessions.values() if one.state.live],
        "found": [found_wire(one) for one in look_around(place, world).values()],
        "attention": list(wire.attention(world, time.time())),
    }
    return codec.encode_pretty(value) if pretty else codec.encode(value).decode()


# --- for people -------------------------------------------------------------------


def render_text(place: Place, world: World, pid: int | None, runs: list[RunView], mono: float, wall: float) -> str:
    """All that is to be known at a glance."""
    from kasmos.cli.found import look_around
    from kasmos.model.plan import Origin

    show, found = look(place), look_around(place, world)
    supervisor = f"running (pid {pid})" if pid is not None else "not running"
    lines = [f"supervisor: {supervisor}"]
    if not runs:
        lines += ["", "there has been no run yet; `kas run PLAN` starts one"]
    singles = [run for run in runs if run.origin is Origin.TASK]
    if singles:
        lines += ["", *_singles(world, singles, show, mono, wall)]
    for run in runs:
        if run.origin is Origin.TASK:
            continue
        lines += ["", *_run(world, run, show, mono, wall, supervised=pid is not None, found=found)]
        lines += _left(world, run, mono, wall, found)
    unfinished = [run for run in runs if run.unfinished and run.origin is Origin.PLAN]
    if pid is None and any(run.unfinished for run in singles):
        daemon = ": `kas daemon start`" if world.supervisor_stays else ""
        lines += ["", f"supervisor is not running; the next one takes these tasks up{daemon}"]
    if pid is None and unfinished:
        lines += ["", f"supervisor is not running; {_ways_on(world, unfinished)} continues"]
    return "\n".join((*lines, *_attention(world, show))) + "\n"


def _ways_on(world: World, unfinished: list[RunView]) -> str:
    """The commands that go on with these runs, the one that was used before first."""
    ways = ["`kas daemon start`"] if world.supervisor_stays else []
    if len(unfinished) == 1 and unfinished[0].source != "-":
        ways.append(f"`kas run {unfinished[0].source}`")
    ways.append(f"`kas resume {unfinished[-1].id}`")
    return " or ".join(ways)


def _run(
    world: World,
    run: RunView,
    look: Look,
    mono: float,
    wall: float,
    *,
    supervised: bool,
    found: Mapping[str, Found],
) -> Iterator[str]:
    from kasmos.cli.render import facts
    from kasmos.cli.render.report import wave_lines
    from kasmos.cli.render.text import clean, duration

    word = facts.present_status(run, supervised=supervised)
    # How long an interrupted run takes is not known while nobody works at it.
    taken = f"  {duration(facts.run_seconds(world, run, mono, wall))}" if word != "interrupted" else ""
    source = "from standard input" if run.source == "-" else clean(run.source)
    yield f"{look.paint(f'run {run.id}', 'bold')}  {look.status(word, word.replace('_', ' '))}{taken}  {source}"
    yield f"  {facts.run_title(run)}"
    over = [name for name, one in found.items() if not one.fate.at_work]
    yield f"  {facts.count_words(facts.count_tasks(run, over))}"
    many = len(run.tasks) > MANY_TASKS
    # What is over is not shown as if it went on: `_left` says what has become of it.
    world = attrs.evolve(world, sessions={key: one for key, one in world.sessions.items() if key not in over})
    for line in wave_lines(world, run, look, mono, wall, wanted=lambda task: not many or _is_news(task)):
        yield f"  {line}"


def _singles(world: World, runs: list[RunView], look: Look, mono: float, wall: float) -> Iterator[str]:
    """Tasks that were handed in by themselves: how many stand where, and those that are under way."""
    from collections import Counter

    from kasmos.cli.render import facts
    from kasmos.cli.render.text import clean, columns, duration
    from kasmos.daemon.wire import task_status

    tasks = [task for run in runs for task in run.tasks.values()]
    words = Counter(task_status(task) for task in tasks)
    yield f"{look.paint('tasks', 'bold')}  {', '.join(f'{many} {word}' for word, many in words.items())}"
    news = [task for task in tasks if len(tasks) == 1 or task_status(task) != "queued"][:MANY_TASKS]
    rows = [
        (
            clean(task.id),
            task_status(task).replace("_", " "),
            duration(facts.task_seconds(world, task, mono, wall)),
            clean(task.spec.title),
            facts.waits_for(world, task),
        )
        for task in news
    ]
    yield from (f"  {line}" for line in columns(rows, right=(2,)))


def _left(world: World, run: RunView, mono: float, wall: float, found: Mapping[str, Found]) -> Iterator[str]:
    """What has become of a run's live sessions without a supervisor."""
    from kasmos.cli.found import seconds
    from kasmos.cli.render.text import clean, columns, duration

    left = [world.sessions[name] for name in found if world.sessions[name].run_id == run.id]
    if left:
        yield "  without a supervisor:"
        rows = [(clean(one.name), duration(seconds(world, one, found, mono, wall)), str(found[one.id])) for one in left]
        yield from (f"    {line}" for line in columns(rows, right=(1,)))


def _is_news(task: TaskView) -> bool:
    from kasmos.daemon.wire import task_status

    return task_status(task) not in ("queued", "succeeded", "skipped")


def _attention(world: World, look: Look) -> Iterator[str]:
    from kasmos.cli.render.text import clean
    from kasmos.daemon.wire import attention

    found = list(attention(world, time.time()))
    if not found:
        return
    yield ""
    yield look.paint("needs attention", "bold")
    for one in found[:MAX_ATTENTION]:
        cure = f"   kas why {one.id}" if one.kind == "task" else ""
        yield f"  {one.id}  {look.paint(clean(one.message), 'yellow')}{cure}"
    if len(found) > MAX_ATTENTION:
        yield f"  and {len(found) - MAX_ATTENTION} more: `kas status --json`"
