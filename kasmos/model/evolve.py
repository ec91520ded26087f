"""Copies of frozen values with some fields changed, as `attrs.evolve` makes them, in less time.

The fold makes two or three of them for each event, and a long journal has hundreds of thousands of events.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

import attrs

V = TypeVar("V")

_KNOWN: dict[type[Any], tuple[dict[str, int], Callable[[Any], tuple[Any, ...]]]] = {}
"""By class: where each field stands, and what gives all of them."""


def evolve(value: V, **changes: Any) -> V:
    """A copy of *value*, a frozen attrs value whose fields are all positional, with these fields changed."""
    places, fields_of = _fields(type(value))
    fields = list(fields_of(value))
    for name, change in changes.items():
        fields[places[name]] = change
    return type(value)(*fields)


def _fields(kind: type[Any]) -> tuple[dict[str, int], Callable[[Any], tuple[Any, ...]]]:
    known = _KNOWN.get(kind)
    if known is None:
        names = [field.name for field in attrs.fields(kind)]
        # Of one name alone, it would give the bare value.
        assert len(names) > 1
        known = _KNOWN[kind] = ({name: place for place, name in enumerate(names)}, attrgetter(*names))
    return known
