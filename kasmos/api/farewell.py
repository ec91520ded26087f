"""What a client is told that is dropped because it does not read.

It cannot be told in the ordinary way, since it takes nothing. So whoever answers it says beforehand what its last words
are, as bytes that end the answer, and the server puts them behind all else as it hangs up: who reads later, reads why.
"""

from __future__ import annotations

from typing import Any

from kasmos.model.codec import encode
from kasmos.model.value import define

REASON = "you have read nothing for too long; come back with the number of the last event you have"
TRY_AGAIN_LATER = 1013
"""The code of WebSockets for it."""


@define(eq=False)
class Farewell:
    """The last words of one connection."""

    words: bytes = b""


def farewell_of(scope: Any) -> Farewell:
    """That of a request's connection."""
    found = scope.get("state", {}).get("farewell")
    return found if isinstance(found, Farewell) else Farewell()


def end_of_stream(*, sse: bool, chunked: bool) -> bytes:
    """What ends a stream of lines or of server-sent events. It has no number: nobody resumes there."""
    line = encode({"type": "dropped", "reason": REASON})
    text = b"event: dropped\ndata: %s\n\n" % line if sse else line + b"\n"
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(text), text) if chunked else text


def end_of_websocket() -> bytes:
    """The frame that closes a WebSocket from our side, with code and reason (RFC 6455, 5.5.1)."""
    payload = TRY_AGAIN_LATER.to_bytes(2, "big") + REASON.encode()
    return bytes((0x88, len(payload))) + payload
