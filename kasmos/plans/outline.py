"""The outline of a Markdown text: its headings, its fenced code, its comments.

Reads no more of Markdown than a plan needs, in one pass over the lines. What stands in fenced
code or in an HTML comment is never a heading.

Authors put fences into fences of the same length (a Markdown example that itself has a code
block). CommonMark ends the outer one at the first closing fence, and the rest of the example
turns into headings. So an opening fence with a language inside an open fence is read as nested.
If that leaves a fence open at the end of the text, CommonMark's reading is taken instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from kasmos.model.value import define, frozen

_FENCE = re.compile(r"(`{3,}|~{3,})(.*)")
SCRIPT_LANGUAGES = ("sh", "bash", "shell")
"""Languages of the fenced block that is a task's script, in the order they are looked for."""

_LIST_ITEM = re.compile(r"(?:[-*+]|[0-9]{1,9}[.)])(?:[ \t]{1,4}|$)")


@frozen
class Heading:
    """An ATX heading."""

    index: int
    """Of its line, from 0."""
    level: int
    text: str
    """Without the number signs."""


@frozen
class Block:
    """Fenced code, or an HTML comment."""

    start: int
    """Index of the opening line."""
    end: int
    """Index after the closing line, or after the last line of the text."""
    info: str = ""
    """What follows the opening fence."""
    indent: int = 0
    closed: bool = True
    comment: bool = False

    @property
    def language(self) -> str:
        """The first word after the opening fence, in lower case."""
        return self.info.split(maxsplit=1)[0].lower() if self.info else ""

    def content(self, lines: Sequence[str]) -> list[str]:
        """The lines between the fences, without the indentation of the opening one."""
        inner = lines[self.start + 1 : self.end - 1 if self.closed else self.end]
        return [_outdent(line, self.indent) for line in inner]


@frozen
class Outline:
    """What a Markdown text is made of, as far as a plan is concerned."""

    headings: tuple[Heading, ...]
    blocks: tuple[Block, ...]
    """Outermost fences and comments, in order; they do not overlap."""
    disputed: tuple[Heading, ...] = ()
    """Headings that stand in nested fences here and that CommonMark would show, or the other way about."""

    @property
    def unclosed(self) -> Block | None:
        """The fence or comment that the text ends in."""
        return self.blocks[-1] if self.blocks and not self.blocks[-1].closed else None


def read_outline(lines: Sequence[str]) -> Outline:
    """Find the headings, fences and comments of a text given as lines without line ends."""
    nested = _Reader(nesting=True).read(lines)
    if not nested.met_nesting:
        return nested.outline()
    flat = _Reader(nesting=False).read(lines)
    chosen, other = (flat, nested) if nested.outline().unclosed else (nested, flat)
    disputed = set(chosen.headings) ^ set(other.headings)
    return attrs.evolve(chosen.outline(), disputed=tuple(sorted(disputed, key=lambda head: head.index)))


def script_of(blocks: Sequence[Block]) -> Block | None:
    """The block that is a task's script: its first `sh` block, else its first `bash` or `shell` block."""
    for language in SCRIPT_LANGUAGES:
        for block in blocks:
            if block.language == language and not block.comment:
                return block
    return None


@frozen
class _OpenFence:
    start: int
    mark: str
    info: str
    indent: int

    def may_hold(self, mark: str, indent: int) -> bool:
        """Whether a fence like this could end this one, and so is not plain content."""
        return mark[0] == self.mark[0] and len(mark) >= len(self.mark) and indent <= self.indent + 3


@define(eq=False)
class _Reader:
    """The state of one pass."""

    nesting: bool
    met_nesting: bool = False
    headings: list[Heading] = attrs.field(factory=list)
    _blocks: list[Block] = attrs.field(factory=list)
    _open: list[_OpenFence] = attrs.field(factory=list)
    _comment: int | None = None
    _list_indent: int = 0
    """Where the text of the latest list item starts: fences may be indented that far and three more."""
    _after_blank: bool = True

    def read(self, lines: Sequence[str]) -> _Reader:
        for index, line in enumerate(lines):
            if self._open:
                self._read_code(index, line)
            elif self._comment is not None:
                self._end_comment(index, line)
            else:
                self._read_text(index, line)
        if self._open:
            self._add_fence(self._open[0], len(lines), closed=False)
        elif self._comment is not None:
            self._blocks.append(Block(self._comment, len(lines), closed=False, comment=True))
        return self

    def outline(self) -> Outline:
        return Outline(tuple(self.headings), tuple(self._blocks))

    def _read_text(self, index: int, line: str) -> None:
        text, indent = _split_indent(line)
        if not text:
            self._after_blank = True
            return
        if self._after_blank and indent == 0:
            self._list_indent = 0
        self._after_blank = False
        item = _LIST_ITEM.match(text)
        if item is not None:
            self._list_indent = indent + item.end()
            text, deeper = _split_indent(text[item.end() :])
            self._open_fence(index, text, self._list_indent + deeper)
        elif text[0] in "`~":
            self._open_fence(index, text, indent)
        elif indent <= 3 and text[0] == "#":
            self._add_heading(index, text)
        elif indent <= 3 and text.startswith("<!--") and "-->" not in text:
            self._comment = index

    def _read_code(self, index: int, line: str) -> None:
        text, indent = _split_indent(line)
        inner = self._open[-1]
        found = _fence(text)
        if found is None or not inner.may_hold(found[0], indent):
            return
        mark, info = found
        if not info:
            closed = self._open.pop()
            if not self._open:
                self._add_fence(closed, index + 1, closed=True)
        elif self.nesting:
            self.met_nesting = True
            self._open.append(_OpenFence(index, mark, info, indent))

    def _open_fence(self, index: int, text: str, indent: int) -> None:
        found = _fence(text)
        if found is not None and indent <= self._list_indent + 3:
            self._open.append(_OpenFence(index, found[0], found[1], indent))

    def _add_fence(self, fence: _OpenFence, end: int, *, closed: bool) -> None:
        self._blocks.append(Block(fence.start, end, fence.info, fence.indent, closed))

    def _end_comment(self, index: int, line: str) -> None:
        if "-->" in line:
            assert self._comment is not None
            self._blocks.append(Block(self._comment, index + 1, comment=True))
            self._comment = None

    def _add_heading(self, index: int, text: str) -> None:
        bare = text.lstrip("#")
        level = len(text) - len(bare)
        if level > 6 or (bare and bare[0] not in " \t"):
            return
        title = bare.strip()
        unhashed = title.rstrip("#")
        if not unhashed or unhashed[-1] in " \t":
            title = unhashed.rstrip()
        self._list_indent = 0
        self.headings.append(Heading(index, level, title))


def _fence(text: str) -> tuple[str, str] | None:
    """The mark and the info string of a fence, if the text is one."""
    if not text or text[0] not in "`~":
        return None
    match = _FENCE.match(text)
    if match is None:
        return None
    mark, info = match[1], match[2].strip()
    # Three backticks, text, three backticks in one line are a code span.
    return None if mark[0] == "`" and "`" in info else (mark, info)


def _split_indent(line: str) -> tuple[str, int]:
    text = line.lstrip(" \t")
    blank = line[: len(line) - len(text)]
    return text, len(blank.expandtabs(4)) if "\t" in blank else len(blank)


def _outdent(line: str, indent: int) -> str:
    blank = len(line) - len(line.lstrip(" "))
    return line[min(blank, indent) :]
