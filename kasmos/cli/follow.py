"""Following the supervisor there is: what was asked is handed to it, and its run is shown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import trio

from kasmos import __version__
from kasmos.cli.awaiting import first
from kasmos.cli.errand import Errand, ending
from kasmos.exceptions import ClientError, KasmosError, Mistake, RequestError
from kasmos.model.view import RunState
from kasmos.store.journal import read_world

if TYPE_CHECKING:
    from kasmos.client.aio import Client

TIMEOUT = 30.0
"""Seconds within which a supervisor answers."""


async def follow(errand: Errand) -> int | None:
    """Hand the errand to the supervisor there is, and follow; None when it went away before the run ended.

    Raises:
        ClientError: it does not answer.
        RequestError: it refuses.
    """
    outcome: list[int | KasmosError | None] = []

    async def run() -> None:
        # The error as a value: out of a nursery it would come as a group.
        try:
            outcome.append(await _follow(errand))
        except KasmosError as error:
            outcome.append(error)

    await first(run, errand.signals.first.wait)
    if not outcome:
        errand.view.message("no longer following; the run goes on (`kas stop --all` ends it)")
        return errand.signals.exit_code
    result = outcome[0]
    if isinstance(result, RequestError) and result.code == "draining":
        raise ClientError(str(result)) from result
    if isinstance(result, KasmosError):
        raise result
    return result


async def _follow(errand: Errand) -> int | None:
    # Here, since httpx takes long to import and most runs have no other supervisor.
    from kasmos.client.aio import connect

    root = errand.place.root
    # A fresh run begins when the old one has ended. Whoever loses patience and asks again would end the fresh one.
    timeout = math.inf if errand.request.fresh else TIMEOUT
    async with connect(root.socket, timeout=timeout) as client:
        await _look_who_it_is(errand, client)
        await _hand_over(errand, client)
        # In a thread: a long journal takes a while to read.
        errand.world = await trio.to_thread.run_sync(read_world, root.db)
        if errand.run_id is None:
            errand.run_id = errand.find_run(errand.world).id
        return await _follow_events(errand, client)


async def _look_who_it_is(errand: Errand, client: Client) -> None:
    found = await client.get("/v1/daemon")
    errand.of_daemon = bool(found["daemon"])
    if found["version"] != __version__:
        errand.warn([f"this is kasmos {__version__}, the supervisor that runs here is {found['version']}"])


async def _hand_over(errand: Errand, client: Client) -> None:
    """Ask for what was asked of us; what is done then is not asked for again."""
    request = errand.request
    if errand.document is not None:
        if request.fresh:
            errand.announce_end_of_old(await trio.to_thread.run_sync(read_world, errand.place.root.db))
        answer = await client.submit_run(
            errand.document.data, errand.document.source, fresh=request.fresh, **attrs.asdict(request.overrides)
        )
        errand.run_id = str(answer["run_id"])
        errand.warn(Mistake(**warning) for warning in answer["warnings"])
        # If that supervisor dies, its run is continued, not begun anew once more.
        errand.request = attrs.evolve(request, fresh=False)
    elif request.cancel is not None:
        world = await trio.to_thread.run_sync(read_world, errand.place.root.db)
        errand.cancelled = errand.cancelled or errand.find_cancelled(world)
        errand.run_id = errand.cancelled[-1]
        for run_id in errand.cancelled:
            if world.runs[run_id].unfinished:
                await client.post(f"/v1/runs/{run_id}/cancel", {"reason": request.cancel})
        errand.view.message(ending(world, errand.cancelled))
    elif request.retry is None:
        world = await trio.to_thread.run_sync(read_world, errand.place.root.db)
        run = errand.find_run(world)
        if run.state is RunState.INTERRUPTED:
            # That supervisor was started for something else: without being asked it leaves this run alone.
            await client.post(f"/v1/runs/{run.id}/continue")
        errand.run_id = run.id
    elif request.resume:
        asked = {"tasks": list(request.retry), "resume": request.in_conversation}
        answer = await client.post(f"/v1/runs/{request.resume}/retry", asked)
        errand.run_id = str(answer["id"])
        errand.request = attrs.evolve(request, retry=None)


async def _follow_events(errand: Errand, client: Client) -> int | None:
    run = errand.world.runs[errand.run_id or ""]
    if not errand.begun:
        errand.present(errand.world, f"following run {run.id} of a supervisor that runs already")
    try:
        events = client.events(errand.world.seq, patience=0.5)
        while errand.world.runs[run.id].state in (RunState.RUNNING, RunState.PARKED):
            errand.feed([await anext(events)])
    except ClientError:
        return None
    if errand.world.runs[run.id].state is RunState.INTERRUPTED:
        errand.view.message("its supervisor was interrupted; the same command goes on from here")
        return 1
    return errand.exit_code(errand.world)
