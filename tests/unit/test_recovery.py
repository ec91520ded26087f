"""What a new supervisor does about what an earlier one left: in the journal, on disk, and alive."""

from __future__ import annotations

import math
import signal

import attrs
import pytest
import trio
from trio.testing import MockClock

from kasmos.daemon.recovery import end_stray, find_untold, take_stock
from kasmos.model import event as ev
from kasmos.model.event import Event, Record
from kasmos.model.plan import Check, RunSettings
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import UNKNOWN_EXIT, ExitStatus, SessionKind, SessionSpec, StopReason
from kasmos.model.task import Outcome
from kasmos.model.view import SessionState, World
from kasmos.sessions.script import Script
from kasmos.sessions.scripted import ScriptedBackend, ScriptedMachine
from kasmos.store.fold import fold
from kasmos.supervision.termination import terminate
from tests.simulation import Life, Town, plan, task, town
from tests.strategies import Ledger, started

FOREVER = Script(duration=math.inf)
RUN = started(plan(task(1, checks=(Check("true"),)), task(2)), RunSettings())


class Desk(Ledger):
    """A journal that can be waited for."""

    async def append(self, *events: Event) -> tuple[Record, ...]:
        await trio.lowlevel.checkpoint()
        before = len(self.records)
        self.commit(*events)
        return tuple(self.records[before:])

    def append_nowait(self, *events: Event) -> None:
        self.commit(*events)


@attrs.define
class Shelf:
    """Session directories by name."""

    specs: dict[str, SessionSpec | None]
    silent: tuple[str, ...] = ()

    def stored_specs(self) -> dict[str, SessionSpec | None]:
        return dict(self.specs)

    def unreadable(self) -> tuple[str, ...]:
        return self.silent

    def forget(self, session_ids: tuple[str, ...]) -> None:
        for name in session_ids:
            del self.specs[name]


def spec(session_id: str, task_id: str | None = "1", *, run_id: str = "r1", **changes: object) -> SessionSpec:
    made = SessionSpec(
        id=session_id, name=session_id, argv=("a",), cwd="/", backend=ExecutionMode.SCRIPTED,
        run_id=run_id, task_id=task_id, boot_id="boot",
    )  # fmt: skip
    return attrs.evolve(made, **changes)  # type: ignore[arg-type]  # checked by attrs' __init__


def starting(session_id: str, task_id: str | None = "1", attempt: int = 1) -> ev.SessionStarting:
    return ev.SessionStarting(
        session_id=session_id, name=session_id, kind=SessionKind.AGENT, backend=ExecutionMode.SCRIPTED,
        boot_id="boot", run_id="r1", task_id=task_id, attempt=attempt,
    )  # fmt: skip


# --- taking stock -----------------------------------------------------------------


async def test_nothing_to_take_up() -> None:
    """In a fresh state root nothing is found and nothing is recorded."""
    desk = Desk()
    found = await take_stock(desk, Shelf({}), "boot")
    assert (found.to_continue, found.strays, found.relearnt, desk.events) == ((), (), 0, [])


@pytest.mark.parametrize(
    ("history", "continued"),
    [
        ((), True),
        ((ev.RunParked("r1", 1),), True),
        ((ev.RunInterrupted("r1", "received SIGINT"),), False),
        ((ev.RunEnded("r1", Outcome.FAILED),), False),
    ],
)
async def test_which_runs_go_on(history: tuple[Event, ...], continued: bool) -> None:
    """Runs go on whose supervisor died under them; what was interrupted in order, or has ended, does not."""
    found = await take_stock(Desk(RUN, *history), Shelf({}), "boot")
    assert found.to_continue == (("r1",) if continued else ())


async def test_sessions_the_journal_forgot_are_learnt_again() -> None:
    """A session that is stored and that the journal does not know belongs to its task again, the newest one last."""
    desk = Desk(RUN, starting("a1"))
    shelf = Shelf(
        {
            "b-a10": spec("b-a10", attempt=10),
            "b-a9": spec("b-a9", attempt=9),
            "c-check": spec("c-check", attempt=10, kind=SessionKind.CHECK, check=0),
            "a1": spec("a1"),
        }
    )
    found = await take_stock(desk, shelf, "boot")
    task_view = desk.world.runs["r1"].tasks["1"]
    assert found.relearnt == 3
    assert task_view.sessions == ("a1", "b-a9", "b-a10", "c-check")
    assert (task_view.attempts, desk.world.sessions["c-check"].check) == (10, 0)
    # Only the newest is waited for; who knows of the others is to see them ended.
    assert found.strays == ("a1", "b-a9", "b-a10")


