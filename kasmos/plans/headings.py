"""Wave and task headings, in all the ways people write them. Pure text, one heading at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kasmos.model.value import frozen
from kasmos.plans.findings import quote

_WORD = re.compile(r"(?P<lead>\*{0,3}|__)(?P<word>wave|task)[\s_-]{1,8}#?(?P<number>[0-9]+)(?P<rest>.*)", re.I)
_DOTTED = re.compile(r"[.]([0-9]+)(?![0-9.])")
_SEPARATOR = re.compile(r"(?::|：|—|–|-{1,3}|[.)](?=\s|$))\s*")
_ASIDE = re.compile(r"\(([^()]{1,200})\)\s*")
_LONGEST_NUMBER = 9
_NUMBERED = re.compile(r"[*_]{0,3}(?P<word>[A-Za-z]{3,6})[\s_-]{0,8}#?[0-9]")
_UNNUMBERED = re.compile(r"[*_]{0,3}(?P<word>wave|task)(?:\s+[A-Za-z]{1,5})?\s*(?:[:：—–]|\s-\s|$)", re.I)


@frozen
class WaveHeading:
    """`## Wave N`, with or without a title."""

    number: int
    title: str


@frozen
class TaskHeading:
    """`### Task N: title`, or `### Task WAVE.N: title`."""

    number: int
    wave: int | None
    """The wave, where the heading itself says it."""
    title: str


@frozen
class Unclear:
    """A heading that looks like a wave or a task and cannot be read as one."""

    problem: str
    cure: str
    fatal: bool = True
    """Whether it is surely meant as one. Otherwise it may be prose, and is worth a warning."""


def read_heading(level: int, text: str) -> WaveHeading | TaskHeading | Unclear | None:
    """Read a heading as that of a wave or of a task; None when it is neither."""
    match = _WORD.match(text)
    if match is None:
        return None
    number, rest = match["number"], match["rest"]
    if match["lead"]:
        # What was emphasised ends here or after the title: the marks are no part of either.
        rest = rest.replace(match["lead"], "", 1)
    is_wave = match["word"].lower() == "wave"
    if level not in ((2, 3) if is_wave else (2, 3, 4)):
        return None
    if len(number) > _LONGEST_NUMBER:
        return Unclear(f"the number in {quote(text)} is too large", f"at most {_LONGEST_NUMBER} digits")
    if is_wave:
        return _read_wave(int(number), rest, text)
    return _read_task(int(number), rest, text, level)


def near_miss(level: int, text: str) -> Unclear | None:
    """What to say of a heading that is read as text and looks as if a wave or a task had been meant."""
    if level == 1:
        is_wave = isinstance(read_heading(2, text), WaveHeading)
        return _not_read(text, "a wave heading has two or three #") if is_wave else None
    if not 2 <= level <= 4:
        return None
    numbered = _NUMBERED.match(text)
    word = _meant(numbered["word"]) if numbered is not None else ""
    if word == "Wave" and level == 4 and numbered is not None and numbered["word"].lower() == "wave":
        return _not_read(text, "a wave heading has two or three #")
    unnumbered = _UNNUMBERED.match(text)
    if not word and unnumbered is not None:
        word = unnumbered["word"].capitalize()
    if not word:
        return None
    right = "## Wave N: title" if word == "Wave" else "### Task N: title"
    return _not_read(text, f"if a {word.lower()} is meant: `{right}`")


def _not_read(text: str, cure: str) -> Unclear:
    return Unclear(f"{quote(text)} is read as text, and belongs to what stands above it", cure, fatal=False)


def _meant(word: str) -> str:
    """`Task` or `Wave`, if it is that but for one slip: a letter too many, too few, other, or two exchanged."""
    word = word.lower()
    for right in ("task", "wave"):
        # A slip in the first letter is rare, and other words are not: ask, save, cave.
        if word[0] == right[0] and word in (right, *_slips(word, right)):
            return right.capitalize()
    return ""


def _slips(word: str, right: str) -> Iterator[str]:
    """What *right* becomes by one slip, as far as *word* could be it."""
    for at in range(1, len(right) + 1):
        yield right[:at] + right[at + 1 :]
        yield right[:at] + word[at : at + 1] + right[at:]
        yield right[:at] + word[at : at + 1] + right[at + 1 :]
        yield right[:at] + right[at + 1 : at + 2] + right[at : at + 1] + right[at + 2 :]


def _read_wave(number: int, rest: str, text: str) -> WaveHeading | Unclear:
    if re.match(r"[A-Za-z_]|\s?[.,–—-]\s?[0-9]", rest):
        return Unclear(f"{quote(text)} does not name one wave", "waves have whole numbers: `## Wave 2`")
    title = rest.strip()
    separator = _SEPARATOR.match(title)
    return WaveHeading(number, title[separator.end() :].strip() if separator else title)


def _read_task(number: int, rest: str, text: str, level: int) -> TaskHeading | Unclear | None:
    wave = None
    dotted = _DOTTED.match(rest)
    if dotted is not None and len(dotted[1]) <= _LONGEST_NUMBER:
        wave, number, rest = number, int(dotted[1]), rest[dotted.end() :]
    if re.match(r"[.][0-9]|[A-Za-z_]|\s?[,–—-]\s?[0-9]", rest):
        cure = "tasks have whole numbers: `### Task 3: title`; or `### Task 1.3: title` for task 3 of wave 1"
        return Unclear(f"{quote(text)} does not number one task", cure)
    title = _task_title(rest.strip())
    if title is None:
        cure = f"put a colon after the number: `### Task {number}: title`"
        return Unclear(f"{quote(text)} is not read as a task", cure, fatal=False)
    if level == 2:
        return Unclear(f"{quote(text)} is at the level of a wave", "a task heading has three or four #")
    return TaskHeading(number, wave, title)


def _task_title(rest: str) -> str | None:
    """What follows the number and a separator; None when there is text and no separator before it."""
    if not rest:
        return ""
    aside = _ASIDE.match(rest)
    if aside is not None:
        rest = rest[aside.end() :]
    separator = _SEPARATOR.match(rest)
    if separator is None and (rest or aside is None):
        return None
    title = rest[separator.end() :].strip() if separator else ""
    return f"{title} ({aside[1]})".strip() if aside else title
