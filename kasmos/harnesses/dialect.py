"""How one program speaks: the part every dialect has.

A dialect is given records (JSON objects) and lines of text in order, gives events, and fills the evidence.
It never raises: whatever has a shape it does not know is an `unknown` event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kasmos.harnesses.conclusion import Usage
from kasmos.harnesses.evidence import Evidence, Problem
from kasmos.harnesses.fields import mended, plain, word_of
from kasmos.model.agent_event import MAX_UNKNOWN, AgentEvent, ErrorReport, Message, Unknown
from kasmos.model.codec import CodecError, encode

HELD_LINES = 200
"""Lines of text after which a stream without a record is taken for plain text."""

Handler = Callable[[dict[str, Any]], list[AgentEvent]]


class Dialect:
    """A program whose stream is JSON lines, with whatever else is written between them."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.handlers: dict[str, Handler] = {}
        """By the record's `type`."""
        self._held: list[str] | None = []

    def record(self, record: dict[str, Any]) -> list[AgentEvent]:
        """Take one record."""
        self.evidence.records += 1
        before = self._release() if self._held is not None else []
        kind = record.get("type")
        handler = self.handlers.get(kind) if type(kind) is str else None
        events = self.other(record) if handler is None else handler(record)
        return before + events if before else events

    def text(self, line: str) -> list[AgentEvent]:
        """Take one line that is no record."""
        line = plain(line)
        self.evidence.note(line)
        if self.facts_deny(line):
            self.evidence.deny("")
        if self.evidence.records:
            return [Unknown(text=line[:MAX_UNKNOWN])] if line.strip() else []
        if self._held is None:
            return self._prose(line)
        self._held.append(line)
        return self._as_prose() if len(self._held) > HELD_LINES else []

    def close(self) -> list[AgentEvent]:
        """Nothing more comes."""
        return [] if self.evidence.records else self._as_prose()

    def usage(self) -> Usage:
        """What was used, as far as it was told."""
        return Usage()

    def other(self, record: dict[str, Any]) -> list[AgentEvent]:
        """Take a record whose type no handler knows."""
        return [unknown(record)]

    def facts_deny(self, words: str) -> bool:
        """Whether these words say that a tool was refused."""
        pattern = self.evidence.facts.denied
        return pattern is not None and pattern.search(words) is not None

    def _release(self) -> list[AgentEvent]:
        # There is a stream of records: what came before is no answer.
        held, self._held = self._held or [], None
        return [Unknown(text=line[:MAX_UNKNOWN]) for line in held if line.strip()]

    def _as_prose(self) -> list[AgentEvent]:
        held, self._held = self._held or [], None
        return [event for line in held for event in self._prose(line)]

    def _prose(self, line: str) -> list[AgentEvent]:
        """A line of a program that answers in plain text."""
        pattern = self.evidence.facts.error_line
        if pattern is not None and pattern.search(line):
            return [report(self.evidence.judge(line))]
        if line.strip():
            self.evidence.spoke = True
        self.evidence.answer = line if not self.evidence.answer else f"{self.evidence.answer[-60_000:]}\n{line}"
        return [Message(line, partial=True)]


def unknown(record: dict[str, Any], name: str | None = None) -> Unknown:
    """The event for a record that is not understood."""
    try:
        text = encode(record).decode()
    except (CodecError, OverflowError):
        text = encode(mended(record)).decode()
    return Unknown(name or word_of(record.get("type")) or word_of(record.get("method")), text[:MAX_UNKNOWN])


def report(problem: Problem) -> ErrorReport:
    """The event for a problem."""
    return ErrorReport(problem.message, problem.kind.value, problem.final, problem.status)
