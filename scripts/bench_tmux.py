"""What a terminal costs: rows of scripts/bench for sessions in tmux."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import attrs
import libtmux
import trio

from kasmos.config.load import load_config
from kasmos.config.schema import Config
from kasmos.daemon.single import TaskRequest
from kasmos.model import event as ev
from kasmos.model.approval import Answer, AnswerKind
from kasmos.model.event import Event
from kasmos.model.profile import ExecutionMode, StopPolicy
from kasmos.model.session import SessionSpec
from kasmos.screens import load_rules
from kasmos.serve import Options, open_engine
from kasmos.sessions.headless import open_headless
from kasmos.sessions.tmux_backend import TmuxBackend, open_tmux
from kasmos.sessions.tmux_session import TmuxSession
from kasmos.store.stateroot import StateRoot
from kasmos.supervision.terminal import Terminal
from kasmos.supervision.termination import terminate

TESTS = Path(__file__).resolve().parent.parent / "tests"
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


PLAYER = """
[agents.player]
program = ["{player}", "clock"]
execution_mode = "tmux"
prompt = "type"
env = {{ PLAYER_LOG = "{log}" }}
"""
"""The full-screen program of the tests, which says when it has drawn a dialog."""
ASKED = 25


async def to_approval(root: Path) -> Measured:
    """From a permission dialog drawn to the approval in the journal, under a whole supervisor."""
    project, log = root / "project", root / "player.log"
    rules = project / ".kasmos" / "screens"
    rules.mkdir(parents=True)
    shutil.copy(TESTS / "data" / "player" / "player.toml", rules)
    config = PLAYER.format(player=TESTS / "programs" / "player", log=log)
    (project / ".kasmos" / "config.toml").write_text(config)
    state = StateRoot(root / "state")
    told: list[float] = []

    def configure(flags: Mapping[str, object]) -> Config:
        return load_config(project, environ={}, flags=flags).config

    options = Options(
        project=project, root=state, configure=configure, environ={"PATH": os.environ["PATH"]}, announce=print
    )
    async with open_engine(options) as engine, engine.bus.subscribe(0) as batches:
        service = engine.service
        task = (await service.tasks.submit(TaskRequest(prompt="work 0.1", agent="player"))).task_id
        session = ""
        async for records in batches:
            for event in (record.event for record in records):
                if isinstance(event, ev.PromptDelivered):
                    session = event.session_id
                    await service.terminals.send(session, "ask command 0", wait=True)
                elif isinstance(event, ev.ApprovalRequested):
                    told.append(time.time())
                    await service.approvals.resolve(event.approval_id, Answer(AnswerKind.DENY), "bench")
                    if len(told) < ASKED:
                        await service.terminals.send(session, f"ask command {len(told)}", wait=True)
                    else:
                        await service.tasks.cancel(task)
            # Not before: who leaves while a session is being stopped leaves it to the next supervisor.
            if any(isinstance(record.event, ev.RunEnded) for record in records):
                break
    drawn = [float(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("drawn")]
    taken = sorted(late - early for early, late in zip(drawn, told, strict=True))
    middle = statistics.median(taken)
    return Measured(
        "tmux: dialog drawn to approval (median)",
        f"{middle * 1e3:.0f} ms",
        f"longest of {ASKED}: {taken[-1] * 1e3:.0f} ms",
        "-",
        "< 150 ms",
        middle < 0.15,
    )


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
        rules = load_rules("claude")
        async with trio.open_nursery() as nursery:
            if watched:
                for one in found:
                    nursery.start_soon(Terminal(one, rules, lambda event: None, time.time).watch)
            nursery.start_soon(trio.run_process, [sys.executable, "-c", WRITER, *map(os.path.realpath, ttys)])
            await trio.sleep(5)
            before = sum(one.output_bytes for one in found)
            used.append(await share(10))
            lines.append((sum(one.output_bytes for one in found) - before) / LINE_BYTES / 10 / len(found))
            nursery.cancel_scope.cancel()

    lines: list[float] = []
    watched = False
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
            for watched in (False, True):
                await crowd(backend, root, 100, IDLE, chatty)
                what = "their screens read" if watched else "logs only"
                rows.append(
                    Measured(
                        f"tmux: 100 panes, {lines[-1]:.0f} lines/s each, {what}",
                        f"{used[-1]:.1%} of a core",
                        "-",
                        "-",
                        "< 15 %",
                        used[-1] < 0.15,
                    )
                )
        rows.append(await to_approval(root / "asks"))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return rows


def tmux(sessions: int) -> list[Measured]:
    """Measure everything."""
    return trio.run(measure, sessions)
