"""What a session asks is answered by a rule, a person or the clock: once, whoever is killed meanwhile."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from kasmos.exceptions import StaleApprovalError, SupervisionError
from kasmos.model import event as ev
from kasmos.model.approval import (
    ALLOW,
    Answer,
    AnswerKind,
    ApprovalState,
    Ask,
    AskKind,
    Decision,
    OnUnanswered,
    Option,
    PermissionDefault,
    ResolvedBy,
    Rule,
)
from kasmos.model.codec import encode_event
from kasmos.model.session import ExitStatus
from kasmos.model.task import CauseKind, Outcome
from kasmos.model.view import ApprovalView, Ended, World
from kasmos.orchestration.approvals import told
from kasmos.sessions.script import Script, ScriptedAsk
from kasmos.store.fold import fold
from kasmos.supervision.desk import IN_DOUBT, LONGEST_TEXT
from tests import strategies  # noqa: F401  # loads Hypothesis' settings
from tests.simulation import Life, Town, plan, profile, task, town

DENY = Answer(AnswerKind.DENY, "no")
RM = ScriptedAsk(
    Ask("", tool="Bash", command="rm x"), after=1.0, on_allow=b"gone\n", on_deny=b"kept\n", deny_exit=ExitStatus(code=4)
)
ASKING = Script(asks=(RM,))


def asking(script: Script = ASKING, **changes: Any) -> Town:
    """A town whose one task asks."""
    return town({"1": script}, profiles={"a": profile(**changes)})


def views(world: World) -> list[ApprovalView]:
    return list(world.approvals.values())


def is_open(world: World) -> bool:
    return any(view.state is ApprovalState.OPEN for view in world.approvals.values())


async def asked(life: Life, **changes: Any) -> str:
    """Hand in a plan of one task; the id of what it asks."""
    await life.submit(plan(task(1, **changes)))
    await life.until(is_open)
    return next(view.id for view in views(life.world) if view.state is ApprovalState.OPEN)


async def resolve(life: Life, approval_id: str, answer: Answer = ALLOW) -> ApprovalView:
    return await life.orchestrator.resolve_approval(approval_id, answer, "mia", patience=5.0)


async def finish(life: Life) -> Ended:
    await life.orchestrator.wait_idle()
    state = life.task("1").state
    assert isinstance(state, Ended)
    return state


# --- who answers ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "outcome", "output"),
    [(ALLOW, Outcome.SUCCEEDED, "gone\n"), (DENY, Outcome.FAILED, "kept\n")],
)
async def test_answer_of_a_person(answer: Answer, outcome: Outcome, output: str, autojump_clock: MockClock) -> None:
    """A person's answer reaches the program, and the journal says who gave it."""
    here = asking()
    async with here.life() as life:
        approval_id = await asked(life)
        view = await resolve(life, approval_id, answer)
        assert view.state is ApprovalState.DELIVERED
        assert (await finish(life)).outcome is outcome
    program = next(iter(here.machine.programs.values()))
    assert program.answers == [answer]
    assert program.log.read(0, 100).data.decode() == output  # type: ignore[union-attr]  # it has not dropped any
    assert (view.by, view.who) == (ResolvedBy.PERSON, "mia")


@pytest.mark.parametrize(
    ("decision", "outcome", "line"),
    [
        (Decision.ALLOW, Outcome.SUCCEEDED, "allowed by rule rm"),
        (Decision.DENY, Outcome.FAILED, "denied by rule rm"),
    ],
)
async def test_answer_of_a_rule(decision: Decision, outcome: Outcome, line: str, autojump_clock: MockClock) -> None:
    """A rule answers without anybody, and the audit line names it."""
    here = asking(rules=(Rule("rm", decision, command="rm x"),))
    async with here.life() as life:
        await life.submit(plan(task(1)))
        assert (await finish(life)).outcome is outcome
        (view,) = views(life.world)
    assert (view.state, told(view)) == (ApprovalState.DELIVERED, line)


