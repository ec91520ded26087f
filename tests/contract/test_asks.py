"""The contract of sessions that can be seen asking, for every backend that says so; the others are no sources."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import attrs
import pytest
import trio

from kasmos.exceptions import StaleApprovalError
from kasmos.model.approval import ALLOW, Answer, AnswerKind, Ask
from kasmos.model.session import ExitStatus
from kasmos.sessions.protocol import AskSource, ExecutionSession
from kasmos.sessions.script import Script, ScriptedAsk
from kasmos.sessions.scripted import ScriptedSession
from kasmos.supervision.desk import PRESENT
from tests.contract import programs
from tests.contract.conftest import LIMIT, Stage, ended, scripted_stage

RM = ScriptedAsk(Ask("", tool="Bash", command="rm x"), deny_exit=ExitStatus(code=4))
LS = ScriptedAsk(Ask("", tool="Bash", command="ls"))
ASKER = attrs.evolve(programs.WAITER, script=Script(asks=(RM, LS)))


SOURCES: tuple[type[AskSource], ...] = (ScriptedSession,)
"""Whose signatures are those of a source: a type checker holds them to it."""


def source_of(session: ExecutionSession) -> AskSource:
    return cast(AskSource, session)


@asynccontextmanager
async def asking(stage: Stage) -> AsyncIterator[ExecutionSession]:
    """A session that asks."""
    async with stage.open(ASKER) as session:
        with trio.fail_after(LIMIT):
            yield session


@pytest.fixture(params=["scripted"])
async def asker(request: pytest.FixtureRequest, root: Path, state_home: Path) -> AsyncIterator[Stage]:
    """A stage for each backend that sees asks, in turn."""
    make = {"scripted": scripted_stage}[request.param]
    async with make(root) as stage:
        assert stage.backend.capabilities.asks
        yield stage


async def test_no_source(stage: Stage) -> None:
    """A session whose capabilities say that it can ask is a source of asks; a plain one says so as its backend does."""
    async with stage.open(programs.WAITER) as session:
        assert session.capabilities.asks is stage.backend.capabilities.asks
        assert not session.capabilities.asks or (hasattr(session, "wait_ask") and hasattr(session, "answer"))


async def test_ask_and_answer(asker: Stage) -> None:
    """What a session asks is seen as it stands, and after its answer what it asks next."""
    async with asking(asker) as session:
        source = source_of(session)
        first = await source.wait_ask(None)
        assert first is not None
        assert (first.tool, first.command) == ("Bash", "rm x")
        assert await source.wait_ask(PRESENT) == first
        await source.answer(first, ALLOW)
        second = await source.wait_ask(None)
        assert second is not None
        assert (second.command, second.identity != first.identity) == ("ls", True)
        await source.answer(second, ALLOW)
        assert (await ended(session)).succeeded


async def test_denied(asker: Stage) -> None:
    """A refusal reaches the program."""
    async with asking(asker) as session:
        source = source_of(session)
        ask = await source.wait_ask(None)
        assert ask is not None
        await source.answer(ask, Answer(AnswerKind.DENY))
        assert (await ended(session)).code == 4


async def test_stale_answer(asker: Stage) -> None:
    """An answer to what is not asked any more is refused, and what is asked now stands."""
    async with asking(asker) as session:
        source = source_of(session)
        first = await source.wait_ask(None)
        assert first is not None
        await source.answer(first, ALLOW)
        second = await source.wait_ask(None)
        with pytest.raises(StaleApprovalError):
            await source.answer(first, ALLOW)
        assert await source.wait_ask(PRESENT) == second


async def test_nothing_asked(asker: Stage) -> None:
    """Who knows what is asked waits until that has changed; to be cancelled meanwhile loses nothing."""
    async with asking(asker) as session:
        source = source_of(session)
        ask = await source.wait_ask(None)
        assert ask is not None
        with trio.move_on_after(0.05) as scope:
            await source.wait_ask(ask.identity)
        assert scope.cancelled_caught
        assert await source.wait_ask(None) == ask


async def test_adopted(asker: Stage) -> None:
    """The next supervisor sees the same ask, by the same identity."""
    async with asking(asker) as session:
        ask = await source_of(session).wait_ask(None)
        session.detach()
        handle, spec = session.handle, session.spec
    async with asker.another() as backend, backend.adopt(spec, handle, notify=asker.notify) as again:
        with trio.fail_after(LIMIT):
            assert await source_of(again).wait_ask(PRESENT) == ask
