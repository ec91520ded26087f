"""Whether an approval can be answered, and whether it was. Pure."""

from __future__ import annotations

from kasmos.exceptions import StaleApprovalError, SupervisionError
from kasmos.model.approval import Answer, AnswerKind, ApprovalState, Ask, AskKind, Meaning, ResolvedBy
from kasmos.model.event import ApprovalResolved
from kasmos.model.view import ApprovalView, World


def require_open(world: World, approval_id: str) -> ApprovalView:
    """The approval with this id, which waits for a person.

    Raises:
        SupervisionError: unknown, or answered already.
        StaleApprovalError: it is not asked any more.
    """
    view = world.approvals.get(approval_id)
    if view is None:
        raise SupervisionError(f"there is no approval {approval_id}; `kas approvals` lists what waits")
    if view.state is ApprovalState.WITHDRAWN:
        raise StaleApprovalError(f"approval {approval_id} is stale: {view.reason}")
    if view.state is not ApprovalState.OPEN:
        raise SupervisionError(f"approval {approval_id} was answered already: {told(view)}")
    return view


def require_not_stale(world: World, approval_id: str, answered: ApprovalResolved) -> ApprovalView:
    """The approval after *answered* was recorded.

    Raises:
        SupervisionError: somebody else was faster.
        StaleApprovalError: the session was told nothing.
    """
    view = world.approvals.get(approval_id)
    if view is None or (view.state is ApprovalState.WITHDRAWN):
        reason = view.reason if view is not None else "its session has gone on"
        raise StaleApprovalError(f"approval {approval_id}: the answer was not given: {reason}")
    if (view.answer, view.who) != (answered.answer, answered.who):
        raise SupervisionError(f"approval {approval_id} was answered already: {told(view)}")
    return view


def told(view: ApprovalView) -> str:
    """What was answered, and by whom: the line for an audit."""
    who = {"rule": f"by rule {view.who}", "person": f"by {view.who}", "timeout": "since nobody answered"}
    if view.answer is None:
        return f"{view.state.value}: {view.reason}" if view.reason else view.state.value
    said = f"{view.answer} {who.get(view.by or '', '')}".strip()
    if view.state is ApprovalState.WITHDRAWN:
        return f"{said}, but {view.reason}"
    return f"{said} ({view.reason})" if view.reason and view.by is ResolvedBy.PERSON else said


def wrong_with(ask: Ask, answer: Answer) -> str:
    """Why an ask cannot be answered so, and what can be done; nothing if it can."""
    match answer.kind:
        case AnswerKind.CHOOSE:
            if answer.option is None or not 0 <= answer.option < len(ask.options):
                return f"it has {len(ask.options)} options, numbered from 1" if ask.options else "it has no options"
        case AnswerKind.TEXT:
            if ask.kind is AskKind.PERMISSION:
                return "it asks for a yes or no: approve or deny it"
            if not answer.text:
                return "the answer is empty"
        case _:
            if ask.kind is AskKind.QUESTION and not ask.options:
                return "it asks a question: answer it with a text"
            if not ask.offers(Meaning(answer.kind.value)):
                labels = ", ".join(f"{number} ({option.label})" for number, option in enumerate(ask.options, 1))
                return f"the dialog does not offer this; choose one of its options: {labels}"
    return ""
