"""The way in: the bytes of a document to a plan, or every mistake in it."""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Mapping

import attrs

from kasmos.exceptions import Mistake, PlanError
from kasmos.model.plan import Plan, PlanTask
from kasmos.model.value import frozen
from kasmos.plans.draft import Draft, settle
from kasmos.plans.findings import Findings, place_of
from kasmos.plans.markdown import read_markdown
from kasmos.plans.settings import Settings
from kasmos.plans.toml import read_toml_plan

_LINE_END = re.compile(r"\r\n?")
_TOML_LOOK = re.compile(r"[ \t\n]*+(?:#[^\n]*+[ \t\n]*+)*+(?:\[\[?[A-Za-z]|[A-Za-z_]+[ \t]*=)")
_MOST_BAD_LINES = 20
"""A file that is no text at all has a mistake in every line; nobody reads them all."""


@frozen
class ParsedPlan:
    """A plan, what is doubtful in its document, and where everything stands in it."""

    plan: Plan
    source: str
    """The document's path, or `-`."""
    defaults: Settings
    """What the document sets for all its tasks; the tasks have it already."""
    warnings: tuple[Mistake, ...] = ()
    lines: Mapping[tuple[str, str], int] = attrs.field(factory=dict)
    """The line of each setting, by task id and key; that of its script by `script`."""

    def place(self, task: PlanTask, key: str = "") -> str:
        """Where a task, or one of its settings, stands: `FILE:LINE`."""
        return place_of(self.source, self.lines.get((task.id, key), task.line))


@frozen
class ReadPlan:
    """A document as far as it could be understood, with every mistake in it."""

    parsed: ParsedPlan
    mistakes: tuple[Mistake, ...]


def parse_plan(data: bytes, source: str) -> ParsedPlan:
    """Parse a plan document: Markdown, or TOML if its name ends in `.toml`.

    Args:
        data: the document, UTF-8, with any line ends and with or without a byte-order mark.
        source: its path, for messages and for its form; `-` is told apart by what it looks like.

    Raises:
        PlanError: with every mistake in the document and the line it stands in.
    """
    read = read_plan(data, source)
    if read.mistakes:
        raise PlanError(read.mistakes)
    return read.parsed


@functools.lru_cache(maxsize=1)
def read_plan(data: bytes, source: str) -> ReadPlan:
    """Read a plan document like `parse_plan`, and go on whatever the mistakes.

    For those who have more to say about the document and want to say everything at once. `kas run` reads a plan before
    it touches anything, and once more as the supervisor that accepts it: the second time it is known.
    """
    findings = Findings(source)
    text = _decode(data, findings)
    draft = _read(text, source, findings)
    settled = settle(draft, findings)
    parsed = ParsedPlan(settled.plan, source, draft.defaults, findings.warnings, settled.lines)
    return ReadPlan(parsed, findings.mistakes)


def _read(text: str, source: str, findings: Findings) -> Draft:
    if not text.strip():
        cure = "write `## Wave 1` with `### Task 1: title` under it"
        findings.mistake(1, "the document is empty", cure)
        return Draft()
    if source.endswith(".toml") or (source == "-" and _TOML_LOOK.match(text)):
        return read_toml_plan(text, findings)
    return read_markdown(text, findings)


def _decode(data: bytes, findings: Findings) -> str:
    """Decode, with `\\n` for every line end. What is not UTF-8 is noted and replaced."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        findings.mistake(1, "the document is UTF-16", "save it as UTF-8")
        return data.decode("utf-16", errors="replace")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        _note_bad_lines(data, findings)
        text = data.decode(errors="replace")
    return _LINE_END.sub("\n", text)


def _note_bad_lines(data: bytes, findings: Findings) -> None:
    noted = 0
    for number, line in enumerate(re.split(rb"\r\n?|\n", data), start=1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            noted += 1
            if noted > _MOST_BAD_LINES:
                findings.mistake(number, "further lines are not UTF-8 either", "save the document as UTF-8")
                return
            byte = line[error.start]
            findings.mistake(number, f"byte 0x{byte:02x} is not UTF-8", "save the document as UTF-8")
