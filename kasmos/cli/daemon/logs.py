"""`kas daemon logs`: what the daemon in the background logs, across the files it has begun anew."""

from __future__ import annotations

import os
from typing import BinaryIO

import click

from kasmos.cli.context import place_of, put
from kasmos.cli.daemon.life import log_path
from kasmos.exceptions import StoreError

PIECE = 262_144
"""Bytes that are read at once."""


def show(ctx: click.Context, *, follow: bool, lines: int | None) -> None:
    """Print the log, and go on while it is written if *follow*.

    Raises:
        StoreError: there is none.
    """
    path = log_path(place_of(ctx))
    try:
        file = path.open("rb")
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror}: only a daemon that was started in the background logs there; "
            "one in the foreground logs to standard error, which the service manager keeps"
        ) from error
    with file:
        if lines is not None:
            file.seek(tail_offset(file, lines))
        _copy(file)
        position = file.tell()
    if follow:
        import trio

        trio.run(_follow, str(path), position)


def _copy(file: BinaryIO) -> None:
    while piece := file.read(PIECE):
        put(piece)


def tail_offset(file: BinaryIO, lines: int) -> int:
    """Where the last *lines* lines of a file begin, as `tail -n` counts them."""
    end = file.seek(0, os.SEEK_END)
    if lines == 0:
        return end
    at = end
    if end:
        file.seek(end - 1)
        at -= file.read(1) == b"\n"
    while at > 0:
        begin = max(0, at - PIECE)
        file.seek(begin)
        data = file.read(at - begin)
        found = len(data)
        while (found := data.rfind(b"\n", 0, found)) != -1:
            lines -= 1
            if lines == 0:
                return begin + found + 1
        at = begin
    return 0


async def _follow(path: str, position: int) -> None:
    """Print what is written from *position* on, for ever; woken by the kernel, never by a clock."""
    import trio

    from kasmos.sessions.inotify import Inotify, Mask

    news = trio.Event()

    def wake() -> None:
        news.set()

    inotify = Inotify()
    followed = _Followed(path, position)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inotify.run)
            # A new file takes the place of one that has grown.
            inotify.watch(os.path.dirname(path), Mask.CREATE, wake)
            while True:
                news = trio.Event()
                if followed.open():
                    inotify.watch(path, Mask.MODIFY, wake)
                if not followed.print():
                    await news.wait()
    finally:
        followed.close()
        inotify.close()


class _Followed:
    """The file at a path, whichever that is at the moment. Small reads of a local file."""

    def __init__(self, path: str, position: int) -> None:
        self._path = path
        self._position = position
        self._file: BinaryIO | None = None

    def open(self) -> bool:
        """Open what is there, unless that was done; True if another file is open now."""
        if self._file is not None:
            return False
        try:
            self._file = open(self._path, "rb")  # noqa: SIM115  # closed by `close`
        except FileNotFoundError:
            return False
        self._file.seek(self._position)
        return True

    def print(self) -> bool:
        """Print what is new; True if another file has taken its place, and is to be opened."""
        if self._file is None:
            return False
        moved = not self._is_at_its_path(self._file)
        _copy(self._file)
        if moved:
            self.close()
            self._position = 0
        return moved and os.path.exists(self._path)

    def close(self) -> None:
        """Close what is open. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _is_at_its_path(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False
