"""Taking over a headless task's conversation, and giving it back: what stands against it is told before it is done."""

from __future__ import annotations

from collections.abc import Callable

from kasmos.daemon.conversations import told_conversation
from kasmos.daemon.terms import OrchestratorLike, Surroundings
from kasmos.exceptions import RequestError
from kasmos.model.profile import AgentProfile, ExecutionMode
from kasmos.model.session import SessionKind
from kasmos.model.takeover import HandBack, TakeoverPhase
from kasmos.model.view import Active, BackingOff, Ended, SessionState, SessionView, TaskView
from kasmos.orchestration.modes import mode_of
from kasmos.sessions.protocol import OutputChunk


def _refuse(code: str, detail: str) -> RequestError:
    return RequestError(409, code, detail)


class Handover:
    """Who has which conversation; the service's door to it.

    Raises:
        RequestError: in every method: the name means nothing, or several things.
        SupervisionError: in every method: it does not fit the present state any more.
    """

    def __init__(
        self, orchestrator: OrchestratorLike, surroundings: Surroundings, get_task: Callable[[str], TaskView]
    ) -> None:
        self._orchestrator = orchestrator
        self._surroundings = surroundings
        self._get_task = get_task

    async def attach(self, name: str, who: str, *, now: bool, check: bool) -> TaskView:
        """Have a headless task's conversation opened in a terminal, when its program has ended its turn.

        Args:
            name: the task.
            who: the person.
            now: the turn is interrupted for it.
            check: only tell whether it may be.

        Returns: the task as it is then; that it is open is an event.

        Raises:
            RequestError: 409 `task_ended`, `not_running`, `already_attached`, `cannot_attach`, `approval_waiting` or
                `no_conversation`.
        """
        task = self._get_task(name)
        session = self._require_running(task)
        self._require_possible(task, session)
        if session.waiting_since_mono is not None and not now:
            detail = (
                f"{session.name} waits for an answer, and its turn does not end before: `kas approve` or `kas deny`"
            )
            raise _refuse("approval_waiting", f"{detail} {session.approvals[-1]} first; --now interrupts the turn")
        conversation = await self._find_conversation(session)
        if not check:
            await self._orchestrator.take_over(task.run_id, task.spec.id, conversation, who, now=now)
        return self._orchestrator.world.runs[task.run_id].tasks[task.spec.id]

    async def detach(self, name: str, back: HandBack) -> TaskView:
        """Give a conversation back: the task goes on headless. One that is not open yet is not taken over at all.

        Raises:
            RequestError: 409 `not_attached`, or `approval_waiting` where its terminal asks something.
        """
        task = self._get_task(name)
        held = task.takeover
        if held is None or held.phase is TakeoverPhase.HANDED_BACK:
            word = "is being handed back already" if held is not None else "has not been taken over"
            raise _refuse("not_attached", f"task {task.id} {word}")
        session = self._active(task)
        attended = session is not None and session.attended
        if session is not None and attended and session.waiting_since_mono is not None and not back.now:
            detail = f"{session.name} asks something: answer it, or hand it back with --now"
            raise _refuse("approval_waiting", detail)
        if back.done and not attended:
            raise _refuse(
                "not_attached", f"task {task.id} is not open in a terminal yet: nobody can say that it is done"
            )
        await self._orchestrator.hand_back(task.run_id, task.spec.id, back)
        return self._orchestrator.world.runs[task.run_id].tasks[task.spec.id]

    def _active(self, task: TaskView) -> SessionView | None:
        return self._orchestrator.world.sessions.get(task.state.session_id) if isinstance(task.state, Active) else None

    def _require_running(self, task: TaskView) -> SessionView:
        """The session that is under way, of which the conversation is to be taken over."""
        held = task.takeover
        if isinstance(task.state, Ended):
            detail = f"task {task.id} has ended ({task.state.outcome}); `kas submit --continue {task.id} TEXT` goes on"
            raise _refuse("task_ended", f"{detail} with its conversation")
        if held is not None:
            who = f" by {held.who}" if held.who else ""
            detail = {
                TakeoverPhase.REQUESTED: f"is to be taken over{who} already, at the end of its turn",
                TakeoverPhase.ATTENDED: f"is taken over{who} already: `kas attach` enters its terminal",
                TakeoverPhase.HANDED_BACK: "is just being handed back: try again when it goes on",
            }[held.phase]
            raise _refuse("already_attached", f"task {task.id} {detail}")
        session = self._active(task)
        if session is None:
            why = "is between two attempts" if isinstance(task.state, BackingOff) else "has not begun"
            raise _refuse("not_running", f"task {task.id} {why}: there is no conversation to sit down at")
        if session.kind is not SessionKind.AGENT:
            raise _refuse("not_running", f"the program of task {task.id} has ended: its checks run")
        if session.state is SessionState.STOPPING:
            raise _refuse("not_running", f"{session.name} is being stopped")
        return session

    def _require_possible(self, task: TaskView, session: SessionView) -> None:
        """Whether its program can do that at all."""
        if session.backend is ExecutionMode.TMUX:
            raise _refuse(
                "cannot_attach", f"{session.name} runs in tmux: `kas attach {session.name}` enters it as it is"
            )
        if session.backend is not ExecutionMode.HEADLESS:
            raise _refuse("cannot_attach", f"{session.name} runs {session.backend}: it has no conversation")
        run = self._orchestrator.world.runs[task.run_id]
        profile = self._surroundings.present().agents.get(session.profile)
        if profile is None or mode_of(run, profile) is not ExecutionMode.HEADLESS:
            raise _refuse("cannot_attach", f"agent {session.profile} is not configured as it was: it cannot be started")
        if why := cannot_attach(profile):
            raise _refuse("cannot_attach", why)

    async def _find_conversation(self, session: SessionView) -> str:
        live = self._orchestrator.live_session(session.id)

        def read(view: SessionView, offset: int, limit: int) -> OutputChunk:
            return (
                live.read_nowait(offset, limit)
                if live is not None
                else self._surroundings.read_ended(view, offset, limit)
            )

        # What was chosen is nothing yet: the program says when it has begun it.
        found = await told_conversation(session, read)
        if not found and not session.harness:
            found = session.conversation
        if not found:
            detail = f"{session.name} has not told which conversation it is in: try again when it has said something"
            raise _refuse("no_conversation", detail)
        return found


def cannot_attach(profile: AgentProfile) -> str:
    """Why the conversations of an agent cannot be opened in a terminal; nothing if they can."""
    from kasmos.harnesses.equip import equip_attended, harness_of

    if equip_attended(profile, "id") is not None:
        return ""
    facts = harness_of(profile)
    if facts.dialect == "generic":
        return f"agent {profile.name} runs a program that kasmos does not know: it has no conversation to be resumed"
    return f"agent {profile.name}: {facts.title} cannot resume a headless conversation in a terminal"
