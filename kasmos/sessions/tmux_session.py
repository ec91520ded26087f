"""A program in a pane: started, looked at, typed into, and what its end means.

It is held by the same records as a headless one. What is new: the tmux server may end and take the terminal with it.
That is told apart from a program's own end by asking the server after it: one that answers was alive.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import attrs
import trio

from kasmos.exceptions import SessionClosedError, SessionError, SessionLostError, SessionStartError
from kasmos.failpoints import reach
from kasmos.model.profile import ExecutionMode
from kasmos.model.screen import AttachedClient, Picture
from kasmos.model.session import Capabilities, ExitStatus
from kasmos.sessions import cgroups, launch, layout, processes, spawn, tmux, tmux_launch
from kasmos.sessions.ending import clear_up, close_log, finish
from kasmos.sessions.held import HeldSession, either
from kasmos.sessions.hold import Hold
from kasmos.sessions.protocol import require_pasteable
from kasmos.sessions.threads import in_thread
from kasmos.sessions.tmux_control import ControlError, ControlLost
from kasmos.sessions.tmux_host import Host
from kasmos.sessions.tty import unread_bytes

CAPABILITIES = Capabilities(interactive=True, adoption=True, detach=True, processes=True)

PANE_LIMIT = 5.0
"""Seconds a terminal has to be given up by everybody after its program's end."""
ANSWER_LIMIT = 30.0
"""Seconds a server that does not answer is waited for before an end is told without it."""

_FORM = (
    "#{pane_width} #{pane_height} #{cursor_x} #{cursor_y} #{cursor_flag} #{alternate_on} #{history_size} #{pane_dead} "
    "#{pane_title}"
)


@attrs.define(eq=False)
class Pane:
    """Where in tmux a session is."""

    host: Host
    name: str
    """Of the tmux session."""
    id: str = ""
    """Of the pane; empty where there is none any more."""

    async def run(self, *commands: list[str]) -> list[tuple[bytes, ...]]:
        """Run commands in the server; the lines each of them printed.

        Raises:
            SessionError: tmux refused, or is not there.
        """
        try:
            return await self.host.control.command(*commands)
        except (ControlError, ControlLost) as error:
            raise SessionError(f"tmux: {error}") from error

    async def find(self, doorman: int | None) -> bool:
        """Find the pane again by the process in it; False when there is none."""
        form = f"#{{pane_id}} #{{pane_pid}} #{{{tmux.TOKEN}}}"
        with suppress(ControlError):
            (lines,) = await self.host.control.command(["list-panes", "-s", "-t", f"={self.name}:", "-F", form])
            for line in lines:
                pane, pid, *token = line.decode().split(" ")
                if token == [self.host.place.token] and (doorman is None or int(pid) == doorman):
                    self.id = pane
                    return True
        return False


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
                await _ready_or_ended(ready, pidfd)
    finally:
        forget()
    hold.take_records()
    if not hold.is_ready() or not hold.has_program():
        said = hold.records.shim_log() or "its shell ended before it could run"
        raise SessionStartError(f"cannot start {spec.name}: {said}")
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


