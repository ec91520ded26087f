"""Type-checked only: what kasmos calls a terminal is one, by the protocol."""

from __future__ import annotations

from kasmos.sessions.protocol import TerminalSession
from kasmos.sessions.tmux_session import TmuxSession


def as_terminal(session: TmuxSession) -> TerminalSession:
    return session
