"""The ledger: what is known is told from what is not, nothing counts twice, and sums outlive what they are sums of."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.model import event as ev
from kasmos.model.clock import Clock
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import SessionKind
from kasmos.model.task import Outcome
from kasmos.model.usage import (
    Failure,
    FailureKind,
    Figure,
    Price,
    Tally,
    Usage,
    UsageSource,
    figure,
    priced,
    tally_of,
)
from kasmos.store.journal import open_journal, read_world
from kasmos.store.pruning import Forgotten, decide_carried
from tests.unit.histories import History, make_plan

REPORTED = UsageSource.REPORTED
DAY = "2026-05-01"


def usage(tokens: int | None, cost: float | None = None, **changes: object) -> Usage:
    plain = Usage(tokens, tokens, source=REPORTED, cost_usd=cost, cost_source=REPORTED)
    return attrs.evolve(plain, **changes)  # type: ignore[arg-type]  # checked by attrs' __init__


def used(history: History, session_id: str, *, day: str = DAY, of: Usage, conversation: str = "") -> None:
    history.add(ev.SessionUsed(session_id, of, day, conversation=conversation))


def total(history: History) -> Tally:
    return sum((entry.tally for entry in history.world.ledger.entries()), Tally())


def test_unknown_is_never_zero() -> None:
    """A sum of what is known and what is not says at least how much it is, and that it may be more."""
    known, unknown = figure(3.0, REPORTED), figure(None, REPORTED)
    assert (known + unknown).amount == 3.0
    assert (known + unknown).unknown == 1
    assert unknown.source is UsageSource.UNKNOWN
    assert unknown.unknown == 1
    assert Figure().unknown == 0


def test_a_sum_is_as_good_as_its_weakest_part() -> None:
    """One guess among reported numbers makes the sum a guess."""
    parts = figure(1, REPORTED) + figure(1, UsageSource.PRICED)
    assert parts.source is UsageSource.PRICED
    assert (parts + figure(1, UsageSource.ESTIMATED)).source is UsageSource.ESTIMATED
    assert (parts - figure(1, UsageSource.PRICED)).source is REPORTED


def test_a_price_is_worked_out_only_where_nothing_is_missing() -> None:
    """Cost comes of counted tokens and the table; the program's own word stands, and a gap leaves it unknown."""
    price = Price(input=3.0, output=15.0, cached=0.3)
    counted = Usage(1_200_000, 100_000, cached_tokens=200_000, source=REPORTED, cached_in_input=True)
    told = priced(counted, price)
    assert told.cost_usd == pytest.approx(3.0 + 1.5 + 0.06)
    assert told.cost_source is UsageSource.PRICED
    assert priced(attrs.evolve(counted, source=UsageSource.ESTIMATED), price).cost_source is UsageSource.ESTIMATED
    assert priced(attrs.evolve(counted, output_tokens=None), price).cost_usd is None
    assert priced(counted, None).cost_usd is None
    assert priced(attrs.evolve(counted, cost_usd=9.0, cost_source=REPORTED), price).cost_usd == 9.0


def test_tokens_from_the_cache_count_once() -> None:
    """Programs that count cached tokens among those read, and those that do not, come to the same sums."""
    one = tally_of(Usage(100, 5, cached_tokens=40, source=REPORTED, cached_in_input=True))
    other = tally_of(Usage(60, 5, cached_tokens=40, source=REPORTED, cached_in_input=False))
    assert one == other
    assert one.tokens.amount == 65


def test_a_snapshot_takes_the_place_of_the_one_before() -> None:
    """What is told once more, as after a kill and adoption, counts once."""
    history = History(make_plan(1))
    session = history.start("1")
    for tokens in (10, 25, 25, 25):
        used(history, session, of=usage(tokens, cost=tokens / 100))
    assert total(history).tokens.amount == 50
    assert total(history).cost.amount == 0.25
    assert total(history).sessions == 1


def test_what_is_unknown_becomes_known() -> None:
    """A session of which nothing is known yet is one unknown part, and none as soon as it says what it used."""
    history = History(make_plan(1))
    session = history.start("1")
    used(history, session, of=Usage())
    assert (total(history).cost.unknown, total(history).cost.source) == (1, UsageSource.UNKNOWN)
    used(history, session, of=usage(10, cost=1.0))
    assert (total(history).cost.unknown, total(history).cost.source) == (0, REPORTED)


def test_what_is_new_counts_on_its_day() -> None:
    """A session over midnight spends of both days, each what was used on it."""
    history = History(make_plan(1))
    session = history.start("1")
    used(history, session, of=usage(10))
    used(history, session, day="2026-05-02", of=usage(30))
    days = {day: history.world.ledger.on(day) for day in history.world.ledger.days}
    assert (days[DAY].tokens.amount, days["2026-05-02"].tokens.amount) == (20, 40)
    assert days[DAY].cost.unknown + days["2026-05-02"].cost.unknown == 1
    assert total(history).sessions == 1


