"""What a terminal costs: rows of scripts/bench for sessions in tmux."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import libtmux
import trio

from kasmos.model.event import Event
from kasmos.model.profile import ExecutionMode, StopPolicy
from kasmos.model.session import SessionSpec
from kasmos.sessions.headless import open_headless
from kasmos.sessions.tmux_backend import TmuxBackend, open_tmux
from kasmos.sessions.tmux_session import TmuxSession
from kasmos.supervision.termination import terminate

IDLE = "echo ready; exec sleep 1000"
WRITER = """
import os, sys, time
ttys = [os.open(name, os.O_WRONLY | os.O_NOCTTY) for name in sys.argv[1:]]
due = time.monotonic()
while True:
    for tty in ttys:
        os.write(tty, b"one more line of quite ordinary length, as programs write them.....\\n")
    due += 0.01
    time.sleep(max(0.0, due - time.monotonic()))
"""
"""Writes a line to each of many terminals a hundred times a second: one process, which leaves the machine some air."""
LINE_BYTES = 70


@attrs.frozen
class Measured:
    """One thing that was measured; `scripts/bench` makes a row of it."""

    what: str
    ours: str
    theirs: str
    ratio: str
    bar: str
    held: bool


def spec(script: str, number: int, cwd: str) -> SessionSpec:
    """A session that runs a shell script."""
    name = f"bench-{number}-{time.monotonic_ns()}"
    env = {"PATH": os.environ["PATH"], "HOME": cwd, "KASMOS_SESSION_ID": name}
    return SessionSpec(
        id=name,
        name=name,
        argv=("/bin/sh", "-c", script),
        cwd=cwd,
        backend=ExecutionMode.TMUX,
        env=env,
        stop=StopPolicy(stop_signal="SIGKILL", stop_grace=0.1),
    )


async def notify(event: Event) -> None:
    """Makes nothing durable: the journal is measured elsewhere."""


def cpu() -> float:
    """Seconds of processor time this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def crowd(
    backend: TmuxBackend, root: Path, count: int, script: str, then: Callable[[list[TmuxSession]], Awaitable[None]]
) -> float:
    """Hold so many sessions, and do something; the seconds until all of them ran."""
    sessions: list[TmuxSession] = []
    done = trio.Event()

    async def live(number: int, *, task_status: trio.TaskStatus[None]) -> None:
        async with backend.open(spec(script, number, str(root)), notify=notify) as session:
            sessions.append(session)
            task_status.started()
            await done.wait()

    begin = time.perf_counter()
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as starting:
            for number in range(count):
                starting.start_soon(nursery.start, live, number)
        taken = time.perf_counter() - begin
        await then(sessions)
        done.set()
    return taken


async def share(seconds: float) -> float:
    """The share of a core that is used in the next seconds."""
    begin, used = time.perf_counter(), cpu()
    await trio.sleep(seconds)
    return (cpu() - used) / (time.perf_counter() - begin)


async def median(count: int, call: Callable[[], Awaitable[object]]) -> float:
    """The median seconds of a call, made one after the other."""
    taken = []
    for _ in range(count):
        begin = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


async def against_libtmux(backend: TmuxBackend, root: Path) -> list[Measured]:
    """Screens and keys by our connection, and by plain libtmux, in one run."""
    rows = []
    async with backend.open(spec("stty -echo; exec cat >/dev/null", 0, str(root)), notify=notify) as session:
        await trio.sleep(0.3)
        server = libtmux.Server(socket_path=session._pane.host.place.socket, config_file="/dev/null")
        (pane,) = [pane for pane in server.panes if pane.pane_id == session._pane.id]

        async def theirs_capture() -> None:
            await trio.to_thread.run_sync(pane.capture_pane)

        async def theirs_keys() -> None:
            await trio.to_thread.run_sync(lambda: pane.send_keys("x", enter=False, literal=True))

        async def ours_keys() -> None:
            await session.send_keys("x")

        for what, ours, theirs in (
            ("a screen", session.screen, theirs_capture),
            ("a key", ours_keys, theirs_keys),
        ):
            mine, other = await median(500, ours), await median(100, theirs)
            rows.append(
                Measured(
                    f"tmux: {what} (median)",
                    f"{mine * 1e3:.2f} ms",
                    f"libtmux {other * 1e3:.2f} ms",
                    f"{other / mine:.1f}x cheaper",
                    ">= 8x",
                    other / mine >= 8,
                )
            )
    return rows


async def measure(sessions: int) -> list[Measured]:
    """All rows."""
    root = Path(tempfile.mkdtemp(prefix="kasmos-bench-"))
    rows: list[Measured] = []
    used: list[float] = []

    async def idle(_: list[TmuxSession]) -> None:
        await trio.sleep(2)
        used.append(await share(10))

    async def chatty(found: list[TmuxSession]) -> None:
        ttys = [f"/proc/{one.pid}/fd/1" for one in found]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.run_process, [sys.executable, "-c", WRITER, *map(os.path.realpath, ttys)])
            await trio.sleep(2)
            before = sum(one.output_bytes for one in found)
            used.append(await share(10))
            lines.append((sum(one.output_bytes for one in found) - before) / LINE_BYTES / 10 / len(found))
            nursery.cancel_scope.cancel()

    lines: list[float] = []
    try:
        async with (
            open_headless(root, terminate=terminate) as headless,
            open_tmux(root, headless) as backend,
        ):
            await backend.host()
            rows += await against_libtmux(backend, root)
            taken = await crowd(backend, root, sessions, IDLE, idle)
            rows.append(
                Measured(f"tmux: {sessions} sessions created", f"{taken:.1f} s", "-", "-", "< 10 s for 200", taken < 10)
            )
            share_idle = used.pop()
            rows.append(
                Measured(
                    f"tmux: {sessions} idle sessions, supervisor",
                    f"{share_idle:.2%} of a core",
                    "-",
                    "-",
                    "< 1 %",
                    share_idle < 0.01,
                )
            )
            await crowd(backend, root, 100, IDLE, chatty)
            rows.append(
                Measured(
                    f"tmux: 100 panes, {lines[0]:.0f} lines/s each, supervisor",
                    f"{used[0]:.1%} of a core",
                    "-",
                    "-",
                    "< 15 %",
                    used[0] < 0.15,
                )
            )
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return rows


def tmux(sessions: int) -> list[Measured]:
    """Measure everything."""
    return trio.run(measure, sessions)
