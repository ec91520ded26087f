"""The meter: makes known what a session has used by its witness' readings, and says when that is too much.

What it tells are totals, so that nothing counts twice, also after adoption.
"""

from __future__ import annotations

from collections.abc import Callable

from kasmos.model import event as ev
from kasmos.model.usage import Price, priced
from kasmos.model.value import frozen
from kasmos.supervision.hearing import Reading
from kasmos.supervision.ledger import Ledger

INTERVAL = 1.0
"""Least seconds between two snapshots of one session: a stream may tell of its usage hundreds of times a second."""


@frozen
class MeterTerms:
    """What a meter is given."""

    day: Callable[[], str]
    """The present day."""
    seconds: Callable[[], float]
    """How long the session has run."""
    now: Callable[[], float]
    """CLOCK_MONOTONIC."""
    price: Callable[[str], Price | None]
    """What a model costs, by its name; by the empty name, the one the session was started with."""
    over_budget: Callable[[str], str]
    """Why a session, by its id, may spend no more, as of the last commit; nothing if it may."""
    stop: Callable[[str], None]
    """Asks the session to end, for that reason."""


class Meter:
    """Accounts for one session."""

    def __init__(self, session_id: str, ledger: Ledger, terms: MeterTerms) -> None:
        self._session_id = session_id
        self._ledger = ledger
        self._terms = terms
        self._told = Reading()
        self._told_mono = float("-inf")

    async def take(self, reading: Reading) -> None:
        """Record a reading, if it tells something new and it is time; stop the session if it may spend no more.

        Cancellation: the reading may be recorded or not; a later one takes its place.
        """
        now = self._terms.now()
        if reading == self._told or now - self._told_mono < INTERVAL:
            return
        self._told, self._told_mono = reading, now
        await self._ledger.append(self.snapshot(reading))
        why = self._terms.over_budget(self._session_id)
        if why:
            self._terms.stop(why)

    def snapshot(self, reading: Reading) -> ev.SessionUsed:
        """What is to be recorded of a reading; one of nothing says that what was used is unknown."""
        usage = priced(reading.usage, self._terms.price(reading.model))
        seconds = round(self._terms.seconds(), 3)
        return ev.SessionUsed(self._session_id, usage, self._terms.day(), reading.turns, seconds, reading.conversation)
