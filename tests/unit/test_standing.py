"""Whether a dialog that is seen is the one that was there before."""

from __future__ import annotations

import attrs
import pytest

from kasmos.model.approval import Ask
from kasmos.supervision.standing import Likeness, Sight, Standing, compare, first_of, identity_of

EDIT = ("Edit file", " a.py", "╌" * 40, " 1 -old", " 1 +new", "╌" * 40, " Waiting 3s", "Make this edit?", "Yes", "No")
ABOVE = ("* Edit(a.py)", "| thinking")
SIGHT = Sight(Ask("screen-1", tool="Edit", path="a.py"), EDIT, ABOVE, size=(80, 24))


def begins(line: str) -> bool:
    return line.startswith("* ")


def changed(old: str, new: str) -> tuple[str, ...]:
    assert any(old in line for line in EDIT)
    return tuple(line.replace(old, new) for line in EDIT)


@pytest.mark.parametrize(
    ("change", "likeness"),
    [
        ({}, Likeness.SAME),
        ({"shown": changed("+new", "+newer")}, Likeness.OTHER),
        ({"shown": changed("1 +new", "1 +new 2")}, Likeness.OTHER),
        ({"shown": changed("Yes", "Yes, always")}, Likeness.OTHER),
        ({"ask": Ask("screen-2", tool="Edit", path="b.py")}, Likeness.OTHER),
        ({"shown": changed("3s", "14s")}, Likeness.DOUBTFUL),
        ({"shown": changed("3s", "14s"), "unread": True}, Likeness.SAME),
        ({"shown": changed("1 +new", "1  +new")}, Likeness.DOUBTFUL),
        ({"above": ("* Edit(a.py)", "/ thinking hard")}, Likeness.DOUBTFUL),
        ({"above": (*ABOVE, "* Edited a.py")}, Likeness.OTHER),
        ({"above": (*ABOVE[1:], "* Edited a.py")}, Likeness.OTHER),
        ({"above": (*ABOVE, "* Edited a.py"), "unread": True}, Likeness.SAME),
        ({"above": ("* Something", *ABOVE)}, Likeness.DOUBTFUL),
        ({"above": (*ABOVE, "more of the same")}, Likeness.DOUBTFUL),
        ({"history": 3}, Likeness.DOUBTFUL),
    ],
)
def test_compare(change: dict[str, object], likeness: Likeness) -> None:
    """Another text is another dialog, as is one below something new; what moves by itself only makes it doubtful."""
    assert compare(SIGHT, attrs.evolve(SIGHT, **change), begins) is likeness  # type: ignore[arg-type]  # a table


@pytest.mark.parametrize(
    ("shown", "same"),
    [
        (
            (
                "Edit",
                "file",
                "a.py",
                "╌" * 20,
                " 1 -old",
                " 1 +n",
                "ew",
                " Waiting 4s",
                "Make this",
                "edit?",
                "Yes",
                "No",
            ),
            True,
        ),
        ((" 1 +new", " Waiting 4s", "Make this edit?", "Yes", "No"), True),
        (changed("+new", "+newer"), False),
        ((" 1 +newer", " Waiting 4s", "Make this edit?", "Yes", "No"), False),
        ((), False),
    ],
    ids=["wrapped", "cut-off", "other", "other-cut-off", "nothing"],
)
def test_resized(shown: tuple[str, ...], same: bool) -> None:
    """A dialog in another size is the same if it shows the same, as far as it is in sight."""
    now = attrs.evolve(SIGHT, shown=shown, size=(40, 12), above=("* all drawn anew",))
    assert (compare(SIGHT, now, begins) is Likeness.SAME) is same
    assert (compare(now, SIGHT, begins) is Likeness.SAME) is same


def test_identity() -> None:
    """What is asked has one identity for every supervisor, whatever its clock says; another change has another one."""
    parts = ("permission", "edit", "Edit", "", "a.py")
    identity = identity_of(parts, EDIT)
    assert identity == identity_of(parts, changed("3s", "1m"))
    assert identity == identity_of(parts, ("Edit  file", *EDIT[1:2], "╌" * 60, *EDIT[3:]))
    assert identity != identity_of(parts, changed("+new", "+newer"))
    assert identity_of(parts, (" 1 +sleep 3s",)) != identity_of(parts, (" 1 +sleep 4s",))


def test_known() -> None:
    """The dialog that an earlier supervisor has seen keeps its identity; another one does not take it."""
    assert first_of(SIGHT, ["screen-0.1", "screen-1.4"]).ask.identity == "screen-1.4"
    assert first_of(SIGHT, ["screen-1"]).ask.identity == "screen-1"
    assert first_of(SIGHT, ["screen-0.1"]).ask.identity == "screen-1"
    assert Standing(SIGHT, SIGHT, 2).ask.identity == "screen-1.2"
