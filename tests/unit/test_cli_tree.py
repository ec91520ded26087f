"""The live tree of `kas doctor`, from a journal and a process table made up here."""

from __future__ import annotations

from kasmos.cli.probes import Level
from kasmos.cli.tree import build_tree, find_leftovers, render_tree
from kasmos.model.event import (
    Event,
    Record,
    RunEnded,
    RunStarted,
    SessionEnded,
    SessionStarted,
    SessionStarting,
)
from kasmos.model.plan import Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import ExitStatus, SessionKind
from kasmos.model.task import Outcome
from kasmos.model.view import World
from kasmos.sessions.processes import ProcessEntry, ProcessId
from kasmos.store.fold import fold

PLAN = Plan(
    waves=(
        Wave(
            1,
            (
                PlanTask(id="1", number=1, wave=1, title="Lint", body=""),
                PlanTask(id="2", number=2, wave=1, title="Types", body=""),
            ),
        ),
    )
)


def world(*events: Event) -> World:
    return fold(Record(seq=seq, at=float(seq), mono=float(seq), event=event) for seq, event in enumerate(events, 1))


def run(run_id: str) -> RunStarted:
    return RunStarted(run_id, PLAN, "plan.md", "plan.md", "digest", RunSettings(), "/project")


def starting(session_id: str, *, run_id: str | None = None, task_id: str | None = None) -> SessionStarting:
    return SessionStarting(
        session_id,
        f"n-{session_id}",
        SessionKind.AGENT,
        ExecutionMode.HEADLESS,
        "boot",
        run_id=run_id,
        task_id=task_id,
    )


def process(pid: int, comm: str, *, ppid: int = 1, session: str = "s1") -> ProcessEntry:
    return ProcessEntry(
        id=ProcessId(pid, 0), ppid=ppid, sid=pid, comm=comm, tty=0, state="S", markers=frozenset({session})
    )


def test_tree_of_a_run() -> None:
    """Processes hang below their parents, sessions below their tasks, tasks below their runs."""
    now = world(run("r1"), starting("s1", run_id="r1", task_id="2"), SessionStarted("s1", pid=12))
    entries = [
        process(13, "mypy", ppid=12),
        process(12, "sh"),
        process(20, "node", ppid=1),
        process(9, "x", session="-"),
    ]
    assert render_tree(build_tree(now, entries, 4242)).splitlines() == [
        "supervisor, pid 4242",
        "└─ run r1  plan.md  running",
        "   └─ task 2: Types",
        "      └─ n-s1  running  (s1)",
        "         ├─ 12 sh  <- the program",
        "         │  └─ 13 mypy",
        "         └─ 20 node",
    ]


def test_tree_without_a_supervisor() -> None:
    """A run that nobody works at is interrupted, whatever was written down last."""
    tree = build_tree(world(run("r1")), [], None)
    assert render_tree(tree).splitlines() == ["no supervisor", "└─ run r1  plan.md  interrupted"]


def test_tree_of_what_is_over() -> None:
    """Ended runs and sessions have no place in the tree; a live session without a run has one."""
    now = world(
        run("r1"),
        starting("s1", run_id="r1", task_id="1"),
        SessionEnded("s1", ExitStatus(code=0)),
        RunEnded("r1", Outcome.SUCCEEDED),
        starting("s2"),
    )
    assert render_tree(build_tree(now, [], None)).splitlines() == ["no supervisor", "└─ n-s2  starting  (s2)"]


def test_tree_with_a_forged_circle() -> None:
    """Two processes that name each other as parents do not keep the tree from ending."""
    now = world(starting("s1"))
    entries = [process(2, "a", ppid=3), process(3, "b", ppid=2), process(4, "c")]
    assert "4 c" in render_tree(build_tree(now, entries, 1))


def test_leftovers_of_an_ended_session() -> None:
    """A process that outlived its session is a note, and the cure names its pid."""
    now = world(starting("s1"), SessionEnded("s1", ExitStatus(code=0)))
    (finding,) = find_leftovers(now, [process(77, "ssh-agent")], 4242, ())
    assert finding.level is Level.NOTE
    assert "ssh-agent (pid 77)" in finding.text
    assert finding.cure.endswith("kill 77")


def test_leftovers_without_a_supervisor() -> None:
    """A live session that nobody supervises is a problem; with a supervisor it is none."""
    now = world(starting("s1"), SessionStarted("s1", pid=5))
    (finding,) = find_leftovers(now, [process(5, "sh")], None, ())
    assert finding.level is Level.PROBLEM
    assert "kas resume" in finding.cure
    assert list(find_leftovers(now, [process(5, "sh")], 4242, ())) == []


def test_leftovers_that_ended_unseen() -> None:
    """A session that was live and has no process left is a note when nobody supervises it."""
    now = world(starting("s1"), SessionStarted("s1", pid=5))
    (finding,) = find_leftovers(now, [], None, ())
    assert finding.level is Level.NOTE
    assert list(find_leftovers(now, [], 4242, ())) == []


def test_leftovers_of_a_lost_journal() -> None:
    """A process of a directory that the journal does not know is found; one of another state root is not."""
    (finding,) = find_leftovers(World(), [process(5, "sh", session="s9")], None, ["s9"])
    assert "s9 has ended and left behind: sh (pid 5)" in finding.text
    assert list(find_leftovers(World(), [process(5, "sh", session="elsewhere")], None, ["s9"])) == []
