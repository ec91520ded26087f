"""What a daemon keeps of what is over: it forgets by age, by the hour, and by number, as runs end."""

from __future__ import annotations

import time

import attrs
import trio

from kasmos.cli.forget import decide, remove_sessions
from kasmos.daemon.held import Held
from kasmos.exceptions import StoreError
from kasmos.model import event as ev
from kasmos.serve import Engine
from kasmos.store.pruning import Forgotten, in_batches
from kasmos.store.stateroot import StateRoot
from kasmos.telemetry.logs import Log

INTERVAL = 3600.0
"""Seconds between two looks at the ages: a run may be kept that much longer."""
SLACK = 0.1
"""How far the number of runs may be exceeded before it is looked at: what is forgotten at once costs less."""


async def keep_tidy(engine: Engine, held: Held, root: StateRoot, log: Log) -> None:
    """Forget what `[retention]` lets go, until cancelled.

    Cancellation: what was begun is done, or is left for the next time.
    """
    while True:
        try:
            await forget_once(engine, held, root, log)
        except StoreError as error:
            # A disk that takes nothing: what is over is kept until the next time.
            log.warning("nothing was forgotten", why=str(error))
        with trio.move_on_after(INTERVAL):
            await _wait_surplus(engine, held)


async def forget_once(engine: Engine, held: Held, root: StateRoot, log: Log) -> int:
    """Forget what can be forgotten now; how many runs that are.

    Raises:
        StoreError: the journal cannot be written.
    """
    world, keep = engine.journal.world, held.config.retention
    wanted = decide(world, keep, time.time())
    if not wanted:
        return 0
    # A copy, for the thread: the world goes on.
    still = world.copy()
    ready = await trio.to_thread.run_sync(remove_sessions, root, wanted, still)
    runs = events = 0
    for batch in in_batches(ready):

        def again(world: object, batch: Forgotten = batch) -> Forgotten:
            # Somebody may have taken one of them up again meanwhile.
            now = decide(engine.journal.world, keep, time.time())
            return attrs.evolve(
                batch,
                run_ids=tuple(sorted(set(batch.run_ids) & set(now.run_ids))),
                session_ids=tuple(sorted(set(batch.session_ids) & set(now.session_ids))),
            )

        events += await engine.journal.prune(again)
        runs += len(batch.run_ids)
    log.info("forgotten", runs=runs, events=events)
    return runs


async def _wait_surplus(engine: Engine, held: Held) -> None:
    """Wait until more runs have ended than are kept, and some more."""
    ended = sum(1 for run in engine.journal.world.runs.values() if not run.unfinished)
    async with engine.bus.subscribe(engine.journal.world.seq) as batches:
        async for records in batches:
            ended += sum(1 for record in records if isinstance(record.event, ev.RunEnded))
            if ended > held.config.retention.max_runs * (1 + SLACK):
                return
    await trio.sleep_forever()
