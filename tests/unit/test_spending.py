"""Accounts and budgets over whole lives of supervisors: what is parked starts nothing, what is spent is gone."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from kasmos.exceptions import SupervisionError
from kasmos.model import event as ev
from kasmos.model.budget import Budgets, Limit
from kasmos.model.plan import RunSettings
from kasmos.model.task import CauseKind, Outcome
from kasmos.model.told import Told, render_told
from kasmos.model.usage import Failure, FailureKind, Price, Tally, Usage, UsageSource
from kasmos.model.view import AccountView, Ended, Parked, Pending
from kasmos.orchestration.accounts import decide_start, parked_now
from kasmos.orchestration.days import day_of, next_day_at
from kasmos.sessions.script import Script, parse_scripts
from tests.simulation import Life, Town, plan, profile, task, town

FAILS = 1.0
"""Seconds after which scripts that fail do so."""


def uses(tokens: int, cost: float | None = None, turns: int = 0) -> bytes:
    source = UsageSource.REPORTED
    return render_told(Told(Usage(tokens, 0, source=source, cost_usd=cost, cost_source=source), turns))


def fails(kind: FailureKind, after: float | None = None) -> Script:
    return Script(output=((FAILS, render_told(Told(failure=Failure(kind, "no more", retry_after=after)))),), exit=1)


def spends(*costs: float, every: float = 2.0, **changes: Any) -> Script:
    """Costs so much in all by then."""
    return Script(output=tuple((every, uses(100, cost)) for cost in costs), **changes)


def starts(here: Town) -> list[float]:
    """When sessions were started."""
    return [record.at for record in here.records if isinstance(record.event, ev.SessionStarting)]


def parked_until(here: Town) -> float:
    [event] = [event for event in here.events if isinstance(event, ev.AccountParked)]
    assert event.until_at is not None
    return event.until_at


def cause_of(life: Life, task_id: str, run_id: str = "run1") -> tuple[Outcome, CauseKind, str]:
    state = life.task(task_id, run_id).state
    assert isinstance(state, Ended)
    return state.outcome, state.cause.kind, state.cause.message


# --- accounts -----------------------------------------------------------------------


async def test_a_quota_parks_its_account_until_the_reset(autojump_clock: MockClock) -> None:
    """After a quota nothing is started on the account before its reset; nobody fails, and nothing is done twice."""
    work = profile(account="work")
    here = town(
        {"1": (fails(FailureKind.QUOTA, 3600.0), Script()), "2": Script(duration=5.0)},
        profiles={"a": work, "b": attrs.evolve(work, name="b"), "c": profile(name="c")},
        max_concurrent=2,
    )
    tasks = [task(1), task(2), task(3), task(4, agent="b"), task(5, agent="c")]
    async with here.life() as life:
        await life.submit(plan(*tasks))
        await life.orchestrator.wait_idle()
        assert [life.task(str(number)).outcome for number in range(1, 6)] == [Outcome.SUCCEEDED] * 5
        assert len(life.task("2").sessions) == 1
        until = parked_until(here)
    before = [at for at in starts(here) if at < until]
    # The two that ran at once, and the one whose account is another.
    assert len(before) == 3
    assert len(starts(here)) == 6
    assert until >= before[0] + FAILS + 3600.0


async def test_a_parked_account_stays_parked_over_a_kill(autojump_clock: MockClock) -> None:
    """Whoever comes after a supervisor that was killed starts nothing on the account either, until it opens."""
    here = town({"1": (fails(FailureKind.RATE_LIMIT, 600.0), Script())})

    async def body(life: Life) -> None:
        await life.submit(plan(task(1), task(2)))
        await life.until(lambda world: "a" in world.accounts and world.accounts["a"].parked is not None)
        await trio.sleep(30.0)
        life.crash()
        await trio.sleep_forever()

    await here.live(body)
    async with here.life() as life:
        await life.orchestrator.wait_idle()
        assert life.run().outcome is Outcome.SUCCEEDED
    until = parked_until(here)
    assert [at for at in starts(here) if at < until] == starts(here)[:2]


async def test_a_rate_limit_costs_no_try(autojump_clock: MockClock) -> None:
    """A task that may not be tried again waits for its account all the same, and fails by its own failure only."""
    here = town({"1": (fails(FailureKind.RATE_LIMIT), fails(FailureKind.RATE_LIMIT), Script(exit=7))})
    async with here.life() as life:
        await life.submit(plan(task(1)), settings=RunSettings(retries=0))
        await life.orchestrator.wait_idle()
        assert cause_of(life, "1")[:2] == (Outcome.FAILED, CauseKind.EXIT)
        # Without a word of when it ends, each time in a row it is given more.
        first, second = (event.until_at for event in here.events if isinstance(event, ev.AccountParked))
    [one, two, three] = starts(here)
    assert first is not None
    assert second is not None
    assert two >= first
    assert three >= second
    assert three - two > two - one


async def test_an_account_that_is_not_logged_in_waits_for_a_person(autojump_clock: MockClock) -> None:
    """After one refused login nothing more is started on the account until a person has released it."""
    here = town({str(number): (fails(FailureKind.AUTH), Script()) for number in (1, 2, 3)}, max_concurrent=1)
    async with here.life() as life:
        await life.submit(plan(task(1), task(2), task(3)))
        await life.until(lambda world: "a" in world.accounts and world.accounts["a"].parked is not None)
        await trio.sleep(80_000.0)
        assert len(starts(here)) == 1
        assert isinstance(life.task("1").state, Pending)
        here.scripts = lambda spec: Script()
        await life.orchestrator.release_account("a", "ann")
        await life.orchestrator.wait_idle()
        assert life.run().outcome is Outcome.SUCCEEDED
        with pytest.raises(SupervisionError, match="account a is not parked"):
            await life.orchestrator.release_account("a", "ann")


async def test_where_nobody_can_be_asked_a_refused_login_fails_the_task(autojump_clock: MockClock) -> None:
    """A run that nobody watches ends, and says why, rather than to wait for ever."""
    here = town({"1": fails(FailureKind.AUTH)}, may_ask=False)
    async with here.life() as life:
        await life.submit(plan(task(1)))
        await life.orchestrator.wait_idle()
        assert cause_of(life, "1") == (Outcome.FAILED, CauseKind.ACCOUNT, "auth: no more (exit 1)")


async def test_what_waits_for_its_account_can_be_stopped(autojump_clock: MockClock) -> None:
    """A task, and a run, that wait for a parked account end at once when they are told to."""
    here = town({"1": fails(FailureKind.QUOTA, 3600.0), "2": fails(FailureKind.QUOTA, 3600.0)})
    async with here.life() as life:
        await life.submit(plan(task(1), task(2)))
        await life.until(lambda world: "a" in world.accounts and world.accounts["a"].parked is not None)
        await trio.sleep(10.0)
        begun = trio.current_time()
        await life.orchestrator.stop_task("run1", "1")
        await life.orchestrator.cancel_run("run1")
        await life.orchestrator.wait_idle()
        assert trio.current_time() - begun < 1.0
        assert [life.task(name).outcome for name in "12"] == [Outcome.CANCELLED] * 2


@pytest.mark.parametrize("kind", [FailureKind.CONTEXT_TOO_LONG, FailureKind.REFUSED])
async def test_what_would_end_alike_is_not_tried_again(kind: FailureKind, autojump_clock: MockClock) -> None:
    """However many retries a task has, what the same prompt would meet with again is not repeated blindly."""
    here = town({"1": fails(kind)})
    async with here.life() as life:
        await life.submit(plan(task(1)), settings=RunSettings(retries=5))
        await life.orchestrator.wait_idle()
        outcome, cause, message = cause_of(life, "1")
        assert (outcome, cause) == (Outcome.FAILED, CauseKind.AGENT)
        assert "no more (exit 1); not tried again:" in message
    assert len(starts(here)) == 1


async def test_an_overloaded_server_is_given_time(autojump_clock: MockClock) -> None:
    """A failure that may pass by itself is waited out, longer each time, also where nothing is tried again."""
    here = town({"1": (fails(FailureKind.OVERLOADED), fails(FailureKind.NETWORK), Script())})
    async with here.life() as life:
        await life.submit(plan(task(1)), settings=RunSettings(retries=0))
        await life.orchestrator.wait_idle()
        assert life.run().outcome is Outcome.SUCCEEDED
    [one, two, three] = starts(here)
    assert three - two > two - one


async def test_a_failure_that_is_told_outweighs_exit_0(autojump_clock: MockClock) -> None:
    """A program that says that it failed has failed, whatever it exits with."""
    here = town({"1": attrs.evolve(fails(FailureKind.UNKNOWN), exit=0)})
    async with here.life() as life:
        await life.submit(plan(task(1)))
        await life.orchestrator.wait_idle()
        assert cause_of(life, "1") == (Outcome.FAILED, CauseKind.AGENT, "no more (exit 0)")


async def test_starts_on_one_account_keep_their_distance(autojump_clock: MockClock) -> None:
    """Sessions of one account are started one after the other, those of others meanwhile; over a kill as well."""
    slow = profile(account="work", start_interval=10.0)
    here = town(
        {str(number): Script(duration=100.0) for number in (1, 2, 3)},
        profiles={"a": slow, "b": attrs.evolve(slow, name="b"), "c": profile(name="c")},
    )

    async def body(life: Life) -> None:
        await life.submit(plan(task(1), task(2, agent="b"), task(3), task(4, agent="c")))
        await trio.sleep(5.0)
        life.crash()
        await trio.sleep_forever()

    await here.live(body)
    async with here.life() as life:
        await life.orchestrator.wait_idle()
        assert life.run().outcome is Outcome.SUCCEEDED
    of_work = [
        record.at
        for record in here.records
        if isinstance(record.event, ev.SessionStarting) and record.event.account == "work"
    ]
    assert len(of_work) == 3
    assert all(later - earlier >= 9.99 for earlier, later in pairwise(of_work))


# --- usage --------------------------------------------------------------------------


async def test_what_a_session_uses_counts_once_whatever_is_killed(autojump_clock: MockClock) -> None:
    """Usage is known while a session runs, and is told once: a kill and adoption in the middle change nothing."""
    here = town({"1": spends(0.5, 1.0, 1.5, 2.0)})

    async def body(life: Life) -> None:
        await life.submit(plan(task(1)))
        await life.until(lambda world: bool(world.ledger.days))
        await trio.sleep(3.0)
        life.crash()
        await trio.sleep_forever()

    await here.live(body)
    async with here.life() as life:
        await life.orchestrator.wait_idle()
        [entry] = life.world.ledger.entries()
        assert (entry.agent, entry.account, entry.tally.sessions) == ("a", "a", 1)
        assert (entry.tally.cost.amount, entry.tally.tokens.amount) == (2.0, 100)
        assert life.session("1").tally == entry.tally == life.world.ledger.runs["run1"]
        assert entry.tally.seconds == pytest.approx(8.0, abs=0.1)


def says(message: int, tokens: int) -> bytes:
    """An answer as claude writes it, with what it has read for it."""
    usage = {"input_tokens": tokens, "output_tokens": 1}
    content = [{"type": "text", "text": "More."}]
    inner = {"id": f"m{message}", "model": "m", "role": "assistant", "content": content, "usage": usage}
    return json.dumps({"type": "assistant", "message": inner, "session_id": "c-1"}).encode() + b"\n"


async def test_what_a_program_says_of_itself_is_read_once(autojump_clock: MockClock) -> None:
    """One reading of a program's stream tells its usage, stops it when that is too much, and judges its end."""
    here = town(
        {"1": Script(output=tuple((2.0, says(number, 1000)) for number in range(1, 6)), duration=math.inf)},
        profiles={"a": profile(harness="claude")},
        budgets=Budgets(zone="UTC", per_task=Limit(tokens=2500)),
    )
    async with here.life() as life:
        await life.submit(plan(task(1)))
        await life.orchestrator.wait_idle()
        outcome, kind, message = cause_of(life, "1")
        assert (outcome, kind) == (Outcome.FAILED, CauseKind.BUDGET)
        assert message.startswith("stopped because the budget of the task is spent: 3,000 of 2,500 tokens")
        view = life.session("1")
        assert (view.conversation, view.tally.input.amount, view.tally.cost.unknown) == ("c-1", 3000, 1)
        assert view.conclusion is not None
    [*used, concluded, ended] = [
        type(event)
        for event in here.events
        if isinstance(event, ev.SessionUsed | ev.SessionConcluded | ev.SessionEnded)
    ]
    assert set(used) == {ev.SessionUsed}
    assert (concluded, ended) == (ev.SessionConcluded, ev.SessionEnded)


