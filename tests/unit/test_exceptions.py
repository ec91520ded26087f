"""The family of errors, as its page prints it and as it is."""

from __future__ import annotations

import re

import attrs
import pytest

from kasmos import exceptions
from kasmos.exceptions import ConfigError, ErrInteractiveOnly, InteractiveOnlyError, KasmosError, Mistake, PlanError

_LINE = re.compile(r"^    (?P<indent>[│├└─ ]*)(?P<name>\w+Error)(?: {2,}(?P<words>.*))?$")


def printed_tree() -> dict[str, str | None]:
    """Each error of the module's docstring, and the one it stands under."""
    found: dict[str, str | None] = {}
    path: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        depth = len(match["indent"]) // 4
        del path[depth:]
        found[match["name"]] = path[-1] if path else None
        path.append(match["name"])
    return found


def real_tree() -> dict[str, str | None]:
    """Each public error of the family, and its nearest public ancestor."""
    found: dict[str, str | None] = {}
    for name, error in vars(exceptions).items():
        if not (isinstance(error, type) and issubclass(error, KasmosError)) or name.startswith("_"):
            continue
        if name != error.__name__:
            continue  # an alias
        above = [one.__name__ for one in error.__mro__[1:] if issubclass(one, KasmosError) and one.__name__[0] != "_"]
        found[name] = above[0] if above else None
    return found


def test_the_printed_tree_is_the_real_one() -> None:
    """The tree of errors at the top of `exceptions.py` is the tree of its classes."""
    assert printed_tree() == real_tree()
    assert len(real_tree()) == 19


def test_every_error_says_whose_fault_it_is() -> None:
    """Every error that is raised as such has a few words in the printed tree, and every class a sentence of its own."""
    lines = (exceptions.__doc__ or "").splitlines()
    words = {match["name"]: match["words"] for match in map(_LINE.match, lines) if match is not None}
    parents = set(real_tree().values())
    assert [name for name in words if not words[name] and name not in parents] == []
    assert [name for name in words if not getattr(exceptions, name).__doc__] == []


def test_a_bug_of_ours_is_not_in_the_family() -> None:
    """`except KasmosError` does not swallow the error that says we have a bug."""
    assert not issubclass(exceptions.KasmosInternalError, KasmosError)


def test_err_interactive_only_is_interactive_only_error() -> None:
    """The name that upstream's users know means the same class."""
    assert ErrInteractiveOnly is InteractiveOnlyError


@pytest.mark.parametrize("error", [ConfigError, PlanError])
def test_mistakes_come_all_at_once(error: type[ConfigError | PlanError]) -> None:
    """An error about a document carries every mistake, and prints each with its place and cure."""
    raised = error(iter([Mistake("f.toml: a.b", "is wrong", "write 3"), Mistake("f.toml: c", "is missing")]))
    assert [mistake.problem for mistake in raised.mistakes] == ["is wrong", "is missing"]
    assert str(raised) == "f.toml: a.b: is wrong (write 3)\nf.toml: c: is missing"


def test_a_refused_request_says_it_to_programs_and_to_people() -> None:
    """A refused request has an HTTP status, a stable word, one sentence, and the mistakes of its body."""
    refused = exceptions.RequestError(404, "unknown_run", "there is no run 'x'", [Mistake("p", "q")])
    assert (refused.status, refused.code, str(refused)) == (404, "unknown_run", "there is no run 'x'")
    assert refused.mistakes == (Mistake("p", "q"),)


def test_mistakes_are_values() -> None:
    """A mistake cannot be changed after it was found."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Mistake("p", "q").place = "elsewhere"  # type: ignore[misc]  # that is the point
