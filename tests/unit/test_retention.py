"""What `kas gc` may remove: a pure decision."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kasmos.model.plan import Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import SessionKind
from kasmos.model.task import Outcome
from kasmos.model.view import RunState, RunView, SessionState, SessionView, World
from kasmos.store.retention import StoredSession, decide_removals

DAY = 86_400.0
NOW = 100 * DAY


def stored(session_id: str, *, size: int = 1000, days_ago: float = 0.0, recorded: bool = True) -> StoredSession:
    return StoredSession(id=session_id, bytes=size, changed_at=NOW - days_ago * DAY, recorded=recorded)


def session(
    session_id: str, state: SessionState = SessionState.ENDED, *, days_ago: float = 0.0, run_id: str | None = None
) -> SessionView:
    ended = None if state.live else NOW - days_ago * DAY
    return SessionView(
        id=session_id,
        name=session_id,
        kind=SessionKind.AGENT,
        backend=ExecutionMode.HEADLESS,
        boot_id="boot",
        run_id=run_id,
        task_id=None,
        attempt=1,
        check=None,
        profile="shell",
        state=state,
        starting_at=0.0,
        starting_mono=0.0,
        ended_at=ended,
    )


def run(run_id: str, state: RunState) -> RunView:
    plan = Plan(waves=(Wave(1, (PlanTask(id="1", number=1, wave=1, title="t", body=""),)),))
    return RunView(
        id=run_id,
        plan=plan,
        source="plan.md",
        key="plan.md",
        digest="",
        settings=RunSettings(),
        project="/project",
        started_at=0.0,
        started_mono=0.0,
        tasks={},
        state=state,
        outcome=Outcome.SUCCEEDED if state is RunState.ENDED else None,
    )


def world(*sessions: SessionView, runs: tuple[RunView, ...] = ()) -> World:
    return World(runs={run.id: run for run in runs}, sessions={view.id: view for view in sessions})


def chosen(
    directories: list[StoredSession],
    world: World,
    *,
    older_than: float = 7 * DAY,
    max_bytes: int | None = None,
    now: float = NOW,
) -> list[str]:
    return [
        removal.id
        for removal in decide_removals(directories, world, now=now, older_than=older_than, max_bytes=max_bytes)
    ]


def test_removals_by_age() -> None:
    """A session goes when it ended long enough ago, the oldest first; a younger one stays."""
    views = [session("young", days_ago=6.9), session("old", days_ago=7), session("older", days_ago=30)]
    directories = [stored(view.id) for view in views]
    assert chosen(directories, world(*views)) == ["older", "old"]


def test_removals_by_size() -> None:
    """Over the limit, the oldest ended sessions go until the rest fits."""
    views = [session("a", days_ago=1), session("b", days_ago=3), session("c", days_ago=2)]
    directories = [stored(view.id, size=100) for view in views]
    assert chosen(directories, world(*views), max_bytes=200) == ["b"]
    assert chosen(directories, world(*views), max_bytes=199) == ["b", "c"]
    assert chosen(directories, world(*views), max_bytes=300) == []


def test_removals_count_what_has_to_stay() -> None:
    """A live session's size counts towards the limit, and the session stays all the same."""
    views = [session("live", SessionState.RUNNING), session("ended", days_ago=1)]
    directories = [stored("live", size=1000), stored("ended", size=10)]
    assert chosen(directories, world(*views), max_bytes=500) == ["ended"]


def test_removals_spare_every_live_state() -> None:
    """A session that may still run is never removed, however old and whatever its directory says."""
    views = [session(state.value, state, days_ago=99) for state in SessionState]
    directories = [stored(view.id, days_ago=99) for view in views]
    gone = set(chosen(directories, world(*views), older_than=0, max_bytes=0))
    assert gone == {"ended", "start_failed", "never_started", "lost"}


def test_removals_spare_unfinished_runs() -> None:
    """Ended sessions of a run that is not over stay, for the run may ask about them."""
    runs = tuple(run(state.value, state) for state in RunState)
    views = [session(f"of-{view.id}", days_ago=99, run_id=view.id) for view in runs]
    directories = [stored(view.id) for view in views]
    assert chosen(directories, world(*views, runs=runs)) == ["of-ended"]


def test_removals_of_unknown_directories() -> None:
    """A directory that the journal does not know goes only if its own side recorded the end."""
    directories = [stored("recorded", days_ago=8), stored("silent", days_ago=8, recorded=False)]
    assert chosen(directories, world()) == ["recorded"]


def test_removals_with_a_clock_set_back() -> None:
    """A clock that was set back keeps sessions longer."""
    view = session("a", days_ago=0)
    assert chosen([stored("a")], world(view), older_than=0, now=NOW - DAY) == []
    assert chosen([stored("a")], world(view), older_than=0) == ["a"]


@given(
    sizes=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20), st.sampled_from(SessionState)), max_size=12),
    limit=st.integers(0, 300),
)
def test_removals_never_too_few_or_too_many(sizes: list[tuple[int, int, SessionState]], limit: int) -> None:
    """After a removal by size the rest fits or nothing more may go; without the last removal it would not fit."""
    views = [session(f"s{n}", state, days_ago=age) for n, (_, age, state) in enumerate(sizes)]
    directories = [stored(f"s{n}", size=size) for n, (size, _, _) in enumerate(sizes)]
    removals = decide_removals(directories, world(*views), now=NOW, older_than=99 * DAY, max_bytes=limit)

    left = sum(size for size, _, _ in sizes) - sum(removal.bytes for removal in removals)
    ended = {view.id for view in views if not view.state.live}
    assert left <= limit or len(removals) == len(ended)
    assert {removal.id for removal in removals} <= ended
    if removals:
        assert left + removals[-1].bytes > limit
    assert all(removal.reason == "size" for removal in removals)
