"""What an agent says last, in a line: for those who look at many at once. Pure; nothing is made safe to print."""

from __future__ import annotations

from typing import Any

import attrs

from kasmos.model.agent_event import AgentEvent, ApprovalRequested, ErrorReport, Message, RateLimit, ToolCall

KEPT = 1000
"""Characters of a text that are looked at."""
_TELLING = ("command", "cmd", "file_path", "filePath", "path", "pattern", "query", "url", "description", "prompt")


def telling_input(value: Any) -> str:
    """What says most of a tool's input."""
    if isinstance(value, dict):
        for key in _TELLING:
            if isinstance(value.get(key), str) and value[key]:
                return str(value[key])
        return ", ".join(f"{key}={one}" for key, one in value.items())
    return "" if value is None else str(value)


def next_words(last: AgentEvent | None, event: AgentEvent) -> AgentEvent | None:
    """The event to be told in a line, now that *event* has come after *last*.

    Pieces of one message are told together; what keeps books, and what tools give back, is not told.
    """
    match event:
        case Message(role="assistant", text=text) if text.strip() or event.partial:
            if event.partial and isinstance(last, Message) and last.partial:
                return attrs.evolve(last, text=(last.text + text)[-KEPT:])
            return event if text.strip() else last
        case ToolCall() | ApprovalRequested() | ErrorReport():
            return event
        case RateLimit(status=status) if status != "allowed":
            return event
        case _:
            return last


def brief(event: AgentEvent | None) -> str:
    """An event in a line; empty where there is nothing to tell."""
    match event:
        case Message(text=text, partial=partial):
            lines = [line.strip() for line in text[-KEPT:].split("\n")] if partial else text[:KEPT].split("\n")
            told = [line.strip() for line in lines if line.strip()]
            return (told[-1] if partial else told[0]) if told else ""
        case ToolCall(tool=tool, input=given):
            return f"{tool}: {_first(telling_input(given))}".removesuffix(": ")
        case ApprovalRequested(tool=tool, input=given, message=message):
            return f"asks: {tool} {_first(telling_input(given) or message)}".rstrip()
        case ErrorReport(message=message, final=final):
            return f"error: {_first(message)}" + ("" if final else " (it tries again)")
        case RateLimit(message=message):
            return f"limit: {_first(message)}"
        case _:
            return ""


def _first(text: str) -> str:
    return next((line.strip() for line in text[:KEPT].split("\n") if line.strip()), "")
