"""Being the daemon: up, at work until it is told to leave, and out in order.

The order of the beginning: state lock, journal, fold, adoption, workers, listeners. It is ready when everything that
an earlier supervisor left is in hand again. The order of the end is the reverse.
"""

from __future__ import annotations

import os
import signal
from functools import partial

import trio

from kasmos import __version__
from kasmos.cli.awaiting import first
from kasmos.cli.daemon.background import Pipe, Word
from kasmos.cli.daemon.keeping import keep_tidy
from kasmos.cli.garbage import settle
from kasmos.cli.main import REFUSED
from kasmos.cli.request import Place
from kasmos.config.schema import OnStop
from kasmos.daemon.held import Held
from kasmos.daemon.leaving import Departure
from kasmos.daemon.life import Exposition, Life, Phase, Reloaded, StopOrder
from kasmos.exceptions import ConfigError
from kasmos.lanes import in_thread_or_here
from kasmos.serve import Engine, Options, import_later, import_web_stack, listen, open_engine
from kasmos.telemetry.logs import Log
from kasmos.telemetry.metrics import CONTENT_TYPE, LoopWatch, Metrics
from kasmos.telemetry.notify import Notifier, watchdog_interval

ADOPTION_PATIENCE = 30.0
"""Seconds after which the service manager is told that we are up, even if a session could not be taken up yet."""
LEAVE_GRACE = 2.5
"""Seconds that readers of the API are given when the daemon leaves."""
LAST_GRACE = 20.0
"""Seconds after which a daemon that has left is gone, even if a thread of it still waits for a disk that hangs."""
START_GRACE = 5.0
"""Seconds to wait for the lock: a daemon that is just leaving holds it a moment longer."""


