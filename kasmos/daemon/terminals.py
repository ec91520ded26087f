"""Looking at, and typing into, the terminals of live sessions, for whoever asks over the API."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from kasmos.daemon.terms import OrchestratorLike
from kasmos.exceptions import InteractiveOnlyError, Mistake, RequestError, SessionClosedError
from kasmos.model.profile import ExecutionMode
from kasmos.model.value import frozen
from kasmos.model.view import SessionView
from kasmos.sessions.protocol import ExecutionSession, TerminalSession

if TYPE_CHECKING:
    from kasmos.screens import Tried, Verdict
    from kasmos.supervision.terminal import Terminal
    from kasmos.supervision.typist import Delivered

LARGEST = 2000
"""Columns or rows of a terminal."""
_NAMED = [
    "Up",
    "Down",
    "Left",
    "Right",
    "Enter",
    "Escape",
    "Tab",
    "BTab",
    "BSpace",
    "Space",
    "Home",
    "End",
    "PageUp",
    "PageDown",
    "PgUp",
    "PgDn",
    "PPage",
    "NPage",
    "IC",
    "DC",
    "Insert",
    "Delete",
    "F1",
    "F2",
    "F3",
    "F4",
    "F5",
    "F6",
    "F7",
    "F8",
    "F9",
    "F10",
    "F11",
    "F12",
]
_KEY = re.compile(rf"(?:[CMS]-)*(?:{'|'.join(_NAMED)}|\S)|\^[@-_a-z]")


@frozen
class ScreenWire:
    """What a session's terminal shows; without a terminal, its last lines of output."""

    session_id: str
    interactive: bool
    lines: tuple[str, ...]
    state: str | None = None
    """In a word: ready, working and so on. `unknown` where the screen does not tell."""
    title: str | None = None
    width: int | None = None
    height: int | None = None
    cursor: tuple[int, ...] | None = None
    """Column and line, from 0."""
    ended: bool = False
    """Whether it is the last one."""


@frozen
class SentWire:
    """What became of a text that was typed."""

    sent: bool
    verified: bool
    """The screen showed that it was taken."""
    file: str
    """Where the text is, if it was too long to be typed."""
    replaced: str
    """What somebody had typed, and was removed."""


class Terminals:
    """The terminals of one supervisor's sessions.

    Raises:
        RequestError: in every method: the name means nothing, or several things.
        InteractiveOnlyError: in every method but `screen`: the session has no terminal.
        SessionClosedError: in every method: it is not open.
        SessionError: in every method: its terminal cannot be asked.
    """

    def __init__(
        self,
        orchestrator: OrchestratorLike,
        get_session: Callable[[str], SessionView],
        last_screen: Callable[[SessionView], str | None],
    ) -> None:
        self._orchestrator = orchestrator
        self._get_session = get_session
        self._last_screen = last_screen

    def require(self, name: str) -> ExecutionSession:
        """The live session with a terminal that *name* means."""
        session = self._get_session(name)
        live = self._orchestrator.live_session(session.id)
        interactive = live.capabilities.interactive if live else session.backend is ExecutionMode.TMUX
        if not interactive:
            raise InteractiveOnlyError(f"session {session.name} runs {session.backend}: it has no terminal")
        if live is None:
            raise SessionClosedError(f"session {session.name} is not open")
        return live

    def _watched(self, name: str) -> Terminal:
        live = self.require(name)
        terminal = self._orchestrator.terminal(live.spec.id)
        if terminal is None:
            raise SessionClosedError(
                f"session {live.spec.name} is not watched: it is ending, or its rules have mistakes"
            )
        return terminal

    async def screen(
        self, name: str, start: int | None = None, end: int | None = None, *, ansi: bool = False
    ) -> ScreenWire:
        """What a session shows now (see `ExecutionSession.screen`), or what its terminal showed last."""
        view = self._get_session(name)
        live = self._orchestrator.live_session(view.id)
        if live is None:
            kept = await trio.to_thread.run_sync(self._last_screen, view)
            if kept is None:
                raise SessionClosedError(f"session {view.name} is not open; its output can be read")
            return ScreenWire(view.id, True, tuple(kept.split("\n")), ended=True)
        text = await live.screen(start, end, ansi=ansi)
        lines = tuple(text.split("\n"))
        terminal = self._orchestrator.terminal(view.id)
        if terminal is None:
            return ScreenWire(view.id, live.capabilities.interactive, lines)
        verdict = await terminal.look()
        picture = terminal.picture
        assert picture is not None
        return ScreenWire(
            view.id,
            True,
            lines,
            verdict.state.value,
            picture.title,
            picture.width,
            picture.height,
            (picture.cursor_x, picture.cursor_y),
        )

    async def explain(self, name: str) -> tuple[Verdict, tuple[Tried, ...]]:
        """Which state a session's screen shows, and what every rule saw."""
        from kasmos.screens import examine
        from kasmos.supervision.terminal import screen_of

        terminal = self._watched(name)
        await terminal.look()
        assert terminal.picture is not None
        return examine(screen_of(terminal.picture), terminal.rules)

    async def send(
        self, name: str, text: str, *, enter: bool = True, wait: bool = False, force: bool = False
    ) -> SentWire:
        """Type a text, and see to it that the program takes it; an empty one is Enter alone.

        Args:
            name: the session.
            text: what is typed.
            enter: submit it.
            wait: wait until the program takes a text, for as long as that may be.
            force: also while it works, and in the place of what somebody has typed.

        Raises:
            SessionBusyError: something is in the way; nothing was typed.
            DeliveryError: it was not seen to be taken; it is not typed again.

        Cancellation: it may have been typed, and not submitted.
        """
        from kasmos.supervision.delivery import Order
        from kasmos.supervision.typist import BUSY_PATIENCE, Typist

        terminal = self._watched(name)
        if not text:
            if enter:
                await terminal.session.press("Enter")
            return SentWire(enter, verified=False, file="", replaced="")
        order = Order(text, submit=enter, force=force, patience=math.inf if wait else BUSY_PATIENCE)
        typist = Typist(terminal)
        return _sent(await (typist.type_blind(order) if typist.is_blind else typist.deliver(order)))

    async def press(self, name: str, keys: Sequence[str]) -> None:
        """Press keys by their names.

        Raises:
            RequestError: 400 `invalid_body`: there is no such key.
        """
        live = self.require(name)
        mistakes = [
            Mistake(
                f"$.keys[{at}]", f"{key!r} is no key", "as tmux names them: C-c, Up, Enter, Escape, F5, or a letter"
            )
            for at, key in enumerate(keys)
            if not _KEY.fullmatch(key)
        ]
        if mistakes:
            raise RequestError(400, "invalid_body", "the body is wrong", mistakes)
        await _terminal_of(live).press(*keys)

    async def respond(self, name: str, choice: str) -> None:
        """Press the key that stands for a choice at a permission prompt.

        Raises:
            StaleApprovalError: it asks nothing at present.
        """
        self.require(name)
        await self._watched(name).respond(choice)

    async def resize(self, name: str, width: int, height: int) -> None:
        """Set a terminal's size."""
        await self.require(name).set_detached_size(width, height)


def _terminal_of(session: ExecutionSession) -> TerminalSession:
    """What says of itself that it is interactive is a terminal."""
    return session  # type: ignore[return-value]  # by the contract of `Capabilities.interactive`


def _sent(said: Delivered) -> SentWire:
    return SentWire(True, said.verified, said.file, said.replaced)
