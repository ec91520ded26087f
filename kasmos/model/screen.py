"""A terminal's screen as a value: what a person would see, and where the cursor is."""

from __future__ import annotations

from kasmos.model.value import frozen


@frozen
class Picture:
    """What is on a terminal at one instant."""

    text: str
    """The visible lines from top to bottom, joined; with escapes for colours if they were asked for."""
    width: int
    height: int
    title: str = ""
    """As the program set it."""
    cursor_x: int = 0
    """Column, from 0."""
    cursor_y: int = 0
    """Line, from 0."""
    cursor_visible: bool = True
    alternate: bool = False
    """Whether the program uses the alternate screen, as full-screen programs do."""
    history: int = 0
    """Lines that have left the screen at its top and are kept."""
    dead: bool = False
    """Whether everybody has let go of the terminal."""
    offset: int = 0
    """Bytes of the session's output that were seen before the picture was taken: it is at least as new."""
    unread: int = 0
    """Bytes that were typed and that the program had not read yet."""


@frozen
class AttachedClient:
    """A terminal by which a person looks at a session."""

    name: str
    """As tmux names it: its terminal's path."""
    pid: int
    """Of the tmux client process."""
    active_at: float
    """Seconds since the epoch (whole ones): when it typed last, or came."""
    read_only: bool = False
    width: int = 0
    height: int = 0
