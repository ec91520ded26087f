"""The stream of Qwen Code: Claude's shape, other truths."""

from __future__ import annotations

from typing import Any

import attrs

from kasmos.harnesses.claude import ClaudeDialect
from kasmos.harnesses.claude_usage import usage_of
from kasmos.harnesses.conclusion import Usage, UsageSource
from kasmos.harnesses.evidence import Evidence
from kasmos.harnesses.fields import dict_of
from kasmos.harnesses.rpc import AgentProtocol
from kasmos.model.agent_event import AgentEvent


class QwenDialect(ClaudeDialect):
    """Reads what Qwen Code writes about itself.

    An error of the server is a `result` that says that all is well; usage counts the whole conversation,
    resumed parts and hidden helpers included.
    """

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence)
        self._protocol = AgentProtocol(evidence)
        self._last: Usage | None = None

    def other(self, record: dict[str, Any]) -> list[AgentEvent]:
        return self._protocol.record(record) if "jsonrpc" in record else super().other(record)

    def _failed(self, record: dict[str, Any], subtype: str, text: str) -> bool:
        return super()._failed(record, subtype, text) or text.lstrip().startswith("[API Error:")

    def usage(self) -> Usage:
        told = super().usage()
        if told.source is UsageSource.UNKNOWN:
            return self._protocol.usage()
        whole = self._last or told
        return Usage(
            whole.input_tokens, whole.output_tokens, whole.cached_tokens, whole.cache_write_tokens,
            whole.reasoning_tokens, self._cost, told.source, told.cost_source, "conversation", True,
        )  # fmt: skip

    def _count(self, record: dict[str, Any], failed: bool) -> list[AgentEvent]:
        events = super()._count(record, failed)
        turn = usage_of(dict_of(record.get("usage")))
        if events and turn.source is not UsageSource.UNKNOWN:
            self._last = turn
        return events

    def _begun(self) -> Usage:
        # What a message of Qwen's carries is what it used in the end; helpers are not among them.
        total = self._started.total
        return attrs.evolve(total, cached_in_input=True) if total.input_tokens else Usage()
