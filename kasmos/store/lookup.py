"""Finding runs, tasks and sessions by what people call them. Pure.

One set of rules for every door, most exact first: an id, a name, `RUN.TASK`, a task of the
newest run, the unique beginning of an id or a name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import TypeVar

from kasmos.exceptions import SupervisionError
from kasmos.model.plan import Origin
from kasmos.model.session import SessionKind
from kasmos.model.task import Outcome
from kasmos.model.view import Ended, RunView, SessionView, TaskView, World

T = TypeVar("T")

_SHOWN = 5
_SINGLE = "task_"
"""What the ids of tasks begin with that were handed in by themselves."""


def match_runs(world: World, name: str) -> tuple[RunView, ...]:
    """Runs that *name* may mean: an id, or all whose ids begin with it, newest first."""
    if name in world.runs:
        return (world.runs[name],)
    begun = (run for run in _newest_first(world.runs.values()) if name and run.id.startswith(name))
    # A task that was handed in by itself is a run as well, but not what the beginning of a run's id means.
    return tuple(run for run in begun if run.origin is Origin.PLAN or name.startswith(_SINGLE))


def match_tasks(world: World, name: str) -> tuple[TaskView, ...]:
    """Tasks that *name* may mean: `RUN.TASK`, a task's id or session name in the newest run that has it.

    Several only where it is the beginning of several runs' ids, or of several names in one run.
    """
    return _called_tasks(world, name) or _begun_tasks(world, name)


def _called_tasks(world: World, name: str) -> tuple[TaskView, ...]:
    single = world.runs.get(name)
    if single is not None and name in single.tasks:
        return (single.tasks[name],)
    for run_name, task_id in _splits(name):
        found = [run.tasks[task_id] for run in match_runs(world, run_name) if task_id in run.tasks]
        if found:
            return tuple(found)
    for run in _newest_first(world.runs.values()):
        if name in run.tasks:
            return (run.tasks[name],)
        # Only the newest run of a plan is meant by a bare number; names are looked for in all.
        if _is_number(name) and run.origin is Origin.PLAN:
            break
        for task in run.tasks.values():
            if task.spec.name == name:
                return (task,)
    return ()


def _begun_tasks(world: World, name: str) -> tuple[TaskView, ...]:
    """Tasks whose names begin so, of the newest run that has any."""
    for run in _newest_first(world.runs.values()):
        found = {task.spec.name: task for task in run.tasks.values()}
        if names := _begun(found, name):
            return tuple(found[one] for one in names)
    if name.startswith(_SINGLE):
        runs = (run for run in _newest_first(world.runs.values()) if run.id.startswith(name))
        return tuple(run.tasks[run.id] for run in runs if run.origin is Origin.TASK)
    return ()


def match_sessions(world: World, name: str) -> tuple[SessionView, ...]:
    """Sessions that *name* may mean; several only where it is the beginning of several ids or names."""
    if name in world.sessions:
        return (world.sessions[name],)
    newest: dict[str, SessionView] = {session.name: session for session in world.sessions.values()}
    if name in newest:
        return (newest[name],)
    if tasks := _called_tasks(world, name):
        return _sessions_of(world, tasks)
    found = tuple(session for session in _newest_first(world.sessions.values()) if name and session.id.startswith(name))
    if found:
        return found
    # Tasks first: the beginning of a task's name is one of its checks' names, too.
    if tasks := _begun_tasks(world, name):
        return _sessions_of(world, tasks)
    return tuple(newest[one] for one in _begun(newest, name))


def _sessions_of(world: World, tasks: Iterable[TaskView]) -> tuple[SessionView, ...]:
    found = (newest_session(world, task) for task in tasks)
    return tuple(session for session in found if session is not None)


def _begun(names: Iterable[str], beginning: str) -> list[str]:
    """Those of *names* that begin so; where it is the whole of a first word, only those: `w1t1` is not `w1t10-x`."""
    if not beginning or _is_number(beginning):
        return []
    found = [name for name in names if name.startswith(beginning)]
    return [name for name in found if name.startswith(f"{beginning}-")] or found


def _is_number(name: str) -> bool:
    return name.replace(".", "").isdigit()


def newest_session(world: World, task: TaskView) -> SessionView | None:
    """The newest session of a task that ran its agent; of any kind if there is none; None before the first."""
    sessions = [world.sessions[item] for item in reversed(task.sessions) if item in world.sessions]
    agents = (session for session in sessions if session.kind is SessionKind.AGENT)
    return next(agents, sessions[0] if sessions else None)


def find_run(world: World, name: str) -> RunView:
    """The run that *name* means.

    Raises:
        SupervisionError: none, or several; the message lists what is near.
    """
    found = match_runs(world, name)
    return _the_one("run", name, found, [run.id for run in found], list(world.runs))


def find_task(world: World, name: str) -> TaskView:
    """The task that *name* means.

    Raises:
        SupervisionError: none, or several; the message lists what is near.
    """
    found = match_tasks(world, name)
    names = [word for run in world.runs.values() for task in run.tasks.values() for word in _words(task)]
    return _the_one("task", name, found, [task.id for task in found], names)


def find_session(world: World, name: str) -> SessionView:
    """The session that *name* means.

    Raises:
        SupervisionError: none, or several; the message lists what is near.
    """
    found = match_sessions(world, name)
    if not found and (tasks := match_tasks(world, name)):
        raise SupervisionError(_without_session(name, tasks[0]))
    names = [word for session in world.sessions.values() for word in (session.name, session.id)]
    return _the_one("session", name, found, [session.id for session in found], names)


def unknown(world: World, name: str) -> SupervisionError:
    """The error that nothing at all has this name, with what is near."""
    tasks = [word for run in world.runs.values() for task in run.tasks.values() for word in _words(task)]
    sessions = [word for session in world.sessions.values() for word in (session.name, session.id)]
    return _none("task, session or run", name, [*tasks, *sessions, *world.runs])


def _without_session(name: str, task: TaskView) -> str:
    match task.state:
        case Ended(outcome=Outcome.SKIPPED, cause=cause):
            return f"task {name!r} was skipped, so it has no output: {cause.message}"
        case Ended(outcome=outcome, cause=cause):
            said = outcome.value.replace("_", " ")
            return f"task {name!r} ended without a session, so it has no output: {said}: {cause.message}"
        case _:
            return f"task {name!r} has had no session yet"


def _the_one(what: str, name: str, found: tuple[T, ...], ids: list[str], names: list[str]) -> T:
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(ids[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")
        raise SupervisionError(f"{name!r} may mean {len(found)} {what}s: {shown}")
    raise _none(what, name, names)


_LISTED = {"session": "`kas ps --all` lists them", "run": "`kas runs --all` lists them"}


def _none(what: str, name: str, names: Iterable[str]) -> SupervisionError:
    known = list(dict.fromkeys(names))
    near = difflib.get_close_matches(name, known, n=3)
    if near:
        return SupervisionError(f"no {what} {name!r}; did you mean {' or '.join(near)}?")
    listed = _LISTED.get(what, "`kas status` and `kas ps --all` list what there is")
    return SupervisionError(f"no {what} {name!r}; {listed if known else f'there is no {what} yet'}")


def _words(task: TaskView) -> tuple[str, ...]:
    return (task.id, task.spec.name)


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Every way to read *name* as `RUN.TASK`: task ids may have dots of their own."""
    at = name.find(".")
    while at != -1:
        yield name[:at], name[at + 1 :]
        at = name.find(".", at + 1)


def _newest_first(views: Iterable[T]) -> Iterator[T]:
    # The journal's order: a world's dictionaries are filled in the order in which things began.
    return reversed(list(views))
