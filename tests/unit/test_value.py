"""Values that are made by `kasmos.model.value.frozen` are as `attrs.frozen` would make them."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import sys
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import pytest

import kasmos
from kasmos.model import codec, session, usage, value
from kasmos.model.value import define, finish_all, frozen


def _body() -> dict[str, Any]:
    return {
        "__annotations__": {"name": "str", "secret": "str", "names": "dict", "seen": "int"},
        "__module__": __name__,
        "__qualname__": "Made",
        "secret": attrs.field(default="hush", repr=False),
        "names": attrs.field(factory=tuple, repr=lambda names: f"<{len(names)}>"),
        "seen": attrs.field(default=0, eq=False),
    }


Ours = frozen(type("Made", (), _body()))
Theirs = attrs.frozen(type("Made", (), _body()))


@frozen
class Nothing:
    """A value without fields."""


@frozen
class One:
    """A value with one."""

    of: object


@frozen
class Own:
    """A value that shows and compares itself."""

    of: str

    def __repr__(self) -> str:
        return "own"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own) and other.of.lower() == self.of.lower()

    def __hash__(self) -> int:
        return hash(self.of.lower())


@pytest.mark.parametrize("fields", [("a",), ("a", "x"), ("a", "x", (1, 2)), ("a", "x", (), 7)])
def test_a_value_is_shown_as_attrs_shows_it(fields: tuple[Any, ...]) -> None:
    """What is not to be shown is not, what is shown by a function is, and the rest as it is."""
    assert repr(Ours(*fields)) == repr(Theirs(*fields))
    assert "hush" not in repr(Ours("a"))


def test_values_are_compared_by_the_fields_that_count() -> None:
    """Two values of a class are the same if all fields are that count; one of another class never is."""
    assert Ours("a", seen=1) == Ours("a", seen=2)
    assert hash(Ours("a", seen=1)) == hash(Ours("a", seen=2))
    assert Ours("a") != Ours("b")
    assert Ours("a") != Ours("a", "other")
    assert Ours("a") != Theirs("a")
    assert Nothing() == Nothing() != One(1)
    assert One((1,)) == One((1,)) != One(1)
    assert len({One(1), One(1), One(2), Nothing(), Nothing()}) == 3


def test_what_cannot_be_hashed_makes_no_hash() -> None:
    """A value that holds a list has no hash, as a tuple has none."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(One([]))


def test_what_a_class_does_itself_is_left_to_it() -> None:
    """A class that shows, compares or hashes its values keeps its own ways."""
    assert repr(Own("x")) == "own"
    assert Own("x") == Own("X")
    assert hash(Own("x")) == hash(Own("X"))


def test_a_value_stays_what_attrs_makes_of_it() -> None:
    """Values are frozen, slotted, evolved, copied and pickled like any other of attrs."""
    value = One("x")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        value.of = "y"  # type: ignore[misc]
    assert not hasattr(value, "__dict__")
    assert attrs.evolve(value, of="y") == One("y")
    assert attrs.asdict(value) == {"of": "x"}
    assert copy.deepcopy(value) == value
    assert pickle.loads(pickle.dumps(value)) == value


def test_the_values_of_the_model_share_their_functions() -> None:
    """No function is generated for a class of the model to compare, hash or show its values."""
    assert usage.Usage.__eq__ is session.ExitStatus.__eq__ is One.__eq__
    assert usage.Usage.__hash__ is One.__hash__


# --- classes that are drawn first -----------------------------------------------------


def _drawn() -> Any:
    """A class of which nothing has been asked so far."""

    @frozen
    class Drawn:
        """One."""

        count: ClassVar[int] = 7
        of: int
        names: tuple[str, ...] = attrs.field(default=(), converter=tuple)
        _hidden: int = attrs.field(default=1, validator=attrs.validators.ge(0))

        def __str__(self) -> str:
            return f"{self.twice} of {super().__repr__()[:6]}"

        @property
        def twice(self) -> int:
            return 2 * self.of

        @classmethod
        def made(cls, of: int) -> Any:
            return cls(of)

    assert Drawn in value._drawn
    return Drawn


LOOKS: dict[str, Callable[[Any], object]] = {
    "a value": lambda kind: kind(3),
    "its fields": lambda kind: [field.name for field in attrs.fields(kind)],
    "whether attrs made it": attrs.has,
    "how it is called": inspect.signature,
    "what it is matched by": lambda kind: kind.__match_args__,
    "how it is written": lambda kind: codec.encode(kind(3)),
    "how it is read": lambda kind: codec.decode(b'{"of": 3, "names": ["a"]}', kind),
}


