"""Whatever a real program has started is gone when its session is over, however that came about."""

from __future__ import annotations

import signal

import pytest

from kasmos.model.task import CauseKind, Outcome
from kasmos.model.view import Ended

from .conftest import Workshop, command_lines, marked
from .programs import RECIPES

WITH_TOOLS = [name for name in RECIPES if name != "aider"]
TREE = "sleep {0}1 & (sleep {0}2 & sleep {0}3) ; wait"
"""A shell tool that leaves processes behind whichever way it is ended, unless all of them are found."""


def begin_tree(shop: Workshop, name: str) -> list[str]:
    """A task whose program has started a tool that runs for ever; the processes by which it is known."""
    shop.equip(name, may="anything", settings="max_concurrent = 1")
    # Unique on the machine, so that they are known by their command lines, whatever became of their environment.
    number = f"{abs(hash(shop.root_dir.name)) % 10**6 + 10**6}"
    shop.write_tasks({name: f"run {TREE.format(number)} ;; say done"})
    return [f"sleep {number}{n}" for n in (1, 2, 3)]


def running(tree: list[str]) -> list[str]:
    return [line for line in command_lines() if line in tree]


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_stop(shop: Workshop, name: str) -> None:
    """`kas stop` ends a real program in mid-tool, with every process its tool has started in sessions of their own."""
    tree = begin_tree(shop, name)
    with shop.start() as kas:
        shop.wait(lambda: len(running(tree)) == 3, kas)
        stopped = shop.kas("stop", shop.session().name)
        assert stopped.code == 0, stopped.stderr
        assert kas.wait() == 1
    assert running(tree) == []
    assert marked(shop.session().id) == {}
    state = shop.only_run().tasks["1"].state
    assert isinstance(state, Ended)
    assert state.cause.kind is CauseKind.STOPPED
    assert shop.session().unkillable == ()


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_terminated_supervisor(shop: Workshop, name: str) -> None:
    """SIGTERM to `kas run` leaves nothing of a real program's tool tree; the task waits to be taken up again."""
    tree = begin_tree(shop, name)
    with shop.start() as kas:
        shop.wait(lambda: len(running(tree)) == 3, kas)
        kas.signal(signal.SIGTERM)
        assert kas.wait() == 128 + signal.SIGTERM
    assert running(tree) == []
    assert marked(shop.session_ids[0]) == {}
    assert shop.outcome() is None


@pytest.mark.parametrize("name", RECIPES)
def test_timeout(shop: Workshop, name: str) -> None:
    """A program whose model never answers is stopped when its time is over, and has timed out."""
    shop.equip(name)
    shop.write_tasks({name: "hang"}, settings='timeout = "6s"')
    with shop.start() as kas:
        assert kas.wait() == 1
    assert shop.outcome() is Outcome.TIMED_OUT
    assert marked(shop.session().id) == {}
