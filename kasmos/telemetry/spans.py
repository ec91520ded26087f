"""The ids of traces and spans: made from the ids of runs and sessions, so that every supervisor makes the same. Pure.

So an agent can be told its place in a trace before anything of it is exported, and a supervisor that adopts a session
goes on with the trace of the one before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""Where traces are sent; that it is set switches them on."""
VARIABLE_OF_TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
"""The same for traces only."""


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether traces are asked for."""
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    return not off and bool(environ.get(VARIABLE) or environ.get(VARIABLE_OF_TRACES))


def trace_id(run_id: str, began_at: float) -> int:
    """The trace of a run; *began_at* tells apart runs of the same id in different state roots."""
    return _number(f"run {run_id} {began_at!r}", 16)


def span_id(trace: int, what: str, name: str = "") -> int:
    """A span in a trace."""
    return _number(f"{trace} {what} {name}", 8)


def traceparent(run_id: str, began_at: float, session_id: str) -> str:
    """The `TRACEPARENT` of a session's program: W3C Trace Context, sampled."""
    trace = trace_id(run_id, began_at)
    return f"00-{trace:032x}-{span_id(trace, 'session', session_id):016x}-01"


def _number(text: str, size: int) -> int:
    # Never 0, which means none.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size]) or 1
