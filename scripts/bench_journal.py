"""How fast the journal is, against a plain synchronous loop over the same database library.

    python scripts/bench_journal.py [DIRECTORY]

Prints durable events per second for one appender and for 64 at once, the ratio to the loop (one
transaction per event, same durability), and how long it takes to read and fold 100 000 events.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import trio

from kasmos.model.clock import Clock
from kasmos.model.codec import encode_event
from kasmos.model.event import Event, SessionEnded, SessionStarted, SessionStarting
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import ExitStatus, SessionKind
from kasmos.store.journal import Journal, open_journal
from kasmos.store.reader import read_world

CLOCK = Clock(wall=time.time, mono=time.monotonic)


def session(number: int) -> tuple[Event, Event, Event]:
    """The three events of an ordinary session."""
    name = f"20260101-{number:08}"
    return (
        SessionStarting(name, "coder", SessionKind.AGENT, ExecutionMode.HEADLESS, "boot"),
        SessionStarted(name, pid=number),
        SessionEnded(name, exit=ExitStatus(code=0), output_bytes=4096, tail="the last words of this session\n" * 3),
    )


def plain_loop(directory: Path, seconds: float) -> float:
    """Events per second of the loop."""
    connection = apsw.Connection(str(directory / "plain.db"))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, body TEXT) STRICT")
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        for event in session(count):
            connection.execute("INSERT INTO events (body) VALUES (?)", (encode_event(event).decode(),))
            count += 1
    connection.close()
    return count / spent


async def journal(directory: Path, appenders: int, seconds: float) -> float:
    """Events per second of the journal."""
    count = 0

    async def append(log: Journal, who: int, until: float) -> None:
        nonlocal count
        number = 0
        while time.perf_counter() < until:
            for event in session(who * 1_000_000 + number):
                await log.append(event)
                count += 1
            number += 1

    async with open_journal(directory / f"state-{appenders}.db", clock=CLOCK, announce=print) as log:
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for who in range(appenders):
                nursery.start_soon(append, log, who, start + seconds)
        return count / (time.perf_counter() - start)


async def fill(path: Path, events: int) -> None:
    """Make a journal of this many events."""
    async with open_journal(path, clock=CLOCK, announce=print) as log:
        for number in range(events // 3):
            log.append_nowait(*session(number))


def timed(action: Callable[[], object]) -> float:
    """Seconds that *action* takes, the best of three."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best


def main(where: str | None) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(dir=where) as name:
        directory = Path(name)
        plain = plain_loop(directory, 1.0)
        print(f"{'plain loop':24}{plain:10.0f} events/s")
        for appenders in (1, 64):
            rate = trio.run(journal, directory, appenders, 1.0)
            print(f"{f'journal, {appenders} at once':24}{rate:10.0f} events/s{rate / plain:8.2f} of the loop")
        trio.run(fill, directory / "big.db", 100_000)
        seconds = timed(lambda: read_world(directory / "big.db"))
        print(f"{'read and fold 100 000':24}{seconds:10.2f} s")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
