"""Decide how a text is typed into a program's terminal so that it is taken once. Pure.

    wait until the program takes a prompt -> paste -> see the text in its input -> Enter -> see it gone, or at work

The text is pasted once at the most; Enter alone is pressed again. Where the screen does not tell, nothing is claimed.
"""

from __future__ import annotations

import enum
import re

import attrs

from kasmos.model.value import frozen
from kasmos.screens import ScreenState

TAKE_PATIENCE = 15.0
"""Seconds in which a pasted text that the program has read has to show in the input."""
DOUBT_PATIENCE = 5.0
"""The same for a text of which it is not known whether it was typed at all."""
ENTER_AGAIN = 5.0
"""Seconds after which Enter is pressed again, if the text still stands in the input.

Sooner, a busy program might take it for the answer to what it asks next. That it has drawn something since means
nothing: it may have been the paste (claude adds a hint to it).
"""
READ_PATIENCE = 30.0
"""Seconds a program has to read what is typed: on a busy machine it may not get round to it for long."""
MAX_ENTERS = 4
END_PATIENCE = 15.0
"""Seconds after Enter in which the screen has to tell."""
YIELDS_AFTER = 1.0
"""Seconds after which something asked is no half-drawn end of the dialog before."""
UNREAD = "the program does not read what is typed"
"""Why nothing more is waited for."""
_TAKES = (ScreenState.READY, ScreenState.ERROR)
_ASKS = (ScreenState.PERMISSION, ScreenState.QUESTION)
_TURN = (ScreenState.WORKING, ScreenState.PERMISSION, ScreenState.QUESTION)
_FEWEST = 8
"""Characters by which a text is recognised that is not shown whole."""


class Step(enum.Enum):
    """How far a delivery is."""

    WAITING = "waiting"
    """Nothing has been typed."""
    DOUBTFUL = "doubtful"
    """An earlier supervisor may have typed it."""
    PASTED = "pasted"
    ENTERED = "entered"


@frozen
class Order:
    """What is to be delivered, and how."""

    text: str
    submit: bool = True
    force: bool = False
    """Also into a program at work, and in the place of what somebody has typed."""
    patience: float = 5.0
    """Seconds that are waited until nothing stands in the way."""
    gap: float = 0.05
    """Seconds between the text and Enter."""
    yields: bool = False
    """It is given up when the program asks something: nobody can be told of that before."""


@frozen
class Progress:
    """How far it is. All instants are of one clock."""

    step: Step
    since: float
    """When the step began."""
    seen_at: float | None = None
    """When the text was first seen in the input."""
    unread_at: float = 0.0
    """When it was last seen to wait to be read by the program."""
    asks_at: float | None = None
    """Since when the program asks something, while nothing has been typed."""
    enters: int = 0
    entered_at: float = 0.0
    cleared: bool = False
    """Whether somebody's draft was removed."""


@frozen
class Sight:
    """What the screen shows, as far as it matters here."""

    state: ScreenState
    composer: bool
    """It shows an input."""
    draft: str | None
    """What is typed and not sent."""
    shows: bool
    """The draft is the text."""
    person: bool = False
    """Somebody is attached who may type."""
    unread: bool = False
    """What was typed waits to be read by the program."""


@frozen
class Hold:
    """Look again when the screen changes, at latest at `until`."""

    until: float
    why: str = ""
    """What is in the way, for people; empty where it is a matter of moments."""


class Act(enum.Enum):
    """Something to be done now."""

    CLEAR = "clear"
    """Remove what stands in the input."""
    PASTE = "paste"
    ENTER = "enter"
    DONE = "done"


@frozen
class Refuse:
    """Nothing was typed, and will not be: something is in the way."""

    why: str


@frozen
class Fail:
    """It was typed, or may have been, and is not known to have been taken."""

    why: str


Action = Hold | Act | Refuse | Fail


def decide_delivery(order: Order, progress: Progress, sight: Sight, now: float) -> Action:
    """Decide what to do next."""
    match progress.step:
        case Step.WAITING:
            return _before(order, progress, sight, now)
        case Step.DOUBTFUL:
            return _doubtful(progress, sight, now)
        case Step.PASTED:
            return _pasted(order, progress, sight, now)
        case Step.ENTERED:
            return _entered(progress, sight, now)


def after(progress: Progress, action: Act, now: float) -> Progress:
    """How far it is once an action has been taken."""
    match action:
        case Act.CLEAR:
            return attrs.evolve(progress, cleared=True, since=now)
        case Act.PASTE:
            return Progress(Step.PASTED, now, cleared=progress.cleared)
        case Act.ENTER:
            begun = progress.since if progress.step is Step.ENTERED else now
            return attrs.evolve(
                progress,
                step=Step.ENTERED,
                since=begun,
                enters=progress.enters + 1,
                entered_at=now,
            )
        case _:
            return progress


def saw(progress: Progress, sight: Sight, now: float) -> Progress:
    """Note since when it asks; when the text was first seen in the input, and last seen to wait before it."""
    if progress.step is Step.WAITING:
        if sight.state not in _ASKS:
            return attrs.evolve(progress, asks_at=None)
        return progress if progress.asks_at is not None else attrs.evolve(progress, asks_at=now)
    if progress.step not in (Step.PASTED, Step.DOUBTFUL):
        return progress
    if sight.unread:
        progress = attrs.evolve(progress, unread_at=now)
    if not sight.shows:
        return attrs.evolve(progress, seen_at=None)
    return progress if progress.seen_at is not None else attrs.evolve(progress, seen_at=now)


