"""Programs that speak plain text: aider, mini-swe-agent, and any other."""

from __future__ import annotations

import re
from typing import Any

from kasmos.harnesses.conclusion import Usage, UsageSource
from kasmos.harnesses.dialect import Dialect, report
from kasmos.harnesses.evidence import Evidence, Verdict
from kasmos.harnesses.fields import added, amount_of, count_of, dict_of, list_of, plain, text_of, word_of, words_of
from kasmos.model.agent_event import AgentEvent, Message, Result, ToolCall, ToolResult, UsageReport

MAX_PROSE = 1 << 20
"""Characters of one answer that are kept."""


class GenericDialect(Dialect):
    """A program of which nothing is known: every line is something it says."""

    def record(self, record: dict[str, Any]) -> list[AgentEvent]:
        # JSON it prints is its own affair.
        self.evidence.records += 1
        self._held = None
        return [Message(words_of(record), partial=True)] if words_of(record) else super().other(record)

    def text(self, line: str) -> list[AgentEvent]:
        line = plain(line)
        self.evidence.note(line)
        if line.strip():
            self.evidence.spoke = True
            self.evidence.answer = line
        return [Message(line, partial=True)]

    def close(self) -> list[AgentEvent]:
        return []


class AiderDialect(Dialect):
    """Reads what aider prints. `Tokens: ...` comes after every answer, and only then: it is the sign of success.

    Traps: aider exits 0 on a wrong key; its numbers are its own estimate; a retried answer is printed twice.
    """

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence)
        self._held = None
        self._said: list[str] = []
        self._size = 0
        self._banner = True
        self._error: list[str] = []
        self._usage = Usage()

    def record(self, record: dict[str, Any]) -> list[AgentEvent]:
        return self.text(words_of(record) or str(record))

    def usage(self) -> Usage:
        return self._usage

    def text(self, line: str) -> list[AgentEvent]:
        line = plain(line).rstrip()
        self.evidence.note(line)
        version = _AIDER_VERSION.match(line)
        if version is not None:
            self.evidence.version = version[1]
            return []
        model = _AIDER_MODEL.match(line)
        if model is not None:
            self.evidence.model = model[1]
            return []
        tokens = _AIDER_TOKENS.match(line)
        if tokens is not None:
            return self._answered(tokens)
        edited = _AIDER_EDIT.match(line)
        if edited is not None:
            return [
                ToolCall("edit", {"path": edited[1]}),
                ToolResult(line, "edit"),
            ]
        commit = _AIDER_COMMIT.match(line)
        if commit is not None:
            return [*self._flush(), ToolCall("commit", {"message": commit[2]}), ToolResult(commit[1], "commit")]
        return self._other(line)

    def close(self) -> list[AgentEvent]:
        events = self._end_error()
        if self.evidence.verdict is None or self.evidence.turn_open:
            # What is left of an answer that was never finished.
            return [*events, *self._flush()]
        return events

    def _other(self, line: str) -> list[AgentEvent]:
        pattern = self.evidence.facts.error_line
        if line.startswith("Empty response received from LLM"):
            return [*self._end_error(), report(self.evidence.judge(line, final=False))]
        if line.startswith("^C again to exit"):
            self.evidence.interrupted = True
            return [*self._flush(), *self._end_error()]
        if pattern is not None and pattern.search(line):
            return self._begin_error(line)
        if self._error and line.strip() and len(self._error) < 8:
            # The words of an error are wrapped to the width of a terminal.
            self._error.append(line)
            return []
        events = self._end_error()
        if self._banner:
            # What it prints of itself ends with its map of the repository.
            self._banner = not line.startswith("Repo-map:")
            return events
        if self._size < MAX_PROSE:
            self._said.append(line)
            self._size += len(line) + 1
        return events

    def _begin_error(self, line: str) -> list[AgentEvent]:
        if _AIDER_RETRY.match(line):
            # It tries again; the half answer before is not the answer.
            self._said.clear()
            return self._end_error(final=False)
        if self._error and line.startswith("The API provider"):
            self._error.append(line)
            return []
        # What was said before an error is no answer to it.
        events = [*self._end_error(), *self._flush()]
        self._error = [line]
        self._banner = False
        return events

    def _end_error(self, *, final: bool = True) -> list[AgentEvent]:
        if not self._error:
            if not final and self.evidence.problem is not None:
                self.evidence.judge(self.evidence.problem.message, final=False)
            return []
        words, self._error = " ".join(self._error), []
        problem = self.evidence.judge(words, final=final)
        self.evidence.go_on()
        return [report(problem)]

    def _answered(self, tokens: re.Match[str]) -> list[AgentEvent]:
        events = [*self._end_error(), *self._flush(answer=True)]
        sent, received = _amount(tokens["sent"]), _amount(tokens["received"])
        cached = _amount(tokens["hit"]) if tokens["hit"] else None
        cost = float(tokens["cost"]) if tokens["cost"] else None
        session = float(tokens["session"]) if tokens["session"] else None
        before = self._usage
        self._usage = Usage(
            added(before.input_tokens, sent),
            added(before.output_tokens, received),
            added(before.cached_tokens, cached),
            cost_usd=session if session is not None else before.cost_usd,
            source=UsageSource.ESTIMATED,
            cost_source=UsageSource.UNKNOWN if session is None else UsageSource.ESTIMATED,
            cached_in_input=True,
        )
        answer = self.evidence.answer
        self.evidence.problem = None
        self.evidence.settle(Verdict(True, "answered", empty=not answer.strip()))
        return [*events, UsageReport(sent, received, cached, cost_usd=cost), Result(answer, reason="answered")]

    def _flush(self, *, answer: bool = False) -> list[AgentEvent]:
        # Between an answer and the next, aider itself speaks: of edits, commits and lints.
        text = "\n".join(self._said).strip()
        self._said.clear()
        self._size = 0
        self._banner = False
        if not text:
            return []
        if answer or self.evidence.verdict is None:
            self.evidence.say(text)
        return [Message(text)]


