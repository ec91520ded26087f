"""Budgets: what may be spent, by whom, in what unit."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from kasmos.model.value import frozen


@frozen
class Limit:
    """What may be spent. None is no limit."""

    money: float | None = None
    """USD."""
    tokens: int | None = None
    """Read afresh or written; not those from a cache."""
    turns: int | None = None
    """Of the agent."""
    time: float | None = None
    """Seconds of running."""

    def __bool__(self) -> bool:
        # Asked several times for each session.
        return not (self.money is None and self.tokens is None and self.turns is None and self.time is None)


@frozen
class Budgets:
    """All budgets. They nest: a session spends from each that it is in."""

    daily: float | None = None
    """USD a day, of everything together."""
    zone: str = "local"
    """In which a day begins at midnight: `local`, `UTC`, or a name of the time zone database."""
    per_run: Limit = Limit()
    per_task: Limit = Limit()
    """All attempts together."""
    agents: Mapping[str, Limit] = attrs.field(factory=dict)
    """A day, by agent."""
    accounts: Mapping[str, Limit] = attrs.field(factory=dict)
    """A day, by account."""

    def __bool__(self) -> bool:
        everybody = (self.per_run, self.per_task, *self.agents.values(), *self.accounts.values())
        return self.daily is not None or any(everybody)
