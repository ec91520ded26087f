"""What an agent says or does now, in a line."""

from __future__ import annotations

import pytest

from kasmos.harnesses.brief import brief, next_words
from kasmos.harnesses.facts import load_facts
from kasmos.model.agent_event import (
    AgentEvent,
    ApprovalRequested,
    ErrorReport,
    Message,
    RateLimit,
    Result,
    Thinking,
    ToolCall,
    ToolResult,
    Unknown,
    UsageReport,
)
from kasmos.supervision.transcript import Transcript


def after(*events: AgentEvent) -> str:
    last: AgentEvent | None = None
    for event in events:
        last = next_words(last, event)
    return brief(last)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Message("\n  I look.\nThen I act."), "I look."),
        (ToolCall("Bash", {"command": "ls -l\nrm x"}), "Bash: ls -l"),
        (ToolCall("Read", None), "Read"),
        (ToolCall("Grep", {"a": 1, "b": 2}), "Grep: a=1, b=2"),
        (ApprovalRequested("Bash", {"command": "rm x"}), "asks: Bash rm x"),
        (ErrorReport("overloaded\nmore", final=False), "error: overloaded (it tries again)"),
        (RateLimit("wait a little"), "limit: wait a little"),
    ],
)
def test_events_that_tell(event: AgentEvent, line: str) -> None:
    """What an agent says and does is a line: the first of a message, the telling input of a tool."""
    assert after(event) == line


@pytest.mark.parametrize(
    "event",
    [
        Thinking("hm"), ToolResult("much"), UsageReport(1, 2), Result("done"), Unknown("x", "y"), Message(" \n"),
        Message("a question", role="user"), RateLimit("fine", status="allowed"),
    ],
)  # fmt: skip
def test_events_that_do_not(event: AgentEvent) -> None:
    """What keeps books, what tools give back and what others say leaves what was said last."""
    assert after(Message("said"), event) == "said"
    assert after(event) == ""


def test_pieces_of_a_message() -> None:
    """Pieces of one message are told together, in its last line; the next message begins anew."""
    pieces = [Message(text, partial=True) for text in ("I wr", "ite\n", "a test", "\n")]
    assert after(*pieces[:1]) == "I wr"
    assert after(*pieces) == "a test"
    assert after(*pieces, ToolCall("Bash", {"command": "ls"}), Message("no", partial=True)) == "no"
    assert after(*(Message("x" * 999, partial=True) for _ in range(50))) == "x" * 1000


def test_a_hearing_tells_it() -> None:
    """A transcript that is read along tells what is said now; before anything is said, nothing."""
    hearing = Transcript(load_facts("claude"), accept=(), wall=lambda: 0.0)
    assert hearing.said == ""
    hearing.feed(b'{"type":"assistant","message":{"content":[{"type":"text","text":"hello"}]}}\n')
    assert hearing.said == "hello"
