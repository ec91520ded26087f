"""The live tree for `kas doctor`: supervisor, runs, tasks, sessions, processes; and what has no place in it.

Joins what the journal says with what the process table shows. Looks only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from kasmos.cli.probes import Finding, Level
from kasmos.model.value import frozen

if TYPE_CHECKING:
    from kasmos.model.view import RunView, SessionView, World
    from kasmos.sessions.processes import ProcessEntry


@frozen
class ProcessNode:
    """A process and those it has started."""

    pid: int
    name: str
    children: tuple[ProcessNode, ...] = ()


@frozen
class SessionNode:
    """A live session and the processes that carry its mark."""

    id: str
    name: str
    state: str
    pid: int | None
    processes: tuple[ProcessNode, ...]


@frozen
class TaskNode:
    """A task with live sessions."""

    id: str
    title: str
    sessions: tuple[SessionNode, ...]


@frozen
class RunNode:
    """An unfinished run."""

    id: str
    source: str
    state: str
    tasks: tuple[TaskNode, ...]


@frozen
class LiveTree:
    """All that is alive in one state root."""

    supervisor: int | None
    """Pid of the living supervisor."""
    runs: tuple[RunNode, ...]
    sessions: tuple[SessionNode, ...] = ()
    """Live sessions that belong to no unfinished run."""


def build_tree(world: World, entries: Iterable[ProcessEntry], supervisor: int | None) -> LiveTree:
    """Join the journal with the process table."""
    entries = list(entries)
    live = [session for session in world.sessions.values() if session.state.live]
    nodes = {session.id: _session_node(session, entries) for session in live}
    unfinished = [run for run in world.runs.values() if run.unfinished]
    homes = {run.id for run in unfinished}
    return LiveTree(
        supervisor=supervisor,
        runs=tuple(
            _run_node(run, [one for one in live if one.run_id == run.id], nodes, supervised=supervisor is not None)
            for run in unfinished
        ),
        sessions=tuple(nodes[session.id] for session in live if session.run_id not in homes),
    )


def _run_node(run: RunView, live: Sequence[SessionView], nodes: dict[str, SessionNode], *, supervised: bool) -> RunNode:
    from kasmos.cli.render.facts import present_status

    tasks = []
    for task_id, task in run.tasks.items():
        sessions = tuple(nodes[session.id] for session in live if session.task_id == task_id)
        if sessions:
            tasks.append(TaskNode(task_id, task.spec.title, sessions))
    return RunNode(run.id, run.source, present_status(run, supervised=supervised), tuple(tasks))


def _session_node(session: SessionView, entries: Sequence[ProcessEntry]) -> SessionNode:
    from kasmos.daemon.wire import session_status

    members = [entry for entry in entries if session.id in entry.markers]
    return SessionNode(session.id, session.name, session_status(session), session.pid, _forest(members))


def _forest(members: Sequence[ProcessEntry]) -> tuple[ProcessNode, ...]:
    pids = {entry.id.pid for entry in members}
    below: dict[int, list[ProcessEntry]] = {}
    for entry in members:
        # 0 is nobody's pid: it stands for all parents outside of the session.
        below.setdefault(entry.ppid if entry.ppid in pids else 0, []).append(entry)

    def grow(parent: int) -> tuple[ProcessNode, ...]:
        children = sorted(below.pop(parent, ()), key=lambda entry: entry.id.pid)
        return tuple(ProcessNode(entry.id.pid, entry.comm, grow(entry.id.pid)) for entry in children)

    return grow(0)


def find_leftovers(
    world: World, entries: Iterable[ProcessEntry], supervisor: int | None, stored: Collection[str]
) -> Iterator[Finding]:
    """Find what other lives left behind: processes of ended sessions, and sessions that nobody supervises.

    Args:
        world: the journal.
        entries: the process table.
        supervisor: pid of the living supervisor, None if there is none.
        stored: ids of all sessions with a directory, known to the journal or not.
    """
    known = {*world.sessions, *stored}
    found: dict[str, list[ProcessEntry]] = {}
    for entry in entries:
        for session_id in entry.markers & known:
            found.setdefault(session_id, []).append(entry)
    for session_id, members in sorted(found.items()):
        session = world.sessions.get(session_id)
        if session is None or not session.state.live:
            yield _outlived(session_id, session, members)
        elif supervisor is None:
            yield Finding(
                "sessions",
                Level.PROBLEM,
                f"{session.name} ({session_id}) runs without a supervisor: {_names(members)}",
                "kas resume takes hold of it again",
            )
    if supervisor is None:
        for session in world.sessions.values():
            if session.state.live and session.id not in found:
                yield Finding(
                    "sessions",
                    Level.NOTE,
                    f"{session.name} ({session.id}) was under way when its supervisor left, and is not any more",
                    "kas resume finds out how it ended",
                )


def _outlived(session_id: str, session: SessionView | None, members: Sequence[ProcessEntry]) -> Finding:
    name = session_id if session is None else f"{session.name} ({session_id})"
    pids = " ".join(str(entry.id.pid) for entry in members)
    return Finding(
        "sessions",
        Level.NOTE,
        f"{name} has ended and left behind: {_names(members)}",
        f"look what it is; to end it: kill {pids}",
    )


def _names(members: Sequence[ProcessEntry]) -> str:
    shown = ", ".join(f"{entry.comm} (pid {entry.id.pid})" for entry in members[:5])
    return shown if len(members) <= 5 else f"{shown} and {len(members) - 5} more"


def render_tree(tree: LiveTree) -> str:
    """The tree as indented text; one line when nothing is alive."""
    head = "no supervisor" if tree.supervisor is None else f"supervisor, pid {tree.supervisor}"
    lines = [head]
    lines += _branches([*map(_run_branch, tree.runs), *map(_session_branch, tree.sessions)])
    return "\n".join(lines)


Branch = tuple[str, list["Branch"]]


def _run_branch(run: RunNode) -> Branch:
    tasks = [(f"task {task.id}: {task.title}", [*map(_session_branch, task.sessions)]) for task in run.tasks]
    return f"run {run.id}  {run.source}  {run.state}", tasks


def _session_branch(session: SessionNode) -> Branch:
    below = [_process_branch(process, session.pid) for process in session.processes]
    return f"{session.name}  {session.state}  ({session.id})", below


def _process_branch(process: ProcessNode, program: int | None) -> Branch:
    # Above the program are its doorman and its shim, beside it the copier of its output.
    mark = "  <- the program" if process.pid == program else ""
    below = [_process_branch(child, program) for child in process.children]
    return f"{process.pid} {process.name}{mark}", below


def _branches(branches: Sequence[Branch]) -> list[str]:
    lines = []
    for position, (label, below) in enumerate(branches, 1):
        last = position == len(branches)
        lines.append(f"{'└─' if last else '├─'} {label}")
        lines += [f"{'   ' if last else '│  '}{line}" for line in _branches(below)]
    return lines
