"""Who understands what a session writes: its program's harness, or, for scripts, the lines they tell."""

from __future__ import annotations

import time
import zoneinfo
from collections.abc import Collection, Mapping

from kasmos.harnesses.catalog import find_harness, recognise
from kasmos.harnesses.events import Message, Thinking, ToolCall, ToolResult
from kasmos.harnesses.facts import Facts
from kasmos.harnesses.parser import TranscriptParser
from kasmos.model.budget import Limit
from kasmos.model.profile import AgentProfile, ExecutionMode, PromptMode
from kasmos.model.session import ExitStatus
from kasmos.model.task import Outcome
from kasmos.model.told import Told, parse_told
from kasmos.model.usage import Failure, FailureKind, Price, Usage, priced
from kasmos.model.view import Conclusion
from kasmos.supervision.meter import Listener, Reading


def is_metered(profile: AgentProfile) -> bool:
    """Whether what it uses counts: all but scripts, which use no model."""
    return profile.prompt is not PromptMode.SCRIPT


def listener_for(
    profile: AgentProfile, mode: ExecutionMode, model: str | None, prices: Mapping[str, Price]
) -> Listener | None:
    """Whoever understands a session of this profile; None where nobody does."""
    if mode is ExecutionMode.SCRIPTED:
        return _Script(model or profile.model, prices)
    facts = facts_of(profile)
    if mode is not ExecutionMode.HEADLESS or facts.dialect == "generic" or not is_metered(profile):
        return None
    parser = TranscriptParser(facts, now=time.time(), zone_of=_zone_of)
    return _Transcript(parser, model or profile.model, prices)


def facts_of(profile: AgentProfile) -> Facts:
    """What is known of a profile's program."""
    named = find_harness(profile.harness) if profile.harness is not None else None
    return named or recognise(profile.program)


def budget_arguments(facts: Facts, spelled: Collection[str], left: Limit) -> tuple[str, ...]:
    """The arguments by which a program with limits of its own is told what it may spend.

    Args:
        facts: of the program.
        spelled: its command, whose own limits stay as they are.
        left: what its budgets have left.
    """
    words: list[str] = []
    values = (
        ("budget", facts.launch.budget, None if left.money is None else f"{left.money:.2f}"),
        ("turns", facts.launch.turns, None if left.turns is None else str(left.turns)),
    )
    for name, flag, value in values:
        said = any(word == flag[0] or word.startswith(f"{flag[0]}=") for word in spelled) if flag else True
        if value is not None and not said:
            words += [word.replace("{" + name + "}", value) for word in flag]
    return tuple(words)


def _zone_of(name: str) -> zoneinfo.ZoneInfo | None:
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return None


def _price(model: str | None, prices: Mapping[str, Price]) -> Price | None:
    return prices.get(model) if model is not None else None


class _Transcript:
    """A program's own stream."""

    def __init__(self, parser: TranscriptParser, model: str | None, prices: Mapping[str, Price]) -> None:
        self._parser = parser
        self._model = model
        self._prices = prices
        self._turns = 0
        self._in_turn = False

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        # Times of day in it are of now, not of when the session began.
        self._parser.evidence.now = time.time()
        for event in self._parser.feed(data):
            # What an agent says and does until it is given something is one turn.
            if isinstance(event, Message | Thinking | ToolCall) and getattr(event, "role", "assistant") == "assistant":
                self._turns += event.parent is None and not self._in_turn
                self._in_turn = self._in_turn or event.parent is None
            elif isinstance(event, ToolResult) and event.parent is None:
                self._in_turn = False

    def read(self) -> Reading:
        """What has been used so far."""
        evidence = self._parser.evidence
        price = _price(evidence.model, self._prices) or _price(self._model, self._prices)
        return Reading(priced(self._parser.usage, price), self._turns, evidence.conversation or "")

    def conclude(self, status: ExitStatus) -> None:
        """Close the books; the judgement is the witness's."""
        self._parser.close()

    @property
    def silent(self) -> bool:
        """Never: an agent that says nothing has used something all the same."""
        return False


class _Script:
    """The lines that scripts tell."""

    def __init__(self, model: str | None, prices: Mapping[str, Price]) -> None:
        self._price = _price(model, prices)
        self._rest = b""
        self._told = Told()

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            told = parse_told(line)
            if told is not None:
                self._told = Told(
                    told.usage or self._told.usage,
                    max(told.turns, self._told.turns),
                    told.failure or self._told.failure,
                )

    def read(self) -> Reading:
        """What has been used so far."""
        return Reading(priced(self._told.usage or Usage(), self._price), self._told.turns)

    def conclude(self, status: ExitStatus) -> Conclusion:
        """What it told, else its exit."""
        failure = self._told.failure
        if failure is None and not status.succeeded:
            failure = Failure(FailureKind.UNKNOWN, str(status))
        return Conclusion(Outcome.SUCCEEDED if failure is None else Outcome.FAILED, failure)

    @property
    def silent(self) -> bool:
        """Whether the script tells nothing: then it is a program like any other."""
        return self._told == Told()
