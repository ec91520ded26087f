"""Rows of the journal and the chain that holds them together. Pure.

Every row carries a link: a CRC-32 over its content and the link of the row before it, beginning with
a seed that belongs to this journal alone. So a journal can prove which prefix of it is intact: a
damaged row, a missing one, two in the wrong order, and pages of another journal all break the chain.

Rows that were forgotten on purpose are bridged by one row in their place: it has the number and the link of the last of
them, and in it a seal over the link before them, so that what follows proves itself as before.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator

from kasmos.model.codec import CodecError, decode_event, encode, encode_event, event_kind, event_kinds
from kasmos.model.event import EventsPruned, Record
from kasmos.model.usage import DayTally

Row = tuple[int, float, float, str, "str | None", "str | None", str, int]
"""`seq, at, mono, kind, run_id, session_id, body, link`, as in the table."""

_HEAD = struct.Struct("<qdd")
_GAP = struct.Struct("<qqII")
PRUNED = event_kind(EventsPruned(0, 0))
"""The kind of a row that bridges a gap."""
_KINDS = frozenset(event_kinds())


class ChainError(Exception):
    """The chain ends before the rows do; the message says where and how."""


class ForeignEventError(Exception):
    """An intact event of a known kind cannot be understood: a newer kasmos wrote it."""


def seed_of(journal_id: str) -> int:
    """The link before the first row."""
    return zlib.crc32(journal_id.encode())


def link_of(previous: int, seq: int, at: float, mono: float, kind: str, body: bytes) -> int:
    """The link of a row, given the link of the row before it."""
    return zlib.crc32(body, zlib.crc32(_HEAD.pack(seq, at, mono) + kind.encode(), previous))


def bridge(
    first: int, last: int, at: float, mono: float, before: int, link: int, usage: tuple[DayTally, ...] = ()
) -> Row:
    """The row that takes the place of those from *first* to *last*.

    Args:
        before: the link of the row before them.
        link: the link of the last of them.
        usage: what forgotten sessions have used.
    """
    body = encode_event(EventsPruned(first, _seal(first, last, before, link, usage), usage)).decode()
    return last, at, mono, PRUNED, None, None, body, link


def _seal(first: int, last: int, before: int, link: int, usage: tuple[DayTally, ...]) -> int:
    seal = zlib.crc32(_GAP.pack(first, last, before, link))
    return zlib.crc32(encode(usage), seal) if usage else seal


def carried_by(body: str) -> tuple[DayTally, ...]:
    """The sums that a row in the place of others carries."""
    event = decode_event(PRUNED, body)
    return event.usage if isinstance(event, EventsPruned) else ()


def _bridges(row: Row, last: int, link: int) -> bool:
    """Whether a row takes the place of all that followed row *last*, whose link is *link*."""
    seq, _, _, _, _, _, body, claimed = row
    try:
        event = decode_event(PRUNED, body)
        return (
            isinstance(event, EventsPruned)
            and event.first == last + 1 <= seq
            and event.seal == _seal(event.first, seq, link, claimed, event.usage)
        )
    except (CodecError, TypeError, struct.error):
        return False


def verified(rows: Iterable[Row], seed: int) -> Iterator[Row]:
    """Pass on *rows*, which begin with the first of the journal, as long as the chain holds.

    Raises:
        ChainError: a row is not what was once written after the row before it.
    """
    last, link = 0, seed
    for row in rows:
        seq, at, mono, kind, _, _, body, claimed = row
        if kind == PRUNED:
            if not _bridges(row, last, link):
                raise ChainError(f"what follows event {last} is not what was written there")
            last, link = seq, claimed
            yield row
            continue
        try:
            link = link_of(link, seq, at, mono, kind, body.encode())
        except (AttributeError, TypeError, ValueError, struct.error) as error:
            # A damaged page can give any type in any column.
            raise ChainError(f"what follows event {last} is not an event") from error
        if seq != last + 1 or link != claimed:
            raise ChainError(f"what follows event {last} is not what was written there")
        last = seq
        yield row


def records(rows: Iterable[Row], on_foreign: Callable[[str], None], *, strict: bool = False) -> Iterator[Record]:
    """Decode *rows*; those that only a newer kasmos understands are passed over and told to *on_foreign*.

    Raises:
        ForeignEventError: with *strict*, for a known kind of event that this kasmos cannot decode.
    """
    for seq, at, mono, kind, _, _, body, _ in rows:
        if kind not in _KINDS:
            on_foreign(kind)
            continue
        try:
            event = decode_event(kind, body)
        except CodecError as error:
            if strict:
                raise ForeignEventError(f"event {seq}: {error}") from error
            on_foreign(kind)
            continue
        yield Record(seq, at, mono, event)
