"""How what a session writes is understood: by its program's harness, or, for scripts, by the lines they tell."""

from __future__ import annotations

from typing import Protocol

from kasmos.harnesses.conclusion import Conclusion
from kasmos.model.session import ExitStatus
from kasmos.model.task import Outcome
from kasmos.model.told import Told, parse_told
from kasmos.model.usage import Failure, FailureKind, Usage
from kasmos.model.value import frozen


@frozen
class Reading:
    """What a session has used so far, by its own word."""

    usage: Usage = Usage()
    turns: int = 0
    conversation: str = ""
    """The program's own id of the conversation, once it has told it."""
    model: str = ""
    """The model, once the program has told it."""


class Hearing(Protocol):
    """**Protocol.** Understands what one session writes."""

    def feed(self, data: bytes) -> None:
        """Take the next piece of the output."""

    @property
    def reading(self) -> Reading:
        """What has been used by what was fed."""

    @property
    def said_done(self) -> bool:
        """Whether the program has said that it is done, and nothing has gone on since."""

    @property
    def said(self) -> str | None:
        """What it says or does now, in a line; None where that is not to be had."""

    @property
    def at_tool(self) -> float | None:
        """Since when it uses a tool, wall clock; `inf` while it uses none, None where that is not to be had."""

    @property
    def silent(self) -> bool:
        """Whether nothing was told, and nothing need have been: then nothing is recorded."""

    def conclude(self, status: ExitStatus) -> Conclusion | None:
        """Judge the whole; None where only the exit status counts. May be called once."""


class ToldLines:
    """The lines that scripts tell; see `kasmos.model.told`."""

    def __init__(self) -> None:
        self._rest = b""
        self._told = Told()

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            told = parse_told(line)
            if told is not None:
                known = self._told
                self._told = Told(
                    told.usage or known.usage, max(told.turns, known.turns), told.failure or known.failure
                )

    @property
    def reading(self) -> Reading:
        """What has been used so far."""
        return Reading(self._told.usage or Usage(), self._told.turns)

    @property
    def said_done(self) -> bool:
        """Never: a script is done when it ends."""
        return False

    @property
    def at_tool(self) -> None:
        """Nothing is known of what a script does."""

    @property
    def said(self) -> None:
        """Nothing: what a script writes is for people as it is."""

    @property
    def silent(self) -> bool:
        """Whether the script tells nothing: then it is a program like any other."""
        return self._told == Told()

    def conclude(self, status: ExitStatus) -> Conclusion | None:
        """What it told, else its exit."""
        if self.silent:
            return None
        failure = self._told.failure
        if failure is None and not status.succeeded:
            failure = Failure(FailureKind.UNKNOWN, str(status))
        outcome = Outcome.SUCCEEDED if failure is None else Outcome.FAILED
        return Conclusion(outcome, failure, self._told.usage or Usage())
