"""Taking over a session that an earlier supervisor started: the table of cases in docs/design.md.

Two rules decide every case: a session whose program may have run is never started again, and whether one has
run is told by its records, which exist before it does.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import attrs
import trio

from kasmos.exceptions import SessionLostError
from kasmos.failpoints import reach
from kasmos.model import codec
from kasmos.model.event import EndFound, StopRequested
from kasmos.model.profile import OutputMode
from kasmos.model.session import ExitStatus, SessionSpec
from kasmos.sessions import layout
from kasmos.sessions.ending import clear_up, close_log
from kasmos.sessions.hold import Hold
from kasmos.sessions.launch import Records
from kasmos.sessions.processes import is_alive, lease_is_held
from kasmos.sessions.protocol import SessionNeverStarted
from kasmos.sessions.services import Services
from kasmos.sessions.tree import wait_gone

LOOK_INTERVAL = 0.1
"""Seconds between two looks at a lease: nobody tells when one becomes free."""


async def what_was_started(directory: Path, spec: SessionSpec, services: Services) -> SessionSpec:
    """The specification a session was started with; *spec*, as far as it goes, where that cannot be read."""
    records = Records(os.fspath(directory))

    async def read() -> SessionSpec | None:
        return records.spec()

    def tell(error: OSError) -> None:
        services.warn(f"a session cannot be adopted yet: {error.strerror}")

    try:
        stored = await services.reserve.patiently(read, tell)
    except (OSError, codec.CodecError) as error:
        services.warn(f"{directory}/{layout.SPEC} cannot be read ({error}): the session is held by default policies")
        stored = None
    if stored is not None:
        return stored
    with_copier = os.path.exists(directory / layout.COPIER)  # noqa: ASYNC240  # as short as any look at a record
    return attrs.evolve(spec, output=OutputMode.PIPE if with_copier and not spec.has_copier else spec.output)


async def adopt(hold: Hold, *, same_boot: bool) -> ExitStatus | None:
    """Find out what has become of a session. Waits while there is nothing to find it out with.

    Returns: how it ended, or None while it runs; its program is held then.

    Raises:
        SessionNeverStarted: nothing ran, and it was made certain that nothing will.
        SessionLostError: its fate cannot be learnt; what was left of it has been swept.

    Cancellation: no effect on the session.
    """
    warn = hold.services.warn
    try:
        return await hold.services.reserve.patiently(
            lambda: _find_out(hold, same_boot=same_boot),
            lambda error: warn(f"a session cannot be adopted yet: {error.strerror}"),
        )
    except OSError as error:
        await hold.kill(helpers=True)
        raise SessionLostError(f"its records cannot be read: {error.strerror or error}") from error


async def _find_out(hold: Hold, *, same_boot: bool) -> ExitStatus | None:
    """The table of cases, top to bottom."""
    records = hold.records
    if not same_boot:  # 1. no process outlives its boot, and pids of another boot say nothing
        return await _of_another_boot(hold)
    hold.take_records()
    recorded = records.exit()
    if recorded is not None and hold.program is not None:  # 2. it has ended, and it is known how
        return await _adopt_ended(hold, recorded)
    if hold.has_program():  # 3. it runs
        _adopt_live(hold)
        return None
    if not records.claimed and not lease_is_held(hold.kin.lease):  # 4. nobody has come, nobody will
        await _look_for_members(hold)
        os.makedirs(hold.path, mode=0o700, exist_ok=True)
        if records.entomb():
            reach("recovery.tombstone")
            raise SessionNeverStarted(hold.spec.id)
    await _await_program(hold)  # 5. somebody is on the way
    hold.take_records()
    recorded = records.exit()
    if hold.program is None:
        # 6. The pid is recorded before the program runs: without it, it has not run, and now cannot.
        raise SessionNeverStarted(hold.spec.id)
    if recorded is not None:
        return await _adopt_ended(hold, recorded)
    if hold.has_program():
        _adopt_live(hold)
        return None
    await clear_up(hold)  # 7. it ran, it is gone, and nobody saw how it ended
    raise SessionLostError("it ended while nobody watched, and its end was not recorded")


async def _look_for_members(hold: Hold) -> None:
    """Make sure that records which are not there were not removed under a session that runs."""
    members, _ = await hold.tree.members(helpers=True)
    if members:
        await clear_up(hold)
        raise SessionLostError("its records were removed while it ran; what was left of it has been dealt with")


async def _of_another_boot(hold: Hold) -> ExitStatus:
    recorded = hold.records.exit()
    if recorded is None or hold.records.program() is None:
        raise SessionLostError("the machine was started anew before its end was recorded")
    await _tell_stop(hold)
    _follow(hold)
    await close_log(hold)
    return recorded


async def _adopt_ended(hold: Hold, recorded: ExitStatus) -> ExitStatus:
    await _tell_stop(hold)
    await _tell_end(hold)
    _follow(hold)
    # The record is written before the copier has emptied the pipe, and before the shim has ended.
    await clear_up(hold)
    await close_log(hold)
    return recorded


async def _tell_stop(hold: Hold) -> None:
    """Make known why it was stopped, if only its records say so: else its end would be its own doing."""
    reason = hold.records.stop_reason()
    if reason is not None:
        await hold.notify(StopRequested(hold.spec.id, reason))


async def _tell_end(hold: Hold) -> None:
    """Make known when the program ended: its exit record was written then, and not now."""
    try:
        written = os.stat(f"{hold.path}/{layout.EXIT}").st_mtime
    except OSError:
        return  # when its end is recorded is then the best that is known
    ago = max(0.0, time.time() - written)
    await hold.notify(EndFound(hold.spec.id, time.monotonic() - ago))


def _adopt_live(hold: Hold) -> None:
    reach("recovery.adopted")
    _follow(hold)


def _follow(hold: Hold) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        hold.follow(_deleted_log(hold))


def _deleted_log(hold: Hold) -> str | None:
    """Where somebody deleted the log: another way to it, through one of those who still have it open."""
    log = f"{hold.path}/{layout.OUTPUT}"
    if os.path.exists(log):
        return None
    for entry in (hold.records.shim(), hold.records.copier(), hold.records.program()):
        if entry is not None and is_alive(entry):
            way = f"/proc/{entry.id.pid}/fd/1"
            with suppress(OSError):
                if os.readlink(way) == f"{os.path.realpath(hold.path)}/{layout.OUTPUT} (deleted)":
                    return way
    return None


async def _await_program(hold: Hold) -> None:
    """Wait, bounded, until the program is there, or everybody who could bring it has gone; then make sure."""
    records = hold.records
    appeared = trio.Event()
    forget = hold.watch_records(appeared.set)
    try:
        with trio.move_on_after(hold.services.claim_grace):
            while records.program() is None and lease_is_held(hold.kin.lease):
                with trio.move_on_after(LOOK_INTERVAL):
                    await appeared.wait()
            # It records the end a moment after the program's.
            shim, program = records.shim(), records.program()
            if shim is not None and program is not None and records.exit() is None and not is_alive(program):
                await wait_gone(shim.id, hold.services.reserve)
    finally:
        forget()
    if records.program() is None:
        if records.entomb():
            reach("recovery.tombstone")
        # Who has claimed it, but has not come to start the program, will not do so either.
        hold.take_records()
        await hold.kill(helpers=True)
