"""`kas status --watch`: the status again, whenever an event says that it has changed."""

from __future__ import annotations

import queue
import sys
import threading
import time
from typing import TYPE_CHECKING

from kasmos.cli.context import Place, note, say
from kasmos.cli.status import choose, look, render_json, render_text
from kasmos.client.sync import Supervisor
from kasmos.exceptions import ClientError, KasmosError
from kasmos.model.event import Record
from kasmos.store.fold import apply

if TYPE_CHECKING:
    from kasmos.cli.render.region import Region
    from kasmos.model.view import World

LEAVING_TIMEOUT = 5.0
"""Seconds that a supervisor whose stream has ended is given to leave in order."""
LEAVING_INTERVAL = 0.05
"""Seconds between two looks at its lock, which cannot be waited for without taking it."""

News = queue.SimpleQueue[Record | KasmosError | None]
"""Records, then None or what broke the stream off."""


def watch_status(place: Place, world: World, name: str | None, *, as_json: bool) -> None:
    """Show the status until the supervisor leaves.

    On a terminal in one place; else one block after the other, or with *as_json* one line each.

    Raises:
        ClientError: no supervisor is running, or it broke off; the status was shown once.
        SupervisionError: there is no run called *name*.
    """
    show = _Screen(place, name, as_json=as_json)
    show(world)
    was_there = place.supervisor_pid() is not None
    try:
        supervisor = place.reach("there is nothing to watch")
    except ClientError:
        if was_there and _has_left(place, show):
            return
        raise
    news: News = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(supervisor, world.seq, news), name="kasmos events", daemon=True)
    reader.start()
    while True:
        over = _take(news, world)
        if isinstance(over, ClientError | _Left) and _has_left(place, show):
            return
        # Its last events may not have been handed out any more; they are in the journal.
        show(place.read_world() if isinstance(over, _Left) else world)
        if isinstance(over, KasmosError):
            raise over
        if over is not None:
            note("the supervisor has left")
            return


def _has_left(place: Place, show: _Screen) -> bool:
    """Whether the supervisor left in order before it could tell us; then its last word is in the journal."""
    give_up = time.monotonic() + LEAVING_TIMEOUT
    # Its last word comes when all else is done, and then it lets go of the lock.
    while place.supervisor_pid() is not None and time.monotonic() < give_up:
        time.sleep(LEAVING_INTERVAL)
    world = place.read_world()
    if world.supervisor_pid is not None:
        return False
    show(world)
    note("the supervisor has left")
    return True


def _read(supervisor: Supervisor, after: int, news: News) -> None:
    try:
        for record in supervisor.events(after):
            news.put(record)
        news.put(None)
    except KasmosError as error:
        news.put(error)


class _Left:
    """The stream has ended in order."""


def _take(news: News, world: World) -> KasmosError | _Left | None:
    """Wait for something to happen, then fold all that has; what ended the stream, if it has ended."""
    item = news.get()
    while True:
        if item is None:
            return _Left()
        if isinstance(item, KasmosError):
            return item
        apply(world, item)
        try:
            item = news.get_nowait()
        except queue.Empty:
            return None


class _Screen:
    """Where the status is shown."""

    def __init__(self, place: Place, name: str | None, *, as_json: bool) -> None:
        self._place = place
        self._name = name
        self._as_json = as_json
        self._shown = ""
        self._region: Region | None = None
        if not as_json and sys.stdout.isatty() and place.environ.get("TERM", "") not in ("", "dumb"):
            from kasmos.cli.render.region import Region
            from kasmos.cli.render.size import size_of
            from kasmos.cli.render.writer import Writer

            self._size = size_of(sys.stdout)
            self._writer = Writer(sys.stdout, sys.stderr)
            self._region = Region(self._writer, self._size)

    def __call__(self, world: World) -> None:
        """Show it."""
        pid = self._place.supervisor_pid()
        runs = choose(world, self._name)
        if self._as_json:
            say(render_json(self._place, world, pid, runs, pretty=False))
            return
        text = render_text(self._place, world, pid, runs, time.monotonic(), time.time())
        if self._region is None:
            # Blocks, with an empty line between; one like the last says nothing.
            if text != self._shown:
                say(f"\n{text}" if self._shown else text)
            self._shown = text
        else:
            self._draw(text, self._region)

    def _draw(self, text: str, region: Region) -> None:
        from rich.text import Text

        from kasmos.cli.render.region import fitted

        columns, rows = self._size()
        lines = text.splitlines()
        room = max(1, rows - 1)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"({len(lines) - room + 1} more lines: `kas status`)"]
        self._writer.flush()
        region.draw(fitted([Text.from_ansi(line) for line in lines], max(1, columns - 1), look(self._place)))
        self._writer.flush()
