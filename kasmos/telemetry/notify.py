"""Telling the service manager how it stands with us: the protocol of sd_notify(3), a few lines of it.

Without `NOTIFY_SOCKET` nothing is told to anybody. A manager that does not listen is no reason to end.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Sends messages to the service manager's socket.

    Args:
        address: `NOTIFY_SOCKET`: a path, or an abstract name that begins with `@`; empty for nobody.
    """

    def __init__(self, address: str = "") -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Notifier:
        """Made from the environment the service manager gave us."""
        return cls(environ.get("NOTIFY_SOCKET", ""))

    def ready(self, status: str = "") -> None:
        """It is up, or has reloaded."""
        self.tell("READY=1", *([f"STATUS={status}"] if status else []))

    def reloading(self) -> None:
        """It reads its configuration again; `ready` follows."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """It is on its way out."""
        self.tell("STOPPING=1", f"STATUS={status}")

    def watchdog(self) -> None:
        """It is well."""
        self.tell("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """It needs this much longer for what it is doing."""
        self.tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def tell(self, *lines: str) -> None:
        """Send a message; never blocks and never fails."""
        if not self._address:
            return
        data = "\n".join(line.replace("\n", " ") for line in lines).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(data, self._address)
        except OSError:
            return


def watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Seconds within which the service manager wants to hear that we are well; None if it does not."""
    if environ.get("WATCHDOG_PID", "") not in ("", str(os.getpid())):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    return (
        int(microseconds) / 1e6 if microseconds.isascii() and microseconds.isdecimal() and int(microseconds) else None
    )
