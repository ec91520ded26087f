"""Typing into terminals, by the clock: when an unknown program is taken to wait, and when an answer is read."""

from __future__ import annotations

import attrs
import trio
import trio.testing

from kasmos.model.approval import Answer, AnswerKind
from kasmos.model.screen import AttachedClient, Picture
from kasmos.model.session import SessionSpec
from kasmos.screens import ScreenState, Verdict
from kasmos.screens.load import load_rules
from kasmos.supervision.asking import ask_of
from kasmos.supervision.delivery import Order
from kasmos.supervision.terminal import Terminal
from kasmos.supervision.typist import REST_PATIENCE, Typist
from tests.unit.screenshots import text_of


@attrs.define
class Restless:
    """The session and terminal of a program that writes all the time, and asks something from *asks* to *answered*."""

    spec: SessionSpec
    asks: float
    answered: float
    typed_at: float | None = None
    picture: Picture | None = None
    typing: trio.Lock = attrs.field(factory=trio.Lock)
    most: int = 1000

    @property
    def session(self) -> Restless:
        return self

    async def look(self) -> Verdict:
        await trio.lowlevel.checkpoint()
        self.picture = Picture(text="tick", width=80, height=24)
        asks = self.asks <= trio.current_time() < self.answered
        return Verdict(ScreenState.QUESTION if asks else ScreenState.UNKNOWN, "rule")

    async def wait_changed(self, offset: int) -> int:
        await trio.sleep(0.3)
        return offset + 1

    async def wait_look(self, until: float) -> None:
        await trio.sleep_until(until)

    def wait_for(self, why: str) -> None:
        """Told why a text waits."""

    def has_changed(self) -> None:
        """Told when somebody has typed."""

    async def is_person_active(self, within: float) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    async def paste(self, text: str) -> None:
        await trio.lowlevel.checkpoint()
        self.typed_at = trio.current_time()


async def test_question_of_one_that_never_rests(autojump_clock: trio.testing.MockClock) -> None:
    """A program that never rests is typed into all the same, but not when it has come to a question by then."""
    spec, begun = SessionSpec(id="s", name="s", argv=("a",), cwd="/"), trio.current_time()
    program = Restless(spec, begun + REST_PATIENCE + 0.3, begun + REST_PATIENCE + 30.0)
    await Typist(program).type_blind(Order("words", submit=False, patience=1e9))  # type: ignore[arg-type]  # a fake
    assert program.typed_at is not None
    assert program.typed_at >= program.answered


READ_AFTER = 2.0


@attrs.define
class Slow:
    """A session that asks, reads the answer late, and has something else added above its dialog meanwhile."""

    spec: SessionSpec
    pressed: list[str] = attrs.field(factory=list)
    pressed_at: float = float("inf")
    typed_at: float = 0.0

    async def clients(self) -> tuple[AttachedClient, ...]:
        await trio.lowlevel.checkpoint()
        return ()

    async def look(self, *, ansi: bool = False) -> Picture:
        await trio.lowlevel.checkpoint()
        asks, now = text_of("claude", "permission_bash-1"), trio.current_time()
        if now < self.pressed_at:
            return Picture(text=asks, width=200, height=50)
        if now < self.pressed_at + READ_AFTER:
            return Picture(text=f"● Another agent has ended\n{asks}", width=200, height=50, unread=1)
        return Picture(text=text_of("claude", "working-1"), width=200, height=50)

    async def press(self, *keys: str) -> None:
        await trio.lowlevel.checkpoint()
        self.pressed += keys
        self.pressed_at = trio.current_time()


async def test_answer_that_is_not_read(autojump_clock: trio.testing.MockClock) -> None:
    """A dialog whose answer the program has not read is not the next one, whatever else is drawn."""
    session = Slow(SessionSpec(id="s", name="s", argv=("a",), cwd="/"))
    terminal = Terminal(session, load_rules("claude"), lambda event: None, lambda: 0.0)  # type: ignore[arg-type]  # a fake
    ask = ask_of(await terminal.look())
    assert ask is not None
    await terminal.answer(ask, Answer(AnswerKind.ALLOW_ONCE))
    assert trio.current_time() >= session.pressed_at + READ_AFTER
    assert ask_of(terminal.verdict) is None
