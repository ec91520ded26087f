"""Events as lines: NDJSON or server-sent events, encoded once for all who listen."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from kasmos.model.codec import encode, encode_record, event_kind
from kasmos.model.event import Record

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"

KEEP = 2048
"""Newest records whose lines are kept."""

PIECE = 32_768
"""Bytes; a piece of an answer has a deadline of its own, so pieces are small."""

HEARTBEAT_INTERVAL = 15.0
"""Seconds of silence after which a reader is told, within a third of that, that we are still there."""

HEARTBEATS = {NDJSON: b'{"type":"heartbeat"}\n', SSE: b": heartbeat\n\n"}
"""Sent when nothing happens. They have no number: a reader that resumes never sees one as its place."""


class LineCache:
    """The lines of the newest records, so that a thousand readers cost one encoding each."""

    def __init__(self) -> None:
        self._lines: OrderedDict[int, bytes] = OrderedDict()
        self._newest = 0
        self._batch: Sequence[Record] = ()
        self._batches: dict[str, bytes] = {}
        """What was rendered last, by media type."""
        self._chunks: dict[str, bytes] = {}
        """The same as chunks of an answer."""

    def line(self, record: Record) -> bytes:
        """The record as one line of JSON, without its end."""
        line = self._lines.get(record.seq)
        if line is not None:
            return line
        line = encode_record(record)
        self._newest = max(self._newest, record.seq)
        # Whoever reads old history must not push out what all the others are about to read.
        if record.seq > self._newest - KEEP:
            self._lines[record.seq] = line
            if len(self._lines) > KEEP:
                self._lines.popitem(last=False)
        return line

    def render(self, record: Record, kind: str, task_id: str | None = None) -> bytes:
        """The record as this media type has it; with the id of the task it is about, if that is given."""
        line = self.line(record)
        if task_id is not None and not hasattr(record.event, "task_id"):
            line = line[:-1] + b',"task_id":' + encode(task_id) + b"}"
        if kind == NDJSON:
            return line + b"\n"
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (record.seq, event_kind(record.event).encode(), line)

    def render_all(self, records: Sequence[Record], kind: str) -> bytes:
        """Records next to each other as this media type has them, gaps between them included."""
        if records is not self._batch:
            self._batch, self._batches, self._chunks = records, {}, {}
        text = self._batches.get(kind)
        if text is None:
            parts, seen = [], records[0].seq - 1
            for record in records:
                if record.seq > seen + 1:
                    parts.append(render_gap(seen, record.seq, kind))
                seen = record.seq
                parts.append(self.render(record, kind))
            text = self._batches[kind] = b"".join(parts)
        return text

    def render_chunk(self, records: Sequence[Record], kind: str) -> bytes:
        """The same as a chunk of an answer in HTTP/1.1, ready to be sent."""
        text = self.render_all(records, kind)
        chunk = self._chunks.get(kind)
        if chunk is None:
            chunk = self._chunks[kind] = chunk_of(text)
        return chunk


def chunk_of(text: bytes) -> bytes:
    """A chunk of an answer in HTTP/1.1 (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(text), text)


def render_gap(after: int, before: int, kind: str) -> bytes:
    """What is said where the events between two numbers are missing. It has no number of its own."""
    line = b'{"type":"gap","after":%d,"before":%d}' % (after, before)
    return line + b"\n" if kind == NDJSON else b"event: gap\ndata: %s\n\n" % line


def pieces(data: bytes) -> Iterator[bytes]:
    """Cut an answer into pieces."""
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]
