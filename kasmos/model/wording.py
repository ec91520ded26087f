"""Words for what is wrong with a written value: of what sort it is, what it may have been meant to be. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

_LONGEST_GUESSED = 64
"""Characters. Comparing is quadratic, and nobody mistypes longer words."""


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Suggest the known word that is most like this one; empty when none is."""
    if len(word) > _LONGEST_GUESSED:
        return ""
    by_likeness = {_likeness(name): name for name in known}
    close = difflib.get_close_matches(_likeness(word), list(by_likeness), n=1, cutoff=cutoff)
    return f'did you mean "{by_likeness[close[0]]}"?' if close else ""


def _likeness(word: str) -> str:
    return word.lower().replace("-", "_")


def name_kind(value: object) -> str:
    """What sort of value it is, in a word that the reader of a TOML file knows."""
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "true or false"),
        (int, "a number"),
        (float, "a number"),
        (str, "text"),
        (list, "a list"),
        (Mapping, "a table"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "a date or time")
