"""Typing a text so that it is taken once: the decisions, against every kind of program and person."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.screens import ScreenState
from kasmos.screens.layout import Layout
from kasmos.supervision.delivery import (
    DOUBT_PATIENCE,
    END_PATIENCE,
    ENTER_AGAIN,
    MAX_ENTERS,
    READ_PATIENCE,
    TAKE_PATIENCE,
    UNREAD,
    Act,
    Fail,
    Hold,
    Order,
    Progress,
    Refuse,
    Sight,
    Step,
    after,
    decide_delivery,
    saw,
    shows_text,
)

PASTED = Layout().pasted
TURN = (ScreenState.WORKING, ScreenState.PERMISSION, ScreenState.QUESTION)
SIGHTS = st.builds(
    Sight,
    state=st.sampled_from(list(ScreenState)),
    composer=st.booleans(),
    draft=st.none() | st.just("text"),
    shows=st.booleans(),
    person=st.booleans(),
    unread=st.booleans(),
)
ORDERS = st.builds(Order, text=st.just("text"), submit=st.booleans(), force=st.booleans(), patience=st.floats(0, 20))


def test_yields() -> None:
    """Who types for one that cannot be told meanwhile gives up when something else is asked for a while."""
    asks = Sight(ScreenState.PERMISSION, composer=False, draft=None, shows=False)
    ready = Sight(ScreenState.READY, composer=True, draft=None, shows=False)
    order = Order("text", patience=1000.0, yields=True)
    done, end = play(order, [asks])
    assert (done, type(end)) == ([], Refuse)
    assert play(order, [asks, ready])[0][0] is Act.PASTE
    with pytest.raises(AssertionError):
        play(Order("text", patience=1000.0), [asks])


def play(order: Order, sights: list[Sight], step: Step = Step.WAITING) -> tuple[list[Act], object]:
    """What is done with a program that shows these, half a second each, the last one for ever; and how it ends."""
    progress, done, now = Progress(step, 0.0), [], 0.0
    for number in range(400):
        sight = sights[min(number, len(sights) - 1)]
        progress = saw(progress, sight, now)
        action = decide_delivery(order, progress, sight, now)
        if isinstance(action, Act) and action is not Act.DONE:
            done.append(action)
            progress = after(progress, action, now)
        elif not isinstance(action, Hold):
            return done, action
        now += 0.5
    raise AssertionError("it does not come to an end")


@given(ORDERS, st.lists(SIGHTS, min_size=1, max_size=40))
def test_typed_once(order: Order, sights: list[Sight]) -> None:
    """Whatever a screen shows, a text is pasted once at the most, Enter a bounded number of times, and it ends."""
    done, end = play(order, sights)
    assert done.count(Act.PASTE) <= 1
    assert done.count(Act.ENTER) <= MAX_ENTERS
    assert done.count(Act.CLEAR) <= int(order.force)
    if Act.PASTE in done:
        assert Act.CLEAR not in done[done.index(Act.PASTE) :]
    assert isinstance(end, Refuse) == (Act.PASTE not in done)
    if not order.submit:
        assert Act.ENTER not in done


@given(ORDERS, st.lists(SIGHTS, min_size=1, max_size=40))
def test_never_into_a_question(order: Order, sights: list[Sight]) -> None:
    """Nothing is typed into a dialog or a question, force or no force."""
    for sight in sights:
        action = decide_delivery(order, Progress(Step.WAITING, 0.0), sight, 1.0)
        if sight.state in (ScreenState.DIALOG, ScreenState.PERMISSION, ScreenState.QUESTION, ScreenState.EXITED):
            assert isinstance(action, Hold | Refuse)
        if sight.draft is not None and not order.force:
            assert not isinstance(action, Act)


@given(ORDERS, st.lists(SIGHTS, min_size=1, max_size=40))
def test_doubt_types_nothing(order: Order, sights: list[Sight]) -> None:
    """What an earlier supervisor may have typed is not typed again; Enter only where the text stands in the input."""
    progress = Progress(Step.DOUBTFUL, 0.0)
    for sight in sights:
        action = decide_delivery(order, progress, sight, TAKE_PATIENCE)
        assert action not in (Act.PASTE, Act.CLEAR)
        if action is Act.ENTER:
            assert sight.shows


@given(ORDERS, SIGHTS)
def test_done_is_seen(order: Order, sight: Sight) -> None:
    """After Enter, success is claimed only where the text is gone and the program works, asks, or has an input."""
    progress = Progress(Step.ENTERED, 0.0, enters=1)
    if decide_delivery(order, progress, sight, 0.1) is Act.DONE:
        assert not sight.shows
        assert sight.state in TURN or (sight.composer and sight.state is not ScreenState.UNKNOWN)


def test_enter_is_not_pressed_ahead() -> None:
    """Enter is pressed again once the program has read the one before, and had seconds to do what it is for."""
    entered = Progress(Step.ENTERED, 0.0, enters=1)
    stands = Sight(ScreenState.READY, composer=True, draft="x", shows=True)
    busy = attrs.evolve(stands, unread=True)
    for now in (1.0, 5.0, READ_PATIENCE - 0.1):
        assert isinstance(decide_delivery(Order("x"), entered, busy, now), Hold)
    assert isinstance(decide_delivery(Order("x"), entered, busy, READ_PATIENCE), Fail)
    assert ENTER_AGAIN >= 5.0
    assert decide_delivery(Order("x"), entered, stands, ENTER_AGAIN - 0.1) == Hold(ENTER_AGAIN)
    assert decide_delivery(Order("x"), entered, stands, ENTER_AGAIN) is Act.ENTER


@pytest.mark.parametrize("step", [Step.PASTED, Step.DOUBTFUL])
def test_paste_that_is_read_late(step: Step) -> None:
    """A text that waits to be read is waited for; once it was read it has seconds to show, and is then not taken."""
    progress = Progress(step, 0.0)
    unread = Sight(ScreenState.READY, composer=True, draft=None, shows=False, unread=True)
    read = attrs.evolve(unread, unread=False)
    for now in (1.0, TAKE_PATIENCE, READ_PATIENCE - 0.5):
        progress = saw(progress, unread, now)
        assert isinstance(decide_delivery(Order("x"), progress, unread, now), Hold)
    refused = decide_delivery(Order("x"), progress, unread, READ_PATIENCE)
    assert isinstance(refused, Fail)
    assert UNREAD in refused.why
    give_up = READ_PATIENCE - 0.5 + (TAKE_PATIENCE if step is Step.PASTED else DOUBT_PATIENCE)
    assert decide_delivery(Order("x"), progress, read, READ_PATIENCE) == Hold(give_up)
    assert isinstance(decide_delivery(Order("x"), progress, read, give_up), Fail)
    shown = attrs.evolve(read, shows=True, draft="x")
    late = saw(progress, shown, READ_PATIENCE)
    assert decide_delivery(Order("x"), late, shown, READ_PATIENCE + 1.0) is Act.ENTER


def test_unknown_after_enter() -> None:
    """A screen that does not tell after Enter is waited for, within a bound, and then nothing is claimed."""
    sight = Sight(ScreenState.UNKNOWN, composer=False, draft=None, shows=False)
    progress = Progress(Step.ENTERED, 0.0, enters=1)
    assert isinstance(decide_delivery(Order("x"), progress, sight, END_PATIENCE - 0.1), Hold)
    assert isinstance(decide_delivery(Order("x"), progress, sight, END_PATIENCE), Fail)


def test_text_is_recognised() -> None:
    """A text is recognised wrapped, cut to what fits, or as the mark of a paste; another one is not."""
    text = "Please review the\tchanges\nin the second file, and say what is wrong."
    for draft in (
        text,
        "Please review the    chan\nges in the second file, and say what is wrong.",
        "second file, and say",
    ):
        assert shows_text(draft, text, PASTED)
    assert shows_text("[Pasted text #1 +3 lines]", text, PASTED)
    assert shows_text("ok", "ok", PASTED)
    assert shows_text("??", "??", PASTED)
    for draft in (None, "", "Pl", "something else", "review it all again please"):
        assert not shows_text(draft, text, PASTED)
