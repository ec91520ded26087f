"""Values that are made by `kasmos.model.value.frozen` are as `attrs.frozen` would make them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest

from kasmos.model import session, usage
from kasmos.model.value import frozen


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
