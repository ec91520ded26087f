"""Real programs under kasmos' own understanding: they ask without a terminal, and their conversations go on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from kasmos.model import event as ev
from kasmos.model.task import Outcome

from .conftest import LIMIT, Workshop


def wait_for(what: Callable[[], str]) -> str:
    deadline = time.monotonic() + LIMIT
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def let_ask(shop: Workshop, rules: str = "") -> None:
    """Give claude the permissions that people and rules give."""
    shop.equip("claude", may="nothing")
    config = shop.kas.cwd / ".kasmos" / "config.toml"
    keys = f'permission_default = "prompt"\nrules = [{rules}]\n'
    config.write_text(config.read_text().replace("[agents.claude]\n", f"[agents.claude]\n{keys}"))


def asked(shop: Workshop) -> str:
    found = re.search(r"^(\w{4}) .*Bash", shop.kas("approvals").stdout, re.MULTILINE)
    return found[1] if found else ""


def test_claude_asks_a_person(shop: Workshop) -> None:
    """A headless claude waits for a yes, and runs its command then."""
    let_ask(shop)
    shop.write_tasks({"claude": "run echo kasmos > made.txt ;; say done"})
    with shop.kas.running("run", "plan.md") as run:
        approval = wait_for(lambda: asked(shop))
        assert not (shop.kas.cwd / "made.txt").exists()
        assert shop.kas("approve", approval).code == 0
        assert run.wait(LIMIT) == 0, shop.output()
    assert (shop.kas.cwd / "made.txt").read_text() == "kasmos\n"
    assert shop.outcome() is Outcome.SUCCEEDED


def test_claude_is_denied_by_a_rule(shop: Workshop) -> None:
    """What a rule denies is not run by a headless claude, and its task has not succeeded."""
    let_ask(shop, '{ deny = "Bash", command = "echo *" }')
    shop.write_tasks({"claude": "run echo kasmos > made.txt ;; say done"})
    assert shop.kas("run", "plan.md", timeout=LIMIT).code == 1
    assert not (shop.kas.cwd / "made.txt").exists()
    (said,) = shop.told(ev.SessionConcluded)
    assert isinstance(said, ev.SessionConcluded)
    assert said.failure is not None
    assert said.failure.kind == "tool_denied"


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_a_failed_task_goes_on_in_its_conversation(shop: Workshop, name: str) -> None:
    """A task that broke off is taken up where it was: its program still knows what was said."""
    shop.equip(name)
    shop.write_tasks({name: "say first"}, settings='checks = ["test -e go"]')
    assert shop.kas("run", "plan.md", timeout=LIMIT).code == 1
    (shop.kas.cwd / "go").touch()
    again = shop.kas("retry", "--resume", timeout=LIMIT)
    assert again.code == 0, f"{again.stdout}{again.stderr}\n{shop.output()}"
    first, second = (one for one in shop.told(ev.SessionConcluded) if isinstance(one, ev.SessionConcluded))
    assert first.conversation
    assert second.conversation == first.conversation
