"""Approvals: what sessions ask, looked at and answered."""

from __future__ import annotations

from kasmos.daemon.terms import OrchestratorLike
from kasmos.exceptions import RequestError
from kasmos.model.approval import Answer, ApprovalState
from kasmos.model.view import ApprovalView, World
from kasmos.orchestration.approvals import told, wrong_with

DELIVERY_PATIENCE = 5.0
"""Seconds that who answers waits until the session has taken the answer."""


class Approvals:
    """The approvals of one supervisor."""

    def __init__(self, orchestrator: OrchestratorLike) -> None:
        self._orchestrator = orchestrator

    @property
    def _world(self) -> World:
        return self._orchestrator.world

    def list(self, state: ApprovalState | None = ApprovalState.OPEN) -> tuple[ApprovalView, ...]:
        """What sessions ask, oldest first: in this state, or all that is remembered."""
        return tuple(view for view in self._world.approvals.values() if state in (None, view.state))

    def get(self, approval_id: str) -> ApprovalView:
        """The approval with this id.

        Raises:
            RequestError: 404 `unknown_approval`.
        """
        view = self._world.approvals.get(approval_id)
        if view is None:
            detail = f"there is no approval {approval_id!r}; `kas approvals` lists what waits"
            raise RequestError(404, "unknown_approval", detail)
        return view

    async def resolve(self, approval_id: str, answer: Answer, who: str) -> ApprovalView:
        """Answer what a session asks, in the name of a person; the approval as it is then.

        Raises:
            RequestError: 404 `unknown_approval`; 409 `already_resolved`, 409 `answer_not_offered`.
            StaleApprovalError: it is not asked any more; the session was told nothing.
        """
        view = self.get(approval_id)
        if view.answer is not None:
            raise RequestError(409, "already_resolved", f"approval {approval_id} was answered already: {told(view)}")
        if view.state is ApprovalState.OPEN and (wrong := wrong_with(view.ask, answer)):
            raise RequestError(409, "answer_not_offered", f"approval {approval_id}: {wrong}")
        return await self._orchestrator.resolve_approval(approval_id, answer, who, patience=DELIVERY_PATIENCE)