async def test_what_was_used_never_shrinks(autojump_clock: MockClock) -> None:
    """The next supervisor, which reads from the beginning, tells nothing before it has read all that was there."""
    filler = b'{"type":"keep_alive"}\n' * 10_000
    here = town(
        {"1": Script(output=((1.0, says(1, 1000)), (2.0, filler + says(2, 1000)), (60.0, says(3, 1000))))},
        profiles={"a": profile(harness="claude")},
    )

    async def body(life: Life) -> None:
        await life.submit(plan(task(1)))
        await life.until(lambda world: any(one.tally.input.amount == 2000 for one in world.sessions.values()))
        life.crash()
        await trio.sleep_forever()

    await here.live(body)
    async with here.life() as life:
        await life.orchestrator.wait_idle()
    used = [event.usage.input_tokens for event in here.events if isinstance(event, ev.SessionUsed)]
    assert used == [1000, 2000, 2000, 3000, 3000]


async def test_what_is_not_told_is_priced_by_the_table(autojump_clock: MockClock) -> None:
    """Tokens of a model with a price have a cost that says it was worked out; without a price it is unknown."""
    here = town(
        {"1": Script(output=((1.0, uses(2_000_000)),)), "2": Script(output=((1.0, uses(5)),))},
        profiles={"a": profile(model="m"), "b": profile(name="b", model="other")},
        prices={"m": Price(input=3.0, output=15.0)},
    )
    async with here.life() as life:
        await life.submit(plan(task(1), task(2, agent="b")))
        await life.orchestrator.wait_idle()
        cost = life.session("1").tally.cost
        assert (cost.amount, cost.source) == (6.0, UsageSource.PRICED)
        assert life.session("2").tally.cost.unknown == 1


