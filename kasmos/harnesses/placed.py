"""What a transcript says, and where: every event with the line it comes from, so that a reader can go on after it.

A place is the absolute offset of a line and how many of its events are behind it. Events depend on what came before
them, so a transcript is always read from its beginning; who goes on somewhere is given what comes after. Pure.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from kasmos.harnesses.parser import TranscriptParser
from kasmos.model.agent_event import AgentEvent
from kasmos.model.value import frozen

_WRITTEN = re.compile(r"(\d{1,18})(?:\.(\d{1,9}))?")


class Place(NamedTuple):
    """A place between two events; the greater, the later."""

    offset: int = 0
    """Absolute offset of the line."""
    seen: int = 0
    """How many of that line's events are before this place."""

    def __str__(self) -> str:
        return f"{self.offset}.{self.seen}" if self.seen else str(self.offset)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote.

        Raises:
            ValueError: it is something else.
        """
        match = _WRITTEN.fullmatch(text)
        if match is None or not text.isascii():
            raise ValueError(f"{text!r} is no place in a transcript")
        return cls(int(match[1]), int(match[2] or 0))


@frozen
class PlacedEvent:
    """An event, and where it stands."""

    event: AgentEvent
    offset: int
    """Absolute offset of the line that made it clear; of the output's end where only that did."""
    after: Place
    """The place just behind it."""


class PlacedTranscript:
    """Reads one transcript in order.

    Args:
        parser: a fresh one.
    """

    def __init__(self, parser: TranscriptParser) -> None:
        self._parser = parser
        self._line = 0
        self._read = 0

    @property
    def read(self) -> int:
        """Absolute offset up to which it was fed."""
        return self._read

    @property
    def place(self) -> Place:
        """The place behind the last whole line."""
        return Place(self._line)

    def feed(self, data: bytes) -> list[PlacedEvent]:
        """Take more of the output; the events that are complete now."""
        found: list[PlacedEvent] = []
        begin = 0
        while (end := data.find(b"\n", begin) + 1) > 0:
            events = self._parser.feed(data[begin:end])
            if events:
                found += self._placed(events)
            self._read += end - begin
            self._line = self._read
            begin = end
        if begin < len(data):
            # No line ends here, so nothing is complete by it.
            self._parser.feed(data[begin:])
            self._read += len(data) - begin
        return found

    def skip_to(self, offset: int) -> list[PlacedEvent]:
        """Go on at *offset*: what is between is gone. The line that was cut by it ends there."""
        if self._read == self._line:
            self._read = self._line = offset
            return []
        found = self._placed(self._parser.feed(b"\n"))
        self._read = self._line = offset
        return found

    def close(self) -> list[PlacedEvent]:
        """Nothing more comes: the events of a last line without an end, and what only the end makes clear."""
        last = self._placed(self._parser.feed(b"\n")) if self._read != self._line else []
        self._line = self._read
        return last + self._placed(self._parser.close())

    def _placed(self, events: list[AgentEvent]) -> list[PlacedEvent]:
        return [PlacedEvent(event, self._line, Place(self._line, at + 1)) for at, event in enumerate(events)]
