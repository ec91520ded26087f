"""The treasury: whether a session may be started now, on its account and within its budgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import attrs

from kasmos.model.budget import Budgets
from kasmos.model.profile import AgentProfile
from kasmos.model.task import Cause, CauseKind
from kasmos.model.usage import Price
from kasmos.model.value import define
from kasmos.model.view import World
from kasmos.orchestration import budgets as purse
from kasmos.orchestration.accounts import decide_start, next_opening, parked_now, told
from kasmos.orchestration.budgets import Place, Shortage
from kasmos.orchestration.days import day_of, next_day_at
from kasmos.supervision.recipe import Hindrance


def _no_budgets() -> Budgets:
    return Budgets()


def _no_prices() -> Mapping[str, Price]:
    return {}


@define(eq=False)
class Treasury:
    """Answers by the present configuration and the present world. Never blocks."""

    budgets: Callable[[], Budgets] = _no_budgets
    prices: Callable[[], Mapping[str, Price]] = _no_prices
    wall: Callable[[], float] = time.time
    may_ask: bool = True
    """Whether anybody is there to see to an account; if not, tasks that need one fail rather than to wait."""
    _reserved: dict[str, float] = attrs.field(factory=dict)
    """By account, the newest monotonic instant that was given out for a start."""
    _starting: dict[Place, int] = attrs.field(factory=dict)
    """Places whose sessions may start and are not recorded yet, with the attempts there were before."""

    def day(self) -> str:
        """The present day."""
        return day_of(self.wall(), self.budgets().zone)

    def hindrance(self, world: World, place: Place) -> Hindrance | None:
        """Why no session may be started at a place now; None if one may be."""
        view = world.accounts.get(place.account)
        parked = parked_now(view, self.wall())
        if parked is not None:
            reason = told(place.account, parked)
            if parked.until_at is None and not self.may_ask:
                return Hindrance(reason, Cause(CauseKind.ACCOUNT, reason))
            return Hindrance(reason)
        shortage = self.shortage(world, place)
        if shortage is None:
            return None
        return Hindrance(shortage.reason, None if shortage.waits else Cause(CauseKind.BUDGET, shortage.reason))

    def is_unlimited(self, world: World, account: str) -> bool:
        """Whether an account is open, and there are no budgets at all."""
        return not self.budgets() and parked_now(world.accounts.get(account), self.wall()) is None

    def shortage(self, world: World, place: Place) -> Shortage | None:
        """Which budget has nothing left for somebody at a place."""
        present = self.budgets()
        if not present:
            return None
        found = list(purse.purses(present, world, place, self.day(), self._still_starting(world)))
        return purse.find_shortage(found, own=present.per_task)

    def begin(self, world: World, place: Place) -> Hindrance | None:
        """As `hindrance`; where there is none, what the session may spend is set aside from this very moment."""
        found = self.hindrance(world, place)
        task = purse.find_task(world, place)
        if found is None and task is not None and self.budgets():
            self._starting[place] = task.attempts
        return found

    def _still_starting(self, world: World) -> list[Place]:
        for place, attempts in list(self._starting.items()):
            task = purse.find_task(world, place)
            if task is None or task.attempts > attempts or task.outcome is not None:
                del self._starting[place]
        return list(self._starting)

    def over_budget(self, world: World, session_id: str) -> str:
        """Why a live session may spend no more; nothing if it may."""
        present, session = self.budgets(), world.sessions.get(session_id)
        if not present or session is None:
            return ""
        return purse.over_budget(purse.purses(present, world, purse.place_of(session), self.day()))

    def retry_after(self, shortage: Shortage) -> int:
        """Whole seconds after which it may be otherwise; at least one."""
        if shortage.waits or not shortage.of_day:
            return 60
        now = self.wall()
        return max(1, int(next_day_at(now, self.budgets().zone) - now) + 1)

    def wait_before(self, world: World, profile: AgentProfile, *, now: float, boot: str) -> float:
        """Take a place in the row of starts on an account; seconds until it is its turn."""
        name, interval = profile.account_name, profile.start_interval
        if not interval:
            return 0.0
        at = decide_start(world.accounts.get(name), self._reserved.get(name), interval, now=now, boot=boot)
        self._reserved[name] = at
        return at - now

    def opens_in(self, world: World) -> float | None:
        """Seconds until the next parked account opens by itself, or until the next day; None if nothing is closed."""
        now = self.wall()
        instant = next_opening(world.accounts.values(), now)
        return None if instant is None else max(0.0, instant - now)
