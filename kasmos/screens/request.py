"""Read from a dialog what is asked: the sentence, the tool, the command, the path.

What stands in a dialog is partly the agent's own words. Where that could pass for something else, or where the
terminal's width has cut it, the request is not exact.
"""

from __future__ import annotations

import re

from kasmos.screens.regions import Region, Regions
from kasmos.screens.rule import Rule, line_of
from kasmos.screens.verdict import Request

_MARGIN = 6
"""Columns that a frame and its padding may take at the right edge."""
_EDGE = " \t│┃|"
_CUT_OFF = ("…", "...")
_LEFT_OUT = re.compile(r"^[ ]*(?:…|\.\.\.)|\blines? hidden\b|\bmore lines?\b", re.MULTILINE)
"""Programs say of a long command that a part of it is not shown; what is shown is the agent's choice."""
_BLANKS = re.compile(r"\s+")


def read_request(rule: Rule, regions: Regions) -> Request:
    """Read the request of a dialog that a rule has recognised."""
    sources = [region for name in ("heading", "dialog", "last") if (region := regions.get(name)) is not None]
    asked = regions.get("question")
    question = _BLANKS.sub(" ", asked.text).strip() if asked is not None else ""
    if not question and sources:
        question = _BLANKS.sub(" ", sources[0].lines[0]).strip()
    found = {name: _field(rule, name, sources, regions) for name in ("question", "tool", "command", "path")}
    command, exact = found["command"]
    path, path_exact = found["path"]
    if command is not None and "call" in rule.fields:
        command, exact = _confirmed(command, _from_transcript(rule, "call", regions), exact)
    return Request(
        found["question"][0] or question,
        found["tool"][0],
        command,
        path,
        exact and path_exact and bool(command or path),
        shown=_shown(rule, regions),
    )


def _shown(rule: Rule, regions: Regions) -> tuple[str, ...]:
    """Everything by which one request can be told from the next."""
    heading = regions.get("heading")
    change = _from_transcript(rule, "change", regions)
    return (*(heading.lines if heading is not None else ()), *(change.split("\n") if change is not None else ()))


def _field(rule: Rule, name: str, sources: list[Region], regions: Regions) -> tuple[str | None, bool]:
    """The text of a field, and whether it is certain to be just that."""
    for pattern in rule.fields.get(name, ()):
        for region in sources:
            matches = list(pattern.finditer(region.text))
            if matches:
                text, whole = _unwrapped(region, matches[0], regions)
                certain = whole and len(matches) == 1 and not text.endswith(_CUT_OFF)
                return text, certain and _LEFT_OUT.search(text) is None
    return None, True


def _unwrapped(region: Region, found: re.Match[str], regions: Regions) -> tuple[str, bool]:
    """Join the lines of a match: those that reach the edge of the screen were wrapped there."""
    width = max(len(line) for line in regions.screen.lines)
    said = found[1].strip("\n")
    lines = [line for line in said.split("\n") if line.strip(_EDGE)] or [""]
    first = line_of(region.text, found.start(1) + found[1].index(said))
    joined, whole = lines[0].strip(_EDGE), True
    for at, line in enumerate(lines[1:], first):
        drawn = regions.screen.lines[region.rows[at]].rstrip(_EDGE)
        wrapped = len(drawn) + 1 + len(line.split(maxsplit=1)[0]) > width - _MARGIN
        joined += (" " if wrapped else "\n") + line.strip(_EDGE)
        whole = whole and not wrapped
    return joined, whole


def _from_transcript(rule: Rule, name: str, regions: Regions) -> str | None:
    """The text of a field as the transcript shows it last, if it does."""
    turn = regions.get("turn")
    for pattern in rule.fields.get(name, ()):
        found = list(pattern.finditer(turn.text)) if turn is not None else []
        if found:
            return str(found[-1][1])
    return None


def _confirmed(command: str, said: str | None, exact: bool) -> tuple[str, bool]:
    """Take from a dialog's text the part that the transcript calls the command; what follows is a description."""
    if said is None:
        return command, exact and "\n" not in command
    wanted = "".join(said.split())
    lines = command.split("\n")
    for count in range(len(lines), 0, -1):
        if "".join("".join(lines[:count]).split()) == wanted:
            return "\n".join(lines[:count]), exact or count < len(lines)
    return command, False
