"""When the fold of a journal is kept, and by whom: a Trio task of its own and a thread, beside all that is at work.

It is kept when so much has come since that a start would notice it, in order to be found at the next start: after a
while, at the end, and when what was kept has become useless because something was forgotten. That it cannot be kept
stops nobody: the next start folds more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs
import trio

from kasmos.store.kept_fold import Folded, path_of, write_kept

LEAST = 2_000
"""Events that are folded at a start in no time: for less, nothing is kept at the end or at the beginning."""
OFTEN = 5_000
"""Events after which it is kept while work goes on; more where there is more to write than that."""
FIRST_PAUSE = 5.0
"""Seconds after the beginning in which there is something better to do."""
END_TIMEOUT = 3.0
"""Seconds that the end waits for it."""
_LAST_PIECE = 2.0
"""Seconds that it is waited for after that, for what it was just writing."""
_BREATH = 0.001


class _GivenUpError(Exception):
    """There is no time for it."""


class Keeper:
    """Keeps the fold of one journal. Belongs to its Trio thread.

    Args:
        path: the journal.
        folded: as it was opened; its world is advanced by the journal.
        ours: whether the journal is still the file at its path.
        note: is told why it cannot be kept.
    """

    def __init__(self, path: Path, folded: Folded, ours: Callable[[], bool], note: Callable[[str], None]) -> None:
        self._path = path_of(path)
        self._world = folded.world
        self._footing = folded.footing
        self._ours = ours
        self._note = note
        self._kept_events = folded.kept_events
        self._stale = False
        self._due = trio.Event()
        self._thread = trio.CapacityLimiter(1)
        self._given_up = False
        self._scope = trio.CancelScope()
        self.steady = trio.Lock()
        """Held by whoever makes the world differ from the journal for a moment."""

    def advanced(self, seq: int, link: int, events: int) -> None:
        """Note that the journal was advanced to this row, by so many events."""
        self._footing = attrs.evolve(self._footing, seq=seq, link=link, events=self._footing.events + events)
        if self._behind >= max(OFTEN, (len(self._world.runs) + len(self._world.sessions)) // 4):
            self._due.set()

    def pruned(self, events: int) -> None:
        """Note that so many events were forgotten, in the journal and in its world."""
        self._footing = attrs.evolve(self._footing, events=self._footing.events - events)
        self._stale = self._stale or self._kept_events > 0
        if self._stale:
            self._due.set()

    @property
    def _behind(self) -> int:
        return self._footing.events - self._kept_events

    async def run(self) -> None:
        """Keep it whenever that is due, until `give_up`."""
        with self._scope:
            if self._behind >= LEAST:
                await trio.sleep(FIRST_PAUSE)
                await self._keep(self._take_breath)
            while True:
                await self._due.wait()
                await self._keep(self._take_breath)

    def give_up(self) -> None:
        """End `run`, and let what is being kept be; what was kept before stays."""
        self._given_up = True
        self._scope.cancel()

    async def finish(self) -> None:
        """Keep it at the end, if that is worth while, within a bound.

        Cancellation: no effect.
        """
        # Two bounds: the first lets the thread end by itself, the second is for a disk that hangs.
        with trio.move_on_after(END_TIMEOUT + _LAST_PIECE, shield=True) as patience:
            async with self._thread:
                # Whoever was left behind when we gave up has ended: it writes the same file.
                pass
            if self._stale or self._behind >= LEAST:
                await self._keep(partial(_hurry, time.monotonic() + END_TIMEOUT))
        if patience.cancelled_caught:
            self._note(f"the fold of the journal is not kept in {self._path}: its disk does not answer")

    async def _keep(self, pause: Callable[[], None]) -> None:
        async with self.steady:
            world, footing = self._world.copy(), self._footing
        self._due = trio.Event()
        before = self._kept_events, self._stale
        self._kept_events, self._stale = footing.events, False
        write = partial(write_kept, self._path, world, footing, pause=pause, ours=self._ours)
        try:
            await trio.to_thread.run_sync(write, limiter=self._thread, abandon_on_cancel=True)
        except _GivenUpError:
            self._kept_events, self._stale = before
        except trio.Cancelled:
            self._kept_events, self._stale = before
            raise
        # It is a cache: whatever is wrong with it, a bug included, the work goes on without it.
        except Exception as error:
            # The next attempt is not made before as much has come again.
            self._stale = before[1]
            self._note(f"the fold of the journal cannot be kept in {self._path}: {error}")

    def _take_breath(self) -> None:
        """Let the supervisor go on: it waits for the interpreter as long as one piece takes."""
        if self._given_up:
            raise _GivenUpError
        time.sleep(_BREATH)


def _hurry(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise _GivenUpError
