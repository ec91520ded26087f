"""A few descriptors kept back for the moment when there are no others.

Whoever has none left cannot even look whether a program is there. What must not fail for want of one is done again
with those from here, and waits where that is not enough.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

from kasmos.sessions.processes import is_exhaustion

T = TypeVar("T")

RETRY_INTERVAL = 0.05
"""Seconds until the next try where there was no descriptor, memory or thread to do it with."""
SPARE = 3
"""Descriptors kept back: as many as a look at /proc has open at a time, and one more."""


class Reserve:
    """The descriptors that are kept back; used in the Trio thread."""

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._lent = 0
        self._fill()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let the block have them, as far as nobody else is quicker; they are taken back afterwards, now or later."""
        self.close()
        self._lent += 1
        try:
            yield
        finally:
            self._lent -= 1
            if not self._lent:
                self._fill()

    def helped(self, do: Callable[[], T]) -> T:
        """Do something that does not wait; once more, with what is kept back, if there is nothing to do it with.

        Raises:
            OSError: as *do* raised it, the second time.
        """
        try:
            return do()
        except OSError as error:
            if not is_exhaustion(error):
                raise
        with self.lent():
            return do()

    async def patiently(self, do: Callable[[], Awaitable[T]], tell: Callable[[OSError], None]) -> T:
        """Do something until there is enough of everything to do it with; *tell* is told what is wanting.

        Raises:
            OSError: of any other kind, as *do* raised it.

        Cancellation: as that of *do*.
        """
        while True:
            try:
                return await do()
            except OSError as error:
                if not is_exhaustion(error):
                    raise
                tell(error)
            try:
                with self.lent():
                    return await do()
            except OSError as error:
                if not is_exhaustion(error):
                    raise
            await trio.sleep(RETRY_INTERVAL)

    def close(self) -> None:
        """Give them up."""
        while self._kept:
            os.close(self._kept.pop())

    def _fill(self) -> None:
        try:
            while len(self._kept) < SPARE:
                self._kept.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return  # the next borrower's end is the next occasion
