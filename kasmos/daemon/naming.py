"""What clients mean by a name: the run, task or session, or why it is none or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from kasmos.exceptions import RequestError
from kasmos.model.view import RunView, SessionView, TaskView, World
from kasmos.store.lookup import match_runs, match_sessions, match_tasks

T = TypeVar("T")


def run_called(world: World, name: str) -> RunView:
    """The run with this id, or whose id alone begins so.

    Raises:
        RequestError: 404 `unknown_run`, 409 `ambiguous`.
    """
    return _only("run", name, match_runs(world, name))


def task_called(world: World, name: str) -> TaskView:
    """The task called so: its id, or a number or name in the newest run of a plan.

    Raises:
        RequestError: 404 `unknown_task`, 409 `ambiguous`.
    """
    return _only("task", name, match_tasks(world, name))


def session_called(world: World, name: str) -> SessionView:
    """The session with this id or name, or the newest one of the task called so.

    Raises:
        RequestError: 404 `unknown_session`, 409 `ambiguous`.
    """
    return _only("session", name, match_sessions(world, name))


def _only(what: str, name: str, found: Sequence[T]) -> T:
    if not found:
        raise RequestError(404, f"unknown_{what}", f"there is no {what} {name!r}")
    if len(found) > 1:
        raise RequestError(409, "ambiguous", f"{name!r} is the beginning of {len(found)} {what}s' ids")
    return found[0]
