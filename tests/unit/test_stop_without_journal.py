"""Stopping while nothing can be written."""

from __future__ import annotations

import math

import trio
import trio.testing

from kasmos.model.event import Event
from kasmos.model.profile import ExecutionMode, StopPolicy
from kasmos.model.session import ExitStatus, Leftover, SessionSpec, StopReason
from kasmos.sessions.script import Script
from kasmos.sessions.scripted import ScriptedBackend
from kasmos.supervision.termination import NOTE_LIMIT, stop, terminate
from tests.simulation import plan, task, town


async def test_a_stop_does_not_wait_for_a_journal_that_cannot_be_written(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A program can be stopped, and killed, although neither intent can be made durable: each costs one bound."""

    async def notify(event: Event) -> None:
        await trio.sleep_forever()

    script = Script(duration=1000.0, ignores_terminate_for=1000.0)
    backend = ScriptedBackend(lambda spec: script, terminate=terminate)
    spec = SessionSpec(
        id="s", name="s", argv=("x",), cwd="/", backend=ExecutionMode.SCRIPTED, stop=StopPolicy(stop_grace=3.0)
    )
    async with backend.open(spec, notify=notify) as session:
        begin = trio.current_time()
        status = await stop(session, reason=StopReason.REQUESTED)
        assert status == ExitStatus(signal=9)
        assert trio.current_time() - begin == 2 * NOTE_LIMIT + 3.0


async def test_a_session_ends_although_what_it_left_cannot_be_recorded(autojump_clock: trio.testing.MockClock) -> None:
    """What is found at a session's end is told to the journal within a bound, and does not keep it from ending."""
    left = Leftover(pid=7, name="sleep", action="stopped")
    here = town({"1": Script(duration=1.0, leftovers=(left,))}, write_times=(*[0.01] * 4, math.inf))
    async with here.life() as life:
        await life.submit(plan(task(1)))
        await trio.sleep(0.5)
        assert len(life.orchestrator.live_sessions) == 1
        await trio.sleep(1.0 + 2 * NOTE_LIMIT)
        assert life.orchestrator.live_sessions == []
        life.crash()
