"""Which ended sessions are given up to make room. Pure: looks at nothing, removes nothing.

The one invariant: a session that runs, may run, or that an unfinished run may still ask about is never named.
"""

from __future__ import annotations

from collections.abc import Iterable

from kasmos.model.value import frozen
from kasmos.model.view import World


@frozen
class StoredSession:
    """A session's directory, as it was found."""

    id: str
    bytes: int
    """What it takes on the disk."""
    changed_at: float
    """When anything in it was last written."""
    recorded: bool
    """Whether it holds a complete exit record."""


@frozen
class Removal:
    """A session whose directory may go, and why."""

    id: str
    bytes: int
    ended_at: float
    reason: str
    """`age` or `size`."""


def ended_at(stored: StoredSession, world: World) -> float | None:
    """When a stored session ended, or None if it has to stay.

    A session that the journal does not know (its events were damaged or pruned) has ended when its own
    side has recorded so. Such a directory is never younger than the world it is compared with: intent is
    journalled before a directory is made.
    """
    session = world.sessions.get(stored.id)
    if session is None:
        return stored.changed_at if stored.recorded else None
    if session.state.live:
        return None
    run = world.runs.get(session.run_id or "")
    if run is not None and run.unfinished:
        return None
    return session.ended_at if session.ended_at is not None else stored.changed_at


def decide_removals(
    stored: Iterable[StoredSession],
    world: World,
    *,
    now: float,
    older_than: float,
    max_bytes: int | None,
) -> tuple[Removal, ...]:
    """Say which sessions are to go: the oldest first.

    Args:
        stored: every directory there is, listed *before* the journal was read.
        world: the journal, read after that.
        now: the wall clock; one that was set back lets sessions stay longer, never go earlier.
        older_than: seconds since its end after which a session goes.
        max_bytes: what all directories together may take; None for no limit. Sessions that have to stay count too.
    """
    total = 0
    candidates: list[tuple[float, StoredSession]] = []
    for session in stored:
        total += session.bytes
        end = ended_at(session, world)
        if end is not None:
            candidates.append((end, session))
    removals = []
    for end, session in sorted(candidates, key=lambda pair: (pair[0], pair[1].id)):
        if now - end >= older_than:
            reason = "age"
        elif max_bytes is not None and total > max_bytes:
            reason = "size"
        else:
            break
        total -= session.bytes
        removals.append(Removal(session.id, session.bytes, end, reason))
    return tuple(removals)
