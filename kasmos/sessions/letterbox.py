"""The agent's side of a session's mailbox: a question is put there, and waits for its answer as a file.

It knows no supervisor, and needs nothing but the standard library: who asks lives in the session.
`kasmos.sessions.mailbox` is the other side, and says what the files are.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import time
from collections.abc import Mapping
from typing import Any

_MOVED_TO = 0x80


class Letterbox:
    """What one process of a session has asked.

    Args:
        directory: the mailbox.

    Raises:
        OSError: it cannot be watched.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._waiting: list[str] = []
        notifier = ctypes.CDLL(None, use_errno=True)
        self._watch = notifier.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._watch < 0 or notifier.inotify_add_watch(self._watch, os.fsencode(directory), _MOVED_TO) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), directory)

    def fileno(self) -> int:
        """Readable when there may be an answer."""
        return int(self._watch)

    def ask(self, said: Mapping[str, Any]) -> str:
        """Put a question there, durably; its name."""
        name = f"{time.time_ns():020d}-{os.getpid()}-{len(self._waiting)}"
        self._write(f"{name}.ask", json.dumps(said))
        self._waiting.append(name)
        return name

    def withdraw(self, name: str) -> None:
        """It is asked no more."""
        if name in self._waiting:
            self._waiting.remove(name)
            self._write(f"{name}.gone", "")

    def take_answers(self) -> list[tuple[str, str]]:
        """The answers that have come, each with its question's name. Never blocks."""
        with contextlib.suppress(BlockingIOError):  # no news, or taken before: the files tell
            os.read(self._watch, 65_536)
        found = []
        for name in self._waiting:
            try:
                with open(f"{self._directory}/{name}.answer", encoding="utf-8") as file:
                    found.append((name, file.read()))
            except FileNotFoundError:
                continue
        self._waiting = [name for name in self._waiting if name not in dict(found)]
        return found

    def _write(self, name: str, text: str) -> None:
        # Whole or not at all, and there before anybody is told of it.
        with open(f"{self._directory}/.{name}", "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{self._directory}/.{name}", f"{self._directory}/{name}")
