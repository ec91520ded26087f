"""The meter: follows what a session writes, makes known what it has used, and says when that is too much.

It reads from the first byte, also after adoption: what it tells are totals, so that nothing counts twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from kasmos.model import event as ev
from kasmos.model.session import ExitStatus
from kasmos.model.usage import Usage
from kasmos.model.view import Conclusion
from kasmos.sessions.protocol import ExecutionSession
from kasmos.supervision.ledger import Ledger

PIECE = 262_144
"""Bytes that are read at a time."""
INTERVAL = 1.0
"""Least seconds between two snapshots of one session: a stream may tell of its usage hundreds of times a second."""


@attrs.frozen
class Reading:
    """What a session has used so far."""

    usage: Usage = Usage()
    turns: int = 0
    conversation: str = ""


class Listener(Protocol):
    """**Protocol.** Understands what one session writes."""

    def feed(self, data: bytes) -> None:
        """Take the next piece of the output."""

    def read(self) -> Reading:
        """What has been used by what was fed."""

    def conclude(self, status: ExitStatus) -> Conclusion | None:
        """Judge the whole; None where that is somebody else's."""

    @property
    def silent(self) -> bool:
        """Whether nothing was told, and nothing need have been: then nothing is recorded."""


@attrs.frozen
class MeterTerms:
    """What a meter is given."""

    day: Callable[[], str]
    """The present day."""
    seconds: Callable[[], float]
    """How long the session has run."""
    now: Callable[[], float]
    """CLOCK_MONOTONIC."""
    over_budget: Callable[[str], str]
    """Why a session, by its id, may spend no more, as of the last commit; nothing if it may."""
    stop: Callable[[str], None]
    """Asks the session to end, for that reason."""


class Meter:
    """Follows one session. *listener* is None for a program that tells nothing: what it uses is unknown."""

    def __init__(self, session: ExecutionSession, ledger: Ledger, listener: Listener | None, terms: MeterTerms) -> None:
        self._session = session
        self._ledger = ledger
        self._listener = listener
        self._terms = terms
        self._offset = 0
        self._told = Reading()
        self._told_mono = float("-inf")

    @property
    def listens(self) -> bool:
        """Whether there is anything to follow."""
        return self._listener is not None

    async def run(self) -> None:
        """Follow the output until the session has ended. Cancellation: no effect; `finish` reads the rest."""
        while self._listener is not None:
            chunk = await self._session.read(self._offset, PIECE)
            if not chunk.data:
                return
            self._listener.feed(chunk.data)
            self._offset = chunk.end
            await self._tell(self._listener.read())

    async def _tell(self, reading: Reading) -> None:
        now = self._terms.now()
        if reading == self._told or now - self._told_mono < INTERVAL:
            return
        self._told, self._told_mono = reading, now
        await self._ledger.append(self._snapshot(reading))
        why = self._terms.over_budget(self._session.spec.id)
        if why:
            self._terms.stop(why)

    async def finish(self, status: ExitStatus | None) -> list[ev.Event]:
        """What is to be recorded at the end, after the last of the output was read.

        Args:
            status: how the program ended; None where that will never be known.

        Cancellation: no effect; may be called again.
        """
        if self._listener is None:
            return [self._snapshot(Reading())]
        while (chunk := self._session.read_nowait(self._offset, PIECE)).data:
            self._listener.feed(chunk.data)
            self._offset = chunk.end
            await trio.lowlevel.checkpoint()
        if self._listener.silent:
            return []
        events: list[ev.Event] = []
        if status is not None:
            said = self._listener.conclude(status)
            if said is not None:
                events.append(ev.SessionConcluded(self._session.spec.id, said.outcome, said.failure))
        # Only after the judgement: the last line may be complete only by it.
        return [self._snapshot(self._listener.read()), *events]

    def _snapshot(self, reading: Reading) -> ev.SessionUsed:
        seconds = round(self._terms.seconds(), 3)
        return ev.SessionUsed(
            self._session.spec.id, reading.usage, self._terms.day(), reading.turns, seconds, reading.conversation
        )
