"""A supervisor without programs: real journal order, real bus, real service, real server on a real socket.

Only the orchestrator and the sessions are stand-ins; what happens is what a test commits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import httpx
import trio

from kasmos.api import create_app, serve_api
from kasmos.api.app import KasmosApp
from kasmos.config.schema import Orchestration
from kasmos.daemon.access import DEFAULT_POLICY, AccessPolicy
from kasmos.daemon.bus import Bus
from kasmos.daemon.life import Health, always_well
from kasmos.daemon.service import Service
from kasmos.daemon.terms import Surroundings
from kasmos.exceptions import (
    ConfigError,
    InteractiveOnlyError,
    Mistake,
    SessionClosedError,
    StaleApprovalError,
    SupervisionError,
)
from kasmos.model import event as ev
from kasmos.model.approval import Answer, ApprovalState, ResolvedBy
from kasmos.model.event import Event, Record
from kasmos.model.plan import Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import AgentProfile, ExecutionMode, PromptMode
from kasmos.model.session import Capabilities, ExitStatus, SessionKind, SessionSpec
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.view import ApprovalView, SessionView, World
from kasmos.sessions.protocol import ExecutionSession, OutputChunk
from kasmos.store.fold import apply

LIMIT = 120.0
"""Seconds after which what should have happened has not."""
PLAN = """\
# Two greetings

**Goal:** say hello

## Wave 1

### Task 1: First

```sh
echo hello
```

### Task 2: Second

