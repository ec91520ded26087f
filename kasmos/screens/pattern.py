"""The patterns of rule files: regular expressions in which a blank stands for any run of blanks.

A narrow terminal wraps a sentence anywhere, so a blank in a pattern also matches the end of a line. `[ ]` is one blank.
"""

from __future__ import annotations

import re


def compile_pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern; `^` and `$` are the ends of lines.

    Raises:
        re.error: it is not a regular expression.
    """
    return re.compile(_loosened(text), re.MULTILINE)


def _loosened(text: str) -> str:
    made: list[str] = []
    in_class = escaped = False
    for char in text:
        if char == " " and not in_class and not escaped:
            if not made or made[-1] != r"(?:\s+)":
                made.append(r"(?:\s+)")
            continue
        if not escaped:
            in_class = char == "[" or (in_class and char != "]")
        escaped = char == "\\" and not escaped
        made.append(char)
    return "".join(made)
