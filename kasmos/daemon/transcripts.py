"""What agents say, read for those who ask: from any place on, while they say it and afterwards.

What an event means depends on what came before it, so whoever asks has the transcript read from its beginning, in
pieces, and is given what comes after their place. Readers of whom somebody may come back are kept where they stand, so
that a transcript that is taken page by page is read once.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

import trio

from kasmos.daemon.reading import OutputReader, ahead
from kasmos.daemon.shapes import ConclusionWire, FailureWire
from kasmos.exceptions import RequestError
from kasmos.model.codec import format_instant
from kasmos.model.value import frozen
from kasmos.model.view import SessionView

if TYPE_CHECKING:
    from kasmos.harnesses.facts import Facts
    from kasmos.harnesses.placed import Place, PlacedEvent

PIECE = 65_536
"""Bytes that are read and understood at once: others have their turn after each."""
PAGE_BYTES = 1 << 20
"""Bytes of output after whose events a page is full, however few they are."""
KEPT = 8
"""Readers that are kept for those who come back."""


@frozen
class TranscriptPiece:
    """What comes next of a transcript."""

    session_id: str
    events: tuple[PlacedEvent, ...]
    place: Place
    """Where to go on."""
    lost: int
    """Bytes of output that are gone, before or between these events."""
    ended: bool
    """Nothing will follow."""


class TranscriptReader:
    """Reads one session's transcript for one who asks.

    Args:
        session: whose.
        facts: of its program.
        output: reads its output.
        place: what is told is behind it.
    """

    def __init__(self, session: SessionView, facts: Facts, output: OutputReader, place: Place) -> None:
        from kasmos.harnesses.parser import TranscriptParser
        from kasmos.harnesses.placed import PlacedTranscript
        from kasmos.harnesses.zones import zone_of_name

        self.session_id = session.id
        self._session = session
        self._output = output
        parser = TranscriptParser(facts, now=session.ended_at or time.time(), zone_of=zone_of_name)
        self._transcript = PlacedTranscript(parser)
        self._place = place
        self._waiting: deque[PlacedEvent] = deque()
        self._lost = 0
        self._closed = False

    @property
    def place(self) -> Place:
        """Behind what was given out."""
        return self._place

    async def take(self, limit: int, wait: float = 0.0) -> TranscriptPiece:
        """What comes next, at most so many events; nothing when there is nothing within *wait* seconds.

        Raises:
            RequestError: 410 `output_gone` if its output was removed; 400 `cursor_ahead` if it has ended and has never
                come to the place.

        Cancellation: nothing is skipped; may be called again.
        """
        deadline = trio.current_time() + wait
        while not self._waiting and not self._closed:
            left = max(0.0, deadline - trio.current_time())
            if not await self._read_on(left) and left <= 0:
                break
        await trio.lowlevel.checkpoint()
        return self._give(limit)

    async def _read_on(self, wait: float) -> bool:
        """Read and understand one more piece; whether there was any."""
        output = await self._output.read(self._session, self._transcript.read, PIECE, wait)
        chunk = output.chunk
        found = []
        if chunk.lost:
            self._lost += max(0, chunk.offset - max(self._transcript.read, self._place.offset))
            found += self._transcript.skip_to(chunk.offset)
        found += self._transcript.feed(chunk.data)
        if output.ended:
            found += self._transcript.close()
            if self._place > max([self._transcript.place, *(event.after for event in found)]):
                raise ahead(f"cursor {self._place}", self.session_id)
            self._closed = True
        self._waiting.extend(event for event in found if event.after > self._place)
        return bool(chunk.data) or output.ended

    def _give(self, limit: int) -> TranscriptPiece:
        given: list[PlacedEvent] = []
        while self._waiting and len(given) < limit:
            if given and self._waiting[0].offset - given[0].offset > PAGE_BYTES:
                break
            given.append(self._waiting.popleft())
        if given:
            self._place = max(self._place, given[-1].after)
        if not self._waiting:
            # What says nothing need not be read again.
            self._place = max(self._place, self._transcript.place)
        lost, self._lost = self._lost, 0
        ended = self._closed and not self._waiting
        return TranscriptPiece(self.session_id, tuple(given), self._place, lost, ended)


class Transcripts:
    """The transcripts of a supervisor's sessions."""

    def __init__(self, output: OutputReader) -> None:
        self._output = output
        self._kept: OrderedDict[tuple[str, Place], TranscriptReader] = OrderedDict()

    def open(self, session: SessionView, place: Place) -> TranscriptReader:
        """A reader that stands at this place.

        Raises:
            RequestError: 409 `no_agent_events` if what the session writes is not understood.
        """
        kept = self._kept.pop((session.id, place), None)
        return kept or TranscriptReader(session, facts_of(session), self._output, place)

    def keep(self, reader: TranscriptReader) -> None:
        """Keep a reader for whoever goes on where it stands."""
        self._kept[reader.session_id, reader.place] = reader
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)


def facts_of(session: SessionView) -> Facts:
    """The harness of a session whose program's stream is understood.

    Raises:
        RequestError: 409 `no_agent_events` if it is not.
    """
    from kasmos.harnesses.catalog import find_harness

    facts = find_harness(session.harness) if session.harness else None
    if facts is not None:
        return facts
    why = "its program writes no events that are known"
    if session.harness:
        why = f"its harness {session.harness!r} is not installed any more"
    detail = f"session {session.id} has no events of an agent: {why}; its output can be read as it is"
    raise RequestError(409, "no_agent_events", detail)


def conclusion_wire(session: SessionView) -> ConclusionWire | None:
    """What a session's program said of its end, as JSON has it."""
    said = session.conclusion
    if said is None:
        return None
    failure = said.failure
    told = None
    if failure is not None:
        reset_at = None if failure.reset_at is None else format_instant(failure.reset_at)
        shortfall = None if failure.shortfall is None else failure.shortfall.value
        told = FailureWire(
            failure.kind.value, failure.message, shortfall, failure.retry_after, reset_at, failure.status
        )
    return ConclusionWire(said.outcome.value, told, said.conversation or None, said.model or None)
