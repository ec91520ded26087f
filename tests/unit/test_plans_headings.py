"""Headings of waves and tasks."""

import pytest

from kasmos.plans.headings import TaskHeading, Unclear, WaveHeading, near_miss, read_heading


@pytest.mark.parametrize(
    ("text", "number", "title"),
    [
        ("Wave 1", 1, ""),
        ("Wave 0 — groundwork", 0, "groundwork"),
        ("Wave 2: API", 2, "API"),
        ("wave 3 - tests", 3, "tests"),
        ("Wave 4 – docs", 4, "docs"),
        ("Wave 5 (parallel)", 5, "(parallel)"),
        ("Wave 6 is the last", 6, "is the last"),
        ("**Wave 7: bold**", 7, "bold"),
        ("**Wave 8:** bold", 8, "bold"),
        ("Wave 9：全角", 9, "全角"),
    ],
)
@pytest.mark.parametrize("level", [2, 3])
def test_wave(level: int, text: str, number: int, title: str) -> None:
    """A wave is `Wave` and a number at level two or three; whatever follows is its title."""
    assert read_heading(level, text) == WaveHeading(number, title)


@pytest.mark.parametrize(
    ("text", "wave", "number", "title"),
    [
        ("Task 1: One", None, 1, "One"),
        ("Task 2 — Two", None, 2, "Two"),
        ("Task 3 – Three", None, 3, "Three"),
        ("Task 4 - Four-fold: it", None, 4, "Four-fold: it"),
        ("Task 5 : Five", None, 5, "Five"),
        ("Task 6. Six", None, 6, "Six"),
        ("Task 7", None, 7, ""),
        ("Task 8: 3-way merge", None, 8, "3-way merge"),
        ("Task 9 (optional): Nine", None, 9, "Nine (optional)"),
        ("Task 10 (Wave 1) — Ten", None, 10, "Ten (Wave 1)"),
        ("Task 1.2: Dotted", 1, 2, "Dotted"),
        ("**Task 11: Bold**", None, 11, "Bold"),
        ("**Task 12:** Bold", None, 12, "Bold"),
        ("**Task 13**: a **bold** word", None, 13, "a **bold** word"),
        ("TASK_14: shouted", None, 14, "shouted"),
        ("Task #15: hash", None, 15, "hash"),
        ("Task 16—tight", None, 16, "tight"),
        ("Task 17:tight", None, 17, "tight"),
    ],
)
@pytest.mark.parametrize("level", [3, 4])
def test_task(level: int, text: str, wave: int | None, number: int, title: str) -> None:
    """A task is `Task`, a number, a separator and a title, at level three or four."""
    assert read_heading(level, text) == TaskHeading(number, wave, title)


@pytest.mark.parametrize(
    ("level", "text"),
    [
        (3, "Task 1-3: a range"),
        (3, "Task 1, 2: two"),
        (3, "Task 2a: a letter"),
        (3, "Task 1.2.3: too deep"),
        (3, "Task 1.2a: letter after a dot"),
        (2, "Task 1: at the level of a wave"),
        (3, "Task 12345678901: large"),
        (2, "Wave 1-2: a range"),
        (2, "Wave 2.5"),
        (2, "Wave 1A"),
        (2, "Wave " + "9" * 5000),
    ],
)
def test_unclear(level: int, text: str) -> None:
    """What is surely meant as a wave or task and cannot be one is told, with a cure."""
    found = read_heading(level, text)
    assert isinstance(found, Unclear)
    assert found.fatal
    assert found.cure
    assert len(found.problem) < 200


def test_unclear_without_separator() -> None:
    """A task heading without a separator may be prose: it is doubtful, not wrong."""
    found = read_heading(3, "Task 2 Write the parser")
    assert isinstance(found, Unclear)
    assert not found.fatal
    assert "### Task 2: title" in found.cure


@pytest.mark.parametrize(
    ("level", "text"),
    [
        (1, "Wave 1"),
        (4, "Wave 1"),
        (1, "Task 1: x"),
        (5, "Task 1: x"),
        (2, "Wave Orchestration"),
        (3, "Task-Grouped List"),
        (3, "Tasks 1: x"),
        (3, "Heat wave 3"),
        (2, ""),
    ],
)
def test_neither(level: int, text: str) -> None:
    """Any other heading is text."""
    assert read_heading(level, text) is None


@pytest.mark.parametrize(
    ("level", "text", "cure"),
    [
        (3, "Taks 2: exchanged", "### Task N"),
        (3, "Tasks 2: one too many", "### Task N"),
        (4, "tsk 2: one too few", "### Task N"),
        (2, "Wawe 2", "## Wave N"),
        (3, "Task: no number", "### Task N"),
        (3, "Task A: a letter", "### Task N"),
        (3, "Task", "### Task N"),
        (4, "Wave 2: too deep", "two or three #"),
        (1, "Wave 2: too high", "two or three #"),
    ],
)
def test_near_miss(level: int, text: str, cure: str) -> None:
    """A heading that is a wave or a task but for one slip is doubtful, with what would be right."""
    assert read_heading(level, text) is None
    found = near_miss(level, text)
    assert found is not None
    assert not found.fatal
    assert cure in found.cure


@pytest.mark.parametrize(
    ("level", "text"),
    [
        (3, "Tasks"),
        (3, "Tests 3"),
        (3, "Save 3 files"),
        (3, "Ask 2 people"),
        (2, "Wave Orchestration"),
        (3, "Task-Grouped List"),
        (1, "Taks 1: x"),
        (5, "Taks 1: x"),
        (2, ""),
    ],
)
def test_no_near_miss(level: int, text: str) -> None:
    """Prose about tasks, and other words, are no slips."""
    assert near_miss(level, text) is None
