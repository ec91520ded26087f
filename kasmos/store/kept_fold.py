"""The fold of a journal, kept in a file beside it, so that a start need not fold a long journal anew.

A cache and never the truth. It is used if all of this holds, and is as if it were not there otherwise:

1. It is whole: its last bytes are a digest of all others.
2. The same code made it: kasmos' version, Python's, and the text of the model and of the fold.
3. It is of this journal, which has at that number the row with that link, and as many events before it as it had: those
   that were forgotten since would still be in it.

The chain is proven from the first row on in either case; what is saved is decoding and folding.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import os
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

import kasmos
from kasmos.failpoints import reach
from kasmos.model.codec import CodecError, decode, encode
from kasmos.model.value import define, frozen
from kasmos.model.view import World
from kasmos.store.chain import PRUNED, Row, records, verified
from kasmos.store.database import Database, sync_directory
from kasmos.store.fold import apply
from kasmos.store.kept_world import load_world, render_world

_MAGIC = b"kasmos fold 2\n"
_PIECE = struct.Struct("<II")
_DIGEST_SIZE = 32
"""Of SHA-256, for which processors have instructions: all of the file is digested with each start."""
_MANY = 10_000
"""Objects."""
_CODE = ("model/*.py", "store/fold*.py", "store/kept*.py", "store/chain.py")


class UnusableError(Exception):
    """What is kept cannot be used; the message says why."""


@frozen
class Footing:
    """Where in which journal a fold stands."""

    journal_id: str
    seq: int
    """Number and link of the newest row it has seen."""
    link: int
    events: int
    """How many events the journal had up to there, without those that were forgotten."""
    foreign: dict[str, int] = attrs.field(factory=dict)
    """Kinds of events that were passed over, and how many of each."""


@frozen
class _Head:
    code: str
    footing: Footing


@define
class Folded:
    """A journal, proven and folded to its end."""

    world: World
    footing: Footing
    kept_events: int = 0
    """How many of its events were not folded, because what they fold to was kept."""


class _NotHereError(Exception):
    """What is kept does not stand in this journal."""


def path_of(db: Path) -> Path:
    """Where the fold of a journal is kept."""
    return db.with_suffix(".fold")


@functools.cache
def code_digest() -> str:
    """What tells the code that folds from any other.

    Raises:
        UnusableError: it cannot be read.
    """
    digest = hashlib.sha256(f"{kasmos.__version__} {sys.version}".encode())
    home = Path(kasmos.__file__).parent
    try:
        texts = [path.read_bytes() for pattern in _CODE for path in sorted(home.glob(pattern))]
    except OSError as error:
        raise UnusableError(f"kasmos cannot read its own code: {error.strerror}") from error
    if not texts:
        raise UnusableError("kasmos has no code to read here")
    for text in texts:
        digest.update(struct.pack("<Q", len(text)) + text)
    return digest.hexdigest()


# --- the file ---------------------------------------------------------------------------


def write_kept(
    path: Path, world: World, footing: Footing, *, pause: Callable[[], None], ours: Callable[[], bool]
) -> None:
    """Keep a world that does not change meanwhile, in place of what was kept. Blocks, and takes its time.

    Args:
        path: see `path_of`.
        world: the fold of everything up to *footing*.
        footing: where it stands.
        pause: called after each piece; whatever it raises ends this, and what was kept before stays.
        ours: whether the file may be put in its place.

    Raises:
        OSError: the disk does not take it; what was kept before stays.
        CodecError: so does it if the world cannot be rendered.
        UnusableError: or if it could not be used, or must not be put there.
    """
    head = encode(_Head(code_digest(), footing))
    new = path.with_name(f"{path.name}.new")
    digest = hashlib.sha256()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            for part in _parts(head, world):
                digest.update(part)
                file.write(part)
                pause()
            file.flush()
            reach("fold.half-written")
            file.write(digest.digest())
            file.flush()
            os.fsync(descriptor)
        if not ours():
            raise UnusableError("the journal is another one by now")
        reach("fold.written")
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    reach("fold.kept")


def _parts(head: bytes, world: World) -> Iterator[bytes]:
    yield _MAGIC + _PIECE.pack(0, len(head)) + head
    for name, data in render_world(world):
        yield _PIECE.pack(len(name), len(data)) + name.encode() + data


def read_kept(path: Path) -> tuple[World, Footing] | None:
    """What is kept, if anything is. It may be of another journal: see `fold_journal`. Blocks.

    Raises:
        UnusableError: it is damaged, or other code made it.
    """
    try:
        data = memoryview(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnusableError(f"it cannot be read: {error.strerror}") from error
    whole, digest = data[:-_DIGEST_SIZE], data[-_DIGEST_SIZE:]
    # By the digest first: nothing else of it is looked at unless it is what was written.
    if hashlib.sha256(whole).digest() != digest or whole[: len(_MAGIC)] != _MAGIC:
        raise UnusableError("it is damaged, or no fold at all")
    pieces = _pieces(whole[len(_MAGIC) :])
    try:
        head = decode(bytes(next(pieces)[1]), _Head)
        if head.code != code_digest():
            raise UnusableError("another kasmos made it")
        return load_world(pieces), head.footing
    except (CodecError, struct.error, StopIteration, ValueError) as error:
        raise UnusableError(f"it is not what it should be: {error}") from error


def _pieces(data: memoryview) -> Iterator[tuple[str, memoryview]]:
    at = 0
    while at < len(data):
        of_name, of_data = _PIECE.unpack_from(data, at)
        begin = at + _PIECE.size + of_name
        at = begin + of_data
        yield str(data[begin - of_name : begin], "ascii"), data[begin:at]


# --- the journal ------------------------------------------------------------------------


def fold_journal(database: Database, path: Path, note: Callable[[str], None], *, strict: bool = False) -> Folded:
    """Prove a journal from its first row on, and give what it folds to, beginning with what is kept of that. Blocks.

    Args:
        database: the journal.
        path: the journal's path: what is kept lies beside it.
        note: is told why what is kept is not used.
        strict: see `records`.

    Raises:
        ChainError: it does not prove itself.
        ForeignEventError: with *strict*: see `records`.
        JournalCorruptError: it cannot be read.
    """
    kept = path_of(path)
    with _uncollected():
        try:
            found = read_kept(kept)
            if found is not None:
                return _fold(database, found, strict=strict)
        except UnusableError as error:
            note(f"the journal is folded anew: {kept} is not used, because {error}")
        except _NotHereError:
            why = "it is of another journal, or of a time before something was forgotten"
            note(f"the journal is folded anew: {kept} is not used, because {why}")
        return _fold(database, None, strict=strict)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would look at everything again and again while it only grows.

    It would go on so: while a large world is there, each of its full rounds would take longer than a client likes to
    wait, and find nothing in it. So what is there by then is left to the counting of references.
    """
    was_on = gc.isenabled()
    gc.disable()
    before = gc.get_count()[0]
    try:
        yield
        if gc.get_count()[0] - before > _MANY:
            gc.freeze()
    finally:
        if was_on:
            gc.enable()


