"""What a terminal is taken to ask, look after look, by the clock."""

from __future__ import annotations

import bisect
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from kasmos.exceptions import SessionError
from kasmos.model.approval import ALLOW, Ask
from kasmos.model.event import Event, ScreenSeen
from kasmos.model.screen import AttachedClient, Picture
from kasmos.model.session import SessionSpec
from kasmos.screens.load import load_rules
from kasmos.supervision.dialogs import DRAWN_AFTER
from kasmos.supervision.terminal import Terminal
from kasmos.supervision.turn import UNSEEN_GRACE, wait_turn_over
from tests.unit.screenshots import text_of


def without(screen: str, words: str) -> str:
    """The screen without the lines that hold these words."""
    return "".join(line for line in screen.splitlines(keepends=True) if words not in line)


ASKS = text_of("opencode", "permission_bash-1")
FRAME = without(ASKS, "$ ")
"""The same dialog before its program knows which command it is for."""
WORKS = text_of("opencode", "working-1")
EDITS = text_of("codex", "permission_edit-1")
WORKING = text_of("codex", "working-1")
IDLE = text_of("codex", "finished-1")


@attrs.define
class Shown:
    """A session whose screen becomes another one at given instants."""

    screens: list[tuple[float, str]]
    """Seconds from the beginning, in order, and the text from then on."""
    begun: float = attrs.field(factory=trio.current_time)
    spec: SessionSpec = SessionSpec(id="s", name="s", argv=("a",), cwd="/")
    exit: None = None
    typed_at: float = 0.0
    pressed: bool = False
    read_at: float = 0.0
    """When what was typed has been read, in seconds from the beginning."""

    def output_now(self) -> int:
        """Counts the screens there have been."""
        return bisect.bisect([at for at, _ in self.screens], trio.current_time() - self.begun)

    async def wait_changed(self, offset: int) -> int:
        while self.output_now() <= offset:
            if offset >= len(self.screens):
                await trio.sleep_forever()
            await trio.sleep_until(self.begun + self.screens[offset][0])
        return self.output_now()

    async def look(self, *, ansi: bool = False) -> Picture:
        await trio.lowlevel.checkpoint()
        number = self.output_now()
        unread = int(self.pressed and trio.current_time() < self.begun + self.read_at)
        text = self.screens[number - 1][1]
        height = 14 if text.count("\n") == 13 else 40
        return Picture(text=text, width=120, height=height, offset=number, unread=unread)

    async def press(self, *keys: str) -> None:
        await trio.lowlevel.checkpoint()
        self.pressed = True

    async def clients(self) -> tuple[AttachedClient, ...]:
        await trio.lowlevel.checkpoint()
        return ()


@asynccontextmanager
async def watched(
    *screens: tuple[float, str],
    program: str = "opencode",
    read_at: float = 0.0,
    told: list[Event] | None = None,
    known: tuple[str, ...] = (),
) -> AsyncGenerator[Terminal, None]:
    """The terminal of a session that shows these screens, watched."""
    session = Shown(list(screens), read_at=read_at)
    tell = (told if told is not None else []).append
    terminal = Terminal(session, load_rules(program), tell, lambda: 0.0, known=known)  # type: ignore[arg-type]  # a fake
    async with trio.open_nursery() as nursery:
        nursery.start_soon(terminal.watch)
        yield terminal
        nursery.cancel_scope.cancel()


async def asked(*screens: tuple[float, str], program: str = "opencode") -> list[tuple[float, Ask | None]]:
    """What is told of a session that shows these screens, and when, in seconds from the first."""
    told: list[tuple[float, Ask | None]] = []
    begun = trio.current_time()
    async with watched(*screens, program=program) as terminal:
        with trio.move_on_after(60):
            seen: str | None = None
            while True:
                ask = await terminal.wait_ask(seen)
                told.append((trio.current_time() - begun, ask))
                seen = ask.identity if ask is not None else None
    return told


