"""What is to be done after a failure: pure, so that supervision and people see the same reasons."""

from __future__ import annotations

import enum

from kasmos.harnesses.conclusion import Failure, FailureKind
from kasmos.model.value import frozen

BACKOFF = 5.0
"""Seconds before the first try after a failure that is nobody's fault."""
BACKOFF_MAX = 600.0
LIMIT_WAIT = 60.0
"""Seconds after a rate limit whose end is not told."""
QUOTA_WAIT = 3600.0
"""Seconds after which an account is tried again whose reset is not told."""


class Step(enum.StrEnum):
    """What to do next."""

    RETRY = "retry"
    """Try this task again, after a wait."""
    PARK = "park"
    """Start nothing on this account for a while; then try again. It does not count as a try."""
    ASK = "ask"
    """Start nothing on this account until a person has said so."""
    GIVE_UP = "give_up"
    """Trying again would end alike."""
    AS_USUAL = "as_usual"
    """The kind says nothing: the task's own policy decides."""


@frozen
class Aftermath:
    """A decision and its reason."""

    step: Step
    wait: float = 0.0
    """Seconds, for `retry` and `park`."""
    reason: str = ""


def decide_after_failure(failure: Failure, *, attempt: int, now: float) -> Aftermath:
    """Decide what follows a failure.

    Args:
        failure: of the attempt that ended.
        attempt: how many attempts in a row have failed alike, this one included; from 1.
        now: wall clock.
    """
    kind = failure.kind
    if kind is FailureKind.AUTH:
        return Aftermath(Step.ASK, reason="the account is not logged in, or its key is refused")
    if kind is FailureKind.QUOTA:
        wait = _told(failure, now)
        known = " until its reset" if wait is not None else "; its reset is not told, so it is tried now and then"
        return Aftermath(Step.PARK, QUOTA_WAIT if wait is None else wait, f"the account's quota is used up{known}")
    if kind is FailureKind.RATE_LIMIT:
        wait = _told(failure, now)
        fallback = min(LIMIT_WAIT * 2 ** min(attempt - 1, 10), BACKOFF_MAX)
        return Aftermath(Step.PARK, fallback if wait is None else wait, "the account sends too much at once")
    if kind in (FailureKind.OVERLOADED, FailureKind.NETWORK):
        wait = _told(failure, now)
        backoff = min(BACKOFF * 2 ** min(attempt - 1, 10), BACKOFF_MAX)
        return Aftermath(Step.RETRY, backoff if wait is None else max(wait, backoff), "it may pass by itself")
    if kind in _HOPELESS:
        return Aftermath(Step.GIVE_UP, reason=_HOPELESS[kind])
    return Aftermath(Step.AS_USUAL)


_HOPELESS = {
    FailureKind.CONTEXT_TOO_LONG: "the same prompt would be too long again",
    FailureKind.REFUSED: "the same request would be declined again",
    FailureKind.TOOL_DENIED: "the same permissions would deny the tool again",
    FailureKind.BUDGET: "the budget is spent",
    FailureKind.MAX_TURNS: "the same limit of turns would be reached again",
}


def _told(failure: Failure, now: float) -> float | None:
    if failure.reset_at is not None:
        return max(failure.reset_at - now, 0.0)
    return failure.retry_after
