"""What is said about a screen. Values only."""

from __future__ import annotations

import enum

from kasmos.model.value import frozen


class ScreenState(enum.StrEnum):
    """What a program does or waits for, as far as its screen tells."""

    READY = "ready"
    """It waits for a prompt. Its composer may hold a draft."""
    WORKING = "working"
    """It works, or tries again by itself."""
    PERMISSION = "permission"
    """It asks whether it may do something."""
    QUESTION = "question"
    """It asks what is wanted."""
    DIALOG = "dialog"
    """Something else stands in the way of a prompt: trust, login, update, a menu. Never answered by a rule."""
    LIMIT = "limit"
    """A usage limit or quota is reached."""
    ERROR = "error"
    """The last turn ended with an error; as a rule the program takes a prompt again."""
    EXITED = "exited"
    """The program has ended."""
    UNKNOWN = "unknown"
    """The screen does not tell. Nothing that destroys may be built on it."""


class Meaning(enum.StrEnum):
    """What an option means by its text. Its place in the menu says nothing: programs differ."""

    ALLOW_ONCE = "allow_once"
    ALLOW_ALWAYS = "allow_always"
    """More than this one request: for the session, the project, every such command."""
    DENY = "deny"
    OTHER = "other"


@frozen
class Choice:
    """One option of a menu."""

    text: str
    meaning: Meaning
    keys: tuple[str, ...]
    """Keys that choose it, by tmux names, in order. Empty when no safe way is known."""
    selected: bool = False
    """Enter alone would choose it."""
    takes_text: bool = False
    """Choosing it opens a line for an answer of one's own."""


@frozen
class Request:
    """What a program asks for, parsed from its dialog."""

    question: str
    """The sentence that is asked."""
    tool: str | None = None
    """The tool as the program names it, such as `Bash` or `WriteFile`."""
    command: str | None = None
    path: str | None = None
    exact: bool = True
    """False where the command or path may differ from what would run: not read at all, cut off, wrapped, or
    beside a description. No policy may allow by such a text."""
    shown: tuple[str, ...] = ()
    """What is shown of it, line by line: the dialog above its options, and the change where the transcript has it."""


@frozen
class Composer:
    """The program's input."""

    draft: str | None
    """What is typed and not sent, as far as it can be read; None when empty. Of a long paste it may be no more
    than the program's mark for it."""
    row: int
    """First row of the input, counted from 0 at the top of the screen."""


@frozen
class Evidence:
    """One thing a rule saw."""

    region: str
    row: int | None
    """Row counted from 0 at the top; None for the title and for what is true of the whole screen."""
    text: str


@frozen
class Verdict:
    """The state of a screen and why."""

    state: ScreenState
    rule: str
    """Name of the rule that decided; `none` when no rule did."""
    evidence: tuple[Evidence, ...] = ()
    request: Request | None = None
    """For permission and question."""
    choices: tuple[Choice, ...] = ()
    """The options of the live menu, in the order of the screen."""
    dangerous_default: bool = False
    """Enter means no, exit, more than this one request, or something unknown: Enter alone is never the answer."""
    composer: Composer | None = None
    """The live input, if the screen has one."""
    reset: str | None = None
    """For limit: when it ends, in the program's words."""
    program_version: str | None = None
    """The program's version, where the screen shows it."""

    def choice(self, meaning: Meaning) -> Choice | None:
        """The only option with that meaning; None when there is none or more than one."""
        found = [choice for choice in self.choices if choice.meaning is meaning]
        return found[0] if len(found) == 1 else None
