"""The watch over one session's terminal: what its screen shows, what it asks, and typing into it.

It looks when the screen may have changed and at no other time: a moment after the last output, so that a screen is seen
when it is drawn; while output never ends, now and then. An idle terminal costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import trio

from kasmos.exceptions import (
    SessionClosedError,
    SessionError,
    StaleApprovalError,
)
from kasmos.model import event as ev
from kasmos.model.approval import Answer, Ask
from kasmos.model.event import Event
from kasmos.model.profile import AgentProfile
from kasmos.model.screen import Picture
from kasmos.model.value import frozen
from kasmos.screens import Cursor, Ruleset, Screen, ScreenState, Verdict, detect
from kasmos.sessions.protocol import TerminalSession
from kasmos.supervision.asking import ask_of, decide_typing
from kasmos.supervision.delivery import READ_PATIENCE
from kasmos.supervision.dialogs import Dialogs

QUIET = 0.02
"""Seconds without output after which a screen counts as drawn."""
QUIET_BUSY = 0.08
"""The same for a terminal that is written to all the time: fewer looks at the clock."""
BUSY_GAPS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Seconds after the last look at which one looks although the output does not end; longer as nothing new is seen."""
STANDS_AFTER = 1.0
"""Seconds that a state has to last to be told."""
ANSWER_PATIENCE = 15.0
"""Seconds in which a dialog has to go that was answered, from when its program has read the answer."""
KEY_GAP = 0.05
"""Seconds between keys that move about: programs read several at once as a paste."""


@frozen
class Glance:
    """What is told of a screen that has become something else."""

    state: str
    note: str = ""
    """What a person should know about it."""


