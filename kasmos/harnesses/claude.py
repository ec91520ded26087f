"""The stream of Claude Code. `qwen` has that of Qwen Code, which speaks alike, `claude_usage` what both count.

Traps: the usage of an `assistant` line is the value at its start and is repeated for every block of one message, so it
is never summed; in a process of several turns `usage` counts the turn, `total_cost_usd` and `modelUsage` the process;
`subtype: "success"` with `is_error: true` is the usual shape of an error.
"""

from __future__ import annotations

import re
from typing import Any

import attrs

from kasmos.harnesses.claude_usage import MAX_OPEN, Messages, total_of, usage_of, usage_of_model, with_cost
from kasmos.harnesses.conclusion import Usage, UsageSource
from kasmos.harnesses.dialect import Dialect, report, unknown
from kasmos.harnesses.evidence import Evidence, Verdict
from kasmos.harnesses.fields import added, amount_of, count_of, dict_of, instant_of, list_of, text_of, word_of, words_of
from kasmos.harnesses.words import Comeback
from kasmos.model.agent_event import (
    AgentEvent,
    ApprovalRequested,
    Message,
    RateLimit,
    Result,
    Thinking,
    ToolCall,
    ToolResult,
    UsageReport,
)

_QUIET = frozenset({
    "control_response", "control_cancel_request", "keep_alive", "tool_progress", "auth_status", "tool_use_summary",
    "prompt_suggestion", "streamlined_text", "streamlined_tool_use_summary", "update_environment_variables",
})  # fmt: skip
_QUIET_SYSTEM = frozenset({
    "init", "status", "session_start", "session_end", "compact_boundary", "microcompact_boundary", "hook_started",
    "hook_progress", "hook_response", "hook_callback", "task_started", "task_updated", "task_progress",
    "task_notification", "files_persisted", "session_state_changed", "model_refusal_no_fallback",
    "elicitation_complete", "local_command_output", "post_turn_summary", "informational", "turn_duration",
    "stop_hook_summary",
})  # fmt: skip
_ABORTED = re.compile(r"request was aborted|\baborterror\b|interrupted by (?:the )?user", re.IGNORECASE)


