"""`kill -9` of the supervisor while a real program is in the middle of its turn."""

from __future__ import annotations

import pytest

from kasmos.model import event as ev
from kasmos.model.task import Outcome

from .conftest import Workshop
from .programs import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_adopted_in_mid_turn(shop: Workshop, name: str) -> None:
    """After `kill -9` in mid-turn the same command adopts the same process, and the model is asked only once."""
    gate = shop.conversation(name)
    shop.equip(name)
    shop.write_tasks({name: f"hold {gate} The answer is forty-two."})
    with shop.start() as kas:
        shop.model.requests(shop.conversation(name), at_least=1)
        shop.wait(lambda: shop.session_ids and shop.session().pid is not None, kas)
        before = shop.session()
        kas.kill()
    with shop.start() as kas:
        shop.wait(lambda: shop.told(ev.SessionAdopted), kas)
        shop.model.open_gate(gate)
        assert kas.wait() == 0, kas.text()
    assert shop.outcome() is Outcome.SUCCEEDED
    assert shop.session_ids == [before.id]
    assert shop.session().pid == before.pid
    assert len(shop.asked(name)) == 1, shop.asked(name)
    assert "forty-two" in shop.output()


def test_killed_with_a_tool_at_work(shop: Workshop) -> None:
    """A tool that a program has started lives through the supervisor's death, and its result counts."""
    shop.equip("claude", may="anything")
    shop.write_tasks({"claude": "run touch begun; until [ -e go ]; do sleep 0.05; done; echo x >>ran ;; say done"})
    with shop.start() as kas:
        shop.wait(lambda: (shop.kas.cwd / "begun").exists(), kas)
        kas.kill()
    (shop.kas.cwd / "go").touch()
    with shop.start() as kas:
        assert kas.wait() == 0, kas.text()
    assert (shop.kas.cwd / "ran").read_text() == "x\n"
    assert [entry["step"] for entry in shop.asked("claude")] == ["run", "say"]
