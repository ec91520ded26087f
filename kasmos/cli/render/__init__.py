"""Showing a run while it happens, wherever it is executed, and telling about it afterwards.

Views only show. They are given the journal's records and the world folded with them, decide
nothing, and whatever befalls the place they write to is no concern of the run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol, TextIO

from kasmos.model.event import Record
from kasmos.model.view import World


class View(Protocol):
    """**Protocol.** One way to show one run. Raises nothing and never blocks, `end` and `flush` excepted."""

    @property
    def interval(self) -> float | None:
        """Seconds between calls of `tick`; None if it wants none."""

    def begin(self, world: World, run_id: str, notice: str) -> None:
        """Show what there is already. *notice* says what kind of beginning this is; may be empty."""

    def record(self, record: Record, world: World) -> None:
        """Show a record that *world* has just been folded with. Those of other runs are passed over."""

    def tick(self, now_mono: float, tails: Mapping[str, str]) -> None:
        """Show that time goes by; *tails* has the newest output of live sessions, by session id."""

    def message(self, text: str) -> None:
        """Tell the person something that is no event. May be called before `begin`."""

    def end(self, world: World) -> None:
        """Show how it ended. Waits until everything has been written."""

    def flush(self) -> None:
        """Wait until everything has been written, as long as a reader can be expected to take."""


def make_view(
    *,
    json: bool,
    stdout: TextIO,
    stderr: TextIO,
    environ: Mapping[str, str],
    is_terminal: bool,
) -> View:
    """The view that fits: JSON lines where asked for, live on a terminal, else plain lines.

    Args:
        is_terminal: whether *stdout* is one.
    """
    from kasmos.cli.render.size import size_of
    from kasmos.cli.render.text import look_of
    from kasmos.cli.render.writer import GATHER_TIME, Writer

    writer = Writer(stdout, stderr, gather=0.0 if is_terminal else GATHER_TIME)
    if json:
        from kasmos.cli.render.jsonl import JsonLines

        return JsonLines(writer)
    look = look_of(environ, stdout.encoding, is_terminal=is_terminal)
    # Where signs have to be escaped, nobody knows how wide a line is.
    size = size_of(stdout)
    if is_terminal and look.unicode and environ.get("TERM", "") not in ("", "dumb"):
        from kasmos.cli.render.live import Live

        return Live(writer, look, size)
    if environ.get("GITHUB_ACTIONS") == "true":
        from kasmos.cli.render.github import GitHubLines

        return GitHubLines(writer, look, workspace=environ.get("GITHUB_WORKSPACE") or _here())
    from kasmos.cli.render.plain import PlainLines

    return PlainLines(writer, look, (lambda: size()[0]) if is_terminal else None)


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""  # it has been removed
