"""The stream of the Gemini CLI: `-o stream-json`, and the one object of `-o json`.

Traps: messages come in pieces; the numbers are zero after an error and after a stop by its loop detector, which it
reports as a success with exit 0.
"""

from __future__ import annotations

import datetime
import re
from typing import Any

from kasmos.harnesses.conclusion import Usage, UsageSource
from kasmos.harnesses.dialect import Dialect, report, unknown
from kasmos.harnesses.evidence import Evidence, Verdict
from kasmos.harnesses.fields import added, count_of, dict_of, text_of, word_of, words_of
from kasmos.harnesses.rpc import AgentProtocol
from kasmos.model.agent_event import AgentEvent, Message, Result, ToolCall, ToolResult, UsageReport

_STOPPED = re.compile(r"stopping execution|maximum session turns|response stopped due to", re.IGNORECASE)
_CUT = re.compile(r"truncated due to|reached the maximum (?:number of )?(?:output )?tokens|MAX_TOKENS", re.IGNORECASE)
_DENIED = ("policy_violation", "execution_denied", "permission_denied")


class GeminiDialect(Dialect):
    """Reads what the Gemini CLI writes about itself."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence)
        self.handlers = {
            "init": self._init,
            "message": self._message,
            "tool_use": self._tool_use,
            "tool_result": self._tool_result,
            "error": self._error,
            "result": self._result,
        }
        self._protocol = AgentProtocol(evidence)
        self._tools: dict[str, str] = {}
        self._usage = Usage()
        self._text = ""
        self._stopped = self._cut = False

    def record(self, record: dict[str, Any]) -> list[AgentEvent]:
        at = record.get("timestamp")
        if type(at) is str:
            self.evidence.now = _instant(at) or self.evidence.now
        return super().record(record)

    def usage(self) -> Usage:
        told = self._protocol.usage()
        return told if self._usage.source is UsageSource.UNKNOWN else self._usage

    def other(self, record: dict[str, Any]) -> list[AgentEvent]:
        if "jsonrpc" in record:
            return self._protocol.record(record)
        if "type" not in record and ("response" in record or "stats" in record or "error" in record):
            return self._whole(record)
        return super().other(record)

    def _init(self, record: dict[str, Any]) -> list[AgentEvent]:
        self.evidence.conversation = word_of(record.get("session_id")) or self.evidence.conversation
        self.evidence.model = word_of(record.get("model")) or self.evidence.model
        self.evidence.go_on()
        return []

    def _message(self, record: dict[str, Any]) -> list[AgentEvent]:
        text, role = words_of(record.get("content")), text_of(record.get("role")) or "assistant"
        partial = record.get("delta") is True
        if role in ("assistant", "model"):
            role = "assistant"
            self._text = (self._text + text)[-65_536:] if partial else text
            self.evidence.say(self._text)
        else:
            self._text = ""
        return [Message(text, role, partial)]

    def _tool_use(self, record: dict[str, Any]) -> list[AgentEvent]:
        tool = text_of(record.get("tool_name")) or text_of(record.get("name"))
        id_ = word_of(record.get("tool_id"))
        if id_ is not None and len(self._tools) < 4096:
            self._tools[id_] = tool
        self._text = self.evidence.answer = ""
        self.evidence.go_on()
        given = record.get("parameters", record.get("args"))
        return [ToolCall(tool, given, id_)]

    def _tool_result(self, record: dict[str, Any]) -> list[AgentEvent]:
        id_ = word_of(record.get("tool_id"))
        tool = self._tools.pop(id_, None) if id_ is not None else None
        error = dict_of(record.get("error"))
        output = words_of(record.get("output")) or words_of(error.get("message"))
        failed = record.get("status") == "error" or bool(error)
        denied = failed and (text_of(error.get("type")) in _DENIED or self.facts_deny(output[:2000]))
        if denied:
            self.evidence.deny(tool or "")
        self.evidence.go_on()
        return [ToolResult(output, tool, id_, failed, denied)]

    def _error(self, record: dict[str, Any]) -> list[AgentEvent]:
        words = words_of(record.get("message")) or words_of(record.get("error")) or "an error without words"
        warning = record.get("severity") == "warning"
        problem = self.evidence.judge(words, final=not warning)
        if _STOPPED.search(words):
            self._stopped = True
        if _CUT.search(words):
            self._cut = True
        return [report(problem)]

    def _result(self, record: dict[str, Any]) -> list[AgentEvent]:
        error = record.get("error")
        status = text_of(record.get("status"))
        events = self._count(dict_of(record.get("stats")), failed=bool(error) or self._stopped)
        text = self.evidence.answer
        if error or status not in ("success", ""):
            return [*events, *self._failed(error or status, text)]
        problem = self.evidence.problem
        if self._stopped and problem is not None:
            # It calls it a success and has not come to an end.
            self.evidence.settle(Verdict(False, "stopped", problem))
            return [*events, Result(text, True, "stopped")]
        self.evidence.problem = None
        self.evidence.settle(Verdict(True, "success", empty=not text.strip(), cut_off=self._cut))
        return [*events, Result(text, reason="success")]

    def _failed(self, error: Any, text: str) -> list[AgentEvent]:
        code = count_of(dict_of(error).get("code"))
        status = code if code is not None and 400 <= code < 600 else None
        hint = text_of(dict_of(error).get("type"))
        problem = self.evidence.judge(words_of(error) or "the program says that it failed", hint=hint, status=status)
        self.evidence.settle(Verdict(False, "error", problem))
        return [report(problem), Result(text, True, "error")]

    def _whole(self, record: dict[str, Any]) -> list[AgentEvent]:
        """The one object of `-o json`."""
        self.evidence.conversation = word_of(record.get("session_id")) or self.evidence.conversation
        text = text_of(record.get("response"))
        events: list[AgentEvent] = []
        if text:
            self._text = text
            self.evidence.say(text)
            events.append(Message(text))
        if not record.get("error") and "response" not in record:
            return [unknown(record)]
        return [*events, *self._result({**record, "status": ""})]

    def _count(self, stats: dict[str, Any], *, failed: bool) -> list[AgentEvent]:
        input_, output = count_of(stats.get("input_tokens")), count_of(stats.get("output_tokens"))
        cached, reasoning = count_of(stats.get("cached")), None
        for model in dict_of(stats.get("models")).values():
            tokens = dict_of(dict_of(model).get("tokens"))
            if tokens:
                input_ = added(input_, count_of(tokens.get("prompt")))
                reasoning = added(reasoning, count_of(tokens.get("thoughts")))
                output = added(added(output, count_of(tokens.get("candidates"))), count_of(tokens.get("thoughts")))
                cached = added(cached, count_of(tokens.get("cached")))
        total = count_of(stats.get("total_tokens"))
        if input_ is not None and output is not None and total is not None and total > input_ + output:
            # In the stream's numbers what was thought is in the total alone.
            output, reasoning = total - input_, total - input_ - output
        if input_ is None and output is None:
            return []
        if not input_ and not output:
            return []  # zeros of an error: nobody counted
        self._usage = Usage(input_, output, cached, None, reasoning, source=UsageSource.REPORTED, cached_in_input=True)
        return [UsageReport(input_, output, cached, reasoning, scope="process")]


def _instant(text: str) -> float | None:
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
