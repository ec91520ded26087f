"""Whether a failed attempt is followed by another, and when. Pure.

Knows durations and counts only: nothing of sessions, tasks or causes. Instants are
monotonic; chance comes in as an argument.
"""

from __future__ import annotations

from itertools import pairwise

from kasmos.model.profile import RestartCondition, RestartPolicy
from kasmos.model.value import frozen


@frozen
class Verdict:
    """The answer to a failed attempt, with its reason in words."""

    again: bool
    """Whether another attempt follows."""
    delay: float
    """Seconds until then; 0 when none follows."""
    reason: str
    """For people, such as `attempt 3 of 3`."""


def decide_restart(
    policy: RestartPolicy,
    *,
    retries: int,
    failures: tuple[float, ...],
    ran_for: float,
    now: float,
    rand: float,
) -> Verdict:
    """Decide what follows an attempt that has just failed.

    In a plan `always` means the same as `on_failure`: a task that has succeeded has ended.

    Args:
        policy: the profile's restart policy.
        retries: attempts allowed after the first.
        failures: monotonic instants of the earlier failed attempts, oldest first, without the present one.
        ran_for: seconds that the present attempt ran.
        now: the present monotonic instant.
        rand: a random number from 0 to below 1, which places the delay within the jitter.
    """
    if policy.condition is RestartCondition.NEVER:
        return Verdict(again=False, delay=0.0, reason="the restart policy is never")
    if len(failures) >= retries:
        return Verdict(again=False, delay=0.0, reason=f"attempt {len(failures) + 1} of {max(retries, 0) + 1}")
    # Each earlier failure was followed by a restart. An instant after now is of another boot, its age unknown:
    # it is not held against the task, which stays bounded by its retries.
    recent = sum(1 for instant in failures if 0 <= now - instant < policy.within)
    if recent >= policy.max_restarts:
        return Verdict(again=False, delay=0.0, reason=f"restart intensity reached: {recent} in {policy.within:g} s")
    delay = backoff_delay(policy, _streak(policy, failures, ran_for))
    spread = 1.0 + policy.jitter * (2.0 * rand - 1.0)
    return Verdict(
        again=True,
        delay=max(0.0, delay * spread),
        reason=f"attempt {len(failures) + 1} of {retries + 1}",
    )


def backoff_delay(policy: RestartPolicy, streak: int) -> float:
    """The delay before jitter after *streak* earlier failures in a row, in seconds."""
    # The exponent is bounded because 2.0**1024 raises; by then every sensible back-off is at its cap.
    return min(policy.backoff * 2.0 ** min(streak, 1000), policy.backoff_max)


def _streak(policy: RestartPolicy, failures: tuple[float, ...], ran_for: float) -> int:
    """How many failures in a row went before the present one, since the last quiet period."""
    if not failures or ran_for >= policy.quiet_period:
        return 0
    streak = 0
    for earlier, later in pairwise(failures):
        # How long that attempt ran is not recorded, but its delay was at most this, and the rest of the gap is its own.
        longest_delay = backoff_delay(policy, streak) * (1.0 + policy.jitter)
        streak = 0 if later - earlier - longest_delay >= policy.quiet_period else streak + 1
    return streak + 1
