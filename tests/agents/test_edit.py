"""Real programs do what they are asked, through kasmos."""

from __future__ import annotations

import pytest

from kasmos.model.task import Outcome

from .conftest import LIMIT, Workshop
from .programs import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_edit(shop: Workshop, name: str) -> None:
    """A program that edits a file, run as a task, has edited it when the task has succeeded."""
    shop.equip(name)
    path = shop.kas.cwd / "f.txt"
    steps = f"read {path} ;; edit {path} world kasmos ;; say done"
    if name == "aider":  # it takes edits from the text, and ends with its answer
        steps = "edit f.txt world kasmos"
    shop.write_tasks({name: steps}, settings='checks = ["grep -qx kasmos f.txt"]')
    result = shop.kas("run", "plan.md", timeout=LIMIT)
    assert result.code == 0, f"{result.stdout}\n{shop.output()}"
    assert shop.outcome() is Outcome.SUCCEEDED
    assert path.read_text() == "hello\nkasmos\n"
    assert {entry["error"] for entry in shop.asked(name)} == {""}
    assert shop.conclusion(name)["outcome"] == "succeeded"
