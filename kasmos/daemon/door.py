"""The door: the Unix socket that others reach the supervisor by, open before there is anybody to serve them.

The web stack takes a third of a second to import, and most runs end without a visitor. So the socket is made at
once, the kernel lets visitors wait in it, and what serves them is fetched when the first one knocks.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import trio

from kasmos.exceptions import StoreError

BACKLOG = 1024
"""Visitors who may wait."""
SOCKET_PATH_MAX = 107
"""Bytes; `sun_path` of unix(7) less its final NUL."""


class Door:
    """A listening socket at a path; not inherited by any program.

    The caller holds the lock of the state root: a socket file that is there is a dead supervisor's. Anything else
    there is left alone.

    Raises:
        StoreError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.listener = _listen(path)
        self._made = os.lstat(path)

    async def wait_knock(self) -> None:
        """Wait until somebody is at the door."""
        await trio.lowlevel.wait_readable(self.listener)

    def close(self) -> None:
        """Close it, and remove the file unless somebody has put another in its place. Idempotent."""
        self.listener.close()
        try:
            found = self._path.lstat()
            if (found.st_dev, found.st_ino) == (self._made.st_dev, self._made.st_ino):
                self._path.unlink()
        except OSError:
            pass  # The next supervisor removes it.


def _listen(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise StoreError(f"{path} is too long for a socket ({SOCKET_PATH_MAX} bytes): use a shorter state root")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        os.fchmod(sock.fileno(), 0o600)  # The file gets the mode that the socket has.
        sock.bind(str(path))
        sock.setblocking(False)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StoreError(f"the socket {path} cannot be made: {error.strerror}") from error
    except StoreError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    """Remove a dead supervisor's socket."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise StoreError(f"{path} is in the way of the socket: it is something else; move it away")
    path.unlink()
