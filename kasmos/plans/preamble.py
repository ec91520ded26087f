"""What stands above the first wave: the title, and what the plan is about."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from kasmos.model.value import frozen
from kasmos.plans.outline import Heading, Outline

_FIELD = re.compile(
    r"(?:[-*+>][ \t]{1,8})?(?P<open>[*_]{0,3})(?P<name>goal|architecture|tech(?:nology)?[ _-]?stack)"
    r"(?P<close>[*_]{0,3})[ \t]{0,8}[:：—–](?P<value>.*)",
    re.I,
)
_LABEL = re.compile(r"(?:[-*+>][ \t]{1,8})?[*_]{2,3}[^*_]{1,80}?(?::[*_]{2,3}|[*_]{2,3}[ \t]{0,8}:)")
_LIST_ITEM = re.compile(r"(?:[-*+]|[0-9]{1,9}[.)])[ \t]")
_RULE = re.compile(r"(?:[-*_=][ \t]*+){3,}+$")


@frozen
class Preamble:
    """The title and header lines of a plan."""

    title: str = ""
    goal: str = ""
    architecture: str = ""
    tech_stack: str = ""


def read_preamble(lines: Sequence[str], outline: Outline) -> Preamble:
    """Read the lines above the first wave. The first line of each name counts.

    A header is `**Goal:** text`, with the colon inside or outside the emphasis, or without any; the
    text may go on over further lines, or be the paragraph under a heading `## Goal`.
    """
    hidden = {
        index
        for block in outline.blocks
        if block.start < len(lines)
        for index in range(block.start, min(block.end, len(lines)))
    }
    headings = {head.index: head for head in outline.headings if head.index < len(lines)}
    visible = ["" if index in hidden else line.strip() for index, line in enumerate(lines)]
    title = next((head.text for head in headings.values() if head.level == 1), "")
    fields: dict[str, str] = {}
    for index, line in enumerate(visible):
        match = _FIELD.match(f"{headings[index].text}:" if index in headings else line)
        if match is not None:
            name = _field_name(match["name"])
            if not fields.get(name):
                emphasis = "" if match["close"] else match["open"]
                first = match["value"].removeprefix(emphasis).strip()
                fields[name] = _value(first, visible, index + 1, headings)
    return Preamble(title, **fields)


def _field_name(written: str) -> str:
    name = written.lower()
    return "tech_stack" if name.startswith("tech") else name


def _value(first: str, lines: Sequence[str], start: int, headings: Mapping[int, Heading]) -> str:
    """The text of a header, with the lines it goes on over."""
    if not first and start < len(lines) and not lines[start] and start not in headings:
        start += 1
    further = []
    for index in range(start, len(lines)):
        line = lines[index]
        stands_alone = not line or index in headings or _RULE.match(line) or line.startswith(">")
        if stands_alone or _FIELD.match(line) or _LABEL.match(line):
            break
        if first and _LIST_ITEM.match(line):
            break
        further.append(line)
    is_list = bool(further) and _LIST_ITEM.match(further[0]) is not None
    parts = [first, *further] if first else further
    return ("\n" if is_list else " ").join(parts)
