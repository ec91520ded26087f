"""What all headless sessions of a supervisor share: file events, the log follower, the look at /proc.

The services outlive every session: they run until the scope of `open_services` is left, whatever is cancelled
around it, because a session that is being ended needs them to find out how it ended.
"""

from __future__ import annotations

import resource
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, TypeVarTuple

import attrs
import trio

from kasmos.exceptions import BackendUnavailableError
from kasmos.lanes import Lanes
from kasmos.model.value import define
from kasmos.sessions.cgroups import Cgroups
from kasmos.sessions.follow import LogFollower
from kasmos.sessions.inotify import Inotify
from kasmos.sessions.protocol import Terminate
from kasmos.sessions.reserve import Reserve
from kasmos.sessions.scanner import Scanner
from kasmos.sessions.threads import in_thread
from kasmos.sessions.waits import Family

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@define(eq=False)
class Services:
    """What all sessions of the backend share."""

    nursery: trio.Nursery
    """Outlives every session."""
    inotify: Inotify
    follower: LogFollower
    scanner: Scanner
    reserve: Reserve
    terminate: Terminate
    """The stop ladder for scopes that are left with the program running."""
    warn: Callable[[str], None]
    """Told what does not work on this machine; passes each thing on once."""
    soft_nofile: int
    """The soft limit on descriptors that programs get."""
    claim_grace: float
    """Seconds a shim that holds the lease has to claim its directory, or to start the program."""
    cgroups: Cgroups | None = None
    """Where sessions have control groups of their own, if they can."""
    in_memory: bool = False
    """Whether the session directories are on no disk."""
    family: Family = attrs.field(factory=Family)
    """Who descends from whom, for looks at what sessions wait for."""
    look_limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    """Of those looks."""
    spawn_lanes: Lanes = attrs.field(factory=lambda: Lanes(8))
    disk_lanes: Lanes = attrs.field(factory=lambda: Lanes(8))

    async def on_disk(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """Do what may have to wait for the disk: in a thread, so that a slow one does not hold up other sessions.

        Where there is no disk, it is done at once: to come and go would take longer than the work.

        Raises:
            OSError: as *fn* raised it; or `EAGAIN`, where no thread is to be had.

        Cancellation: waits for the function.
        """
        if self.in_memory:
            return fn(*args)
        return await in_thread(fn, *args, limiter=self.disk_lanes.limiter)


@asynccontextmanager
async def open_services(
    *,
    terminate: Terminate,
    warn: Callable[[str], None],
    claim_grace: float,
    cgroups: Cgroups | None = None,
    in_memory: bool = False,
) -> AsyncGenerator[Services, None]:
    """Run the services beside the block.

    Raises:
        BackendUnavailableError: out of inotify instances.

    Cancellation: reaches the block; the services end after it.
    """
    soft = _raise_descriptor_limit()
    try:
        inotify = Inotify()
    except OSError as error:
        raise BackendUnavailableError(
            f"no inotify instance to be had ({error.strerror}): raise fs.inotify.max_user_instances"
        ) from error
    warn_once = _once(warn)
    follower = LogFollower(inotify, warn_once)
    reserve = Reserve()

    # Ends with the block below, not with what is cancelled around it; leaving each session in it is bounded in time.
    scope = trio.CancelScope(shield=True)
    opened = trio.Event()
    nursery: trio.Nursery | None = None

    async def serve() -> None:
        nonlocal nursery
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(inotify.run)
                nursery.start_soon(follower.run)
                opened.set()

    try:
        async with trio.open_nursery() as outer:
            # Not `start`: it would never return if it were cancelled just before the shield is there.
            outer.start_soon(serve)  # noqa: ASYNC113  # waited for just below
            try:
                await opened.wait()
                assert nursery is not None
                yield Services(
                    nursery=nursery,
                    inotify=inotify,
                    follower=follower,
                    scanner=Scanner(nursery, reserve, warn_once),
                    reserve=reserve,
                    terminate=terminate,
                    warn=warn_once,
                    soft_nofile=soft,
                    claim_grace=claim_grace,
                    cgroups=cgroups,
                    in_memory=in_memory,
                )
            finally:
                scope.cancel()
    finally:
        reserve.close()
        inotify.close()
        if cgroups is not None:
            cgroups.close()


def _once(warn: Callable[[str], None]) -> Callable[[str], None]:
    said: set[str] = set()

    def warn_once(text: str) -> None:
        if text not in said:
            said.add(text)
            warn(text)

    return warn_once


def _raise_descriptor_limit() -> int:
    """Raise our soft limit on descriptors to the hard one; the old value, which programs get back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft
