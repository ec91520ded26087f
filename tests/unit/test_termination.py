"""The one stop ladder: which rungs, in which order, at which instants, and what is durable before each."""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from kasmos.exceptions import SessionError, SessionLostError
from kasmos.model.event import Event, KillSent, SessionUnkillable, StopRequested
from kasmos.model.profile import StopPolicy
from kasmos.model.session import ExitStatus, SessionSpec, StopReason
from kasmos.sessions.script import Script
from kasmos.sessions.scripted import ScriptedBackend, ScriptedProgram, ScriptedSession
from kasmos.supervision.termination import stop, terminate

TERM, CONT, KILL = signal.SIGTERM, signal.SIGCONT, signal.SIGKILL
FOREVER = Script(duration=math.inf)
POLITE = attrs.evolve(FOREVER, ignores_terminate_for=2.0)
STUBBORN = attrs.evolve(FOREVER, ignores_terminate_for=math.inf)
POLICY = StopPolicy(stop_grace=10.0, kill_grace=5.0)


@attrs.define
class Stage:
    """A running program, and what was made durable about it: when, and after which signals."""

    session: ScriptedSession
    program: ScriptedProgram
    start: float
    told: list[tuple[float, Event, tuple[int, ...]]]

    @property
    def now(self) -> float:
        """Seconds since the stage was set."""
        return trio.current_time() - self.start


@asynccontextmanager
async def running(script: Script, policy: StopPolicy = POLICY) -> AsyncIterator[Stage]:
    """A stage with this script on it. What still runs at the end stays."""
    backend = ScriptedBackend({"*": script}, terminate=terminate)
    told: list[tuple[float, Event, tuple[int, ...]]] = []
    start = trio.current_time()

    async def notify(event: Event) -> None:
        # A commit takes its time; what it precedes must wait for it.
        signals = tuple(backend.machine.programs["s"].signals)
        await trio.sleep(0.5)
        assert tuple(backend.machine.programs["s"].signals) == signals
        told.append((trio.current_time() - start, event, signals))

    async with backend.open(
        SessionSpec(id="s", name="s", argv=("agent",), cwd="/", stop=policy), notify=notify
    ) as session:
        yield Stage(session, backend.machine.programs["s"], start, told)
        session.detach()


async def test_a_polite_program(autojump_clock: MockClock) -> None:
    """A stop is durable before the stop signal, which comes with SIGCONT; a program that heeds it is not killed."""
    async with running(attrs.evolve(POLITE, last_words=b"bye")) as stage:
        status = await stop(stage.session, reason=StopReason.REQUESTED)
        assert stage.now == 0.5 + 2.0
        assert status == stage.session.exit == ExitStatus(signal=TERM)
        assert stage.program.signals == [TERM, CONT]
        assert stage.told == [(0.5, StopRequested("s", StopReason.REQUESTED), ())]
        assert stage.session.capture() == "bye"


async def test_a_stubborn_program(autojump_clock: MockClock) -> None:
    """After the grace, counted from the stop signal, SIGKILL follows, once that is durable."""
    async with running(STUBBORN) as stage:
        status = await stop(stage.session, reason=StopReason.TIMEOUT)
        assert status == ExitStatus(signal=KILL)
        assert stage.now == 0.5 + 10.0 + 0.5
        assert stage.program.signals == [TERM, CONT, KILL]
        assert stage.told == [
            (0.5, StopRequested("s", StopReason.TIMEOUT), ()),
            (11.0, KillSent("s"), (TERM, CONT)),
        ]


async def test_an_unkillable_program(autojump_clock: MockClock) -> None:
    """What survives SIGKILL is reported and given up within a bound."""
    async with running(attrs.evolve(STUBBORN, unkillable=True)) as stage:
        assert await stop(stage.session, reason=StopReason.REQUESTED) is None
        assert stage.now <= 0.5 + 10.0 + 0.5 + 5.0 + 0.5 + 5.0
        assert [event for _, event, _ in stage.told] == [
            StopRequested("s", StopReason.REQUESTED),
            KillSent("s"),
            SessionUnkillable("s", pids=()),
        ]
        assert stage.session.exit is None


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
async def test_the_stop_signal_is_the_policys(name: str, autojump_clock: MockClock) -> None:
    """The first signal is the one the profile names."""
    async with running(POLITE, attrs.evolve(POLICY, stop_signal=name)) as stage:
        await stop(stage.session, reason=StopReason.REQUESTED)
        assert stage.program.signals == [signal.Signals[name], CONT]


async def test_no_grace(autojump_clock: MockClock) -> None:
    """A grace of nothing is none: SIGKILL follows at once, though the program was asked first."""
    async with running(STUBBORN, StopPolicy(stop_grace=0.0)) as stage:
        await stop(stage.session, reason=StopReason.REQUESTED)
        assert stage.now == 0.5 + 0.5
        assert stage.program.signals == [TERM, CONT, KILL]


@pytest.mark.parametrize("at", [0.0, 3.0])
async def test_hurry(at: float, autojump_clock: MockClock) -> None:
    """Who is in a hurry cuts the grace short, at once or in the middle of it."""
    hurry = trio.Event()
    async with running(STUBBORN) as stage, trio.open_nursery() as nursery:

        async def press() -> None:
            await trio.sleep(at)
            hurry.set()

        nursery.start_soon(press)
        await stop(stage.session, reason=StopReason.REQUESTED, hurry=hurry)
        assert stage.now == max(0.5, at) + 0.5
        assert stage.session.exit == ExitStatus(signal=KILL)


