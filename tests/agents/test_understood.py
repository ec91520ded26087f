"""Real programs under kasmos' own understanding: they ask without a terminal, and their conversations go on."""

from __future__ import annotations

import json
import re
import signal

import pytest

from kasmos.model import event as ev
from kasmos.model.task import Outcome

from ..waiting import wait_for
from .conftest import LIMIT, Workshop, marked
from .test_stop import TREE, running, unique_number

ASKING = {"claude": "Bash", "codex": "shell", "opencode": "execute", "gemini": "execute", "qwen": "execute"}
"""Who asks without a terminal, and what each calls its shell."""


def let_ask(shop: Workshop, name: str, rules: str = "") -> None:
    """Give a program the permissions that people and rules give."""
    shop.equip(name, may="nothing")
    config = shop.kas.cwd / ".kasmos" / "config.toml"
    keys = f'permission_default = "prompt"\nrules = [{rules}]\n'
    config.write_text(config.read_text().replace(f"[agents.{name}]\n", f"[agents.{name}]\n{keys}"))


def asked(shop: Workshop, tool: str) -> str:
    found = re.search(rf"^(\w{{4}}) .*{tool}", shop.kas("approvals").stdout, re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.parametrize("name", ASKING)
def test_asks_a_person(shop: Workshop, name: str) -> None:
    """A headless program waits for a yes, over the death of its supervisor, and runs its command then, once."""
    let_ask(shop, name)
    shop.write_tasks({name: "run echo kasmos >> made.txt ;; say done"})
    with shop.kas.running("run", "plan.md") as run:
        approval = wait_for(lambda: asked(shop, ASKING[name]), LIMIT)
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert not (shop.kas.cwd / "made.txt").exists()
    with shop.kas.running("run", "plan.md") as run:
        assert wait_for(lambda: asked(shop, ASKING[name]), LIMIT) == approval
        wait_for(lambda: shop.kas("approve", approval).code == 0, LIMIT)
        assert run.wait(LIMIT) == 0, shop.output()
    assert (shop.kas.cwd / "made.txt").read_text() == "kasmos\n"
    assert shop.outcome() is Outcome.SUCCEEDED
    assert [entry["step"] for entry in shop.asked(name)] == ["run", "say"]


@pytest.mark.parametrize("name", ASKING)
def test_is_denied_by_a_rule(shop: Workshop, name: str) -> None:
    """What a rule denies is not run by a headless program, what another allows is; its task has not succeeded."""
    tool = ASKING[name]
    let_ask(shop, name, f'{{ deny = "*", command = "echo *" }}, {{ allow = "{tool}", command = "touch *" }}')
    shop.write_tasks({name: "run touch allowed.txt ;; run echo kasmos > made.txt ;; say done"})
    assert shop.kas("run", "plan.md", timeout=LIMIT).code == 1
    assert (shop.kas.cwd / "allowed.txt").exists(), shop.output()
    assert not (shop.kas.cwd / "made.txt").exists()
    (said,) = shop.told(ev.SessionConcluded)
    assert isinstance(said, ev.SessionConcluded)
    assert said.failure is not None
    assert said.failure.kind == "tool_denied"


@pytest.mark.parametrize("name", ASKING)
def test_is_told_why(shop: Workshop, name: str) -> None:
    """A person's reason for a no reaches the model of a headless program, once, whatever its protocol."""
    let_ask(shop, name)
    shop.write_tasks({name: "run touch denied.txt ;; say done ;; say so"})
    with shop.start() as kas:
        approval = wait_for(lambda: asked(shop, ASKING[name]), LIMIT)
        denied = shop.kas("deny", approval, "--reason", "touch nothing on Fridays")
        assert denied.code == 0, denied.stderr
        assert kas.wait() == 1
    assert not (shop.kas.cwd / "denied.txt").exists()
    # What a model was told once is in every request after it.
    told = [json.dumps(shop.model.body(entry["n"])).count("touch nothing on Fridays") for entry in shop.asked(name)]
    assert told[0] == 0, shop.output()
    assert told[-1] == 1, shop.output()


@pytest.mark.parametrize("name", [name for name in ASKING if name != "claude"])
def test_a_file_is_judged_by_its_path(shop: Workshop, name: str) -> None:
    """A program that is spoken to tells which file it wants to change, and a rule allows that one."""
    let_ask(shop, name, '{ allow = "*", path = "made.txt" }')
    shop.write_tasks({name: f"write {shop.kas.cwd / 'made.txt'} kasmos ;; say done"})
    assert shop.kas("run", "plan.md", timeout=LIMIT).code == 0, shop.output()
    assert (shop.kas.cwd / "made.txt").read_text().strip() == "kasmos"
    assert "allowed by" in shop.kas("why", "1").stdout


@pytest.mark.parametrize("name", [name for name in ASKING if name != "claude"])
def test_a_stop_of_the_spoken_to(shop: Workshop, name: str) -> None:
    """A program that is spoken to is stopped in mid-tool with all that the tool has started."""
    let_ask(shop, name)
    number = unique_number()
    tree = [f"sleep {number}{n}" for n in (1, 2, 3)]
    shop.write_tasks({name: f"run {TREE.format(number)} ;; hang"})
    with shop.start() as kas:
        approval = wait_for(lambda: asked(shop, ASKING[name]), LIMIT)
        assert shop.kas("approve", approval).code == 0
        shop.wait(lambda: len(running(tree)) == 3, kas)
        assert shop.kas("stop", shop.session().name).code == 0
        assert kas.wait() == 1
    assert running(tree) == []
    assert marked(shop.session().id) == {}


@pytest.mark.parametrize("name", ["codex", "opencode", "gemini", "qwen"])
def test_a_spoken_conversation_goes_on(shop: Workshop, name: str) -> None:
    """A program that is spoken to takes up a conversation time and again, and its model is told what was said."""
    let_ask(shop, name)
    shop.write_tasks({name: "say first"}, settings='checks = ["test -e go"]')
    assert shop.kas("run", "plan.md", timeout=LIMIT).code == 1
    assert shop.kas("retry", "--resume", timeout=LIMIT).code == 1
    (shop.kas.cwd / "go").touch()
    again = shop.kas("retry", "--resume", timeout=LIMIT)
    assert again.code == 0, f"{again.stdout}{again.stderr}\n{shop.output()}"
    first, second, third = (one for one in shop.told(ev.SessionConcluded) if isinstance(one, ev.SessionConcluded))
    assert first.conversation
    assert second.conversation == third.conversation == first.conversation
    # The script stands in the first prompt: who asks by it again was told of that one.
    assert len(shop.asked(name)) == 3


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
