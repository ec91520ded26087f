"""The end of a turn, by the screen: an empty input that stands for a while, and nobody who sits at it."""

from __future__ import annotations

import math

import trio

from kasmos.screens import ScreenState, Verdict
from kasmos.supervision.terminal import Terminal, screen_of

UNSEEN_GRACE = 10.0
"""Seconds that count where the program was not seen at work: perhaps it has not begun yet."""
_BEGUN = (ScreenState.WORKING, ScreenState.PERMISSION, ScreenState.QUESTION)


async def wait_turn_over(terminal: Terminal, grace: float) -> None:
    """Wait until the turn is over that a prompt began which was seen to be taken.

    An error, a limit or a dialog is no end of it: there is something for a person to see to.

    Args:
        terminal: shows the program.
        grace: seconds in which the screen has to stay as it is.

    Raises:
        SessionError: the terminal cannot be asked.

    Cancellation: no effect.
    """
    shown, since = "", math.inf
    begun = False
    while True:
        begun = begun or (terminal.verdict is not None and terminal.verdict.state in _BEGUN)
        long_enough = grace if begun else max(grace, UNSEEN_GRACE)
        picture = terminal.picture
        text = "\n".join(screen_of(picture).lines) if picture is not None else ""
        if terminal.typing.locked():
            # What is typed, the reason for a no for instance, begins another turn.
            since, begun = math.inf, False
        elif not is_over(terminal.verdict):
            since = math.inf
        elif since == math.inf or text != shown:
            shown, since = text, trio.current_time()
        elif trio.current_time() >= since + long_enough:
            if not await terminal.is_attended():
                return
            # Whoever sits there may go on with it: once more after they have left.
            since = trio.current_time()
        await terminal.wait_look(since + long_enough)


def is_over(verdict: Verdict | None) -> bool:
    """Whether a program that has had a prompt waits for the next one, and nothing is typed yet."""
    if verdict is None or verdict.state is not ScreenState.READY:
        return False
    return verdict.composer is None or verdict.composer.draft is None