def _fold(database: Database, found: tuple[World, Footing] | None, *, strict: bool) -> Folded:
    journal_id, seed = database.seed()
    world, kept = found or (World(), Footing(journal_id, 0, seed, 0))
    if kept.journal_id != journal_id:
        raise _NotHereError
    rows = verified(database.rows(), seed)
    last, link, events = _pass_over(rows, kept) if kept.seq else (0, seed, 0)
    foreign = Counter(kept.foreign)

    def news() -> Iterator[Row]:
        nonlocal last, link, events
        for row in rows:
            last, link = row[0], row[7]
            events += row[3] != PRUNED
            yield row

    for record in records(news(), lambda kind: foreign.update((kind,)), strict=strict):
        apply(world, record)
    return Folded(world, Footing(journal_id, last, link, events, dict(foreign)), kept.events)


def _pass_over(rows: Iterator[Row], kept: Footing) -> tuple[int, int, int]:
    """Take the rows that a kept fold has seen; the newest one's number and link, and how many events they are."""
    events = 0
    for row in rows:
        events += row[3] != PRUNED
        if row[0] >= kept.seq:
            if (row[0], row[7], events) != (kept.seq, kept.link, kept.events):
                raise _NotHereError
            return kept.seq, kept.link, events
    raise _NotHereError
