"""The composition root: the nursery tree of the whole process, to be read in one sitting.

    state lock -> journal -> bus -> sessions -> supervisor -> orchestrator -> API

What opens later closes earlier. Signals never cancel anything here: they set an event, the body leaves, and the
levels close from the inside, each within its own bound. `kas run` is this tree with one plan in it.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import attrs
import trio

from kasmos import __version__
from kasmos.config.addresses import split_address
from kasmos.config.schema import Config, Daemon
from kasmos.daemon.access import check_policy, policy_of
from kasmos.daemon.bus import Bus
from kasmos.daemon.door import Door
from kasmos.daemon.held import Reread
from kasmos.daemon.leaving import Leaving, count_waiting
from kasmos.daemon.life import Health, Life, Phase
from kasmos.daemon.recovery import Findings, end_stray, find_untold, take_stock
from kasmos.daemon.service import Service
from kasmos.daemon.service import Surroundings as ServiceSurroundings
from kasmos.exceptions import StoreError
from kasmos.model import event as ev
from kasmos.model.approval import ApprovalState
from kasmos.model.clock import Clock
from kasmos.model.event import Record
from kasmos.model.profile import ExecutionMode
from kasmos.model.view import SessionView, World
from kasmos.orchestration.assembly import Kitchen
from kasmos.orchestration.budgets import Place, Shortage
from kasmos.orchestration.orchestrator import LiveSessions, Orchestrator, open_orchestrator
from kasmos.orchestration.treasury import Treasury
from kasmos.screens import PROJECT_RULES, rules_for
from kasmos.sessions import layout
from kasmos.sessions.headless import open_headless
from kasmos.sessions.protocol import Backend, ExecutionSession, OutputChunk
from kasmos.sessions.registry import require_backend
from kasmos.sessions.scripted import ScriptedBackend
from kasmos.sessions.tmux_backend import TmuxBackend, open_tmux
from kasmos.store.journal import Journal, open_journal, read_records
from kasmos.store.lock import StateLock, boot_id
from kasmos.store.stateroot import StateRoot
from kasmos.supervision.recipe import Surroundings
from kasmos.supervision.supervisor import Supervisor, open_supervisor
from kasmos.supervision.termination import terminate
from kasmos.telemetry.sources import Sources
from kasmos.telemetry.spans import wanted

if TYPE_CHECKING:
    from kasmos.telemetry.traces import Traces

LOCK_WAIT = 2.0
"""Seconds to wait for the lock: a child of a killed supervisor holds it until its `exec`."""
JOURNAL_CLOSE_TIMEOUT = 5.0
"""Seconds that are waited, when the supervisor leaves, for a disk that takes nothing."""
TRACES_CLOSE_TIMEOUT = 2.5
"""Seconds that a collector of traces is waited for when the supervisor leaves."""
API_GRACE = 2.0
"""Seconds that readers of the API are given when the supervisor leaves."""


@attrs.frozen
class Options:
    """What a supervisor is started with."""

    project: Path
    root: StateRoot
    configure: Callable[[Mapping[str, object]], Config]
    """Gives the configuration in force, with these key paths on top. Blocks on the disk."""
    environ: Mapping[str, str] = attrs.field(repr=False)
    announce: Callable[[str], None]
    """Tells the person at the terminal, or the log, what they should know."""
    lock_wait: float = LOCK_WAIT
    take_up: bool = True
    """Whether runs that an earlier supervisor left under way go on by themselves, or wait until they are asked for."""
    clock: Clock = Clock(time.time, time.monotonic)
    life: Life = attrs.field(factory=Life)
    present: Callable[[], Config] | None = None
    """What is in force, read from nowhere. Without it, *configure* puts in force what it reads: see `Reread`."""
    workspace_root: Path | None = None
    """Where tasks run, if it is not in the project itself."""
    may_ask: bool = True
    """Whether a person is there to see to an account that is refused; if not, its tasks fail."""


class Ground:
    """What the supervisor stands on: the lock of its state root. It is looked at with every commit."""

    def __init__(self, root: Path, lock: StateLock) -> None:
        self.root = root
        self.lost = trio.Event()
        """Set when the lock's file is not ours any more: another supervisor may be at work."""
        self._lock = lock

    def look(self) -> None:
        """See whether it is still there."""
        if not self._lock.still_ours():
            self.lost.set()