class Terminal:
    """Watches a session's terminal; a source of asks. Nothing is seen before `watch` runs.

    Args:
        session: the session.
        rules: the screen rules of its program.
        tell: told what is to be recorded.
        wall: the wall clock, by which tmux says when a client was active.
        most: bytes; a longer text goes as a file, with a line that says where.
        known: identities of what an earlier supervisor has seen it ask and that is not settled.
    """

    def __init__(
        self,
        session: TerminalSession,
        rules: Ruleset,
        tell: Callable[[Event], None],
        wall: Callable[[], float],
        most: int = AgentProfile.typed_max,
        known: Collection[str] = (),
    ) -> None:
        self.session = session
        self._session = session
        self.most = most
        """Bytes; a longer text goes as a file."""
        self.rules = rules
        self.tell = tell
        self.wall = wall
        self.picture: Picture | None = None
        self.verdict: Verdict | None = None
        self._ended = False
        self._changed = trio.Event()
        """Set, and replaced, with every look, and when somebody has typed."""
        self.typing = trio.Lock()
        """Held by who types: one text at a time."""
        self._ask: Ask | None = None
        """What it asks, as far as that is certain."""
        self._is_certain = False
        """Something was certain once: what it asks, or that it asks nothing."""
        self._dialogs = Dialogs(rules, wall, self._typed_at, known)
        self._looks = self._newest = 0
        """Looks that were begun, and the number of the newest one that counts."""
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
            self.has_changed()

    async def _watch(self) -> None:
        gap = 0
        before = await self.look()
        self._publish()
        stands_since = trio.current_time()
        while True:
            picture = self.picture
            assert picture is not None
            glance, due = self._glance(), self._dialogs.drawn_at
            if glance != self._told:
                if trio.current_time() >= stands_since + STANDS_AFTER:
                    self._tell_glance(glance)
                else:
                    due = min(due, stands_since + STANDS_AFTER)
            quiet = True
            with trio.move_on_at(due) as scope:
                seen = await self._session.wait_changed(picture.offset)
                quiet = await self._until_drawn(seen, BUSY_GAPS[gap])
            if scope.cancelled_caught and trio.current_time() < self._dialogs.drawn_at:
                continue
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
            now = self._session.output_now()
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
        self._looks += 1
        number = self._looks
        picture = await self._session.look(ansi=True)
        screen = screen_of(picture)
        verdict = detect(screen, self.rules)
        seen = await self._dialogs.recognise(picture, screen, verdict)
        # Looks are answered in the order in which they were made, but who has typed is asked after that.
        if number > self._newest:
            self._newest = number
            self.picture, self.verdict = picture, verdict
            self._dialogs.keep(seen, verdict, trio.current_time())
            self.has_changed()
        return verdict

    def _publish(self, *, answered: bool = False) -> None:
        """What was seen last counts for what is asked, unless it may be half drawn and nothing was answered."""
        if answered or not self._is_being_drawn():
            self._ask, self._is_certain = self._dialogs.tell(), True
            self.has_changed()

    def _is_being_drawn(self) -> bool:
        """Whether the dialog that was seen last may be half drawn."""
        return trio.current_time() < self._dialogs.drawn_at < math.inf

    def _glance(self) -> Glance:
        state = self.verdict.state.value if self.verdict is not None else ""
        note = self._waiting_for
        if self.verdict is not None and not note and self.verdict.reset:
            note = f"until {self.verdict.reset}"
        return Glance(state, note)

    def has_changed(self) -> None:
        """Have everybody look again who waits for a change."""
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def wait_look(self, until: float) -> None:
        """Wait for the next look, or until an instant of Trio's clock."""
        with trio.move_on_at(until):
            await self._changed.wait()

    async def wait_between_turns(self) -> None:
        """Wait until the screen has shown for a moment that no turn is under way, or it is seen no more.

        What cannot be read is not waited for. Cancellation: no effect.
        """
        while self.verdict is None and not self._ended:
            await self._changed.wait()
        over = False
        while not over:
            while self._is_in_turn():
                await self._changed.wait()
            with trio.move_on_after(0.0 if self._ended else STANDS_AFTER) as standing:
                # Between two steps of a turn, and half drawn, a screen may look idle.
                while not self._is_in_turn():
                    await self._changed.wait()
            over = standing.cancelled_caught

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
            if self._is_certain and (None if self._ask is None else self._ask.identity) != seen:
                return self._ask
            await self._changed.wait()

    async def answer(self, ask: Ask, answer: Answer) -> None:
        """Press the keys that give this answer, if the screen still asks for it; see `AskSource.answer`."""
        verdict = await self.look()
        self._require_asked(ask)
        typing = decide_typing(verdict, answer)
        # What is there now is what a dialog after the answer is compared with.
        self._publish()
        await self._press(typing.keys)
        if typing.text:
            await self._session.paste(typing.text)
            await self._until(lambda: self._screen_has(typing.text), "the answer was typed and is not seen")
            await trio.sleep(self.rules.layout.enter_gap)
            await self._session.press("Enter")
        # A dialog that may be half drawn tells neither that this one has gone nor what is asked next; a screen
        # that cannot be read, after an answer, tells the first.
        gone = "the dialog is still there after its answer"
        await self._until(
            lambda: not self._asks(ask) and (self._dialogs.ask is None or not self._is_being_drawn()), gone
        )
        self._publish(answered=True)

    def _asks(self, ask: Ask) -> bool:
        now = self._dialogs.ask
        return now is not None and now.identity == ask.identity

    def _require_asked(self, ask: Ask) -> None:
        if not self._asks(ask):
            raise StaleApprovalError("it is not on the screen any more")

    def _screen_has(self, text: str) -> bool:
        lines = screen_of(self.picture).lines if self.picture is not None else ()
        return "".join(text.split())[-40:] in "".join("".join(lines).split())

    async def _until(self, holds: Callable[[], bool], otherwise: str) -> None:
        begun = trio.current_time()
        give_up = begun + ANSWER_PATIENCE
        while True:
            await self.look()
            if holds():
                return
            now = trio.current_time()
            if self.picture is not None and self.picture.unread and now < begun + READ_PATIENCE:
                # On a busy machine it may not get round to what was typed for long.
                give_up = max(give_up, now + ANSWER_PATIENCE)
            if now >= give_up:
                raise SessionError(otherwise)
            await self.wait_look(min(give_up, now + 1.0))

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

    # --- who types ------------------------------------------------------------------

    async def is_attended(self) -> bool:
        """Whether somebody sits at it who may type.

        Raises:
            SessionError: the terminal cannot be asked.
        """
        return await self.is_person_active(math.inf)

    async def is_person_active(self, within: float) -> bool:
        """Whether somebody who may type has done so, or come, in the last seconds."""
        since = self.wall() - within
        return any(one.active_at >= since and not one.read_only for one in await self._session.clients())

    async def _typed_at(self) -> float:
        """When somebody typed last, or came, whoever it was."""
        came = [one.active_at for one in await self._session.clients() if not one.read_only]
        return max((self._session.typed_at, *came))

    def wait_for(self, why: str) -> None:
        """A text waits to be typed, and this is why; nothing: none waits."""
        self._waiting_for = f"a text waits to be typed: {why}" if why else ""
        glance = self._glance()
        # At once: who waits for it looks at the status now.
        if glance.note != self._told.note:
            self._tell_glance(glance)

    def _tell_glance(self, glance: Glance) -> None:
        self._told = glance
        self.tell(ev.ScreenSeen(self._session.spec.id, glance.state, glance.note))


def waits_for_person(rules: Ruleset, picture: Picture) -> bool | None:
    """Whether a screen waits for a person; None where it does not tell. See `ExecutionSession.has_updated`."""
    state = detect(screen_of(picture), rules).state
    if state is ScreenState.UNKNOWN:
        return None
    return state in (ScreenState.PERMISSION, ScreenState.QUESTION, ScreenState.DIALOG)


def screen_of(picture: Picture) -> Screen:
    """A picture as the rules look at it."""
    return Screen.from_text(
        picture.text,
        title=picture.title,
        cursor=Cursor(picture.cursor_y, picture.cursor_x, picture.cursor_visible),
        alternate=picture.alternate,
        dead=picture.dead,
        width=picture.width,
    )
