"""What a scripted program tells of its usage and its failure: a line of its output. Pure.

Real programs have streams of their own, which `kasmos.harnesses` reads; scripts say the same in these lines, so that
plans can be tried out without any program, model or money.
"""

from __future__ import annotations

from kasmos.model.codec import CodecError, decode, encode
from kasmos.model.usage import Failure, Usage
from kasmos.model.value import frozen

_MARK = b"told: "


@frozen
class Told:
    """What a program says of itself."""

    usage: Usage | None = None
    """So far, not since the last time."""
    turns: int = 0
    failure: Failure | None = None
    """Why it will not have succeeded, whatever it exits with."""


def render_told(told: Told) -> bytes:
    """The line."""
    return _MARK + encode(told) + b"\n"


def parse_told(line: bytes) -> Told | None:
    """What a line tells; None if it is another line."""
    if not line.startswith(_MARK):
        return None
    try:
        return decode(line[len(_MARK) :], Told)
    except CodecError:
        return None