_NUMBER = r"[\d.,]+[kM]?"
_AIDER_VERSION = re.compile(r"^Aider v(\d\S*)")
_AIDER_MODEL = re.compile(r"^(?:Main model|Models?): (\S+)")
_AIDER_RETRY = re.compile(r"^Retrying in [\d.]+ seconds")
_AIDER_EDIT = re.compile(r"^Applied edit to (.+)$")
_AIDER_COMMIT = re.compile(r"^Commit ([0-9a-f]{7,40}) (.*)$")
_AIDER_TOKENS = re.compile(
    rf"^Tokens: (?P<sent>{_NUMBER}) sent(?:, {_NUMBER} cache write)?(?:, (?P<hit>{_NUMBER}) cache hit)?"
    rf", (?P<received>{_NUMBER}) received\.(?: Cost: \$(?P<cost>\d+(?:\.\d+)?) message"
    r"(?:, \$(?P<session>\d+(?:\.\d+)?) session)?)?"
)


def _amount(text: str) -> int | None:
    factor = {"k": 1000, "M": 1_000_000}.get(text[-1:], 1)
    try:
        return round(float(text.rstrip("kM").replace(",", "")) * factor)
    except ValueError:
        return None


class MiniDialect(Dialect):
    """Reads mini-swe-agent's trajectory file, or what it prints.

    The file says how it ended; the printed text does only in words. Exit 0 with `LimitsExceeded` is no success.
    """

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence)
        self._held = None
        self._usage = Usage()
        self._exit: str | None = None

    def usage(self) -> Usage:
        return self._usage

    def record(self, record: dict[str, Any]) -> list[AgentEvent]:
        if "messages" not in record and "info" not in record:
            return super().record(record)
        self.evidence.records += 1
        events = [event for one in list_of(record.get("messages")) for event in self._message(dict_of(one))]
        return [*events, *self._info(dict_of(record.get("info")))]

    def text(self, line: str) -> list[AgentEvent]:
        line = plain(line)
        self.evidence.note(line)
        found = _MINI_VERSION.search(line)
        if found is not None:
            self.evidence.version = found[1]
        pattern = self.evidence.facts.error_line
        if pattern is not None and pattern.search(line):
            final = not line.startswith("Retrying ")
            return [report(self.evidence.judge(line, final=final))]
        step = _MINI_STEP.search(line)
        if step is not None:
            self.evidence.problem = None
            money = float(step[1])
            self._usage = Usage(cost_usd=money, cost_source=UsageSource.ESTIMATED)
        if _MINI_SUBMITTED.search(line):
            self.evidence.settle(Verdict(True, "Submitted"))
            return [Result("", reason="Submitted")]
        if line.strip():
            self.evidence.spoke = True
            self.evidence.answer = line
        return [Message(line, partial=True)]

    def close(self) -> list[AgentEvent]:
        return []

    def _message(self, message: dict[str, Any]) -> list[AgentEvent]:
        role, text = text_of(message.get("role")), words_of(message.get("content"))
        extra = dict_of(message.get("extra"))
        events: list[AgentEvent] = []
        if role == "assistant":
            self.evidence.say(text or self.evidence.answer)
            usage = self._count(dict_of(dict_of(extra.get("response")).get("usage")))
            events += [Message(text)] if text else []
            for action in list_of(extra.get("actions")) or list_of(message.get("tool_calls")):
                command = dict_of(action).get("command") or dict_of(dict_of(action).get("function")).get("arguments")
                id_ = word_of(dict_of(action).get("tool_call_id")) or word_of(dict_of(action).get("id"))
                events.append(ToolCall("bash", {"command": command}, id_))
            return events + usage
        if role == "tool" or "returncode" in extra:
            code = extra.get("returncode")
            number = code if type(code) is int else None
            return [ToolResult(text, "bash", word_of(message.get("tool_call_id")), bool(number), exit_code=number)]
        return [Message(text, role or "user")] if role != "exit" else []

    def _count(self, usage: dict[str, Any]) -> list[AgentEvent]:
        input_, output = count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens"))
        if input_ is None and output is None:
            return []
        cached = count_of(dict_of(usage.get("prompt_tokens_details")).get("cached_tokens"))
        reasoning = count_of(dict_of(usage.get("completion_tokens_details")).get("reasoning_tokens"))
        before = self._usage
        self._usage = Usage(
            added(before.input_tokens, input_), added(before.output_tokens, output),
            added(before.cached_tokens, cached), None, added(before.reasoning_tokens, reasoning),
            source=UsageSource.REPORTED, cached_in_input=True,
        )  # fmt: skip
        return [UsageReport(input_, output, cached, reasoning, scope="step")]

    def _info(self, info: dict[str, Any]) -> list[AgentEvent]:
        self.evidence.version = word_of(info.get("mini_version")) or self.evidence.version
        stats = dict_of(info.get("model_stats"))
        cost, calls = amount_of(stats.get("instance_cost")), count_of(stats.get("api_calls"))
        if cost:  # with cost tracking off it is zero, which is no price
            told = self._usage
            self._usage = Usage(
                told.input_tokens, told.output_tokens, told.cached_tokens, None, told.reasoning_tokens, cost,
                told.source, UsageSource.PRICED, cached_in_input=told.cached_in_input,
            )  # fmt: skip
        status = word_of(info.get("exit_status"))
        if status is None:
            return []
        submission = text_of(info.get("submission"))
        if status.lower() == "submitted":
            self.evidence.answer = submission or self.evidence.answer
            self.evidence.settle(Verdict(True, status))
            return [Result(self.evidence.answer, reason=status)]
        limit = count_of(dict_of(dict_of(info.get("config")).get("agent")).get("step_limit"))
        turns = status == "LimitsExceeded" and bool(limit) and calls is not None and calls >= (limit or 0)
        problem = self.evidence.judge(f"{status} {submission}".strip(), hint="turn limit" if turns else "")
        self.evidence.settle(Verdict(False, status, problem))
        return [report(problem), Result(submission, True, status)]


_MINI_VERSION = re.compile(r"mini-swe-agent version (\d[\w.]*)")
_MINI_STEP = re.compile(r"\(step \d+, \$(\d+(?:\.\d+)?)\)", re.IGNORECASE)
_MINI_SUBMITTED = re.compile(r"^\s*(?:Exit:|exit_status:)?\s*Submitted\b|COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT\s*$")
