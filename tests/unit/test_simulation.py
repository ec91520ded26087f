"""Whole supervisors in a simulated world, killed at any commit and at any time, until everything has ended.

Hypothesis chooses the plan, what its programs do, the policies, and how each life of the supervisor ends; what must
hold whatever it chose is in `check`.
"""

from __future__ import annotations

import math
import signal
from contextlib import suppress
from functools import partial

import attrs
import trio
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from kasmos.exceptions import SupervisionError
from kasmos.model import event as ev
from kasmos.model.plan import OnFailure, Plan, RunSettings
from kasmos.model.profile import AgentProfile, RestartPolicy, StopPolicy
from kasmos.model.session import UNKNOWN_EXIT, ExitStatus
from kasmos.model.task import CauseKind, Outcome
from kasmos.model.view import Ended, RunState, SessionState, SessionView, TaskView, World
from kasmos.sessions.script import Fail, Hang, Script
from kasmos.store.fold import fold
from tests.simulation import Life, Town, by_task, profile
from tests.strategies import plans

SLACK = 0.5
"""Seconds that all the commits of all lives take together, and more."""


@attrs.frozen
class Request:
    """Something a person asks for in the middle of a life."""

    after: float
    verb: str
    task: int

    async def make(self, life: Life) -> None:
        """Ask for it; to be refused is an answer."""
        await trio.sleep(self.after)
        runs = list(life.world.runs)
        if not runs:
            return
        run_id = runs[self.task % len(runs)]
        tasks = list(life.world.runs[run_id].tasks)
        task_id = tasks[self.task % len(tasks)]
        with suppress(SupervisionError):
            match self.verb:
                case "stop":
                    await life.orchestrator.stop_task(run_id, task_id)
                case "cancel":
                    await life.orchestrator.cancel_run(run_id)
                case "retry":
                    await life.orchestrator.retry(run_id)


@attrs.frozen
class Fate:
    """How one life of the supervisor ends, and what is left of it."""

    kill_at: int | None = None
    """The number of records after which it is killed."""
    durable: bool = True
    """Whether the last of them are still written."""
    kill_after: float = math.inf
    """Seconds after which it is killed."""
    interrupt_after: float = math.inf
    """Seconds after which it is asked to leave."""
    forgets: int = 0
    """Records that are lost from the journal's end."""
    reboot: bool = False
    """Whether the machine goes down with it."""


FINAL = Fate()
"""Left in peace."""


@attrs.frozen
class Chosen:
    """What Hypothesis chose."""

    plans: tuple[Plan, ...]
    scripts: dict[str, tuple[Script, ...]]
    profile: AgentProfile
    settings: RunSettings
    max_concurrent: int
    fates: tuple[Fate, ...]
    requests: tuple[Request, ...]
    rand: float
    write_times: tuple[float, ...]

    @property
    def gentle(self) -> bool:
        """Whether journal and machine keep what they have."""
        return not any(fate.forgets or fate.reboot for fate in self.fates)


moments = st.sampled_from([0.0, 0.0015, 0.5, 2.0, 5.0, 12.0, 30.0])
scripts = st.builds(
    Script,
    exit=st.sampled_from([0, 0, 0, 1, ExitStatus(signal=9), UNKNOWN_EXIT]),
    duration=st.sampled_from([0.0, 1.0, 4.0, 20.0, math.inf]),
    start=st.sampled_from([None, None, None, None, Fail("no fork", after=1.0), Hang(3.0), Hang()]),
    ignores_terminate_for=st.sampled_from([0.0, 0.0, 2.0, math.inf]),
    ends_on_terminate_with=st.sampled_from([None, 0]),
    unkillable=st.sampled_from([False] * 9 + [True]),
    lost=st.sampled_from([None] * 9 + [2.0]),
)
policies = st.builds(
    RestartPolicy,
    max_restarts=st.integers(1, 4),
    backoff=st.sampled_from([0.0, 1.0, 8.0]),
    backoff_max=st.just(10.0),
)
fates = st.one_of(
    st.builds(Fate, kill_at=st.integers(1, 40), durable=st.booleans()),
    st.builds(Fate, kill_after=moments),
    st.builds(Fate, interrupt_after=moments, kill_after=st.sampled_from([math.inf, 3.0, 40.0])),
    st.builds(Fate, kill_at=st.integers(1, 40), forgets=st.integers(0, 6)),
    st.builds(Fate, kill_after=moments, reboot=st.just(True)),
)
requests = st.builds(Request, after=moments, verb=st.sampled_from(["stop", "cancel", "retry"]), task=st.integers(0, 9))


