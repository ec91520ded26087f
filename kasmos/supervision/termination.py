"""The one stop ladder, for every backend: politely, then firmly, always within a bound.

The stop signal with SIGCONT (a stopped process would sleep through it) -> `stop_grace` -> SIGKILL to the whole
tree -> a bounded wait. What survives is reported as unkillable. Each rung is made durable before its signal, unless
nothing can be written for longer than a bound: a stop is always possible.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Awaitable, Callable
from typing import cast

import trio

from kasmos.exceptions import SessionError, SessionLostError
from kasmos.failpoints import reach
from kasmos.model import event as ev
from kasmos.model.session import ExitStatus, StopReason
from kasmos.sessions.protocol import ExecutionSession, TerminalSession

KEY_GAP = 0.4
"""Seconds between two keys that make a program leave: some want the same one twice, soon after each other."""
KEYS_GRACE = 4.0
"""Seconds a program has to leave after the last of them."""
NOTE_LIMIT = 5.0
"""Seconds that a stop waits for its intent to be durable, and a session's end for what was found at it."""


async def terminate(session: ExecutionSession) -> None:
    """Stop a session whose scope is left. Nobody is there to be told that its fate was lost.

    Cancellation: the signals sent so far stand; may be called again.
    """
    with contextlib.suppress(SessionLostError):
        await stop(session, reason=StopReason.INTERRUPTED)


async def stop(
    session: ExecutionSession,
    *,
    reason: StopReason,
    hurry: trio.Event | None = None,
    grace: float | None = None,
    requested: bool = False,
    keys: tuple[str, ...] = (),
) -> ExitStatus | None:
    """Stop a session and wait until it has ended, or was found unkillable.

    Args:
        session: what is to stop.
        reason: why, for the journal.
        hurry: when set, the grace is over at once.
        grace: seconds left of the grace; None means the session's own policy.
        requested: the request is durable already (a stop that is taken up again after a restart).
        keys: pressed before the first signal, one after the other until it ends; only for a session with a terminal.

    Returns: how it ended; None if it survived SIGKILL.

    Raises:
        SessionLostError: its fate can no longer be learnt.

    Cancellation: the signals sent so far stand; may be called again.
    """
    policy = session.spec.stop
    if session.exit is not None:
        return session.exit
    if not requested:
        await note(session.notify, ev.StopRequested(session.spec.id, reason))
        reach("session.stop-requested")
    if (status := await _leave_by_keys(session, keys, hurry)) is not None:
        return status
    await session.signal(signal.Signals[policy.first_signal])
    await session.signal(signal.SIGCONT)
    reach("session.stop-signalled")
    status = await _wait_within(session, policy.stop_grace if grace is None else grace, hurry)
    if status is not None:
        return status
    await note(session.notify, ev.KillSent(session.spec.id))
    reach("session.kill-requested")
    await session.kill()
    reach("session.killed")
    return await _wait_within(session, policy.kill_grace, None)


async def _leave_by_keys(
    session: ExecutionSession, keys: tuple[str, ...], hurry: trio.Event | None
) -> ExitStatus | None:
    """Press the keys that make a program in a terminal leave; None if it has not left."""
    for left, key in zip(range(len(keys) - 1, -1, -1), keys, strict=True):
        with contextlib.suppress(SessionError):
            await cast(TerminalSession, session).press(key)
        # The last one has to be enough: it is given the time that leaving takes.
        status = await _wait_within(session, KEY_GAP if left else KEYS_GRACE, hurry)
        if status is not None:
            return status
    return None


async def note(record: Callable[[ev.Event], Awaitable[object]], event: ev.Event) -> None:
    """Make an intent, or what was found at an end, durable before what follows from it, if the disk lets us in time.

    A journal that cannot be written must not protect the program that fills the disk, nor keep a session from ending.
    What is given up after the bound is only that the event is durable first: it is queued, in order, for when there
    is space.
    """
    with trio.move_on_after(NOTE_LIMIT):
        await record(event)


async def _wait_within(session: ExecutionSession, seconds: float, hurry: trio.Event | None) -> ExitStatus | None:
    """Wait for the end; None if it has not come after so many seconds, or when *hurry* was set."""
    found: ExitStatus | SessionLostError | None = None
    with trio.move_on_after(max(0.0, seconds)):
        async with trio.open_nursery() as nursery:

            async def cut_short() -> None:
                if hurry is not None:
                    await hurry.wait()
                    nursery.cancel_scope.cancel()

            nursery.start_soon(cut_short)
            try:
                found = await session.wait()
            except SessionLostError as error:
                # As a value: out of the nursery it would come as a group.
                found = error
            nursery.cancel_scope.cancel()
    if isinstance(found, SessionLostError):
        raise found
    return found
