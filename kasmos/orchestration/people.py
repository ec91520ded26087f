"""What people decide: answers to what sessions ask, conversations they take over and hand back, accounts."""

from __future__ import annotations

from collections.abc import Callable

import trio

from kasmos.exceptions import SupervisionError
from kasmos.failpoints import reach
from kasmos.model import event as ev
from kasmos.model.approval import Answer, ResolvedBy
from kasmos.model.takeover import HandBack
from kasmos.model.view import ApprovalView, World
from kasmos.orchestration.accounts import parked_now
from kasmos.orchestration.approvals import require_not_stale, require_open
from kasmos.orchestration.command import Command
from kasmos.orchestration.driver import Driver
from kasmos.orchestration.slots import is_under_way
from kasmos.supervision.ledger import Ledger
from kasmos.supervision.supervisor import Supervisor


class People:
    """Records what people decide, and has it acted upon."""

    def __init__(
        self, ledger: Ledger, supervisor: Supervisor, driver: Driver, command: Command, wall: Callable[[], float]
    ) -> None:
        self._ledger = ledger
        self._supervisor = supervisor
        self._driver = driver
        self._command = command
        self._wall = wall

    @property
    def _world(self) -> World:
        return self._ledger.world

    async def answer(self, approval_id: str, answer: Answer, who: str, *, patience: float) -> ApprovalView:
        """Answer what a session asks, in the name of a person.

        Args:
            approval_id: the approval.
            answer: what the session is told.
            who: the person, for the journal.
            patience: seconds to wait until the session has taken the answer.

        Returns: the approval as it is then: delivered, or still on its way.

        Raises:
            SupervisionError: unknown, or answered already.
            StaleApprovalError: it is not asked any more; the session was told nothing.

        Cancellation: the answer may have been recorded; it is given then.
        """
        run_id, task_id = self._asker(approval_id)
        async with self._command.over(run_id):
            session_id = require_open(self._world, approval_id).session_id
            answered = ev.ApprovalResolved(session_id, approval_id, answer, ResolvedBy.PERSON, who, answer.text)
            await self._ledger.append(answered)
            child = self._supervisor.children(run_id).get(task_id)
            if child is not None:
                child.answered()
        if child is not None:
            with trio.move_on_after(patience):
                await child.wait_settled(approval_id)
                # That it was delivered may be on its way to the journal.
                await self._ledger.append()
        return require_not_stale(self._world, approval_id, answered)

    async def take_over(self, run_id: str, task_id: str, conversation: str, who: str, *, now: bool) -> None:
        """Have a task's conversation opened in a terminal for a person, when its program has ended its turn.

        Args:
            run_id: the run.
            task_id: the plan's id.
            conversation: by the program's own id.
            who: the person, for the journal.
            now: its turn is interrupted for it.

        Raises:
            SupervisionError: unknown, not under way, or taken over already.
        """
        async with self._command.over(run_id):
            self._command.require_accepting()
            task = self._command.task(run_id, task_id)
            if task.takeover is not None or not is_under_way(task):
                raise SupervisionError(f"task {task.id} is not under way any more, or was taken over just now")
            await self._ledger.append(ev.TakeoverRequested(run_id, task_id, conversation, who, now))
            reach("takeover.requested")
            self._heed(run_id, task_id)

    async def hand_back(self, run_id: str, task_id: str, back: HandBack) -> None:
        """Let a conversation that was taken over go on headless.

        Raises:
            SupervisionError: unknown, or nobody has it.
        """
        async with self._command.over(run_id):
            task = self._command.task(run_id, task_id)
            if task.takeover is None or task.takeover.back is not None:
                raise SupervisionError(f"task {task.id} is not taken over any more")
            event = ev.HandedBack(run_id, task_id, back.prompt, back.done, back.now, back.who, back.reason)
            await self._ledger.append(event)
            reach("takeover.handed-back")
            self._heed(run_id, task_id)

    async def release_account(self, name: str, who: str) -> None:
        """Let an account be used again, in the name of a person.

        Raises:
            SupervisionError: it is not parked; or nothing can be recorded.

        Cancellation: it may have been recorded.
        """
        view = self._world.accounts.get(name)
        if parked_now(view, self._wall()) is None:
            raise SupervisionError(f"account {name} is not parked; `kas accounts` lists them")
        await self._ledger.append(ev.AccountReleased(name, who))
        self._driver.wake_all()

    def _heed(self, run_id: str, task_id: str) -> None:
        child = self._supervisor.children(run_id).get(task_id)
        if child is not None:
            child.heed()

    def _asker(self, approval_id: str) -> tuple[str, str]:
        session = self._world.sessions.get(require_open(self._world, approval_id).session_id)
        if session is None or session.run_id is None or session.task_id is None:
            raise SupervisionError(f"approval {approval_id} belongs to no task of this supervisor")
        return session.run_id, session.task_id
