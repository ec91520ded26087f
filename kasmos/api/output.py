"""A session's output as an answer: bytes or text, with its place in the whole in the headers."""

from __future__ import annotations

import codecs

from quart import Response

from kasmos.api.answers import must_accept
from kasmos.api.app import the_service, this_app
from kasmos.api.questions import Query
from kasmos.daemon.terms import Output
from kasmos.sessions.protocol import OutputChunk

DEFAULT_BYTES = 65_536
MAX_BYTES = 1_048_576
MAX_WAIT = 60.0
"""Seconds."""

MAX_OFFSET = 2**62

_KINDS = {"raw": "application/octet-stream", "text": "text/plain"}


async def output_answer(session: str) -> Response:
    """Answer `?offset&limit&wait&format` for the output of a session.

    Headers: `X-Kasmos-Offset` is where the body begins, `X-Kasmos-Next-Offset` where to read on,
    `X-Kasmos-Lost` how many bytes between what was asked for and the body are gone, and
    `X-Kasmos-Ended` whether nothing will follow.
    """
    query = Query(("offset", "limit", "wait", "format"))
    offset = query.integer("offset", 0, -MAX_OFFSET, MAX_OFFSET)
    limit = query.integer("limit", DEFAULT_BYTES, 1, MAX_BYTES)
    wait = query.seconds("wait", MAX_WAIT)
    form = query.choice("format", tuple(_KINDS), "raw")
    query.done()
    kind = _KINDS[form or "raw"]
    must_accept(kind)
    output = await _read(session, offset, limit, wait)
    chunk = output.chunk
    body, end = (chunk.data, chunk.end) if form == "raw" else _as_text(chunk, output.ended)
    response = Response(body, content_type=f"{kind}; charset=utf-8" if form == "text" else kind)
    response.headers["X-Kasmos-Session"] = session
    response.headers["X-Kasmos-Offset"] = str(chunk.offset)
    response.headers["X-Kasmos-Next-Offset"] = str(end)
    response.headers["X-Kasmos-Lost"] = str(chunk.lost)
    response.headers["X-Kasmos-Ended"] = "true" if output.ended else "false"
    return response


async def _read(session: str, offset: int, limit: int, wait: float) -> Output:
    service = the_service()
    if wait > 0:
        with this_app().waiting(wait):
            return await service.sessions.read_output(session, offset, limit, wait)
    # Also when the wait was over or the server is closing: what there is, is the answer.
    return await service.sessions.read_output(session, offset, limit)


def _as_text(chunk: OutputChunk, ended: bool) -> tuple[bytes, int]:
    """Decode with replacement; a character that is cut by the piece's end is left for the next one."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(chunk.data)
    held = len(decoder.getstate()[0])
    if ended or held == len(chunk.data):
        return (text + decoder.decode(b"", final=True)).encode(), chunk.end
    return text.encode(), chunk.end - held