# --- budgets ------------------------------------------------------------------------


async def test_a_session_over_its_budget_is_asked_to_end(autojump_clock: MockClock) -> None:
    """Who has spent what its task may spend is asked to finish; its last words are kept, and it is not tried again."""
    here = town(
        {"1": spends(0.4, 1.2, 5.0, last_words=b"I was told to stop\n", duration=math.inf)},
        budgets=Budgets(zone="UTC", per_task=Limit(money=1.0)),
    )
    async with here.life() as life:
        await life.submit(plan(task(1)), settings=RunSettings(retries=3))
        await life.orchestrator.wait_idle()
        outcome, kind, message = cause_of(life, "1")
        assert (outcome, kind) == (Outcome.FAILED, CauseKind.BUDGET)
        assert message == "stopped because the budget of the task is spent: 1.20 of 1.00 USD"
        state = life.task("1").state
        assert isinstance(state, Ended)
        assert "I was told to stop" in state.cause.tail
    assert len(starts(here)) == 1
    [program] = here.machine.programs.values()
    assert program.signals == [15]


@pytest.mark.parametrize(
    "budgets",
    [
        Budgets(zone="UTC", daily=1.0),
        Budgets(zone="UTC", per_run=Limit(money=1.0)),
        Budgets(zone="UTC", agents={"a": Limit(tokens=100)}),
        Budgets(zone="UTC", accounts={"a": Limit(money=1.0)}),
    ],
)
async def test_a_spent_budget_starts_nothing(budgets: Budgets, autojump_clock: MockClock) -> None:
    """When a day, a run, an agent or an account has spent what it may, what has not begun ends with that cause."""
    here = town({"1": spends(0.5, 1.0), "2": spends(0.1)}, budgets=budgets, max_concurrent=1)
    async with here.life() as life:
        await life.submit(plan(task(1), task(2)))
        await life.orchestrator.wait_idle()
        outcome, kind, message = cause_of(life, "2")
        assert (outcome, kind) == (Outcome.FAILED, CauseKind.BUDGET)
        assert "is spent" in message
    assert len(starts(here)) == 1


