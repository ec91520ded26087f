"""What has become of sessions while nobody supervised them: the journal's last word, put right by a look.

The journal calls a session live until a supervisor has recorded its end. Without a supervisor its directory
and the process table know better. Looks only; free of Trio.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kasmos.model.session import ExitStatus
from kasmos.model.value import frozen
from kasmos.model.view import SessionView, World

if TYPE_CHECKING:
    from kasmos.cli.context import Place
    from kasmos.daemon.wire import ExitWire


class Fate(enum.StrEnum):
    """How a session was found. Stable words, for programs."""

    RUNNING = "running"
    STARTING = "starting"
    """Its shell is there and its program is not yet."""
    ENDED = "ended"
    """With an `exit`."""
    NOT_BEGUN = "not_begun"
    GONE = "gone"
    UNREADABLE = "unreadable"

    @property
    def at_work(self) -> bool:
        """Whether something of it runs."""
        return self in (Fate.RUNNING, Fate.STARTING)


_WORDS = {
    Fate.RUNNING: "runs without a supervisor",
    Fate.STARTING: "is being started, without a supervisor",
    Fate.NOT_BEGUN: "never began, not yet recorded",
    Fate.GONE: "gone, its end was not recorded",
    Fate.UNREADABLE: "not to be told: its records cannot be read",
}


@frozen
class Found:
    """A session that the journal calls live, as a look has found it."""

    session_id: str
    fate: Fate
    exit: ExitStatus | None = None
    ended_at: float | None = None
    """Wall-clock instant of the end, where it is known."""
    pid: int | None = None
    """Of the program that runs."""

    def __str__(self) -> str:
        return f"ended ({self.exit}), not yet recorded" if self.fate is Fate.ENDED else _WORDS[self.fate]


def look_around(place: Place, world: World) -> dict[str, Found]:
    """What a look finds of each session that the journal calls live; nothing while a supervisor is there."""
    live = [session for session in world.sessions.values() if session.state.live]
    if not live or place.supervisor_pid() is not None:
        return {}
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {one.id: look_at(place.root.session_dir(one.id), one, boot_id) for one in live}


def look_at(directory: Path, session: SessionView, boot_id: str) -> Found:
    """Look into a session's directory and at its processes.

    Args:
        directory: the session's.
        session: what the journal knows of it.
        boot_id: of this boot.
    """
    try:
        return _look(directory, session, same_boot=session.boot_id == boot_id)
    except OSError:
        return Found(session.id, Fate.UNREADABLE)


def _look(directory: Path, session: SessionView, *, same_boot: bool) -> Found:
    from kasmos.sessions import layout
    from kasmos.sessions.launch import Records
    from kasmos.sessions.processes import is_alive, lease_is_held

    records = Records(os.fspath(directory))
    program = records.program()
    # Before the exit: what has ended between the two looks has its record by the second.
    runs = same_boot and program is not None and is_alive(program)
    recorded = records.exit()
    if recorded is not None:
        ended_at = (directory / layout.EXIT).stat().st_mtime
        return Found(session.id, Fate.ENDED, exit=recorded, ended_at=ended_at)
    if runs and program is not None:
        return Found(session.id, Fate.RUNNING, pid=program.id.pid)
    if program is None and same_boot:
        held = lease_is_held(os.fspath(directory / layout.LEASE))
        return Found(session.id, Fate.STARTING if held else Fate.NOT_BEGUN)
    return Found(session.id, Fate.GONE)


@frozen
class FoundWire:
    """A finding as JSON has it."""

    session_id: str
    state: str
    exit: ExitWire | None
    pid: int | None
    text: str


def found_wire(found: Found) -> FoundWire:
    """A finding as JSON has it."""
    from kasmos.daemon.wire import exit_wire

    return FoundWire(found.session_id, found.fate.value, exit_wire(found.exit), found.pid, str(found))


def seconds(world: World, session: SessionView, found: Mapping[str, Found], mono: float, wall: float) -> float | None:
    """How long a session has taken, or takes by now; None where it is over and nobody knows since when."""
    from kasmos.cli.render.facts import session_seconds

    one = found.get(session.id)
    if one is None or one.fate.at_work:
        return session_seconds(world, session, mono, wall)
    if one.ended_at is None:
        return None
    return session_seconds(world, session, mono - max(0.0, wall - one.ended_at), one.ended_at)
