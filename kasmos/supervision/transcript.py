"""Understanding a program's own stream while it runs: apart, for scripts have none and do without the dialects."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from kasmos.harnesses.brief import brief, next_words
from kasmos.harnesses.conclusion import Conclusion
from kasmos.harnesses.facts import Facts
from kasmos.harnesses.parser import TranscriptParser
from kasmos.harnesses.zones import zone_of_name
from kasmos.model.agent_event import AgentEvent, Message, Result, Thinking, ToolCall, ToolResult
from kasmos.model.session import ExitStatus
from kasmos.model.usage import Shortfall
from kasmos.supervision.hearing import Reading

MOST_TOOLS = 1000
"""Tools at work that are told apart."""


class Transcript:
    """A program's own stream.

    Args:
        facts: of the program.
        accept: what may be missing although the program exits 0.
        wall: the wall clock, for times of day that programs tell.
    """

    def __init__(self, facts: Facts, *, accept: Collection[Shortfall], wall: Callable[[], float]) -> None:
        self._wall = wall
        self._parser = TranscriptParser(
            facts,
            zone_of=zone_of_name,
            accept=accept,
            # Whose word decides was asked for it, if it has such a stream at all.
            structured=bool(facts.launch.structured),
        )
        self._turns = 0
        self._in_turn = False
        self._last: AgentEvent | None = None
        self._tools: set[str | None] = set()
        self._at_tool = math.inf

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        # Times of day in it are of now, not of when the session began.
        self._parser.evidence.now = self._wall()
        for event in self._parser.feed(data):
            self._count(event)
            self._last = next_words(self._last, event)
            self._note_tool(event)

    def _note_tool(self, event: AgentEvent) -> None:
        """Note which tools are at work: those that were called and have given nothing back yet."""
        match event:
            case ToolCall():
                self._at_tool = self._wall() if not self._tools else self._at_tool
                if len(self._tools) < MOST_TOOLS:
                    self._tools.add(event.id)
            case ToolResult():
                self._tools.discard(event.id)
            case Result():
                self._tools.clear()

    def _count(self, event: AgentEvent) -> None:
        """Count turns: what an agent says and does until it is given something is one."""
        if isinstance(event, Message | Thinking | ToolCall) and getattr(event, "role", "assistant") == "assistant":
            self._turns += event.parent is None and not self._in_turn
            self._in_turn = self._in_turn or event.parent is None
        elif isinstance(event, ToolResult) and event.parent is None:
            self._in_turn = False

    @property
    def reading(self) -> Reading:
        """What has been used so far."""
        evidence = self._parser.evidence
        return Reading(self._parser.usage, self._turns, evidence.conversation or "", evidence.model or "")

    @property
    def said_done(self) -> bool:
        """Whether it has said that it is done, and nothing has gone on since."""
        evidence = self._parser.evidence
        return evidence.verdict is not None and not evidence.turn_open

    @property
    def said(self) -> str:
        """What it says or does now."""
        return brief(self._last)

    @property
    def at_tool(self) -> float | None:
        """Since when it uses a tool; None where its program writes no events."""
        if not self._parser.evidence.records:
            return None
        return self._at_tool if self._tools else math.inf

    @property
    def silent(self) -> bool:
        """Never: an agent that says nothing has used something all the same."""
        return False

    def conclude(self, status: ExitStatus) -> Conclusion:
        """Judge the whole."""
        self._parser.evidence.now = self._wall()
        return self._parser.finish(status)