async def test_the_day_after_there_is_a_new_budget(autojump_clock: MockClock) -> None:
    """What was spent yesterday does not count today."""
    here = town({}, budgets=Budgets(zone="UTC", daily=1.0))
    here.scripts = lambda spec: spends(1.0)
    async with here.life() as life:
        await life.submit(plan(task(1)))
        await life.orchestrator.wait_idle()
        await trio.sleep(86_400.0)
        await life.submit(plan(task(1)), key="/other.md")
        await life.orchestrator.wait_idle()
    assert len(starts(here)) == 2


async def test_what_live_sessions_may_still_spend_is_set_aside(autojump_clock: MockClock) -> None:
    """No more sessions run at once than could all spend what their tasks may; the others wait for what is left over."""
    here = town({}, budgets=Budgets(zone="UTC", daily=3.0, per_task=Limit(money=1.0)))
    here.scripts = lambda spec: spends(0.1, duration=50.0)
    most = 0
    async with here.life() as life:
        await life.submit(plan(*(task(number) for number in range(1, 5))))
        await trio.sleep(10.0)
        most = len(here.machine.live)
        await life.orchestrator.wait_idle()
        assert life.run().outcome is Outcome.SUCCEEDED
    assert most == 3
    assert len(starts(here)) == 4


async def test_time_is_a_budget_too(autojump_clock: MockClock) -> None:
    """A session runs no longer than its budgets leave, although it tells nothing."""
    here = town({"1": Script(duration=math.inf)}, budgets=Budgets(zone="UTC", per_task=Limit(time=30.0)))
    async with here.life() as life:
        begun = trio.current_time()
        await life.submit(plan(task(1)))
        await life.orchestrator.wait_idle()
        assert cause_of(life, "1")[:2] == (Outcome.FAILED, CauseKind.BUDGET)
        assert trio.current_time() - begun == pytest.approx(30.0, abs=0.1)


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("kill_at", range(2, 34, 2))
async def test_whenever_it_is_killed(kill_at: int, durable: bool, autojump_clock: MockClock) -> None:
    """Killed after any number of facts: nothing starts on a parked account, nothing succeeds or is paid for twice."""
    limited = Script(
        output=(
            (1.0, uses(40, 0.4)),
            (1.0, render_told(Told(failure=Failure(FailureKind.QUOTA, "used up", retry_after=600.0)))),
        ),
        exit=1,
    )
    here = town({"1": (limited, spends(0.5, 1.0)), "2": spends(0.25, 0.5), "3": spends(2.0)}, max_concurrent=2)
    document = plan(task(1), task(2), task(3))

    async def body(life: Life) -> None:
        await life.submit(document)
        await life.orchestrator.wait_idle()

    await here.live(body, kill_at=kill_at, durable=durable)
    async with here.life() as life:
        run_id = (await life.submit(document)).run_id
        await life.orchestrator.wait_idle()
        assert [one.outcome for one in life.run(run_id).tasks.values()] == [Outcome.SUCCEEDED] * 3
        spent = sum((entry.tally for entry in life.world.ledger.entries()), Tally())
        assert spent.cost.amount == pytest.approx(0.4 + 1.0 + 0.5 + 2.0)
        assert (spent.sessions, spent.cost.unknown) == (4, 0)
        assert life.world.ledger.runs[run_id].cost.amount == pytest.approx(3.9)
    until = max(event.until_at or 0.0 for event in here.events if isinstance(event, ev.AccountParked))
    since = min(record.at for record in here.records if isinstance(record.event, ev.AccountParked))
    assert not [at for at in starts(here) if since < at < until]
    assert len(here.machine.starts) == 4
    assert not here.undeclared
    assert not here.bugs


