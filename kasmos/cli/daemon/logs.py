"""`kas daemon logs`: what the daemon in the background logs, across the files it has begun anew."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO

import click

from kasmos.cli.context import place_of, put
from kasmos.cli.daemon.life import log_path
from kasmos.cli.newest import newest_lines
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
            file.seek(_tail_offset(file, lines))
        _copy(file)
        if follow:
            import trio

            from kasmos.telemetry.logs import file_names

            # The same open file: it may have been renamed meanwhile.
            trio.run(_follow, file, [str(name) for name in file_names(path)])


def _copy(file: BinaryIO) -> None:
    while piece := file.read(PIECE):
        put(piece)


def _tail_offset(file: BinaryIO, lines: int) -> int:
    def read(offset: int, size: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    return newest_lines(read, lines, end=file.seek(0, os.SEEK_END))


async def _follow(file: BinaryIO, names: Sequence[str]) -> None:
    """Print what is written after what was read of *file*, for ever; woken by the kernel, never by a clock."""
    import trio

    from kasmos.sessions.inotify import Inotify, Mask

    news = trio.Event()

    def wake() -> None:
        news.set()

    inotify = Inotify()
    followed = Followed(file, names)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inotify.run)
            # A new file takes the place of one that has grown.
            inotify.watch(os.path.dirname(names[0]), Mask.CREATE, wake)
            while True:
                news = trio.Event()
                inotify.watch(names[0], Mask.MODIFY, wake)
                if not followed.print():
                    await news.wait()
    finally:
        followed.close()
        inotify.close()


class Followed:
    """A log that is begun anew now and then, read in the order in which it was written. Small reads of local files.

    Args:
        file: the file that is read at present, which is closed at the end.
        names: the newest file's path, then those that earlier ones are renamed to, newest first.
    """

    def __init__(self, file: BinaryIO, names: Sequence[str]) -> None:
        self._file = file
        self._names = names

    def print(self) -> bool:
        """Print what is new; True if it goes on in another file, which is printed next."""
        # Looked for first: whatever was written to the old file was written before.
        newer = self._open_newer()
        _copy(self._file)
        if newer is None:
            return False
        self._file.close()
        self._file = newer
        return True

    def close(self) -> None:
        """Close what is open. Idempotent."""
        self._file.close()

    def _open_newer(self) -> BinaryIO | None:
        """The file that was begun after the present one; None if that is the newest."""
        while (found := self._find_newer()) is not None:
            name, meant = found
            try:
                file = open(name, "rb")  # noqa: SIM115  # closed by `close`
            except FileNotFoundError:
                continue
            if os.path.samestat(os.fstat(file.fileno()), meant):
                return file
            # They were renamed just now.
            file.close()
        return None

    def _find_newer(self) -> tuple[str, os.stat_result] | None:
        mine, newer = os.fstat(self._file.fileno()), None
        for name in self._names:
            try:
                found = os.stat(name)
            except FileNotFoundError:
                continue
            if os.path.samestat(found, mine):
                break
            newer = name, found
        return newer
