"""One fixture gives every backend, on a stage where a supervisor can be succeeded by another."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from kasmos.model.approval import ALLOW
from kasmos.model.event import Event
from kasmos.model.profile import ExecutionMode, StopPolicy
from kasmos.model.session import ExitStatus, SessionSpec
from kasmos.screens import rules_for
from kasmos.sessions.headless import open_headless
from kasmos.sessions.protocol import Backend, ExecutionSession, Recognise
from kasmos.sessions.script import Script
from kasmos.sessions.scripted import ScriptedBackend, ScriptedMachine, ScriptedSession
from kasmos.sessions.tmux_backend import open_tmux
from kasmos.supervision.terminal import waits_for_person
from kasmos.supervision.termination import terminate
from tests.contract.programs import FOLDER, MISSING, Program

LIMIT = 120.0
"""Seconds after which what should have happened has not."""


@attrs.define
class Stage:
    """A backend, programs for it, and what it made durable."""

    backend: Backend
    mode: ExecutionMode
    cwd: Path
    another: Callable[[], AbstractAsyncContextManager[Backend]]
    """Opens a second backend in the same place, as a new supervisor would."""
    lives: Callable[[str], bool]
    """Whether the program of a session runs."""
    scripts: dict[str, Script]
    events: list[Event] = attrs.field(factory=list)

    def spec(self, program: Program, **changes: Any) -> SessionSpec:
        """A new session that is to run this program."""
        # Unique on the machine: other tests run at the same time, and processes are told apart by it.
        session_id = f"{program.name}-{uuid.uuid4().hex[:12]}"
        self.scripts[session_id] = program.script
        spec = SessionSpec(
            id=session_id,
            name=program.name,
            argv=self.argv(program),
            cwd=str(self.cwd),
            backend=self.mode,
            env={"PATH": os.environ["PATH"], "HOME": str(self.cwd), "KASMOS_SESSION_ID": session_id},
            stop=StopPolicy(stop_grace=LIMIT),
        )
        return attrs.evolve(spec, **changes)

    def argv(self, program: Program) -> tuple[str, ...]:
        """The command line; on a terminal, which makes two bytes of a newline, one that has it leave output alone."""
        if self.mode is not ExecutionMode.TMUX or program is MISSING:
            return program.argv
        return (str(FOLDER / "raw_output"), *program.argv)

    async def notify(self, event: Event) -> None:
        """Makes events durable, as far as this stage goes."""
        await trio.lowlevel.checkpoint()
        self.events.append(event)

    async def let_go_on(self, session: ExecutionSession) -> None:
        """Have a program go on that waits for this, `TRUNCATOR`."""
        if isinstance(session, ScriptedSession):
            ask = await session.wait_ask(None)
            assert ask is not None
            await session.answer(ask, ALLOW)
        else:
            (self.cwd / "go").touch()

    def open(self, program: Program, **changes: Any) -> AbstractAsyncContextManager[ExecutionSession]:
        """Start this program in a new session."""
        return self.backend.open(self.spec(program, **changes), notify=self.notify)


@pytest.fixture(params=["scripted", "headless", "tmux"])
async def stage(request: pytest.FixtureRequest, root: Path, state_home: Path) -> AsyncIterator[Stage]:
    """A stage for each backend in turn."""
    make = {"scripted": scripted_stage, "headless": headless_stage, "tmux": tmux_stage}[request.param]
    async with make(root) as stage:
        yield stage


@asynccontextmanager
async def scripted_stage(root: Path) -> AsyncIterator[Stage]:
    machine = ScriptedMachine()
    scripts: dict[str, Script] = {}

    @asynccontextmanager
    async def another() -> AsyncIterator[Backend]:
        yield ScriptedBackend(lambda spec: scripts[spec.id], terminate=terminate, machine=machine)

    async with another() as backend:
        yield Stage(
            backend=backend,
            mode=ExecutionMode.SCRIPTED,
            cwd=root,
            another=another,
            lives=lambda session_id: session_id in machine.live,
            scripts=scripts,
        )
    assert not machine.overlaps
    assert all(count == 1 for count in machine.starts.values())


@asynccontextmanager
async def headless_stage(root: Path) -> AsyncIterator[Stage]:
    state = root / "state"

    def another() -> AbstractAsyncContextManager[Backend]:
        return open_headless(state, terminate=terminate)

    async with another() as backend:
        yield Stage(
            backend=backend,
            mode=ExecutionMode.HEADLESS,
            cwd=root,
            another=another,
            lives=_marked_process_lives,
            scripts={},
        )


@asynccontextmanager
async def tmux_stage(root: Path) -> AsyncIterator[Stage]:
    state = root / "state"
    state.mkdir(mode=0o700, exist_ok=True)

    @asynccontextmanager
    async def another() -> AsyncIterator[Backend]:
        async with (
            open_headless(state, terminate=terminate) as headless,
            open_tmux(state, headless, find_recogniser=_find_recogniser) as backend,
        ):
            yield backend

    async with another() as backend:
        yield Stage(
            backend=backend,
            mode=ExecutionMode.TMUX,
            cwd=root,
            another=another,
            lives=_marked_process_lives,
            scripts={},
        )


def _find_recogniser(argv: tuple[str, ...]) -> Recognise:
    return partial(waits_for_person, rules_for(argv))


def _marked_process_lives(session_id: str) -> bool:
    marker = f"KASMOS_SESSION_ID={session_id}".encode()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if marker in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


async def ended(session: ExecutionSession) -> ExitStatus:
    """Wait for a session's end, but not for ever."""
    with trio.fail_after(LIMIT):
        return await session.wait()


async def wrote(session: ExecutionSession, text: bytes, offset: int = 0) -> bytes:
    """Read from *offset* until *text* has been seen."""
    seen = b""
    with trio.fail_after(LIMIT):
        while text not in seen:
            chunk = await session.read(offset + len(seen))
            assert chunk.data, f"ended after {seen!r}"
            seen += chunk.data
    return seen


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that tells nobody when it comes true."""
    with trio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110  # there is no event for it: that is the point
            await trio.sleep(0.01)
