"""One event per line as JSON: for programs. Nothing else on stdout."""

from __future__ import annotations

from collections.abc import Mapping

from kasmos.cli.render.facts import concerns
from kasmos.cli.render.text import clean
from kasmos.cli.render.writer import PATIENCE, Writer
from kasmos.model.codec import encode_record
from kasmos.model.event import Record
from kasmos.model.view import World


class JsonLines:
    """See `View`. What is not an event goes to stderr."""

    interval: float | None = None

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._run_id = ""

    def begin(self, world: World, run_id: str, notice: str) -> None:
        self._run_id = run_id
        if notice:
            self.message(notice)

    def record(self, record: Record, world: World) -> None:
        if concerns(record, world, self._run_id):
            self._writer.out(encode_record(record).decode() + "\n")

    def tick(self, now_mono: float, tails: Mapping[str, str]) -> None:
        pass

    def message(self, text: str) -> None:
        self._writer.err(f"kas: {clean(text)}\n")

    def end(self, world: World) -> None:
        self._writer.close()

    def flush(self) -> None:
        self._writer.flush(PATIENCE)
