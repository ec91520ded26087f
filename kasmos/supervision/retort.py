"""A no at a terminal, and why: no program's dialog has a place for a reason, so it is typed into the input after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kasmos.exceptions import DeliveryError, SessionClosedError, SessionError
from kasmos.model import event as ev
from kasmos.model.approval import Answer, AnswerKind, Ask

if TYPE_CHECKING:
    from kasmos.supervision.terminal import Terminal

INPUT_PATIENCE = 30.0
"""Seconds in which a program has to take a text again after a no: those that end their turn with it do so at
once, if the machine has time for them."""


class Retort:
    """A terminal as a source of asks whose program is also told why a person said no; see `AskSource`."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    async def wait_ask(self, seen: str | None) -> Ask | None:
        """See `AskSource.wait_ask`."""
        return await self._terminal.wait_ask(seen)

    async def answer(self, ask: Ask, answer: Answer) -> None:
        """Give the answer, and the reason after it; a reason that could not be typed is told, and no reason to fail."""
        await self._terminal.answer(ask, answer)
        if answer.kind is not AnswerKind.DENY or not answer.own_words:
            return
        # Late: without a terminal there is none of this (`kasmos.serve.later`).
        from kasmos.supervision.delivery import Order
        from kasmos.supervision.typist import Typist

        text = f"The answer was no: {answer.text}"
        try:
            await Typist(self._terminal).deliver(Order(text, patience=INPUT_PATIENCE, yields=True))
        except (DeliveryError, SessionClosedError):
            return  # told by who typed, or by the end
        except SessionError as error:
            self._terminal.tell(_untold(self._terminal, str(error)))


def _untold(terminal: Terminal, why: str) -> ev.DeliveryFailed:
    return ev.DeliveryFailed(terminal.session.spec.id, f"the reason for a no was not told: {why}", "", prompt=False)
