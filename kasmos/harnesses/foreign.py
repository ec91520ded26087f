"""A dialect that somebody else wrote: what goes wrong in it costs its own line, and never the session."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from typing import Any

from kasmos.harnesses.conclusion import Usage
from kasmos.harnesses.dialect import Dialect, unknown
from kasmos.harnesses.evidence import Evidence
from kasmos.model.agent_event import MAX_UNKNOWN, AgentEvent, Unknown

BROKEN = "dialect_error"
"""The name of the event for a line on which a dialect has failed."""

_EVENTS = typing.get_args(AgentEvent)


class Guarded(Dialect):
    """Asks a dialect of a third party; where it raises, or gives what is no event, its line is `unknown` and says so.

    Args:
        evidence: of the transcript.
        make: makes the dialect.
    """

    def __init__(self, evidence: Evidence, make: Callable[[Evidence], Dialect]) -> None:
        super().__init__(evidence)
        self._wrong = ""
        self._inner: Dialect | None = None
        try:
            self._inner = make(evidence)
        # Here and below: it is not ours, and raises what it likes.
        except Exception as error:
            self._wrong = _said(error)

    def record(self, record: dict[str, Any]) -> list[AgentEvent]:
        inner = self._inner
        if inner is None:
            self.evidence.records += 1
            return [self._broken(unknown(record).text)]
        return self._asked(lambda: inner.record(record), lambda: unknown(record).text)

    def text(self, line: str) -> list[AgentEvent]:
        inner = self._inner
        if inner is None:
            self.evidence.note(line)
            return [self._broken(line)]
        return self._asked(lambda: inner.text(line), lambda: line)

    def close(self) -> list[AgentEvent]:
        inner = self._inner
        return self._asked(inner.close, str) if inner is not None else []

    def usage(self) -> Usage:
        """What was used; unknown where the dialect cannot say."""
        try:
            found = self._inner.usage() if self._inner is not None else None
        except Exception as error:
            self._wrong = _said(error)
            return Usage()
        return found if isinstance(found, Usage) else Usage()

    def _asked(self, ask: Callable[[], Iterable[AgentEvent]], line: Callable[[], str]) -> list[AgentEvent]:
        try:
            events = list(ask())
        except Exception as error:
            self._wrong = _said(error)
            return [self._broken(line())]
        odd = next((event for event in events if not isinstance(event, _EVENTS)), None)
        if odd is None:
            return events
        self._wrong = f"{type(odd).__name__} is no event"
        return [self._broken(line())]

    def _broken(self, line: str) -> Unknown:
        return Unknown(BROKEN, f"{self._wrong}: {line}"[:MAX_UNKNOWN])


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
