"""Whatever a real program has started is gone when its session is over, however that came about."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

import pytest

from kasmos.model.task import CauseKind, Outcome
from kasmos.model.view import Ended

from .conftest import Workshop, command_lines, marked
from .programs import RECIPES

WITH_TOOLS = [name for name in RECIPES if name != "aider"]
"""aider runs no tools by itself."""
FEW = ["claude", "codex", "opencode", "gemini"]
"""Where one more program would tell nothing new: each takes seconds and much memory."""
TREE = "sleep {0}1 & (sleep {0}2 & sleep {0}3) ; wait"
"""A shell tool that leaves processes behind whichever way it is ended, unless all of them are found."""


def unique_number() -> int:
    """A time to sleep that nobody else sleeps: so processes are known, whatever became of their environment."""
    return 10**7 + int.from_bytes(os.urandom(3))


def begin_tree(shop: Workshop, name: str, env: Mapping[str, str] | None = None) -> list[str]:
    """A task whose program starts a tool that runs for ever; the command lines by which its processes are known."""
    shop.equip(name, may="anything", env=env)
    number = unique_number()
    shop.write_tasks({name: f"run {TREE.format(number)} ;; hang"})
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


@pytest.mark.parametrize("name", FEW)
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


@pytest.mark.parametrize("name", [*FEW, "aider"])
def test_timeout(shop: Workshop, name: str) -> None:
    """A program whose model never answers is stopped when its time is over, and has timed out."""
    shop.equip(name)
    shop.write_tasks({name: "hang"}, settings='timeout = "6s"')
    with shop.start() as kas:
        assert kas.wait() == 1
    assert shop.outcome() is Outcome.TIMED_OUT
    assert marked(shop.session().id) == {}


RELAUNCHED: Mapping[str, Mapping[str, str]] = {
    "codex": {},
    "gemini": {"GEMINI_CLI_NO_RELAUNCH": ""},
    "qwen": {"QWEN_CODE_NO_RELAUNCH": ""},
}
"""Programs that are a wrapper around their real selves, unless they are asked not to be."""


@pytest.mark.parametrize("name", RELAUNCHED)
def test_wrapper_killed(shop: Workshop, name: str) -> None:
    """Where the wrapper of a program is killed, its real self and its tools, which go on alone, are ended."""
    tree = begin_tree(shop, name, env=RELAUNCHED[name])
    with shop.start() as kas:
        shop.wait(lambda: len(running(tree)) == 3, kas)
        pid = shop.session().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert kas.wait() == 1
    status = shop.session().exit
    assert status is not None
    assert status.signal == signal.SIGKILL
    assert running(tree) == []
    assert marked(shop.session().id) == {}


@pytest.mark.parametrize("name", ["gemini", "qwen"])
def test_stop_of_a_wrapper(shop: Workshop, name: str) -> None:
    """A program whose wrapper ignores SIGTERM, or dies of it alone, is stopped within the grace all the same."""
    tree = begin_tree(shop, name, env=RELAUNCHED[name])
    config = shop.kas.cwd / ".kasmos" / "config.toml"
    config.write_text(config.read_text().replace("stop_signal =", 'stop_grace = "2s"\nstop_signal ='))
    with shop.start() as kas:
        shop.wait(lambda: len(running(tree)) == 3, kas)
        assert shop.kas("stop", "--all").code == 0
        assert kas.wait() == 1
    assert running(tree) == []
    assert marked(shop.session().id) == {}


@pytest.mark.parametrize("name", [*FEW, "qwen"])
def test_left_behind(shop: Workshop, name: str) -> None:
    """What a program's tool has put into the background is ended with a session that has succeeded, and told of."""
    number = unique_number()
    shop.equip(name, may="anything")
    command = f"setsid -f sleep {number}1 >/dev/null 2>&1; nohup sleep {number}2 >/dev/null 2>&1 & echo begun"
    shop.write_tasks({name: f"run {command} ;; say done"})
    with shop.start() as kas:
        assert kas.wait() == 0, shop.output()
    assert running([f"sleep {number}{n}" for n in (1, 2)]) == []
    told = {item.name for item in shop.session().leftovers}
    # Qwen mostly ends them itself.
    assert told == {"sleep"} or (name == "qwen" and not told)
