"""The journal's file: one SQLite database in WAL mode. The one module that imports apsw.

Everything here blocks and belongs into a worker thread. apsw's exceptions end here: damage becomes
`JournalCorruptError`, a disk that takes nothing becomes `UnwritableError`, the rest `StoreError`.

A database comes into being under another name and is renamed when it is complete and durable, so an
empty or half-made file under the journal's own name is always damage and never a beginning.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw

from kasmos import failpoints
from kasmos.exceptions import JournalCorruptError, StoreError
from kasmos.model.usage import DayTally
from kasmos.store.chain import PRUNED, Row, bridge, carried_by, seed_of
from kasmos.store.pruning import Forgotten, Gap, Mark, decide_gaps, merged

SCHEMA_VERSION = 1
PRUNED_VERSION = 2
"""Of a journal with gaps that were made on purpose: a kasmos that knows nothing of them would take it for damaged."""
CARRYING_VERSION = 3
"""Of one whose gaps carry sums: a kasmos that passes them over would have spent nothing."""
APPLICATION_ID = 0x6B61736D  # "kasm"

PAGE_SIZE = 4096

_BUSY_TIMEOUT_MS = 5000
_WAL_LIMIT = 16 * 1024 * 1024
_COLUMNS = "seq, at, mono, kind, run_id, session_id, body, link"
# `meta` first: its page then comes before those of the events, and survives any truncation that leaves one.
_SCHEMA = f"""
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {SCHEMA_VERSION};
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY, at REAL NOT NULL, mono REAL NOT NULL, kind TEXT NOT NULL,
        run_id TEXT, session_id TEXT, body TEXT NOT NULL, link INTEGER NOT NULL
    ) STRICT;
