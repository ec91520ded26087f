"""The snapshot for pollers: small, capped, and cheap to ask for often."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from typing import TypeVar

import attrs
import trio

from kasmos import __version__
from kasmos.daemon import wire
from kasmos.daemon.service import Service
from kasmos.daemon.shapes import StatusWire
from kasmos.model.codec import encode, format_instant
from kasmos.model.plan import Origin
from kasmos.model.view import Pending

T = TypeVar("T")

SCHEMA = 1
"""Version of the snapshot's shape; raised when a reader that was right is wrong from now on."""

MAX_RUNS = 20
MAX_TASKS = 50
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
        self._began = time.monotonic()
        self._body, self._tag = b"", ""
        self._made_for: tuple[int, bool] | None = None
        self._made_at = 0.0

    def encoded(self) -> tuple[bytes, str]:
        """The snapshot as JSON, at most `FRESH_FOR` seconds old and never behind an event; and its content's tag."""
        made_for = (self._service.world.seq, self._service.accepting)
        now = trio.current_time()
        if made_for != self._made_for or now - self._made_at > FRESH_FOR:
            snapshot = self.snapshot()
            self._body = encode(snapshot)
            # Time passes, which is no news.
            content = encode(attrs.evolve(snapshot, uptime=0.0))
            self._tag = hashlib.blake2b(content, digest_size=12).hexdigest()
            self._made_for, self._made_at = made_for, now
        return self._body, self._tag

    def snapshot(self) -> StatusWire:
        """The snapshot as of now."""
        service, world = self._service, self._service.world
        unfinished = [run for run in service.list_runs() if run.unfinished]
        runs = [run for run in unfinished if run.origin is Origin.PLAN]
        singles = (task for run in unfinished if run.origin is Origin.TASK for task in run.tasks.values())
        tasks = [task for task in singles if not isinstance(task.state, Pending)]
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
            uptime=round(time.monotonic() - self._began, 3),
            queue_depth=service.queue_depth,
            queue_limit=service.queue_limit,
            tasks=tuple(wire.task_wire(world, task) for task in tasks[:MAX_TASKS]),
            runs=tuple(wire.run_wire(run) for run in runs[:MAX_RUNS]),
            sessions=tuple(
                wire.session_wire(session, service.output_bytes(session), service.last_output_at(session))
                for session in sessions[:MAX_SESSIONS]
            ),
            attention=tuple(concerns[:MAX_ATTENTION]),
            counts=wire.counts(world),
            left_out={
                "runs": _beyond(runs, MAX_RUNS),
                "tasks": _beyond(tasks, MAX_TASKS),
                "sessions": _beyond(sessions, MAX_SESSIONS),
                "attention": _beyond(concerns, MAX_ATTENTION),
            },
        )


def _beyond(items: Sequence[T], limit: int) -> int:
    return max(0, len(items) - limit)
