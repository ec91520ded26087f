"""Whether the dialog on a screen is the one that was there before. Pure.

A dialog has no name: the next one may ask for the same tool and file, and stand at the same place a moment later. An
answer is for the one that was shown; so what cannot be told from the next one counts as the next one. What moves by
itself in a dialog that stands (a clock, a counter, a spinner, its size) must not make another one of it.

Three things tell: what it shows; what was added above it; and whether somebody has typed.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Callable, Iterable

import attrs

from kasmos.model.approval import Ask
from kasmos.model.value import frozen

_FRAMES = re.compile(r"[\s\u2500-\u259f]+")
"""Blanks and what boxes are drawn with: they depend on the terminal's width."""
_SPINNERS = re.compile(r"[\u25d0-\u25d7\u2800-\u28ff]")
_CLOCKS = re.compile(
    r"(?:\d+(?:[.,:]\d+)*\s?(?:ms|s|secs?|seconds?|m|mins?|minutes?|h|hours?|%|k?\s?tokens?)\b|\d{1,2}(?::\d\d){1,2})"
)
_NUMBERS = re.compile(r"\d+")
_OF_A_CHANGE = re.compile(r"\s*[│┃|]?\s*(?:\d+\s|[+-])")
"""Begins a line of a file, or of a change to it: nothing moves in there."""


class Likeness(enum.Enum):
    """What two sights of a dialog say."""

    SAME = enum.auto()
    OTHER = enum.auto()
    DOUBTFUL = enum.auto()
    """The same, unless somebody has typed."""


@frozen
class Sight:
    """A dialog, as one look has seen it."""

    ask: Ask
    """What it asks; its identity depends on nothing but that."""
    shown: tuple[str, ...]
    """All that it shows, line by line."""
    above: tuple[str, ...] = ()
    """The transcript above it, without what moves by itself."""
    history: int = 0
    """Lines that have left the screen at its top."""
    size: tuple[int, int] = (0, 0)
    unread: bool = False
    """Something was typed that the program has not read: then nothing has been answered by it."""


@frozen
class Standing:
    """A dialog that stands, with its place among those of its session."""

    first: Sight
    """As it was seen first: that is what it is told as."""
    last: Sight
    number: int = 0
    typed_at: float = 0.0
    """When the typing was that is taken to have brought it, if any: it is not taken for the next answer as well."""

    @property
    def ask(self) -> Ask:
        """What it asks, by an identity that no other dialog of the session has."""
        ask = self.first.ask
        return attrs.evolve(ask, identity=f"{ask.identity}.{self.number}") if self.number else ask


def identity_of(parts: Iterable[str], shown: Iterable[str]) -> str:
    """The identity of what is asked: the same however wide the terminal is, and whatever the clock in it says."""
    plain = "\0".join((*map(_plain, parts), _plain("\n".join(map(_steady, shown)))))
    return f"screen-{hashlib.sha256(plain.encode('utf-8', 'surrogatepass')).hexdigest()[:20]}"


def first_of(sight: Sight, known: Iterable[str]) -> Standing:
    """The first dialog that is seen, perhaps one that an earlier supervisor has seen.

    Args:
        sight: what is seen.
        known: the identities of what is known to be asked.
    """
    for identity in known:
        name, _, number = identity.partition(".")
        if name == sight.ask.identity:
            return Standing(sight, sight, int(number or 0))
    return Standing(sight, sight)


def compare(before: Sight, now: Sight, begins: Callable[[str], bool]) -> Likeness:
    """Say whether two sights are of one dialog, if nothing else was seen between them.

    Args:
        before: the earlier one.
        now: the later one.
        begins: whether a line is the first one of something in the transcript.
    """
    one, two = _uncounted(before), _uncounted(now)
    subjects = tuple(zip(_subject(before), _subject(now), strict=True))
    if before.size != now.size:
        # Drawn anew, and less of it may be in sight.
        fits = all(first == second or not (first and second) for first, second in subjects)
        fits = fits and bool(one and two) and (one.endswith(two) or two.endswith(one))
        return Likeness.SAME if fits else Likeness.OTHER
    if one != two or any(first != second for first, second in subjects):
        return Likeness.OTHER
    stands_still = (before.shown, before.above, before.history) == (now.shown, now.above, now.history)
    if stands_still or now.unread:
        return Likeness.SAME
    return Likeness.OTHER if _was_added(before.above, now.above, begins) else Likeness.DOUBTFUL


def is_rest(before: Sight, now: Sight) -> bool:
    """Whether a sight may be what is left of an earlier one while that is taken away: less, and nothing new."""
    # The sentence of what is left may be another line of it.
    left = set(now.shown) - {now.ask.text}
    return before.size == now.size and left < set(before.shown)


def _subject(sight: Sight) -> tuple[str, ...]:
    ask = sight.ask
    return (ask.kind, ask.evidence, *map(_plain, (ask.tool, ask.command, ask.path)))


def _plain(text: str) -> str:
    return _SPINNERS.sub("", _FRAMES.sub("", text))


def _steady(line: str) -> str:
    return line if _OF_A_CHANGE.match(line) else _CLOCKS.sub("", line)


def _uncounted(sight: Sight) -> str:
    """What a dialog shows without any number that may move."""
    return _plain("\n".join(line if _OF_A_CHANGE.match(line) else _NUMBERS.sub("", line) for line in sight.shown))


def _was_added(before: tuple[str, ...], now: tuple[str, ...], begins: Callable[[str], bool]) -> bool:
    """Whether something was written below what stood there: that does not happen to whoever waits for an answer."""
    for gone in range(len(before) or 1):
        kept = len(before) - gone
        if len(now) > kept and now[:kept] == before[gone:]:
            return any(map(begins, now[kept:]))
    return False
