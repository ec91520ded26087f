"""The Agent Client Protocol: JSON-RPC, spoken by `opencode acp`, `gemini --acp` and `qwen --acp`."""

from __future__ import annotations

from typing import Any

from kasmos.harnesses.conclusion import Usage, UsageSource
from kasmos.harnesses.dialect import report, unknown
from kasmos.harnesses.events import (
    AgentEvent,
    ApprovalRequested,
    Message,
    Result,
    Thinking,
    ToolCall,
    ToolResult,
    UsageReport,
)
from kasmos.harnesses.evidence import Evidence, Verdict
from kasmos.harnesses.fields import amount_of, count_of, dict_of, text_of, word_of, words_of

_QUIET = frozenset(
    {"available_commands_update", "current_mode_update", "plan", "config_option_update", "session_info_update"}
)


class AgentProtocol:
    """Reads both directions of an ACP conversation."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self._usage = Usage()
        self._called: set[str] = set()
        self._cost: float | None = None
        self._text = ""

    def usage(self) -> Usage:
        """What was used, as far as it was told."""
        return self._usage

    def record(self, record: dict[str, Any]) -> list[AgentEvent]:
        """Take one record of JSON-RPC."""
        method, params = text_of(record.get("method")), dict_of(record.get("params"))
        id_ = word_of(params.get("sessionId")) or word_of(dict_of(record.get("result")).get("sessionId"))
        self.evidence.conversation = id_ or self.evidence.conversation
        if method == "session/update":
            return self._update(dict_of(params.get("update")), record)
        if method == "session/request_permission":
            call = dict_of(params.get("toolCall"))
            tool = text_of(call.get("kind")) or text_of(call.get("title"))
            return [
                ApprovalRequested(
                    tool, call.get("rawInput"), word_of(call.get("toolCallId")), text_of(call.get("title"))
                )
            ]
        if method == "session/prompt":
            self.evidence.go_on()
            self._text = ""
        if method:
            return []
        if "error" in record:
            error = dict_of(record.get("error"))
            details = words_of(dict_of(error.get("data")).get("details"))
            problem = self.evidence.judge(": ".join(filter(None, (words_of(error), details))))
            self.evidence.settle(Verdict(False, "error", problem))
            return [report(problem)]
        return self._response(dict_of(record.get("result")))

    def _response(self, result: dict[str, Any]) -> list[AgentEvent]:
        reason = word_of(result.get("stopReason"))
        outcome = dict_of(result.get("outcome"))
        if outcome and text_of(outcome.get("optionId")) in ("reject", "cancel", "reject_once", "reject_always"):
            self.evidence.deny("")
        if reason is None:
            return []
        events = self._count(result)
        if reason == "cancelled":
            self.evidence.interrupted = True
            self.evidence.settle(Verdict(False, reason, self.evidence.judge("the turn was cancelled")))
        elif reason in ("refusal", "max_turn_requests"):
            words = (
                "the model declined to answer" if reason == "refusal" else "the limit of turns was reached: turn limit"
            )
            self.evidence.settle(Verdict(False, reason, self.evidence.judge(words)))
        else:
            self.evidence.answer = self._text
            empty = not self._text.strip()
            self.evidence.settle(Verdict(True, reason, empty=empty, cut_off=reason == "max_tokens"))
        return [*events, Result(self._text, not (self.evidence.verdict and self.evidence.verdict.ok), reason)]

    def _update(self, update: dict[str, Any], record: dict[str, Any]) -> list[AgentEvent]:
        kind = text_of(update.get("sessionUpdate"))
        text = words_of(update.get("content"))
        if kind == "agent_message_chunk":
            self._text = (self._text + text)[-65_536:]
            self.evidence.say(self._text)
            return [Message(text, partial=True)]
        if kind == "agent_thought_chunk":
            return [Thinking(text)]
        if kind == "user_message_chunk":
            return [Message(text, "user", partial=True)]
        if kind in ("tool_call", "tool_call_update"):
            return self._tool(update)
        if kind == "usage_update":
            self._cost = amount_of(dict_of(update.get("cost")).get("amount"))
            return []
        return [] if kind in _QUIET else [unknown(record, kind or None)]

    def _tool(self, update: dict[str, Any]) -> list[AgentEvent]:
        id_ = word_of(update.get("toolCallId"))
        tool = text_of(update.get("kind")) or text_of(update.get("title"))
        events: list[AgentEvent] = []
        if id_ is None or id_ not in self._called:
            events.append(ToolCall(tool, update.get("rawInput"), id_))
            if id_ is not None and len(self._called) < 4096:
                self._called.add(id_)
        self.evidence.go_on()
        self._text = ""
        status = update.get("status")
        if status in ("completed", "failed"):
            output = words_of(update.get("content")) or words_of(update.get("rawOutput"))
            pattern = self.evidence.facts.denied
            denied = status == "failed" and pattern is not None and pattern.search(output[:2000]) is not None
            if denied:
                self.evidence.deny(tool)
            events.append(ToolResult(output, tool, id_, status == "failed", denied))
        return events

    def _count(self, result: dict[str, Any]) -> list[AgentEvent]:
        meta = dict_of(result.get("_meta"))
        found = dict_of(result.get("usage")) or dict_of(dict_of(meta.get("quota")).get("token_count"))
        input_ = count_of(found.get("input_tokens", found.get("inputTokens")))
        output = count_of(found.get("output_tokens", found.get("outputTokens")))
        if input_ is None and output is None:
            return []
        cached = count_of(found.get("cachedReadTokens"))
        money = self._cost or None
        source = UsageSource.UNKNOWN if money is None else UsageSource.REPORTED
        self._usage = Usage(
            input_, output, cached, cost_usd=money, source=UsageSource.REPORTED, cost_source=source, scope="process"
        )
        return [UsageReport(input_, output, cached, cost_usd=money)]
