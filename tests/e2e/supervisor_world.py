"""A whole supervisor in this process: real journal, real state root, real programs, the API on real sockets."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

from kasmos.config.load import load_config
from kasmos.config.schema import Config
from kasmos.model import event as ev
from kasmos.serve import Engine, Options, open_engine, serve_when_knocked
from kasmos.store.journal import read_records
from kasmos.store.stateroot import StateRoot

LIMIT = 120.0

CONFIG = """
[orchestration]
default_agent = "shell"

[agents.cat]
program = "cat"
prompt = "stdin"

[agents.model]
program = "echo"
flags = ["{model}", "{prompt}"]
model = "own"
"""


@attrs.define
class Site:
    """A project with its state root, whose supervisors come and go."""

    project: Path
    root: StateRoot
    said: list[str] = attrs.field(factory=list)

    def configure(self, flags: Mapping[str, object]) -> Config:
        return load_config(self.project, environ={}, flags=flags).config

    @asynccontextmanager
    async def supervisor(self, limit: float = 5 * LIMIT) -> AsyncIterator[Live]:
        """Be its supervisor until the block is left."""
        options = Options(
            project=self.project,
            root=self.root,
            configure=self.configure,
            environ={"PATH": os.environ["PATH"]},
            announce=self.said.append,
        )
        with trio.fail_after(limit):
            async with open_engine(options) as engine, trio.open_nursery() as nursery:
                over = trio.Event()
                nursery.start_soon(serve_when_knocked, engine.service, self.root.socket, over, self.said.append)
                while not self.root.socket.exists():  # noqa: ASYNC110  # the API is announced by its socket alone
                    await trio.sleep(0.01)
                transport = httpx.AsyncHTTPTransport(uds=str(self.root.socket))
                async with httpx.AsyncClient(transport=transport, base_url="http://kasmos", timeout=LIMIT) as http:
                    yield Live(engine, http)
                over.set()

    def events(self) -> list[ev.Event]:
        return [record.event for record in read_records(self.root.db)]


@attrs.define
class Live:
    """A supervisor at work."""

    engine: Engine
    http: httpx.AsyncClient

    async def submit(self, prompt: str, **fields: Any) -> str:
        """Hand in a task; its id."""
        response = await self.http.post("/v1/tasks", json={"prompt": prompt, **fields})
        assert response.status_code == 202, response.text
        return str(response.json()["task_id"])

    async def task(self, task_id: str) -> dict[str, Any]:
        response = await self.http.get(f"/v1/tasks/{task_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def running(self, task_id: str) -> dict[str, Any]:
        """Wait until a task's program runs."""
        sessions = self.engine.service.world.sessions
        await self.event(
            lambda event: isinstance(event, ev.SessionStarted) and sessions[event.session_id].run_id == task_id
        )
        return await self.task(task_id)

    async def ended(self, task_id: str) -> dict[str, Any]:
        """Wait until a task has ended."""
        async with self.engine.bus.subscribe(0) as subscription:
            async for _ in subscription:
                task = await self.task(task_id)
                if task["status"] not in ("queued", "running", "waiting"):
                    return task
        raise AssertionError("the bus was closed")

    async def event(self, fits: Callable[[ev.Event], bool], *, after: int = 0) -> Any:
        """Wait for the first event after this number that fits."""
        with trio.fail_after(LIMIT):
            async with self.engine.bus.subscribe(after) as batches:
                async for records in batches:
                    for record in records:
                        if fits(record.event):
                            return record.event
        raise AssertionError("the bus was closed")

    async def lines(self, method: str, path: str, **options: Any) -> list[dict[str, Any]]:
        """All lines of a stream that ends by itself."""
        async with self.http.stream(method, path, **options) as response:
            assert response.status_code == 200, await response.aread()
            return [json.loads(line) async for line in response.aiter_lines()]


def make_site(root: Path, config: str = CONFIG) -> Site:
    """A project with this configuration."""
    project = root / "project"
    (project / ".kasmos").mkdir(parents=True)
    (project / ".kasmos" / "config.toml").write_text(config)
    return Site(project, StateRoot(root / "state-root"))
