"""The word that a task is to stop: given once, heard at every moment of its life."""

from __future__ import annotations

import attrs
import trio

from kasmos.model.session import StopReason
from kasmos.model.task import Cause, CauseKind

STOP_CAUSES = {
    StopReason.REQUESTED: Cause(CauseKind.STOPPED, "stopped by request"),
    StopReason.CANCELLED: Cause(CauseKind.RUN_CANCELLED, "its run was ended"),
    StopReason.FAIL_FAST: Cause(CauseKind.FAIL_FAST, "stopped because another task of the run failed"),
    StopReason.UNANSWERED: Cause(CauseKind.UNANSWERED, "nobody answered what it asked"),
    StopReason.UNDELIVERED: Cause(CauseKind.UNDELIVERED, "its prompt could not be typed"),
    StopReason.BUDGET: Cause(CauseKind.BUDGET, "stopped because its budget was spent"),
}
"""What a task ends with that was stopped before, or between, its sessions."""


class StopOrder:
    """The order of one task, from its child's first moment to its last."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        """Why the task is to stop; None as long as it may go on."""
        self.cause: Cause | None = None
        """What whoever gave the order knows of it."""
        self.given = trio.Event()
        self.hurry = trio.Event()
        """Set when the stop is to have no grace."""
        self.interrupts: trio.CancelScope | None = None
        """Cancelled when the order is given: the start of a session, or the wait for its end."""

    def give(self, reason: StopReason, cause: Cause | None = None) -> None:
        """Give the order; the first reason counts. Never blocks."""
        if self.reason is None:
            self.reason, self.cause = reason, cause
            self.given.set()
            if self.interrupts is not None:
                self.interrupts.cancel()

    def explain(self, cause: Cause) -> Cause:
        """A cause of the task's end, with what only the giver of the order knows."""
        if self.cause is None or self.cause.kind is not cause.kind:
            return cause
        # Only who asked for the stop knows which task's end led to it, and which budget it was.
        message = self.cause.message if cause.kind is CauseKind.BUDGET else cause.message
        return attrs.evolve(cause, because_of=self.cause.because_of, message=message)

    def end_cause(self, reason: StopReason) -> Cause:
        """What a task ends with that was stopped for that reason while no session of it ran."""
        return self.cause or STOP_CAUSES.get(reason) or Cause(CauseKind.STOPPED, "stopped")
