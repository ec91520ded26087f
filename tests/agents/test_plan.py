"""One plan for several real programs."""

from __future__ import annotations

from kasmos.model.task import Outcome

from .conftest import LIMIT, Workshop

NAMES = ("claude", "codex", "opencode", "gemini", "qwen", "aider")


def test_plan(shop: Workshop) -> None:
    """A plan with one task for each program has every file written, by the program that was asked for it."""
    shop.equip(*NAMES, settings="max_concurrent = 2")
    tasks = {name: f"write {shop.kas.cwd / name}.txt 'by {name}' ;; say done" for name in NAMES}
    tasks["aider"] = "write aider.txt 'by aider'"
    shop.write_tasks(tasks)
    # The programs take some seconds each, and up to a gigabyte.
    result = shop.kas("run", "plan.md", timeout=2 * LIMIT)
    assert result.code == 0, result.stdout
    assert {path.stem: path.read_text().strip() for path in shop.kas.cwd.glob("*.txt") if path.stem != "f"} == {
        name: f"by {name}" for name in NAMES
    }
    assert [task.outcome for task in shop.only_run().tasks.values()] == [Outcome.SUCCEEDED] * len(NAMES)
