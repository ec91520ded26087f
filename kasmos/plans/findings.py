"""What is wrong or doubtful in one document, gathered while it is read."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from kasmos.exceptions import Mistake
from kasmos.model.value import define


@define(eq=False)
class Findings:
    """The mistakes and warnings of one document; reading goes on after each."""

    source: str
    """The document's path, or `-`."""
    _mistakes: list[Mistake] = attrs.field(factory=list)
    _warnings: list[Mistake] = attrs.field(factory=list)

    def mistake(self, line: int, problem: str, cure: str = "") -> None:
        """Note something that must be put right."""
        self._mistakes.append(Mistake(place_of(self.source, line), problem, cure))

    def warn(self, line: int, problem: str, cure: str = "") -> None:
        """Note something that is allowed but hardly meant."""
        self._warnings.append(Mistake(place_of(self.source, line), problem, cure))

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        """Every mistake, in document order."""
        return in_document_order(self._mistakes)

    @property
    def warnings(self) -> tuple[Mistake, ...]:
        """Every warning, in document order."""
        return in_document_order(self._warnings)


def place_of(source: str, line: int) -> str:
    """Say where: `FILE:LINE`."""
    return f"{'<stdin>' if source == '-' else source}:{line}"


def in_document_order(mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
    """Sort mistakes by the line they stand in; first come those that stand in no line. Each is told once."""

    def line(mistake: Mistake) -> int:
        number = mistake.place.rpartition(":")[2]
        return int(number) if number.isdecimal() else 0

    return tuple(sorted(dict.fromkeys(mistakes), key=line))


def quote(text: str) -> str:
    """Render a word from the document for a message: quoted, and never long."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in short) + '"'
