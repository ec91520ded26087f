"""A program in a pane: looked at, typed into, and what its end means.

It is held by the same records as a headless one. What is new: the tmux server may end and take the terminal with it.
That is told apart from a program's own end by asking the server after it: one that answers was alive.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from kasmos.exceptions import ConfigError, SessionClosedError, SessionError, SessionLostError
from kasmos.model.profile import ExecutionMode
from kasmos.model.screen import AttachedClient, Picture
from kasmos.model.session import Capabilities, ExitStatus
from kasmos.sessions import processes
from kasmos.sessions.ending import clear_up, close_log, finish
from kasmos.sessions.held import HeldSession, either
from kasmos.sessions.hold import Hold
from kasmos.sessions.last_screen import load_screen, plain, render_range, save_screen, shown, write_private
from kasmos.sessions.protocol import FindRecogniser, Recognise, TerminalSession, require_pasteable
from kasmos.sessions.stdin import unread_bytes
from kasmos.sessions.threads import in_thread
from kasmos.sessions.tmux_pane import Pane, end_pane

CAPABILITIES = Capabilities(interactive=True, adoption=True, detach=True, processes=True)

ANSWER_LIMIT = 30.0
"""Seconds a server that does not answer is waited for before an end is told without it."""

_FORM = (
    "#{pane_width} #{pane_height} #{cursor_x} #{cursor_y} #{cursor_flag} #{alternate_on} #{history_size} #{pane_dead} "
    "#{pane_title}"
)


class TmuxSession(HeldSession):
    """One program in a terminal that a person can enter and leave."""

    backend = ExecutionMode.TMUX
    _capabilities = CAPABILITIES

    def __init__(
        self,
        hold: Hold,
        boot_id: str,
        status: ExitStatus | None,
        pane: Pane,
        find_recogniser: FindRecogniser | None,
    ) -> None:
        self._pane = pane
        self._find_recogniser = find_recogniser
        self._picture: tuple[int, tuple[str, ...]] | None = None
        """Lines above the screen, and all lines, as they were seen last."""
        self._seen = -1
        """How much output there was when the last picture was asked for."""
        self._looking = False
        self._looked: Picture | None = None
        """What the last look saw."""
        self._glancing = False
        self._recognise: Recognise | None = None
        """How its screens are read; found when it is asked for."""
        self._recognised: tuple[Picture, bool | None] | None = None
        """The picture that was read last, and what it says."""
        self.typed_at = 0.0
        """When we typed last; see `TerminalSession.typed_at`."""
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
        lines = self._last_seen()
        if lines is not None:
            self._save_screen(lines)
        with suppress(OSError):
            hold.take_records()
        await hold.kill()
        await clear_up(hold)
        await close_log(hold)
        raise SessionLostError("the tmux server ended, and its terminal with it")

    def _last_seen(self) -> tuple[str, ...] | None:
        """The lines that were seen last, where nobody can be asked any more."""
        if self._looked is not None and (self._picture is None or self._looked.offset > self._seen):
            return tuple(plain(self._looked.text).split("\n"))
        return None if self._picture is None else self._picture[1]

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
        width, height, x, y, cursor, alternate, history, dead, *title = shown(state[0]).split(" ", 8)
        self._looked = Picture(
            text="\n".join(map(shown, lines)),
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
        return self._looked

    def _waits_for_person(self) -> bool | None:
        """What its screen says, as it was seen last; see `ExecutionSession.has_updated`."""
        looked = self._looked
        is_old = looked is None or looked.offset != self.output_bytes or self._recognise is None
        if is_old and not self._glancing and self._find_recogniser is not None:
            self._glancing = True
            self._hold.services.nursery.start_soon(self._glance, self._find_recogniser)
        if looked is None or self._recognise is None:
            return None
        if self._recognised is None or self._recognised[0] is not looked:
            self._recognised = looked, self._recognise(looked)
        return self._recognised[1]

    async def _glance(self, find: FindRecogniser) -> None:
        """Look, so that who asks again is told what is there now."""
        try:
            # Rules with mistakes are told of by whoever watches the screen.
            with trio.move_on_after(ANSWER_LIMIT), suppress(SessionError, ConfigError, OSError):
                if self._recognise is None:
                    self._recognise = await in_thread(find, self.spec.argv)
                await self.look(ansi=True)
        finally:
            self._glancing = False

    async def wait_changed(self, offset: int) -> int:
        """Wait until the program has written past *offset*, or ended: the screen may have changed then.

        Costs nothing while nothing is written. Returns: how much output there is now.

        Cancellation: no effect.
        """
        await trio.lowlevel.checkpoint()
        while self._hold.log is not None and self.output_bytes <= offset and not self._done.is_set():
            await either(self._hold.log.grown, self._done)
        return self.output_bytes

    def output_now(self) -> int:
        """How much has been written by now; see `TerminalSession.output_now`."""
        return self._hold.log.written if self._hold.log is not None else 0

    async def screen(self, start: int | None = None, end: int | None = None, *, ansi: bool = False) -> str:
        """The rendered screen as it is now, or as it was left; see `ExecutionSession.screen`."""
        if self._done.is_set():
            return render_range(*self._last_picture(), start, end)
        command = ["capture-pane", "-p", "-t", self._pane.id, *(["-e"] if ansi else [])]
        command += [*(["-S", str(start)] if start is not None else []), *(["-E", str(end)] if end is not None else [])]
        (lines,) = await self._pane.run(command)
        return "\n".join(map(shown, lines))

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
                self._picture = (int(state[0]), tuple(map(shown, lines)))
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
        self._is_typing()
        await self._pane.run(["send-keys", "-t", self._pane.id, "-l", "--", keys])

    async def press(self, *keys: str) -> None:
        """Press keys by tmux's names for them: `C-c`, `Up`, `Enter`."""
        self._is_typing()
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
        self._is_typing()
        require_pasteable(text)
        if not text:
            return
        name = f"kasmos-{os.getpid()}-{time.monotonic_ns()}"
        path = f"{self._hold.path}/{name}"
        try:
            # In a thread: it may be a megabyte.
            await in_thread(write_private, path, text.encode("utf-8", "surrogateescape"))
            # tmux expands formats in a path.
            await self._pane.run(
                ["load-buffer", "-b", name, path.replace("#", "##")],
                ["paste-buffer", "-p", "-r", "-d", "-b", name, "-t", self._pane.id],
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
            await in_thread(write_private, path, text.encode("utf-8", "surrogateescape"))
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
            pid, active, read_only, width, height, name = shown(line).split(" ", 5)
            found.append(
                AttachedClient(name, int(pid), float(active), read_only == "1", int(width or 0), int(height or 0))
            )
        return tuple(found)

    def _is_typing(self) -> None:
        self._require_live()
        self.typed_at = time.time()

    def _require_live(self) -> None:
        if self._done.is_set():
            raise SessionClosedError(f"{self.spec.name} has ended")


if TYPE_CHECKING:
    # Who has a session by its capabilities casts: here it is checked that what they rely on is there.
    _IS_A_TERMINAL: type[TerminalSession] = TmuxSession
