"""`frozen` and `define`: those of attrs, except that a class takes its time only when there is a value of it.

A command that has just been started waits for each class of its values, and there are three hundred of them; few are
used by any one command. So a class is a drawing at first: its name, its slots, its own methods, and the functions that
compare, hash and show the values of all classes. What attrs generates for it (how a value is made, copied and
matched, and what is known of its fields) is there from the moment that any of it is looked at. Nothing that uses a
class can tell the difference. For type checkers they are attrs' own.
"""

from __future__ import annotations

from _thread import RLock  # all that is needed of threads, in a room that has none
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, cached_property, partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

import attrs

if TYPE_CHECKING:
    from attrs import define, frozen
else:

    def frozen(kind: type) -> type:
        """Make an attrs class of frozen values; as `attrs.frozen`, what a class defines itself is left to it."""
        return _make(kind, _generate_frozen, _FROZEN | _shared_by(kind, _EQUALITY))

    def define(kind: type | None = None, *, eq: bool = True) -> Any:
        """Make an attrs class of values that may change; as `attrs.define`."""
        if kind is None:
            return partial(define, eq=eq)
        return _make(kind, _generate_mutable, _shared_by(kind, _COMPARED if eq else {}))


__all__ = ["define", "finish_all", "frozen"]

Generate: TypeAlias = Callable[[type], type]
"""Makes of a class what attrs makes of it."""

_generate_frozen: Generate = attrs.frozen(repr=False, eq=False)
_generate_mutable: Generate = attrs.define(repr=False, eq=False)

_drawn: WeakKeyDictionary[type, tuple[type, Generate]] = WeakKeyDictionary()
"""Of each class that is not finished: the class of the `class` statement, and what is to be made of it."""
_finishing = RLock()
"""Whoever finishes a class; it may have to finish another for that."""


def finish_all() -> None:
    """Let every class be what attrs makes of it, now. Blocks for some hundredths of a second."""
    # A copy that is taken at once: other threads draw and finish classes, too.
    for reference in _drawn.keyrefs():
        kind = reference()
        if kind is not None:
            _finish(kind)


# --- classes that are drawn -----------------------------------------------------------


def _make(kind: type, generate: Generate, shared: dict[str, object]) -> type:
    if not _can_be_drawn(kind):
        for name, part in shared.items():
            if name not in _FROZEN:
                setattr(kind, name, part)
        return generate(kind)
    fields = [name for name, said in kind.__annotations__.items() if not _is_of_class(said)]
    left_out = {*fields, "__dict__", "__weakref__"}
    body = {name: part for name, part in vars(kind).items() if name not in left_out}
    body |= shared | _LATER
    body |= {"__slots__": (*fields, "__weakref__"), "__qualname__": kind.__qualname__}
    made = type(kind)(kind.__name__, kind.__bases__, body)
    _rewire(body.values(), kind, made)
    _drawn[made] = kind, generate
    return made


def _can_be_drawn(kind: type) -> bool:
    """Whether its own slots are all that has to be known in advance; else attrs does everything, at once."""
    own = vars(kind)
    plain = kind.__bases__ == (object,) and _OTHERWISE.isdisjoint(own)
    return plain and not any(isinstance(part, cached_property) for part in own.values())


def _is_of_class(annotation: object) -> bool:
    return str(annotation).partition("[")[0].strip("'\"").endswith("ClassVar")


def _rewire(parts: Iterable[object], before: type, after: type) -> None:
    """Let methods that say `super()` mean the class that there is in the end, as attrs does."""
    for part in parts:
        function = getattr(part, "__func__", None) or getattr(part, "fget", None) or part
        for cell in getattr(function, "__closure__", None) or ():
            # An empty cell has no contents at all.
            with suppress(ValueError):
                if cell.cell_contents is before:
                    cell.cell_contents = after


def _finish(kind: type) -> None:
    """Give a class what attrs generates for it; one thread at a time, since attrs writes to what was drawn as well."""
    with _finishing:
        if kind not in _drawn:
            return
        drawn, generate = _drawn[kind]
        own = vars(kind)
        for name, part in vars(generate(drawn)).items():
            if name not in own or name in _LATER:
                setattr(kind, name, part)
        del _drawn[kind]


class _Later:
    """Stands in a class for what attrs will generate."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, value: object | None, kind: type) -> Any:
        for base in kind.__mro__:  # it may be inherited; and another thread may just have replaced it
            if vars(base).get(self._name) is self:
                _finish(base)
        return getattr(kind if value is None else value, self._name)


_EXAMPLE = vars(_generate_frozen(type("Example", (), {})))
_FROZEN = {name: _EXAMPLE[name] for name in ("__setattr__", "__delattr__")}
"""How attrs refuses to change a value: the same two functions for all classes."""
_LATER = {name: _Later(name) for name in _EXAMPLE if name not in {*_FROZEN, *vars(type("Bare", (), {})), "__slots__"}}
_OTHERWISE = frozenset({*_LATER, *_FROZEN, "__slots__", "__attrs_init_subclass__"})
"""With any of these in its body, attrs makes something else of a class."""


# --- what the values of all classes share ---------------------------------------------


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


_EQUALITY: dict[str, object] = {"__eq__": _equal, "__hash__": _hash}
_COMPARED: dict[str, object] = {"__eq__": _equal, "__hash__": None}


def _shared_by(kind: type, equality: dict[str, object]) -> dict[str, object]:
    """What a class does not define itself. Who says what is equal, says what that means for a hash."""
    own = vars(kind)
    shared: dict[str, object] = {} if "__eq__" in own else dict(equality)
    if own.get("__hash__") is not None:
        shared.pop("__hash__", None)
    if "__repr__" not in own:
        shared["__repr__"] = _show
    return shared


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
