"""What is under way, kept by what has happened since one looked last, so that a look does not cost all of history.

The world holds every run and session that is remembered. Here are those that are not over, and how many of the others
ended how. Whoever asks brings it up to date: nothing is done while nobody asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Protocol, TypeVar

from kasmos.daemon.wire import run_status
from kasmos.model import event as ev
from kasmos.model.approval import ApprovalState
from kasmos.model.event import Record
from kasmos.model.view import ApprovalView, RunView, SessionView, World

V = TypeVar("V")

# A run that was reopened has its old place again.
_first_seq = attrgetter("first_seq")


class Recent(Protocol):
    """**Protocol.** The newest records, as far as they are in memory."""

    def recent(self, after: int) -> Sequence[Record] | None:
        """Every record with a number above *after*; None if some of them are not in memory any more."""


class Present:
    """What is under way in one world.

    Args:
        world: the present, advanced by the fold.
        recent: the records by which it is advanced, each of them there when the world shows it.
    """

    def __init__(self, world: World, recent: Recent) -> None:
        self._world = world
        self._recent = recent
        self._seq = -1
        self._runs: dict[str, None] = {}
        self._sessions: dict[str, None] = {}
        self._approvals: dict[str, None] = {}
        self._status: dict[str, str] = {}
        """Of every run."""
        self._counts: Counter[str] = Counter()

    def look(self) -> None:
        """Bring it up to date. Never blocks."""
        world = self._world
        # What was pruned is gone from the world before its event says so.
        if self._seq != world.seq or len(self._status) != len(world.runs):
            records = self._recent.recent(self._seq) if len(self._status) <= len(world.runs) else None
            if records is None or any(isinstance(record.event, ev.EventsPruned) for record in records):
                self._look_at_all()
            else:
                self._follow(records)
            self._seq = world.seq

    @property
    def runs(self) -> list[RunView]:
        """Unfinished runs, oldest first."""
        return sorted(_found(self._runs, self._world.runs), key=_first_seq)

    @property
    def sessions(self) -> list[SessionView]:
        """Live sessions, oldest first."""
        return sorted(_found(self._sessions, self._world.sessions), key=_first_seq)

    @property
    def approvals(self) -> list[ApprovalView]:
        """What waits for a person, oldest first."""
        return _found(self._approvals, self._world.approvals)

    @property
    def run_counts(self) -> dict[str, int]:
        """How many runs stand where, finished ones included."""
        return {status: count for status, count in self._counts.items() if count}

    def _look_at_all(self) -> None:
        world = self._world
        for known in (self._runs, self._sessions, self._approvals, self._status, self._counts):
            known.clear()
        self._update(world.runs, world.sessions)

    def _follow(self, records: Iterable[Record]) -> None:
        runs: dict[str, None] = {}
        sessions: dict[str, None] = {}
        for record in records:
            session_id = getattr(record.event, "session_id", None)
            run_id = getattr(record.event, "run_id", None)
            session = self._world.sessions.get(session_id) if session_id is not None else None
            if session is not None:
                sessions[session.id] = None
                run_id = session.run_id
            if run_id is not None:
                runs[run_id] = None
        self._update(runs, sessions)

    def _update(self, runs: Iterable[str], sessions: Iterable[str]) -> None:
        world = self._world
        for run_id in runs:
            run = world.runs.get(run_id)
            if run is None:
                continue
            before, now = self._status.get(run_id), run_status(run)
            if before != now:
                self._counts[now] += 1
                if before is not None:
                    self._counts[before] -= 1
                self._status[run_id] = now
            _keep(self._runs, run_id, run.unfinished)
        for session_id in sessions:
            session = world.sessions.get(session_id)
            if session is None:
                continue
            _keep(self._sessions, session_id, session.state.live)
            for approval_id in session.approvals:
                approval = world.approvals.get(approval_id)
                is_open = approval is not None and approval.state is ApprovalState.OPEN
                _keep(self._approvals, approval_id, is_open)


def _keep(known: dict[str, None], name: str, wanted: bool) -> None:
    """Have it among the known, at its place, or not at all."""
    if wanted:
        known.setdefault(name)
    else:
        known.pop(name, None)


def _found(names: Iterable[str], views: Mapping[str, V]) -> list[V]:
    return [view for name in names if (view := views.get(name)) is not None]