@pytest.mark.parametrize("after", [0.1, 0.9])
async def test_frame_before_its_command(autojump_clock: trio.testing.MockClock, after: float) -> None:
    """A dialog whose frame is drawn before its command is told once, with the command."""
    ((at, ask),) = await asked((0.0, WORKS), (5.0, FRAME), (5.0 + after, ASKS))
    assert at >= 5.0 + after
    assert ask is not None
    assert ask.command


async def test_next_frame(autojump_clock: trio.testing.MockClock) -> None:
    """The dialog after the one that was answered is told when its command is drawn, and never as a bare frame."""
    other = ASKS.replace("$ ", "$ sudo ")
    told = await asked((0.0, ASKS), (5.0, FRAME), (5.5, other))
    commands = [ask.command if ask is not None else None for _, ask in told]
    assert len(commands) == 2
    assert commands[1] == f"sudo {commands[0]}"


@pytest.mark.parametrize("after", [0.2, 0.9])
async def test_frame_after_an_answer(autojump_clock: trio.testing.MockClock, after: float) -> None:
    """What was answered is not asked once more while the frame of the next dialog stands there, and no file in it."""
    frame, other = without(EDITS, "Destination:"), EDITS.replace("f.txt", "g.txt")
    async with watched((0.0, EDITS), (5.0, frame), (5.0 + after, other), program="codex") as terminal:
        first = await terminal.wait_ask(None)
        assert first is not None
        await trio.sleep(4.9)
        await terminal.answer(first, ALLOW)
        second = await terminal.wait_ask(None)
        assert second is not None
        assert second.path == first.path.replace("f.txt", "g.txt")


async def test_taken_away_line_by_line(autojump_clock: trio.testing.MockClock) -> None:
    """What is left of a dialog while its program takes it away is not the next one."""
    left = without(EDITS, "Would you like")
    gone = without(left, "Description:")
    (_, ask), (at, nothing) = await asked((0.0, EDITS), (5.0, left), (5.1, gone), (5.2, WORKING), program="codex")
    assert ask is not None
    assert nothing is None
    assert at >= 5.2


async def test_drawn_anew_line_by_line(autojump_clock: trio.testing.MockClock) -> None:
    """A dialog of which a part is missing for a moment is the same one; without it for good it is another one."""
    left = without(EDITS, "Would you like")
    assert len(await asked((0.0, EDITS), (5.0, left), (5.5, EDITS), program="codex")) == 1
    assert len(await asked((0.0, EDITS), (5.0, left), program="codex")) == 2


async def test_redrawn(autojump_clock: trio.testing.MockClock) -> None:
    """A dialog that is drawn anew, frame first, is the same one."""
    assert len(await asked((0.0, ASKS), (5.0, FRAME), (5.5, ASKS))) == 1


async def test_nothing_but_a_frame(autojump_clock: trio.testing.MockClock) -> None:
    """A dialog that names no command and no file is told when it has stood for a moment, and gone when it has gone."""
    (at, ask), (gone_at, gone) = await asked((0.0, WORKS), (5.0, FRAME), (20.0, WORKS))
    assert ask is not None
    assert not ask.command
    assert at >= 5.0 + DRAWN_AFTER
    assert gone is None
    assert gone_at >= 20.0


async def test_one_half_drawn_after_the_other(autojump_clock: trio.testing.MockClock) -> None:
    """Each thing that may be half drawn has its own second: the frame of the next dialog none of the one before."""
    other = ASKS.replace("$ ", "$ sudo ")
    told = await asked((0.0, ASKS), (5.0, "\n"), (5.9, FRAME), (6.6, other))
    assert len([ask for _, ask in told if ask is not None]) == 2
    assert all(ask is None or ask.command for _, ask in told)


