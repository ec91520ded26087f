"""What a daemon counts, for Prometheus: fed by the journal's records, and asked for its gauges when it is scraped.

Nothing here looks by the clock. The one module that imports prometheus_client.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping

import trio
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from kasmos.model import event as ev
from kasmos.model import usage
from kasmos.model.event import Record
from kasmos.model.view import SessionView, World
from kasmos.telemetry.sources import Sources

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Of what `Metrics.render` gives."""

_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LONG = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14_400, 43_200)
_BATCH = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """The metrics of one daemon, in a registry of their own."""

    def __init__(self, sources: Sources, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library says nothing of it
        self._sources = sources
        self._version = version
        self._registry = registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"kasmos_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"kasmos_{name}", what, labels, buckets=buckets, registry=registry)

        self._tasks = counter("tasks_ended", "Tasks that have their outcome.", "outcome")
        self._task_seconds = histogram(
            "task_duration_seconds", "From the start of a task's first session to its outcome.", _LONG, "outcome"
        )
        self._runs = counter("runs_ended", "Runs that have ended.", "outcome")
        self._sessions = counter("sessions_started", "Programs that were started.", "backend", "kind")
        self._session_seconds = histogram(
            "session_duration_seconds", "From a program's start to its end.", _LONG, "backend", "kind"
        )
        self._start_seconds = histogram(
            "session_start_seconds", "From the decision to start a program until it runs.", _SHORT, "backend"
        )
        self._failed_starts = counter("session_start_failures", "Programs that could not be started.", "backend")
        self._restarts = counter("task_restarts", "Attempts that did not succeed and are followed by another.")
        self._adopted = counter("sessions_adopted", "Programs of an earlier supervisor that were taken hold of again.")
        self._lost = counter("sessions_lost", "Programs whose fate can no longer be learnt.")
        self._killed = counter("sessions_killed", "Programs that had to be killed.")
        self._output = counter("output_bytes", "Bytes that programs which have ended had written.")
        self._events = counter("journal_events", "Events that were recorded.")
        self._batch = histogram("journal_batch_events", "Events in one transaction of the journal.", _BATCH)
        self._commit = histogram("journal_commit_seconds", "How long a transaction of the journal took.", _SHORT)
        self._loop = histogram("loop_turn_seconds", "How long everybody else waited for a turn of the loop.", _SHORT)
        registry.register(_Gauges(self))
        ProcessCollector(registry=registry)

    def render(self) -> bytes:
        """Everything, in the text format of Prometheus."""
        return generate_latest(self._registry)

    # --- being fed -------------------------------------------------------------------

    def written(self, events: int, seconds: float) -> None:
        """The journal has made a transaction durable."""
        self._batch.observe(events)
        self._commit.observe(seconds)

    def turned(self, seconds: float) -> None:
        """The loop has made a turn that kept everybody else waiting for so long."""
        self._loop.observe(seconds)

    def record(self, record: Record) -> None:
        """Something has happened; the world has been told already."""
        self._events.inc()
        event, world = record.event, self._sources.world()
        match event:
            case ev.TaskRetryScheduled():
                self._restarts.inc()
            case ev.TaskEnded():
                self._task_ended(event, world)
            case ev.RunEnded():
                self._runs.labels(event.outcome.value).inc()
            case _:
                session = world.sessions.get(getattr(event, "session_id", ""))
                if session is not None:
                    self._session(event, session, record.mono)

    def _task_ended(self, event: ev.TaskEnded, world: World) -> None:
        self._tasks.labels(event.outcome.value).inc()
        run = world.runs.get(event.run_id)
        task = run.tasks.get(event.task_id) if run is not None else None
        if task is not None and task.started_mono is not None and task.ended_mono is not None:
            self._task_seconds.labels(event.outcome.value).observe(max(0.0, task.ended_mono - task.started_mono))

    def _session(self, event: ev.Event, session: SessionView, mono: float) -> None:
        backend, kind = session.backend.value, session.kind.value
        match event:
            case ev.SessionStarted():
                self._sessions.labels(backend, kind).inc()
                self._start_seconds.labels(backend).observe(max(0.0, mono - session.starting_mono))
            case ev.SessionAdopted():
                self._adopted.inc()
            case ev.SessionStartFailed():
                self._failed_starts.labels(backend).inc()
            case ev.SessionLost():
                self._lost.inc()
            case ev.KillSent():
                self._killed.inc()
            case ev.SessionEnded():
                self._output.inc(event.output_bytes)
                if session.started_mono is not None and session.ended_mono is not None:
                    seconds = max(0.0, session.ended_mono - session.started_mono)
                    self._session_seconds.labels(backend, kind).observe(seconds)


class _Gauges:
    """What is asked for at the moment of a scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        sources = self._metrics._sources
        plain: Mapping[str, tuple[str, float]] = {
            "tasks_queued": ("Tasks that wait for their turn.", sources.queued()),
            "approvals_pending": ("Questions of agents that wait for a human.", sources.approvals()),
            "event_readers": ("Who listens to events.", sources.readers()),
            "readers_dropped": ("Readers that were dropped because they did not read.", sources.dropped()),
            "ready": ("1 while new work is taken.", float(sources.ready())),
            "journal_position": ("Number of the newest event.", sources.world().seq),
        }
        for name, (what, value) in plain.items():
            yield GaugeMetricFamily(f"kasmos_{name}", what, value)
        info = GaugeMetricFamily("kasmos_build_info", "The version that runs.", labels=["version"])
        info.add_metric([self._metrics._version], 1)
        yield info
        yield from self._spent(sources.world())
        yield from self._running(list(sources.running()))

    def _running(self, sessions: list[tuple[str, str, int]]) -> Iterator[GaugeMetricFamily]:
        count = GaugeMetricFamily("kasmos_sessions_running", "Programs that run.", labels=["backend", "agent"])
        for (backend, agent), number in sorted(Tally((one[0], one[1]) for one in sessions).items()):
            count.add_metric([backend, agent], number)
        yield count
        live = sum(size for _, _, size in sessions)
        yield GaugeMetricFamily("kasmos_live_output_bytes", "Bytes that programs which run have written so far.", live)

    def _spent(self, world: World) -> Iterator[Metric]:
        """From the ledger, so that counters go on over restarts and over what is forgotten."""
        by = ["agent", "account"]
        tokens = CounterMetricFamily("kasmos_tokens", "Tokens that agents have used.", labels=[*by, "kind", "source"])
        what = "What agents have cost, as far as it is known."
        cost = CounterMetricFamily("kasmos_cost_usd", what, labels=[*by, "source"])
        unknown = GaugeMetricFamily("kasmos_cost_unknown_sessions", "Sessions whose cost is not known.", labels=by)
        sums: dict[tuple[str, str], usage.Tally] = {}
        for entry in world.ledger.entries():
            key = (entry.agent, entry.account)
            sums[key] = sums.get(key, usage.Tally()) + entry.tally
        for key, tally in sorted(sums.items(), key=lambda item: item[0]):
            for kind in ("input", "output", "cached", "cache_write", "reasoning"):
                for source, value in _known(getattr(tally, kind)):
                    tokens.add_metric([*key, kind, source], value)
            for source, value in _known(tally.cost):
                cost.add_metric([*key, source], value)
            unknown.add_metric(list(key), tally.cost.unknown)
        yield from (tokens, cost, unknown)
        what = "Before that instant nothing was to be started on an account; +Inf waits for a person."
        parked = GaugeMetricFamily("kasmos_account_parked_until_seconds", what, labels=["account", "kind"])
        for view in world.accounts.values():
            if view.parked is not None:
                until = view.parked.until_at
                parked.add_metric([view.name, view.parked.kind.value], float("inf") if until is None else until)
        yield parked

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing in advance: to be registered must not ask for anything."""
        return []


def _known(figure: usage.Figure) -> list[tuple[str, float]]:
    """The parts of a sum that are not nothing, by source."""
    parts = (("reported", figure.reported), ("priced", figure.priced), ("estimated", figure.estimated))
    return [(source, max(0.0, round(value, 6))) for source, value in parts if round(value, 6)]


class LoopWatch(trio.abc.Instrument):
    """Measures the turns of the loop from inside: no timer, and nothing to be woken by."""

    def __init__(self, turned: Callable[[float], None]) -> None:
        self._turned = turned
        self._began: float | None = None

    def after_io_wait(self, timeout: float) -> None:
        """A turn begins."""
        self._began = trio.current_time()

    def before_io_wait(self, timeout: float) -> None:
        """A turn has ended."""
        if self._began is not None:
            self._turned(max(0.0, trio.current_time() - self._began))
