"""The desk of a session that can ask: what it asks is answered by a rule, or waits for a person.

Like a child it keeps nothing that matters: what is open, answered or on its way is in the journal, so that the next
supervisor goes on with the same approval. An answer is given once at the most; whether it was given is known, or said
not to be.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from kasmos.exceptions import SessionError, StaleApprovalError
from kasmos.model import event as ev
from kasmos.model.approval import (
    ALLOW,
    Answer,
    AnswerKind,
    ApprovalPolicy,
    ApprovalState,
    Ask,
    Decision,
    Meaning,
    OnUnanswered,
    ResolvedBy,
)
from kasmos.model.event import Event
from kasmos.model.units import render_duration
from kasmos.model.value import frozen
from kasmos.model.view import ApprovalView, World
from kasmos.sessions.protocol import AskSource
from kasmos.supervision.approval_policy import Verdict, decide_approval
from kasmos.supervision.ledger import Ledger

_LETTERS = "bcdfghjkmnpqrstvwxz"
"""Letters that make no words and are not mistaken for each other."""
LONGEST_TEXT = 20_000
"""Letters of what is asked that are recorded; what is judged is all of it."""
MOST_PATHS = 100
"""Further files of one ask that the journal keeps; the rules have seen all of them."""
PRESENT = ""
"""An identity that nothing has."""
IN_DOUBT = "the supervisor died while it was giving the answer: whether it arrived is not known"


@frozen
class DeskTerms:
    """What a desk works by."""

    session_id: str
    policy: ApprovalPolicy
    cwd: str
    """What relative paths of asks and rules are relative to."""
    now: Callable[[], float]
    """CLOCK_MONOTONIC."""
    rand: Callable[[], float]
    """Uniform in [0, 1)."""
    clock: Callable[[], None]
    """Told whenever the session's clock has been stopped or started."""
    unanswered: Callable[[], None]
    """Told when the session is to be stopped because nobody has answered."""


