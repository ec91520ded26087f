"""The stream of opencode: `opencode run --format json`.

Traps: there is no last line that says it is done: a `step_finish` whose reason is not `tool-calls` is the end. `input`
leaves out what came from the cache and `output` leaves out reasoning; both are summed over the steps. What helper
agents use is in conversations of their own and not in this stream.
"""

from __future__ import annotations

from typing import Any

from kasmos.harnesses.conclusion import Usage, UsageSource
from kasmos.harnesses.dialect import Dialect, report, unknown
from kasmos.harnesses.evidence import Evidence, Verdict
from kasmos.harnesses.fields import added, amount_of, count_of, dict_of, text_of, word_of, words_of
from kasmos.harnesses.rpc import AgentProtocol
from kasmos.model.agent_event import (
    AgentEvent,
    ErrorReport,
    Message,
    Result,
    Thinking,
    ToolCall,
    ToolResult,
    UsageReport,
)

_QUIET = ("step_start", "step-start", "snapshot", "patch", "compaction", "session.updated", "agent")
_OVER = ("stop", "other", "unknown", "end_turn")


class OpencodeDialect(Dialect):
    """Reads what opencode writes about itself."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence)
        self.handlers = {
            "text": self._text,
            "reasoning": self._reasoning,
            "tool_use": self._tool_use,
            "tool": self._tool_use,
            "step_finish": self._step_finish,
            "step-finish": self._step_finish,
            "error": self._error,
            **dict.fromkeys(_QUIET, self._quiet),
        }
        self._protocol = AgentProtocol(evidence, whole=False)
        self._counted: set[str] = set()
        self._usage = Usage()
        self._used_tool = False

    def record(self, record: dict[str, Any]) -> list[AgentEvent]:
        id_ = record.get("sessionID")
        if type(id_) is str and id_ and self.evidence.conversation is None:
            self.evidence.conversation = id_
        at = amount_of(record.get("timestamp"))
        if at is not None and at > 1e12:
            self.evidence.now = at / 1000
        return super().record(record)

    def usage(self) -> Usage:
        told = self._protocol.usage()
        return told if self._usage.source is UsageSource.UNKNOWN else self._usage

    def other(self, record: dict[str, Any]) -> list[AgentEvent]:
        if "jsonrpc" in record:
            return self._protocol.record(record)
        return super().other(record)

    def _quiet(self, record: dict[str, Any]) -> list[AgentEvent]:
        self.evidence.go_on()
        self._used_tool = False
        return []

    def _text(self, record: dict[str, Any]) -> list[AgentEvent]:
        text = text_of(_part(record).get("text"))
        self.evidence.say(text)
        return [Message(text)]

    def _reasoning(self, record: dict[str, Any]) -> list[AgentEvent]:
        self.evidence.go_on()
        return [Thinking(text_of(_part(record).get("text")))]

    def _tool_use(self, record: dict[str, Any]) -> list[AgentEvent]:
        part = _part(record)
        state = part.get("state")
        if type(state) is not dict:
            return [unknown(record)]
        self.evidence.go_on()
        self.evidence.answer = ""
        self._used_tool = True
        tool, id_ = text_of(part.get("tool")), word_of(part.get("callID")) or word_of(part.get("id"))
        call = ToolCall(tool, state.get("input"), id_)
        status = state.get("status")
        if status not in ("completed", "error"):
            return [call]
        failed = status == "error"
        output = words_of(state.get("error")) if failed else words_of(state.get("output"))
        denied = failed and self.facts_deny(output[:2000])
        if denied:
            self.evidence.deny(tool)
        code = dict_of(state.get("metadata")).get("exit")
        return [call, ToolResult(output, tool, id_, failed, denied, code if type(code) is int else None)]

    def _step_finish(self, record: dict[str, Any]) -> list[AgentEvent]:
        part = _part(record)
        events = self._count(part)
        reason = word_of(part.get("reason"))
        answer = self.evidence.answer
        if reason is None:
            # Older versions do not say why: a step that used no tool and said something was the last one.
            reason = "stop" if answer and not self._used_tool else "tool-calls"
        if reason in _OVER:
            self.evidence.settle(Verdict(True, reason, empty=not answer.strip()))
            return [*events, Result(answer, reason=reason)]
        if reason == "length":
            self.evidence.settle(Verdict(True, reason, empty=not answer.strip(), cut_off=True))
            return [*events, Result(answer, reason=reason)]
        if reason in ("content-filter", "error"):
            words = "the provider's content filter stopped the answer" if reason != "error" else "the step failed"
            problem = self.evidence.problem or self.evidence.judge(words)
            self.evidence.settle(Verdict(False, reason, problem))
            return [*events, Result(answer, True, reason)]
        self.evidence.go_on()
        return events

    def _error(self, record: dict[str, Any]) -> list[AgentEvent]:
        error = dict_of(record.get("error"))
        data = dict_of(error.get("data"))
        name = text_of(error.get("name"))
        words = words_of(data.get("message")) or words_of(record.get("error")) or name or "an error without words"
        headers = dict_of(data.get("responseHeaders"))
        after = text_of(headers.get("retry-after"))
        body = text_of(data.get("responseBody"))
        if name == "MessageAbortedError":
            self.evidence.interrupted = True
        problem = self.evidence.judge(
            words,
            hint=f"{name} {body[:500]}",
            status=count_of(data.get("statusCode")),
            after=float(after) if after.isdigit() else None,
        )
        self.evidence.settle(Verdict(False, name or "error", problem))
        event: ErrorReport = report(problem)
        return [event]

    def _count(self, part: dict[str, Any]) -> list[AgentEvent]:
        tokens = dict_of(part.get("tokens"))
        id_ = text_of(part.get("id"))
        fresh, out = count_of(tokens.get("input")), count_of(tokens.get("output"))
        if (fresh is None and out is None) or id_ in self._counted:
            return []
        if id_ and len(self._counted) < 100_000:
            self._counted.add(id_)
        cache = dict_of(tokens.get("cache"))
        read, written = count_of(cache.get("read")), count_of(cache.get("write"))
        reasoning, cost = count_of(tokens.get("reasoning")), amount_of(part.get("cost"))
        input_, output = added(added(fresh, read), written), added(out, reasoning)
        before = self._usage
        money = cost if before.cost_usd is None else before.cost_usd + (cost or 0.0)
        self._usage = Usage(
            added(before.input_tokens, input_),
            added(before.output_tokens, output),
            added(before.cached_tokens, read),
            added(before.cache_write_tokens, written),
            added(before.reasoning_tokens, reasoning),
            money,
            UsageSource.REPORTED,
            # From opencode's own table of prices.
            UsageSource.UNKNOWN if money is None else UsageSource.PRICED,
            cached_in_input=True,
        )
        return [UsageReport(input_, output, read, reasoning, cost, "step")]


def _part(record: dict[str, Any]) -> dict[str, Any]:
    part = record.get("part")
    return part if type(part) is dict else record
