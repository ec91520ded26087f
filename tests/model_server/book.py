"""What was asked and what was handed out, and the gates that answers wait at."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from .dialect import Usage


@attrs.define(eq=False)
class Entry:
    """One request."""

    n: int
    method: str
    path: str
    at: float
    """Seconds since the epoch."""
    dialect: str = ""
    conversation: str = ""
    model: str = ""
    stream: bool = False
    side: bool = False
    """Whether it was about something beside the conversation: a title, a summary, who speaks next."""
    step: str = ""
    status: int = 0
    """0 while nothing has been answered."""
    usage: Usage | None = None
    """What was handed out, once the answer was sent to its end."""
    ended: str = ""
    """`sent`, `cut` (by us) or `gone` (the program hung up); empty while it is under way."""
    error: str = ""
    """Why a request got no answer that was scripted."""
    body: Mapping[str, Any] = attrs.field(factory=dict)


def _is_short(field: attrs.Attribute[Any], value: object) -> bool:
    return field.name != "body"


class Book:
    """The log of one server."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.failed: defaultdict[tuple[str, str], Counter[int]] = defaultdict(Counter)
        """How often each step of each script has failed a request."""
        self._gates: defaultdict[str, trio.Event] = defaultdict(trio.Event)
        self._news = trio.Event()

    def enter(self, method: str, path: str, at: float) -> Entry:
        """Write down that a request has come."""
        entry = Entry(len(self.entries) + 1, method, path, at)
        self.entries.append(entry)
        return entry

    def tell(self) -> None:
        """Wake whoever waits for news: entries have changed."""
        self._news.set()
        self._news = trio.Event()

    def about(self, conversation: str | None) -> list[dict[str, Any]]:
        """The entries of one conversation, or all of them."""
        return [
            attrs.asdict(entry, filter=_is_short)
            for entry in self.entries
            if conversation in (None, entry.conversation)
        ]

    async def wait_entries(self, conversation: str | None, at_least: int, ended: int) -> list[dict[str, Any]]:
        """The entries of a conversation, as soon as there are so many, and so many of them have ended."""
        while True:
            found = self.about(conversation)
            if len(found) >= at_least and sum(bool(entry["ended"]) for entry in found) >= ended:
                return found
            await self._news.wait()

    def next_usage(self, conversation: str) -> Usage:
        """What the next answer costs: another number each time, so that no sum is right by chance."""
        n = sum(entry.conversation == conversation for entry in self.entries)
        return Usage(input=1000 + 7 * n, cached=500 + n, output=100 + 3 * n, reasoning=10 + n)

    def handed_out(self, conversation: str) -> dict[str, dict[str, int]]:
        """Sums over answers that were sent to their end: `main`, `side` (titles and the like), and how many."""
        sums: dict[str, Counter[str]] = {"main": Counter(answers=0), "side": Counter(answers=0)}
        for entry in self.entries:
            if entry.conversation == conversation and entry.usage is not None:
                sums["side" if entry.side else "main"].update({"answers": 1, **attrs.asdict(entry.usage)})
        return {kind: dict(counted) for kind, counted in sums.items()}

    def open_gate(self, name: str) -> None:
        """Let go on what waits at a gate, now and later."""
        self._gates[name].set()

    async def wait_gate(self, name: str) -> None:
        """Wait until a gate is open."""
        await self._gates[name].wait()
