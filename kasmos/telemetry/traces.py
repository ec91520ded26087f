"""Traces over OTLP: a span for each run, wave, task and session, made when it is over, from what the journal knows.

Exported by a thread of the library's own, in batches; when a collector does not answer, spans are dropped and nothing
waits. The one module that imports opentelemetry, which comes with the extra `kasmos[otel]`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, set_span_in_context

from kasmos.model import event as ev
from kasmos.model.event import Record
from kasmos.model.session import ExitStatus
from kasmos.model.task import Outcome
from kasmos.model.view import RunView, SessionView, TaskView, World
from kasmos.telemetry.spans import span_id, trace_id
from kasmos.telemetry.spending import ERROR_TYPE, Attributes, usage_attributes

EXPORT_TIMEOUT = 5.0
"""Seconds that the collector may take for a batch."""
CLOSE_TIMEOUT = 2.0
"""Seconds that the last batch may take when we leave."""


class _Ids(IdGenerator):
    """Gives out the ids that were decided."""

    def __init__(self) -> None:
        self.trace = 1
        self.span = 1

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        return self.span


class Traces:
    """Makes and exports spans. Used in the Trio thread; never blocks but in `close`.

    Args:
        version: of kasmos.
    """

    def __init__(self, version: str) -> None:
        # A daemon's log has what the library complains of; elsewhere nobody is told with every batch.
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
        self._ids = _Ids()
        resource = Resource.create({"service.name": "kasmos", "service.version": version})
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(timeout=int(EXPORT_TIMEOUT))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("kasmos", version)
        self._waves: dict[tuple[str, int], float] = {}

    def record(self, record: Record, world: World) -> None:
        """Something has happened, and the world knows it."""
        event = record.event
        match event:
            case ev.WaveStarted():
                self._waves[event.run_id, event.wave] = record.at
            case ev.SessionEnded() | ev.SessionLost() | ev.SessionStartFailed():
                session = world.sessions.get(event.session_id)
                if session is not None:
                    self._session(session, world, record.at)
            case ev.TaskEnded():
                run = world.runs.get(event.run_id)
                if run is not None and event.task_id in run.tasks:
                    self._task(run, run.tasks[event.task_id], world, event, record.at)
            case ev.WaveEnded():
                run = world.runs.get(event.run_id)
                if run is not None:
                    self._wave(run, event, record.at)
            case ev.RunEnded():
                run = world.runs.get(event.run_id)
                if run is not None:
                    self._run(run, event.outcome, record.at)

    def close(self) -> None:
        """Export what is left. Blocks, for as long as the collector makes us wait: call it in a thread."""
        self._provider.force_flush(int(CLOSE_TIMEOUT * 1000))
        self._provider.shutdown()

    # --- spans -----------------------------------------------------------------------

    def _session(self, session: SessionView, world: World, at: float) -> None:
        run = world.runs.get(session.run_id or "")
        if run is None:
            return
        said: Attributes = {
            "kasmos.session.id": session.id,
            "kasmos.session.kind": session.kind.value,
            "kasmos.backend": session.backend.value,
            "kasmos.agent": session.profile,
            "kasmos.attempt": session.attempt,
            "kasmos.state": session.state.value,
            "kasmos.output_bytes": session.output_bytes,
            **_exit(session.exit),
            **usage_attributes((session,), _requested(run, session.task_id)),
        }
        if session.stop_reason is not None:
            said["kasmos.stop_reason"] = session.stop_reason.value
        failure = _failure(session)
        if session.conclusion is not None and session.conclusion.failure is not None:
            said[ERROR_TYPE] = session.conclusion.failure.kind.value
        trace = trace_id(run.id, run.started_at)
        self._span(
            f"session {session.name}",
            trace,
            span_id(trace, "session", session.id),
            span_id(trace, "task", session.task_id or ""),
            (session.starting_at, session.ended_at or at),
            said,
            failure,
        )

    def _task(self, run: RunView, task: TaskView, world: World, event: ev.TaskEnded, at: float) -> None:
        sessions = (world.sessions[name] for name in task.sessions if name in world.sessions)
        said: Attributes = {
            "kasmos.task.id": task.id,
            "kasmos.outcome": event.outcome.value,
            "kasmos.cause": event.cause.kind.value,
            "kasmos.attempts": task.attempts,
            **_exit(event.cause.exit),
            **usage_attributes(sessions, task.spec.model or ""),
        }
        if event.cause.failure is not None:
            said[ERROR_TYPE] = event.cause.failure.value
        if event.cause.because_of:
            said["kasmos.because_of"] = ",".join(event.cause.because_of)
        trace = trace_id(run.id, run.started_at)
        self._span(
            f"task {task.spec.id}",
            trace,
            span_id(trace, "task", task.spec.id),
            span_id(trace, "wave", str(task.spec.wave)),
            (task.started_at or at, task.ended_at or at),
            said,
            "" if event.outcome is Outcome.SUCCEEDED else f"{event.outcome.value}: {event.cause.message}",
        )

    def _wave(self, run: RunView, event: ev.WaveEnded, at: float) -> None:
        trace = trace_id(run.id, run.started_at)
        # Begun under another supervisor: no earlier than the run.
        began = self._waves.pop((run.id, event.wave), run.started_at)
        failure = "" if event.outcome is Outcome.SUCCEEDED else event.outcome.value
        said: Attributes = {"kasmos.wave": event.wave, "kasmos.outcome": event.outcome.value}
        own, parent = span_id(trace, "wave", str(event.wave)), span_id(trace, "run")
        self._span(f"wave {event.wave}", trace, own, parent, (began, at), said, failure)

    def _run(self, run: RunView, outcome: Outcome, at: float) -> None:
        trace = trace_id(run.id, run.started_at)
        said: Attributes = {"kasmos.run.id": run.id, "kasmos.outcome": outcome.value, "kasmos.tasks": len(run.tasks)}
        failure = "" if outcome is Outcome.SUCCEEDED else outcome.value
        self._span(f"run {run.id}", trace, span_id(trace, "run"), None, (run.started_at, at), said, failure)

    def _span(
        self,
        name: str,
        trace: int,
        own: int,
        parent: int | None,
        times: tuple[float, float],
        attributes: Mapping[str, str | int | float | bool],
        failure: str,
    ) -> None:
        self._ids.trace, self._ids.span = trace, own
        context = None
        if parent is not None:
            above = SpanContext(trace, parent, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
            context = set_span_in_context(NonRecordingSpan(above))
        began, ended = times
        span = self._tracer.start_span(name, context, attributes=attributes, start_time=int(began * 1e9))
        if failure:
            span.set_status(Status(StatusCode.ERROR, failure))
        span.end(end_time=int(max(began, ended) * 1e9))


def _requested(run: RunView, task_id: str | None) -> str:
    task = run.tasks.get(task_id or "")
    return (task.spec.model or "") if task is not None else ""


def _failure(session: SessionView) -> str:
    """What a session failed by; nothing if it succeeded. Where its program's own word decides, that is told."""
    said = session.conclusion
    if said is not None and session.exit is not None:
        if said.outcome is Outcome.SUCCEEDED:
            return ""
        return f"{said.failure.kind}: {said.failure.message}" if said.failure is not None else said.outcome.value
    failed = session.exit is None or not session.exit.succeeded
    return str(session.exit or session.state.value) if failed else ""


def _exit(status: ExitStatus | None) -> Attributes:
    if status is None:
        return {}
    if status.signal is not None:
        return {"kasmos.exit.signal": status.signal}
    return {} if status.code is None else {"kasmos.exit.code": status.code}