@st.composite
def worlds(draw: st.DrawFn) -> Chosen:
    """Everything there is to choose."""
    documents = tuple(draw(st.lists(plans(max_waves=3, max_width=3), min_size=1, max_size=2)))
    keys = {each.id for document in documents for each in document.tasks}
    checks = {f"{key}/{index}" for key in keys for index in (0, 1)}
    behaviour = st.lists(scripts, min_size=1, max_size=3).map(tuple)
    return Chosen(
        plans=documents,
        scripts={key: draw(behaviour) for key in sorted(keys | checks)},
        profile=profile(
            stop=StopPolicy(stop_grace=draw(st.sampled_from([0.0, 3.0])), kill_grace=2.0),
            restart=draw(policies),
            retry_lost=draw(st.booleans()),
        ),
        settings=RunSettings(
            max_concurrent=draw(st.integers(1, 4)),
            on_failure=draw(st.sampled_from(OnFailure)),
            auto_advance_waves=draw(st.booleans()),
            task_timeout=draw(st.sampled_from([3.0, 15.0])),
            retries=draw(st.integers(0, 3)),
        ),
        max_concurrent=draw(st.integers(1, 4)),
        fates=tuple(draw(st.lists(fates, max_size=4))),
        requests=tuple(draw(st.lists(requests, max_size=2))),
        rand=draw(st.sampled_from([0.0, 0.5, 0.99])),
        write_times=tuple(draw(st.lists(st.sampled_from([0.0, 0.0005, 0.001, 0.002]), min_size=1, max_size=4))),
    )


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(worlds())
def test_a_supervisor_that_is_killed_at_any_point_is_succeeded_by_one_that_goes_on(world: Chosen) -> None:
    """However often a supervisor is killed, nothing runs twice or side by side with itself, and everything ends."""
    town = trio.run(simulate, world, clock=MockClock(autojump_threshold=0))
    check(world, town)


async def simulate(chosen: Chosen) -> Town:
    """Live one life after another, and a last one that is left in peace."""
    town = Town(
        by_task(chosen.scripts),
        {"a": chosen.profile},
        max_concurrent=chosen.max_concurrent,
        rand=lambda: chosen.rand,
        write_times=chosen.write_times,
    )
    for fate in (*chosen.fates, FINAL):
        await town.live(partial(_live, chosen, fate), kill_at=fate.kill_at, durable=fate.durable)
        if fate.reboot:
            town.reboot()
        started = [index for index, event in enumerate(town.events) if isinstance(event, ev.RunStarted)]
        # Forgotten is what was newest, but never a whole run: nobody could tell any more what it was.
        keep = max(started[-1] + 1 if started else 0, len(town.records) - fate.forgets)
        del town.records[keep:]
    return town


