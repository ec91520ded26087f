"""Patterns mean the same in every Python that kasmos runs on.

Before Python 3.11.5 (Debian 12 has 3.11.2) a possessive repetition goes on from where its last, failed attempt had got
to, if that attempt had looked ahead, or had counted or repeated something, before it failed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

import kasmos

_SOURCES = sorted(Path(kasmos.__file__).parent.rglob("*.py"))
_POSSESSIVE_LOOK = re.compile(r"[*+?}]\+|\(\?>")
_LOOKS = {codes.ASSERT, codes.ASSERT_NOT}
_REPEATS = {codes.MAX_REPEAT, codes.MIN_REPEAT}
_POSSESSIVE = {codes.POSSESSIVE_REPEAT, codes.ATOMIC_GROUP}


def test_patterns() -> None:
    """No pattern of kasmos repeats possessively what old Pythons repeat wrongly."""
    wrong = [f"{path.name}: {text!r}" for path in _SOURCES for text in _literals(path) if _is_wrong(text)]
    assert wrong == []


@pytest.mark.parametrize(
    ("pattern", "wrong"),
    [
        (r"(?:a|b(?!c))*+", True),
        (r"(?:ab?c)*+", True),
        (r"(?:(?:a|bc?d)x)++", True),
        (r"(?>a(?=b))", True),
        (r"(?:a|\\.)*+(?:b(?!c)(?:a|\\.)*+)*", False),
        (r"(?:[-*_=][ \t]*+){3,}+$", False),
        (r"a*+b*", False),
    ],
)
def test_what_is_wrong(pattern: str, wrong: bool) -> None:
    """What those Pythons repeat wrongly is seen wherever it stands in a pattern."""
    assert _is_wrong(pattern) is wrong


def _literals(path: Path) -> Iterator[str]:
    """Every literal of a module that might be a possessive pattern."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)) if _POSSESSIVE_LOOK.search(source) else ():
        value = node.value if isinstance(node, ast.Constant) else None
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if isinstance(text, str) and _POSSESSIVE_LOOK.search(text):
            yield text


def _is_wrong(pattern: str) -> bool:
    try:
        items = parser.parse(pattern)
    except re.error:
        return False  # prose
    return _holds_wrong(items, within=False)


def _holds_wrong(part: Any, *, within: bool) -> bool:
    if isinstance(part, parser.SubPattern):
        return any(_holds_wrong(item, within=within) for item in part.data)
    if isinstance(part, list):
        return any(_holds_wrong(item, within=within) for item in part)
    if not isinstance(part, tuple):
        return False
    if part and isinstance(part[0], type(codes.ASSERT)):
        if within and (part[0] in _LOOKS or part[0] in _REPEATS):
            return True
        within = within or part[0] in _POSSESSIVE
    return any(_holds_wrong(item, within=within) for item in part)
