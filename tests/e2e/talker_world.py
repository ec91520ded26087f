"""A project whose agent is `tests/programs/talker`: headless, and in conversations that can be taken over."""

from __future__ import annotations

import shutil
from pathlib import Path

import attrs
import trio

from tests.e2e.supervisor_world import Site, make_site

PROGRAM = Path(__file__).parent.parent / "programs" / "talker"
RULES = Path(__file__).parent.parent / "data" / "talker" / "talker.toml"
LIMIT = 120.0


def talker_config(book: Path, extra: str = "") -> str:
    """A configuration with the talker as its agent; *extra* goes to the end."""
    return (
        f'[orchestration]\ndefault_agent = "talker"\n[agents.talker]\nprogram = "{PROGRAM}"\nharness = "claude"\n'
        f'stop_grace = "30s"\nenv = {{ TALKER_BOOK = "{book}" }}\n{extra}'
    )


@attrs.define
class Parlour:
    """A project with talkers, and the book they write."""

    site: Site
    book: Path

    def ledger(self, *verbs: str) -> list[list[str]]:
        """What has happened: the words of each line, or of those that begin so."""
        path = self.book / "ledger"
        lines = [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []
        return [words for words in lines if not verbs or words[0] in verbs]

    def let(self, name: str) -> None:
        """Let go on whoever waits for this."""
        (self.book / name).touch()

    def text(self, name: str) -> str:
        """What a file of the project holds; nothing if it is not there."""
        path = self.site.project / name
        return path.read_text() if path.exists() else ""

    async def noted(self, *words: str, times: int = 1) -> list[list[str]]:
        """Wait until so many lines with these first words are in the ledger."""
        with trio.fail_after(LIMIT):
            while len(found := [line for line in self.ledger(words[0]) if set(words) <= set(line)]) < times:  # noqa: ASYNC110  # a file tells nobody
                await trio.sleep(0.02)
        return found


def prepare(project: Path, book: Path) -> None:
    """Make the talker's book, and tell the project how its screen is read."""
    book.mkdir()
    rules = project / ".kasmos" / "screens"
    rules.mkdir(parents=True)
    shutil.copy(RULES, rules)


def make_parlour(root: Path, extra: str = "") -> Parlour:
    """A project with talkers."""
    book = root / "book"
    site = make_site(root, talker_config(book, extra))
    prepare(site.project, book)
    return Parlour(site, book)
