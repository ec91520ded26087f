"""Which dialog a terminal shows: look after look it is told whether it is still the one that was there.

`standing` decides what two sights say; here is kept what was seen, and who typed is asked where that counts.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection

import attrs

from kasmos.model.approval import Ask, AskKind
from kasmos.model.screen import Picture
from kasmos.screens import NEVER, Ruleset, Screen, ScreenState, Verdict, transcript
from kasmos.supervision.asking import ask_of, shown_of
from kasmos.supervision.standing import Likeness, Sight, Standing, compare, first_of, is_rest

TYPED_LATELY = 6.0
"""Seconds for which what was typed may have answered a dialog; tmux tells whole ones."""

DRAWN_AFTER = 1.0
"""Seconds for which what may be half drawn has to stand before it counts as drawn.

A dialog that names no command and no file: programs draw the frame of one before they have what goes into it. One of
which all was there before, and more: they take one away line by line. Another one in another size. In place of one,
what cannot be read. Each of them has this time for itself.
"""
DRAWN_AT_LATEST = 4.0
"""Seconds after which it counts however often it becomes another one."""


class Dialogs:
    """The dialogs of one terminal.

    Args:
        rules: the screen rules of its program.
        wall: the wall clock.
        typed_at: finds out when somebody typed last, or came, by that clock.
        known: identities of what an earlier supervisor has seen it ask and that is not settled.
    """

    def __init__(
        self,
        rules: Ruleset,
        wall: Callable[[], float],
        typed_at: Callable[[], Awaitable[float]],
        known: Collection[str] = (),
    ) -> None:
        self._rules = rules
        self._wall = wall
        self._typed_at = typed_at
        self._known = known
        self._seen: Standing | None = None
        """The dialog that the last look saw."""
        self._told: Standing | None = None
        """The newest dialog that was told of."""
        self._gone = False
        """It was seen that this one is there no more."""
        self._half = ""
        """What is seen that may be half drawn; nothing if nothing is."""
        self._half_since = math.inf
        self.drawn_at = math.inf
        """When what was seen counts as drawn and can be told; infinite where nothing is waited for."""

    @property
    def ask(self) -> Ask | None:
        """What was asked at the last look."""
        return self._seen.ask if self._seen is not None else None

    def tell(self) -> Ask | None:
        """What was seen last counts, and what is seen from now on is compared with it; what it asks."""
        if self._seen is not None:
            self._told = self._seen
        self._half, self.drawn_at = "", math.inf
        self._gone = self._seen is None
        return self.ask

    def keep(self, seen: Standing | None, verdict: Verdict, now: float) -> None:
        """Keep what the newest look has seen, at an instant of any steady clock."""
        self._seen = seen
        half = self._half_drawn(verdict)
        if half and not self._half:
            self._half_since = now
        if half != self._half:
            self.drawn_at = min(now + DRAWN_AFTER, self._half_since + DRAWN_AT_LATEST) if half else math.inf
        self._half = half
        self._gone = self._gone or (seen is None and verdict.state is not ScreenState.UNKNOWN)

    async def recognise(self, picture: Picture, screen: Screen, verdict: Verdict) -> Standing | None:
        """The dialog that is seen, if there is one: the one that was told of, or another one.

        Raises:
            SessionError: who has typed cannot be asked.

        Cancellation: no effect.
        """
        ask, told = ask_of(verdict), self._told
        if ask is None:
            return None
        sight = Sight(
            ask,
            shown_of(verdict),
            above=transcript(screen, self._rules),
            history=picture.history,
            size=(picture.width, picture.height),
            unread=picture.unread > 0,
        )
        likeness = Likeness.OTHER
        if told is not None and not self._gone:
            likeness = compare(told.last, sight, self._begins)
        typed_at = await self._typed_at() if likeness is not Likeness.SAME else 0.0
        if told is None:
            return attrs.evolve(first_of(sight, self._known), typed_at=typed_at)
        if likeness is Likeness.DOUBTFUL and typed_at <= max(told.typed_at, self._wall() - TYPED_LATELY):
            likeness = Likeness.SAME
        if likeness is Likeness.SAME:
            return attrs.evolve(told, last=sight)
        return Standing(sight, sight, told.number + 1, typed_at)

    def _half_drawn(self, verdict: Verdict) -> str:
        """What is seen that may be half drawn; nothing if nothing is."""
        seen, told = self._seen, self._told
        if seen is None:
            # What cannot be read may be the dialog that stands, being drawn anew.
            unreadable = told is not None and not self._gone and verdict.state is ScreenState.UNKNOWN
            return verdict.state.value if unreadable else ""
        identity = seen.ask.identity
        if told is None:
            return identity if identity not in self._known and _is_frame(seen.ask) else ""
        if told.number == seen.number:
            return ""
        # One that was seen to be gone is not being taken away. In another size one is drawn anew, and until then cut.
        is_rest_of_it = is_rest(told.last, seen.last) or told.last.size != seen.last.size
        return identity if _is_frame(seen.ask) or (is_rest_of_it and not self._gone) else ""

    def _begins(self, line: str) -> bool:
        layout = self._rules.layout
        return layout.block is NEVER or bool(layout.block.search(line))


def _is_frame(ask: Ask) -> bool:
    return ask.kind is AskKind.PERMISSION and not (ask.command or ask.path)
