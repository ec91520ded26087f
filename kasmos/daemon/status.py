"""The snapshot for pollers: small, capped, and cheap to ask for often."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TypeVar

import trio

from kasmos import __version__
from kasmos.daemon import wire
from kasmos.daemon.service import Service
from kasmos.daemon.shapes import StatusWire
from kasmos.model.codec import encode, format_instant

T = TypeVar("T")

SCHEMA = 1
"""Version of the snapshot's shape; raised when a reader that was right is wrong from now on."""

MAX_RUNS = 20
MAX_SESSIONS = 100
MAX_ATTENTION = 50

FRESH_FOR = 0.25
"""Seconds for which a snapshot is given out again while no event has happened: only the amounts of
output can be that much behind, and a hundred pollers cost as much as one."""


class StatusBoard:
    """Makes snapshots of one supervisor.

    Args:
        service: what is looked at.
        started_at: when the supervisor started; wall clock.
    """

    def __init__(self, service: Service, started_at: float) -> None:
        self._service = service
        self._started_at = format_instant(started_at)
        self._body = b""
        self._made_for: tuple[int, bool] | None = None
        self._made_at = 0.0

    def encoded(self) -> bytes:
        """The snapshot as JSON, at most `FRESH_FOR` seconds old and never behind an event."""
        made_for = (self._service.world.seq, self._service.accepting)
        now = trio.current_time()
        if made_for != self._made_for or now - self._made_at > FRESH_FOR:
            self._body = encode(self.snapshot())
            self._made_for, self._made_at = made_for, now
        return self._body

    def snapshot(self) -> StatusWire:
        """The snapshot as of now."""
        service, world = self._service, self._service.world
        runs = [run for run in service.list_runs() if run.unfinished]
        sessions = [session for session in service.list_sessions() if session.state.live]
        concerns = list(wire.attention(world, time.time()))
        return StatusWire(
            schema=SCHEMA,
            version=__version__,
            pid=os.getpid(),
            project=service.project,
            started_at=self._started_at,
            accepting=service.accepting,
            seq=world.seq,
            runs=tuple(wire.run_wire(run) for run in runs[:MAX_RUNS]),
            sessions=tuple(
                wire.session_wire(session, service.output_bytes(session)) for session in sessions[:MAX_SESSIONS]
            ),
            attention=tuple(concerns[:MAX_ATTENTION]),
            counts=wire.counts(world),
            left_out={
                "runs": _beyond(runs, MAX_RUNS),
                "sessions": _beyond(sessions, MAX_SESSIONS),
                "attention": _beyond(concerns, MAX_ATTENTION),
            },
        )


def _beyond(items: Sequence[T], limit: int) -> int:
    return max(0, len(items) - limit)
