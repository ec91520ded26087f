"""The attendant: stands beside one running session until it has ended, and says how it ended.

It sees to what there is to do meanwhile: what the session asks (the desk), what it says of itself (the witness) and
has used (the meter), and its terminal. It brings the end about when the time is over or the order to stop is given.
What follows from the end is its child's to decide.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, cast

import attrs
import trio

from kasmos.exceptions import SessionError, SessionLostError
from kasmos.model import event as ev
from kasmos.model.profile import ExecutionMode, WhenDone
from kasmos.model.session import ExitStatus, SessionKind, StopReason
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.value import frozen
from kasmos.model.view import DeliveryState, SessionView
from kasmos.sessions.protocol import AskSource, ExecutionSession, TerminalSession
from kasmos.supervision import transitions
from kasmos.supervision.desk import Desk, DeskTerms, pending
from kasmos.supervision.duties import Duty, wait_beside
from kasmos.supervision.hearing import Reading
from kasmos.supervision.meter import Meter, MeterTerms
from kasmos.supervision.recipe import Recipe, Surroundings
from kasmos.supervision.relief import Relief
from kasmos.supervision.retort import Retort
from kasmos.supervision.stop_order import StopOrder
from kasmos.supervision.termination import stop
from kasmos.supervision.witness import Witness, make_witness

if TYPE_CHECKING:
    from kasmos.screens import Ruleset
    from kasmos.supervision.terminal import Terminal

TAIL_BYTES = 4096
TAIL_LINES = 20


@frozen
class Outset:
    """How a session stands when its attendant comes."""

    limit: float
    """Seconds it may take, not counting the time it waits for people."""
    rules: Ruleset | None = None
    """The rules by which its screen is read, where it is."""
    view: SessionView | None = None
    """What the journal knows of it, where an earlier supervisor began it."""


class Attendant:
    """Attends one session; made by its child."""

    def __init__(
        self, session: ExecutionSession, outset: Outset, recipe: Recipe, around: Surroundings, order: StopOrder
    ) -> None:
        self._session = session
        self._rules = outset.rules
        self._view = outset.view
        self._recipe = recipe
        self._around = around
        self._ledger = around.ledger
        self._order = order
        self._relief = Relief(session.spec.id, around.ledger)
        """Says when it is to end for a person, or because a person has given it back."""
        self._deadline = self._find_deadline(outset)
        """When its time is over, by CLOCK_MONOTONIC; the time it waits for people is added."""
        self._detached = False
        """Said once, however often it is asked for while the child is still on its way out."""
        self._patience: trio.CancelScope | None = None
        """Cancelled when a stop is asked for while the session's end is waited for."""
        self._overstayed = False
        """Whether the session's program stays although it has said that it is done."""
        self.desk: Desk | None = None
        """Sees to what the session asks, where it can."""
        self.terminal: Terminal | None = None
        """Watches the session's terminal, where it has one."""
        self._meter = self._make_meter()
        """Accounts for what the session uses, where that is known."""
        self._budget_deadline = self._find_budget_deadline()
        """When what its budgets leave of time is over; counted as `_deadline`."""
        self._witness = self._make_witness()
        """Reads what the session's program says of itself, where it says anything."""

    # --- what its child asks of it ---------------------------------------------------

    @property
    def given(self) -> str | None:
        """The approval whose answer the session has taken, though the journal may not say so yet."""
        return self.desk.given if self.desk is not None else None

    @property
    def said(self) -> str | None:
        """What the session's program says or does now, in a line; None where that is not understood."""
        return self._witness.said if self._witness is not None else None

    @property
    def at_tool(self) -> float | None:
        """Since when the program uses a tool, wall clock; `inf` while it uses none, None where that is not known."""
        return self._witness.at_tool if self._witness is not None else None

    def detach(self) -> None:
        """Leave the running program to the next supervisor. Never blocks."""
        if self._session.exit is None and not self._detached:
            self._detached = True
            self._session.detach()
            self._ledger.append_nowait(ev.SessionDetached(self._session.spec.id))

    def heed(self) -> None:
        """Somebody wants its conversation, or has given it back; the journal says which. Never blocks."""
        self._relief.heed()
        if self._relief.reason is StopReason.HANDED_OVER and self._patience is not None:
            self._patience.cancel()

    def close(self) -> None:
        """Let go of whoever waits for the session to take an answer. Never blocks."""
        if self.desk is not None:
            self.desk.close()
        self._order.interrupts = None

    async def wait_ended(self) -> list[ev.SessionEvent]:
        """Stay until the session has ended, or nothing more can be done; what is to be recorded of its end.

        Cancellation: the session goes on; its scope says what becomes of it.
        """
        session = self._session
        status = session.exit or await self._end_or_stop()
        if isinstance(status, SessionLostError):
            if self._witness is not None:
                await self._witness.hear_out()
            return [*self._used(), ev.SessionLost(session.spec.id, str(status))]
        concluded = await self._conclude(status)
        succeeded = status.succeeded if concluded is None else concluded.outcome is Outcome.SUCCEEDED
        tail = tail_of(session, 1 if succeeded else TAIL_LINES)
        ended = ev.SessionEnded(session.spec.id, status, session.output_bytes, tail)
        # What was used is told after the judgement: the last line may be complete only by it.
        return [*self._used(), ended] if concluded is None else [*self._used(), concluded, ended]

    # --- the end ---------------------------------------------------------------------

    async def _end_or_stop(self) -> ExitStatus | SessionLostError:
        """Wait for the end; when the time is over or a stop is asked for, bring it about."""
        session, view, order = self._session, self._view, self._order
        try:
            if view is not None and view.stop_reason is not None:
                # A stop was under way when the earlier supervisor died: it goes on where it was.
                spent = self._around.now() - view.stop_mono if view.stop_mono is not None else 0.0
                left = 0.0 if view.killed else max(0.0, session.spec.stop.stop_grace - spent)
                status = await stop(session, reason=view.stop_reason, hurry=order.hurry, grace=left, requested=True)
            else:
                # No Trio task of its own for the stop: a thousand sessions are a thousand tasks fewer.
                with trio.CancelScope(deadline=self._patience_deadline()) as self._patience:
                    order.interrupts = self._patience
                    if order.reason is None and self._relief.reason is not StopReason.HANDED_OVER:
                        return await wait_beside(session, self._duties())
                done = StopReason.SETTLED if self._overstayed else None
                reason = order.reason or done or self._relief.reason or self._time_is_over()
                keys = self._recipe.quit_keys() if reason is StopReason.HANDED_BACK else ()
                status = await stop(session, reason=reason, hurry=order.hurry, keys=keys)
        except SessionLostError as error:
            return error
        if status is None:
            # All that can be done has been done: leaving the scope is not to do it once more.
            session.detach()
            return SessionLostError("its processes survived SIGKILL")
        return status

    def _patience_deadline(self) -> float:
        """When the session's time is over, by Trio's clock."""
        view = self._ledger.world.sessions.get(self._session.spec.id)
        deadline = transitions.decide_deadline(min(self._deadline, self._budget_deadline), view)
        return trio.current_time() + max(0.0, deadline - self._around.now())

    def _time_is_over(self) -> StopReason:
        """Whose time it was: the task's own, or what its budgets had left."""
        if self._budget_deadline >= self._deadline:
            return StopReason.TIMEOUT
        message = "stopped because what its budgets had left of time was over"
        self._order.cause = Cause(CauseKind.BUDGET, message)
        return StopReason.BUDGET

    def _find_deadline(self, outset: Outset) -> float:
        view = outset.view
        if view is None:
            return self._around.now() + outset.limit
        return (view.started_mono if view.started_mono is not None else view.starting_mono) + outset.limit

    def _find_budget_deadline(self) -> float:
        # Of a person's time nothing is counted.
        counts = self._meter is not None and not self._relief.attended
        left = self._recipe.time_left(self._ledger.world) if counts else None
        return float("inf") if left is None else self._around.now() + left

    def _used(self) -> list[ev.SessionEvent]:
        """What is to be recorded of the session's usage at its end."""
        if self._meter is None or (self._witness is not None and self._witness.silent):
            return []
        # What an agent used that tells nothing is unknown.
        return [self._meter.snapshot(self._witness.reading if self._witness is not None else Reading())]

    async def _conclude(self, status: ExitStatus) -> ev.SessionConcluded | None:
        """What the program said of its end, where that decides."""
        session_id = self._session.spec.id
        known = self._ledger.world.sessions.get(session_id)
        # Whoever was done and had to be sent away has not failed by how it went.
        settled = known is not None and known.stop_reason is StopReason.SETTLED
        if self._witness is None:
            return ev.SessionConcluded(session_id, Outcome.SUCCEEDED) if settled else None
        said = await self._witness.conclude(ExitStatus(code=0) if settled else status)
        if said is None:
            return None
        return ev.SessionConcluded(
            session_id, said.outcome, said.failure, said.conversation or "", said.usage, said.model or ""
        )

    # --- what there is to do meanwhile -----------------------------------------------

    def _duties(self) -> list[Duty]:
        """What there is to do where the session can ask, tells something, or has a terminal."""
        duties = self._screen_duties()
        if self._witness is not None:
            duties.append(partial(self._see_it_through, self._witness))
        if self._relief.attended:
            duties.append(self._see_it_off)
        return duties

    async def _see_it_off(self) -> None:
        """Send the program away when its conversation has been given back."""
        await self._relief.wait_due(self.terminal)
        if self._patience is not None:
            self._patience.cancel()

    async def _see_it_through(self, witness: Witness) -> None:
        """Read along; send the program away when it is done and does not go by itself."""
        if await witness.wait_overstayed():
            self._send_away()

    def _send_away(self) -> None:
        """It is done, and stays: end it."""
        if self._patience is not None:
            self._overstayed = True
            self._patience.cancel()

    def _screen_duties(self) -> list[Duty]:
        session, rules = self._session, self._rules
        if session.capabilities.asks:
            # What says of itself that it asks is a source of asks.
            self.desk = self._make_desk(cast(AskSource, session))
            return [self.desk.run]
        if not session.capabilities.interactive or rules is None or session.spec.kind is not SessionKind.AGENT:
            return []
        # Late: most sessions have no terminal, and what reads screens is much to import.
        from kasmos.supervision.prompting import deliver_prompt
        from kasmos.supervision.terminal import Terminal
        from kasmos.supervision.turn import wait_turn_over

        watched, tell = cast(TerminalSession, session), self._ledger.append_nowait
        known = [view.ask.identity for view in pending(self._ledger.world, session.spec.id)]
        terminal = Terminal(watched, rules, tell, self._around.wall, self._recipe.typed_max, known)
        self.terminal = terminal
        self.desk = self._make_desk(Retort(terminal))
        duties: list[Duty] = [terminal.watch, self.desk.run]
        prompt = self._recipe.typed_prompt(session.spec.attempt)
        if prompt is not None:

            async def type_prompt() -> None:
                if not await deliver_prompt(terminal, prompt, self._ledger, session.spec.id):
                    self._order.give(StopReason.UNDELIVERED)
                elif self._recipe.when_done is WhenDone.LEAVE and self._is_delivered():
                    # How it ended, if it did, is told to those who wait for the end.
                    with suppress(SessionError):
                        await wait_turn_over(terminal, self._recipe.exit_grace)
                        self._send_away()

            duties.append(type_prompt)
        return duties

    def _is_delivered(self) -> bool:
        view = self._ledger.world.sessions[self._session.spec.id]
        return view.delivery is DeliveryState.DELIVERED

    def _make_desk(self, source: AskSource) -> Desk:
        def reset_clock() -> None:
            if self._patience is not None and self._order.reason is None:
                self._patience.deadline = self._patience_deadline()

        policy = self._recipe.approvals
        terms = DeskTerms(
            session_id=self._session.spec.id,
            # Whoever sits there has all the time there is.
            policy=attrs.evolve(policy, timeout=None) if self._relief.attended else policy,
            cwd=self._recipe.cwd,
            now=self._around.now,
            rand=self._around.rand,
            clock=reset_clock,
            unanswered=lambda: self._order.give(StopReason.UNANSWERED),
        )
        return Desk(source, self._ledger, terms)

    def _make_witness(self) -> Witness | None:
        session, recipe, meter = self._session, self._recipe, self._meter
        known = self._ledger.world.sessions.get(session.spec.id)
        harness = known.harness if known is not None else session.spec.harness
        return make_witness(
            session,
            harness,
            tells=meter is not None and session.spec.backend is ExecutionMode.SCRIPTED,
            accept=recipe.accept,
            exit_grace=recipe.exit_grace,
            heard=meter.take if meter is not None else None,
            wall=recipe.wall,
        )

    def _make_meter(self) -> Meter | None:
        recipe, spec = self._recipe, self._session.spec
        if spec.kind is not SessionKind.AGENT or not recipe.account:
            return None

        def seconds() -> float:
            view = self._ledger.world.sessions.get(spec.id)
            if view is None or view.attended:
                return 0.0
            begun = view.started_mono if view.started_mono is not None else view.starting_mono
            return max(0.0, self._around.now() - begun - view.waited)

        terms = MeterTerms(
            day=recipe.day,
            seconds=seconds,
            now=self._around.now,
            price=recipe.price_of,
            over_budget=lambda session_id: recipe.over_budget(self._ledger.world, session_id),
            stop=lambda why: self._order.give(StopReason.BUDGET, Cause(CauseKind.BUDGET, f"stopped because {why}")),
        )
        return Meter(spec.id, self._ledger, terms)


def tail_of(session: ExecutionSession, lines: int) -> str:
    """The last *lines* lines of a session's output as text, at most `TAIL_BYTES` of it."""
    end = session.output_bytes
    chunk = session.read_nowait(max(0, end - TAIL_BYTES), TAIL_BYTES)
    return "\n".join(chunk.data.decode(errors="replace").splitlines()[-lines:])