async def test_the_same_once_more(autojump_clock: trio.testing.MockClock) -> None:
    """A dialog like one that was seen to be gone is told at once."""
    told = await asked((0.0, ASKS), (5.0, WORKS), (9.0, ASKS))
    assert [ask is None for _, ask in told] == [False, True, False]
    assert told[-1][0] < 9.5


async def test_first_sight_is_half_drawn(autojump_clock: trio.testing.MockClock) -> None:
    """What an earlier supervisor has seen asked is not withdrawn for a first sight that is half drawn."""
    ((_, ask),) = await asked((0.0, ASKS))
    assert ask is not None
    async with watched((0.0, FRAME), (0.5, ASKS), known=(ask.identity,)) as terminal:
        again = await terminal.wait_ask("")
        assert again is not None
        assert again.identity == ask.identity


async def test_state_of_a_moment(autojump_clock: trio.testing.MockClock) -> None:
    """A state that a screen shows for a moment is not told, whatever else was due just then."""
    told: list[Event] = []
    async with watched((0.0, WORKS), (5.0, FRAME), (6.015, "\n"), (6.1, FRAME), told=told):
        await trio.sleep(30.0)
    assert "unknown" not in [event.screen for event in told if isinstance(event, ScreenSeen)]


async def test_frame_that_goes(autojump_clock: trio.testing.MockClock) -> None:
    """The frame of a dialog that goes before anything was in it was never asked."""
    assert await asked((0.0, WORKS), (5.0, FRAME), (5.5, WORKS)) == []


@pytest.mark.parametrize("cut", ["\n", "\n".join(EDITS.replace("patch/f.txt", "pat").splitlines()[-14:])])
async def test_being_drawn_anew(autojump_clock: trio.testing.MockClock, cut: str) -> None:
    """A dialog that its program is slow to draw anew, in the same size or in another one, is the same."""
    assert len(await asked((0.0, EDITS), (5.0, cut), (5.7, EDITS), program="codex")) == 1


async def test_answer_is_read_late(autojump_clock: trio.testing.MockClock) -> None:
    """An answer that a busy program has not read yet is not taken for one that did nothing, within a bound."""
    async with watched((0.0, EDITS), (20.0, WORKING), program="codex", read_at=19.0) as terminal:
        ask = await terminal.wait_ask(None)
        assert ask is not None
        await terminal.answer(ask, ALLOW)
        assert trio.current_time() >= 20.0
        assert await terminal.wait_ask(ask.identity) is None
    async with watched((0.0, EDITS), (32.0, WORKING), program="codex", read_at=29.0) as terminal:
        ask = await terminal.wait_ask(None)
        assert ask is not None
        await terminal.answer(ask, ALLOW)
    async with watched((0.0, EDITS), program="codex", read_at=1000.0) as terminal:
        ask = await terminal.wait_ask(None)
        assert ask is not None
        with pytest.raises(SessionError, match="still there"):
            await terminal.answer(ask, ALLOW)


async def test_turn_that_looks_over(autojump_clock: trio.testing.MockClock) -> None:
    """A turn is over when the screen has shown so for a moment, not when it is half drawn just as somebody asks."""
    async with watched((0.0, WORKING), (5.0, "\n"), (5.4, WORKING), (20.0, IDLE), program="codex") as terminal:
        await trio.sleep(5.2)
        await terminal.wait_between_turns()
        assert trio.current_time() >= 20.0


async def test_typing_begins_a_turn(autojump_clock: trio.testing.MockClock) -> None:
    """A turn is not over while a text is typed, however long its program takes to show it; then another one begins."""
    async with watched((0.0, WORKING), (5.0, IDLE), program="codex") as terminal:
        await trio.sleep(6.0)

        async def type_slowly() -> None:
            async with terminal.typing:
                await trio.sleep(24.0)
            terminal.has_changed()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(type_slowly)
            await trio.sleep(0.0)
            await wait_turn_over(terminal, grace=3.0)
        assert trio.current_time() >= 30.0 + UNSEEN_GRACE
