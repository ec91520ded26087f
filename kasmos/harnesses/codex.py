"""The stream of Codex: `codex exec --json`, its older form, and the app server's notifications.

Traps: `turn.completed.usage` is the total of the whole thread after a resume or a fork; `error` lines that say
`Reconnecting...` are not the end; a command that the sandbox refuses gives no item at all, only a line on stderr.
"""

from __future__ import annotations

import re
from typing import Any

from kasmos.harnesses.conclusion import Usage, UsageSource
from kasmos.harnesses.dialect import Dialect, report, unknown
from kasmos.harnesses.evidence import Evidence, Verdict
from kasmos.harnesses.fields import amount_of, count_of, dict_of, instant_of, list_of, text_of, word_of, words_of
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

_RETRYING = re.compile(r"^(?:Reconnecting|Retrying|stream error: .*retrying)|; retrying \d", re.IGNORECASE)
_QUIET = frozenset({"turn.started", "thread.resumed", "item.delta", "turn.plan.updated", "turn.diff.updated"})
_OLD_QUIET = frozenset({
    "task_started", "turn_started", "agent_message_delta", "agent_reasoning_delta", "agent_reasoning_raw_content_delta",
    "agent_reasoning_section_break", "exec_command_output_delta", "turn_diff", "user_message", "plan_update",
    "background_event", "session_meta", "shutdown_complete", "thread_name_updated", "mcp_startup_update",
    "mcp_startup_complete", "agent_message_content_delta", "reasoning_content_delta", "item_started",
    "item_completed", "raw_response_item", "deprecation_notice", "skills_update_available",
})  # fmt: skip
_QUIET_METHODS = (
    "account/", "thread/", "turn/", "remoteControl/", "serverRequest/", "item/", "config", "deprecation", "mcpServer/",
    "windows", "fuzzy", "rawResponseItem", "skills/", "app/",
)  # fmt: skip


