"""The end of a session: how its program ended, what it left behind, what it still had to say.

The end is the process ending, never end-of-file. Nothing here waits without a bound: for a process that holds
the output, for one that survives SIGKILL, for a shim that does not record what it saw.
"""

from __future__ import annotations

import signal
from contextlib import suppress

import trio

from kasmos.failpoints import reach
from kasmos.model import event as ev
from kasmos.model.session import UNKNOWN_EXIT, ExitStatus
from kasmos.sessions import cgroups, processes
from kasmos.sessions.hold import Hold
from kasmos.sessions.kernel_log import was_short_of_memory
from kasmos.sessions.processes import ProcessId, lease_is_held
from kasmos.sessions.reserve import Reserve
from kasmos.sessions.stdin import pipe_before
from kasmos.sessions.threads import in_thread
from kasmos.sessions.tree import signal_all, wait_all_gone, wait_gone

IDLE_GRACE = 2.0
"""Seconds without new output after which a pipe somebody still holds is no longer waited for."""
DRAIN_LIMIT = 5.0
"""Seconds after which it is no longer waited for although there is always more."""
UNREAD_LIMIT = 30.0
"""The same while nobody can write to the pipe any more, so that the copier ends by itself when it has written what it
has, and while it does not get round to what is in the pipe: it, or its disk, may have been held up."""
RECORD_GRACE = 1.0
"""Seconds the shim has to record the end of a program that has ended."""
SETTLE_TIME = 0.05
"""Seconds a process that was just forked is given to become what it is to be."""
LEFTOVER_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for processes that outlived their program."""


async def finish(hold: Hold) -> ExitStatus:
    """Find out how the program that has just ended did so; afterwards its tree is empty or reported.

    Without a free descriptor it cannot be found out: then it waits for one rather than guess.

    Cancellation: may be done again, by another supervisor as well.
    """
    warn = hold.services.warn
    return await hold.services.reserve.patiently(
        lambda: _find_out(hold), lambda error: warn(f"the end of a session cannot be found out yet: {error.strerror}")
    )


async def _find_out(hold: Hold) -> ExitStatus:
    reach("session.program-ended")
    exact = None
    if hold.pidfd is not None and hold.program is not None:
        exact = processes.exit_status_of(hold.pidfd, hold.program)
    hold.take_records()
    await clear_up(hold)
    reach("session.swept")
    await close_log(hold)
    return await _with_reason(hold, exact or _reported_exit(hold))


async def _with_reason(hold: Hold, status: ExitStatus) -> ExitStatus:
    """What the kernel says beside the status of a program that was killed, and not by us."""
    if status.signal != signal.SIGKILL or hold.killed or hold.program is None:
        return status
    with suppress(OSError):  # no thread to be had: its end is not kept waiting for the reason
        # In a thread: the log may be long.
        if await in_thread(was_short_of_memory, hold.program):
            return ExitStatus(signal=signal.SIGKILL, out_of_memory=True)
    return status


def _reported_exit(hold: Hold) -> ExitStatus:
    """The exit status from the record or the doorman, when the kernel did not tell and the shim has ended."""
    recorded = hold.records.exit()
    if recorded is None and hold.doorman is not None:
        recorded = hold.doorman.word
    return recorded if recorded is not None else UNKNOWN_EXIT


async def clear_up(hold: Hold) -> None:
    """See to it that after a program's end nobody of its session is left who is not reported, helpers included."""
    if not hold.tree.is_surely_empty(hold.program):
        await sweep(hold)
    if hold.when_swept is not None:
        await hold.when_swept()
    owed = await _drain(hold)
    if await _dismiss_helpers(hold) and owed is not None and hold.log is not None:
        hold.log.pull()
        much = f"at least {owed} bytes" if owed else "the last of it"
        hold.log.losses.append((hold.log.buffer.end, f"{much}: its copier did not come to write it"))
    if lease_is_held(hold.kin.lease) or _is_populated(hold):
        # Somebody hid from the first look, but kept the descriptor, or was born since.
        await sweep(hold)
    if hold.kin.cgroup:
        # Not while somebody is in it who was only reported, or cannot be killed: `kas gc` comes later.
        cgroups.remove(hold.kin.cgroup)


def _is_populated(hold: Hold) -> bool:
    return bool(hold.kin.cgroup) and not hold.spared and cgroups.is_populated(hold.kin.cgroup)