class Desk:
    """Sees to what one session asks, while somebody else waits for its end."""

    def __init__(self, source: AskSource, ledger: Ledger, terms: DeskTerms) -> None:
        self._source = source
        self._ledger = ledger
        self._terms = terms
        self._resolved = trio.Event()
        """Set, and replaced, when somebody has answered."""
        self.given: str | None = None
        """Id of the newest approval whose answer the session has taken; the journal may not say so yet."""
        self._closed = False
        self._changed = trio.Event()
        """Set, and replaced, whenever something has become of an approval."""

    def wake(self) -> None:
        """Somebody has answered: the journal says what. Never blocks."""
        resolved, self._resolved = self._resolved, trio.Event()
        resolved.set()

    def close(self) -> None:
        """The session has ended: nothing is settled here any more. Never blocks."""
        self._closed = True
        self._has_changed()

    async def wait_settled(self, approval_id: str) -> None:
        """Wait until the session has taken this answer, or never will. Cancellation: no effect."""
        while not self._closed and self.given != approval_id:
            view = self._ledger.world.approvals.get(approval_id)
            if view is None or view.state.settled:
                return
            await self._changed.wait()

    async def run(self) -> None:
        """See to whatever is asked, until cancelled or until nothing can be learnt any more.

        Cancellation: what is open stays open; the next desk of the session goes on with it.
        """
        try:
            asked = await self._source.wait_ask(PRESENT)
            while True:
                await self._withdraw_others(asked)
                seen = await self._settle(asked) if asked is not None else None
                asked = await self._source.wait_ask(seen)
        except SessionError:
            # How it ended is told to those who wait for the end.
            return

    @property
    def _pending(self) -> list[ApprovalView]:
        """What the session asks, as the journal has it."""
        return pending(self._ledger.world, self._terms.session_id, self.given)

    async def _withdraw_others(self, asked: Ask | None) -> None:
        """Say of everything but *asked* that it is asked no more."""
        for view in self._pending:
            if asked is None or view.ask.identity != asked.identity:
                reason = "it is not asked any more: answered at the terminal, or given up"
                if view.state is ApprovalState.SENDING:
                    reason = IN_DOUBT
                await self._commit(ev.ApprovalWithdrawn(view.session_id, view.id, reason))

    async def _settle(self, ask: Ask) -> str | None:
        """See one ask through; what is seen of it afterwards: its identity if it still stands."""
        view = next((one for one in self._pending if one.ask.identity == ask.identity), None)
        why = ""
        if view is not None and view.state is ApprovalState.SENDING:
            await self._commit(ev.ApprovalWithdrawn(view.session_id, view.id, IN_DOUBT))
            view, why = None, "an earlier answer may have been lost: look before you answer"
        if view is None:
            view = await self._request(ask, why)
        while True:
            if view.state is ApprovalState.OPEN and not await self._wait_resolved(view):
                return ask.identity
            why = await self._deliver(self._view(view))
            if not why:
                return None
            # A rule would try again at once, and for ever: it is for a person now.
            view = await self._request(ask, why)

    async def _request(self, ask: Ask, why: str) -> ApprovalView:
        """Make an approval of an ask, and answer it where a rule does."""
        terms = self._terms
        verdict = decide_approval(ask, terms.policy, cwd=terms.cwd) if not why else Verdict(Decision.ASK, "", why)
        approval_id = self._new_id()
        answer = {
            Decision.ALLOW: ALLOW,
            Decision.DENY: Answer(AnswerKind.DENY, f"refused by the rules: {verdict.why}"),
        }.get(verdict.decision)
        events: list[Event] = [
            ev.ApprovalRequested(terms.session_id, approval_id, _to_record(ask), verdict.why, waits=answer is None)
        ]
        if answer is not None:
            who = verdict.rule or "permission_default"
            resolved = ev.ApprovalResolved(
                terms.session_id, approval_id, answer, ResolvedBy.RULE, who, reason=verdict.why
            )
            events.append(resolved)
        await self._commit(*events)
        return self._ledger.world.approvals[approval_id]

    def _new_id(self) -> str:
        """Four letters that are not in use."""
        count = len(_LETTERS)
        number = int(self._terms.rand() * count**4)
        while True:
            name = "".join(_LETTERS[number // count**place % count] for place in range(4))
            if name not in self._ledger.world.approvals:
                return name
            number = (number + 1) % count**4

    async def _wait_resolved(self, view: ApprovalView) -> bool:
        """Wait until an open approval is answered, by a person or by the clock; False if it is not to be answered."""
        changed = trio.Event()
        error: SessionError | None = None
        with trio.CancelScope() as waiting:
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    nonlocal error
                    try:
                        await self._source.wait_ask(view.ask.identity)
                        changed.set()
                    except SessionError as caught:
                        # As a value: out of the nursery it would come as a group.
                        error = caught
                    waiting.cancel()

                nursery.start_soon(watch)
                await self._answered_or_late(view)
                nursery.cancel_scope.cancel()
        # What was answered before it went away is not to be forgotten.
        state = self._view(view).state
        if error is not None:
            raise error
        return state is ApprovalState.RESOLVED

    async def _answered_or_late(self, view: ApprovalView) -> None:
        """Wait for an answer; when nobody has given one in time, do as the policy says."""
        policy = self._terms.policy
        late_at = float("inf") if policy.timeout is None else view.requested_mono + policy.timeout
        while self._view(view).state is ApprovalState.OPEN:
            resolved = self._resolved
            left = late_at - self._terms.now()
            if left <= 0:
                await self._give_up(view)
                return
            with trio.move_on_after(left):
                await resolved.wait()

    async def _give_up(self, view: ApprovalView) -> None:
        """Nobody has answered in time."""
        policy, ask = self._terms.policy, view.ask
        reason = f"nobody answered within {render_duration(policy.timeout or 0.0)}"
        if policy.on_timeout is OnUnanswered.STOP or not ask.offers(Meaning.DENY):
            self._terms.unanswered()
            await trio.sleep_forever()
        await self._commit(
            ev.ApprovalResolved(
                view.session_id, view.id, Answer(AnswerKind.DENY, reason), ResolvedBy.TIMEOUT, reason=reason
            )
        )

    async def _deliver(self, view: ApprovalView) -> str:
        """Give the session its answer, once; why it did not get it, or nothing."""
        assert view.answer is not None
        await self._commit(ev.ApprovalSending(view.session_id, view.id))
        try:
            await self._source.answer(view.ask, view.answer)
        except StaleApprovalError:
            await self._commit(ev.ApprovalWithdrawn(view.session_id, view.id, "it was not asked any more"))
            return ""
        except SessionError as error:
            reason = f"the answer could not be delivered: {error}"
            await self._commit(ev.ApprovalWithdrawn(view.session_id, view.id, reason))
            return reason
        # Not to be waited for: the session may end with this answer, and take us along.
        self.given = view.id
        self._ledger.append_nowait(ev.ApprovalDelivered(view.session_id, view.id))
        self._has_changed()
        return ""

    def _view(self, view: ApprovalView) -> ApprovalView:
        return self._ledger.world.approvals.get(view.id, view)

    async def _commit(self, *events: Event) -> None:
        await self._ledger.append(*events)
        self._terms.clock()
        self._has_changed()

    def _has_changed(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


def _to_record(ask: Ask) -> Ask:
    """An ask as the journal takes it: of any length and content, as screens have it, it is Unicode and bounded."""
    clean = attrs.evolve(
        ask,
        tool=_as_record(ask.tool),
        command=_as_record(ask.command),
        path=_as_record(ask.path),
        text=_as_record(ask.text),
        evidence=_as_record(ask.evidence),
        more_paths=tuple(map(_as_record, ask.more_paths[:MOST_PATHS])),
    )
    return clean


def _as_record(text: str) -> str:
    return text[:LONGEST_TEXT].encode(errors="replace").decode()


def asks_left(world: World, session_id: str, given: str | None) -> list[ev.ApprovalWithdrawn]:
    """What is to be said of all that a session still asked when it ended."""
    reasons = {ApprovalState.SENDING: "its session ended while it was given the answer"}
    return [
        ev.ApprovalWithdrawn(session_id, view.id, reasons.get(view.state, "its session has ended"))
        for view in pending(world, session_id, given)
    ]


def pending(world: World, session_id: str, given: str | None = None) -> list[ApprovalView]:
    """The approvals of a session that are not settled, but for one whose answer the session has taken."""
    session = world.sessions.get(session_id)
    found = (world.approvals.get(name) for name in session.approvals) if session is not None else ()
    return [view for view in found if view is not None and not view.state.settled and view.id != given]