_IN_HAND = (ev.SessionAdopted, ev.SessionEnded, ev.SessionLost, ev.SessionNeverStarted, ev.SessionStartFailed)
"""What is recorded when a session that was left is in hand again."""


@attrs.frozen
class Engine:
    """A supervisor at work."""

    service: Service
    orchestrator: Orchestrator
    journal: Journal
    bus: Bus
    findings: Findings
    """What recovery found; runs in `to_continue` are under way again, if they were to be taken up."""
    abandon: Callable[[], None]
    """Leaves every running program to the next supervisor; never blocks. Cancel the scope afterwards."""
    ground: Ground
    """What it all stands on; see `watch_ground`."""
    leaving: Leaving
    """How a daemon leaves."""
    awaited: frozenset[str] = frozenset()
    """Sessions of an earlier supervisor that were to be taken up again when this one began."""
    began_at: int = 0
    """Journal number before anything was taken up."""

    async def wait_adopted(self) -> None:
        """Wait until every session that an earlier supervisor left is in hand again, or known to be over."""
        missing = set(self.awaited)
        if not missing:
            return
        async with self.bus.subscribe(self.began_at) as batches:
            async for records in batches:
                missing -= {record.event.session_id for record in records if isinstance(record.event, _IN_HAND)}
                if not missing:
                    return

    async def watch_ground(self) -> NoReturn:
        """Wait until the state root is not ours any more; programs are then left running.

        Raises:
            StoreError: that has happened.
        """
        await self.ground.lost.wait()
        running = ", ".join(f"{session.spec.name} (pid {session.pid})" for session in self.orchestrator.live_sessions)
        self.abandon()
        left = f"; left running: {running}" if running else ""
        raise StoreError(
            f"the state root {self.ground.root} was removed or replaced under this supervisor: "
            f"it begins nothing more and leaves{left}"
        )

    async def serve_api(self, socket: Path, shutdown: trio.Event, announce: Callable[[str], None]) -> None:
        """Serve the API until *shutdown* is set. A socket that cannot be had is announced and ends nothing.

        Cancellation: cuts readers off.
        """
        started_at = time.time()
        try:
            door = Door(socket)
            try:
                api = await _import_api_unless(shutdown, door)
                if api is not None:
                    app = api.create_app(self.service, started_at=started_at)
                    await api.serve_api(app, socket, shutdown=shutdown, grace=API_GRACE, door=door)
            finally:
                door.close()
        # Whatever is wrong with the door, the work behind it goes on.
        except Exception as error:
            causes = error.exceptions if isinstance(error, ExceptionGroup) else [error]
            why = "; ".join(str(cause) or type(cause).__name__ for cause in causes)
            announce(f"the API cannot be served, so `kas stop` and its like will not reach this supervisor: {why}")

    def sources(self) -> Sources:
        """What metrics ask for."""
        # Imported by `listen`, before anybody can ask.
        return Sources(
            world=lambda: self.journal.world,
            queued=lambda: count_waiting(self.journal.world),
            running=lambda: [
                (session.spec.backend.value, session.spec.profile, session.output_bytes)
                for session in self.orchestrator.live_sessions
            ],
            approvals=lambda: _pending(self.journal.world),
            readers=lambda: self.bus.subscribers,
            dropped=lambda: _Api().readers_dropped(),
            ready=lambda: self.service.life.ready,
        )

    async def listen(
        self,
        said: Daemon,
        socket: Path,
        shutdown: trio.Event,
        *,
        task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve the API of a daemon until *shutdown* is set. Reports where it listens once clients can connect.

        Raises:
            StoreError: an address or the socket cannot be had.
            ConfigError: what it is to listen on would let anybody in.

        Cancellation: cuts readers off.
        """
        policy = policy_of(said, self.service.project)
        await trio.to_thread.run_sync(check_policy, policy, said.listen)
        api = await trio.to_thread.run_sync(_Api, abandon_on_cancel=True)
        app = api.create_app(self.service, started_at=time.time(), policy=policy)
        async with trio.open_nursery() as nursery:
            serve_all = partial(api.serve_api, app, socket, listen=said.listen, shutdown=shutdown, grace=API_GRACE)
            addresses = [str(socket), *await nursery.start(serve_all)]
            exposition = self.service.life.exposition
            if said.metrics is not None and exposition is not None:
                metrics = api.create_metrics_app(exposition)
                serve = partial(
                    api.serve_tcp, metrics, *split_address(said.metrics), shutdown=shutdown, grace=API_GRACE
                )
                addresses.append(f"{await nursery.start(serve)}/metrics")
            task_status.started(tuple(addresses))


def _pending(world: World) -> int:
    """How many questions of agents wait for a human."""
    return sum(1 for approval in world.approvals.values() if approval.state is ApprovalState.OPEN)


class _Api:
    """The web stack, imported late."""

    def __init__(self) -> None:
        from kasmos.api.app import create_app
        from kasmos.api.metrics import create_metrics_app
        from kasmos.api.server import readers_dropped, serve_api, serve_tcp

        self.create_app = create_app
        self.create_metrics_app = create_metrics_app
        self.serve_api = serve_api
        self.serve_tcp = serve_tcp
        self.readers_dropped = readers_dropped


def import_web_stack() -> None:
    """Import what the API needs, which takes half a second. Blocks: in a thread, it is done beside other things."""
    _Api()


async def _import_api_unless(shutdown: trio.Event, door: Door) -> _Api | None:
    """Import the web stack when somebody is at the door; None when *shutdown* is set before that is done."""
    found: list[_Api] = []
    async with trio.open_nursery() as nursery:

        async def give_up() -> None:
            await shutdown.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(give_up)
        await door.wait_knock()
        # In a thread: it takes half a second, and the work is under way.
        found.append(await trio.to_thread.run_sync(_Api, abandon_on_cancel=True))
        nursery.cancel_scope.cancel()
    return found[0] if found else None


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
    configure, present = _in_force(options)
    config = present()
    async with root.acquire_lock(options.lock_wait) as lock, _open_journal(options, lock) as (journal, bus, ground):
        root.place_socket()
        boot = boot_id()
        untold = find_untold(journal.world, lambda seq: read_records(root.db, after=seq))
        await journal.append(ev.SupervisorStarted(os.getpid(), boot, __version__))
        live = LiveSessions()
        async with (
            open_headless(
                root.path,
                terminate=terminate,
                boot_id=boot,
                warn=options.announce,
                with_cgroups=config.orchestration.cgroups,
            ) as headless,
            open_tmux(root.path, headless, environ=options.environ) as tmux,
        ):
            backends: dict[ExecutionMode, Backend] = {
                ExecutionMode.HEADLESS: headless,
                ExecutionMode.TMUX: tmux,
                ExecutionMode.SCRIPTED: ScriptedBackend(terminate=terminate),
            }

            def started(session: ExecutionSession) -> None:
                live.started(session)
                try:
                    root.link_log(session.spec.name, session.spec.id)
                except StoreError as error:
                    # A convenience for people: the program runs, and its log is where it always is.
                    options.announce(str(error))

            around = Surroundings(journal, boot, time.monotonic, random.random, started, live.ended)
            kitchen = _kitchen(options, present, backends)
            async with (
                open_supervisor(around, report=options.announce) as supervisor,
                open_orchestrator(
                    journal,
                    supervisor,
                    kitchen,
                    live,
                    max_concurrent=config.orchestration.max_concurrent,
                    new_run_id=lambda: _letters(6),
                    untold=untold,
                ) as orchestrator,
            ):
                findings = await take_stock(journal, headless, boot)
                awaited, began_at = _awaited(options, findings, journal.world, backends), journal.world.seq
                await _recover(options, findings, journal, backends, orchestrator, supervisor)
                health = Health(journal.probe, lambda: journal.healthy)
                service = Service(
                    orchestrator,
                    bus,
                    _service_surroundings(
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
                    Leaving(orchestrator, supervisor, bus),
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
        db, clock=options.clock, announce=announce, on_commit=on_commit, close_timeout=JOURNAL_CLOSE_TIMEOUT
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


def _in_force(options: Options) -> tuple[Callable[[Mapping[str, object]], Config], Callable[[], Config]]:
    """How a submission is configured, and what sessions are made of: always one and the same configuration."""
    if options.present is not None:
        return options.configure, options.present
    reread = Reread(options.configure)
    return reread.configure, reread.present


def _kitchen(options: Options, present: Callable[[], Config], backends: Mapping[ExecutionMode, Backend]) -> Kitchen:
    config = present()
    return Kitchen(
        profiles=lambda: present().agents,
        environ=options.environ,
        traced=wanted(options.environ),
        backends=backends,
        new_suffix=lambda: _letters(5),
        buffer_bytes=config.logs.buffer_bytes,
        max_log_bytes=config.logs.max_bytes,
        screen_rules=partial(rules_for, directories=(options.project / PROJECT_RULES,)),
        context_path=lambda session_id: str(options.root.session_dir(session_id) / layout.CONTEXT),
        treasury=Treasury(
            budgets=lambda: present().budgets,
            prices=lambda: present().prices,
            wall=options.clock.wall,
            may_ask=options.may_ask,
        ),
    )


def _service_surroundings(
    options: Options,
    configure: Callable[[Mapping[str, object]], Config],
    present: Callable[[], Config],
    backends: Mapping[ExecutionMode, Backend],
    tmux: TmuxBackend,
    health: Health,
    record: Callable[[ev.Event], object],
    treasury: Treasury,
) -> ServiceSurroundings:
    def read_ended(view: SessionView, offset: int, limit: int) -> OutputChunk:
        return require_backend(backends, view.backend).read_output(view.id, offset, limit)

    def last_screen(view: SessionView) -> str | None:
        return tmux.last_screen(view.id) if view.backend is ExecutionMode.TMUX else None

    return ServiceSurroundings(
        project=str(options.workspace_root or options.project),
        configure=configure,
        present=present,
        read_ended=read_ended,
        last_screen=last_screen,
        last_output_at=partial(_last_output_at, options.root),
        life=options.life,
        health=health,
        shortage=partial(_shortage, present, treasury),
        retry_after=treasury.retry_after,
        record=record,
        environ=options.environ,
    )


def _shortage(present: Callable[[], Config], treasury: Treasury, world: World, agent: str | None) -> Shortage | None:
    """Why an agent, or anybody, may spend nothing more; scripts spend nothing."""
    profile = present().agents.get(agent or "")
    if profile is not None and not profile.metered:
        return None
    account = profile.account_name if profile is not None else ""
    return treasury.shortage(world, Place(agent=agent or "", account=account))


def _last_output_at(root: StateRoot, session_id: str) -> float | None:
    try:
        found = os.stat(root.session_dir(session_id) / layout.OUTPUT)
    except OSError:
        return None
    return found.st_mtime if found.st_size else None


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


_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def _letters(count: int) -> str:
    """Random letters without look-alikes, the first one never a digit."""
    number = secrets.randbits(5 * count + 16)
    number, index = divmod(number, 23)
    letters = [_ALPHABET[index]]
    for _ in range(count - 1):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)
