"""What a transcript has shown so far. Filled by a dialect, judged by `completion`."""

from __future__ import annotations

from collections import deque

import attrs

from kasmos.harnesses.conclusion import MAX_ANSWER, FailureKind
from kasmos.harnesses.facts import Facts
from kasmos.harnesses.words import MAX_WORDS, Comeback, ZoneOf, classify, read_comeback, status_in
from kasmos.model.value import define, frozen

TAIL_LINES = 40
"""Lines that are kept of what is no event: where programs say why they stop."""
HEAD_LINES = 5
MAX_DENIED = 100


@frozen
class Problem:
    """Something that went wrong, in the program's own words."""

    kind: FailureKind
    message: str
    final: bool = True
    """False where the program tried again."""
    comeback: Comeback = Comeback()
    status: int | None = None


@frozen
class Verdict:
    """What the program itself says of its end."""

    ok: bool
    reason: str | None = None
    problem: Problem | None = None
    empty: bool = False
    cut_off: bool = False


@define
class Evidence:
    """The facts of one transcript."""

    facts: Facts
    now: float | None = None
    """When the last line was written, as far as it is known; wall clock."""
    zone_of: ZoneOf | None = None
    conversation: str | None = None
    model: str | None = None
    version: str | None = None
    answer: str = ""
    verdict: Verdict | None = None
    turn_open: bool = False
    """Whether something has gone on since the verdict, or since the start."""
    problem: Problem | None = None
    """The last one that nothing good has followed."""
    denied: list[str] = attrs.field(factory=list)
    interrupted: bool = False
    comeback: Comeback = Comeback()
    """What the program told of a limit's end, outside the words of an error."""
    records: int = 0
    """Lines that were of the program's own stream."""
    spoke: bool = False
    """Whether there was plain text that may be an answer."""
    head: list[str] = attrs.field(factory=list)
    tail: deque[str] = attrs.field(factory=lambda: deque(maxlen=TAIL_LINES))

    def say(self, text: str) -> None:
        """The agent said *text*; things go on."""
        self.answer = text[:MAX_ANSWER]
        self.problem = None
        self.go_on()

    def go_on(self) -> None:
        """A turn is under way."""
        self.turn_open = True

    def settle(self, verdict: Verdict) -> None:
        """The program said that its turn is over."""
        self.verdict = verdict
        self.turn_open = False

    def deny(self, tool: str) -> None:
        """A tool was refused."""
        if tool not in self.denied and len(self.denied) < MAX_DENIED:
            self.denied.append(tool)

    def note(self, line: str) -> None:
        """Keep a line that is no event."""
        if line.strip():
            if len(self.head) < HEAD_LINES:
                self.head.append(line[:MAX_WORDS])
            self.tail.append(line[:MAX_WORDS])

    def judge(
        self, words: str, *, hint: str = "", status: int | None = None, final: bool = True, after: float | None = None
    ) -> Problem:
        """Make a problem of an error's words, and keep it.

        Args:
            words: what is told to people.
            hint: more words for telling the kind, such as the error's own name.
            status: HTTP status, if the program tells it apart.
            final: whether the program gives up.
            after: seconds after which to try again, if the program tells them apart.
        """
        status = status if status is not None else status_in(words)
        kind = classify(f"{hint} {words}" if hint else words, self.facts.rules, status)
        comeback = read_comeback(words, self.now, self.zone_of)
        if after is not None:
            comeback = Comeback(after, None if self.now is None else self.now + after)
        self.problem = Problem(kind, words[:MAX_WORDS].strip(), final, comeback, status)
        return self.problem
