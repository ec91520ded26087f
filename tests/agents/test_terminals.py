"""The real programs in tmux: typed into, understood by their screens, and over when their turn is."""

from __future__ import annotations

import pytest

from kasmos.model import event as ev
from kasmos.model.session import StopReason
from kasmos.model.task import Outcome

from .conftest import LIMIT, Workshop
from .interactive import SEATS


@pytest.mark.parametrize("name", SEATS)
def test_edit(shop: Workshop, name: str) -> None:
    """A program in tmux is typed its prompt, edits a file, and is sent away when its screen shows that it is done."""
    shop.seat(name)
    path = shop.kas.cwd / "f.txt"
    steps = f"read {path} ;; edit {path} world kasmos ;; say done"
    if name == "aider":  # it takes edits from the text
        steps = "edit f.txt world kasmos"
    shop.write_tasks({name: steps}, settings='checks = ["grep -qx kasmos f.txt"]')
    result = shop.kas("run", "plan.md", timeout=1.5 * LIMIT)
    assert result.code == 0, f"{result.stdout}\n{shop.screen()}"
    assert path.read_text() == "hello\nkasmos\n"
    (delivered,) = shop.told(ev.PromptDelivered)
    assert isinstance(delivered, ev.PromptDelivered)
    assert delivered.verified
    assert shop.session().stop_reason is StopReason.SETTLED
    assert shop.outcome() is Outcome.SUCCEEDED
    # The prompt arrived as it was written, once.
    assert {entry["error"] for entry in shop.asked(name)} == {""}
