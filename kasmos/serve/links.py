"""The links by which people find a session's log, made behind the sessions' backs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import trio

from kasmos.exceptions import StoreError
from kasmos.lanes import in_thread_or_here
from kasmos.store.stateroot import StateRoot

FINISH_TIMEOUT = 2.0
"""Seconds that the disk is waited for at the end."""
COMPANY_WAIT = 0.05
"""Seconds in which links gather: of sessions that come and go all the time, many are made with one way to a thread."""


class LogLinks:
    """Points `logs/NAME.log` at the newest session of a name; made by `open_log_links`.

    A file that is made costs up to a millisecond, and it is a convenience for people: no session waits for it.
    """

    def __init__(self, root: StateRoot, announce: Callable[[str], None]) -> None:
        self._root = root
        self._announce = announce
        self._wanted: dict[str, str] = {}
        self._wake = trio.Event()
        self._thread = trio.CapacityLimiter(1)
        """One after the other: who comes later has the last word."""

    def point(self, name: str, session_id: str) -> None:
        """Have a name lead to this session, within a moment. Never blocks."""
        self._wanted[name] = session_id
        self._wake.set()

    async def run(self) -> None:
        """Make links until cancelled."""
        while True:
            await self._wake.wait()
            await trio.sleep(COMPANY_WAIT)
            self._wake = trio.Event()
            await self._make_wanted()

    async def finish(self) -> None:
        """Make what is still wanted; a disk that hangs is not waited for.

        Cancellation: no effect.
        """
        if not (self._wanted or self._thread.borrowed_tokens):
            return
        with trio.move_on_after(FINISH_TIMEOUT, shield=True) as patience:
            await self._make_wanted()
        if patience.cancelled_caught:
            self._announce(f"links in {self._root.logs} are not made: its disk does not answer")

    async def _make_wanted(self) -> None:
        wanted, self._wanted = self._wanted, {}
        for problem in await in_thread_or_here(partial(self._make, wanted), self._thread):
            self._announce(problem)

    def _make(self, wanted: Mapping[str, str]) -> list[str]:
        problems = []
        for name, session_id in wanted.items():
            try:
                self._root.link_log(name, session_id)
            except StoreError as error:
                # The program runs, and its log is where it always is.
                problems.append(str(error))
        return problems


@asynccontextmanager
async def open_log_links(root: StateRoot, announce: Callable[[str], None]) -> AsyncGenerator[LogLinks, None]:
    """Make links beside the block; what is wanted when it is left is made then.

    Args:
        root: whose sessions they lead to.
        announce: is told which could not be made.
    """
    links = LogLinks(root, announce)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(links.run)
            try:
                yield links
            finally:
                nursery.cancel_scope.cancel()
    finally:
        await links.finish()  # noqa: ASYNC102  # it shields itself, within a bound
