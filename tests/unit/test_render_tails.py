"""The last output of an agent is shown as what the agent meant by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kasmos.cli.render.report import report
from kasmos.cli.render.text import Look
from kasmos.cli.render.transcript import piece_lines
from kasmos.model.task import Outcome
from tests.unit.histories import History, make_plan

TRANSCRIPTS = Path(__file__).parents[1] / "data" / "transcripts"
RECORDED = sorted(TRANSCRIPTS.rglob("*.out"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_pieces(path: Path) -> None:
    """Any end of a recorded transcript can be shown, and no line of it is the rest of a record that was cut."""
    text = path.read_text(errors="replace")
    for size in {len(text) * part // 7 for part in range(8)} | {4096}:
        piece = text[-size:] if size else ""
        for line in piece_lines(piece, path.parent.name):
            assert not line.endswith('"}')
            assert "\n" not in line


def test_a_transcript_is_no_wall() -> None:
    """Of what claude did a line for each step is left, and of a program that is not known what it wrote."""
    text = (TRANSCRIPTS / "claude" / "task.out").read_text()
    lines = piece_lines(text[100:], "claude")
    assert any(line.startswith("→ ") for line in lines)
    assert all(len(line) < 200 and "{" not in line[:1] for line in lines)
    assert piece_lines(text, "nobody") == []


def test_a_failed_agent_in_the_report() -> None:
    """The report of a run shows what an agent that failed said last, and not the JSON in which it said so."""
    tail = (TRANSCRIPTS / "claude" / "task.out").read_text()[-4096:]
    history = History(make_plan(1))
    history.wave(1)
    history.start("1", harness="claude")
    history.end("1", code=3, tail=tail, after=2.0)
    history.over(Outcome.FAILED)
    text = report(history.world, "r1", Look(), 2000.0, 2e9)
    assert "DONE-task" in text
    assert '{"type"' not in text
