"""Runs, tasks and sessions are found by what people call them, most exact first."""

from __future__ import annotations

import attrs
import pytest

from kasmos.cli.errand import find_unfinished
from kasmos.exceptions import RequestError, SupervisionError
from kasmos.model import event as ev
from kasmos.model.event import Event, Record
from kasmos.model.plan import Origin, Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import SessionKind
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.view import World
from kasmos.store.fold import fold
from kasmos.store.lookup import find_run, find_session, find_task, match_sessions, match_tasks, newest_session, unknown


def run(run_id: str, *tasks: str) -> Event:
    """A run whose tasks have these ids."""
    specs = tuple(
        PlanTask(id=task, number=number, wave=1, title=f"Do {task}", body="") for number, task in enumerate(tasks, 1)
    )
    return ev.RunStarted(
        run_id=run_id,
        plan=Plan(waves=(Wave(1, specs),)),
        source="-",
        key=run_id,
        digest="",
        settings=RunSettings(),
        project="/",
    )


def session(session_id: str, run_id: str, task_id: str, name: str = "", kind: SessionKind = SessionKind.AGENT) -> Event:
    """A session of a task."""
    return ev.SessionStarting(
        session_id=session_id,
        name=name or session_id,
        kind=kind,
        backend=ExecutionMode.HEADLESS,
        boot_id="b",
        run_id=run_id,
        task_id=task_id,
    )


@pytest.fixture
def world() -> World:
    """Two runs: an old one with a session each, and a new one whose second task was tried twice."""
    events = [
        run("rab", "1", "2"),
        session("s1aa", "rab", "1", "w1t1-do-1"),
        run("rac", "1", "2", "2.1"),
        session("s2aa", "rac", "2", "w1t2-do-2"),
        session("s2ab", "rac", "2", "w1t2-do-2"),
        session("c2ab", "rac", "2", "w1t2-do-2.check1", SessionKind.CHECK),
    ]
    return fold(Record(seq, float(seq), float(seq), event) for seq, event in enumerate(events, 1))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s1aa", "s1aa"),
        ("w1t1-do-1", "s1aa"),
        ("w1t2-do-2", "s2ab"),
        ("2", "s2ab"),
        ("rac.2", "s2ab"),
        ("rab.1", "s1aa"),
        ("s1", "s1aa"),
        ("c", "c2ab"),
        ("w1t2", "s2ab"),
        ("w1t2-d", "s2ab"),
        ("w1t2-do-2.c", "c2ab"),
    ],
)
def test_sessions_by_every_name(world: World, name: str, expected: str) -> None:
    """A session has an id, a name that means the newest, a task that means its newest, and an id's beginning."""
    assert find_session(world, name).id == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rab.1", "rab.1"),
        ("1", "rac.1"),
        ("rac.2.1", "rac.2.1"),
        ("2.1", "rac.2.1"),
        ("w1t2-do-2", "rac.2"),
        ("w1t2", "rac.2"),
    ],
)
def test_tasks_by_every_name(world: World, name: str, expected: str) -> None:
    """A task has a full id, and a number or a name that means the newest run's; ids may have dots."""
    assert find_task(world, name).id == expected


def test_a_bare_number_means_the_newest_run() -> None:
    """A number that the newest run does not have is not looked for in older ones."""
    events = [run("old", "1", "2"), run("new", "1")]
    world = fold(Record(seq, 0.0, 0.0, event) for seq, event in enumerate(events, 1))
    assert match_tasks(world, "2") == ()


def test_runs_by_id_and_beginning(world: World) -> None:
    """A run is found by its id, and by a beginning that only it has."""
    assert find_run(world, "rab").id == "rab"
    assert find_run(world, "rac").id == "rac"
    with pytest.raises(SupervisionError, match="may mean 2 runs: rac, rab"):
        find_run(world, "ra")


