"""What tests of agents look at: a terminal, approvals that wait, and marks that approved commands leave."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from ..conftest import Kas
from ..faults.test_signals import Terminal, terminal


@contextmanager
def shown(kas: Kas, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    """Run `kas ARGUMENTS` beside the block, at a terminal; it is killed if it outlives the block."""
    with (
        terminal() as tty,
        subprocess.Popen(
            kas.command(*arguments), cwd=kas.cwd, stdin=subprocess.DEVNULL, stdout=tty.slave, stderr=tty.slave
        ) as process,
    ):
        try:
            yield process, tty
        finally:
            process.kill()


def asked(kas: Kas, words: str) -> str:
    """The id of what waits for a person and is told with these words, if anything does."""
    found = re.search(rf"^(\w{{4}}) .*{words}", kas("approvals").stdout, re.MULTILINE)
    return found[1] if found else ""


def marks(kas: Kas) -> int:
    path = kas.cwd / "marks"
    return len(path.read_text().splitlines()) if path.exists() else 0