async def test_a_session_of_a_run_the_journal_forgot() -> None:
    """A stored session whose run is unknown belongs to nobody: it is a stray."""
    desk = Desk(RUN)
    found = await take_stock(desk, Shelf({"x": spec("x", run_id="gone"), "y": spec("y", "77")}), "boot")
    assert set(found.strays) == {"x", "y"}
    assert {(view.run_id, view.task_id) for view in desk.world.sessions.values()} == {(None, None)}


async def test_the_boot_of_a_forgotten_session() -> None:
    """A forgotten session is of the boot it says; where it says none, of this one."""
    desk = Desk(RUN)
    await take_stock(desk, Shelf({"x": spec("x", boot_id="older"), "y": spec("y", boot_id="")}), "now")
    assert [desk.world.sessions[name].boot_id for name in "xy"] == ["older", "now"]


async def test_what_cannot_be_read_is_kept_and_named() -> None:
    """A directory that does not say what runs in it is never removed; those the journal does not know are named."""
    shelf = Shelf({}, silent=("stranger", "known"))
    found = await take_stock(Desk(RUN, starting("known")), shelf, "boot")
    assert found.unreadable == ("stranger",)


async def test_fragments_are_removed() -> None:
    """A directory that was not written whole never had a program, and is removed; unless the journal knows it."""
    shelf = Shelf({"half": None, "known": None})
    found = await take_stock(Desk(RUN, starting("known")), shelf, "boot")
    assert (list(shelf.specs), found.relearnt) == (["known"], 0)


@pytest.mark.parametrize(
    ("history", "stray"),
    [
        ((), False),
        ((ev.TaskPutBack("r1", "1", "interrupted"),), True),
        ((ev.RunEnded("r1", Outcome.CANCELLED),), True),
        ((starting("newer", attempt=2),), True),
        ((ev.SessionEnded("old", ExitStatus(code=0)), ev.RunEnded("r1", Outcome.SUCCEEDED)), False),
    ],
)
async def test_which_sessions_are_strays(history: tuple[Event, ...], stray: bool) -> None:
    """A session that may still run is a stray when its task waits for another one, or for none any more."""
    found = await take_stock(Desk(RUN, starting("old"), *history), Shelf({}), "boot")
    assert ("old" in found.strays) is stray


# --- strays -----------------------------------------------------------------------


@pytest.fixture
def machine() -> ScriptedMachine:
    return ScriptedMachine(boot_id="boot")


async def left_running(machine: ScriptedMachine, script: Script) -> None:
    """A program that its supervisor left behind."""

    async def notify(event: Event) -> None:
        raise AssertionError(event)

    backend = ScriptedBackend({"*": script}, terminate=terminate, machine=machine)
    async with backend.open(spec("old"), notify=notify) as session:
        session.detach()


async def ended_stray(machine: ScriptedMachine) -> Desk:
    desk = Desk(RUN, starting("old"))
    backend = ScriptedBackend({}, terminate=terminate, machine=machine)
    await end_stray(desk, backend, desk.world.sessions["old"])
    return desk


async def test_a_stray_is_stopped(machine: ScriptedMachine, autojump_clock: MockClock) -> None:
    """A stray that runs is stopped by the ladder, and how it ended is recorded."""
    await left_running(machine, attrs.evolve(FOREVER, ignores_terminate_for=math.inf, output=((0.0, b"x"),)))
    desk = await ended_stray(machine)
    assert desk.events[2:] == [
        ev.StopRequested("old", StopReason.CANCELLED),
        ev.KillSent("old"),
        ev.SessionEnded("old", ExitStatus(signal=signal.SIGKILL), output_bytes=1),
    ]


@pytest.mark.parametrize("status", [ExitStatus(code=0), ExitStatus(code=3), UNKNOWN_EXIT])
async def test_a_stray_that_has_ended(status: ExitStatus, machine: ScriptedMachine, autojump_clock: MockClock) -> None:
    """A stray that ended by itself is recorded as it ended, and signalled by nobody."""
    await left_running(machine, Script(exit=status))
    await trio.sleep(1.0)
    desk = await ended_stray(machine)
    assert desk.events[2:] == [ev.SessionEnded("old", status)]


