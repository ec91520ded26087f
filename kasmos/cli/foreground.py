"""The foreground: being the supervisor for as long as there is work, or following the one there is.

`kas run` takes the state root's lock and becomes its supervisor. If another process has the lock, the plan is
handed to that one and followed; if that one dies, this process takes over. Either way the same view shows it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import NoReturn

import trio

import kasmos.supervision.child  # noqa: F401  # every run needs it: not in the middle of its first start
from kasmos.cli.admission import check, read_document, require_writable
from kasmos.cli.context import COMING_UP_TIMEOUT
from kasmos.cli.errand import Errand
from kasmos.cli.follow import follow
from kasmos.cli.garbage import settle
from kasmos.cli.process import complete_streams, reset_dispositions
from kasmos.cli.render import make_view
from kasmos.cli.request import Place, Request, place_of
from kasmos.cli.supervise import Supervising
from kasmos.exceptions import ClientError, KasmosError, StateLockedError

__all__ = ["Place", "Request", "complete", "execute", "place_of"]

TAKEOVER_INTERVAL = 0.2
"""Seconds between attempts to reach, or to become, the supervisor while one comes up or leaves."""


def execute(place: Place, request: Request) -> int:
    """Do what was asked; the exit status of `kas`.

    Raises:
        KasmosError: it could not be begun.
    """
    complete_streams()
    reset_dispositions()
    require_writable(request.junit)
    require_writable(request.summary)
    document = read_document(request.plan) if request.plan is not None else None
    warnings = place.warnings
    if document is not None and place.wrong is None:
        warnings += check(place, request, document)
    view = make_view(
        json=request.as_json,
        stdout=sys.stdout,
        stderr=sys.stderr,
        environ=place.environ,
        is_terminal=sys.stdout.isatty(),
    )
    errand = Errand(place, request, document, view)
    errand.warn(warnings)
    settle()  # classes and the plan stay to the end
    try:
        return trio.run(_main, errand, strict_exception_groups=True)
    except BaseExceptionGroup as group:
        raise _single(group) from group
    finally:
        view.flush()


def complete(place: Place, request: Request) -> NoReturn:
    """Do what was asked, and end the process with its exit status.

    Raises:
        KasmosError: it could not be begun.
    """
    _leave(execute(place, request))


def _leave(code: int) -> NoReturn:
    """End the process at once.

    The journal says that the supervisor has left in order; a kill after that would hide an outcome that nobody has
    seen, and taking an interpreter apart takes longer than all that is left to do.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


async def _main(errand: Errand) -> int:
    """Supervise or follow until the run has ended; the exit status."""
    supervising = Supervising(errand)
    async with trio.open_nursery() as nursery:
        # Before anything is begun: from here on a signal never just kills us.
        await nursery.start(errand.signals.receive, supervising.escalate)
        code = await _until_over(errand, supervising)
        nursery.cancel_scope.cancel()
    # A report that was asked for and is not there is no success; any other status says more.
    return code if errand.report() else code or 1


async def _until_over(errand: Errand, supervising: Supervising) -> int:
    give_up = trio.current_time() + COMING_UP_TIMEOUT
    while True:
        if errand.signals.exit_code is not None:
            return errand.signals.exit_code
        refusal: KasmosError = ClientError(
            "the daemon has gone, and none has come back; its run waits for the next one"
        )
        # What a daemon has begun is for the next daemon to go on with: in its place we would only be in its way.
        # Without a configuration we could not be in anybody's place.
        if errand.place.wrong is not None and not errand.of_daemon:
            refusal = errand.place.wrong
        elif not errand.of_daemon:
            try:
                return await supervising.run()
            except StateLockedError as locked:
                refusal = locked
            except BaseExceptionGroup as group:
                error = _single(group)
                if not isinstance(error, StateLockedError):
                    raise
                refusal = error
        try:
            code = await follow(errand)
            if code is not None:
                return code
            # It died under us: perhaps we can take over.
            give_up = trio.current_time() + COMING_UP_TIMEOUT
        except ClientError:
            # It does not answer: it is just coming up, or just leaving.
            if trio.current_time() > give_up:
                raise refusal from None
        await trio.sleep(TAKEOVER_INTERVAL)


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error of ours in a group, for the person; else the group."""
    leaves = list(_leaves(group))
    ours = [leaf for leaf in leaves if isinstance(leaf, KasmosError)]
    if len(leaves) == 1:
        return leaves[0]
    return ours[0] if ours and len(ours) == len(leaves) else group


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _leaves(one)
        else:
            yield one
