"""Outcomes and causes: how a task or a run ended, and why."""

from __future__ import annotations

import enum

from kasmos.model.session import ExitStatus
from kasmos.model.usage import FailureKind
from kasmos.model.value import frozen


class Outcome(enum.StrEnum):
    """How a task or a run ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    LOST = "lost"


class CauseKind(enum.StrEnum):
    """Why a task ended as it did. Stable words, for programs."""

    DONE = "done"
    EXIT = "exit"
    """The program exited with a code other than 0, or by a signal."""
    CHECK = "check"
    """The program exited 0 and a check did not."""
    TIMEOUT = "timeout"
    START = "start"
    """The program could not be started."""
    LOST = "lost"
    STOPPED = "stopped"
    """A person stopped it."""
    RUN_CANCELLED = "run_cancelled"
    FAIL_FAST = "fail_fast"
    """Stopped because a sibling failed."""
    NEED_FAILED = "need_failed"
    """Skipped because a task it needs did not succeed."""
    WAVE_FAILED = "wave_failed"
    """Skipped because an earlier wave had a failure."""
    UNANSWERED = "unanswered"
    """It waited for a person for longer than `approval_timeout`, and was stopped."""
    BUDGET = "budget"
    """What it, its run, agent or account may spend is spent."""
    ACCOUNT = "account"
    """Its account cannot be used until a person has seen to it."""
    AGENT = "agent"
    """Its program said that it did not succeed, whatever it exited with."""
    UNDELIVERED = "undelivered"
    """Its prompt could not be typed, and it was stopped."""
    CONFIG = "config"
    """The task cannot be run with the present configuration."""
    INTERNAL = "internal"
    """A bug of kasmos."""


@frozen
class Cause:
    """Why something ended: one word for programs, one sentence for people, and the evidence."""

    kind: CauseKind
    message: str
    session_id: str | None = None
    exit: ExitStatus | None = None
    because_of: tuple[str, ...] = ()
    """Ids of the tasks whose end led to this."""
    tail: str = ""
    """The last lines of the output, decoded with replacement."""
    failure: FailureKind | None = None
    """What kind of failure the program met with, where it is understood."""

    def after(self, word: str) -> str:
        """The message behind the word for an outcome, such as `lost`: what that has said already is not said again."""
        said = self.message == word or self.message.startswith((f"{word}:", f"{word} "))
        return self.message if said else f"{word}: {self.message}"
