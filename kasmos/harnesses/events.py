"""The vocabulary of agents' events (`kasmos.model.agent_event`), for those who make them; and how one is rendered."""

from __future__ import annotations

from typing import Any

import attrs

from kasmos.harnesses.fields import mended
from kasmos.model.agent_event import (
    AGENT_EVENT_KINDS,
    MAX_UNKNOWN,
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
    agent_event_kind,
    kind_of,
)
from kasmos.model.codec import CodecError, encode

__all__ = [
    "AGENT_EVENT_KINDS",
    "MAX_UNKNOWN",
    "AgentEvent",
    "ApprovalRequested",
    "ErrorReport",
    "Message",
    "RateLimit",
    "Result",
    "Thinking",
    "ToolCall",
    "ToolResult",
    "Unknown",
    "UsageReport",
    "agent_event_kind",
    "render_agent_event",
]

_HEADS: dict[type[Any], bytes] = {}


def render_agent_event(event: AgentEvent) -> bytes:
    """Render an event as one JSON object: `type`, then its fields."""
    cls = type(event)
    head = _HEADS.get(cls)
    if head is None:
        head = _HEADS[cls] = b'{"type":"' + kind_of(cls).encode() + b'",'
    try:
        return head + encode(event)[1:]
    except (CodecError, OverflowError):
        # A number or a letter that no JSON of ours has; the event is worth more than it.
        return head + encode(mended(attrs.asdict(event, recurse=False)))[1:]
