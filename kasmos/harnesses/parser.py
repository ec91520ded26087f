"""From bytes to events to a conclusion, as the bytes come.

`feed` takes any piece of a transcript, cut anywhere, and gives the events that are complete; `close` gives the rest;
`finish` judges. Memory is bounded whatever comes: lines are shortened, answers cut, tables capped. Nothing raises.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from kasmos.harnesses.claude import ClaudeDialect
from kasmos.harnesses.codex import CodexDialect
from kasmos.harnesses.completion import conclude
from kasmos.harnesses.conclusion import Conclusion, Shortfall, Usage, UsageSource
from kasmos.harnesses.dialect import Dialect, report
from kasmos.harnesses.evidence import Evidence, Verdict
from kasmos.harnesses.facts import Facts
from kasmos.harnesses.fields import amount_of, count_of, dict_of, mended, plain
from kasmos.harnesses.foreign import Guarded
from kasmos.harnesses.gemini import GeminiDialect
from kasmos.harnesses.lines import Lines
from kasmos.harnesses.opencode import OpencodeDialect
from kasmos.harnesses.qwen import QwenDialect
from kasmos.harnesses.text import AiderDialect, GenericDialect, MiniDialect
from kasmos.harnesses.words import ZoneOf
from kasmos.model.agent_event import AgentEvent, UsageReport
from kasmos.model.codec import CodecError, decode_loose
from kasmos.model.session import ExitStatus

DIALECTS: dict[str, Callable[[Evidence], Dialect]] = {
    "claude": ClaudeDialect,
    "codex": CodexDialect,
    "opencode": OpencodeDialect,
    "gemini": GeminiDialect,
    "qwen": QwenDialect,
    "aider": AiderDialect,
    "mini": MiniDialect,
    "generic": GenericDialect,
}
"""Every dialect there is, by its name in the facts."""

MAX_DOCUMENT = 32 << 20
"""Bytes of one JSON document that is spread over several lines; a longer one is text."""
MAX_SALVAGE = 1 << 20
"""Bytes of a line in which JSON is looked for between other text."""


class TranscriptParser:
    """Reads one transcript of one program.

    Args:
        facts: of the program.
        now: when the transcript was last written, wall clock, for times of day in it; lines that tell
            the time themselves are believed before.
        zone_of: looks up zones that a program names.
        accept: what may be missing although the program exits 0.
        structured: whether the program was asked for its stream of events.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        now: float | None = None,
        zone_of: ZoneOf | None = None,
        accept: Collection[Shortfall] = (),
        structured: bool | None = None,
    ) -> None:
        self.evidence = Evidence(facts, now, zone_of)
        self._dialect = (
            DIALECTS[facts.dialect](self.evidence) if facts.speaks is None else Guarded(self.evidence, facts.speaks)
        )
        self._lines = Lines()
        self._errors = Lines()
        self._document: list[bytes] | None = None
        self._document_size = 0
        self._accept, self._structured = accept, structured
        self._closed = False
        self._booked: Usage | None = None
        """What the program has in its own books, where the mediator has read them."""

    def feed(self, data: bytes) -> list[AgentEvent]:
        """Take more of the program's output; the events that are complete now."""
        events: list[AgentEvent] = []
        for line in self._lines.feed(data):
            events += self._line(line)
        return events

    def feed_stderr(self, data: bytes) -> None:
        """Take more of what the program wrote to stderr, where that is kept apart: words for a failure, no events."""
        for line in self._errors.feed(data):
            self._note(line)

    def close(self) -> list[AgentEvent]:
        """Nothing more comes: the last events. Calling it again gives none."""
        if self._closed:
            return []
        self._closed = True
        self._note(self._errors.close())
        last = self._lines.close()
        events = self._line(last) if last else []
        if self._document is not None:
            events += self._give_up_document()
        return events + self._dialect.close()

    @property
    def usage(self) -> Usage:
        """What has been used, as far as it was told."""
        return self._booked or self._dialect.usage()

    def finish(self, status: ExitStatus | None) -> Conclusion:
        """Judge the whole.

        Args:
            status: how the program ended; None if that is not known.
        """
        self.close()
        return conclude(self.evidence, self.usage, status, accept=self._accept, structured=self._structured)

    def _note(self, line: bytes) -> None:
        text = plain(line.decode("utf-8", "replace"))
        self.evidence.note(text)
        if self._dialect.facts_deny(text[:2000]):
            self.evidence.deny("")

    def _line(self, line: bytes) -> list[AgentEvent]:
        if self._document is not None:
            return self._more_document(line)
        if line[:1] == b"{":
            # Most lines by far.
            try:
                return self._value(decode_loose(line), line)
            except CodecError:
                pass
        return self._odd_line(line)

    def _odd_line(self, line: bytes) -> list[AgentEvent]:
        bare = line.strip(b" \t\r\n\xef\xbb\xbf")
        if bare in (b"{", b"["):
            self._document, self._document_size = [bare], 1
            return []
        if bare[:1] in (b"{", b"["):
            try:
                return self._value(decode_loose(bare), bare)
            except CodecError:
                pass
        if b"{" in bare and len(bare) <= MAX_SALVAGE:
            return self._salvage(bare.decode("utf-8", "replace"))
        return self._dialect.text(line.decode("utf-8", "replace").rstrip("\r"))

    def _value(self, value: Any, line: bytes) -> list[AgentEvent]:
        if type(value) is dict:
            inner = value.get("msg")
            if type(inner) is dict and value.get("dir") in ("<", ">"):
                if value["dir"] == ">" and "error" in inner:
                    return []  # what we have refused is no error of the program
                value = inner  # one direction of a recorded conversation
            elif type(inner) is dict and value.get("dir") == "=":
                return self._remark(inner)
            return self._dialect.record(value)
        if type(value) is list and value and all(type(one) is dict for one in value):
            return [event for one in value for event in self._dialect.record(one)]
        return self._dialect.text(line.decode("utf-8", "replace").rstrip("\r"))

    def _remark(self, said: dict[str, Any]) -> list[AgentEvent]:
        """What the mediator itself has to say of a program."""
        used = dict_of(said.get("usage"))
        if used:
            self._booked = _booked(used)
            return [UsageReport(self._booked.input_tokens, self._booked.output_tokens, self._booked.cached_tokens)]
        words = said.get("error")
        if type(words) is not str:
            return []
        problem = self.evidence.judge(words)
        self.evidence.settle(Verdict(False, "error", problem))
        return [report(problem)]

    def _salvage(self, text: str) -> list[AgentEvent]:
        """JSON with something before, behind or between: two writers on one file, a wrapper's prefix."""
        events: list[AgentEvent] = []
        decoder = json.JSONDecoder()
        at = begin = 0
        for _ in range(64):
            at = text.find('{"', at)
            if at < 0:
                break
            try:
                value, end = decoder.raw_decode(text, at)
                value = mended(value)
            except (ValueError, RecursionError):
                at += 2
                continue
            if type(value) is dict and (type(value.get("type")) is str or "jsonrpc" in value or "msg" in value):
                if text[begin:at].strip():
                    events += self._dialect.text(text[begin:at].rstrip())
                events += self._value(value, text[at:end].encode("utf-8", "replace"))
                begin = end
            at = end
        if begin == 0 or text[begin:].strip():
            events += self._dialect.text(text[begin:])
        return events

    def _more_document(self, line: bytes) -> list[AgentEvent]:
        assert self._document is not None  # the caller has looked
        self._document.append(line)
        self._document_size += len(line) + 1
        # Its end stands at the margin, as its beginning did.
        if line.rstrip() in (b"}", b"]"):
            try:
                value = decode_loose(b"\n".join(self._document))
            except CodecError:
                return self._give_up_document()
            whole, self._document = self._document, None
            return self._value(value, b"\n".join(whole))
        return self._give_up_document() if self._document_size > MAX_DOCUMENT else []

    def _give_up_document(self) -> list[AgentEvent]:
        lines, self._document = self._document or [], None
        return [event for line in lines for event in self._dialect.text(line.decode("utf-8", "replace").rstrip("\r"))]


def _booked(used: dict[str, Any]) -> Usage:
    """What a turn has used by the program's own books: of each, all that its model's server has counted."""
    cost = amount_of(used.get("cost")) or None
    return Usage(
        count_of(used.get("input")),
        count_of(used.get("output")),
        count_of(used.get("cached")),
        None,
        count_of(used.get("thought")),
        cost,
        UsageSource.REPORTED,
        # From the program's own table of prices.
        UsageSource.UNKNOWN if cost is None else UsageSource.PRICED,
        scope="process",
        cached_in_input=True,
    )