class TmuxSession(HeldSession):
    """One program in a terminal that a person can enter and leave."""

    backend = ExecutionMode.TMUX
    _capabilities = CAPABILITIES

    def __init__(self, hold: Hold, boot_id: str, status: ExitStatus | None, pane: Pane) -> None:
        self._pane = pane
        self._picture: tuple[int, tuple[str, ...]] | None = None
        """Lines above the screen, and all lines, as they were seen last."""
        self._seen = -1
        """How much output there was when the last picture was asked for."""
        self._looking = False
        hold.when_swept = self._end_pane
        if status is None:
            pane.host.add(hold)
        super().__init__(hold, boot_id, status)

    # --- the end -------------------------------------------------------------------

    async def _wait_program(self) -> None:
        async with trio.open_nursery() as nursery:

            async def program() -> None:
                await super(TmuxSession, self)._wait_program()
                nursery.cancel_scope.cancel()

            nursery.start_soon(program)
            await self._pane.host.dead.wait()
            nursery.cancel_scope.cancel()

    async def _find_end(self) -> ExitStatus:
        if await self._pane.host.is_there(ANSWER_LIMIT):
            return await finish(self._hold)
        hold = self._hold
        if self._picture is not None:
            self._save_screen(self._picture[1])
        with suppress(OSError):
            hold.take_records()
        await hold.kill()
        await clear_up(hold)
        await close_log(hold)
        raise SessionLostError("the tmux server ended, and its terminal with it")

    async def _end_pane(self) -> None:
        """Keep the last screen, then give the terminal up, so that the logger meets the end of the output."""
        await end_pane(self._pane, self._save_screen)

    def _save_screen(self, lines: tuple[str, ...]) -> None:
        with suppress(OSError):
            save_screen(self._hold.path, lines)

    async def leave(self) -> None:
        """The scope is left; see `HeldSession.leave`."""
        try:
            await super().leave()
        finally:
            self._pane.host.holds.discard(self._hold)

    # --- looking -------------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        """Whether the program is stopped (SIGSTOP, Ctrl-Z); SIGCONT continues it."""
        entry = processes.read_entry(self.pid) if self.pid is not None and not self._done.is_set() else None
        return entry is not None and entry.id == self._hold.program and entry.state in "Tt"

    async def look(self, *, ansi: bool = False) -> Picture:
        """What is on the screen now, in one round trip. Costs tmux a copy of the screen.

        Args:
            ansi: with the escapes for colours.

        Raises:
            SessionClosedError: the program has ended; `screen` has what it left.
            SessionError: tmux does not answer.

        Cancellation: no effect.
        """
        self._require_live()
        offset = self.output_bytes
        pane = self._pane.id
        state, lines = await self._pane.run(
            ["display-message", "-p", "-t", pane, _FORM], ["capture-pane", "-p", "-t", pane, *(["-e"] if ansi else [])]
        )
        width, height, x, y, cursor, alternate, history, dead, *title = _text(state[0]).split(" ", 8)
        return Picture(
            text="\n".join(map(_text, lines)),
            width=int(width),
            height=int(height),
            title=title[0] if title else "",
            cursor_x=int(x),
            cursor_y=int(y),
            cursor_visible=cursor == "1",
            alternate=alternate == "1",
            history=int(history or 0),
            dead=dead == "1",
            offset=offset,
            unread=unread_bytes(self.pid) if self.pid is not None else 0,
        )

    async def wait_changed(self, offset: int) -> int:
        """Wait until the program has written past *offset*, or ended: the screen may have changed then.

        Costs nothing while nothing is written. Returns: how much output there is now.

        Cancellation: no effect.
        """
        await trio.lowlevel.checkpoint()
        while self._hold.log is not None and self.output_bytes <= offset and not self._done.is_set():
            await either(self._hold.log.grown, self._done)
        return self.output_bytes

    async def screen(self, start: int | None = None, end: int | None = None, *, ansi: bool = False) -> str:
        """The rendered screen as it is now, or as it was left; see `ExecutionSession.screen`."""
        if self._done.is_set():
            return render_range(*self._last_picture(), start, end)
        command = ["capture-pane", "-p", "-t", self._pane.id, *(["-e"] if ansi else [])]
        command += [*(["-S", str(start)] if start is not None else []), *(["-E", str(end)] if end is not None else [])]
        (lines,) = await self._pane.run(command)
        return "\n".join(map(_text, lines))

    def capture(self, start: int | None = None, end: int | None = None) -> str:
        """The rendered screen as it was seen last; a newer picture is fetched meanwhile. `screen` waits for it."""
        if not self._done.is_set() and self._seen != self.output_bytes and not self._looking:
            self._looking = True
            self._hold.services.nursery.start_soon(self._refresh)
        return render_range(*self._last_picture(), start, end)

    async def _refresh(self) -> None:
        try:
            with trio.move_on_after(ANSWER_LIMIT), suppress(SessionError):
                seen = self.output_bytes
                state, lines = await self._pane.run(
                    ["display-message", "-p", "-t", self._pane.id, "#{history_size}"],
                    ["capture-pane", "-p", "-t", self._pane.id, "-S", "-"],
                )
                self._picture = (int(state[0]), tuple(map(_text, lines)))
                self._seen = seen
        finally:
            self._looking = False

    def _last_picture(self) -> tuple[int, tuple[str, ...]]:
        if self._done.is_set():
            saved = load_screen(self._hold.path)
            if saved is not None:
                return 0, saved
        return self._picture or (0, ())

    # --- typing --------------------------------------------------------------------

    async def send_keys(self, keys: str) -> None:
        """Type this text, character by character."""
        self._require_live()
        await self._pane.run(["send-keys", "-t", self._pane.id, "-l", "--", keys])

    async def press(self, *keys: str) -> None:
        """Press keys by tmux's names for them: `C-c`, `Up`, `Enter`."""
        self._require_live()
        await self._pane.run(["send-keys", "-t", self._pane.id, "--", *keys])

    async def tap_enter(self) -> None:
        """Press Enter."""
        await self.press("Enter")

    async def send_permission_response(self, choice: str) -> None:
        """Press the key that stands for a choice: `1`, `y`, `Enter`, `Escape`."""
        await self.press(choice)

    async def paste(self, text: str) -> None:
        """Paste a text, byte for byte, as a bracketed paste where the program has asked for that. Does not submit it.

        Raises:
            SessionError: it holds what ends a bracketed paste: the rest of it would be taken for keys.
        """
        self._require_live()
        require_pasteable(text)
        if not text:
            return
        name = f"kasmos-{os.getpid()}-{time.monotonic_ns()}"
        path = f"{self._hold.path}/{name}"
        try:
            # In a thread: it may be a megabyte.
            await in_thread(_write_private, path, text.encode("utf-8", "surrogateescape"))
            await self._pane.run(
                ["load-buffer", "-b", name, path], ["paste-buffer", "-p", "-r", "-d", "-b", name, "-t", self._pane.id]
            )
        finally:
            with suppress(OSError):
                os.unlink(path)

    async def keep_text(self, name: str, text: str) -> str:
        """Keep a text in the session's directory, for the program to read; its path.

        Raises:
            SessionError: it cannot be written.
        """
        path = f"{self._hold.path}/{name}"
        try:
            await in_thread(_write_private, path, text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise SessionError(f"{path} cannot be written: {error.strerror}") from error
        return path

    async def set_detached_size(self, width: int, height: int) -> None:
        """Set the terminal's size; nobody who attaches changes it."""
        self._require_live()
        await self._pane.run(["resize-window", "-t", self._pane.id, "-x", str(width), "-y", str(height)])

    # --- people --------------------------------------------------------------------

    def attach_command(self, *, read_only: bool = False) -> list[str]:
        """The command line by which a real terminal enters."""
        return self._pane.host.place.attach_command(self._pane.name, read_only=read_only)

    async def attach(self) -> None:
        """Sit down at it with the terminal we have, until it is detached or has ended."""
        self._require_live()
        await trio.run_process(self.attach_command(), stdin=None, check=False)

    async def clients(self) -> tuple[AttachedClient, ...]:
        """Who is looking at it."""
        form = "#{client_pid} #{client_activity} #{client_readonly} #{client_width} #{client_height} #{client_name}"
        (lines,) = await self._pane.run(["list-clients", "-t", f"={self._pane.name}", "-F", form])
        found = []
        for line in lines:
            pid, active, read_only, width, height, name = _text(line).split(" ", 5)
            found.append(
                AttachedClient(name, int(pid), float(active), read_only == "1", int(width or 0), int(height or 0))
            )
        return tuple(found)

    def _require_live(self) -> None:
        if self._done.is_set():
            raise SessionClosedError(f"{self.spec.name} has ended")


async def end_pane(pane: Pane, keep: Callable[[tuple[str, ...]], None]) -> None:
    """Keep a pane's last screen and end it, once its terminal has hung up. Bounded; never fails.

    It hangs up when the doorman, the leader of its kernel session, has ended, whoever else has it open.
    """
    if not pane.id:
        return
    with trio.move_on_after(PANE_LIMIT):
        delay = 0.002
        while True:
            try:
                state, lines = await pane.host.control.command(
                    ["display-message", "-p", "-t", pane.id, "#{pane_dead}"],
                    ["capture-pane", "-p", "-t", pane.id, "-S", "-"],
                )
            except (ControlError, ControlLost):
                if pane.host.dead.is_set() or not await pane.find(None):
                    return
                continue
            if state == (b"1",):
                break
            # tmux does not tell reliably when a terminal has been given up (it may miss SIGCHLD); it is soon.
            await trio.sleep(delay)
            delay = min(0.1, delay * 2)
        keep(tuple(map(_text, lines)))
        with suppress(ControlError, ControlLost):
            await pane.host.control.command(["kill-session", "-t", f"={pane.name}"])


def save_screen(directory: str, lines: tuple[str, ...]) -> None:
    """Keep a last screen. Blocks on the disk."""
    while lines and (not lines[-1] or lines[-1].startswith("Pane is dead")):
        # What tmux says about the end of the pane is no part of it.
        lines = lines[:-1]
    _write_private(f"{directory}/{layout.SCREEN}", "\n".join(lines).encode("utf-8", "surrogateescape"))


def load_screen(directory: str) -> tuple[str, ...] | None:
    """A last screen, if one was kept. Blocks on the disk."""
    try:
        with open(f"{directory}/{layout.SCREEN}", "rb") as file:
            return tuple(_text(file.read()).split("\n"))
    except OSError:
        return None


def render_range(history: int, lines: tuple[str, ...], start: int | None, end: int | None) -> str:
    """Lines *start* to *end*, both included, as tmux counts: 0 is the first of the screen, negative ones are above."""
    first = max(0, history + (start if start is not None else 0))
    last = len(lines) if end is None else max(0, history + end + 1)
    return "\n".join(lines[first:last])


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _write_private(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
