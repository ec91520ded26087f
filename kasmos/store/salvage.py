"""Opening the journal's file whatever has become of it: create, verify, or salvage.

The policy:

1. No file: a new journal. But a write-ahead log without its file is refused: somebody removed half of a journal.
2. A sound file: used, whatever part of its newest transactions a torn write-ahead log has lost.
3. A damaged one, of which a beginning can be read: that beginning becomes the new journal, loudly, and the
   damaged files are kept beside it. What the journal has forgotten cannot run twice, because recovery visits
   every session's directory whether the journal knows it or not.
4. A damaged one, of which nothing can be read: refused, and nothing is touched. An empty journal never takes the
   place of one that was not.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from kasmos.exceptions import JournalCorruptError, StoreError
from kasmos.model.codec import format_instant
from kasmos.model.value import frozen
from kasmos.model.view import World
from kasmos.store.chain import ChainError, ForeignEventError, Row, verified
from kasmos.store.database import Database, companions, sync_directory
from kasmos.store.kept_fold import Folded, fold_journal

_CURE = (
    "nothing was changed; to begin with an empty journal, move {name}* away "
    "(sessions that still run are found again by their directories)"
)


@frozen
class Opened:
    """A sound journal, open for writing, and what it tells."""

    database: Database
    folded: Folded

    @property
    def world(self) -> World:
        """The fold of all of it."""
        return self.folded.world

    @property
    def last_seq(self) -> int:
        """Number of the newest row, understood or not."""
        return self.folded.footing.seq


def _ignore(text: str) -> None:
    """Pass over what nobody wants to know."""


def open_or_salvage(path: Path, announce: Callable[[str], None], note: Callable[[str], None] = _ignore) -> Opened:
    """Open the journal at *path* for writing, by the policy of this module. Blocks.

    The caller holds the lock of the state root.

    Args:
        path: the database file.
        announce: is given sentences that somebody has to read.
        note: is given what may be of use to who looks for a reason.

    Raises:
        JournalCorruptError: nothing of it can be read; it was left as it is.
        StoreError: it cannot be opened, cannot be written, or belongs to a newer kasmos.
    """
    try:
        if not path.exists():
            _create(path)
        try:
            return _open_sound(path, note)
        except JournalCorruptError as error:
            _salvage(path, error, announce)
            return _open_sound(path, note)
    except OSError as error:
        raise StoreError(f"the journal {path} cannot be opened: {error.strerror or error}") from error


def _open_sound(path: Path, note: Callable[[str], None]) -> Opened:
    database = Database.open(path)
    try:
        database.check()
        folded = fold_journal(database, path, note, strict=True)
        database.begin_writing()
    except BaseException as error:
        database.close()
        # Nothing here is asynchronous: no cancellation can be among these errors.
        if isinstance(error, ChainError):
            raise JournalCorruptError(f"the journal {path} is damaged: {error}") from error  # noqa: ASYNC104
        if isinstance(error, ForeignEventError):
            raise StoreError(  # noqa: ASYNC104
                f"the journal {path} was written by a newer kasmos: use that one, or another state root ({error})"
            ) from error
        raise
    return Opened(database, folded)


def _create(path: Path) -> None:
    log, _ = companions(path)
    if log.exists() and log.stat().st_size:
        raise JournalCorruptError(
            f"the journal {path} is missing, but its write-ahead log {log.name} is there: "
            + _CURE.format(name=path.name)
        )
    _install(path, None, ())


def _install(path: Path, journal_id: str | None, rows: tuple[Row, ...]) -> None:
    new = path.with_name(f"{path.name}.new")
    for leftover in (new, *companions(new)):
        leftover.unlink(missing_ok=True)
    Database.create(new, journal_id=journal_id, rows=rows)
    new.replace(path)
    for leftover in companions(path):
        # They belong to the file that was replaced. If we die right before this, the chain tells.
        leftover.unlink(missing_ok=True)
    sync_directory(path.parent)


def _salvage(path: Path, damage: JournalCorruptError, announce: Callable[[str], None]) -> None:
    journal_id, rows = _longest_prefix(path)
    if not rows:
        raise JournalCorruptError(f"{damage}; no event of it can be read; " + _CURE.format(name=path.name)) from damage
    kept = _keep_aside(path)
    _install(path, journal_id, rows)
    announce(
        f"{damage}. Its first {len(rows)} events, up to {format_instant(rows[-1][1])}, were salvaged; what followed "
        f"is lost, except what the sessions' directories tell. The damaged file is kept as {kept}"
    )


def _keep_aside(path: Path) -> Path:
    log, _ = companions(path)
    number = 1
    while True:
        kept = path.with_name(f"{path.name}.damaged-{number}")
        try:
            # A second name, not a new one: at no instant is there no file under the journal's own name.
            kept.hardlink_to(path)
        except FileExistsError:
            number += 1
            continue
        if log.exists():
            companions(kept)[0].hardlink_to(log)
        return kept


def _longest_prefix(path: Path) -> tuple[str, tuple[Row, ...]]:
    """The longest provable beginning, with the write-ahead log or without it: it may belong to another file."""
    log, _ = companions(path)
    best: tuple[str, tuple[Row, ...]] = ("", ())
    for with_log in (True, False):
        # On copies: to open a damaged file can change it.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".salvage-") as scratch:
            copy = Path(scratch, "copy.db")
            shutil.copyfile(path, copy)
            if with_log and log.exists() and os.path.getsize(path):
                shutil.copyfile(log, companions(copy)[0])
            found = _readable_prefix(copy)
        if len(found[1]) > len(best[1]):
            best = found
    return best


def _readable_prefix(copy: Path) -> tuple[str, tuple[Row, ...]]:
    try:
        database = Database.open_to_read(copy, damaged=True)
    except StoreError:
        return "", ()
    rows: list[Row] = []
    journal_id = ""
    try:
        journal_id, seed = database.seed()
        for row in verified(database.rows(), seed):
            rows.append(row)  # noqa: PERF402  # what was read before the damage is to be kept
    except (StoreError, ChainError):
        # Here it ends.
        pass
    finally:
        database.close()
    return journal_id, tuple(rows)
