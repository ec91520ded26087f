"""Word to the service manager, on a real socket."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

from kasmos.telemetry.notify import Notifier


def test_message_cannot_be_forged(root: Path) -> None:
    """A newline in a status begins no line of its own."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind(str(root / "n"))
        Notifier(str(root / "n")).stopping("a\nREADY=1")
        assert sock.recv(100) == b"STOPPING=1\nSTATUS=a READY=1"
