"""A mapping that never changes, of which a changed copy is cheap, and that knows what is where.

The fold replaces one task of a run with every event about it, and the scheduler looks for the few tasks that matter
at each turn. With a `dict` a run would cost by the square of its length. Here the keys are fixed and shared, the
values lie in short chunks, each of one group, and beside each the kinds of its values, a byte each: a copy with
another value shares all chunks but one, and who looks for a kind looks through bytes. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, ValuesView
from itertools import chain, groupby
from typing import Generic, TypeVar

from kasmos.model.value import frozen

V = TypeVar("V")
T = TypeVar("T")

CHUNK = 64
"""The most values a chunk holds."""


@frozen
class _Scheme(Generic[V]):
    """What all copies of a table share."""

    places: Mapping[str, tuple[int, int]]
    """The chunk of each key, and the place in it."""
    chunks_of: Mapping[int, Sequence[int]]
    """The chunks of each group."""
    kind_of: Callable[[V], int]


class Table(Mapping[str, V]):
    """An immutable mapping with fixed keys in a fixed order; equal to any mapping with the same content.

    Made by `table_of`, and by `put` from another.
    """

    __hash__ = None  # type: ignore[assignment]  # as for every mapping
    __slots__ = ("_chunks", "_kinds", "_scheme")

    def __init__(self, scheme: _Scheme[V], chunks: tuple[tuple[V, ...], ...], kinds: tuple[bytes, ...]) -> None:
        self._scheme = scheme
        self._chunks = chunks
        self._kinds = kinds

    def put(self, key: str, value: V) -> Table[V]:
        """A copy with another value, of the same group, for a key it has.

        Raises:
            KeyError: it has no such key.
        """
        number, place = self._scheme.places[key]
        chunk, kinds = self._chunks[number], self._kinds[number]
        chunks = _replaced(self._chunks, number, _replaced(chunk, place, value))
        kind = self._scheme.kind_of(value)
        if kind == kinds[place]:
            return Table(self._scheme, chunks, self._kinds)
        kinds = kinds[:place] + bytes((kind,)) + kinds[place + 1 :]
        return Table(self._scheme, chunks, _replaced(self._kinds, number, kinds))

    def has(self, kind: int, group: int | None = None) -> bool:
        """Whether any value is of this kind, in one group or in all."""
        for number in range(len(self._chunks)) if group is None else self._scheme.chunks_of.get(group, ()):
            if kind in self._kinds[number]:
                return True
        return False

    def of_kind(self, kind: int, group: int | None = None) -> Iterator[V]:
        """The values of this kind, in order, in one group or in all."""
        chosen = range(len(self._chunks)) if group is None else self._scheme.chunks_of.get(group, ())
        for number in chosen:
            kinds = self._kinds[number]
            at = kinds.find(kind)
            while at >= 0:
                yield self._chunks[number][at]
                at = kinds.find(kind, at + 1)

    def place(self, key: str) -> tuple[int, int]:
        """Where a key stands: by it, keys can be put in order."""
        return self._scheme.places[key]

    def __getitem__(self, key: str) -> V:
        number, place = self._scheme.places[key]
        return self._chunks[number][place]

    def __contains__(self, key: object) -> bool:
        return key in self._scheme.places

    def __iter__(self) -> Iterator[str]:
        return iter(self._scheme.places)

    def __len__(self) -> int:
        return len(self._scheme.places)

    def values(self) -> ValuesView[V]:
        """The values, in order."""
        return _Values(self)

    def __repr__(self) -> str:
        return f"Table({dict(self)!r})"


class _Values(ValuesView[V]):
    """As the inherited view, without a look at the index for each value."""

    _mapping: Table[V]

    def __iter__(self) -> Iterator[V]:
        return chain.from_iterable(self._mapping._chunks)


def _replaced(values: tuple[T, ...], at: int, value: T) -> tuple[T, ...]:
    changed = list(values)
    changed[at] = value
    return tuple(changed)


def table_of(items: Mapping[str, V], *, kind_of: Callable[[V], int], group_of: Callable[[V], int]) -> Table[V]:
    """A table with this content; one that is a table already is left as it is.

    Args:
        items: the content; the order is kept.
        kind_of: the kind of a value, below 256.
        group_of: the group of a value. Groups that are not in one piece make more chunks, and no mistake.
    """
    if isinstance(items, Table):
        return items
    chunks: list[tuple[V, ...]] = []
    chunks_of: dict[int, list[int]] = {}
    for group, run in groupby(items.values(), group_of):
        members = tuple(run)
        for start in range(0, len(members), CHUNK):
            chunks_of.setdefault(group, []).append(len(chunks))
            chunks.append(members[start : start + CHUNK])
    places = zip(items, ((number, at) for number, chunk in enumerate(chunks) for at in range(len(chunk))), strict=True)
    scheme = _Scheme(dict(places), chunks_of, kind_of)
    return Table(scheme, tuple(chunks), tuple(bytes(map(kind_of, chunk)) for chunk in chunks))
