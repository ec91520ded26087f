"""How a supervisor is reached: its API, imported when it is needed and served until it leaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from kasmos.config.addresses import split_address
from kasmos.config.schema import Daemon
from kasmos.daemon.access import check_policy, policy_of
from kasmos.daemon.door import Door
from kasmos.daemon.service import Service

API_GRACE = 2.0
"""Seconds that readers of the API are given when the supervisor leaves."""


async def serve_when_knocked(
    service: Service, socket: Path, shutdown: trio.Event, announce: Callable[[str], None]
) -> None:
    """Serve the API until *shutdown* is set. A socket that cannot be had is announced and ends nothing.

    Cancellation: cuts readers off.
    """
    started_at = time.time()
    try:
        door = Door(socket)
        try:
            api = await _import_api_unless(shutdown, door)
            if api is not None:
                app = api.create_app(service, started_at=started_at)
                await api.serve_api(app, socket, shutdown=shutdown, grace=API_GRACE, door=door)
        finally:
            door.close()
    # Whatever is wrong with the door, the work behind it goes on.
    except Exception as error:
        causes = error.exceptions if isinstance(error, ExceptionGroup) else [error]
        why = "; ".join(str(cause) or type(cause).__name__ for cause in causes)
        announce(f"the API cannot be served, so `kas stop` and its like will not reach this supervisor: {why}")


async def listen(
    service: Service,
    said: Daemon,
    socket: Path,
    shutdown: trio.Event,
    *,
    task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the API of a daemon until *shutdown* is set. Reports where it listens once clients can connect.

    Raises:
        StoreError: an address or the socket cannot be had.
        ConfigError: what it is to listen on would let anybody in.

    Cancellation: cuts readers off.
    """
    policy = policy_of(said, service.project)
    await trio.to_thread.run_sync(check_policy, policy, said.listen)
    api = await trio.to_thread.run_sync(_Api, abandon_on_cancel=True)
    app = api.create_app(service, started_at=time.time(), policy=policy)
    async with trio.open_nursery() as nursery:
        serve_all = partial(api.serve_api, app, socket, listen=said.listen, shutdown=shutdown, grace=API_GRACE)
        addresses = [str(socket), *await nursery.start(serve_all)]
        exposition = service.life.exposition
        if said.metrics is not None and exposition is not None:
            metrics = api.create_metrics_app(exposition)
            serve = partial(api.serve_tcp, metrics, *split_address(said.metrics), shutdown=shutdown, grace=API_GRACE)
            addresses.append(f"{await nursery.start(serve)}/metrics")
        task_status.started(tuple(addresses))


def import_web_stack() -> None:
    """Import what the API needs, which takes half a second. Blocks: in a thread, it is done beside other things."""
    _Api()


def readers_dropped() -> int:
    """How many readers of the API were too slow and have been cut off. To be asked once `listen` has begun."""
    return _Api().readers_dropped()


async def _import_api_unless(shutdown: trio.Event, door: Door) -> _Api | None:
    """Import the web stack when somebody is at the door; None when *shutdown* is set before that is done."""
    found: list[_Api] = []
    async with trio.open_nursery() as nursery:

        async def give_up() -> None:
            await shutdown.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(give_up)
        await door.wait_knock()
        # In a thread: it takes half a second, and the work is under way.
        found.append(await trio.to_thread.run_sync(_Api, abandon_on_cancel=True))
        nursery.cancel_scope.cancel()
    return found[0] if found else None


class _Api:
    """The web stack, imported late."""

    def __init__(self) -> None:
        from kasmos.api.app import create_app
        from kasmos.api.metrics import create_metrics_app
        from kasmos.api.server import readers_dropped, serve_api, serve_tcp

        self.create_app = create_app
        self.create_metrics_app = create_metrics_app
        self.serve_api = serve_api
        self.serve_tcp = serve_tcp
        self.readers_dropped = readers_dropped
