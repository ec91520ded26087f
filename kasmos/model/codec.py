"""Values to JSON and back. The one module that imports msgspec.

Strict: a wrong type is an error with its JSON path, never coerced. Unknown fields are
ignored, so that an older kasmos reads a newer one's journal as far as it understands it.
An event's `type` is its class name in snake case.
"""

from __future__ import annotations

import datetime
import functools
import re
import typing
from typing import Any, TypeVar

import msgspec

from kasmos.model.event import Event, Record

T = TypeVar("T")

_EVENT_CLASSES: tuple[type[Event], ...] = typing.get_args(Event)
_KINDS: dict[type[Event], str] = {cls: re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower() for cls in _EVENT_CLASSES}
_CLASSES: dict[str, type[Event]] = {kind: cls for cls, kind in _KINDS.items()}
_ENCODER = msgspec.json.Encoder()


class _Head(msgspec.Struct):
    seq: int
    at: datetime.datetime
    mono: float
    type: str


_HEAD_DECODER = msgspec.json.Decoder(_Head)


class CodecError(ValueError):
    """The text is not what it should be; the message has the JSON path. Translated at each wall."""


def event_kind(event: Event) -> str:
    """The stable name of an event's kind, such as `session_ended`."""
    return _KINDS[type(event)]


def event_kinds() -> tuple[str, ...]:
    """Every kind of event there is."""
    return tuple(_KINDS.values())


def encode_event(event: Event) -> bytes:
    """Render an event's fields as a JSON object, without its kind.

    Raises:
        CodecError: a text in it is not Unicode (a lone surrogate, as in a file name that is not UTF-8).
    """
    return encode(event)


def decode_event(kind: str, body: bytes | str) -> Event:
    """Read an event of a known kind.

    Raises:
        CodecError: unknown kind, or a body that does not fit it.
    """
    decoder = _decoder(kind)
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CodecError(f"{kind}: {error}") from error


@functools.cache
def _decoder(kind: str) -> msgspec.json.Decoder[Event]:
    # Not of all kinds in advance: each takes a third of a millisecond, and few occur in a day.
    if kind not in _CLASSES:
        raise CodecError(f"unknown kind of event {kind!r}")
    return msgspec.json.Decoder(_CLASSES[kind])


def encode_record(record: Record) -> bytes:
    """Render a record as one JSON object: `seq`, `at` (RFC 3339), `mono`, `type`, then the event's fields."""
    head = {
        "seq": record.seq,
        "at": format_instant(record.at),
        "mono": record.mono,
        "type": event_kind(record.event),
    }
    body = encode_event(record.event)
    return _ENCODER.encode(head)[:-1] + (b"," + body[1:] if len(body) > 2 else b"}")


def decode_record(line: bytes | str) -> Record:
    """Read what `encode_record` wrote.

    Raises:
        CodecError: it is something else.
    """
    try:
        head = _HEAD_DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CodecError(str(error)) from error
    return Record(seq=head.seq, at=head.at.timestamp(), mono=head.mono, event=decode_event(head.type, line))


def encode(value: Any) -> bytes:
    """Render any of our values as compact JSON.

    Raises:
        CodecError: a text in it is not Unicode.
    """
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError as error:
        raise CodecError(f"{type(value).__name__}: {error}") from error


def encode_pretty(value: Any) -> str:
    """Render any of our values as indented JSON, for people.

    Raises:
        CodecError: a text in it is not Unicode.
    """
    return msgspec.json.format(encode(value), indent=2).decode()


def decode(text: bytes | str, kind: type[T]) -> T:
    """Read a value of this type.

    Raises:
        CodecError: the text is not JSON, or does not fit; with the JSON path.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CodecError(str(error)) from error


def convert(value: Any, kind: type[T]) -> T:
    """Make a value of this type out of dicts, lists, strings and numbers. Unknown fields are ignored.

    Raises:
        CodecError: it does not fit; with the path.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise CodecError(str(error)) from error


_PACKER = msgspec.msgpack.Encoder()


def pack(value: Any) -> bytes:
    """Render any of our values in the fewest bytes, as MessagePack: for files that only kasmos reads.

    Raises:
        CodecError: a text in it is not Unicode, or a number is too large.
    """
    try:
        return _PACKER.encode(value)
    except (UnicodeEncodeError, OverflowError) as error:
        raise CodecError(f"{type(value).__name__}: {error}") from error


def unpack(data: bytes | memoryview, kind: Any) -> Any:
    """Read what `pack` wrote of a value of this type.

    Raises:
        CodecError: the bytes are something else.
    """
    try:
        return _unpacker(kind).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CodecError(str(error)) from error


@functools.cache
def _unpacker(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


_LOOSE_DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
# Half of a surrogate pair: what a program writes that cuts a text in the middle of an emoji.
_SURROGATE = re.compile(
    rb"\\(?:\\|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2}))"
)


def decode_loose(line: bytes) -> Any:
    """Read JSON that another program wrote: invalid UTF-8 and halves of surrogate pairs become U+FFFD.

    Raises:
        CodecError: it is not JSON all the same.
    """
    try:
        return _LOOSE_DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    text = line.decode("utf-8", "replace").encode()
    text = _SURROGATE.sub(lambda match: rb"\ufffd" if match[1] else match[0], text)
    try:
        return _LOOSE_DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CodecError(str(error)) from error


def to_builtins(value: Any) -> Any:
    """Turn any of our values into dicts, lists, strings and numbers."""
    return msgspec.to_builtins(value)


def json_schemas(kinds: tuple[type, ...], ref_template: str) -> tuple[Any, dict[str, Any]]:
    """JSON Schemas of these types and the components they refer to."""
    return msgspec.json.schema_components(kinds, ref_template=ref_template)


def format_instant(at: float) -> str:
    """Render a wall-clock instant as RFC 3339 in UTC, with milliseconds."""
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
