"""A pane of our tmux server: commands in it, finding it again, and giving it up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from kasmos.exceptions import SessionError
from kasmos.model.value import define
from kasmos.sessions import tmux
from kasmos.sessions.last_screen import shown
from kasmos.sessions.tmux_control import ControlError, ControlLost
from kasmos.sessions.tmux_host import Host

PANE_LIMIT = 5.0
"""Seconds a terminal has to be given up by everybody after its program's end."""


@define(eq=False)
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


async def end_pane(pane: Pane, keep: Callable[[tuple[str, ...]], None]) -> None:
    """Keep a pane's last screen and end it, once its terminal has hung up. Bounded; never fails.

    It hangs up when the doorman, the leader of its kernel session, has ended, whoever else has it open; and the doorman
    ends when the logger has heard all. One that cannot, since somebody has stopped the output (Ctrl-S), is ended with
    the pane.
    """
    if not pane.id:
        return
    with trio.move_on_after(PANE_LIMIT):
        delay = 0.002
        # tmux does not tell reliably when a terminal has been given up (it may miss SIGCHLD); it is soon.
        while await _ask(pane, ["display-message", "-p", "-t", pane.id, "#{pane_dead}"]) not in (None, (b"1",)):
            await trio.sleep(delay)
            delay = min(0.1, delay * 2)
    with trio.move_on_after(PANE_LIMIT):
        lines = await _ask(pane, ["capture-pane", "-p", "-t", pane.id, "-S", "-"])
        if lines is None:
            return
        keep(tuple(map(shown, lines)))
        with suppress(ControlError, ControlLost):
            await pane.host.control.command(["kill-session", "-t", f"={pane.name}"])


async def _ask(pane: Pane, command: list[str]) -> tuple[bytes, ...] | None:
    """What a command says of a pane, over a new connection if need be; None when there is no such pane any more."""
    while True:
        try:
            (lines,) = await pane.host.control.command(command)
        except (ControlError, ControlLost):
            if pane.host.dead.is_set() or not await pane.find(None):
                return None
        else:
            return lines
