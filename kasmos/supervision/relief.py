"""When a session is to end for a takeover: its turn is interrupted for a person, or the person has given it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from kasmos.model.session import StopReason
from kasmos.model.view import SessionView, TaskView
from kasmos.supervision.handover import decide_relief
from kasmos.supervision.ledger import Ledger

if TYPE_CHECKING:
    from kasmos.supervision.terminal import Terminal


class Relief:
    """Looks at one session; the journal says who has its conversation."""

    def __init__(self, session_id: str, ledger: Ledger) -> None:
        self._session_id = session_id
        self._ledger = ledger
        self._news = trio.Event()

    @property
    def attended(self) -> bool:
        """Whether the session is open for a person."""
        view = self._view
        return view is not None and view.attended

    @property
    def reason(self) -> StopReason | None:
        """Why the session is to end; None where it goes on."""
        task = self._task
        return decide_relief(task, self._view) if task is not None else None

    def heed(self) -> None:
        """Something has changed; the journal says what. Never blocks."""
        self._news.set()

    async def wait_due(self, terminal: Terminal | None) -> None:
        """Wait until the session is to end, and its turn is over if that is to be waited for.

        Args:
            terminal: the session's, if its screen is read; else nobody can tell whether it is at work.

        Cancellation: no effect.
        """
        while self.reason is None:
            await self._news.wait()
            self._news = trio.Event()
        held = self._task.takeover if self._task is not None else None
        if terminal is not None and held is not None and held.back is not None and not held.back.now:
            await terminal.wait_between_turns()

    @property
    def _view(self) -> SessionView | None:
        return self._ledger.world.sessions.get(self._session_id)

    @property
    def _task(self) -> TaskView | None:
        view = self._view
        run = self._ledger.world.runs.get(view.run_id or "") if view is not None else None
        return run.tasks.get(view.task_id or "") if run is not None and view is not None else None
