"""Reading the journal without owning it: beside a supervisor that writes, or when nothing runs.

Blocking and free of Trio, so that a one-shot command starts quickly; from a Trio task, call in a thread.
Nothing is ever repaired here: only the supervisor that holds the lock does that.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from kasmos.exceptions import JournalCorruptError, StoreError
from kasmos.model.event import Record
from kasmos.model.view import World
from kasmos.store.chain import ChainError, records
from kasmos.store.database import PAGE_SIZE, Database, NoSharedMemoryError, companions
from kasmos.store.kept_fold import fold_journal

_MEMORY = "/dev/shm"  # noqa: S108  # for a directory of our own in it


def _ignore(text: str) -> None:
    """Pass over what nobody wants to know."""


def read_world(db: Path, *, on_foreign: Callable[[str], None] = _ignore) -> World:
    """The fold of the whole journal, as of its newest commit. A missing file gives an empty world.

    Args:
        db: the journal's file.
        on_foreign: is told the kind of each event that only a newer kasmos understands; they are passed over.

    Raises:
        JournalCorruptError: the journal is damaged; the next supervisor will salvage what can be read.
        StoreError: it cannot be read, or belongs to a newer kasmos.
    """
    with _open(db) as database:
        if database is None:
            return World()
        try:
            folded = fold_journal(database, db, _ignore)
        except ChainError as error:
            raise JournalCorruptError(f"the journal {db} is damaged: {error}") from error
        for kind in Counter(folded.footing.foreign).elements():
            on_foreign(kind)
        return folded.world


def read_records(
    db: Path,
    *,
    after: int = 0,
    limit: int = 1000,
    run_id: str | None = None,
    on_foreign: Callable[[str], None] = _ignore,
) -> list[Record]:
    """The next records after number *after*, oldest first. A missing file gives none.

    Fewer than *limit* means that there were no more at that instant.

    Args:
        db: the journal's file.
        after: number of the newest record that is known already.
        limit: how many at most.
        run_id: only those of this run, its sessions' included.
        on_foreign: is told the kind of each event that only a newer kasmos understands; they are passed over.

    Raises:
        JournalCorruptError: the journal is damaged.
        StoreError: it cannot be read, or belongs to a newer kasmos.
    """
    with _open(db) as database:
        if database is None:
            return []
        return list(islice(records(database.rows(after=after, run_id=run_id), on_foreign), limit))


@contextmanager
def _open(db: Path) -> Iterator[Database | None]:
    try:
        if db.stat().st_size < PAGE_SIZE:
            # SQLite would take it for a new database and remove its log; but no journal was ever so small.
            # Only asked for its size, never opened: that would cost this process its locks, if it is the supervisor.
            raise JournalCorruptError(f"the journal {db} is damaged: it is shorter than one page")
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise StoreError(f"the journal {db} cannot be read: {error.strerror}") from error
    log, _ = companions(db)
    if (beside := _open_beside(db)) is not None:
        with _closing(beside) as database:
            yield database
    elif not log.exists():
        # Shared memory cannot be made, and nobody has it: so nothing runs and the file is complete.
        with _closing(Database.open_to_read(db, immutable=True)) as database:
            yield database
    else:
        with _copied(db) as copy, _closing(Database.open_to_read(copy)) as database:
            yield database


def _open_beside(db: Path) -> Database | None:
    """Open where it lies, beside whoever writes; None if the shared memory for that cannot be made."""
    _, memory = companions(db)
    if not memory.exists() and not os.access(db.parent, os.W_OK):
        return None
    try:
        return Database.open_to_read(db)
    except NoSharedMemoryError:
        # The disk is full. Whoever writes would have made it before, so nobody does.
        return None


@contextmanager
def _copied(db: Path) -> Iterator[Path]:
    """The database and its log where there is room for shared memory: in memory, if there is such a place."""
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    try:
        scratch = tempfile.TemporaryDirectory(prefix="kasmos-", dir=memory)
    except OSError as error:
        raise _no_copy(db, error) from error
    with scratch as directory:
        copy = Path(directory, db.name)
        try:
            for original, to in ((db, copy), (companions(db)[0], companions(copy)[0])):
                shutil.copyfile(original, to)
        except OSError as error:
            raise _no_copy(db, error) from error
        yield copy


def _no_copy(db: Path, error: OSError) -> StoreError:
    return StoreError(f"the journal {db} can be read neither where it is nor as a copy: {error.strerror}")


@contextmanager
def _closing(database: Database) -> Iterator[Database]:
    try:
        yield database
    finally:
        database.close()