async def test_hurry_that_nobody_is_in(autojump_clock: MockClock) -> None:
    """A program that may be hurried, and is not, has its whole grace."""
    async with running(POLITE) as stage:
        await stop(stage.session, reason=StopReason.REQUESTED, hurry=trio.Event())
        assert stage.program.signals == [TERM, CONT]


async def test_a_stop_that_goes_on(autojump_clock: MockClock) -> None:
    """A stop that is taken up again is not requested again, and has only the rest of its grace."""
    async with running(STUBBORN) as stage:
        await stop(stage.session, reason=StopReason.REQUESTED, grace=4.0, requested=True)
        assert stage.now == 4.0 + 0.5
        assert [event for _, event, _ in stage.told] == [KillSent("s")]
        assert stage.program.signals == [TERM, CONT, KILL]


async def test_what_has_ended_is_not_stopped(autojump_clock: MockClock) -> None:
    """Nothing is signalled, and nothing recorded, of a program that has ended."""
    async with running(Script(exit=3)) as stage:
        await stage.session.wait()
        assert await stop(stage.session, reason=StopReason.REQUESTED) == ExitStatus(code=3)
        assert (stage.told, stage.program.signals) == ([], [])


async def test_an_end_of_its_own_during_the_grace(autojump_clock: MockClock) -> None:
    """A program that comes to its own end while it is being stopped ends with its own status."""
    async with running(attrs.evolve(STUBBORN, duration=6.0, exit=ExitStatus(code=7))) as stage:
        assert await stop(stage.session, reason=StopReason.REQUESTED) == ExitStatus(code=7)
        assert stage.now == 6.0


async def test_lost_while_it_is_being_stopped(autojump_clock: MockClock) -> None:
    """A program whose fate is lost during its stop is lost at once: nobody waits for the grace, nobody kills."""
    async with running(attrs.evolve(STUBBORN, lost=3.0)) as stage:
        with pytest.raises(SessionLostError, match="fate"):
            await stop(stage.session, reason=StopReason.REQUESTED)
        assert stage.now == 3.0
        assert stage.program.signals == [TERM, CONT]


async def test_a_scope_that_is_left(autojump_clock: MockClock) -> None:
    """Leaving a scope stops its program as an interruption, and a loss then disturbs nobody."""
    async with running(FOREVER) as stage:
        await terminate(stage.session)
        assert [event for _, event, _ in stage.told] == [StopRequested("s", StopReason.INTERRUPTED)]
    async with running(attrs.evolve(STUBBORN, lost=3.0)) as stage:
        await terminate(stage.session)
        assert stage.session.exit is None


async def test_a_ladder_can_be_climbed_twice(autojump_clock: MockClock) -> None:
    """A stop that was cancelled half-way can be asked for again, and then comes to its end."""
    async with running(STUBBORN) as stage:
        with trio.move_on_after(4.0):
            await stop(stage.session, reason=StopReason.REQUESTED)
        assert stage.session.exit is None
        again: dict[str, Any] = {"grace": 1.0, "requested": True}
        assert await stop(stage.session, reason=StopReason.REQUESTED, **again) == ExitStatus(signal=KILL)


class AtTerminal:
    """A session with a terminal, whose program leaves at the n-th key."""

    def __init__(self, stage: Stage, leaves_at: int | None) -> None:
        self._stage = stage
        self._leaves_at = leaves_at
        self.pressed: list[tuple[float, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage.session, name)

    async def press(self, key: str) -> None:
        """Press a key; where nothing happens by it, the terminal cannot be asked."""
        self.pressed.append((round(self._stage.now, 3), key))
        if len(self.pressed) == self._leaves_at:
            await self._stage.session.signal(TERM)
        elif self._leaves_at is None:
            raise SessionError("tmux does not answer")


async def test_a_program_that_leaves_by_keys(autojump_clock: MockClock) -> None:
    """At a terminal, once the stop is durable, its own keys come first; if it leaves by them, no rung follows."""
    async with running(FOREVER) as stage:
        session = AtTerminal(stage, leaves_at=2)
        await stop(session, reason=StopReason.HANDED_BACK, keys=("C-c", "C-c", "C-d"))  # type: ignore[arg-type]
        assert session.pressed == [(0.5, "C-c"), (0.9, "C-c")]
        assert stage.program.signals == [TERM]
        assert [event for _, event, _ in stage.told] == [StopRequested("s", StopReason.HANDED_BACK)]


async def test_a_program_that_keys_do_not_move(autojump_clock: MockClock) -> None:
    """A program that its keys do not end, or whose terminal cannot be asked, goes down the ladder."""
    async with running(POLITE) as stage:
        session = AtTerminal(stage, leaves_at=None)
        await stop(session, reason=StopReason.HANDED_BACK, keys=("C-c", "C-d"))  # type: ignore[arg-type]
        assert session.pressed == [(0.5, "C-c"), (0.9, "C-d")]
        assert stage.program.signals == [TERM, CONT]
        assert round(stage.now, 3) == 0.9 + 4.0 + 2.0