class Standing:
    """One daemon, from its start to its end."""

    def __init__(self, place: Place, held: Held, log: Log, pipe: Pipe) -> None:
        self._place = place
        self._held = held
        self._log = log
        self._pipe = pipe
        self._life = Life(daemon=True, reload=self._reload)
        self._engine: Engine | None = None
        self._notifier = Notifier.of(place.environ)
        self._root = trio.CancelScope()
        self._signals = 0
        self._left = trio.Event()
        """Set when nothing is waited for any more but that everything is closed."""

    async def run(self) -> int:
        """Live; the exit status.

        Raises:
            StateLockedError: another supervisor owns the state root; perhaps within a group.
            KasmosError: it could not come up.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self._receive_signals)
            nursery.start_soon(self._go_anyway)
            # Beside the journal, which is read in another thread: both take a while.
            nursery.start_soon(partial(trio.to_thread.run_sync, import_web_stack, abandon_on_cancel=True))
            with self._root:
                async with open_engine(self._options()) as engine:
                    self._engine = engine
                    metrics = self._measure(engine)
                    await self._work(engine, metrics)
            nursery.cancel_scope.cancel()
        self._log.info("daemon left", what=self._life.farewell)
        return 0

    def _options(self) -> Options:
        place, config = self._place, self._held.config
        said = config.daemon.workspace_root
        return Options(
            project=place.project,
            root=place.root,
            configure=self._held.configure,
            environ=place.environ,
            announce=self._log.warning,
            note=self._log.info,
            lock_wait=START_GRACE,
            life=self._life,
            present=self._held.present,
            workspace_root=(place.project / said).resolve() if said is not None else None,
            stays=True,
        )

    def _measure(self, engine: Engine) -> Metrics:
        metrics = Metrics(engine.sources(), __version__)
        engine.journal.measure = metrics.written
        self._life.exposition = Exposition(metrics.render, CONTENT_TYPE)
        trio.lowlevel.add_instrument(LoopWatch(metrics.turned))
        return metrics

    # --- at work ---------------------------------------------------------------------

    async def _work(self, engine: Engine, metrics: Metrics) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.watch_ground)
            await self._serve_until_told(engine, metrics)
            nursery.cancel_scope.cancel()

    async def _serve_until_told(self, engine: Engine, metrics: Metrics) -> None:
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            serve = partial(listen, engine.service, self._held.config.daemon, self._place.root.socket, over)
            self._life.addresses = await nursery.start(serve)
            nursery.start_soon(self._tell, engine, metrics)
            nursery.start_soon(self._come_up, engine)
            async with trio.open_nursery() as beside:
                beside.start_soon(self._beat, engine)
                beside.start_soon(keep_tidy, engine, self._held, self._place.root, self._log)
                await self._life.ordered.wait()
                await self._leave(engine)
                await engine.leaving.wait_unless_stuck(engine.journal.flush)
                self._left.set()
                over.set()
                nursery.cancel_scope.deadline = trio.current_time() + LEAVE_GRACE
                engine.bus.close()
                # These two would go on until the grace is over, which is for readers.
                beside.cancel_scope.cancel()

    async def _come_up(self, engine: Engine) -> None:
        settle()
        with trio.move_on_after(ADOPTION_PATIENCE) as patience:
            await engine.wait_adopted()
        if patience.cancelled_caught:
            self._log.warning("sessions of an earlier supervisor are not in hand yet", count=len(engine.awaited))
        else:
            self._life.enter(Phase.READY)
        self._notifier.ready(f"listens on {', '.join(self._life.addresses)}")
        self._pipe.say(Word(True, pid=os.getpid(), addresses=self._life.addresses))
        self._log.info(
            "daemon ready", addresses=list(self._life.addresses), adopted=len(engine.awaited), pid=os.getpid()
        )
        await in_thread_or_here(import_later)
        settle()
        if patience.cancelled_caught:
            await engine.wait_adopted()
            self._life.enter(Phase.READY)

    async def _tell(self, engine: Engine, metrics: Metrics) -> None:
        """Log and count what happens."""
        async with engine.bus.subscribe(engine.began_at) as batches:
            async for records in batches:
                for record in records:
                    self._log.record(record)
                    metrics.record(record)

    async def _beat(self, engine: Engine) -> None:
        """Tell the service manager that we are well, as long as we are."""
        interval = watchdog_interval(self._place.environ)
        while interval is not None:
            verdict = await engine.service.health.check()
            if not verdict.stuck:
                self._notifier.watchdog()
            for problem in verdict.problems:
                self._log.error("not well", problem=problem)
            await trio.sleep(interval / 3)

    # --- changes ---------------------------------------------------------------------

    async def _reload(self) -> Reloaded:
        self._notifier.reloading()
        try:
            change = await trio.to_thread.run_sync(self._held.reload)
            if self._engine is not None:
                self._engine.orchestrator.max_concurrent = self._held.config.orchestration.max_concurrent
        except ConfigError as error:
            self._log.error("reload refused, the old configuration stays", mistakes=str(error))
            raise
        finally:
            self._notifier.ready()
        self._log.info("configuration reloaded", applied=list(change.applied), needs_restart=list(change.restart))
        return change

    async def _receive_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            task_status.started()
            async for number in received:
                if number == signal.SIGHUP:
                    try:
                        await self._reload()
                    except ConfigError:
                        continue  # it has been told, and the old one stays
                else:
                    self._heed(signal.Signals(number).name)

    def _heed(self, name: str) -> None:
        """First: leave as configured. Second: at once. Third: leave everything running, and go."""
        self._signals += 1
        engine = self._engine
        if engine is None:
            # Nothing has been begun that would have to be put in order.
            self._root.cancel()
            return
        match self._signals:
            case 1:
                self._log.info("stopping", signal=name)
                self._life.request_stop(StopOrder(reason=f"received {name}"))
            case 2:
                self._log.warning("stopping at once", signal=name)
                engine.leaving.hurry()
            case _:
                self._log.warning("leaving everything running", signal=name)
                engine.abandon()
                self._left.set()
                self._root.cancel()

    # --- out -------------------------------------------------------------------------

    async def _leave(self, engine: Engine) -> None:
        order = self._life.order
        assert order is not None
        self._notifier.stopping(order.reason)
        self._log.info("leaving", phase=str(self._life.phase), reason=order.reason)
        drained = order.drain and await self._drain(engine, order)
        order = self._life.order or order
        stop = self._held.config.daemon.on_stop is OnStop.STOP if order.stop is None else order.stop
        if order.drain and order.stop is None:
            # Its time is over, and nobody has said that work may be thrown away.
            stop = False
        self._life.enter(Phase.STOPPING)
        departure = await engine.leaving.depart(order.reason, stop=stop)
        self._life.farewell = _farewell(departure, drained=drained)
        if departure.unwritten:
            self._log.error("leaving without a record of it", what=self._life.farewell)

    async def _go_anyway(self) -> None:
        await self._left.wait()
        await trio.sleep(LAST_GRACE)
        # As safe as any kill: what is durable stands, and what runs is found by the next daemon.
        self._log.error("gone, although something of it still waits for the disk", waited=LAST_GRACE)
        os._exit(REFUSED)

    async def _drain(self, engine: Engine, order: StopOrder) -> bool:
        """Wait for what runs; False when the time was over, or a plain stop cut it short."""
        timeout = self._held.config.daemon.drain_timeout if order.timeout is None else order.timeout
        self._notifier.extend(timeout + LEAVE_GRACE)
        drained = False

        async def drain() -> None:
            nonlocal drained
            await engine.leaving.drain(order.reason)
            drained = True

        async def overruled() -> None:
            while self._life.order is order:
                await self._life.wait_change()

        with trio.move_on_after(timeout):
            await first(drain, overruled)
        return drained


def _farewell(departure: Departure, *, drained: bool) -> str:
    return f"drained; {departure}" if drained else str(departure)