def test_a_conversation_that_goes_on_is_not_paid_twice() -> None:
    """Of totals of a whole conversation what its earlier sessions used is taken off."""
    history = History(make_plan(1))
    first = history.start("1")
    whole = usage(100, scope="conversation")
    used(history, first, of=whole, conversation="c1")
    second = history.start("1", attempt=2)
    used(history, second, of=usage(160, scope="conversation"), conversation="c1")
    used(history, second, of=usage(170, scope="conversation"), conversation="c1")
    assert total(history).tokens.amount == 2 * 170
    assert history.world.sessions[second].tally.tokens.amount == 2 * 70


tokens = st.none() | st.integers(0, 10**9)
usages = st.builds(
    Usage, tokens, tokens, tokens, tokens, tokens, st.none() | st.floats(0, 1e6), st.sampled_from(UsageSource)
)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["d1", "d2"]), usages), max_size=12))
def test_the_days_are_the_sum_of_the_sessions(told: list[tuple[str, str, Usage]]) -> None:
    """Whatever is told in whatever order, the days together are what the sessions have used together."""
    history = History(make_plan(2))
    names = {"a": history.start("1"), "b": history.start("2")}
    for who, day, what in told:
        used(history, names[who], day=day, of=what)
    views = history.world.sessions.values()
    expected = sum((view.tally for view in views), Tally())
    for name in ("input", "output", "cached", "cost"):
        one, other = getattr(total(history), name), getattr(expected, name)
        assert one.unknown == other.unknown
        assert one.amount == pytest.approx(other.amount, rel=1e-9, abs=1e-3)
    assert total(history).sessions == len({who for who, _, _ in told})


async def test_sums_outlive_the_runs_they_are_sums_of(tmp_path: Path) -> None:
    """What forgotten runs have used stays on its days, agents and accounts, however often the journal is pruned."""
    path = tmp_path / "state.db"
    history = History(make_plan(1))
    session = history.start("1")
    used(history, session, of=usage(10, cost=1.5))
    history.end("1")
    history.over(Outcome.SUCCEEDED)
    clock = Clock(lambda: 5.0, lambda: 5.0)
    for number in range(3):
        async with open_journal(path, clock=clock, announce=print) as journal:
            run_id = f"r{number + 1}"
            for record in history.records:
                event = record.event
                named = {"run_id": run_id} if hasattr(event, "run_id") else {}
                if hasattr(event, "session_id"):
                    named["session_id"] = f"{session}-{number}"
                await journal.append(attrs.evolve(event, **named))  # type: ignore[arg-type]
            forgotten = Forgotten((run_id,))
            assert await journal.prune(lambda world, which=forgotten: which) > 0  # type: ignore[misc]
            assert not journal.world.sessions
    world = read_world(path)
    assert not world.runs
    [entry] = world.ledger.entries()
    assert (entry.day, entry.agent) == (DAY, "sh")
    assert (entry.tally.cost.amount, entry.tally.tokens.amount, entry.tally.sessions) == (4.5, 60, 3)


def test_what_is_carried_is_what_goes() -> None:
    """A gap carries the sums of the sessions in it, and of no others."""
    history = History(make_plan(2))
    one, other = history.start("1"), history.start("2")
    used(history, one, of=usage(10))
    assert decide_carried(Forgotten(session_ids=(other,)), history.world) == ()
    [carried] = decide_carried(Forgotten(session_ids=(one,)), history.world)
    assert carried.tally == history.world.sessions[one].tally


# --- accounts ---------------------------------------------------------------------------


def park(history: History, kind: FailureKind, until: float | None) -> None:
    history.add(ev.AccountParked("work", kind, "no", until))


def test_an_account_stays_parked_as_long_as_any_reason_says() -> None:
    """A later reason that ends earlier shortens nothing, and nothing but a person ends what waits for one."""
    history = History(make_plan(1))
    park(history, FailureKind.QUOTA, history.wall + 100)
    park(history, FailureKind.RATE_LIMIT, history.wall + 10)
    parked = history.world.accounts["work"].parked
    assert parked is not None
    assert parked.kind is FailureKind.QUOTA
    assert history.world.accounts["work"].streak == 1
    park(history, FailureKind.AUTH, None)
    park(history, FailureKind.QUOTA, history.wall + 1000)
    parked = history.world.accounts["work"].parked
    assert parked is not None
    assert parked.until_at is None
    history.add(ev.AccountReleased("work", "ann"))
    assert history.world.accounts["work"].parked is None


def test_a_wall_that_is_met_again_is_counted_until_a_success() -> None:
    """An account that is parked, tried and parked again has met with it twice; a success begins anew."""
    history = History(make_plan(1))
    park(history, FailureKind.RATE_LIMIT, history.wall + 10)
    history.now += 20
    park(history, FailureKind.RATE_LIMIT, history.wall + 10)
    assert history.world.accounts["work"].streak == 2
    history.add(
        ev.SessionStarting(
            "s", "s", SessionKind.AGENT, ExecutionMode.HEADLESS, history.boot, history.run_id, "1", account="work"
        )
    )
    history.add(ev.SessionConcluded("s", Outcome.FAILED, Failure(FailureKind.CRASH, "broke")))
    assert history.world.accounts["work"].streak == 2
    history.add(ev.SessionConcluded("s", Outcome.SUCCEEDED))
    assert history.world.accounts["work"].streak == 0
