"""Starting a daemon that outlives its caller, and hearing from it whether it came up.

The daemon is a process in a kernel session of its own. Until it is ready it holds the writing end of a pipe: one line
through it says that it is, or why it is not; the end of the pipe without a line says that it died.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from kasmos.model.value import frozen

VARIABLE = "KASMOS_READY_FD"
"""Names the descriptor of the pipe to a daemon that is being started."""
START_TIMEOUT = 60.0
"""Seconds after which a daemon that has said nothing is left to itself."""
_TAIL = 4096


@frozen
class Word:
    """What a daemon said of its start."""

    ready: bool
    text: str = ""
    """Why not."""
    code: int = 0
    """The exit status for that."""
    pid: int | None = None
    addresses: tuple[str, ...] = ()


class Pipe:
    """The daemon's end; says one word and is closed. Without a caller it says it to nobody."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    @classmethod
    def take(cls, environ: dict[str, str]) -> Pipe:
        """Take it out of the environment, which programs must not get it from."""
        text = environ.pop(VARIABLE, "")
        os.environ.pop(VARIABLE, None)
        return cls(int(text) if text.isdecimal() else None)

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits at the other end: we are in the background then."""
        return self._descriptor is not None

    def say(self, word: Word) -> None:
        """Say it, once. A caller who has gone away misses it."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.write(descriptor, json.dumps(attrs.asdict(word)).encode() + b"\n")
        except OSError:
            pass
        finally:
            os.close(descriptor)


def start(arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> Word:
    """Start a daemon in the background, and wait for its word.

    Args:
        arguments: of `kas`.
        environ: its environment.
        log: what it writes to standard output and error goes here.
    """
    reader, writer = os.pipe()
    try:
        with open(log, "ab", opener=_private) as output, open(os.devnull, "rb") as nothing:
            begin = output.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "kasmos", *arguments],
                stdin=nothing,
                stdout=output,
                stderr=output,
                cwd="/",
                env={**environ, VARIABLE: str(writer)},
                pass_fds=(writer,),
                start_new_session=True,
            )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        return _hear(reader, process, log, begin)
    finally:
        os.close(reader)
        # It goes on without us; nobody has to be told that we did not wait for it.
        process.returncode = process.returncode or 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _hear(reader: int, process: subprocess.Popen[bytes], log: Path, begin: int) -> Word:
    data = b""
    give_up = time.monotonic() + START_TIMEOUT
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while not data.endswith(b"\n"):
        left = give_up - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            text = f"it has not come up within {START_TIMEOUT:g} s and is left to itself (pid {process.pid}): {log}"
            return Word(False, text, 4)
        piece = os.read(reader, 65_536)
        if not piece:
            code = process.wait()
            return Word(False, _last_words(log, begin) or f"it ended with status {code} and said nothing", 70)
        data += piece
    said: dict[str, Any] = json.loads(data)
    if not said["ready"]:
        process.wait()
    return Word(said["ready"], said["text"], said["code"], said["pid"], tuple(said["addresses"]))


def _last_words(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - _TAIL))
        return file.read().decode(errors="replace").strip()
