"""`frozen`: `attrs.frozen`, whose values are compared, hashed and shown by functions that all classes share.

attrs generates these functions for each class, and a command that has just been started waits for it: they are two
thirds of the time that a class takes, and there are three hundred classes. For type checkers it is `attrs.frozen`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from attrs import frozen
else:

    def frozen(kind: type) -> type:
        """Make an attrs class of frozen values; as `attrs.frozen`, what a class defines itself is left to it."""
        own = vars(kind)
        if "__repr__" not in own:
            kind.__repr__ = _show
        if "__eq__" not in own:
            kind.__eq__ = _equal
            if own.get("__hash__") is None:
                kind.__hash__ = _hash
        return attrs.frozen(repr=False, eq=False)(kind)


__all__ = ["frozen"]


def _equal(self: object, other: object) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    kind: Any = self.__class__
    compared = _compared(kind)
    return compared(self) == compared(other)


def _hash(self: object) -> int:
    kind: Any = self.__class__
    return hash((kind, _hashed(kind)(self)))


def _show(self: object) -> str:
    kind: Any = self.__class__
    fields = (f"{name}={show(getattr(self, name))}" for name, show in _shown(kind))
    return f"{kind.__qualname__.rsplit('>.', 1)[-1]}({', '.join(fields)})"


@cache
def _compared(kind: type[Any]) -> Callable[[object], object]:
    return _values(tuple(field.name for field in attrs.fields(kind) if field.eq))


@cache
def _hashed(kind: type[Any]) -> Callable[[object], object]:
    fields = attrs.fields(kind)
    return _values(tuple(field.name for field in fields if (field.eq if field.hash is None else field.hash)))


@cache
def _shown(kind: type[Any]) -> tuple[tuple[str, Callable[[Any], str]], ...]:
    shown = (field for field in attrs.fields(kind) if field.repr is not False)
    return tuple((field.name, field.repr if callable(field.repr) else repr) for field in shown)


def _values(names: tuple[str, ...]) -> Callable[[object], object]:
    return attrgetter(*names) if names else lambda value: ()
