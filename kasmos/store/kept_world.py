"""A world as bytes, in pieces: what a start reads instead of folding a long journal anew. Pure.

Every field of every view is in them, taken from the classes themselves, so that none can be forgotten here. In pieces,
because whoever makes them does it beside a supervisor at work, which waits for one piece at most.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar

import attrs

from kasmos.model.codec import CodecError, pack, unpack
from kasmos.model.plan import PlanTask
from kasmos.model.usage import Tally, Usage
from kasmos.model.value import frozen
from kasmos.model.view import (
    AccountView,
    Active,
    ApprovalView,
    BackingOff,
    Ended,
    Pending,
    RunView,
    SessionView,
    TaskState,
    TaskView,
    UsageLedger,
    World,
)

T = TypeVar("T")

Piece = tuple[str, bytes]
"""What it is of, and the bytes."""
PIECE = 64
"""The most views in one piece."""

_State = tuple[Active | None, BackingOff | None, Ended | None]
_Days = list[tuple[str, list[tuple[str, str, Tally]]]]


@frozen
class _Head:
    seq: int
    boot_id: str
    boot_seq: int
    supervisor_pid: int | None
    supervisor_stays: bool


def render_world(world: World) -> Iterator[Piece]:
    """The pieces of a world that does not change meanwhile.

    Raises:
        CodecError: something in it cannot be rendered.
    """
    head = _Head(world.seq, world.boot_id, world.boot_seq, world.supervisor_pid, world.supervisor_stays)
    yield "head", pack(head)
    for name, values in (
        ("runs", map(_run_row, world.runs.values())),
        ("sessions", world.sessions.values()),
        ("approvals", world.approvals.values()),
        ("accounts", world.accounts.values()),
        ("days", ((day, [(*key, sums[key]) for key in sums]) for day, sums in world.ledger.days.items())),
        ("spent", world.ledger.runs.items()),
        ("conversations", world.ledger.conversations.items()),
    ):
        for piece in _cut(values):
            yield name, pack(piece)


def _cut(values: Iterable[object]) -> Iterator[list[object]]:
    rest = iter(values)
    while piece := list(islice(rest, PIECE)):
        yield piece


def load_world(pieces: Iterable[tuple[str, memoryview]]) -> World:
    """The world that was rendered so.

    Raises:
        CodecError: these are not the pieces of a world.
    """
    world, ledger, head = World(), UsageLedger(), None
    for name, data in pieces:
        match name:
            case "head":
                head = unpack(data, _Head)
            case "runs":
                runs: Iterator[RunView] = map(_run, unpack(data, list[_run_rows()]))  # type: ignore[misc]  # made of hints
                world.runs.update((run.id, run) for run in runs)
            case "sessions":
                sessions: list[SessionView] = unpack(data, list[SessionView])
                world.sessions.update((session.id, session) for session in sessions)
            case "approvals":
                approvals: list[ApprovalView] = unpack(data, list[ApprovalView])
                world.approvals.update((approval.id, approval) for approval in approvals)
            case "accounts":
                accounts: list[AccountView] = unpack(data, list[AccountView])
                world.accounts.update((account.name, account) for account in accounts)
            case "days":
                days: _Days = unpack(data, _Days)
                ledger.days.update((day, {(agent, account): sum_ for agent, account, sum_ in of}) for day, of in days)
            case "spent":
                ledger.runs.update(unpack(data, list[tuple[str, Tally]]))
            case "conversations":
                ledger.conversations.update(unpack(data, list[tuple[str, tuple[str, Usage]]]))
            case _:
                raise CodecError(f"no piece of a world is called {name!r}")
    if head is None:
        raise CodecError("a world without a head")
    return attrs.evolve(
        world,
        seq=head.seq,
        boot_id=head.boot_id,
        boot_seq=head.boot_seq,
        supervisor_pid=head.supervisor_pid,
        supervisor_stays=head.supervisor_stays,
        ledger=ledger,
    )


# --- runs: rows of fields, because a task is in one of several classes of states, and its plan stands there once ------


def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(kind))


_RUN, _TASK = _names(RunView), _names(TaskView)
_TASKS_AT, _PLAN_AT = _RUN.index("tasks"), _RUN.index("plan")
_SPEC_AT, _STATE_AT = _TASK.index("spec"), _TASK.index("state")
_fields_of_run, _fields_of_task = attrgetter(*_RUN), attrgetter(*_TASK)


def _row_of(kind: type[Any], **instead: Any) -> Any:
    hints = typing.get_type_hints(kind)
    return tuple.__class_getitem__(tuple(instead.get(name, hints[name]) for name in _names(kind)))


@functools.cache
def _run_rows() -> Any:
    # In a list, the type of a row of a task; the task's own part of the plan is named by its id.
    return _row_of(RunView, tasks=list[_row_of(TaskView, spec=str, state=_State)])  # type: ignore[misc]  # made of hints


def _run_row(run: RunView) -> list[Any]:
    row = list(_fields_of_run(run))
    row[_TASKS_AT] = [_task_row(task) for task in run.tasks.values()]
    return row


def _task_row(task: TaskView) -> list[Any]:
    row = list(_fields_of_task(task))
    state = task.state
    row[_SPEC_AT] = task.spec.id
    row[_STATE_AT] = (
        state if isinstance(state, Active) else None,
        state if isinstance(state, BackingOff) else None,
        state if isinstance(state, Ended) else None,
    )
    return row


def _run(row: tuple[Any, ...]) -> RunView:
    fields = list(row)
    specs = {task.id: task for task in fields[_PLAN_AT].tasks}
    fields[_TASKS_AT] = {task[_SPEC_AT]: _task(task, specs) for task in fields[_TASKS_AT]}
    return RunView(*fields)


def _task(row: tuple[Any, ...], specs: Mapping[str, PlanTask]) -> TaskView:
    fields = list(row)
    active, backing_off, ended = fields[_STATE_AT]
    state: TaskState = active or backing_off or ended or Pending()
    spec = specs.get(fields[_SPEC_AT])
    if spec is None:
        raise CodecError("a task that its plan does not know")
    fields[_SPEC_AT], fields[_STATE_AT] = spec, state
    return TaskView(*fields)
