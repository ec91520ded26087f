"""Forgetting what is over for long enough, by `[retention]`: sessions' directories first, then the journal's events.

In this order, since a directory that the journal does not know of is taken for one it has lost, and learnt anew. A run
of which a session's directory cannot be removed, because something still holds it, is not forgotten either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kasmos.exceptions import ConfigError, StateLockedError
from kasmos.model.value import frozen

if TYPE_CHECKING:
    from kasmos.cli.context import Place
    from kasmos.config.schema import Retention
    from kasmos.model.view import World
    from kasmos.store.pruning import Forgotten
    from kasmos.store.stateroot import StateRoot


@frozen
class Tally:
    """How much was forgotten."""

    runs: int = 0
    events: int = 0


def forget_old(place: Place, now: float, note: Callable[[str], None], *, dry_run: bool) -> Tally:
    """Forget what `[retention]` lets go, unless somebody supervises: a daemon does it by itself. Blocks.

    Args:
        place: whose state root.
        now: the wall clock.
        note: is told why nothing is forgotten.

    Raises:
        StoreError: the journal cannot be opened or written.
    """
    from kasmos.config.load import load_config

    try:
        keep = load_config(place.project, environ=place.environ).config.retention
    except ConfigError:
        note("nothing is forgotten of the journal: the configuration has mistakes (kas config check)")
        return Tally()
    if not place.root.db.exists():
        return Tally()
    if dry_run:
        return Tally(runs=len(decide(place.read_world(), keep, now).run_ids))
    try:
        with place.root.acquire_lock_nowait():
            return _forget(place.root, keep, now, note)
    except StateLockedError:
        return Tally()


def decide(world: World, keep: Retention, now: float) -> Forgotten:
    """What `[retention]` lets go."""
    from kasmos.store.pruning import decide_forgotten

    return decide_forgotten(world, now=now, max_age=keep.max_age, max_runs=keep.max_runs)


def _forget(root: StateRoot, keep: Retention, now: float, note: Callable[[str], None]) -> Tally:
    from kasmos.store.pruning import decide_carried, in_batches
    from kasmos.store.salvage import open_or_salvage

    opened = open_or_salvage(root.db, note)
    try:
        forgotten = remove_sessions(root, decide(opened.world, keep, now), opened.world)
        world = opened.world
        events = sum(opened.database.prune(batch, decide_carried(batch, world)) for batch in in_batches(forgotten))
    finally:
        opened.database.close()
    return Tally(len(forgotten.run_ids), events)


def remove_sessions(root: StateRoot, forgotten: Forgotten, world: World) -> Forgotten:
    """Remove the directories of sessions that are forgotten; what can be forgotten then. Blocks on the disk."""
    from kasmos.cli.gc import TRASH, discard, empty_trash
    from kasmos.store.pruning import sessions_of, without

    names = sessions_of(forgotten, world)
    failures: list[str] = []
    for name in names:
        discard(root, name, failures)
    empty_trash(root.path / TRASH, failures)
    return without(forgotten, [name for name in names if (root.sessions / name).exists()], world)
