"""The composition root: the nursery tree of the whole process, to be read in one sitting.

    state lock -> journal -> bus -> sessions -> supervisor -> orchestrator -> API

What opens later closes earlier. Signals never cancel anything here: they set an event, the body leaves, and the
levels close from the inside, each within its own bound. `kas run` is this tree with one plan in it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from kasmos import __version__
from kasmos.daemon.bus import Bus
from kasmos.daemon.leaving import Disk, Leaving
from kasmos.daemon.life import Health, Phase
from kasmos.daemon.recovery import Findings, end_stray, find_untold, take_stock
from kasmos.daemon.service import Service
from kasmos.model import event as ev
from kasmos.model.event import Record
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import StopReason
from kasmos.model.view import World
from kasmos.orchestration.orchestrator import LiveSessions, Orchestrator, open_orchestrator
from kasmos.serve.engine import Engine, Ground
from kasmos.serve.furnishing import find_recogniser, make_kitchen, random_letters, service_surroundings
from kasmos.serve.links import open_log_links
from kasmos.serve.options import Options, in_force
from kasmos.sessions.headless import open_headless
from kasmos.sessions.launch import Records
from kasmos.sessions.protocol import Backend, ExecutionSession
from kasmos.sessions.scripted import ScriptedBackend
from kasmos.sessions.threads import in_thread
from kasmos.sessions.tmux_backend import open_tmux
from kasmos.store.journal import Journal, open_journal, read_records
from kasmos.store.lock import StateLock, boot_id
from kasmos.store.stateroot import StateRoot
from kasmos.supervision.quiet import QuietWatch, open_quiet_watch
from kasmos.supervision.recipe import Surroundings
from kasmos.supervision.room import open_room
from kasmos.supervision.supervisor import Supervisor, open_supervisor
from kasmos.supervision.termination import terminate
from kasmos.telemetry.spans import wanted

if TYPE_CHECKING:
    from kasmos.telemetry.traces import Traces

ROOM = 262_144
"""Bytes that the disk has to take before sessions are begun again: their records, prompts, and some output."""
JOURNAL_CLOSE_TIMEOUT = 5.0
"""Seconds that are waited, when the supervisor leaves, for a disk that takes nothing."""
TRACES_CLOSE_TIMEOUT = 2.5
"""Seconds that a collector of traces is waited for when the supervisor leaves."""


@asynccontextmanager
async def open_engine(options: Options) -> AsyncGenerator[Engine, None]:
    """Take the state root and bring everything up; what an earlier supervisor left is taken up again.

    Raises:
        StateLockedError: another supervisor owns the state root.
        StoreError: the state root cannot be used.
        ConfigError: the configuration is wrong.

    Cancellation: programs that run are left running, for adoption.
    """
    root = options.root
    root.prepare(announce=options.announce)
    configure, present = in_force(options)
    config = present()
    async with root.acquire_lock(options.lock_wait) as lock, _open_journal(options, lock) as (journal, bus, ground):
        root.place_socket()
        boot = boot_id()
        untold = find_untold(journal.world, lambda seq: read_records(root.db, after=seq))
        await journal.append(ev.SupervisorStarted(os.getpid(), boot, __version__, options.stays))
        live = LiveSessions()
        async with (
            open_headless(
                root.path,
                terminate=terminate,
                boot_id=boot,
                warn=options.announce,
                with_cgroups=config.orchestration.cgroups,
                in_memory=root.in_memory,
            ) as headless,
            open_tmux(
                root.path, headless, environ=options.environ, find_recogniser=partial(find_recogniser, options)
            ) as tmux,
            open_log_links(root, options.announce) as links,
            open_room(partial(_require_room, root), report=options.announce) as room,
        ):
            backends: dict[ExecutionMode, Backend] = {
                ExecutionMode.HEADLESS: headless,
                ExecutionMode.TMUX: tmux,
                ExecutionMode.SCRIPTED: ScriptedBackend(terminate=terminate),
            }

            def started(session: ExecutionSession) -> None:
                live.started(session)
                links.point(session.spec.name, session.spec.id)

            around = Surroundings(journal, boot, time.monotonic, random.random, started, live.ended, room=room)
            kitchen = make_kitchen(options, present, backends)
            async with (
                open_supervisor(around, report=options.announce) as supervisor,
                open_orchestrator(
                    journal,
                    supervisor,
                    kitchen,
                    live,
                    max_concurrent=config.orchestration.max_concurrent,
                    new_run_id=lambda: random_letters(6),
                    untold=untold,
                ) as orchestrator,
                open_quiet_watch(
                    QuietWatch(journal, live.all, live.wait_any, orchestrator.at_tool, time.monotonic),
                    report=options.announce,
                ),
            ):
                findings = await take_stock(journal, headless, boot)
                awaited, began_at = _awaited(options, findings, journal.world, backends), journal.world.seq
                await _recover(options, findings, journal, backends, orchestrator, supervisor)
                health = Health(journal.probe, lambda: journal.healthy, lambda: room.shortage)
                service = Service(
                    orchestrator,
                    bus,
                    service_surroundings(
                        options, configure, present, backends, tmux, health, journal.append_nowait, kitchen.treasury
                    ),
                )
                if not options.life.daemon:
                    options.life.enter(Phase.READY)
                yield Engine(
                    service,
                    orchestrator,
                    journal,
                    bus,
                    findings,
                    supervisor.detach_all,
                    ground,
                    Leaving(orchestrator, supervisor, bus, _disk_of(journal, root)),
                    awaited,
                    began_at,
                )
        # The very last thing: until it is there, an outcome counts as untold (`find_untold`).
        journal.append_nowait(ev.SupervisorStopped(options.life.farewell))


@asynccontextmanager
async def _open_journal(options: Options, lock: StateLock) -> AsyncGenerator[tuple[Journal, Bus, Ground], None]:
    ground = Ground(options.root.path, lock)
    buses: list[Bus] = []
    traces = await trio.to_thread.run_sync(_open_traces, options)

    def on_commit(records: Sequence[Record]) -> None:
        ground.look()
        for bus in buses:
            bus.publish(records)
        if traces is not None:
            for record in records:
                traces.record(record, journal.world)

    def announce(text: str) -> None:
        options.announce(text)
        # What cannot be written may have been taken away.
        ground.look()

    db = options.root.db
    async with open_journal(
        db,
        clock=options.clock,
        announce=announce,
        note=options.note,
        on_commit=on_commit,
        close_timeout=JOURNAL_CLOSE_TIMEOUT,
    ) as journal:

        def history(after: int, limit: int) -> list[Record]:
            return read_records(db, after=after, limit=limit)

        bus = Bus(history, position=journal.world.seq)
        buses.append(bus)
        try:
            yield journal, bus, ground
        finally:
            bus.close()
    if traces is not None:
        with trio.move_on_after(TRACES_CLOSE_TIMEOUT, shield=True):
            # Abandoned, if the collector makes us wait: nothing else depends on it.
            await trio.to_thread.run_sync(traces.close, abandon_on_cancel=True)


def _disk_of(journal: Journal, root: StateRoot) -> Disk:
    def note_stop(session_id: str, reason: StopReason) -> None:
        Records(os.fspath(root.session_dir(session_id))).note_stop(reason)

    return Disk(journal.wait_stuck, lambda: journal.unwritten, note_stop)


async def _require_room(root: StateRoot) -> None:
    """See whether there is room for new sessions.

    Raises:
        OSError: there is none.
    """
    await in_thread(root.require_space, ROOM, root.sessions)


def _open_traces(options: Options) -> Traces | None:
    """What exports traces, if they are asked for and can be had."""
    if not wanted(options.environ):
        return None
    try:
        from kasmos.telemetry.traces import Traces
    except ImportError:
        options.announce("traces are asked for, and opentelemetry is not installed: install kasmos[otel]")
        return None
    return Traces(__version__)


def _awaited(
    options: Options, findings: Findings, world: World, backends: Mapping[ExecutionMode, Backend]
) -> frozenset[str]:
    """The sessions that a run which goes on takes hold of again."""
    going = set(findings.to_continue if options.take_up else ())
    live = (view for view in world.sessions.values() if view.state.live and view.id not in findings.strays)
    return frozenset(view.id for view in live if view.run_id in going and view.backend in backends)


async def _recover(
    options: Options,
    findings: Findings,
    journal: Journal,
    backends: Mapping[ExecutionMode, Backend],
    orchestrator: Orchestrator,
    supervisor: Supervisor,
) -> None:
    for name in findings.unreadable:
        # Never removed: a program may run in it. Only a person can know whose it is.
        where = options.root.sessions / name
        options.announce(f"{where} does not say what runs in it and is left as it is: `kas doctor` shows its processes")
    for session_id in findings.strays:
        view = journal.world.sessions[session_id]
        backend = backends.get(view.backend)
        if backend is None:
            options.announce(f"session {view.name} ran in mode {view.backend}, which is not here: left as it is")
            continue
        supervisor.start_stray(session_id, partial(end_stray, journal, backend, view))
    if options.take_up:
        await orchestrator.recover_runs(findings.to_continue)