```sh
echo world
```
"""


@attrs.frozen
class Accepted:
    """What became of a submission."""

    run_id: str
    continued: bool = False
    following: bool = False


@attrs.frozen
class FakeConfig:
    """As much of a configuration as a submission needs."""

    flags: Mapping[str, object]
    orchestration: Orchestration = Orchestration()

    @property
    def agents(self) -> Mapping[str, AgentProfile]:
        return {"shell": AgentProfile(name="shell", program=("sh",), prompt=PromptMode.SCRIPT)}

    def run_settings(self) -> RunSettings:
        agent = self.flags.get("orchestration.default_agent", "shell")
        count = self.flags.get("orchestration.max_concurrent", 4)
        return RunSettings(default_agent=str(agent), max_concurrent=cast(int, count))


def configure(flags: Mapping[str, object]) -> Any:
    """Load a configuration; a task timeout of "bad" is a mistake."""
    if flags.get("orchestration.task_timeout") == "bad":
        raise ConfigError([Mistake("flag: orchestration.task_timeout", "it is no duration", "10m")])
    return FakeConfig(flags)


class FakeSession:
    """A live session whose output is what a test writes."""

    def __init__(self, *, interactive: bool = False) -> None:
        self.spec = SessionSpec(id="s1", name="s1", argv=("agent",), cwd="/", backend=ExecutionMode.TMUX)
        self.data = b""
        self.base = 0
        self.over = False
        self.typed: list[str] = []
        self.capabilities = Capabilities(interactive=interactive)
        self.waited_for = trio.Event()
        self._news = trio.Event()

    @property
    def output_bytes(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        self.data += data
        self._wake()

    def finish(self) -> None:
        self.over = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def read_nowait(self, offset: int, limit: int = 65_536) -> OutputChunk:
        start = max(offset, self.base)
        return OutputChunk(start, self.data[start : start + limit], lost=start - offset)

    async def read(self, offset: int, limit: int = 65_536) -> OutputChunk:
        while len(self.data) <= offset and not self.over:
            self.waited_for.set()
            await self._news.wait()
        return self.read_nowait(offset, limit)

    async def send_keys(self, keys: str) -> None:
        if not self.capabilities.interactive:
            raise InteractiveOnlyError("no terminal")
        if self.over:
            raise SessionClosedError("it has ended")
        self.typed.append(keys)

    async def tap_enter(self) -> None:
        await self.send_keys("\r")

    async def send_permission_response(self, choice: str) -> None:
        await self.send_keys(f"choice {choice}")


class FakeOrchestrator:
    """Does what it is told and remembers it."""

    def __init__(self) -> None:
        self.world = World()
        self.accepting = True
        self.writable = True
        self.queued_tasks = 0
        self.records: list[Record] = []
        self.asked: list[tuple[Any, ...]] = []
        self.live: dict[str, FakeSession] = {}
        self.ended: dict[str, bytes] = {}
        self.bus = Bus(self.history, position=0)

    def history(self, after: int, limit: int) -> Sequence[Record]:
        return [record for record in self.records[after:] if record.seq > after][:limit]

    def commit(self, *events: Event) -> None:
        """Commit, fold and publish, as the journal does."""
        fresh = []
        for event in events:
            seq = len(self.records) + 1
            record = Record(seq=seq, at=1_700_000_000.0 + seq, mono=float(seq), event=event)
            self.records.append(record)
            apply(self.world, record)
            fresh.append(record)
        self.bus.publish(fresh)

    async def submit(self, plan: Plan, *, key: str, fresh: bool, patience: float, **facts: Any) -> Accepted:
        for run in self.world.runs.values():
            if run.key == key and run.unfinished and not fresh:
                if run.digest != facts["digest"]:
                    raise SupervisionError("the document has changed and its run is unfinished: --fresh")
                return Accepted(run.id, following=True)
        run_id = f"r{len(self.world.runs) + 1}"
        self.commit(ev.RunStarted(run_id=run_id, plan=plan, key=key, **facts))
        return Accepted(run_id)

    def terminal(self, session_id: str) -> None:
        """Nobody watches these terminals; `tests/e2e/test_terminal.py` has real ones."""

    async def advance(self, run_id: str) -> None:
        self.asked.append(("advance", run_id))
        raise SupervisionError(f"run {run_id} does not wait")

    async def continue_run(self, run_id: str) -> None:
        self.asked.append(("continue_run", run_id))
        if not self.world.runs[run_id].unfinished:
            raise SupervisionError(f"run {run_id} has ended")

    async def cancel_run(self, run_id: str, reason: str) -> None:
        if not self.world.runs[run_id].unfinished:
            raise SupervisionError(f"run {run_id} has ended")
        self.asked.append(("cancel_run", run_id, reason))
        self.commit(ev.RunCancelRequested(run_id, reason))

    async def retry(
        self, run_id: str, task_ids: tuple[str, ...] = (), conversations: Mapping[str, str] | None = None
    ) -> None:
        self.asked.append(("retry", run_id, task_ids))

    async def stop_task(self, run_id: str, task_id: str) -> None:
        self.asked.append(("stop_task", run_id, task_id))

    async def stop_session(self, session_id: str) -> None:
        self.asked.append(("stop_session", session_id))

    async def release_account(self, name: str, who: str) -> None:
        self.asked.append(("release_account", name, who))
        if self.world.accounts[name].parked is None:
            raise SupervisionError(f"account {name} is not parked")
        self.commit(ev.AccountReleased(name, who))

    async def resolve_approval(self, approval_id: str, answer: Answer, who: str, *, patience: float) -> ApprovalView:
        self.asked.append(("resolve_approval", approval_id, answer, who))
        view = self.world.approvals[approval_id]
        if view.state is ApprovalState.WITHDRAWN:
            raise StaleApprovalError(f"approval {approval_id} is stale")
        self.commit(ev.ApprovalResolved(view.session_id, approval_id, answer, ResolvedBy.PERSON, who))
        return self.world.approvals[approval_id]

    def live_session(self, session_id: str) -> ExecutionSession | None:
        return cast("ExecutionSession | None", self.live.get(session_id))

    def start_run(self, run_id: str = "r1", tasks: int = 2) -> None:
        """A run of some tasks in one wave."""
        plan_tasks = tuple(
            PlanTask(id=str(n), number=n, wave=1, title=f"Task {n}", body="echo", agent="shell")
            for n in range(1, tasks + 1)
        )
        plan = Plan(waves=(Wave(1, plan_tasks),), goal="greet", title="Greetings")
        facts = {"source": "/plan.md", "key": f"/{run_id}", "digest": "d", "project": "/project"}
        self.commit(
            ev.RunStarted(run_id=run_id, plan=plan, settings=RunSettings(), **facts),
            ev.WaveStarted(run_id, 1),
        )

    def start_session(self, run_id: str, task_id: str, backend: ExecutionMode = ExecutionMode.HEADLESS) -> FakeSession:
        """A live session of a task; its id is `s-RUN-TASK-N`."""
        attempt = self.world.runs[run_id].tasks[task_id].attempts + 1
        session_id = f"s-{run_id}-{task_id}-{attempt}"
        self.commit(
            ev.SessionStarting(
                session_id=session_id,
                name=self.world.runs[run_id].tasks[task_id].spec.name,
                kind=SessionKind.AGENT,
                backend=backend,
                boot_id="b",
                run_id=run_id,
                task_id=task_id,
                attempt=attempt,
                profile="shell",
            ),
            ev.SessionStarted(session_id, pid=4711),
        )
        session = self.live[session_id] = FakeSession(interactive=backend is ExecutionMode.TMUX)
        return session

    def end_task(self, run_id: str, task_id: str, code: int = 0) -> None:
        """Its session ends with this code, and so does the task."""
        session_id = self.world.runs[run_id].tasks[task_id].sessions[-1]
        session = self.live.pop(session_id)
        self.ended[session_id] = session.data
        session.finish()
        outcome = Outcome.FAILED if code else Outcome.SUCCEEDED
        cause = Cause(CauseKind.EXIT if code else CauseKind.DONE, f"exit {code}", session_id)
        self.commit(
            ev.SessionEnded(session_id, ExitStatus(code=code), output_bytes=len(session.data)),
            ev.TaskEnded(run_id, task_id, outcome, cause),
        )

    def read_ended(self, session: SessionView, offset: int, limit: int) -> OutputChunk:
        if session.id not in self.ended:
            raise FileNotFoundError(2, "No such file or directory")
        return OutputChunk(offset, self.ended[session.id][offset : offset + limit])


@attrs.frozen
class Api:
    """A served API."""

    orchestrator: FakeOrchestrator
    app: KasmosApp
    socket: Path
    shutdown: trio.Event
    http: httpx.AsyncClient

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.http.get(path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return await self.http.post(path, json={} if body is None else body, **options)


def make_app(
    orchestrator: FakeOrchestrator,
    *,
    policy: AccessPolicy = DEFAULT_POLICY,
    record: Callable[[Event], object] = lambda event: None,
) -> KasmosApp:
    """The application over a stand-in."""
    surroundings = Surroundings(
        project="/project",
        configure=configure,
        present=lambda: configure({}),
        read_ended=orchestrator.read_ended,
        record=record,
        health=Health(always_well, lambda: orchestrator.writable),
    )
    return create_app(Service(orchestrator, orchestrator.bus, surroundings), started_at=1_700_000_000.0, policy=policy)


@asynccontextmanager
async def open_api(
    root: Path, *, grace: float = 5.0, prepare: Callable[[KasmosApp], None] = lambda app: None
) -> AsyncIterator[Api]:
    """Serve the API on a socket; it is shut down in order at the end."""
    orchestrator = FakeOrchestrator()
    app = make_app(orchestrator)
    prepare(app)
    shutdown = trio.Event()
    path = root / "kas.sock"
    with trio.fail_after(5 * LIMIT):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_api, app, path, shutdown=shutdown, grace=grace))
            transport = httpx.AsyncHTTPTransport(uds=str(path))
            async with httpx.AsyncClient(transport=transport, base_url="http://kasmos", timeout=LIMIT) as http:
                yield Api(orchestrator, app, path, shutdown, http)
            shutdown.set()
