"""How long who leaves waits for a disk that takes nothing."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import MockClock

from kasmos.daemon.leaving import HURRIED_TIMEOUT, STUCK_TIMEOUT, Disk, Leaving
from kasmos.model import event as ev
from kasmos.model.event import Event
from kasmos.model.session import StopReason
from kasmos.model.view import World

LOST: tuple[Event, ...] = (ev.StopRequested("s1", StopReason.INTERRUPTED), ev.RunCancelRequested("r1", "enough"))


@attrs.define(eq=False)
class Fake:
    """An orchestrator and a supervisor for whom nothing can be recorded; a program runs for some seconds."""

    runs_for: float = 0.0
    hurried: bool = False
    detached: bool = False
    world: World = attrs.field(factory=World)

    @property
    def live_sessions(self) -> list[Any]:
        return []

    async def wait_none_live(self) -> None:
        await trio.sleep(self.runs_for)

    async def wait_idle(self) -> None:
        await trio.sleep_forever()

    async def interrupt(self, reason: str) -> None:
        await trio.sleep_forever()

    def hand_on(self, reason: str) -> None:
        """As asked."""

    def request_stop_all(self, reason: StopReason) -> None:
        """As asked."""

    def hurry(self) -> None:
        self.hurried = True

    def detach_all(self) -> None:
        self.detached = True


def leaving(fake: Fake, noted: list[tuple[str, StopReason]] | None = None) -> Leaving:
    """The departure of that one, from a disk that is stuck."""
    said: list[tuple[str, StopReason]] = [] if noted is None else noted
    disk = Disk(trio.sleep, lambda: LOST, lambda name, reason: said.append((name, reason)))
    return Leaving(cast(Any, fake), cast(Any, fake), cast(Any, None), disk)


async def test_a_disk_is_waited_for_when_nothing_runs(autojump_clock: MockClock) -> None:
    """What runs gets its time; then the disk is waited for within its bound, and what is lost is told."""
    fake, noted = Fake(runs_for=30.0), list[tuple[str, StopReason]]()
    start = trio.current_time()
    departure = await leaving(fake, noted).depart("told to", stop=True)
    assert trio.current_time() - start == pytest.approx(30.0 + STUCK_TIMEOUT)
    assert departure.unwritten == LOST
    assert "2 events are not recorded" in str(departure)
    assert "asked for and not done, to be asked for again: the end of run r1" in str(departure)
    assert "found out by the next start from what they left on the disk: s1" in str(departure)
    assert noted == [("s1", StopReason.INTERRUPTED)]
    assert fake.detached


async def test_who_is_in_a_hurry_hardly_waits(autojump_clock: MockClock) -> None:
    """A second signal cuts stops short, and the wait for the disk as well."""
    fake = Fake()
    departing, start = leaving(fake), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(departing.interrupt, "told to")
        await trio.sleep(1.0)
        departing.hurry()
    assert fake.hurried
    assert trio.current_time() - start == pytest.approx(1.0 + HURRIED_TIMEOUT)


async def test_a_disk_that_takes_everything_is_not_waited_for(autojump_clock: MockClock) -> None:
    """Where all is recorded nothing is given up."""
    departing, start = leaving(Fake()), trio.current_time()
    assert await departing.wait_unless_stuck(partial(trio.sleep, 1.0))
    assert trio.current_time() - start == pytest.approx(1.0)
