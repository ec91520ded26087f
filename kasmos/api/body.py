"""The body of an answer that is made while it is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Self


class Body(ABC):
    """**Abstract.** Gives its pieces one by one. Closed by Quart, however the answer ends.

    Args:
        kind: its media type.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._pieces: deque[bytes] = deque()
        """What is ready and was not taken yet."""
        self._over = False
        """Whether nothing follows what is ready."""

    @abstractmethod
    async def _refill(self) -> None:
        """Wait until there is more; it may also turn out that it is over."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what it holds. Idempotent."""

    async def aclose(self) -> None:
        """The same, for who can wait."""
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._over:
                raise StopAsyncIteration
            await self._refill()
        return self._pieces.popleft()
