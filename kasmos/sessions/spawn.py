"""Starting a session: from nothing to a proven program, or to nothing.

The program waits at the gate until its pid was proven. If the start is given up before, the gate stays shut
until everybody behind it has been killed, so a start that was cancelled has had no effect at all.
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress

import attrs
import trio

from kasmos.exceptions import NoRoomError, SessionStartError
from kasmos.failpoints import reach
from kasmos.model.profile import OutputMode
from kasmos.sessions import cgroups, launch
from kasmos.sessions.doorman import Descriptors, Doorman
from kasmos.sessions.hold import Hold

WITHOUT_CGROUP = "a descendant that hides in every other way will not be found"


async def start(hold: Hold, boot_id: str) -> None:
    """Start the session's program.

    Raises:
        SessionStartError: it could not be started; nothing is left behind.

    Cancellation: nothing is left behind, and the program has not run.
    """
    spec, services = hold.spec, hold.services
    make_cgroup(hold)
    spec = hold.spec
    # What this made is its own to undo until it returns.
    try:
        opened = await services.on_disk(launch.prepare_opened, hold.path, spec, boot_id)
    except OSError as error:
        drop_cgroup(hold)
        raise _cannot_start(hold, error) from error
    except BaseException:
        drop_cgroup(hold)
        raise
    gate: socket.socket | None = None
    try:
        reach("session.prepared")
        command = launch.doorman_command(hold.path, spec, services.soft_nofile)
        reach("session.spawning")
        gate, theirs = socket.socketpair()
        gate.setblocking(False)
        await _spawn(hold, command, gate, theirs, opened)
    except OSError as error:
        await _undo(hold, gate)
        raise _cannot_start(hold, error) from error
    except BaseException:
        await _undo(hold, gate)  # noqa: ASYNC102  # it shields itself, within a bound
        raise
    finally:
        opened.close()
        if gate is not None:
            gate.close()


def make_cgroup(hold: Hold) -> None:
    """Give the session a control group where there can be one; everything works without."""
    place = hold.services.cgroups
    if place is None:
        return
    try:
        path = place.make(hold.spec.id)
    except OSError as error:
        hold.services.warn(f"no control group can be made in {place.home} ({error.strerror}): {WITHOUT_CGROUP}")
        return
    hold.spec = attrs.evolve(hold.spec, cgroup=path)
    hold.kin.cgroup = path


def drop_cgroup(hold: Hold) -> None:
    """Remove the session's control group, if nobody is in it."""
    if hold.kin.cgroup and cgroups.remove(hold.kin.cgroup):
        hold.kin.cgroup = ""


def check_cgroup(hold: Hold) -> None:
    """See whether the shim has entered the session's control group; the program is not in it otherwise."""
    path = hold.kin.cgroup
    if not path or hold.program is None or hold.program.pid in cgroups.members(path):
        return
    where = os.path.dirname(path)
    hold.services.warn(f"control groups in {where} cannot be entered: {WITHOUT_CGROUP}")
    cgroups.remove(path)
    hold.kin.cgroup = ""


def not_started(hold: Hold, otherwise: str) -> SessionStartError:
    """Why a shim has not come to start the program; *otherwise* where nothing says."""
    if hold.records.refused():
        return NoRoomError(f"cannot start {hold.spec.name}: there is no room for its records")
    return SessionStartError(f"cannot start {hold.spec.name}: {hold.records.shim_log() or otherwise}")


def _cannot_start(hold: Hold, error: OSError) -> SessionStartError:
    return SessionStartError(f"cannot start {hold.spec.name}: {error.strerror or error}")


async def _spawn(
    hold: Hold, command: list[str], gate: socket.socket, theirs: socket.socket, opened: launch.Opened
) -> None:
    spec, services = hold.spec, hold.services
    try:
        fcntl.flock(opened.lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hold.doorman = Doorman()
        given = Descriptors(theirs.fileno(), opened.output, opened.errors, opened.lease)
        await hold.doorman.start(services, command, given, env=dict(spec.env), cwd=hold.path)
        hold.kin.sid = hold.doorman.pid
        hold.kin.own = True
        hold.kin.helpers.add(hold.doorman.pid)
        services.scanner.settled.add(hold.doorman.pid)
        reach("session.spawned")
        hold.follow_new(opened.take_log())
    finally:
        # Whoever has these open tells of a program that is there: from here on, that is not us.
        theirs.close()
        opened.close()
    await _reported(gate, 2 if spec.output is OutputMode.PIPE else 1)
    hold.take_records()
    if not hold.is_ready():
        raise not_started(hold, "its shell ended before it could run")
    check_cgroup(hold)
    reach("session.proven")
    with suppress(OSError):
        gate.send(b"\n")
    reach("session.released")


async def _reported(gate: socket.socket, expected: int) -> None:
    """Wait until so many behind the gate have said that their record is written, or nobody is behind it any more."""
    while expected > 0:
        await trio.lowlevel.wait_readable(gate)
        said = gate.recv(expected)
        if not said:
            return
        expected -= len(said)


async def _undo(hold: Hold, gate: socket.socket | None) -> None:
    """Shut the gate, kill what was started, and remove the directory: a shim that is late has nothing to claim."""
    if gate is not None:
        # First, and it needs nothing that may be wanting: who cannot be found to be killed must not run either.
        with suppress(OSError):
            gate.send(b"no\n")
    empty = True
    bound = hold.spec.stop.kill_grace + 1
    with trio.CancelScope(shield=True, deadline=trio.current_time() + bound):
        if hold.doorman is not None and hold.doorman.pid:
            empty = False
            # From then on nobody can fork a shim any more, and those there are belong to its session.
            hold.doorman.dismiss()
            await hold.doorman.ended.wait()
            empty = await hold.kill(helpers=True)
    hold.drop()
    if empty:
        drop_cgroup(hold)
        launch.discard(hold.path)
        return
    # Somebody may still come: let there be a claim.
    with suppress(OSError):
        hold.records.entomb()
