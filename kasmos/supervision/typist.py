"""Typing a text into a terminal so that it is taken once, and one text at a time.

What is decided is in `delivery`; here it is done, and looked at.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from kasmos.exceptions import DeliveryError, SessionBusyError, SessionClosedError
from kasmos.failpoints import reach
from kasmos.model import event as ev
from kasmos.model.value import frozen
from kasmos.screens import ScreenState, Verdict
from kasmos.sessions.protocol import require_pasteable
from kasmos.supervision.delivery import (
    Act,
    Fail,
    Hold,
    Order,
    Progress,
    Refuse,
    Sight,
    Step,
    after,
    decide_delivery,
    saw,
    shows_text,
)
from kasmos.supervision.terminal import STANDS_AFTER, Terminal, screen_of

PERSON_ACTIVE = 300.0
"""Seconds after which somebody who is attached and does nothing is not taken to be typing."""
BUSY_PATIENCE = 5.0
"""Seconds that who does not want to wait waits all the same."""
AT_REST = 0.5
"""Seconds without output after which a program without rules is taken to wait."""
REST_PATIENCE = 10.0
"""Seconds after which it is typed into although it does not come to rest."""
BLANK_PATIENCE = 30.0
"""Seconds after which it is so although it has drawn nothing: on a busy machine a program may begin late."""
GENERIC = "generic"


@frozen
class Delivered:
    """What became of a text that was typed."""

    verified: bool
    """The screen showed that it was taken; else there are no rules by which that could be seen."""
    file: str = ""
    """Where the text is, if only a line about it was typed."""
    replaced: str = ""
    """What somebody had typed, and was removed."""


class Typist:
    """Types into one terminal. Of one terminal there may be many: its lock is theirs."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._session = terminal.session

    async def deliver(
        self,
        order: Order,
        *,
        keep_as: str = "",
        intent: Callable[[str], Awaitable[None]] | None = None,
        doubtful: bool = False,
    ) -> Delivered:
        """Type a text, and see to it that the program takes it.

        Args:
            order: what, and how.
            keep_as: the name of the file that a text becomes which is too long, if it is to be found again.
            intent: made durable right before something is typed; told where the file is, if there is one.
            doubtful: an earlier supervisor may have typed it: it is not typed again.

        Raises:
            SessionBusyError: something is in the way; nothing was typed.
            DeliveryError: it was not seen to be taken.
            SessionError: the terminal cannot be asked, or the text cannot be typed.

        Cancellation: it may have been typed, and not submitted.
        """
        async with self._turn_to_type(order):
            order, file = await self._as_file(order, keep_as)
            order = attrs.evolve(order, gap=max(order.gap, self._terminal.rules.layout.enter_gap))
            return attrs.evolve(await self._deliver(order, intent, file, doubtful), file=file)

    @asynccontextmanager
    async def _turn_to_type(self, order: Order) -> AsyncGenerator[None, None]:
        """One text is typed at a time."""
        try:
            with trio.fail_after(min(order.patience, 1e9)):
                await self._terminal.typing.acquire()
        except trio.TooSlowError:
            raise SessionBusyError(f"{self._session.spec.name}: another text is being typed") from None
        try:
            yield
        finally:
            self._terminal.typing.release()
            self._terminal.wait_for("")
            self._terminal.has_changed()

    async def _as_file(self, order: Order, keep_as: str) -> tuple[Order, str]:
        """A text that is too long to be typed becomes a file, and a line that says where; empty for others."""
        if len(order.text.encode("utf-8", "surrogateescape")) <= self._terminal.most:
            return order, ""
        file = await self._session.keep_text(keep_as or f"typed-{int(self._terminal.wall() * 1000)}.md", order.text)
        return attrs.evolve(order, text=f"Read the file {file} and do what it says."), file

    async def _deliver(
        self, order: Order, intent: Callable[[str], Awaitable[None]] | None, file: str, doubtful: bool
    ) -> Delivered:
        require_pasteable(order.text)
        name = self._session.spec.name
        progress = Progress(Step.DOUBTFUL if doubtful else Step.WAITING, trio.current_time())
        replaced = ""
        while True:
            sight = await self._sight(order)
            progress = saw(progress, sight, trio.current_time())
            action = decide_delivery(order, progress, sight, trio.current_time())
            match action:
                case Hold(until, why):
                    # What is over in a moment is not worth telling.
                    tell_at = progress.since + STANDS_AFTER
                    if trio.current_time() >= tell_at:
                        self._terminal.wait_for(why)
                        tell_at = math.inf
                    await self._terminal.wait_look(min(until, tell_at) if why else until)
                    continue
                case Refuse(why):
                    raise SessionBusyError(f"{name}: {why}; nothing was typed")
                case Fail(why):
                    if replaced:
                        why += f"; what stood in its input was removed: {replaced}"
                    error = DeliveryError(f"{name}: {why}", self._shown())
                    if intent is None and not doubtful:
                        self._terminal.tell(
                            ev.DeliveryFailed(self._session.spec.id, why, self._shown()[:20_000], prompt=False)
                        )
                    raise error
                case Act.DONE:
                    return Delivered(verified=True, replaced=replaced)
                case Act.CLEAR:
                    replaced = sight.draft or ""
                    await self._session.press("C-u")
                case Act.PASTE:
                    self._terminal.wait_for("")
                    if intent is not None:
                        await intent(file)
                    await self._session.paste(order.text)
                    if intent is not None:
                        reach("prompt.typed")
                case Act.ENTER:
                    await self._session.press("Enter")
            progress = after(progress, action, trio.current_time())
            # Give the program a moment to draw; its output is looked at as it comes.
            await self._terminal.wait_look(trio.current_time() + 0.1)

    async def type_blind(
        self,
        order: Order,
        *,
        keep_as: str = "",
        intent: Callable[[str], Awaitable[None]] | None = None,
    ) -> Delivered:
        """Type a text into a program of whose screen nothing is known, once it has come to rest. Nothing is verified.

        Args:
            order: as for `deliver`.
            keep_as: as for `deliver`.
            intent: as for `deliver`.

        Raises:
            SessionBusyError: its screen asks something, or somebody is typing.
            SessionError: the terminal cannot be asked, or the text cannot be typed.

        Cancellation: it may have been typed, and not submitted.
        """
        async with self._turn_to_type(order):
            order, file = await self._as_file(order, keep_as)
            require_pasteable(order.text)
            await self._wait_at_rest(order)
            self._terminal.wait_for("")
            if intent is not None:
                await intent(file)
            await self._session.paste(order.text)
            if intent is not None:
                reach("prompt.typed")
            if order.submit:
                await trio.sleep(max(0.15, order.gap))
                await self._session.press("Enter")
            return Delivered(verified=False, file=file)

    async def _wait_at_rest(self, order: Order) -> None:
        """Wait until a program without rules has drawn something and then nothing for a moment, and asks nothing."""
        name, begun = self._session.spec.name, trio.current_time()
        blank_until = math.inf
        while True:
            verdict = await self._terminal.look()
            picture, waited = self._terminal.picture, trio.current_time() - begun
            assert picture is not None
            why = "" if order.force else await self._against_blind(verdict)
            if why:
                if waited >= order.patience:
                    raise SessionBusyError(f"{name}: {why}: --force types all the same")
                self._terminal.wait_for(why)
                await self._terminal.wait_look(trio.current_time() + min(1.0, order.patience - waited))
                continue
            with trio.move_on_after(AT_REST) as rest:
                await self._session.wait_changed(picture.offset)
            # A program that never rests, or never draws, is typed into all the same.
            if picture.text.strip():
                blank_until = min(blank_until, waited)
            enough = blank_until + REST_PATIENCE if blank_until < math.inf else BLANK_PATIENCE
            at_rest = rest.cancelled_caught and blank_until < math.inf
            if order.force or at_rest:
                return
            if waited >= min(enough, order.patience) and not await self._against_blind(await self._terminal.look()):
                # It writes all the time: it was looked at anew, since it may have come to a question meanwhile.
                return

    async def _against_blind(self, verdict: Verdict) -> str:
        if verdict.state in (ScreenState.QUESTION, ScreenState.DIALOG):
            return "it asks something, and the text would be the answer"
        return "somebody is at its terminal" if await self._terminal.is_person_active(10.0) else ""

    @property
    def is_blind(self) -> bool:
        """Whether there are no rules that tell when its program takes a text."""
        return self._terminal.rules.program == GENERIC

    async def _sight(self, order: Order) -> Sight:
        try:
            verdict = await self._terminal.look()
        except SessionClosedError:
            return Sight(ScreenState.EXITED, composer=False, draft=None, shows=False)
        draft = verdict.composer.draft if verdict.composer is not None else None
        shows = shows_text(draft, order.text, self._terminal.rules.layout.pasted)
        person = draft is not None and not shows and await self._terminal.is_person_active(PERSON_ACTIVE)
        picture = self._terminal.picture
        assert picture is not None
        return Sight(
            verdict.state,
            verdict.composer is not None,
            draft,
            shows,
            person,
            unread=picture.unread > 0,
        )

    def _shown(self) -> str:
        return "\n".join(screen_of(self._terminal.picture).lines) if self._terminal.picture is not None else ""
