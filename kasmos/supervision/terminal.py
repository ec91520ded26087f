"""The watch over one session's terminal: what its screen shows, what it asks, and typing into it.

It looks when the screen may have changed and at no other time: a moment after the last output, so that a screen is seen
when it is drawn; while output never ends, now and then. An idle terminal costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from kasmos.exceptions import (
    DeliveryError,
    SessionBusyError,
    SessionClosedError,
    SessionError,
    StaleApprovalError,
)
from kasmos.failpoints import reach
from kasmos.model import event as ev
from kasmos.model.approval import Answer, Ask
from kasmos.model.event import Event
from kasmos.model.profile import AgentProfile
from kasmos.model.screen import Picture
from kasmos.screens import Cursor, Ruleset, Screen, ScreenState, Verdict, detect
from kasmos.sessions.protocol import TerminalSession, require_pasteable
from kasmos.supervision.asking import ask_of, decide_typing
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

QUIET = 0.02
"""Seconds without output after which a screen counts as drawn."""
QUIET_BUSY = 0.08
"""The same for a terminal that is written to all the time: fewer looks at the clock."""
BUSY_GAPS = (0.25, 0.5, 1.0, 2.0)
"""Seconds after the last look at which one looks although the output does not end; longer as nothing new is seen."""
GONE_AGAIN = 0.25
"""Seconds after which one looks once more when an ask has gone and nothing understood is in its place."""
STANDS_AFTER = 1.0
"""Seconds that a state has to last to be told."""
ANSWER_PATIENCE = 5.0
"""Seconds in which a dialog has to go that was answered."""
KEY_GAP = 0.05
"""Seconds between keys that move about: programs read several at once as a paste."""
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


@attrs.frozen
class Glance:
    """What is told of a screen that has become something else."""

    state: str
    note: str = ""
    """What a person should know about it."""


@attrs.frozen
class Delivered:
    """What became of a text that was typed."""

    verified: bool
    """The screen showed that it was taken; else there are no rules by which that could be seen."""
    file: str = ""
    """Where the text is, if only a line about it was typed."""
    replaced: str = ""
    """What somebody had typed, and was removed."""


class Terminal:
    """Watches a session's terminal; a source of asks. Nothing is seen before `watch` runs.

    Args:
        session: the session.
        rules: the screen rules of its program.
        tell: told what is to be recorded.
        wall: the wall clock, by which tmux says when a client was active.
        most: bytes; a longer text goes as a file, with a line that says where.
    """

    def __init__(
        self,
        session: TerminalSession,
        rules: Ruleset,
        tell: Callable[[Event], None],
        wall: Callable[[], float],
        most: int = AgentProfile.typed_max,
    ) -> None:
        self.session = session
        self._session = session
        self._most = most
        self.rules = rules
        self._tell = tell
        self._wall = wall
        self.picture: Picture | None = None
        self.verdict: Verdict | None = None
        self._ended = False
        self._changed = trio.Event()
        """Set, and replaced, with every look."""
        self._typing = trio.Lock()
        self._ask: Ask | None = None
        """What it asks, as far as that is certain."""
        self._waiting_for = ""
        """Why a text waits to be typed."""
        self._told = Glance("")

    # --- looking -------------------------------------------------------------------

    async def watch(self) -> None:
        """Look whenever the screen may have changed, until the program ends or the terminal cannot be asked any more.

        Cancellation: no effect on the session.
        """
        try:
            await self._watch()
        except SessionError:
            # How it ended is told to those who wait for the end.
            pass
        finally:
            self._ended = True
            self._has_changed()

    async def _watch(self) -> None:
        gap = 0
        before = await self.look()
        self._publish()
        stands_since = trio.current_time()
        while True:
            picture = self.picture
            assert picture is not None
            glance, due = self._glance(), math.inf
            if glance != self._told:
                due = stands_since + STANDS_AFTER
                if trio.current_time() >= due:
                    due = math.inf
                    self._tell_glance(glance)
            with trio.move_on_at(due) as scope:
                seen = await self._session.wait_changed(picture.offset)
                quiet = await self._until_drawn(seen, BUSY_GAPS[gap])
            if scope.cancelled_caught:
                continue
            verdict = await self.look()
            if self._ask is not None and verdict.state is ScreenState.UNKNOWN:
                # Perhaps it is just being drawn anew.
                await trio.sleep(GONE_AGAIN)
                verdict = await self.look()
            self._publish()
            same = verdict.state is before.state and verdict.rule == before.rule
            gap = 0 if quiet or not same else min(gap + 1, len(BUSY_GAPS) - 1)
            if verdict.state is not before.state:
                stands_since = trio.current_time()
            before = verdict

    async def _until_drawn(self, seen: int, most: float) -> bool:
        """Wait until nothing is written any more, for *most* seconds at the most; whether that came to pass."""
        give_up = trio.current_time() + most
        pause = QUIET
        while trio.current_time() < give_up:
            await trio.sleep(pause)
            now = self._session.output_bytes
            if now == seen or self._session.exit is not None:
                return True
            seen, pause = now, QUIET_BUSY
        return False

    async def look(self) -> Verdict:
        """Look at once.

        Raises:
            SessionError: the program has ended, or its terminal cannot be asked.

        Cancellation: no effect.
        """
        picture = await self._session.look(ansi=True)
        verdict = detect(screen_of(picture), self.rules)
        # Looks are answered in the order in which they were made: this one is the newest.
        self.picture, self.verdict = picture, verdict
        self._has_changed()
        return verdict

    def _publish(self) -> None:
        """What was seen last counts for what is asked."""
        self._ask = ask_of(self.verdict)
        self._has_changed()

    def _glance(self) -> Glance:
        state = self.verdict.state.value if self.verdict is not None else ""
        note = self._waiting_for
        if self.verdict is not None and not note and self.verdict.reset:
            note = f"until {self.verdict.reset}"
        return Glance(state, note)

    def _has_changed(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def wait_look(self, until: float) -> None:
        """Wait for the next look, or until an instant of Trio's clock."""
        with trio.move_on_at(until):
            await self._changed.wait()

    async def wait_turn_over(self) -> None:
        """Wait until the screen has shown for a moment that no turn is under way, or it is seen no more.

        What cannot be read is not waited for. Cancellation: no effect.
        """
        while self.verdict is None and not self._ended:
            await self._changed.wait()
        while self._is_in_turn():
            await self._changed.wait()
            with trio.move_on_after(STANDS_AFTER):
                # Between two steps of a turn a screen may look idle.
                while not self._is_in_turn():
                    await self._changed.wait()

    def _is_in_turn(self) -> bool:
        # What asks in the middle of its turn is not done with it.
        in_turn = (ScreenState.WORKING, ScreenState.PERMISSION, ScreenState.QUESTION)
        return not self._ended and self.verdict is not None and self.verdict.state in in_turn

    # --- asks ----------------------------------------------------------------------

    async def wait_ask(self, seen: str | None) -> Ask | None:
        """See `AskSource.wait_ask`."""
        await trio.lowlevel.checkpoint()
        while True:
            if self._ended:
                raise SessionClosedError(f"{self._session.spec.name} is not seen any more")
            if self.verdict is not None and (None if self._ask is None else self._ask.identity) != seen:
                return self._ask
            await self._changed.wait()

    async def answer(self, ask: Ask, answer: Answer) -> None:
        """Press the keys that give this answer, if the screen still asks for it; see `AskSource.answer`."""
        verdict = await self.look()
        self._require_asked(ask)
        typing = decide_typing(verdict, answer)
        await self._press(typing.keys)
        if typing.text:
            await self._session.paste(typing.text)
            await self._until(lambda: self._screen_has(typing.text), "the answer was typed and is not seen")
            await trio.sleep(self.rules.layout.enter_gap)
            await self._session.press("Enter")
        await self._until(lambda: not self._asks(ask), "the dialog is still there after its answer")
        self._publish()

    def _asks(self, ask: Ask) -> bool:
        now = ask_of(self.verdict)
        return now is not None and now.identity == ask.identity

    def _require_asked(self, ask: Ask) -> None:
        if not self._asks(ask):
            raise StaleApprovalError("it is not on the screen any more")

    def _screen_has(self, text: str) -> bool:
        lines = screen_of(self.picture).lines if self.picture is not None else ()
        return "".join(text.split())[-40:] in "".join("".join(lines).split())

    async def _until(self, holds: Callable[[], bool], otherwise: str) -> None:
        give_up = trio.current_time() + ANSWER_PATIENCE
        while True:
            await self.look()
            if holds():
                return
            if trio.current_time() >= give_up:
                raise SessionError(otherwise)
            await self.wait_look(min(give_up, trio.current_time() + 1.0))

    async def respond(self, choice: str) -> None:
        """Press the key that stands for a choice at a permission prompt.

        Raises:
            StaleApprovalError: the screen asks nothing.
            SessionError: it may be pressed here only by a person: Enter, where that means more than yes.
        """
        verdict = await self.look()
        if ask_of(verdict) is None:
            raise StaleApprovalError(f"{self._session.spec.name} asks nothing at present")
        if choice == "Enter" and verdict.dangerous_default:
            raise SessionError("Enter alone is never pressed on such a dialog: answer at the terminal")
        await self._session.press(choice)

    async def _press(self, keys: tuple[str, ...]) -> None:
        for number, key in enumerate(keys):
            if number:
                await trio.sleep(KEY_GAP)
            await self._session.press(key)

    # --- typing --------------------------------------------------------------------

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
            order = attrs.evolve(order, gap=max(order.gap, self.rules.layout.enter_gap))
            return attrs.evolve(await self._deliver(order, intent, file, doubtful), file=file)

    @asynccontextmanager
    async def _turn_to_type(self, order: Order) -> AsyncGenerator[None, None]:
        """One text is typed at a time."""
        try:
            with trio.fail_after(min(order.patience, 1e9)):
                await self._typing.acquire()
        except trio.TooSlowError:
            raise SessionBusyError(f"{self._session.spec.name}: another text is being typed") from None
        try:
            yield
        finally:
            self._typing.release()
            self._wait_for("")

    async def _as_file(self, order: Order, keep_as: str) -> tuple[Order, str]:
        """A text that is too long to be typed becomes a file, and a line that says where; empty for others."""
        if len(order.text.encode("utf-8", "surrogateescape")) <= self._most:
            return order, ""
        file = await self._session.keep_text(keep_as or f"typed-{int(self._wall() * 1000)}.md", order.text)
        return attrs.evolve(order, text=f"Read the file {file} and do what it says."), file

    async def _deliver(
        self, order: Order, intent: Callable[[str], Awaitable[None]] | None, file: str, doubtful: bool
    ) -> Delivered:
        require_pasteable(order.text)
        name = self._session.spec.name
        progress = Progress(Step.DOUBTFUL if doubtful else Step.WAITING, trio.current_time())
        replaced, offset = "", 0
        while True:
            sight = await self._sight(order)
            progress = saw(progress, sight, trio.current_time())
            action = decide_delivery(order, progress, sight, trio.current_time())
            match action:
                case Hold(until, why):
                    # What is over in a moment is not worth telling.
                    tell_at = progress.since + STANDS_AFTER
                    if trio.current_time() >= tell_at:
                        self._wait_for(why)
                        tell_at = math.inf
                    await self.wait_look(min(until, tell_at) if why else until)
                    continue
                case Refuse(why):
                    raise SessionBusyError(f"{name}: {why}; nothing was typed")
                case Fail(why):
                    error = DeliveryError(f"{name}: {why}", self._shown())
                    if intent is None and not doubtful:
                        self._tell(ev.DeliveryFailed(self._session.spec.id, why, self._shown()[:20_000], prompt=False))
                    raise error
                case Act.DONE:
                    return Delivered(verified=True, replaced=replaced)
                case Act.CLEAR:
                    replaced = sight.draft or ""
                    await self._session.press("C-u")
                case Act.PASTE:
                    self._wait_for("")
                    if intent is not None:
                        await intent(file)
                    await self._session.paste(order.text)
                    if intent is not None:
                        reach("prompt.typed")
                case Act.ENTER:
                    offset = self._session.output_bytes
                    await self._session.press("Enter")
            progress = after(progress, action, trio.current_time(), offset)
            # Give the program a moment to draw; its output is looked at as it comes.
            await self.wait_look(trio.current_time() + 0.1)

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
            self._wait_for("")
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
            verdict = await self.look()
            picture, waited = self.picture, trio.current_time() - begun
            assert picture is not None
            why = "" if order.force else await self._against_blind(verdict)
            if why:
                if waited >= order.patience:
                    raise SessionBusyError(f"{name}: {why}: --force types all the same")
                self._wait_for(why)
                await self.wait_look(trio.current_time() + min(1.0, order.patience - waited))
                continue
            with trio.move_on_after(AT_REST) as rest:
                await self._session.wait_changed(picture.offset)
            # A program that never rests, or never draws, is typed into all the same.
            if picture.text.strip():
                blank_until = min(blank_until, waited)
            enough = blank_until + REST_PATIENCE if blank_until < math.inf else BLANK_PATIENCE
            at_rest = rest.cancelled_caught and blank_until < math.inf
            if order.force or at_rest or waited >= min(enough, order.patience):
                return

    async def _against_blind(self, verdict: Verdict) -> str:
        if verdict.state in (ScreenState.QUESTION, ScreenState.DIALOG):
            return "it asks something, and the text would be the answer"
        return "somebody is at its terminal" if await self._is_person_active(10.0) else ""

    @property
    def is_blind(self) -> bool:
        """Whether there are no rules that tell when its program takes a text."""
        return self.rules.program == GENERIC

    async def _sight(self, order: Order) -> Sight:
        try:
            verdict = await self.look()
        except SessionClosedError:
            return Sight(ScreenState.EXITED, composer=False, draft=None, shows=False)
        draft = verdict.composer.draft if verdict.composer is not None else None
        shows = shows_text(draft, order.text, self.rules.layout.pasted)
        person = draft is not None and not shows and await self._is_person_active(PERSON_ACTIVE)
        picture = self.picture
        assert picture is not None
        return Sight(
            verdict.state,
            verdict.composer is not None,
            draft,
            shows,
            person,
            offset=picture.offset,
            unread=picture.unread > 0,
        )

    async def is_attended(self) -> bool:
        """Whether somebody sits at it who may type.

        Raises:
            SessionError: the terminal cannot be asked.
        """
        return await self._is_person_active(math.inf)

    async def _is_person_active(self, within: float) -> bool:
        since = self._wall() - within
        return any(one.active_at >= since and not one.read_only for one in await self._session.clients())

    def _wait_for(self, why: str) -> None:
        self._waiting_for = f"a text waits to be typed: {why}" if why else ""
        glance = self._glance()
        # At once: who waits for it looks at the status now.
        if glance.note != self._told.note:
            self._tell_glance(glance)

    def _tell_glance(self, glance: Glance) -> None:
        self._told = glance
        self._tell(ev.ScreenSeen(self._session.spec.id, glance.state, glance.note))

    def _shown(self) -> str:
        return "\n".join(screen_of(self.picture).lines) if self.picture is not None else ""


def screen_of(picture: Picture) -> Screen:
    """A picture as the rules look at it."""
    return Screen.from_text(
        picture.text,
        title=picture.title,
        cursor=Cursor(picture.cursor_y, picture.cursor_x, picture.cursor_visible),
        alternate=picture.alternate,
        dead=picture.dead,
    )
