"""An agent's transcript for people: tool calls folded to a line, usage at the end. Pure."""

from __future__ import annotations

from kasmos.cli.render.text import clean
from kasmos.exceptions import ConfigError
from kasmos.harnesses.brief import telling_input
from kasmos.harnesses.conclusion import Conclusion, Usage, UsageSource
from kasmos.harnesses.foreign import BROKEN
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
from kasmos.model.codec import format_instant

WIDTH = 100
"""Characters of a folded line."""


def event_lines(event: AgentEvent) -> list[str]:
    """An event as lines without their ends; none for what is shown at the end or says nothing."""
    if isinstance(event, Message):
        return _message(event)
    if isinstance(event, Thinking):
        return [f"… {_fold(event.text)}"] if event.text.strip() else []
    if isinstance(event, ToolCall):
        return [f"{_depth(event.parent)}→ {clean(event.tool)} {_fold(telling_input(event.input))}".rstrip()]
    if isinstance(event, ToolResult):
        return _tool_result(event)
    if isinstance(event, ApprovalRequested):
        return [f"? may it use {clean(event.tool)}: {_fold(telling_input(event.input))}"]
    if isinstance(event, RateLimit):
        return [f"! limit: {_fold(event.message)}"] if event.status != "allowed" else []
    if isinstance(event, ErrorReport):
        again = "" if event.final else " (it tries again)"
        return [f"! {event.kind}: {_fold(event.message)}{again}"]
    if isinstance(event, Unknown):
        if event.name == BROKEN:
            return [f"! {BROKEN}: {_fold(event.text)}"]
        return [f"  {_fold(event.text)}"] if event.name is None else [f"  [{clean(event.name)}]"]
    assert isinstance(event, Result | UsageReport)  # told by the conclusion
    return []


def piece_lines(text: str, harness: str) -> list[str]:
    """A piece of a transcript, cut anywhere, as lines; none where nothing of it is known to say or do anything."""
    from kasmos.harnesses.catalog import find_harness
    from kasmos.harnesses.parser import TranscriptParser

    try:
        told_by = find_harness(harness)
    except ConfigError:
        told_by = None  # whoever reads its transcripts is told; here what was written is shown as it is
    if told_by is None:
        return []
    first, newline, rest = text.partition("\n")
    # The end of a record that was cut off.
    kept = rest if newline and first.endswith("}") and not first.startswith("{") else text
    parser = TranscriptParser(told_by, now=0.0)
    return [line for event in (*parser.feed(kept.encode()), *parser.close()) for line in event_lines(event)]


def conclusion_lines(conclusion: Conclusion) -> list[str]:
    """The conclusion as lines."""
    lines = ["", _outcome(conclusion)]
    usage = usage_line(conclusion.usage)
    lines.append(f"usage: {usage}")
    if conclusion.conversation is not None:
        lines.append(f"conversation: {clean(conclusion.conversation)}")
    return lines


def usage_line(usage: Usage) -> str:
    """Tokens and money in one line; what is not known is said to be so."""
    if usage.source is UsageSource.UNKNOWN and usage.cost_usd is None:
        return "unknown"
    parts = []
    for count, word in (
        (usage.input_tokens, "in"),
        (usage.cached_tokens, "cached"),
        (usage.output_tokens, "out"),
        (usage.reasoning_tokens, "reasoning"),
    ):
        if count is not None:
            parts.append(f"{count:,} {word}")
        elif word in ("in", "out"):
            parts.append(f"{word} unknown")
    if usage.source is not UsageSource.REPORTED:
        parts[-1] += f" ({usage.source})"
    if usage.cost_usd is not None:
        sure = "" if usage.cost_source is UsageSource.REPORTED else f" ({usage.cost_source})"
        parts.append(f"${usage.cost_usd:.4f}{sure}")
    else:
        parts.append("cost unknown")
    whole = "" if usage.scope == "process" else f", the whole {usage.scope}"
    return ", ".join(parts) + whole


def _outcome(conclusion: Conclusion) -> str:
    failure = conclusion.failure
    if failure is None:
        return f"{conclusion.outcome}"
    text = f"{conclusion.outcome}: {failure.kind}: {_fold(failure.message, 300)}"
    if failure.reset_at is not None:
        text += f" (until {format_instant(failure.reset_at)})"
    elif failure.retry_after is not None:
        text += f" (for {failure.retry_after:g}s)"
    return text


def _message(event: Message) -> list[str]:
    depth = _depth(event.parent)
    mark = "" if event.role == "assistant" else f"{event.role}> "
    return [f"{depth}{mark}{clean(line)}" for line in event.text.rstrip("\n").split("\n")]


def _tool_result(event: ToolResult) -> list[str]:
    depth = _depth(event.parent)
    if event.denied:
        return [f"{depth}← denied: {_fold(event.output)}"]
    lines = event.output.count("\n") + 1 if event.output.strip() else 0
    if event.is_error:
        code = f" (exit {event.exit_code})" if event.exit_code is not None else ""
        return [f"{depth}← failed{code}: {_fold(event.output)}"]
    return [f"{depth}← {_fold(event.output)}" + (f" (+{lines - 1} lines)" if lines > 1 else "")] if lines else []


def _depth(parent: str | None) -> str:
    return "" if parent is None else "  | "


def _fold(text: str, width: int = WIDTH) -> str:
    first = next((line for line in text.split("\n") if line.strip()), "")
    shown = clean(first[: 4 * width]).strip()
    return shown if len(shown) <= width else shown[: width - 1] + "…"
