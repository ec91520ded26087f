"""Traces: what a collector receives, and that one that is dead delays nothing."""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ..conftest import Kas, PatientKas
from ..faults.oracle import Scene, Task
from ..waiting import LIMIT

PLAN = """## Wave 1
### Task 1: Work
```toml kasmos
checks = ["true"]
```
Do it.
"""


PATIENCE = {
    "kasmos.serve.tree.TRACES_CLOSE_TIMEOUT": LIMIT,
    "kasmos.telemetry.traces.CLOSE_TIMEOUT": LIMIT,
    "kasmos.telemetry.traces.EXPORT_TIMEOUT": LIMIT,
}
"""For a collector that is there, however long a busy machine takes to receive the last spans."""


class Collector:
    """A real receiver of OTLP over HTTP."""

    def __init__(self) -> None:
        spans = self.spans = []  # type: ignore[var-annotated]  # protobuf's types have no stubs

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    data = gzip.decompress(data)
                for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
                    for scope in resource.scope_spans:
                        spans.extend(scope.spans)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def scene(kas: Kas) -> Scene:
    return Scene(kas)


def test_spans_of_a_run(kas: Kas, collector: Collector) -> None:
    """The endpoint alone switches traces on: each span has outcome and cause, the agent its place."""
    scene = Scene(PatientKas(kas.cwd, PATIENCE))
    scene.write_plan([Task('echo "parent $TRACEPARENT"; done_'), Task("exit 3")])
    result = scene.run(env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address})
    assert result.code == 1, result.stderr
    run = scene.only_run()
    spans = {span.name.partition(" ")[0] + span.name[-2:]: span for span in collector.spans}
    names = sorted(span.name.partition(" ")[0] for span in collector.spans)
    assert names == ["run", "session", "session", "task", "task", "wave"]
    (root,) = [span for span in collector.spans if span.name == f"run {run.id}"]
    assert root.parent_span_id == b""
    assert {span.trace_id for span in collector.spans} == {root.trace_id}
    by_id = {span.span_id: span for span in collector.spans}
    for span in collector.spans:
        above = {"wave": "run", "task": "wave", "session": "task"}.get(span.name.partition(" ")[0])
        if above is not None:
            assert by_id[span.parent_span_id].name.partition(" ")[0] == above
    failed = spans["task 2"]
    said = {one.key: one.value.string_value or one.value.int_value for one in failed.attributes}
    assert (said["kasmos.outcome"], said["kasmos.cause"], said["kasmos.exit.code"]) == ("failed", "exit", 3)
    assert failed.status.code == 2
    # What the program of task 1 was told is the span of its session.
    session = run.tasks["1"].sessions[0]
    output = (scene.root.session_dir(session) / "output.log").read_text()
    told = re.search(r"parent 00-([0-9a-f]{32})-([0-9a-f]{16})-01", output)
    assert told is not None
    assert bytes.fromhex(told[1]) == root.trace_id
    assert by_id[bytes.fromhex(told[2])].parent_span_id == spans["task 1"].span_id


def test_spans_tell_what_was_used(kas: Kas, collector: Collector) -> None:
    """Spans of an agent's session and task tell tokens, money and model by the conventions; those of checks do not."""
    data = Path(__file__).parents[1]
    (kas.cwd / ".kasmos").mkdir()
    (kas.cwd / ".kasmos" / "config.toml").write_text(
        f'[orchestration]\ndefault_agent = "coder"\n[agents.coder]\nprogram = "{data / "programs" / "replay"}"\n'
        f'harness = "claude"\n[agents.coder.env]\nREPLAY = "{data / "data" / "transcripts" / "claude" / "text.out"}"\n'
    )
    (kas.cwd / "plan.md").write_text(PLAN)
    ran = PatientKas(kas.cwd, PATIENCE)("run", "plan.md", env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address})
    assert ran.code == 0, ran.stdout + ran.stderr
    told = {}
    for span in collector.spans:
        values = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
        kind = span.name.partition(" ")[0]
        told[kind, values.get("kasmos.session.kind")] = {
            name: value for name, value in values.items() if name.startswith(("gen_ai.", "kasmos.usage."))
        }
    used = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "coder",
        "gen_ai.conversation.id": "6ebae19e-1455-443d-899d-b92a90634f2e",
        "gen_ai.response.model": "claude-opus-4-8",
        "gen_ai.usage.input_tokens": 1520,
        "gen_ai.usage.output_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 500,
        "gen_ai.usage.cache_creation.input_tokens": 20,
        "kasmos.usage.cost_usd": 0.007875,
        "kasmos.usage.source": "reported",
        "kasmos.usage.cost_source": "reported",
        "kasmos.usage.turns": 1,
    }
    assert told["session", "agent"] == used
    assert told["task", None] == used
    assert told["session", "check"] == {}
    assert told["run", None] == {}


def test_no_traces_unasked(scene: Scene) -> None:
    """Without an endpoint no program is told of a trace."""
    scene.write_plan([Task('test -z "$TRACEPARENT"; done_')])
    assert scene.run().code == 0


def test_dead_collector(scene: Scene) -> None:
    """A collector that is not there costs no more than the bound at the very end, and nobody hears of it."""
    scene.write_plan([Task("done_")])
    result = scene.run(env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    assert result.code == 0, result.stderr
    assert result.stderr == ""