async def _dismiss_helpers(hold: Hold) -> bool:
    """The shim ends by itself once it has recorded the exit; one that does not is killed. Whether the copier was."""
    if _still_copies(hold):
        return False
    with trio.move_on_after(RECORD_GRACE):
        await hold.wait_helpers_gone()
        return False
    copies = hold.copier is not None and processes.is_alive(hold.copier)
    helpers = await hold.tree.helpers()
    reserve = hold.services.reserve
    signal_all(helpers, signal.SIGKILL, reserve=reserve)
    with trio.move_on_after(RECORD_GRACE):
        await wait_all_gone(helpers, reserve)
    return copies


def _still_copies(hold: Hold) -> bool:
    """Whether the copier is needed by a process that was only reported; it ends with that one."""
    shim, copier = hold.records.shim(), hold.copier
    if not hold.spared or copier is None or not processes.is_alive(copier):
        return False
    # A shim that hangs is not to be kept for the copier's sake.
    return hold.records.exit() is not None or shim is None or not processes.is_alive(shim)


async def _drain(hold: Hold) -> int | None:
    """Give the copier until it has nothing more to write, as far as that is seen; never until end-of-file.

    Returns:
        Bytes in its pipe, if it was given up with something left; 0 is for what it may have read and not written.
    """
    copier, log = hold.copier, hold.log
    if copier is None or log is None:
        return None
    begun, limit, idle = trio.current_time(), DRAIN_LIMIT, False
    while processes.is_alive(copier):
        pipe = None if hold.spared else pipe_before(copier)
        owed = pipe.unread if pipe is not None and (pipe.hung_up or (idle and pipe.unread)) else None
        if owed is not None:
            limit = UNREAD_LIMIT
        elif idle:
            return None
        rest = begun + limit - trio.current_time()
        if rest <= 0:
            return owed
        grown = log.grown
        with trio.move_on_after(min(IDLE_GRACE, rest)) as pause:
            await _ended_or(copier.id, grown, hold.services.reserve)
        idle = pause.cancelled_caught
        log.pull()
    return None


async def _ended_or(process: ProcessId, event: trio.Event, reserve: Reserve) -> None:
    async with trio.open_nursery() as nursery:

        async def ended() -> None:
            await wait_gone(process, reserve)
            nursery.cancel_scope.cancel()

        nursery.start_soon(ended)
        await event.wait()
        nursery.cancel_scope.cancel()


async def close_log(hold: Hold) -> None:
    """Take in the last words, keep the log within its cap, and declare what was lost of it."""
    log = hold.log
    if log is None:
        return
    log.pull()
    await log.settle(hold.services.disk_lanes.limiter, hold.services.warn, finally_=True)
    losses, log.losses = log.losses, []
    lost = hold.records.copier_lost() if hold.spec.has_copier else None
    if lost is not None:
        losses.append((log.buffer.end if lost.at is None else lost.at, lost.reason))
    for offset, reason in losses:
        await hold.notify(ev.OutputLost(hold.spec.id, offset, reason))


# --- leftovers ----------------------------------------------------------------------


async def sweep(hold: Hold) -> None:
    """Deal with what outlived the program, by the session's leftovers policy."""
    deadline = trio.current_time() + LEFTOVER_GRACE + hold.spec.stop.kill_grace
    reserve = hold.services.reserve
    first = True
    while doomed := await _leftovers(hold):
        signal_all(doomed, *((signal.SIGTERM, signal.SIGCONT) if first else (signal.SIGKILL,)), reserve=reserve)
        with trio.move_on_after(min(LEFTOVER_GRACE, hold.spec.stop.stop_grace) if first else 0.5):
            await wait_all_gone(doomed, reserve)
        first = False
        if trio.current_time() > deadline:
            await hold.notify(ev.SessionUnkillable(hold.spec.id, tuple(one.pid for one in doomed)))
            return


async def _leftovers(hold: Hold) -> list[ProcessId]:
    """What is to be stopped now; everything found is made known once."""
    members, entries = await hold.tree.members()
    if any(processes.age(member.entry.id) < SETTLE_TIME for member in members):
        # What has just been forked still bears its parent's name, and who is spared is told by name.
        await trio.sleep(SETTLE_TIME)
        members, entries = await hold.tree.members()
    members = [member for member in members if member.entry.id != hold.program]
    if not members and hold.helpers_are_gone and lease_is_held(hold.kin.lease):
        members = await hold.tree.holders(entries)
    if not members:
        return []
    judged = hold.tree.judge(members, entries)
    fresh = [(member, leftover) for member, leftover in judged if member.entry.id not in hold.said]
    if fresh:
        hold.said.update(member.entry.id for member, _ in fresh)
        await hold.notify(ev.LeftoversFound(hold.spec.id, tuple(leftover for _, leftover in fresh)))
    hold.spared = any(leftover.action == "reported" for _, leftover in judged)
    return [member.entry.id for member, leftover in judged if leftover.action == "stopped"]
