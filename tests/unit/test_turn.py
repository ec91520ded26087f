"""The end of a turn: when a program that has had a prompt may be sent away."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from kasmos.model.screen import Picture
from kasmos.screens import Composer, ScreenState, Verdict
from kasmos.supervision.turn import is_over, wait_turn_over

GRACE = 10.0


@attrs.define
class Fake:
    """A terminal that shows one thing after the other, each for some seconds; the last one for ever."""

    shows: list[tuple[float, ScreenState, str, bool]]
    begun: float = attrs.field(factory=trio.current_time)
    typing: trio.Lock = attrs.field(factory=trio.Lock)

    def _now(self) -> tuple[float, ScreenState, str, bool]:
        at = self.begun
        for one in self.shows:
            at += one[0]
            if trio.current_time() < at:
                return one
        return self.shows[-1]

    @property
    def verdict(self) -> Verdict:
        return Verdict(self._now()[1], "rule", composer=Composer(None, 0))

    @property
    def picture(self) -> Picture:
        return Picture(text=self._now()[2], width=80, height=24)

    async def is_attended(self) -> bool:
        await trio.lowlevel.checkpoint()
        return self._now()[3]

    async def wait_look(self, until: float) -> None:
        await trio.sleep_until(min(until, trio.current_time() + 1.0))


READY, WORKING = ScreenState.READY, ScreenState.WORKING


@pytest.mark.parametrize(
    ("shows", "after"),
    [
        ([(0, READY, "a", False)], GRACE),
        ([(5, WORKING, "a", False), (9, READY, "b", False), (1, WORKING, "b", False), (0, READY, "b", False)], 25.0),
        ([(5, READY, "a", False), (0, READY, "more", False)], 15.0),
        ([(15, READY, "a", True), (0, READY, "a", False)], 20.0),
    ],
    ids=["at-rest", "works-on", "writes-on", "attended"],
)
async def test_turn_over(
    autojump_clock: trio.testing.MockClock, shows: list[tuple[float, ScreenState, str, bool]], after: float
) -> None:
    """A turn is over when the input has stood empty for a while, the screen as it was, and nobody sits at it."""
    await wait_turn_over(Fake(shows), GRACE)  # type: ignore[arg-type]  # as much of a terminal as is needed
    assert trio.current_time() == pytest.approx(after, abs=1.5)


@pytest.mark.parametrize("state", [state for state in ScreenState if state is not READY])
async def test_turn_not_over(autojump_clock: trio.testing.MockClock, state: ScreenState) -> None:
    """What shows anything but an empty input is left to itself, or to a person."""
    with trio.move_on_after(10_000) as scope:
        await wait_turn_over(Fake([(0, state, "a", False)]), GRACE)  # type: ignore[arg-type]  # as above
    assert scope.cancelled_caught


def test_a_draft_is_somebodys() -> None:
    """A text that is typed and not sent keeps a turn from being over."""
    assert is_over(Verdict(READY, "rule", composer=Composer(None, 0)))
    assert not is_over(Verdict(READY, "rule", composer=Composer("half a", 0)))
    assert not is_over(None)