async def test_a_stray_that_never_ran(machine: ScriptedMachine, autojump_clock: MockClock) -> None:
    """A stray that never ran never will: that is made certain, and recorded."""
    desk = await ended_stray(machine)
    assert desk.events[2:] == [ev.SessionNeverStarted("old")]
    assert not machine.claim("old")


@pytest.mark.parametrize(
    "script", [attrs.evolve(FOREVER, lost=0.0), attrs.evolve(FOREVER, unkillable=True, ignores_terminate_for=math.inf)]
)
async def test_a_stray_that_is_lost(script: Script, machine: ScriptedMachine, autojump_clock: MockClock) -> None:
    """A stray whose end cannot be learnt, or brought about, is recorded as lost within a bound."""
    await left_running(machine, script)
    await trio.sleep(1.0)
    start = trio.current_time()
    desk = await ended_stray(machine)
    assert desk.world.sessions["old"].state is SessionState.LOST
    assert trio.current_time() - start <= 10.0 + 2 * 5.0


# --- all together -----------------------------------------------------------------


async def crash_in(here: Town, seconds: float) -> None:
    async def body(life: Life) -> None:
        await life.submit(plan(task(1), task(2)))
        await trio.sleep(seconds)
        life.crash()
        await trio.sleep_forever()

    await here.live(body)


async def test_a_journal_without_its_end_runs_nothing_twice(autojump_clock: MockClock) -> None:
    """However much of the journal's end is missing, programs that run are found again by what is stored of them."""
    here = town({"1": Script(duration=30.0), "2": Script(duration=30.0)})
    await crash_in(here, 10.0)
    while not isinstance(here.events[-1], ev.RunStarted):
        here.records.pop()
    async with here.life() as life:
        assert life.findings.relearnt == 2
        await life.orchestrator.wait_idle()
        assert [each.outcome for each in life.run().tasks.values()] == [Outcome.SUCCEEDED] * 2
    assert list(here.machine.starts.values()) == [1, 1]


async def test_a_lost_journal_leaves_strays_that_are_stopped(autojump_clock: MockClock) -> None:
    """Without any journal nobody can tell what a program was for: it is stopped, not left to itself."""
    here = town({"1": FOREVER, "2": FOREVER})
    await crash_in(here, 10.0)
    here.records.clear()
    async with here.life() as life:
        assert len(life.findings.strays) == 2
        await life.until(lambda world: not any(view.state.live for view in world.sessions.values()))
    assert not here.machine.live


async def test_another_boot(autojump_clock: MockClock) -> None:
    """After a reboot what ran is lost, and what has ended keeps its end."""
    here = town({"1": FOREVER, "2": Script(duration=5.0)})
    await crash_in(here, 10.0)
    here.reboot()
    async with here.life() as life:
        await life.orchestrator.wait_idle()
        assert [each.outcome for each in life.run().tasks.values()] == [Outcome.LOST, Outcome.SUCCEEDED]


# --- what nobody was told ---------------------------------------------------------


def untold(*events: Event) -> str | None:
    """What `find_untold` says of this journal."""
    records = [Record(index, 0.0, 0.0, event) for index, event in enumerate(events, 1)]
    return find_untold(fold(records, World()), lambda seq: records[seq:])


UP, DOWN = ev.SupervisorStarted(1, "boot", "0"), ev.SupervisorStopped("left in order")
OVER = ev.RunEnded("r1", Outcome.SUCCEEDED)
SECOND = attrs.evolve(RUN, run_id="r2", key="/other.md")


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((), None),
        ((UP,), None),
        ((UP, RUN), None),
        ((UP, RUN, OVER), "r1"),
        ((UP, RUN, OVER, DOWN), None),
        ((UP, RUN, OVER, UP), "r1"),
        ((UP, RUN, OVER, UP, UP, UP), "r1"),
        ((UP, RUN, OVER, UP, DOWN), None),
        ((UP, RUN, OVER, DOWN, UP), None),
        ((UP, RUN, OVER, SECOND), None),
        ((UP, RUN, SECOND, OVER), "r1"),
        ((UP, RUN, OVER, SECOND, attrs.evolve(OVER, run_id="r2")), "r2"),
    ],
)
def test_which_run_nobody_was_told_of(events: tuple[Event, ...], expected: str | None) -> None:
    """A run is untold when it ended last of all, and neither its supervisor nor a later one left in order."""
    assert untold(*events) == expected