async def test_bypass(autojump_clock: MockClock) -> None:
    """Under bypass a permission that no rule speaks of is given, and the journal says by what."""
    here = asking(permission_default=PermissionDefault.BYPASS)
    async with here.life() as life:
        await life.submit(plan(task(1)))
        assert (await finish(life)).outcome is Outcome.SUCCEEDED
        assert told(views(life.world)[0]) == "allowed by rule permission_default"


async def test_relative_paths(autojump_clock: MockClock) -> None:
    """Paths are judged from the directory that the task runs in."""
    write = ScriptedAsk(Ask("", tool="Write", path="/project/src/a"))
    here = asking(Script(asks=(write,)), rules=(Rule("src", Decision.ALLOW, tool="Write", path="src/**"),))
    async with here.life() as life:
        await life.submit(plan(task(1)))
        assert (await finish(life)).outcome is Outcome.SUCCEEDED


async def test_many_asks(autojump_clock: MockClock) -> None:
    """A session asks one thing after the other; what reads the same is asked anew each time."""
    here = asking(Script(asks=(RM, RM, RM)))
    async with here.life() as life:
        approval_id = await asked(life)
        for _ in range(3):
            await life.until(is_open)
            approval_id = next(view.id for view in views(life.world) if view.state is ApprovalState.OPEN)
            await resolve(life, approval_id)
        assert (await finish(life)).outcome is Outcome.SUCCEEDED
    assert len({view.id for view in views(life.world)}) == 3


async def test_any_text(autojump_clock: MockClock) -> None:
    """What a screen holds is recorded whatever it is, as Unicode and in bounds, and judged as a whole."""
    strange = ScriptedAsk(Ask("", tool="Bash", command="rm x " + "\udcff" * 30_000, text="\ud800"))
    here = asking(Script(asks=(strange,)), rules=(Rule("rm", Decision.DENY, command="rm *"),))
    async with here.life() as life:
        approval_id = await asked(life)
        view = life.world.approvals[approval_id]
        assert encode_event(ev.ApprovalRequested("s", "x", view.ask))
        assert (len(view.ask.command), view.ask.text) == (LONGEST_TEXT, "?")
        await resolve(life, approval_id)
        assert (await finish(life)).outcome is Outcome.SUCCEEDED


async def test_withdrawn(autojump_clock: MockClock) -> None:
    """What was answered at the terminal is withdrawn, and an answer that comes later is refused as stale."""
    here = asking(Script(asks=(attrs.evolve(RM, gone_after=5.0),), duration=100.0))
    async with here.life() as life:
        approval_id = await asked(life)
        await life.until(lambda world: not is_open(world))
        with pytest.raises(StaleApprovalError, match="not asked any more"):
            await resolve(life, approval_id)
        assert (await finish(life)).outcome is Outcome.SUCCEEDED
    assert next(iter(here.machine.programs.values())).answers == []


async def test_second_answer(autojump_clock: MockClock) -> None:
    """The first answer counts: whoever comes second is told what it was."""
    here = asking(Script(asks=(RM,), duration=100.0))
    async with here.life() as life:
        approval_id = await asked(life)
        await resolve(life, approval_id)
        with pytest.raises(SupervisionError, match="answered already: allowed by mia"):
            await resolve(life, approval_id, DENY)
        with pytest.raises(SupervisionError, match="no approval zzzz"):
            await resolve(life, "zzzz")


async def test_two_answers_at_once(autojump_clock: MockClock) -> None:
    """Of two who answer at the same moment one is told that the other was faster."""
    here = asking()
    refused: list[SupervisionError] = []

    async def answer(answer: Answer) -> None:
        try:
            await resolve(life, approval_id, answer)
        except SupervisionError as error:
            refused.append(error)

    async with here.life() as life:
        approval_id = await asked(life)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, ALLOW)
            nursery.start_soon(answer, DENY)
        await finish(life)
    assert len(refused) == 1
    assert len(next(iter(here.machine.programs.values())).answers) == 1


