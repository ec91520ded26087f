"""How a program lays out its screen: the data by which a screen is cut into regions. Values only."""

from __future__ import annotations

import enum
import re

from kasmos.model.value import frozen

NEVER = re.compile(r"(?!)")
"""The pattern of what a program does not have."""


class ComposerKind(enum.StrEnum):
    """What an input looks like."""

    RULES = "rules"
    """Between two horizontal lines from the left edge."""
    BOX = "box"
    """In a box with round or square corners."""
    HALVES = "halves"
    """Between a line of lower and a line of upper half blocks."""
    SHELF = "shelf"
    """Below a line, and perhaps the name of a mode, above a known line; without a frame for want of colours."""
    BAR = "bar"
    """Right of a bar that ends in a corner and half blocks; its last line names the model."""
    PROMPT = "prompt"
    """Behind a prompt sign at the left edge, with known lines below it."""
    LAST = "last"
    """Behind a prompt sign in the last line of the screen."""


class Keys(enum.StrEnum):
    """How an option of a numbered menu is chosen."""

    DIGIT = "digit"
    """By its number alone."""
    LETTER = "letter"
    """By the key that the option names in parentheses at its end, else by its number."""
    ARROWS = "arrows"
    """By moving to it, then Enter."""


@frozen
class Layout:
    """The signs by which regions are found. Patterns are searched line by line; borders of boxes are kept in them."""

    composer: tuple[ComposerKind, ...] = ()
    prompt: re.Pattern[str] = NEVER
    """The prompt sign with what may stand before it."""
    placeholder: re.Pattern[str] = NEVER
    """What the empty input shows as a hint."""
    footer: re.Pattern[str] = NEVER
    """For `prompt` and `shelf`: a line that stands below the input."""
    user: re.Pattern[str] = NEVER
    """The first line of what the person has sent."""
    block: re.Pattern[str] = NEVER
    """The first line of anything in the transcript."""
    selector: str = "❯›●>▶→"
    """Characters that mark the chosen option."""
    below: re.Pattern[str] = NEVER
    """What may stand below the box of a live menu."""
    keys: Keys = Keys.DIGIT
    buttons: re.Pattern[str] = NEVER
    """A line of options side by side."""
    overlay: re.Pattern[str] = NEVER
    """The heading of a panel that is drawn over the screen, from its first word to its last, as its first group."""
    version: re.Pattern[str] = NEVER
    """The program's version, as its first group."""
    pasted: re.Pattern[str] = re.compile(r"\[Pasted [^\]\n]*\]")
    """The mark that stands in the input for a long paste."""
    enter_gap: float = 0.05
    """Seconds that have to lie between a text and its Enter, or the Enter would be taken for a part of it."""