# --- pure ---------------------------------------------------------------------------


def test_a_day_begins_at_midnight_in_its_zone() -> None:
    """One instant is of different days in different zones, and a day on which clocks change has its own length."""
    instant = 1_774_740_600.0  # 2026-03-28 23:30 UTC
    assert day_of(instant, "UTC") == "2026-03-28"
    assert day_of(instant, "Europe/Berlin") == "2026-03-29"
    # That night an hour is left out there.
    assert next_day_at(instant, "Europe/Berlin") - (instant - 1800) == 23 * 3600


@given(
    st.none() | st.floats(0, 1e6),
    st.none() | st.floats(0, 1e6),
    st.floats(0, 1e4),
    st.floats(0, 1e6),
    st.booleans(),
)
def test_no_start_comes_too_early(
    started: float | None, reserved: float | None, interval: float, now: float, same: bool
) -> None:
    """Whatever was started and given out before, a start is never in the past and never too near to another."""
    view = AccountView("w", started_mono=started, boot_id="b")
    at = decide_start(view, reserved, interval, now=now, boot="b" if same else "c")
    assert at >= now
    assert reserved is None or at >= reserved + interval
    assert not same or started is None or at >= started + interval


@given(st.none() | st.floats(0, 1e9), st.floats(0, 1e9))
def test_an_account_is_parked_until_its_instant_and_no_longer(until: float | None, now: float) -> None:
    """Parked is what has no instant, or one that is still to come."""
    view = AccountView("w", Parked(FailureKind.QUOTA, "", 0.0, until))
    assert (parked_now(view, now) is not None) == (until is None or until > now)


def test_scripts_can_tell() -> None:
    """A script says in TOML what it uses and why it fails, and every mistake in that is told."""
    [script] = parse_scripts(
        "output = [{ after = 1, usage = { input = 5, cost = 0.5 }, turns = 2 },"
        ' { failure = { kind = "quota", retry_after = 60 } }]',
        "here",
    )
    assert [after for after, _ in script.output] == [1.0, 0.0]
    for wrong in ("{ usage = { inputs = 5 } }", '{ failure = { kind = "tired" } }', "{ usage = { input = 0.5 } }"):
        with pytest.raises(Exception, match="does not fit"):
            parse_scripts(f"output = [{wrong}]", "here")
