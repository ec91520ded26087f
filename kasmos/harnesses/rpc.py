"""The Agent Client Protocol: JSON-RPC, spoken by `opencode acp`, `gemini --acp` and `qwen --acp`.

Traps: a session that is loaded tells all that was said in it once more; who is refused a tool need not say so, but the
answer that refused it is in the transcript; qwen counts each request apart, opencode tells of the last one only, gemini
leaves out what was thought.
"""

from __future__ import annotations

from typing import Any

import attrs

from kasmos.harnesses.conclusion import Usage, UsageSource
from kasmos.harnesses.dialect import report, unknown
from kasmos.harnesses.evidence import Evidence, Verdict
from kasmos.harnesses.fields import added, amount_of, count_of, dict_of, list_of, text_of, word_of, words_of
from kasmos.model.agent_event import (
    AgentEvent,
    ApprovalRequested,
    Message,
    Result,
    Thinking,
    ToolCall,
    ToolResult,
    UsageReport,
)

_QUIET = frozenset(
    {"available_commands_update", "current_mode_update", "plan", "config_option_update", "session_info_update"}
)


class AgentProtocol:
    """Reads both directions of an ACP conversation.

    Args:
        evidence: what is filled.
        whole: whether the numbers of a response are those of the whole turn.
    """

    def __init__(self, evidence: Evidence, *, whole: bool = True) -> None:
        self.evidence = evidence
        self._whole = whole
        self._loading = False
        """Whether what is told was said in an earlier turn."""
        self._refusing: dict[Any, tuple[str, list[str]]] = {}
        """What is asked: the tool and the options that refuse it, by the request's id."""
        self._usage = self._earlier = Usage()
        """What was used, and what of it before the prompt that is under way."""
        self._called: set[str] = set()
        self._tools: dict[str, str] = {}
        """What each tool call uses, by its id: what is told of it later need not say so again."""
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
            return [] if self._loading else self._update(dict_of(params.get("update")), record)
        if method == "session/request_permission":
            return [self._asked(params, record.get("id"))]
        if method == "session/load":
            self._loading = True
        if method == "session/prompt":
            self._loading = False
            self._earlier = self._usage
            self.evidence.go_on()
            self._text = ""
            # Why a person said no; the task's own prompt is not in the log.
            text = words_of(params.get("prompt"))
            return [Message(text, "user")] if text else []
        if method:
            return []
        if "error" in record:
            error = dict_of(record.get("error"))
            details = words_of(dict_of(error.get("data")).get("details"))
            problem = self.evidence.judge(": ".join(filter(None, (words_of(error), details))))
            self.evidence.settle(Verdict(False, "error", problem))
            return [report(problem)]
        result = dict_of(record.get("result"))
        if type(result.get("outcome")) is dict:
            self._answered(record.get("id"), text_of(result["outcome"].get("optionId")))
        return self._response(result)

    def _asked(self, params: dict[str, Any], key: Any) -> ApprovalRequested:
        call = dict_of(params.get("toolCall"))
        tool = text_of(call.get("kind")) or text_of(call.get("title"))
        options = map(dict_of, list_of(params.get("options")))
        refusing = [text_of(one.get("optionId")) for one in options if text_of(one.get("kind")).startswith("reject")]
        if type(key) in (int, str) and len(self._refusing) < 4096:
            self._refusing[key] = tool, refusing
        title, id_ = text_of(call.get("title")), word_of(call.get("toolCallId"))
        if id_ is not None and len(self._tools) < 4096:
            self._tools.setdefault(id_, tool)
        return ApprovalRequested(tool, _input(call), id_, title)

    def _answered(self, key: Any, option: str) -> None:
        tool, refusing = self._refusing.pop(key, ("", [])) if type(key) in (int, str) else ("", [])
        if option in refusing:
            self.evidence.deny(tool)

    def _response(self, result: dict[str, Any]) -> list[AgentEvent]:
        reason = word_of(result.get("stopReason"))
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
            step = dict_of(dict_of(update.get("_meta")).get("usage"))
            if step:
                return self._count_step(step)
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
        tool = text_of(update.get("kind")) or self._tools.get(id_ or "", "") or text_of(update.get("title"))
        tool = tool or text_of(dict_of(update.get("_meta")).get("toolName"))
        events: list[AgentEvent] = []
        if id_ is None or id_ not in self._called:
            events.append(ToolCall(tool, _input(update), id_))
            if id_ is not None and len(self._called) < 4096:
                self._called.add(id_)
                self._tools.setdefault(id_, tool)
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
        quota = dict_of(dict_of(meta.get("quota")).get("token_count"))
        told = _usage(dict_of(result.get("usage")) or quota) if self._whole else Usage()
        if quota and told.source is UsageSource.REPORTED:
            told = attrs.evolve(told, source=UsageSource.ESTIMATED)  # gemini leaves out what was thought
        money = self._cost or None
        if told.input_tokens is None and told.output_tokens is None and money is None:
            return []
        source = UsageSource.UNKNOWN if money is None else UsageSource.REPORTED
        self._usage = attrs.evolve(_sum(self._earlier, told), cost_usd=money, cost_source=source)
        return [UsageReport(told.input_tokens, told.output_tokens, told.cached_tokens, cost_usd=money)]

    def _count_step(self, found: dict[str, Any]) -> list[AgentEvent]:
        step = _usage(found)
        if step.source is UsageSource.UNKNOWN:
            return []
        self.evidence.go_on()
        self._usage = _sum(self._usage, step)
        return [UsageReport(step.input_tokens, step.output_tokens, step.cached_tokens, scope="step")]


def _input(call: dict[str, Any]) -> Any:
    title = word_of(call.get("title"))
    return call.get("rawInput") or (title and {"title": title})


def _sum(before: Usage, told: Usage) -> Usage:
    """All tokens together; what else is known of them is as *told*."""
    return attrs.evolve(
        told,
        input_tokens=added(before.input_tokens, told.input_tokens),
        output_tokens=added(before.output_tokens, told.output_tokens),
        cached_tokens=added(before.cached_tokens, told.cached_tokens),
        reasoning_tokens=added(before.reasoning_tokens, told.reasoning_tokens),
    )


def _usage(found: dict[str, Any]) -> Usage:
    input_ = count_of(found.get("input_tokens", found.get("inputTokens")))
    output = count_of(found.get("output_tokens", found.get("outputTokens")))
    if input_ is None and output is None:
        return Usage()
    cached, total = count_of(found.get("cachedReadTokens")), count_of(found.get("totalTokens"))
    return Usage(
        input_,
        output,
        cached,
        reasoning_tokens=count_of(found.get("thoughtTokens")),
        source=UsageSource.REPORTED,
        scope="process",
        cached_in_input=None if cached is None else total == (input_ or 0) + (output or 0),
    )