def test_what_is_near_is_offered(world: World) -> None:
    """An unknown name is answered with the names that are like it."""
    with pytest.raises(SupervisionError, match="did you mean w1t2-do-2"):
        find_session(world, "w1t2-do-3")
    with pytest.raises(SupervisionError, match="did you mean rac"):
        find_run(world, "rax")
    with pytest.raises(SupervisionError, match="no task '9'"):
        find_task(world, "9")


def test_a_task_without_a_session_is_not_unknown(world: World) -> None:
    """A task that has had no session yet is told from one that does not exist."""
    with pytest.raises(SupervisionError, match="has had no session yet"):
        find_session(world, "rac.1")


def test_nothing_is_found_in_nothing() -> None:
    """In an empty world the message says that there is nothing yet, and an empty name means nothing."""
    with pytest.raises(SupervisionError, match="there is no run yet"):
        find_run(World(), "x")
    assert match_sessions(World(), "") == ()


def test_an_empty_name_means_nothing(world: World) -> None:
    """An empty name is not the beginning of everything."""
    for find in (find_run, find_task, find_session):
        with pytest.raises(SupervisionError):
            find(world, "")


def test_the_agents_session_stands_for_its_task(world: World) -> None:
    """A check's session is newer, and still the agent's session is what a task's output means."""
    newest = newest_session(world, find_task(world, "rac.2"))
    assert newest is not None
    assert newest.id == "s2ab"


def test_a_first_word_means_what_it_is_the_whole_of() -> None:
    """`w1t1` means the task whose name's first word it is, and not also `w1t10-do-10`."""
    world = fold([Record(1, 0.0, 0.0, run("r", *map(str, range(1, 13))))])
    assert find_task(world, "w1t1").id == "r.1"
    with pytest.raises(SupervisionError, match="may mean 12 tasks"):
        find_task(world, "w1t")


def test_a_number_begins_no_name(world: World) -> None:
    """A bare number means a task or nothing, whatever names begin with it."""
    events = [run("r", "1"), session("s", "r", "1", "9-lives")]
    world = fold(Record(seq, 0.0, 0.0, event) for seq, event in enumerate(events, 1))
    assert match_sessions(world, "9") == ()
    assert find_session(world, "9-").id == "s"


def test_a_task_without_a_session_says_why() -> None:
    """Of a task that was skipped or stopped before it began, what is told is that, and the cause."""
    cause = Cause(CauseKind.NEED_FAILED, "task 1 failed")
    for outcome, said in ((Outcome.SKIPPED, "was skipped"), (Outcome.CANCELLED, "ended without a session")):
        events = [run("r", "1", "2"), ev.TaskEnded("r", "2", outcome, cause)]
        world = fold(Record(seq, 0.0, 0.0, event) for seq, event in enumerate(events, 1))
        with pytest.raises(SupervisionError, match=f"{said}.*: task 1 failed"):
            find_session(world, "2")


def test_what_is_unknown_altogether(world: World) -> None:
    """What is nothing's name is answered with what is near among tasks, sessions and runs."""
    assert str(unknown(world, "w1t2-do-3")).startswith("no task, session or run 'w1t2-do-3'; did you mean w1t2-do-2")
    assert "there is no task, session or run yet" in str(unknown(World(), "x"))


def test_unfinished_tasks_stand_in_for_a_plan() -> None:
    """Where no plan is unfinished, `kas resume` takes up the tasks that were handed in by themselves."""
    plan, single = run("plan1", "1"), run("task_abc", "1")
    assert isinstance(single, ev.RunStarted)
    events = [plan, attrs.evolve(single, origin=Origin.TASK)]
    world = fold(Record(number, 0.0, 0.0, event) for number, event in enumerate(events, 1))
    assert find_unfinished(world, "").id == "plan1"
    world = fold([Record(3, 0.0, 0.0, ev.RunEnded("plan1", Outcome.FAILED))], world)
    assert find_unfinished(world, "").id == "task_abc"
    with pytest.raises(RequestError):
        find_unfinished(world, "nothing")
