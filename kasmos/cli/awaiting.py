"""Waiting for whichever comes first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


async def first(*waits: Callable[[], Awaitable[None]]) -> None:
    """Wait until one of these returns."""
    async with trio.open_nursery() as nursery:

        async def run(wait: Callable[[], Awaitable[None]]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(run, wait)
