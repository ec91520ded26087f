"""How an event of the agents' vocabulary (`kasmos.model.agent_event`) is rendered."""

from __future__ import annotations

from typing import Any

import attrs

from kasmos.harnesses.fields import mended
from kasmos.model.agent_event import AgentEvent, kind_of
from kasmos.model.codec import CodecError, encode

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
