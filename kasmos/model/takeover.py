"""A headless task whose conversation a person takes over, and hands back. Values."""

from __future__ import annotations

import enum

from kasmos.model.value import frozen


class TakeoverPhase(enum.StrEnum):
    """How far a takeover is."""

    REQUESTED = "requested"
    """It comes to pass when the program has ended its turn."""
    ATTENDED = "attended"
    """The conversation is open in a terminal, or is about to be, for a person."""
    HANDED_BACK = "handed_back"
    """The terminal's program is leaving; the task goes on without a person."""


@frozen
class HandBack:
    """How a conversation is given back."""

    prompt: str = ""
    """What the program is told then; empty is that it should go on."""
    done: bool = False
    """The person has said that nothing is left to be done: no program is started any more."""
    now: bool = False
    """A turn that is under way in the terminal is not waited for."""
    who: str = ""
    reason: str = ""
    """Why, where it was no person who gave it back."""


@frozen
class Takeover:
    """A person has a task's conversation, or is to have it."""

    conversation: str
    """By the program's own id."""
    since_at: float
    since_mono: float
    who: str = ""
    now: bool = False
    """The headless turn is interrupted for it, instead of waited for."""
    opened: bool = False
    """Whether it has been open in a terminal."""
    back: HandBack | None = None

    @property
    def phase(self) -> TakeoverPhase:
        """How far it is."""
        if self.back is not None:
            return TakeoverPhase.HANDED_BACK
        return TakeoverPhase.ATTENDED if self.opened else TakeoverPhase.REQUESTED