class ClaudeDialect(Dialect):
    """Reads the stream-json of Claude Code, and its `--output-format json`."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence)
        self.handlers = {
            "assistant": self._assistant,
            "user": self._user,
            "system": self._system,
            "result": self._result,
            "stream_event": self._stream_event,
            "rate_limit_event": self._rate_limit,
            "control_request": self._control_request,
            "error": self._error,
            **dict.fromkeys(_QUIET, self._quiet),
        }
        self._tools: dict[str, str] = {}
        self._synthetic = False
        # Until a result tells what was used: what each message began with, by its id.
        self._started = Messages()
        self._turns = Usage()
        self._process = Usage()
        self._cost: float | None = None
        self._streamed: int | None = None

    def usage(self) -> Usage:
        if self._process.source is not UsageSource.UNKNOWN:
            told = self._process
        elif self._turns.source is not UsageSource.UNKNOWN:
            told = self._turns
        else:
            told = self._begun()
        return with_cost(told, self._cost)

    def _quiet(self, record: dict[str, Any]) -> list[AgentEvent]:
        return []

    def _assistant(self, record: dict[str, Any]) -> list[AgentEvent]:
        message = record.get("message")
        if type(message) is not dict:
            return [unknown(record)]
        parent = word_of(record.get("parent_tool_use_id"))
        evidence = self.evidence
        self._conversation(record)
        model = message.get("model")
        self._synthetic = model == "<synthetic>" or record.get("isApiErrorMessage") is True
        if self._synthetic and (record.get("error") or record.get("isApiErrorMessage") or self._is_api_error(message)):
            hint = text_of(record.get("error"))
            return [report(evidence.judge(words_of(message.get("content")), hint=hint))]
        if parent is None and type(model) is str and model:
            evidence.model = model
        usage = message.get("usage")
        if type(usage) is dict:
            self._started.put(text_of(message.get("id")), usage)
        events = self._blocks(message.get("content"), "assistant", parent)
        if events:
            evidence.go_on()
        return events

    def _is_api_error(self, message: dict[str, Any]) -> bool:
        return words_of(message.get("content")).startswith(("API Error", "[API Error"))

    def _user(self, record: dict[str, Any]) -> list[AgentEvent]:
        message = record.get("message")
        if type(message) is not dict:
            return [unknown(record)]
        self._conversation(record)
        events = self._blocks(message.get("content"), "user", word_of(record.get("parent_tool_use_id")))
        if any(type(event) is Message and event.text.startswith("[Request interrupted by user") for event in events):
            self.evidence.interrupted = True
        elif events:
            self.evidence.go_on()
        return events

    def _blocks(self, content: Any, role: str, parent: str | None) -> list[AgentEvent]:
        if type(content) is str:
            return [self._said(content, role, parent)]
        events: list[AgentEvent] = []
        for block in list_of(content):
            kind = block.get("type") if type(block) is dict else None
            if kind == "text":
                events.append(self._said(text_of(block.get("text")), role, parent))
            elif kind == "thinking":
                events.append(Thinking(text_of(block.get("thinking")) or text_of(block.get("text")), parent))
            elif kind == "redacted_thinking":
                events.append(Thinking("", parent))
            elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
                events.append(self._called(block, parent))
            elif type(kind) is str and kind.endswith("tool_result"):
                events.append(self._returned(block, parent))
            elif kind == "image":
                events.append(Message("[image]", role, parent=parent))
            else:
                events.append(unknown(dict_of(block), kind if type(kind) is str else None))
        return events

    def _said(self, text: str, role: str, parent: str | None) -> Message:
        if role == "assistant" and parent is None:
            self.evidence.say(text)
        return Message(text, role, parent=parent)

    def _called(self, block: dict[str, Any], parent: str | None) -> ToolCall:
        tool, id_ = text_of(block.get("name")), word_of(block.get("id"))
        if id_ is not None:
            if len(self._tools) >= MAX_OPEN:
                self._tools.clear()
            self._tools[id_] = tool
        if parent is None:
            self.evidence.answer = ""
        return ToolCall(tool, block.get("input"), id_, parent)

    def _returned(self, block: dict[str, Any], parent: str | None) -> ToolResult:
        id_ = word_of(block.get("tool_use_id"))
        tool = self._tools.pop(id_, None) if id_ is not None else None
        output = words_of(block.get("content"))
        is_error = block.get("is_error") is True
        denied = is_error and self.facts_deny(output[:2000])
        if denied:
            self.evidence.deny(tool or "")
        return ToolResult(output, tool, id_, is_error, denied, parent=parent)

    def _conversation(self, record: dict[str, Any]) -> None:
        id_ = record.get("session_id")
        if type(id_) is str and id_:
            self.evidence.conversation = id_

    def _system(self, record: dict[str, Any]) -> list[AgentEvent]:
        self._conversation(record)
        evidence = self.evidence
        kind = text_of(record.get("subtype"))
        if kind in ("init", "session_start"):
            inner = record if kind == "init" else dict_of(record.get("data"))
            evidence.model = word_of(inner.get("model")) or evidence.model
            for key in ("claude_code_version", "qwen_code_version", "version"):
                evidence.version = word_of(inner.get(key)) or evidence.version
            return []
        if kind in ("api_retry", "api_error"):
            return [self._retry(record)]
        return [] if kind in _QUIET_SYSTEM else [unknown(record, f"system/{kind}")]

    def _retry(self, record: dict[str, Any]) -> AgentEvent:
        words = words_of(record.get("error")) or words_of(record.get("message")) or "the request failed"
        delay = amount_of(record.get("retry_delay_ms"))
        after = None if delay is None else delay / 1000
        status = count_of(record.get("error_status"))
        problem = self.evidence.judge(words, status=status, final=False, after=after)
        if problem.kind.value == "rate_limit":
            return RateLimit(words, "limited", after, problem.comeback.reset_at, count_of(record.get("attempt")))
        return report(problem)

    def _rate_limit(self, record: dict[str, Any]) -> list[AgentEvent]:
        info = dict_of(record.get("rate_limit_info")) or record
        status = text_of(info.get("status")) or "limited"
        at = instant_of(info.get("resetsAt")) or instant_of(info.get("resets_at"))
        now = self.evidence.now
        after = None if at is None or now is None else max(at - now, 0.0)
        known = "rejected" if status == "rejected" else "allowed" if status == "allowed" else "warning"
        if known == "rejected":
            self.evidence.comeback = Comeback(after, at)
        kind = text_of(info.get("rateLimitType")) or text_of(info.get("rate_limit_type"))
        return [RateLimit(f"{status} {kind}".strip(), known, after, at)]

    def _control_request(self, record: dict[str, Any]) -> list[AgentEvent]:
        request = dict_of(record.get("request"))
        if request.get("subtype") != "can_use_tool":
            return []
        tool = text_of(request.get("tool_name"))
        id_ = word_of(record.get("request_id"))
        return [ApprovalRequested(tool, request.get("input"), id_, text_of(request.get("description")))]

    def _error(self, record: dict[str, Any]) -> list[AgentEvent]:
        error = dict_of(record.get("error"))
        words = words_of(record.get("error")) or words_of(record.get("message"))
        return [report(self.evidence.judge(words, hint=text_of(error.get("type"))))]

    def _stream_event(self, record: dict[str, Any]) -> list[AgentEvent]:
        # Pieces of what comes whole in an `assistant` line. Only they tell how many tokens came out before a kill.
        event = dict_of(record.get("event"))
        if event.get("type") == "message_delta":
            usage = dict_of(event.get("usage"))
            self._streamed = added(self._streamed, count_of(usage.get("output_tokens")))
        return []

    def _result(self, record: dict[str, Any]) -> list[AgentEvent]:
        self._conversation(record)
        evidence = self.evidence
        subtype, text = text_of(record.get("subtype")), words_of(record.get("result"))
        denials = record.get("permission_denials")
        if type(denials) is list:
            # Exact, where the words of a tool's result are not: an interrupt reads like a refusal.
            evidence.denied.clear()
            for one in denials:
                evidence.deny(text_of(dict_of(one).get("tool_name")))
        reason = word_of(record.get("terminal_reason")) or word_of(record.get("stop_reason")) or word_of(subtype)
        if (word_of(record.get("terminal_reason")) or "").startswith("aborted"):
            evidence.interrupted = True
        failed = self._failed(record, subtype, text)
        events: list[AgentEvent] = []
        if failed:
            words = self._words(record, text, subtype)
            hint = f"{subtype} {record.get('terminal_reason')} {record.get('stop_reason')}"
            hint = hint.replace("_", " ") + (" model_refusal" if record.get("stop_reason") == "refusal" else "")
            if _ABORTED.search(words):
                evidence.interrupted = True
            before = evidence.problem
            problem = evidence.judge(words, hint=hint, status=count_of(record.get("api_error_status")))
            evidence.settle(Verdict(False, reason, problem))
            if before is None or before.message != problem.message:
                events.append(report(problem))
        else:
            evidence.interrupted = False
            empty = not text.strip() and record.get("structured_output") is None
            evidence.answer = text or evidence.answer
            evidence.settle(Verdict(True, reason, empty=empty, cut_off=record.get("stop_reason") == "max_tokens"))
        events += self._count(record, failed)
        events.append(Result(text, failed, reason))
        return events

    def _failed(self, record: dict[str, Any], subtype: str, text: str) -> bool:
        if record.get("is_error") is True or subtype.startswith("error"):
            return True
        return record.get("stop_reason") == "refusal" or (self._synthetic and text.startswith("API Error"))

    def _words(self, record: dict[str, Any], text: str, subtype: str) -> str:
        said = words_of(record.get("errors")) or text or words_of(record.get("error"))
        return said or subtype.replace("_", " ") or "the program says that it failed"

    def _count(self, record: dict[str, Any], failed: bool) -> list[AgentEvent]:
        cost = amount_of(record.get("total_cost_usd"))
        for key in ("cost_usd", "total_cost"):  # of older versions
            cost = amount_of(record.get(key)) if cost is None else cost
        turn = usage_of(dict_of(record.get("usage")))
        models = [dict_of(one) for one in dict_of(record.get("modelUsage")).values()]
        process = total_of([usage_of_model(one) for one in models])
        nothing = failed and not any((turn.input_tokens, turn.output_tokens, process.input_tokens, cost))
        if nothing:
            return []  # zeros of a turn that came to nothing: nobody counted
        if cost is not None:
            self._cost = cost if self._cost is None else max(self._cost, cost)
        self._turns = total_of([self._turns, turn])
        if failed and turn.output_tokens is not None and turn.output_tokens <= len(self._started):
            turn = attrs.evolve(turn, output_tokens=None)
        if failed and process.output_tokens is not None and process.output_tokens <= len(self._started):
            # Broken off in its first answer: this is the one token that every answer begins with.
            process = attrs.evolve(process, output_tokens=None)
        if process.source is not UsageSource.UNKNOWN:
            self._process = process
        shown = turn if turn.source is not UsageSource.UNKNOWN else process
        if shown.source is UsageSource.UNKNOWN:
            return []
        return [UsageReport(shown.input_tokens, shown.output_tokens, shown.cached_tokens, shown.reasoning_tokens, cost)]

    def _begun(self) -> Usage:
        """Without a result: what the messages began with. How much came out, only partial messages tell."""
        total = self._started.total
        if not total.input_tokens:
            return Usage()
        return Usage(
            input_tokens=total.input_tokens,
            output_tokens=self._streamed,
            cached_tokens=total.cached_tokens,
            cache_write_tokens=total.cache_write_tokens,
            source=UsageSource.ESTIMATED,
            cached_in_input=False,
        )
