"""The watch over silent sessions: one that hangs on input that nobody gives is told of within seconds.

No event tells of a program that waits, so it has to be looked at: a session that has been silent for a while, ever
more rarely, and of a crowd of silent ones only a few at a time. One that writes is never looked at. A wait is told of
when two looks saw the same process do nothing else in between, and taken back when the session goes on. Nothing is
ever stopped for it: that is a person's to decide.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import NoReturn, cast

import trio

from kasmos.model import event as ev
from kasmos.model.session import InputWait
from kasmos.model.value import define
from kasmos.model.view import SessionView
from kasmos.sessions.protocol import ExecutionSession, ProcessSession
from kasmos.supervision.ledger import Ledger
from kasmos.supervision.waiting import Circumstances, decide_wait, describe_wait, same_wait

TICK = 2.0
"""Seconds between two rounds."""
QUIET = 4.0
"""Seconds of silence after which a session is looked at."""
LONGEST = 300.0
"""Seconds between two looks at one that has long been silent, at most."""
LONGEST_TOLD = 30.0
"""The same for one that is said to wait: a process that goes on in silence is seen no later."""
MOST = 10
"""Looks in one round."""


@define
class _Silence:
    """How long a session has said nothing, and what was seen of it."""

    output_bytes: int
    pause: float = QUIET
    look_at: float = 0.0
    suspect: InputWait | None = None
    """What the last look saw, to be seen once more."""
    told: bool = False
    """Whether the journal says that it waits."""


class QuietWatch:
    """Looks after the silent ones among the sessions that run.

    Args:
        ledger: where it is recorded.
        live: the sessions that run.
        wait_any: waits until there is one.
        at_tool: by a session's id, since when its agent uses a tool (wall clock), `inf` while it uses none, None where
            that is not known.
        now: CLOCK_MONOTONIC.
    """

    def __init__(
        self,
        ledger: Ledger,
        live: Callable[[], Iterable[ExecutionSession]],
        wait_any: Callable[[], Awaitable[None]],
        at_tool: Callable[[str], float | None],
        now: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._live = live
        self._wait_any = wait_any
        self._at_tool = at_tool
        self._now = now
        self._silences: dict[str, _Silence] = {}

    async def run(self) -> NoReturn:
        """Watch until cancelled."""
        while True:
            await self._wait_any()
            await trio.sleep(TICK)
            await self.look_round()

    async def look_round(self) -> None:
        """One round."""
        now = self._now()
        sessions = {one.spec.id: one for one in self._live() if one.capabilities.processes and one.exit is None}
        self._silences = {name: one for name, one in self._silences.items() if name in sessions}
        due = [session for session in sessions.values() if self._is_due(session, now)]
        due.sort(key=lambda session: self._silences[session.spec.id].look_at)
        for session in due[:MOST]:
            await self._look(cast(ProcessSession, session), self._silences[session.spec.id])

    def _is_due(self, session: ExecutionSession, now: float) -> bool:
        """Whether it is time to look at a session; notes whether it is silent."""
        name, written = session.spec.id, session.output_bytes
        known = self._silences.get(name)
        if known is None or known.output_bytes != written:
            told = known.told if known is not None else self._is_told(name)
            if told and known is not None:
                # It writes: whatever it waited for is over.
                self._tell(name, "")
                told = False
            self._silences[name] = _Silence(written, look_at=now + QUIET, told=told)
            return False
        return now >= known.look_at

    async def _look(self, session: ProcessSession, silence: _Silence) -> None:
        name = session.spec.id
        view = self._ledger.world.sessions.get(name)
        found: InputWait | None = None
        if view is not None and not _is_in_hand(view):
            found = decide_wait(await session.look_for_waits(), self._around(session, view.screen))
        if session.exit is not None or session.output_bytes != silence.output_bytes:
            return
        before, silence.suspect = silence.suspect, found
        confirmed = found is not None and before is not None and same_wait(before, found)
        if confirmed and not silence.told and found is not None:
            self._tell(name, describe_wait(found, has_terminal=session.capabilities.interactive), found)
            silence.told = True
        elif found is None and silence.told:
            self._tell(name, "")
            silence.told = False
        now = self._now()
        if found is not None and not confirmed:
            silence.look_at = now + TICK
            return
        silence.look_at = now + silence.pause
        silence.pause = min(2 * silence.pause, LONGEST_TOLD if silence.told else LONGEST)

    def _around(self, session: ProcessSession, screen: str) -> Circumstances:
        last = session.last_output_at()
        since = float("-inf") if last is None else last
        tool_since = self._at_tool(session.spec.id)
        at_tool = None if tool_since is None else tool_since != float("inf")
        if at_tool and tool_since is not None:
            # Read anew after an adoption, its call seems newer than the output in which it is.
            since = min(tool_since, since)
        return Circumstances(since, at_tool, session.capabilities.interactive, is_seen=_says_something(screen))

    def _is_told(self, session_id: str) -> bool:
        view = self._ledger.world.sessions.get(session_id)
        return view is not None and bool(view.awaits)

    def _tell(self, session_id: str, what: str, wait: InputWait | None = None) -> None:
        pid, source = (wait.pid, wait.source) if wait is not None else (None, None)
        self._ledger.append_nowait(ev.InputAwaited(session_id, what, pid, source))


def _says_something(screen: str) -> bool:
    """Whether it is known what a session's screen shows."""
    if not screen:
        return False
    # Not before there is one: what reads screens is much to import.
    from kasmos.screens import ScreenState

    return screen != ScreenState.UNKNOWN


def _is_in_hand(view: SessionView) -> bool:
    """Whether it is known what the session waits for, or somebody is with it."""
    return view.waiting_since_mono is not None or view.stop_reason is not None or view.attended


@asynccontextmanager
async def open_quiet_watch(watch: QuietWatch, *, report: Callable[[str], None]) -> AsyncGenerator[None, None]:
    """Have the silent sessions watched beside the block.

    Args:
        watch: the watch.
        report: told of a bug of ours, which ends the watch and nothing else.
    """

    async def run() -> None:
        try:
            await watch.run()
        except Exception as error:
            report(f"a bug of kasmos: sessions that hang are not told of any more: {error!r}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield
        nursery.cancel_scope.cancel()