def _before(order: Order, progress: Progress, sight: Sight, now: float) -> Action:
    why = _in_the_way(order, progress, sight)
    if why == "":
        return Act.PASTE
    if why is None:
        return Act.CLEAR
    give_up = progress.since + order.patience
    if order.yields and progress.asks_at is not None:
        give_up = min(give_up, progress.asks_at + YIELDS_AFTER)
    return Refuse(why) if now >= give_up else Hold(give_up, why)


def _in_the_way(order: Order, progress: Progress, sight: Sight) -> str | None:
    """What is in the way; nothing if nothing is; None if it is a draft that may be removed."""
    match sight.state:
        case ScreenState.EXITED:
            return "the program has ended"
        # Whatever is typed into these is an answer to something else, force or no force.
        case ScreenState.DIALOG:
            return "a dialog stands before its input"
        case state if state in _ASKS:
            return "it asks something, and waits for the answer"
    if sight.draft is not None:
        if order.force and not progress.cleared:
            return None
        shown = sight.draft.strip().split("\n")[0][:60]
        return f"somebody is typing: {shown}" if sight.person else f"its input holds a text already: {shown}"
    if sight.state in _TAKES or order.force:
        return ""
    words = {ScreenState.WORKING: "it is at work", ScreenState.LIMIT: "it has reached a limit"}
    return words.get(sight.state, "its screen does not tell whether it takes a text")


def _doubtful(progress: Progress, sight: Sight, now: float) -> Action:
    """After a supervisor that may have typed it: it is not typed again, and a screen that tells is believed."""
    if sight.state in _TURN and not sight.shows:
        return Act.DONE
    if sight.shows:
        return Act.ENTER
    if hold := _may_show(progress, sight, now, DOUBT_PATIENCE):
        return hold
    why = UNREAD if sight.unread else "the screen does not tell whether the text was taken"
    return Fail(f"the supervisor died while it was typing, and {why}")


def _may_show(progress: Progress, sight: Sight, now: float, patience: float) -> Hold | None:
    """How long a text may take to show in the input, if that is not over: it cannot before the program has read it."""
    give_up = max(progress.since, progress.unread_at) + patience
    if sight.unread:
        give_up = progress.since + READ_PATIENCE
    if now >= give_up:
        return None
    # That it was read is told by nothing.
    return Hold(min(give_up, now + 1) if sight.unread else give_up)


def _pasted(order: Order, progress: Progress, sight: Sight, now: float) -> Action:
    if sight.state is ScreenState.EXITED:
        return Fail("the program ended before it had taken the text")
    if progress.seen_at is not None:
        if not order.submit:
            return Act.DONE
        ripe = progress.seen_at + order.gap
        return Act.ENTER if now >= ripe else Hold(ripe)
    if sight.state is ScreenState.READY and not sight.composer:
        # Its rules know no input: only what comes of it can be seen.
        ripe = progress.since + max(0.3, order.gap)
        return Hold(ripe) if now < ripe else Act.ENTER if order.submit else Act.DONE
    hold = _may_show(progress, sight, now, TAKE_PATIENCE)
    return hold or Fail(UNREAD if sight.unread else "the text was typed and did not show in its input")


def _entered(progress: Progress, sight: Sight, now: float) -> Action:
    if not sight.shows:
        if sight.state in _TURN:
            return Act.DONE
        if sight.composer and sight.state is not ScreenState.UNKNOWN:
            # Empty again, or what somebody else types by now.
            return Act.DONE
    if sight.state is ScreenState.EXITED:
        return Fail("the program ended before it was seen to take the text")
    if sight.shows:
        if sight.unread:
            # It will come to it. Another one might be the answer to what the program asks next.
            give_up = progress.entered_at + READ_PATIENCE
            return Hold(min(give_up, now + 1)) if now < give_up else Fail(UNREAD)
        again = progress.entered_at + ENTER_AGAIN
        if now < again:
            return Hold(again)
        if progress.enters < MAX_ENTERS:
            return Act.ENTER
        return Fail(f"the text stands in its input, and Enter, pressed {progress.enters} times, does not send it")
    give_up = progress.since + END_PATIENCE
    return Hold(give_up) if now < give_up else Fail("it was typed and Enter pressed, and the screen does not tell more")


def shows_text(draft: str | None, text: str, pasted: re.Pattern[str]) -> bool:
    """Whether what stands in an input is this text: whole, the part that fits, or the mark of a paste."""
    if draft is None:
        return False
    if pasted.search(draft):
        return True
    # Terminals wrap, programs draw tabs and control characters as they like.
    shown, wanted = (re.sub(r"\W", "", part) for part in (draft, text))
    if not shown or not wanted:
        shown, wanted = ("".join(part.split()) for part in (draft, text))
    if not shown or not wanted:
        return False
    if wanted in shown:
        return True
    return len(shown) >= min(_FEWEST, len(wanted)) and (
        shown in wanted or (len(wanted) > _FEWEST and (wanted[:_FEWEST] in shown and wanted[-_FEWEST:] in shown))
    )
