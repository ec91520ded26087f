"""What a terminal is taken to ask, look after look, by the clock."""

from __future__ import annotations

import bisect

import attrs
import pytest
import trio
import trio.testing

from kasmos.model.approval import Ask
from kasmos.model.screen import AttachedClient, Picture
from kasmos.model.session import SessionSpec
from kasmos.screens.load import load_rules
from kasmos.supervision.dialogs import DRAWN_AFTER
from kasmos.supervision.terminal import Terminal
from tests.unit.screenshots import text_of

ASKS = text_of("opencode", "permission_bash-1")
FRAME = "".join(line for line in ASKS.splitlines(keepends=True) if "$ " not in line)
"""The same dialog before its program knows which command it is for."""
WORKS = text_of("opencode", "working-1")


@attrs.define
class Shown:
    """A session whose screen becomes another one at given instants."""

    screens: list[tuple[float, str]]
    """Seconds from the beginning, in order, and the text from then on."""
    begun: float = attrs.field(factory=trio.current_time)
    spec: SessionSpec = SessionSpec(id="s", name="s", argv=("a",), cwd="/")
    exit: None = None
    typed_at: float = 0.0

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
        return Picture(text=self.screens[number - 1][1], width=120, height=40, offset=number)

    async def clients(self) -> tuple[AttachedClient, ...]:
        await trio.lowlevel.checkpoint()
        return ()


async def asked(*screens: tuple[float, str]) -> list[tuple[float, Ask | None]]:
    """What is told of a session that shows these screens, and when, in seconds from the first."""
    session = Shown(list(screens))
    terminal = Terminal(session, load_rules("opencode"), lambda event: None, lambda: 0.0)  # type: ignore[arg-type]  # a fake
    told: list[tuple[float, Ask | None]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(terminal.watch)
        with trio.move_on_after(60):
            seen: str | None = None
            while True:
                ask = await terminal.wait_ask(seen)
                told.append((trio.current_time() - session.begun, ask))
                seen = ask.identity if ask is not None else None
        nursery.cancel_scope.cancel()
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


async def test_frame_that_goes(autojump_clock: trio.testing.MockClock) -> None:
    """The frame of a dialog that goes before anything was in it was never asked."""
    assert await asked((0.0, WORKS), (5.0, FRAME), (5.5, WORKS)) == []
