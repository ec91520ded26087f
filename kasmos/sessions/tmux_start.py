"""Starting a program in a pane: it runs, and is proven, or nothing is left behind."""

from __future__ import annotations

import contextlib
import os
from contextlib import ExitStack, suppress

import trio

from kasmos.exceptions import SessionStartError
from kasmos.failpoints import reach
from kasmos.sessions import cgroups, launch, processes, spawn, tmux, tmux_launch
from kasmos.sessions.hold import Hold
from kasmos.sessions.tmux_control import ControlError, ControlLost
from kasmos.sessions.tmux_host import Host
from kasmos.sessions.tmux_pane import Pane

READY_LIMIT = 60.0
"""Seconds a shim and its logger have to record themselves, once tmux has started them."""


async def start(hold: Hold, host: Host, boot_id: str) -> Pane:
    """Start the session's program in a pane.

    Raises:
        SessionStartError: it could not be started; nothing is left behind.

    Cancellation: nothing is left behind, and the program has not run.
    """
    services = hold.services
    if services.cgroups is not None and cgroups.is_beside_us(host.pid):
        # A server in a scope of its own is to outlive our unit: then its sessions do not belong into a group of that.
        spawn.make_cgroup(hold)
    spec = hold.spec
    pane = Pane(host, tmux_launch.tmux_name(spec.id))
    try:
        await services.on_disk(launch.prepare, hold.path, spec, boot_id)
    except OSError as error:
        spawn.drop_cgroup(hold)
        raise SessionStartError(f"cannot start {spec.name}: {error.strerror or error}") from error
    except BaseException:
        spawn.drop_cgroup(hold)
        raise
    with ExitStack() as opened:
        gate: int | None = None
        try:
            reach("session.prepared")
            gate = tmux_launch.make_gate(hold.path)
            opened.callback(os.close, gate)
            command = tmux_launch.pane_command(hold.path, spec, services.soft_nofile)
            reach("session.spawning")
            await _spawn(hold, pane, command)
            reach("session.proven")
            os.write(gate, b"\n")
            reach("session.released")
        except (OSError, ControlError, ControlLost, ValueError) as error:
            await _undo(hold, pane, gate)
            why = getattr(error, "strerror", None) or error
            raise SessionStartError(f"cannot start {spec.name}: {why}") from error
        except BaseException:
            await _undo(hold, pane, gate)  # noqa: ASYNC102  # it shields itself, within a bound
            raise
    return pane


async def _spawn(hold: Hold, pane: Pane, command: list[str]) -> None:
    spec = hold.spec
    target = f"={pane.name}:"
    ready = trio.Event()
    forget = hold.watch_records(ready.set)
    late: trio.CancelScope | None = None
    try:
        # One line: the server does all of it, whatever becomes of us. Only what comes first can fail.
        made, *_ = await pane.host.control.command(
            tmux_launch.new_session(pane.name, hold.path, spec, command, tmux.SIZE),
            ["pipe-pane", "-t", target, tmux_launch.logger_command(hold.path)],
            ["set-option", "-t", target, tmux.TOKEN, pane.host.place.token],
            ["set-option", "-t", target, tmux.SESSION, spec.id],
            ["set-option", "-w", "-t", target, "window-size", "manual"],
        )
        pane.id, pid = made[0].decode().split(" ")
        hold.kin.host = pane.host.pid
        hold.follow()
        reach("session.spawned")
        doorman = processes.read_entry(int(pid))
        with _held(int(pid)) as pidfd:
            if doorman is not None:
                hold.kin.known.add(doorman.id)
            if not hold.is_ready() and pidfd is not None:
                with trio.move_on_after(READY_LIMIT) as late:
                    await _ready_or_ended(ready, pidfd)
    finally:
        forget()
    hold.take_records()
    if not hold.is_ready() or not hold.has_program():
        otherwise = "its shell ended before it could run"
        if late is not None and late.cancelled_caught:
            otherwise = f"its shell and its logger were not there within {READY_LIMIT:.0f} s"
        raise spawn.not_started(hold, otherwise)
    spawn.check_cgroup(hold)


@contextlib.contextmanager
def _held(pid: int):  # type: ignore[no-untyped-def]
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield pidfd
    finally:
        trio.lowlevel.notify_closing(pidfd)
        os.close(pidfd)


async def _ready_or_ended(ready: trio.Event, pidfd: int) -> None:
    async with trio.open_nursery() as nursery:

        async def ended() -> None:
            await trio.lowlevel.wait_readable(pidfd)
            nursery.cancel_scope.cancel()

        nursery.start_soon(ended)
        await ready.wait()
        nursery.cancel_scope.cancel()


async def _undo(hold: Hold, pane: Pane, gate: int | None) -> None:
    """Shut the gate, end what was started, and remove the directory: a shim that is late has nothing to come to."""
    if gate is not None:
        with suppress(OSError):
            os.write(gate, b"no\n")
    empty = True
    bound = hold.spec.stop.kill_grace + 2
    with trio.CancelScope(shield=True, deadline=trio.current_time() + bound):
        if gate is not None:
            with suppress(OSError):
                hold.take_records()
            empty = await hold.kill(helpers=True)
            with trio.move_on_after(1.0), suppress(ControlError, ControlLost):
                await pane.host.control.command(["kill-session", "-t", f"={pane.name}"])
    hold.drop()
    if empty:
        spawn.drop_cgroup(hold)
        launch.discard(hold.path)
        return
    with suppress(OSError):
        hold.records.entomb()