async def _live(chosen: Chosen, fate: Fate, life: Life) -> None:
    """Live one life: hand in the plans again, as a person would, and wait until all is over, or it is."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_kill, life, fate.kill_after)
        nursery.start_soon(_advance, life)
        # Not in the last one: what is asked for when all is over would be for yet another life to do.
        for request in () if fate is FINAL else chosen.requests:
            nursery.start_soon(request.make, life)
        async with trio.open_nursery() as people:
            for index, document in enumerate(chosen.plans):
                if not _has_ended(life.world, f"/{index}"):
                    people.start_soon(partial(life.submit, document, key=f"/{index}", settings=chosen.settings))
        with trio.move_on_after(fate.interrupt_after) as patience:
            await life.orchestrator.wait_idle()
        if patience.cancelled_caught:
            await life.orchestrator.interrupt("asked to")
            assert not len(life.supervisor)
        # Requests that are still to come find a supervisor that has left.
        nursery.cancel_scope.cancel()


def _has_ended(world: World, key: str) -> bool:
    runs = [run for run in world.runs.values() if run.key == key]
    return bool(runs) and not any(run.unfinished for run in runs)


async def _kill(life: Life, after: float) -> None:
    await trio.sleep(after)
    life.crash()


async def _advance(life: Life) -> None:
    """Let every run go on that is parked."""
    while True:
        committed = life.journal.committed
        for run in tuple(life.world.runs.values()):
            if run.state is RunState.PARKED:
                # Somebody may have cancelled it at the same time.
                with suppress(SupervisionError):
                    await life.orchestrator.advance(run.id)
        await committed.wait()


def check(chosen: Chosen, town: Town) -> None:
    """Assert what holds whatever was chosen."""
    world, machine = fold(town.records), town.machine
    event(f"{len(chosen.fates) + 1} lives")
    # 1. Nothing is run twice, and no attempt while an earlier one of its task is still there.
    assert all(count == 1 for count in machine.starts.values())
    retried = any(request.verb == "retry" for request in chosen.requests)
    # But a person may insist, where what was killed does not go.
    for pair in machine.overlaps:
        assert retried, f"{pair} side by side:\n{town.story()}"
        assert machine.programs[pair[0]].script.unkillable
    assert not town.undeclared
    assert not town.bugs
    # 2. Everything ends: what cannot be killed has at least been given up.
    assert all(machine.programs[session_id].script.unkillable for session_id in machine.live)
    assert {run.key for run in world.runs.values()} == {f"/{index}" for index in range(len(chosen.plans))}
    for run in world.runs.values():
        assert run.state is RunState.ENDED, town.story()
        assert run.outcome is not None
        for task in run.tasks.values():
            _check_task(chosen, world, task)
    for view in world.sessions.values():
        _check_session(chosen, town, view)
    # 3. Never more at once than allowed, but for those that had to be given up and ran on.
    if chosen.gentle and not any(program.script.unkillable for program in machine.programs.values()):
        assert machine.peak <= min(chosen.max_concurrent, len(chosen.plans) * chosen.settings.max_concurrent)


def _check_task(chosen: Chosen, world: World, task: TaskView) -> None:
    """One outcome with a cause; success is the program's and of every check; retries are bounded."""
    assert isinstance(task.state, Ended)
    assert task.state.cause.message
    assert task.state.cause.kind is not CauseKind.INTERNAL
    assert len(task.failures) <= chosen.settings.retries
    if task.outcome is Outcome.SUCCEEDED:
        sessions = [world.sessions[session_id] for session_id in task.sessions[task.epoch :]]
        ended = [view for view in sessions if view.attempt == task.attempts and view.state is SessionState.ENDED]
        assert [view.check for view in ended] == [None, *range(len(task.spec.checks))]
        assert all(view.exit == ExitStatus(code=0) for view in ended)


def _check_session(chosen: Chosen, town: Town, view: SessionView) -> None:
    """The journal tells what happened on the machine, and said what was to be done before it was done."""
    program = town.machine.programs.get(view.id)
    assert not view.state.live
    if program is None:
        assert view.state in (SessionState.START_FAILED, SessionState.NEVER_STARTED, SessionState.LOST)
        return
    if view.state is SessionState.ENDED:
        assert view.exit == program.exit
    else:
        assert view.state is SessionState.LOST
        assert program.lost or program.script.unkillable
    if not chosen.gentle:
        return
    assert view.stop_reason is not None or not program.signals
    assert view.killed or signal.SIGKILL not in program.signals
    if not program.script.unkillable and view.started_mono is not None and view.ended_mono is not None:
        # However often its supervisor died: time that has passed has passed.
        most = (chosen.settings.task_timeout or 0.0) + chosen.profile.stop.stop_grace + town.downtime + SLACK
        assert view.ended_mono - view.started_mono <= most
