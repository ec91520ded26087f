"""Bytes to lines in bounded memory.

A line is given whole up to `WHOLE` bytes. A longer one that is JSON is shortened while it arrives: every text in
it beyond `KEEP` bytes is cut and says so, so that it stays JSON and keeps its meaning. What comes out depends on the
line alone, never on how its bytes were cut when they arrived.
"""

from __future__ import annotations

import re

WHOLE = 4 << 20
"""Bytes up to which a line is left as it is."""
KEEP = 65_536
"""Bytes that are kept of one text in a longer line."""
MOST = 16 << 20
"""Bytes of a shortened line; what is beyond is dropped, and the line is no JSON any more."""

# A text's inside, as far as it goes: anything but a quote, with what is escaped.
_INSIDE = re.compile(rb'(?:[^"\\]|\\.)*+', re.DOTALL)
_OUTSIDE = re.compile(rb'[^"]*+')
_HEX = rb"[0-9a-fA-F]"
# Whole letters only: neither half an escape nor half a surrogate pair. Without counts and looks ahead: a possessive
# repetition of them goes too far in Python 3.11 before 3.11.5, Debian 12's among them.
_LETTERS = re.compile(
    rb'(?:[^"\\]|\\[^u]|\\u[dD][89abAB]HH\\u[dD][c-fC-F]HH|\\u[dD][0-7c-fC-F]HH|\\u[0-9abcefABCEF]HHH)*+'.replace(
        b"H", _HEX
    )
)


class Lines:
    """Cut a stream of bytes into lines."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._short: _Shortener | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take more bytes; the lines that are complete now, without their ends."""
        first, *rest = data.split(b"\n")
        self._add(first)
        if not rest:
            return []
        lines = [self._take()]
        self._add(rest.pop())
        # What lies between two newlines in one piece of data is a line already.
        lines[1:] = [line if len(line) <= WHOLE else _shorten(line) for line in rest]
        return lines

    def close(self) -> bytes:
        """The last line, if the stream did not end with a newline; else nothing."""
        return self._take()

    def _add(self, data: bytes) -> None:
        if not data:
            return
        self._size += len(data)
        if self._short is not None:
            self._short.feed(data)
            return
        self._pieces.append(data)
        if len(self._pieces) > 1024:
            self._pieces = [b"".join(self._pieces)]
        if self._size > WHOLE:
            self._short = _Shortener()
            self._short.feed(b"".join(self._pieces))
            self._pieces = []

    def _take(self) -> bytes:
        line = b"".join(self._pieces) if self._short is None else self._short.close()
        self._pieces, self._size, self._short = [], 0, None
        return line


def _shorten(line: bytes) -> bytes:
    short = _Shortener()
    short.feed(line)
    return short.close()


class _Shortener:
    """Copies JSON without the inside of its long texts."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._text = bytearray()
        self._lost = 0
        self._inside = False
        self._escaped = False
        self._is_json: bool | None = None

    def feed(self, data: bytes) -> None:
        if self._is_json is None:
            # The first piece has more than WHOLE bytes: how the line was cut makes no difference.
            start = data[:WHOLE].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
            self._is_json = start in (b"{", b"[")
        if not self._is_json:
            self._keep(data)
            return
        at = 0
        if self._escaped:
            # The backslash waited for what it escapes, which is no quote now.
            data, self._escaped = b"\\" + data, False
        while at < len(data):
            at = self._take_inside(data, at) if self._inside else self._take_outside(data, at)

    def close(self) -> bytes:
        if self._inside or not self._is_json:
            self._end_text()
        return bytes(self._out)

    def _take_outside(self, data: bytes, at: int) -> int:
        match = _OUTSIDE.match(data, at)
        assert match is not None  # it matches the empty text
        self._put(data[at : match.end()])
        if match.end() < len(data):
            self._put(b'"')
            self._inside = True
        return match.end() + 1

    def _take_inside(self, data: bytes, at: int) -> int:
        match = _INSIDE.match(data, at)
        assert match is not None  # it matches the empty text
        end = match.end()
        self._keep(data[at:end])
        if end < len(data):
            if data[end : end + 1] == b'"':
                self._end_text()
                self._put(b'"')
                self._inside = False
            else:
                self._escaped = True
        return end + 1

    def _keep(self, data: bytes) -> None:
        # Some bytes more than are kept in the end, so that the last letter can be seen whole.
        room = KEEP + 16 - len(self._text)
        self._text += data[: max(room, 0)]
        self._lost += max(len(data) - max(room, 0), 0)

    def _end_text(self) -> None:
        if len(self._text) > KEEP:
            match = _LETTERS.match(bytes(self._text[:KEEP]))
            end = match.end() if match is not None and self._is_json else KEEP
            while end > 0 and self._text[end] & 0xC0 == 0x80:  # in the middle of a letter of several bytes
                end -= 1
            lost = self._lost + len(self._text) - end
            self._put(self._text[:end] + b"... [%d bytes left out]" % lost)
        else:
            self._put(self._text)
        self._text.clear()
        self._lost = 0

    def _put(self, data: bytes | bytearray) -> None:
        if len(self._out) < MOST:
            self._out += data