async def test_stopped_while_it_asks(autojump_clock: MockClock) -> None:
    """A task that waits for a person can be stopped, and what it asked ends with it."""
    here = asking()
    async with here.life() as life:
        approval_id = await asked(life)
        await life.orchestrator.stop_task("run1", "1")
        assert (await finish(life)).outcome is Outcome.CANCELLED
        assert life.world.approvals[approval_id].reason == "its session has ended"
        with pytest.raises(StaleApprovalError):
            await resolve(life, approval_id)
    assert any(isinstance(event, ev.ApprovalWithdrawn) for event in here.events)


# --- time -------------------------------------------------------------------------


async def test_the_clock_stands_still(autojump_clock: MockClock) -> None:
    """The time of a task does not go on while it waits for a person, and goes on after."""
    here = asking(Script(asks=(RM,), duration=math.inf))
    start = trio.current_time()
    async with here.life() as life:
        approval_id = await asked(life, timeout=30.0)
        await trio.sleep(1000.0)
        await resolve(life, approval_id)
        state = await finish(life)
        assert trio.current_time() - start == pytest.approx(1030.0, abs=0.1)
    assert (state.outcome, state.cause.kind) == (Outcome.TIMED_OUT, CauseKind.TIMEOUT)


async def test_the_clock_over_supervisors(autojump_clock: MockClock) -> None:
    """The time a task waits without a supervisor is not its own either, and is counted once."""
    here = asking(Script(asks=(RM,), duration=math.inf))
    start = trio.current_time()

    async def first(life: Life) -> None:
        await asked(life, timeout=30.0)
        await trio.sleep(100.0)
        life.crash()
        await trio.sleep_forever()

    await here.live(first)
    await trio.sleep(500.0)
    async with here.life() as life:
        (view,) = views(life.world)
        await trio.sleep(100.0)
        assert life.world.approvals == {view.id: view}
        await resolve(life, view.id)
        state = await finish(life)
    assert state.outcome is Outcome.TIMED_OUT
    assert trio.current_time() - start == pytest.approx(730.0, abs=0.2)


async def test_nobody_answers(autojump_clock: MockClock) -> None:
    """What nobody answers in time is denied, and the program is told why."""
    here = asking(approval_timeout=60.0)
    start = trio.current_time()
    async with here.life() as life:
        await asked(life, timeout=30.0)
        assert (await finish(life)).outcome is Outcome.FAILED
        assert trio.current_time() - start == pytest.approx(61.0, abs=0.1)
        (view,) = views(life.world)
    assert (view.by, view.reason) == (ResolvedBy.TIMEOUT, "nobody answered within 1m")
    assert next(iter(here.machine.programs.values())).answers == [Answer(AnswerKind.DENY, "nobody answered within 1m")]


QUESTION = ScriptedAsk(Ask("", kind=AskKind.QUESTION, text="Which?", options=(Option("A"), Option("B"))))


@pytest.mark.parametrize(
    ("ask", "choice"), [(RM, OnUnanswered.STOP), (QUESTION, OnUnanswered.DENY)], ids=["as told", "no way to deny"]
)
async def test_stopped_when_nobody_answers(ask: ScriptedAsk, choice: OnUnanswered, autojump_clock: MockClock) -> None:
    """Where it is to be stopped, or cannot be denied, the task ends when nobody answers, and is not tried again."""
    here = asking(Script(asks=(ask,)), approval_timeout=60.0, on_unanswered=choice)
    async with here.life() as life:
        await asked(life, retries=3)
        state = await finish(life)
    assert (state.outcome, state.cause.kind) == (Outcome.TIMED_OUT, CauseKind.UNANSWERED)
    assert next(iter(here.machine.programs.values())).answers == []


async def test_patience_over_supervisors(autojump_clock: MockClock) -> None:
    """The time a person has is counted from the request, over every supervisor."""
    here = asking(approval_timeout=60.0)
    start = trio.current_time()

    async def first(life: Life) -> None:
        await asked(life)
        await trio.sleep(20.0)
        life.crash()
        await trio.sleep_forever()

    await here.live(first)
    await trio.sleep(20.0)
    async with here.life() as life:
        await finish(life)
    assert trio.current_time() - start == pytest.approx(61.0, abs=0.2)


