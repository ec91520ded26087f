"""Approvals: an agent waits for a human's yes or no, or for an answer. Values only.

An **ask** is what a session wants to know, as whoever found it has read it. An **approval** is an ask that is
known to the journal, with what becomes of it: answered by a rule, by a person or by the clock, or withdrawn.
"""

from __future__ import annotations

import enum

from kasmos.model.value import frozen


class AskKind(enum.StrEnum):
    """What is asked for."""

    PERMISSION = "permission"
    """To use a tool: yes or no."""
    QUESTION = "question"
    """A choice or a text. Never answered by a rule."""


class Meaning(enum.StrEnum):
    """What choosing an option comes to, whatever its label says."""

    ALLOW_ONCE = "allow_once"
    ALLOW_ALWAYS = "allow_always"
    """Yes, and the program will not ask for the like again."""
    DENY = "deny"
    OTHER = "other"
    """Anything else; only a person chooses it."""


class ReasonGoes(enum.StrEnum):
    """How a person's reason for a no reaches the program."""

    NOWHERE = ""
    """Not at all: its source takes nothing but yes or no."""
    ANSWER = "answer"
    """With the answer."""
    MESSAGE = "message"
    """As a message into its turn, at once."""
    TURN = "turn"
    """As a message of its own, when its turn is over."""
    INPUT = "input"
    """Typed into its input, once that is open after the no."""


@frozen
class Option:
    """One of the answers that a dialog offers."""

    label: str
    meaning: Meaning = Meaning.OTHER


@frozen
class Ask:
    """What a session asks, parsed. What could not be parsed is empty, and no rule speaks of it."""

    identity: str
    """By which a stale ask is told: the same for as long as this ask stands, whoever looks, however often."""
    kind: AskKind = AskKind.PERMISSION
    tool: str = ""
    """The tool that wants to run, as the program calls it."""
    command: str = ""
    """The command line, for tools that run one: as it would be handed to a shell."""
    path: str = ""
    """The file, for tools that touch one; the first of several."""
    text: str = ""
    """The dialog or question, for people."""
    options: tuple[Option, ...] = ()
    """What can be chosen, in order. Empty where the source takes any answer, as protocols do."""
    evidence: str = ""
    """How it was recognised: the source, and the rule of the screen."""
    exact: bool = True
    """False where command or path may differ from what would run: nothing is allowed by such a text."""
    more_paths: tuple[str, ...] = ()
    """Further files that the same yes would be for."""
    reason_goes: ReasonGoes = ReasonGoes.NOWHERE
    """How a person's reason for a no reaches the program."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file it is about."""
        return tuple(path for path in (self.path, *self.more_paths) if path)

    def offers(self, meaning: Meaning) -> bool:
        """Whether it can be answered with this."""
        return not self.options or any(option.meaning is meaning for option in self.options)

    @property
    def subject(self) -> str:
        """What it is about, in a few words: the tool with its command or path, else the text's first line."""
        more = f"and {len(self.more_paths)} more" if self.more_paths else ""
        said = " ".join(part for part in (self.tool, self.command or self.path, more) if part)
        return said or next(iter(self.text.strip().splitlines()), "") or self.kind.value


class AnswerKind(enum.StrEnum):
    """The ways to answer."""

    ALLOW_ONCE = "allow_once"
    ALLOW_ALWAYS = "allow_always"
    DENY = "deny"
    CHOOSE = "choose"
    """One of the options, by its number."""
    TEXT = "text"


@frozen
class Answer:
    """What the session is told."""

    kind: AnswerKind
    text: str = ""
    """For `text` the answer itself; for `deny` the reason, told to programs that take one."""
    option: int | None = None
    """For `choose`: index into the ask's options, from 0."""
    own_words: bool = False
    """The reason for a `deny` is a person's, and worth a message of its own."""

    def __str__(self) -> str:
        match self.kind:
            case AnswerKind.CHOOSE:
                return f"option {(self.option or 0) + 1}"
            case AnswerKind.TEXT:
                return "answered"
            case _:
                return {"allow_once": "allowed", "allow_always": "allowed always"}.get(self.kind, "denied")


ALLOW = Answer(AnswerKind.ALLOW_ONCE)


class ResolvedBy(enum.StrEnum):
    """Who answered."""

    RULE = "rule"
    PERSON = "person"
    TIMEOUT = "timeout"
    """Nobody did, within `approval_timeout`."""


class ApprovalState(enum.StrEnum):
    """Where an approval stands."""

    OPEN = "open"
    """It waits for a person."""
    RESOLVED = "resolved"
    """The answer is known and on its way."""
    SENDING = "sending"
    """The answer may have arrived: it is never sent a second time."""
    DELIVERED = "delivered"
    WITHDRAWN = "withdrawn"
    """It is asked no more, or its answer could not be delivered."""

    @property
    def settled(self) -> bool:
        """Whether nothing more becomes of it."""
        return self in (ApprovalState.DELIVERED, ApprovalState.WITHDRAWN)


# --- rules ------------------------------------------------------------------------


class Decision(enum.StrEnum):
    """What a rule wants. `deny` wins over `ask`, and `ask` over `allow`."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"


class PermissionDefault(enum.StrEnum):
    """What happens to a permission that no rule speaks of."""

    PROMPT = "prompt"
    """It waits for a person."""
    BYPASS = "bypass"
    """It is given."""


class OnUnanswered(enum.StrEnum):
    """What happens when nobody answers in time."""

    DENY = "deny"
    STOP = "stop"


@frozen
class Rule:
    """One rule of a profile. All that it says must match; None says nothing."""

    id: str
    """Unique in its profile; named by the journal."""
    decision: Decision
    tool: str | None = None
    """Pattern for the tool's name."""
    command: str | None = None
    """Pattern for each single command of a command line, word by word."""
    path: str | None = None
    """Pattern for the file; relative ones are relative to the working directory."""


@frozen
class ApprovalPolicy:
    """How a profile's asks are answered."""

    rules: tuple[Rule, ...] = ()
    default: PermissionDefault = PermissionDefault.PROMPT
    timeout: float | None = None
    """Seconds a person has to answer; None is for ever."""
    on_timeout: OnUnanswered = OnUnanswered.DENY
