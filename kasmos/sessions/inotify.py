"""File events: one inotify instance for the whole process, read by one Trio task.

Callers are told that something happened, never what: they look for themselves. So an
overflowing queue is harmless: everybody is woken.
"""

from __future__ import annotations

import ctypes
import enum
import os
import struct
from collections.abc import Callable

import trio

_libc = ctypes.CDLL(None, use_errno=True)
_EVENT = struct.Struct("iIII")


class Mask(enum.IntFlag):
    """Bits of inotify(7) that kasmos uses."""

    MODIFY = 0x2
    CLOSE_WRITE = 0x8
    MOVED_TO = 0x80
    CREATE = 0x100
    ONESHOT = 0x8000_0000
    IGNORED = 0x8000
    OVERFLOW = 0x4000


# As plain numbers: thousands of events a second are told apart by them.
_IGNORED, _OVERFLOW = int(Mask.IGNORED), int(Mask.OVERFLOW)


class Inotify:
    """Watches on files and directories, each with a callback that runs in the Trio thread.

    Callbacks must not block and must not raise.
    """

    def __init__(self) -> None:
        self._fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"inotify_init1: {os.strerror(code)}")
        self._callbacks: dict[int, Callable[[], None]] = {}

    def watch(self, path: str, mask: Mask, callback: Callable[[], None]) -> int:
        """Call *callback* when something in *mask* happens at *path*.

        Returns: a key for `forget`. A path that is watched already gets the new mask and callback.

        Raises:
            OSError: the path is gone, or the limit on watches is reached.
        """
        key: int = _libc.inotify_add_watch(self._fd, os.fsencode(path), int(mask))
        if key < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
        self._callbacks[key] = callback
        return key

    def forget(self, key: int) -> None:
        """End a watch. One that has ended by itself is no error."""
        if self._callbacks.pop(key, None) is not None:
            _libc.inotify_rm_watch(self._fd, key)

    async def run(self) -> None:
        """Read events and call callbacks until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                data = os.read(self._fd, 65_536)
            except BlockingIOError:
                continue
            self._dispatch(data)

    def close(self) -> None:
        """Close the instance; every watch ends."""
        os.close(self._fd)
        self._callbacks.clear()

    def _dispatch(self, data: bytes) -> None:
        position = 0
        while position < len(data):
            key, mask, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size + length
            if mask & _OVERFLOW:
                for callback in list(self._callbacks.values()):
                    callback()
            elif mask & _IGNORED:
                # The end of a one-shot watch, or the file is gone.
                self._callbacks.pop(key, None)
            elif key in self._callbacks:
                self._callbacks[key]()