# --- supervisors die --------------------------------------------------------------


async def test_answer_that_was_not_sent(autojump_clock: MockClock) -> None:
    """An answer that was recorded before the supervisor died is given by the next one."""
    here = asking()

    async def first(life: Life) -> None:
        approval_id = await asked(life)
        session_id = life.world.approvals[approval_id].session_id
        await life.journal.append(ev.ApprovalResolved(session_id, approval_id, ALLOW, ResolvedBy.PERSON, "mia"))
        life.crash()
        await trio.sleep_forever()

    await here.live(first)
    async with here.life() as life:
        assert (await finish(life)).outcome is Outcome.SUCCEEDED
        (view,) = views(life.world)
    assert (view.state, view.who) == (ApprovalState.DELIVERED, "mia")
    assert next(iter(here.machine.programs.values())).answers == [ALLOW]


async def test_answer_in_doubt(autojump_clock: MockClock) -> None:
    """An answer that may have been given is not given again: it is said to be in doubt, and a person is asked."""
    rules = (Rule("rm", Decision.ALLOW, command="rm x"),)

    async def work(life: Life) -> None:
        await life.submit(plan(task(1)))
        await life.orchestrator.wait_idle()

    rehearsal = asking(rules=rules)
    await rehearsal.live(work)
    sent = next(n for n, event in enumerate(rehearsal.events, 1) if isinstance(event, ev.ApprovalSending))
    here = asking(rules=rules)
    await here.live(work, kill_at=sent)
    async with here.life() as life:
        await life.until(is_open)
        old, new = views(life.world)
        assert (old.state, old.reason) == (ApprovalState.WITHDRAWN, IN_DOUBT)
        assert new.why == "an earlier answer may have been lost: look before you answer"
        await resolve(life, new.id)
        assert (await finish(life)).outcome is Outcome.SUCCEEDED
    assert next(iter(here.machine.programs.values())).answers == [ALLOW]


async def killed_once(here: Town, kill_at: int, durable: bool) -> None:
    """Answer all that a task of this town asks, beside a supervisor that dies and one that does not."""

    async def answer_all(life: Life) -> None:
        while True:
            await life.until(is_open)
            view = next(view for view in views(life.world) if view.state is ApprovalState.OPEN)
            await resolve(life, view.id)

    async def body(life: Life) -> None:
        if not any(isinstance(event, ev.RunStarted) for event in here.events):
            await life.submit(plan(task(1)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_all, life)
            await life.orchestrator.wait_idle()
            nursery.cancel_scope.cancel()

    await here.live(body, kill_at=kill_at, durable=durable)
    await here.live(body)


@settings(max_examples=60)
@given(kill_at=st.integers(1, 40), durable=st.booleans(), by_rule=st.booleans())
def test_killed_at_any_commit(kill_at: int, durable: bool, by_rule: bool) -> None:
    """Wherever the supervisor dies, each ask is answered once, and no rule answers what is in doubt."""
    rules = (Rule("rm", Decision.ALLOW, command="rm x"),) if by_rule else ()
    here = asking(Script(asks=(RM, RM, RM)), rules=rules)
    trio.run(killed_once, here, kill_at, durable, clock=MockClock(autojump_threshold=0))
    assert here.bugs == []
    assert [program.answers for program in here.machine.programs.values() if program.answers] == [[ALLOW] * 3]
    said = [event.reason for event in here.events if isinstance(event, ev.ApprovalWithdrawn)]
    delivered = [event for event in here.events if isinstance(event, ev.ApprovalDelivered)]
    assert len(delivered) + len(said) >= 3
    assert set(said) <= {IN_DOUBT, "its session ended while it was given the answer"}
    world = fold(here.records)
    assert all(view.state.settled for view in views(world))
    assert [run.outcome for run in world.runs.values()] == [Outcome.SUCCEEDED]