@pytest.mark.parametrize("what", LOOKS)
def test_whoever_looks_at_a_class_first_finds_it_finished(what: str) -> None:
    """Each way to use a class that nobody has used before gives what it gives afterwards."""
    kind = _drawn()
    first = LOOKS[what](kind)
    assert kind not in value._drawn
    assert LOOKS[what](kind) == first
    assert kind(3, ["a"]).names == ("a",)
    with pytest.raises(ValueError, match="must be >= 0"):
        kind(3, hidden=-1)


def test_a_class_that_is_finished_is_the_class_that_was_drawn() -> None:
    """Methods, properties and what belongs to the class are where they were, and `super` finds its way."""
    kind = _drawn()
    made = kind.made(3)
    assert type(made) is kind
    assert kind.count == 7
    assert str(made) == "6 of <tests"
    assert not hasattr(made, "__dict__")
    assert kind.__slots__ == ("of", "names", "_hidden", "__weakref__")
    assert kind.__init__.__qualname__.endswith("Drawn.__init__")


def test_a_class_may_inherit_from_one_that_is_not_finished() -> None:
    """What inherits from a drawn class has its fields, whether it is one of values itself or not."""
    kind = _drawn()

    class Plain(kind):  # type: ignore[misc]
        pass

    assert Plain(3).twice == 6
    other = _drawn()
    more: Any = frozen(type("More", (other,), {"__annotations__": {"more": "int"}, "more": 5}))
    assert more(3) == more(3, (), 1, 5)
    assert more(3).more == 5


def test_threads_that_make_the_first_values_of_a_class_all_get_one() -> None:
    """A class may be finished by several threads at once."""
    for _ in range(20):
        kind, made = _drawn(), []
        start = threading.Barrier(4)

        def make(kind: Any = kind, made: list[Any] = made, start: threading.Barrier = start) -> None:
            start.wait()
            made.append(attrs.evolve(kind(3), of=4))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert made == [kind(4)] * 4


def test_classes_are_finished_by_one_thread_at_a_time() -> None:
    """Who finishes all classes, as a daemon does that has come up, is in nobody's way who uses some of them."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    failures: list[BaseException] = []

    def use(kinds: list[Any]) -> None:
        try:
            for kind in kinds:
                kind(3)
        except BaseException as error:
            failures.append(error)

    try:
        for _ in range(60):
            kinds = [_drawn() for _ in range(6)]
            threads = [threading.Thread(target=use, args=(kinds,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            finish_all()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []


class Outer:
    """Has a class of values in it."""

    @frozen
    class Inner:
        """One."""

        of: int


def test_a_class_in_a_class_keeps_its_name() -> None:
    """It is found again by where it is, as pickle does."""
    assert Outer.Inner.__qualname__ == "Outer.Inner"
    assert pickle.loads(pickle.dumps(Outer.Inner(1))) == Outer.Inner(1)


def test_values_that_change_are_what_attrs_makes_of_them() -> None:
    """They are compared when they are to be, have no hash then, and what is set is converted and checked."""

    @define
    class Compared:
        of: int

    @define(eq=False)
    class Checked:
        of: tuple[int, ...] = attrs.field(converter=tuple, validator=attrs.validators.max_len(2))

    assert Compared(1) == Compared(1) != Compared(2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Compared(1))
    changed = Compared(1)
    changed.of = 2
    assert repr(changed).endswith("Compared(of=2)")
    assert len({Checked([1]), Checked([1])}) == 2
    checked = Checked([1])
    checked.of = [2]  # type: ignore[assignment]
    assert checked.of == (2,)
    with pytest.raises(ValueError, match="must be <= 2"):
        checked.of = (1, 2, 3)


def test_every_class_of_values_can_be_finished() -> None:
    """A class that attrs would refuse is not found by the first who needs a value of it; its slots are its fields."""
    found = []
    for module in pkgutil.walk_packages(kasmos.__path__, "kasmos."):
        if not module.name.endswith("__main__"):
            found += [
                kind
                for kind in vars(importlib.import_module(module.name)).values()
                if isinstance(kind, type) and kind.__module__ == module.name
            ]
    finish_all()
    classes = [kind for kind in found if attrs.has(kind) and "__slots__" in vars(kind)]
    assert len(classes) > 300
    for kind in classes:
        assert kind not in value._drawn
        fields = [field.name for field in attrs.fields(kind)]
        slots = [name for base in reversed(kind.__mro__) for name in getattr(base, "__slots__", ())]
        assert [name for name in slots if name in fields] == fields, kind
