"""Failed attempts are followed by others only within their bounds, later and later."""

from __future__ import annotations

import math
from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.model.profile import RestartCondition, RestartPolicy
from kasmos.supervision.restart import Verdict, backoff_delay, decide_restart
from tests import strategies

EVEN = RestartPolicy(backoff=1.0, backoff_max=60.0, jitter=0.0, quiet_period=60.0, max_restarts=100)

instants = st.lists(st.floats(0, 1e9), max_size=12).map(lambda found: tuple(sorted(found)))
fractions = st.floats(0, 1, exclude_max=True)


def decide(
    policy: RestartPolicy = EVEN,
    *,
    retries: int = 100,
    failures: tuple[float, ...] = (),
    ran_for: float = 0.0,
    now: float = 10_000.0,
    rand: float = 0.5,
) -> Verdict:
    return decide_restart(policy, retries=retries, failures=failures, ran_for=ran_for, now=now, rand=rand)


@pytest.mark.parametrize("condition", [RestartCondition.ON_FAILURE, RestartCondition.ALWAYS])
def test_restart_after_first_failure(condition: RestartCondition) -> None:
    """The first failure is followed by another attempt after the policy's back-off, whether on failure or always."""
    verdict = decide(attrs.evolve(EVEN, condition=condition), retries=2)
    assert verdict == Verdict(again=True, delay=1.0, reason="attempt 1 of 3")


def test_restart_never() -> None:
    """Where the policy is never, no attempt follows, whatever retries are left."""
    verdict = decide(attrs.evolve(EVEN, condition=RestartCondition.NEVER))
    assert verdict == Verdict(again=False, delay=0.0, reason="the restart policy is never")


@pytest.mark.parametrize(
    ("retries", "failures", "again", "reason"),
    [
        (0, (), False, "attempt 1 of 1"),
        (1, (), True, "attempt 1 of 2"),
        (1, (1.0,), False, "attempt 2 of 2"),
        (2, (1.0, 2.0), False, "attempt 3 of 3"),
        (2, (1.0, 2.0, 3.0), False, "attempt 4 of 3"),
    ],
)
def test_restart_retries(retries: int, failures: tuple[float, ...], again: bool, reason: str) -> None:
    """There are as many attempts after the first as there are retries."""
    verdict = decide(retries=retries, failures=failures)
    assert (verdict.again, verdict.reason) == (again, reason)


def test_restart_intensity_reached() -> None:
    """More restarts than allowed within the time end the attempts, though retries are left."""
    policy = attrs.evolve(EVEN, max_restarts=2, within=600.0)
    verdict = decide(policy, failures=(9_500.0, 9_900.0))
    assert verdict == Verdict(again=False, delay=0.0, reason="restart intensity reached: 2 in 600 s")


@pytest.mark.parametrize("failures", [(9_400.0, 9_900.0), (9_900.0,), (9_900.0, 10_001.0)])
def test_restart_intensity_forgets(failures: tuple[float, ...]) -> None:
    """Restarts longer ago than the time, or of another boot, do not count towards the intensity."""
    assert decide(attrs.evolve(EVEN, max_restarts=2, within=600.0), failures=failures).again


@pytest.mark.parametrize(
    ("failures", "ran_for", "delay"),
    [
        pytest.param((), 0.0, 1.0, id="first"),
        pytest.param((0.0,), 0.0, 2.0, id="second"),
        pytest.param((0.0, 1.0, 3.0), 0.0, 8.0, id="fourth"),
        pytest.param((0.0, 1.0, 3.0), 59.9, 8.0, id="ran, but not for long"),
        pytest.param((0.0, 1.0, 3.0), 60.0, 1.0, id="ran for the quiet period"),
        pytest.param(tuple(map(float, range(20))), 0.0, 60.0, id="at the cap"),
        # Between 0 and 61 lies a back-off of 1 and a run of 60 s: the second failure is a first one again.
        pytest.param((0.0, 61.0), 0.0, 2.0, id="an earlier attempt ran for the quiet period"),
        pytest.param((0.0, 60.9), 0.0, 4.0, id="an earlier attempt did not"),
        pytest.param((500.0, 3.0), 0.0, 4.0, id="instants of two boots"),
    ],
)
def test_restart_delay(failures: tuple[float, ...], ran_for: float, delay: float) -> None:
    """The delay doubles with each failure in a row, up to its cap, and starts anew after a quiet period only."""
    assert decide(failures=failures, ran_for=ran_for).delay == delay


@pytest.mark.parametrize(("rand", "delay"), [(0.0, 7.5), (0.5, 10.0), (0.75, 11.25)])
def test_restart_jitter(rand: float, delay: float) -> None:
    """Chance spreads the delay evenly to both sides, so that what failed together does not return together."""
    assert decide(attrs.evolve(EVEN, backoff=10.0, jitter=0.25), rand=rand).delay == delay


@given(strategies.restart_policies, st.integers(0, 20), instants, st.floats(0, 1e6), st.floats(0, 1e9), fractions)
def test_restart_bounds(
    policy: RestartPolicy, retries: int, failures: tuple[float, ...], ran_for: float, now: float, rand: float
) -> None:
    """Whatever has happened, a verdict keeps to the policy's bounds and has a reason."""
    verdict = decide_restart(policy, retries=retries, failures=failures, ran_for=ran_for, now=now, rand=rand)
    assert verdict.reason
    assert math.isfinite(verdict.delay)
    if not verdict.again:
        assert verdict.delay == 0
        return
    assert policy.condition is not RestartCondition.NEVER
    assert len(failures) < retries
    assert sum(0 <= now - failure < policy.within for failure in failures) < policy.max_restarts
    least = min(policy.backoff, policy.backoff_max) * (1 - policy.jitter)
    assert least * (1 - 1e-9) <= verdict.delay <= policy.backoff_max * (1 + policy.jitter)


@given(strategies.restart_policies)
def test_backoff_delay_grows(policy: RestartPolicy) -> None:
    """Before jitter, a longer row of failures never means a shorter delay; the longest does not overflow."""
    delays = [backoff_delay(policy, streak) for streak in (*range(70), 1000, 1023, 1024, 10**6)]
    assert all(shorter <= longer for shorter, longer in pairwise(delays))
    assert delays[-1] <= policy.backoff_max