class CodexDialect(Dialect):
    """Reads what Codex writes about itself."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence)
        self.handlers = {
            "thread.started": self._thread_started,
            "item.started": self._item_started,
            "item.updated": self._item_updated,
            "item.completed": self._item_completed,
            "turn.completed": self._turn_completed,
            "turn.failed": self._turn_failed,
            "turn.aborted": self._turn_aborted,
            "error": self._error,
            **dict.fromkeys(_QUIET, self._quiet),
        }
        self._usage = Usage()
        self._open: set[str] = set()

    def usage(self) -> Usage:
        return self._usage

    def other(self, record: dict[str, Any]) -> list[AgentEvent]:
        message = record.get("msg")
        if type(message) is dict:
            return self._old(message, record)
        if type(record.get("method")) is str:
            return self._method(record)
        if "type" not in record and ("result" in record or "error" in record) and "id" in record:
            return self._response(record)
        if "type" not in record and ("model" in record or "prompt" in record):
            # The older form opens with its settings and the prompt.
            self.evidence.model = word_of(record.get("model")) or self.evidence.model
            return []
        return super().other(record)

    def _quiet(self, record: dict[str, Any]) -> list[AgentEvent]:
        self.evidence.go_on()
        return []

    def _thread_started(self, record: dict[str, Any]) -> list[AgentEvent]:
        id_ = word_of(record.get("thread_id")) or word_of(record.get("session_id"))
        self.evidence.conversation = id_ or self.evidence.conversation
        return []

    # -- items -----------------------------------------------------------------------------------------

    def _item_started(self, record: dict[str, Any]) -> list[AgentEvent]:
        item = dict_of(record.get("item"))
        call = _call_of(item)
        if call is None:
            return []
        self.evidence.go_on()
        if call.id is not None and len(self._open) < 4096:
            self._open.add(call.id)
        return [call]

    def _item_updated(self, record: dict[str, Any]) -> list[AgentEvent]:
        return []

    def _item_completed(self, record: dict[str, Any]) -> list[AgentEvent]:
        item = record.get("item")
        if type(item) is not dict:
            return [unknown(record)]
        kind = _kind_of(item)
        if kind in ("agent_message", "assistant_message"):
            return self._said(text_of(item.get("text")))
        if kind == "reasoning":
            self.evidence.go_on()
            return [Thinking(words_of(item.get("text")) or words_of(item.get("summary")))]
        if kind == "error":
            problem = self.evidence.judge(words_of(item.get("message")) or words_of(item), final=False)
            # A remark, such as that a model's data is not known; the turn goes on.
            self.evidence.problem = None
            return [report(problem)]
        if kind in ("user_message", "context_compaction"):
            return []
        call = _call_of(item)
        if call is None:
            return [unknown(record, f"item/{kind}")]
        return self._finished(item, kind, call)

    def _said(self, text: str) -> list[AgentEvent]:
        self.evidence.say(text)
        return [Message(text)]

    def _finished(self, item: dict[str, Any], kind: str, call: ToolCall) -> list[AgentEvent]:
        self.evidence.go_on()
        begun = call.id is not None and call.id in self._open
        if call.id is not None:
            self._open.discard(call.id)
        status = text_of(item.get("status"))
        code = item.get("exit_code", item.get("exitCode"))
        error = words_of(item.get("error"))
        output = text_of(item.get("aggregated_output")) or text_of(item.get("aggregatedOutput")) or error
        output = output or words_of(item.get("result"))
        denied = status == "declined" or self.facts_deny(output[:2000])
        if denied:
            self.evidence.deny(call.tool)
        failed = denied or status == "failed" or bool(error) or (type(code) is int and code != 0)
        result = ToolResult(output, call.tool, call.id, failed, denied, code if type(code) is int else None)
        return [result] if begun else [call, result]

    # -- turns -----------------------------------------------------------------------------------------

    def _turn_completed(self, record: dict[str, Any]) -> list[AgentEvent]:
        return [*self._count(dict_of(record.get("usage"))), *self._done()]

    def _done(self) -> list[AgentEvent]:
        answer = self.evidence.answer
        self.evidence.problem = None
        self.evidence.settle(Verdict(True, "completed", empty=not answer.strip()))
        return [Result(answer, reason="completed")]

    def _turn_failed(self, record: dict[str, Any]) -> list[AgentEvent]:
        return self._fail(record.get("error"))

    def _fail(self, error: Any) -> list[AgentEvent]:
        words = words_of(error) or "the turn failed"
        info = dict_of(error).get("codexErrorInfo")
        status = next((count_of(dict_of(one).get("httpStatusCode")) for one in dict_of(info).values()), None)
        hint = info if type(info) is str else " ".join(dict_of(info))
        before = self.evidence.problem
        problem = self.evidence.judge(_inner(words), hint=hint, status=status)
        self.evidence.settle(Verdict(False, "failed", problem))
        repeated = before is not None and before.final and before.message == problem.message
        events: list[AgentEvent] = [] if repeated else [report(problem)]
        return [*events, Result(problem.message, True, "failed")]

    def _turn_aborted(self, record: dict[str, Any]) -> list[AgentEvent]:
        reason = word_of(record.get("reason")) or "interrupted"
        self.evidence.interrupted = True
        problem = self.evidence.judge(f"the turn was aborted: {reason}")
        self.evidence.settle(Verdict(False, reason, problem))
        return [Result("", True, reason)]

    def _error(self, record: dict[str, Any]) -> list[AgentEvent]:
        words = words_of(record.get("message")) or words_of(record.get("error")) or "an error without words"
        return [self._trouble(words)]

    def _trouble(self, words: str, *, final: bool | None = None) -> AgentEvent:
        final = _RETRYING.search(words) is None if final is None else final
        problem = self.evidence.judge(_inner(words), final=final)
        if not final and problem.kind.value == "rate_limit":
            return RateLimit(words, "limited", problem.comeback.retry_after, problem.comeback.reset_at)
        return report(problem)

    def _count(self, usage: dict[str, Any]) -> list[AgentEvent]:
        found = {re.sub(r"(?<!^)(?=[A-Z])", "_", key).lower(): value for key, value in usage.items()}
        input_, output = count_of(found.get("input_tokens")), count_of(found.get("output_tokens"))
        if input_ is None and output is None:
            return []
        cached, written = count_of(found.get("cached_input_tokens")), count_of(found.get("cache_write_input_tokens"))
        reasoning = count_of(found.get("reasoning_output_tokens"))
        self._usage = Usage(
            input_, output, cached, written, reasoning,
            source=UsageSource.REPORTED, scope="conversation", cached_in_input=True,
        )  # fmt: skip
        return [UsageReport(input_, output, cached, reasoning, scope="conversation")]

    # -- the older form: {"id": ..., "msg": {"type": ...}} ---------------------------------------------

    def _old(self, message: dict[str, Any], record: dict[str, Any]) -> list[AgentEvent]:
        kind = text_of(message.get("type"))
        if kind in _OLD_QUIET:
            self.evidence.go_on()
            return []
        if kind == "session_configured":
            self.evidence.conversation = word_of(message.get("session_id")) or self.evidence.conversation
            self.evidence.model = word_of(message.get("model")) or self.evidence.model
            return []
        if kind == "agent_message":
            return self._said(text_of(message.get("message")))
        if kind in ("agent_reasoning", "agent_reasoning_raw_content"):
            return [Thinking(text_of(message.get("text")))]
        if kind.endswith("_approval_request"):
            tool = "shell" if kind.startswith("exec") else "apply_patch"
            asked = message.get("command") or message.get("changes")
            return [ApprovalRequested(tool, asked, word_of(message.get("call_id")), text_of(message.get("reason")))]
        if kind.endswith("_begin"):
            self.evidence.go_on()
            return [ToolCall(_old_tool(kind, message), _old_input(message), word_of(message.get("call_id")))]
        if kind.endswith("_end"):
            return [self._old_result(kind, message)]
        if kind == "token_count":
            return self._count(dict_of(dict_of(message.get("info")).get("total_token_usage")) or message)
        if kind in ("error", "stream_error", "warning"):
            words = words_of(message.get("message")) or "an error without words"
            return [self._trouble(words, final=False if kind != "error" else None)]
        if kind in ("task_complete", "turn_complete"):
            self.evidence.answer = text_of(message.get("last_agent_message")) or self.evidence.answer
            if self.evidence.problem is not None and self.evidence.problem.final:
                return self._fail(self.evidence.problem.message)
            return self._done()
        return self._turn_aborted(message) if kind == "turn_aborted" else [unknown(record, kind or None)]

    def _old_result(self, kind: str, message: dict[str, Any]) -> ToolResult:
        code = message.get("exit_code")
        output = text_of(message.get("aggregated_output")) or text_of(message.get("formatted_output"))
        output = output or text_of(message.get("stdout")) + text_of(message.get("stderr"))
        output = output or words_of(message.get("result"))
        failed = (type(code) is int and code != 0) or message.get("success") is False
        denied = failed and self.facts_deny(output[:2000])
        tool = _old_tool(kind, message)
        if denied:
            self.evidence.deny(tool)
        number = code if type(code) is int else None
        return ToolResult(output, tool, word_of(message.get("call_id")), failed, denied, number)

    # -- the app server: JSON-RPC without its version ---------------------------------------------------

    def _method(self, record: dict[str, Any]) -> list[AgentEvent]:
        method, params = text_of(record.get("method")), dict_of(record.get("params"))
        thread = word_of(params.get("threadId")) or word_of(dict_of(params.get("thread")).get("id"))
        self.evidence.conversation = thread or self.evidence.conversation
        if method == "item/started":
            return self._item_started(params)
        if method == "item/completed":
            return self._item_completed(params)
        if method.endswith(("/requestApproval", "/requestUserInput")):
            return [self._asked(method, params, record)]
        if method == "thread/tokenUsage/updated":
            return self._count(dict_of(dict_of(params.get("tokenUsage")).get("total")))
        if method == "account/rateLimits/updated":
            return self._limits(dict_of(params.get("rateLimits")))
        if method == "turn/completed":
            return self._turn_ended(dict_of(params.get("turn")))
        if method == "error":
            error = dict_of(params.get("error"))
            hint = text_of(error.get("codexErrorInfo"))
            final = params.get("willRetry") is not True
            return [report(self.evidence.judge(_inner(words_of(error)), hint=hint, final=final))]
        if method == "turn/steer":
            return [Message(words_of(params.get("input")), "user")]  # why a person said no
        if method == "turn/started":
            self.evidence.go_on()
        known = method == "initialized" or "/" not in method or method.startswith(_QUIET_METHODS)
        return [] if known else [unknown(record)]

    def _asked(self, method: str, params: dict[str, Any], record: dict[str, Any]) -> ApprovalRequested:
        tools = {"commandExecution": "shell", "fileChange": "apply_patch", "tool": "question"}
        tool = tools.get(method.split("/")[1], method)
        asked = params.get("command") or params.get("changes") or params.get("questions")
        return ApprovalRequested(tool, asked, str(record.get("id")), text_of(params.get("reason")))

    def _limits(self, limits: dict[str, Any]) -> list[AgentEvent]:
        reached = word_of(limits.get("rateLimitReachedType"))
        for name in ("primary", "secondary"):
            window = dict_of(limits.get(name))
            used, at = amount_of(window.get("usedPercent")), instant_of(window.get("resetsAt"))
            if used is not None:
                status = "rejected" if reached or used >= 100 else "allowed"
                return [RateLimit(f"{name} window: {used:g} % used", status, reset_at=at)]
        return []

    def _turn_ended(self, turn: dict[str, Any]) -> list[AgentEvent]:
        status = text_of(turn.get("status"))
        if status == "failed":
            return self._fail(turn.get("error"))
        return self._done() if status == "completed" else self._turn_aborted({"reason": status})

    def _response(self, record: dict[str, Any]) -> list[AgentEvent]:
        thread = dict_of(dict_of(record.get("result")).get("thread"))
        self.evidence.conversation = word_of(thread.get("id")) or self.evidence.conversation
        if "error" in record:
            return [report(self.evidence.judge(words_of(record.get("error"))))]
        return []


def _kind_of(item: dict[str, Any]) -> str:
    kind = text_of(item.get("type")) or text_of(item.get("item_type"))
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()


def _call_of(item: dict[str, Any]) -> ToolCall | None:
    """The tool call that an item is; None for what is none."""
    kind, id_ = _kind_of(item), word_of(item.get("id"))
    if kind == "command_execution":
        return ToolCall("shell", {"command": item.get("command")}, id_)
    if kind == "file_change":
        return ToolCall("apply_patch", {"changes": item.get("changes")}, id_)
    if kind in ("mcp_tool_call", "collab_tool_call", "dynamic_tool_call"):
        server, tool = text_of(item.get("server")), text_of(item.get("tool")) or kind
        return ToolCall(f"{server}.{tool}" if server else tool, item.get("arguments"), id_)
    if kind == "web_search":
        return ToolCall("web_search", {"query": item.get("query")}, id_)
    if kind in ("todo_list", "plan"):
        return ToolCall("todo", {"items": item.get("items") or list_of(item.get("plan"))}, id_)
    return None


def _old_tool(kind: str, message: dict[str, Any]) -> str:
    invocation = dict_of(message.get("invocation"))
    if invocation:
        return f"{text_of(invocation.get('server'))}.{text_of(invocation.get('tool'))}"
    name = kind.removesuffix("_begin").removesuffix("_end")
    return {"exec_command": "shell", "patch_apply": "apply_patch"}.get(name, name)


def _old_input(message: dict[str, Any]) -> Any:
    invocation = dict_of(message.get("invocation"))
    if invocation:
        return invocation.get("arguments")
    kept = ("command", "cwd", "changes", "query")
    return {key: message[key] for key in kept if key in message}


def _inner(words: str) -> str:
    """The message in an error that is a server's JSON as it came."""
    if not words.lstrip().startswith("{"):
        return words
    match = re.search(r'"message":\s*"((?:[^"\\]|\\.)+)"', words)
    return words if match is None else f"{match[1]} ({words.strip()})"
