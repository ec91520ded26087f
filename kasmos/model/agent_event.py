"""What an agent program says, in one vocabulary.

Every program's own stream becomes these ten kinds of event. They are facts of the transcript and promise
nothing: a `tool_call` without a `tool_result` is a tool that was running when the transcript ended.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from typing import Any

from kasmos.model.codec import CodecError, convert
from kasmos.model.value import frozen


@frozen
class Message:
    """The agent, or whoever speaks to it, says something."""

    text: str
    role: str = "assistant"
    partial: bool = False
    """Whether this is a piece of a message whose other pieces are events of their own."""
    parent: str | None = None
    """Id of the tool call whose helper agent says it; None for the agent itself."""


@frozen
class Thinking:
    """The agent reasons; empty where the program says that it does and not what."""

    text: str
    parent: str | None = None


@frozen
class ToolCall:
    """The agent uses a tool."""

    tool: str
    input: Any = None
    id: str | None = None
    parent: str | None = None


@frozen
class ToolResult:
    """What a tool gave back."""

    output: str
    tool: str | None = None
    id: str | None = None
    is_error: bool = False
    denied: bool = False
    """Whether the tool did not run because it was not allowed to."""
    exit_code: int | None = None
    parent: str | None = None


@frozen
class UsageReport:
    """Tokens and money, as this line of the transcript tells them; `Conclusion.usage` is what they come to."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    scope: str = "turn"
    """What the numbers count: a `step`, a `turn`, the `process`, or the whole `conversation`."""


@frozen
class RateLimit:
    """The model's server, or the program, tells of a limit."""

    message: str
    status: str = "limited"
    """`allowed`, `warning`, `limited` (the program waits and tries again) or `rejected`."""
    retry_after: float | None = None
    """Seconds."""
    reset_at: float | None = None
    """Wall clock."""
    attempt: int | None = None


@frozen
class ApprovalRequested:
    """The program asks whether a tool may be used, or asks a question."""

    tool: str
    input: Any = None
    id: str | None = None
    message: str = ""


@frozen
class Result:
    """The program says that its turn is over."""

    text: str
    is_error: bool = False
    reason: str | None = None
    """The program's own word for how it ended."""


@frozen
class ErrorReport:
    """Something went wrong."""

    message: str
    kind: str = "unknown"
    """A word of `FailureKind`."""
    final: bool = True
    """False where the program goes on, for instance by trying again."""
    status: int | None = None
    """HTTP status, where the program tells it."""


@frozen
class Unknown:
    """A line that is not understood: of a newer program, or not of the program at all."""

    name: str | None = None
    """The kind it gives itself."""
    text: str = ""
    """The line, at most `MAX_UNKNOWN` characters of it."""


AgentEvent = (
    Message
    | Thinking
    | ToolCall
    | ToolResult
    | UsageReport
    | RateLimit
    | ApprovalRequested
    | Result
    | ErrorReport
    | Unknown
)
"""Any event of an agent program."""

MAX_UNKNOWN = 2000
"""Characters that are kept of a line that is not understood."""

_NAMES: dict[type[Any], str] = {UsageReport: "usage", ErrorReport: "error"}


def agent_event_kind(event: AgentEvent) -> str:
    """The stable name of an event's kind, such as `tool_call`."""
    return kind_of(type(event))


def kind_of(cls: type[Any]) -> str:
    """The stable name of a kind of event."""
    return _NAMES.get(cls) or re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


_CLASSES: dict[str, type[AgentEvent]] = {kind_of(cls): cls for cls in typing.get_args(AgentEvent)}
AGENT_EVENT_KINDS: tuple[str, ...] = tuple(_CLASSES)
"""Every kind of event there is."""


def agent_event_of(value: Mapping[str, Any]) -> AgentEvent:
    """Make an event of its JSON object; one of a kind that only a newer kasmos knows is `Unknown`, by that kind's name.

    Raises:
        CodecError: it is none.
    """
    kind = value.get("type")
    if not isinstance(kind, str):
        raise CodecError("an event of an agent has a type")
    cls = _CLASSES.get(kind)
    return Unknown(kind) if cls is None else convert(value, cls)
