"""Patterns with `*` and `**`, matched in linear time whatever the text: it comes from agents. Pure."""

from __future__ import annotations

import re

_NAME, _ANYTHING, _FOLDERS = "*", "**", "**/"
"""Within one name; anything at all; any number of folders, or none."""


def glob_matches(pattern: str, text: str, *, across: bool = False) -> bool:
    """Whether the whole of *text* fits *pattern*.

    Args:
        pattern: `*` is anything within a name, `**` anything at all; nothing else is special.
        text: what is judged.
        across: `*` is anything at all as well.
    """
    found = re.findall(r"\*\*/|\*\*|\*|[^*]", pattern, re.DOTALL)
    parts = [_ANYTHING if across and part.startswith("*") and part != _FOLDERS else part for part in found]
    # All places in the pattern at which one may be, one letter of the text after the other: no backtracking.
    places = _enter(parts, 0)
    for letter in text:
        following: set[int] = set()
        for place in places:
            part = parts[place] if place < len(parts) else ""
            if part == _FOLDERS:
                following.add(place)
            elif part == _ANYTHING or (part == _NAME and letter != "/"):
                following |= _enter(parts, place)
            if part == letter or (part == _FOLDERS and letter == "/"):
                following |= _enter(parts, place + 1)
        places = following
        if not places:
            return False
    return len(parts) in places


def _enter(parts: list[str], place: int) -> set[int]:
    """This place, and those behind wildcards that come to nothing there."""
    found = {place}
    while place < len(parts) and parts[place] in (_NAME, _ANYTHING, _FOLDERS):
        place += 1
        found.add(place)
    return found