"""
_INSERT = f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  # constants only
_HEADER = b"SQLite format 3\0"
# What may be otherwise in a moment, without anybody restarting anything.
_PASSING = (
    apsw.FullError,
    apsw.IOError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.PermissionsError,
    apsw.ProtocolError,
    apsw.NoMemError,
)
_DAMAGE = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError, UnicodeDecodeError)


class NoSharedMemoryError(StoreError):
    """A reader could not make what SQLite keeps beside a database: no room is left, or no right to."""


class UnwritableError(Exception):
    """Nothing can be written at the moment. The transaction is as if it had never begun."""

    def __init__(self, reason: str, *, full: bool, busy: bool = False) -> None:
        self.full = full
        """Whether space is what is missing."""
        self.busy = busy
        """Whether somebody else holds the database."""
        super().__init__(reason)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise JournalCorruptError(f"the journal {path} is damaged: {error}") from error
    except apsw.SQLError as error:
        # "no such table", "unsupported file format": our statements are right, so the file is not.
        raise JournalCorruptError(f"the journal {path} is damaged: {error}") from error
    except apsw.Error as error:
        raise StoreError(f"the journal {path} cannot be used: {error}") from error


def companions(path: Path) -> tuple[Path, Path]:
    """The write-ahead log and the shared memory that SQLite keeps beside *path*."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def sync_directory(directory: Path) -> None:
    """Make renames in *directory* durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_header(path: Path) -> None:
    """Refuse what SQLite would not treat as damage: an empty file is a new database to it.

    Never call it while this process has the database open: closing any descriptor of a file
    gives up the POSIX locks that the process holds on it.

    Raises:
        JournalCorruptError: the file cannot be a journal.
    """
    with path.open("rb") as file:
        header = file.read(100)
    if not header:
        raise JournalCorruptError(f"the journal {path} is damaged: it is empty")
    # Bytes 18 and 19: the file format versions; SQLite reports an impossible one as "read-only".
    if len(header) < 100 or not header.startswith(_HEADER) or not {header[18], header[19]} <= {1, 2}:
        raise JournalCorruptError(f"the journal {path} is damaged: it does not begin like a database")


class Database:
    """One connection. Used by one thread at a time."""

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self.path = path
        self._connection = connection
        self._place: tuple[int, int] | None = None

    @classmethod
    def create(cls, path: Path, *, journal_id: str | None = None, rows: Sequence[Row] = ()) -> None:
        """Make a new database at *path*, durable when this returns. It must not exist.

        Raises:
            StoreError: the disk does not take it.
        """
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except OSError as error:
            raise StoreError(f"the journal {path} cannot be created: {error.strerror}") from error
        with _translated(path):
            connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_SCHEMA)
                connection.execute("INSERT INTO meta VALUES ('journal_id', ?)", (journal_id or uuid.uuid4().hex,))
                connection.executemany(_INSERT, rows)
                gaps = [row[6] for row in rows if row[3] == PRUNED]
                if gaps:
                    version = CARRYING_VERSION if any(map(carried_by, gaps)) else PRUNED_VERSION
                    connection.execute(f"PRAGMA user_version = {version}")
                connection.execute("COMMIT")
                # Closing would hide a failure.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.close()
        sync_directory(path.parent)

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open for writing, without changing anything yet: see `begin_writing`.

        Raises:
            JournalCorruptError: this is no database.
            StoreError: it cannot be opened, or belongs to a newer kasmos or to something else.
        """
        check_header(path)
        with _translated(path):
            connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
            # Until it is proven sound, a write-ahead log that may be another's must not reach the file.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            return cls._checked(path, connection)

    @classmethod
    def open_to_read(cls, path: Path, *, immutable: bool = False, damaged: bool = False) -> Database:
        """Open without the right to write, also beside a supervisor that writes.

        Args:
            path: the database.
            immutable: nobody can be writing, and neither locks nor shared memory may be made.
            damaged: read as far as it goes, even if the file is shorter than it says.

        Raises:
            JournalCorruptError: this is no database.
            NoSharedMemoryError: it has a write-ahead log, and what a reader needs for it cannot be made.
            StoreError: it cannot be opened, or belongs to a newer kasmos or to something else.
        """
        with _translated(path):
            if immutable:
                flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
                connection = apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags=flags)
            else:
                connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
            if damaged:
                connection.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)
            try:
                return cls._checked(path, connection)
            except (apsw.IOError, apsw.FullError, apsw.CantOpenError, apsw.ReadOnlyError) as error:
                raise NoSharedMemoryError(f"the journal {path} cannot be used: {error}") from error

    @classmethod
    def _checked(cls, path: Path, connection: apsw.Connection) -> Database:
        try:
            connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
            application = connection.pragma("application_id")
            version = connection.pragma("user_version")
        except BaseException:
            connection.close()
            raise
        if application == APPLICATION_ID and SCHEMA_VERSION <= version <= CARRYING_VERSION:
            return cls(path, connection)
        connection.close()
        if application != APPLICATION_ID or version < SCHEMA_VERSION:
            raise JournalCorruptError(f"the journal {path} is damaged, or not a journal of kasmos at all")
        raise StoreError(
            f"the journal {path} has version {version}; this kasmos knows version {CARRYING_VERSION}: "
            "use the newer kasmos that wrote it, or another state root"
        )

    def seed(self) -> tuple[str, int]:
        """The journal's id and the link before its first row.

        Raises:
            JournalCorruptError: it has none.
        """
        with _translated(self.path):
            row = self._connection.execute("SELECT value FROM meta WHERE key = 'journal_id'").fetchone()
        if row is None or not isinstance(row[0], str):
            raise JournalCorruptError(f"the journal {self.path} is damaged: it has lost its id")
        return row[0], seed_of(row[0])

    def check(self) -> None:
        """Let SQLite look at every page.

        Raises:
            JournalCorruptError: a page is not what it should be.
        """
        with _translated(self.path):
            problem = self._connection.execute("PRAGMA quick_check(1)").get
        if problem != "ok":
            raise JournalCorruptError(f"the journal {self.path} is damaged: {problem}")

    def rows(self, *, after: int = 0, run_id: str | None = None) -> Iterator[Row]:
        """Every row after *after*, in order, of one snapshot.

        Raises:
            JournalCorruptError: the next row cannot be read.
        """
        query = f"SELECT {_COLUMNS} FROM events WHERE seq > ?"  # noqa: S608  # constants only
        values: tuple[int | str, ...] = (after,)
        if run_id is not None:
            query, values = f"{query} AND run_id = ?", (after, run_id)
        with _translated(self.path):
            yield from self._connection.execute(f"{query} ORDER BY seq", values)

    def begin_writing(self) -> None:
        """Declare the database sound: from here on it is written, durably.

        Raises:
            StoreError: it cannot be written at all.
        """
        with _translated(self.path):
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            mode = self._connection.pragma("journal_mode", "wal")
            self._connection.pragma("synchronous", "full")
            self._connection.pragma("journal_size_limit", _WAL_LIMIT)
        if mode != "wal":
            raise StoreError(f"the journal {self.path} cannot keep a write-ahead log here: choose another state root")
        self._place = self._where()
        self._checkpoint()

    def append_at_once(self, rows: Sequence[Row], *, again: bool = False) -> None:
        """As `append`, but wait for nobody who holds the database: it is *busy* then.

        Raises:
            UnwritableError, JournalCorruptError, StoreError: as `append`.
        """
        self._connection.set_busy_timeout(0)
        try:
            self.append(rows, again=again)
        finally:
            self._connection.set_busy_timeout(_BUSY_TIMEOUT_MS)

    def append(self, rows: Sequence[Row], *, again: bool = False) -> None:
        """Write *rows* in one transaction, durable when this returns.

        Args:
            rows: at least one; they follow the newest row.
            again: an attempt to write some of *rows* has failed: look what of it is there after all.

        Raises:
            UnwritableError: it failed. Try again with the same rows, and more if there are.
            JournalCorruptError: the file was damaged under us.
            StoreError: it cannot be continued: somebody else has written to it.
        """
        try:
            self._require_place()
            self._connection.execute("BEGIN IMMEDIATE")
            if again:
                newest = self._connection.execute("SELECT max(seq) FROM events").get or 0
                rows = [row for row in rows if row[0] > newest]
            self._connection.executemany(_INSERT, rows)
            failpoints.reach("journal.before-commit")
            self._connection.execute("COMMIT")
            failpoints.reach("journal.after-commit")
        except (apsw.Error, OSError) as error:
            self._roll_back()
            raise self._refused(error) from error
        if rows and rows[0][0] == 1:
            # From its first event on the journal is never only in the log: without its log it is not empty.
            self._checkpoint()

    def prune(self, forgotten: Forgotten, carried: tuple[DayTally, ...] = ()) -> int:
        """Forget events, in one transaction that is durable when this returns; how many rows that were.

        Args:
            forgotten: what goes.
            carried: what the forgotten sessions have used, which stays.

        Raises:
            UnwritableError: it cannot be done at present; nothing has changed.
            JournalCorruptError: the file was damaged under us.
            StoreError: it cannot be written any more.
        """
        try:
            self._require_place()
            self._connection.execute("BEGIN IMMEDIATE")
            gaps = decide_gaps(self._marks(forgotten))
            for gap in gaps:
                self._replace(gap, carried if gap is gaps[-1] else ())
            if gaps and self._connection.pragma("user_version") < CARRYING_VERSION:
                version = CARRYING_VERSION if carried else PRUNED_VERSION
                self._connection.execute(f"PRAGMA user_version = {version}")
            failpoints.reach("journal.before-prune")
            self._connection.execute("COMMIT")
            failpoints.reach("journal.after-prune")
        except (apsw.Error, OSError) as error:
            self._roll_back()
            raise self._refused(error) from error
        return sum(gap.rows for gap in gaps)

    def _marks(self, forgotten: Forgotten) -> Iterator[Mark]:
        """The rows to forget, and the gaps that there are, in order."""
        query = """
            SELECT seq, at, mono, link, CASE kind WHEN ?1 THEN json_extract(body, '$.first') END, body FROM events
            WHERE kind = ?1 OR run_id IN (SELECT value FROM json_each(?2))
                OR session_id IN (SELECT value FROM json_each(?3))
                OR (run_id IS NULL AND session_id IS NULL AND at < ?4
                    AND NOT (kind IN ('supervisor_started', 'supervisor_stopped') AND seq >= ?5)
                    AND NOT (kind = 'account_parked' AND json_extract(body, '$.until_at') IS NULL)
                    AND kind <> 'account_released')
            ORDER BY seq
        """
        values = (
            PRUNED,
            json.dumps(forgotten.run_ids),
            json.dumps(forgotten.session_ids),
            forgotten.before,
            forgotten.keep_supervisors_from,
        )
        for row in self._connection.execute(query, values):
            yield Mark(*row)

    def _replace(self, gap: Gap, carried: tuple[DayTally, ...]) -> None:
        before = self._connection.execute("SELECT link FROM events WHERE seq = ?", (gap.first - 1,)).get
        link = self.seed()[1] if gap.first == 1 else before
        self._connection.execute("DELETE FROM events WHERE seq BETWEEN ? AND ?", (gap.first, gap.last))
        usage = merged([*(one for body in gap.bodies for one in carried_by(body)), *carried])
        self._connection.execute(_INSERT, bridge(gap.first, gap.last, gap.at, gap.mono, link, gap.link, usage))

    def probe(self) -> None:
        """Write something that is no event, durably, to know that it can be done.

        Raises:
            UnwritableError: it cannot be at present.
            JournalCorruptError: the file was damaged under us.
            StoreError: it cannot be written any more.
        """
        try:
            self._require_place()
            self._connection.execute("BEGIN IMMEDIATE")
            # A random value: writing what is there already would write nothing.
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('probe', hex(randomblob(8)))")
            self._connection.execute("COMMIT")
        except (apsw.Error, OSError) as error:
            self._roll_back()
            raise self._refused(error) from error

    def in_place(self) -> bool:
        """Whether its path still leads to the file that is written."""
        try:
            return self._where() == self._place
        except OSError:
            return False

    def close(self) -> None:
        """Close. What is in the write-ahead log goes into the file if nobody else has it open."""
        self._connection.close()

    def _where(self) -> tuple[int, int]:
        status = os.stat(self.path)
        return status.st_dev, status.st_ino

    def _require_place(self) -> None:
        # SQLite would go on writing into a file that nobody can ever open again.
        try:
            ours = self._where() == self._place
        except FileNotFoundError as error:
            raise OSError(errno.ESTALE, f"{self.path} was removed") from error
        if not ours:
            raise OSError(errno.ESTALE, f"{self.path} was replaced by another file")

    def _refused(self, error: Exception) -> Exception:
        if isinstance(error, OSError):
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            return UnwritableError(error.strerror or str(error), full=full)
        if isinstance(error, _PASSING):
            busy = isinstance(error, apsw.BusyError)
            return UnwritableError(str(error), full=isinstance(error, apsw.FullError), busy=busy)
        if isinstance(error, _DAMAGE):
            return JournalCorruptError(f"the journal {self.path} was damaged under us: {error}")
        return StoreError(f"the journal {self.path} cannot be continued: {error}")

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except apsw.Error:
                # It says that it failed although it rolls back; the next BEGIN tells if it did not.
                return

    def _checkpoint(self) -> None:
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error:
            # Everything is durable in the log; the next checkpoint tries again.
            return
