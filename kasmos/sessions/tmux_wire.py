"""The language of tmux's control mode: what is sent, what comes back. Pure.

A command is one line. Its answer is a block for each command on that line, `%begin T N F` to `%end T N F` (or `%error`,
after which the rest of the line is not run). Every other line that begins with `%` is a notification. What is inside a
block is a program's screen and may look like anything: a block is closed by its own numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence

from kasmos.model.value import frozen

OWN = b"1"
"""The flag of blocks that answer what this client sent; others answer the command line it was started with."""


@frozen
class Block:
    """The answer to one command."""

    lines: tuple[bytes, ...]
    ok: bool
    own: bool = True


@frozen
class Notification:
    """Something that has happened in the server."""

    name: str
    """Without the percent sign."""
    rest: bytes


def quote(word: str) -> bytes:
    """One argument of a command, so that tmux reads exactly these characters.

    Raises:
        ValueError: it holds NUL, which no argument can.
    """
    quoted = bytearray(b'"')
    for byte in word.encode("utf-8", "surrogateescape"):
        if byte == 0:
            raise ValueError("an argument cannot hold NUL")
        if byte in b'"\\$':
            quoted += b"\\" + bytes([byte])
        elif byte < 0x20 or byte == 0x7F:
            quoted += b"\\%03o" % byte
        else:
            quoted.append(byte)
    return bytes(quoted + b'"')


def render_line(*commands: Sequence[str]) -> bytes:
    """Commands as one line, run one after the other with nothing in between, up to the first that fails."""
    return b" ; ".join(b" ".join(quote(word) for word in command) for command in commands) + b"\n"


class ControlParser:
    """Makes blocks and notifications of the bytes of a control connection, however they are cut up."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._guard: bytes | None = None
        """The numbers of the block that is open."""
        self._lines: list[bytes] = []

    def feed(self, data: bytes) -> list[Block | Notification]:
        """Take in what has arrived; what is complete by it."""
        self._rest += data
        *lines, rest = bytes(self._rest).split(b"\n")
        if not lines:
            return []
        self._rest = bytearray(rest)
        found = (self._take(line) for line in lines)
        return [one for one in found if one is not None]

    def _take(self, line: bytes) -> Block | Notification | None:
        if self._guard is not None:
            for word in (b"%end ", b"%error "):
                if line == word + self._guard:
                    block = Block(tuple(self._lines), ok=word == b"%end ", own=self._guard.endswith(b" " + OWN))
                    self._guard, self._lines = None, []
                    return block
            self._lines.append(line)
            return None
        if line.startswith(b"%begin "):
            self._guard = line[len(b"%begin ") :]
            return None
        if line.startswith(b"%"):
            name, _, rest = line[1:].partition(b" ")
            return Notification(name.decode("ascii", "replace"), rest)
        return None  # what a terminal would be told, and is of no use here
