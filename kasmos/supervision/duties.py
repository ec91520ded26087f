"""What is done beside a running session: every duty at once, until the session has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import trio

from kasmos.exceptions import SessionLostError
from kasmos.model.session import ExitStatus
from kasmos.sessions.protocol import ExecutionSession

Duty: TypeAlias = Callable[[], Awaitable[None]]
"""May end before its session; is cancelled with its end."""


async def wait_beside(session: ExecutionSession, duties: Sequence[Duty]) -> ExitStatus:
    """Wait for a session's end and do the duties meanwhile.

    Raises:
        SessionLostError: its fate cannot be learned.
        Exception: a duty's own, as it is; the session may go on then.

    Cancellation: the duties are cancelled; the session goes on.
    """
    if not duties:
        return await session.wait()
    failed: Exception | None = None
    found: ExitStatus | SessionLostError | None = None
    async with trio.open_nursery() as nursery:

        async def do(duty: Duty) -> None:
            nonlocal failed
            try:
                await duty()
            # As a value: out of the nursery it would come as a group, and be taken for somebody else's.
            except Exception as error:
                failed = error
                nursery.cancel_scope.cancel()

        for duty in duties:
            nursery.start_soon(do, duty)
        try:
            found = await session.wait()
        except SessionLostError as error:
            found = error
        nursery.cancel_scope.cancel()
    if failed is not None and found is None:
        raise failed
    if not isinstance(found, ExitStatus):
        assert found is not None
        raise found
    return found
