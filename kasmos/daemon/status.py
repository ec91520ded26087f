"""The snapshot for pollers: small, capped, and cheap to ask for often."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import trio

from kasmos import __version__
from kasmos.daemon import wire
from kasmos.daemon.service import Service
from kasmos.daemon.shapes import Attention, SessionWire, StatusWire
from kasmos.model.codec import encode, format_instant
from kasmos.model.plan import Origin
from kasmos.model.value import frozen
from kasmos.model.view import Pending, RunView, SessionView

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


@frozen
class _RunFacts:
    """What is told of an unfinished run, as long as it stands as it does."""

    run: RunView
    counts: Counter[str]
    """Its tasks by status."""
    concerns: tuple[Attention, ...]


@frozen
class _SessionFacts:
    """What is told of a live session, as long as it stands as it does and writes nothing."""

    view: SessionView
    output_bytes: int
    wire: SessionWire


_NO_UPTIME = b'"uptime":0.0,'


class StatusBoard:
    """Makes snapshots of one supervisor.

    What has not changed since the snapshot before is not made again.

    Args:
        service: what is looked at.
        started_at: when the supervisor started; wall clock.
    """

    def __init__(self, service: Service, started_at: float) -> None:
        self._service = service
        self._started_at = format_instant(started_at)
        self._began = time.monotonic()
        self._content, self._tag = b"", ""
        self._made_for: tuple[int, bool, int] | None = None
        self._made_at = 0.0
        self._runs: dict[str, _RunFacts] = {}
        self._sessions: dict[str, _SessionFacts] = {}

    def encoded(self) -> tuple[bytes, str]:
        """The snapshot as JSON, at most `FRESH_FOR` seconds old and never behind an event; and its content's tag."""
        tag = self.tag()
        # Time passes, which is no news: it is put into what is there. Quotes within a text would be escaped.
        head, _, rest = self._content.partition(_NO_UPTIME)
        return b'%s"uptime":%.3f,%s' % (head, time.monotonic() - self._began, rest), tag

    def tag(self) -> str:
        """The tag of `encoded`, for who may have it already."""
        made_for = (self._service.world.seq, self._service.accepting, self._service.queue_depth)
        now = trio.current_time()
        if made_for != self._made_for or now - self._made_at > FRESH_FOR:
            content = encode(self.snapshot())
            if content != self._content:
                self._content = content
                self._tag = hashlib.blake2b(content, digest_size=12).hexdigest()
            self._made_for, self._made_at = made_for, now
        return self._tag

    def snapshot(self) -> StatusWire:
        """The snapshot as of now, but for the time."""
        service, world, present = self._service, self._service.world, self._service.present
        unfinished = present.runs[::-1]
        live = present.sessions[::-1]
        facts = self._facts_of(unfinished)
        runs = [run for run in unfinished if run.origin is Origin.PLAN]
        singles = (task for run in unfinished if run.origin is Origin.TASK for task in run.tasks.values())
        tasks = [task for task in singles if not isinstance(task.state, Pending)]
        asked = wire.concerns(world, (), present.approvals, live[::-1])
        parked = wire.account_concerns(world, time.time())
        full = wire.disk_concerns(service.health.hindrance)
        concerns = [*full, *(concern for fact in facts[::-1] for concern in fact.concerns), *asked, *parked]
        return StatusWire(
            schema=SCHEMA,
            version=__version__,
            pid=os.getpid(),
            project=service.project,
            started_at=self._started_at,
            accepting=service.accepting,
            seq=world.seq,
            uptime=0.0,
            queue_depth=service.queue_depth,
            queue_limit=service.queue_limit,
            tasks=tuple(wire.task_wire(world, task) for task in tasks[:MAX_TASKS]),
            runs=tuple(wire.run_wire(run) for run in runs[:MAX_RUNS]),
            sessions=self._sessions_of(live[:MAX_SESSIONS]),
            attention=tuple(concerns[:MAX_ATTENTION]),
            counts={
                "runs": present.run_counts,
                "tasks": sum((fact.counts for fact in facts), Counter()),
                "sessions": Counter(map(wire.session_status, live)),
            },
            left_out={
                "runs": _beyond(runs, MAX_RUNS),
                "tasks": _beyond(tasks, MAX_TASKS),
                "sessions": _beyond(live, MAX_SESSIONS),
                "attention": _beyond(concerns, MAX_ATTENTION),
            },
        )

    def _facts_of(self, runs: Sequence[RunView]) -> list[_RunFacts]:
        known, self._runs = self._runs, {}
        for run in runs:
            fact = known.get(run.id)
            if fact is None or fact.run is not run:
                fact = _RunFacts(run, Counter(map(wire.task_status, run.tasks.values())), (*wire.run_concerns(run),))
            self._runs[run.id] = fact
        return list(self._runs.values())

    def _sessions_of(self, views: Sequence[SessionView]) -> tuple[SessionWire, ...]:
        service = self._service
        known, self._sessions = self._sessions, {}
        for view in views:
            fact, size = known.get(view.id), service.sessions.output_bytes(view)
            if fact is None or fact.view is not view or fact.output_bytes != size:
                # Only now, since it is a look at a file.
                fact = _SessionFacts(view, size, wire.session_wire(view, size, service.sessions.last_output_at(view)))
            self._sessions[view.id] = fact
        return tuple(fact.wire for fact in self._sessions.values())


def _beyond(items: Sequence[T], limit: int) -> int:
    return max(0, len(items) - limit)
