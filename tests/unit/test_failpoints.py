"""Failpoints: armed by one variable, reached at their N-th time, and never by mistake."""

from __future__ import annotations

import errno
import importlib
import re
from collections.abc import Callable, Iterator

import pytest

from kasmos import failpoints

Arm = Callable[[str], None]


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arm]:
    """Arms failpoints as a process does when it starts with the variable; they are disarmed after the test."""

    def start(text: str) -> None:
        monkeypatch.setenv("KASMOS_FAILPOINTS", text)
        importlib.reload(failpoints)

    yield start
    monkeypatch.delenv("KASMOS_FAILPOINTS", raising=False)
    importlib.reload(failpoints)


def fails(name: str) -> bool:
    """Reach a point; whether it failed."""
    try:
        failpoints.reach(name)
    except OSError as error:
        return error.errno == errno.EAGAIN and name in str(error)
    return False


def test_nothing_is_armed_by_default(arm: Arm) -> None:
    """Without the variable, or with an empty one, every point is passed."""
    assert not any(fails(name) for name in failpoints.POINTS)
    arm("")
    assert not any(fails(name) for name in failpoints.POINTS)


def test_an_armed_point_fails_once(arm: Arm) -> None:
    """An armed point fails as the kernel does when it is short of something, names itself, and is passed afterwards."""
    arm("session.spawning=error")
    assert [fails("session.spawned"), fails("session.spawning"), fails("session.spawning")] == [False, True, False]


def test_an_armed_point_fails_at_its_nth_time(arm: Arm) -> None:
    """`@N` is the N-th time that the point itself is reached; without it, the first."""
    arm("task.ended=error@3,session.spawned=error@1,,")
    passed = [fails(name) for name in ("task.ended", "session.spawned", "task.ended", "task.ended", "task.ended")]
    assert passed == [False, True, False, True, False]


@pytest.mark.parametrize(
    "text",
    ["run.end=kill", "run.ended", "run.ended=", "run.ended=die", "run.ended=kill@x", "=kill", "run.ended=kill=error"],
)
def test_what_cannot_be_armed_is_refused(arm: Arm, text: str) -> None:
    """A name, an action or a count that does not exist is refused: no test passes because it was misspelt."""
    with pytest.raises(ValueError):
        arm(f"wave.ended=error,{text}")


def test_points_are_named_once() -> None:
    """No two points have one name, and all are named alike."""
    assert len(set(failpoints.POINTS)) == len(failpoints.POINTS)
    assert all(re.fullmatch(r"[a-z]+\.[a-z-]+", name) for name in failpoints.POINTS)
