"""What supervision needs of the journal."""

from __future__ import annotations

from typing import Protocol

from kasmos.model.event import Event, Record
from kasmos.model.view import World


class Ledger(Protocol):
    """**Protocol.** What a child needs of the journal."""

    @property
    def world(self) -> World:
        """The present, as of the last commit."""

    async def append(self, *events: Event) -> tuple[Record, ...]:
        """Make events durable; see `Journal.append`."""

    def append_nowait(self, *events: Event) -> None:
        """Make events durable soon, in order; see `Journal.append_nowait`."""
