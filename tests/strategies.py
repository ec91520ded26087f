"""Hypothesis strategies for kasmos' values: plans, settings, events, records and whole journals.

`values` makes any frozen value from its type hints. Ids are drawn from a small pool, so that
events speak of each other; numbers stay in ranges that JSON keeps exactly.
"""

from __future__ import annotations

import collections.abc
import enum
import functools
import types
import typing
from typing import Any

import attrs
from hypothesis import strategies as st

from kasmos.model import event as ev
from kasmos.model.event import Event, Record
from kasmos.model.plan import Check, OnFailure, Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import RestartCondition, RestartPolicy
from kasmos.model.view import World
from kasmos.store.fold import fold

EVENT_CLASSES: tuple[type[Event], ...] = typing.get_args(Event)

IDS = {
    "run_id": ("r1", "r2"),
    "task_id": ("1", "2", "3", "7"),
    "session_id": ("s1", "s2", "s3", "s4"),
    "boot_id": ("boot-a", "boot-b"),
    "approval_id": ("bcdf", "ghjk", "mnpq"),
}
"""Field name to the ids it may have."""

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
"""Any Unicode, NUL and control characters among it."""
seconds = st.floats(min_value=0, max_value=1e9, allow_subnormal=False)

_SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    int: st.integers(-(2**31), 2**62),
    float: seconds,
    bool: st.booleans(),
    type(None): st.none(),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of this type: a frozen class, an enum, a scalar, or a union, tuple or mapping of them."""
    return _values(kind)


@functools.cache
def _values(kind: Any) -> st.SearchStrategy[Any]:
    if kind in _SCALARS:
        return _SCALARS[kind]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    if attrs.has(kind):
        hints = typing.get_type_hints(kind)
        fields = {field.name: _field(field.name, hints[field.name]) for field in attrs.fields(kind)}
        return st.builds(kind, **fields)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(argument) for argument in arguments])
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if origin in (dict, collections.abc.Mapping):
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=2)
    raise TypeError(f"no strategy for {kind!r}")


def _field(name: str, hint: Any) -> st.SearchStrategy[Any]:
    if name not in IDS:
        return values(hint)
    ids = st.sampled_from(IDS[name])
    return st.one_of(st.none(), ids) if type(None) in typing.get_args(hint) else ids


# --- plans ------------------------------------------------------------------------


@st.composite
def plans(draw: st.DrawFn, *, max_waves: int = 4, max_width: int = 4, forward: bool = False) -> Plan:
    """Plans whose needs have no cycle; with *forward*, tasks may need tasks of later waves as well."""
    widths = draw(st.lists(st.integers(1, max_width), min_size=1, max_size=max_waves))
    waves = [wave for wave, width in enumerate(widths, 1) for _ in range(width)]
    numbers = range(1, len(waves) + 1)
    # Needs run against one order of all the tasks, so they have no cycle: the document's order, or any.
    order = draw(st.permutations(numbers)) if forward else list(numbers)
    needs: dict[int, list[int]] = {}
    for index, number in enumerate(order):
        earlier = sorted(order[:index])
        chosen = st.lists(st.sampled_from(earlier), unique=True, max_size=3) if earlier else st.just([])
        needs[number] = draw(st.one_of(st.just([]), chosen))
    tasks = [
        PlanTask(
            id=str(number),
            number=number,
            wave=wave,
            title=f"task {number}",
            body="",
            needs=tuple(map(str, needs[number])),
            checks=(Check("true"),) * draw(st.integers(0, 2)),
        )
        for number, wave in zip(numbers, waves, strict=True)
    ]
    return Plan(
        waves=tuple(
            Wave(number, tuple(task for task in tasks if task.wave == number)) for number in range(1, len(widths) + 1)
        )
    )


settings_of_runs = st.builds(
    RunSettings,
    max_concurrent=st.integers(1, 5),
    on_failure=st.sampled_from(OnFailure),
    auto_advance_waves=st.booleans(),
)
"""Settings of runs that can end."""

restart_policies = st.builds(
    RestartPolicy,
    condition=st.sampled_from(RestartCondition),
    max_restarts=st.integers(0, 8),
    within=st.floats(0, 1e4),
    backoff=st.floats(0, 1e3),
    backoff_max=st.floats(0, 1e4),
    jitter=st.floats(0, 1),
    quiet_period=st.floats(0, 1e3),
)
"""Restart policies within what the configuration accepts."""


def started(plan: Plan, settings: RunSettings, run_id: str = "r1") -> ev.RunStarted:
    """The event with which a run of this plan begins."""
    return ev.RunStarted(
        run_id=run_id, plan=plan, source="plan.md", key="/plan.md", digest="", settings=settings, project="/"
    )


# --- events -----------------------------------------------------------------------

_run_starts = st.builds(
    started, plans(max_waves=2, max_width=2), settings_of_runs, st.sampled_from(IDS["run_id"])
) | values(ev.RunStarted)
events: st.SearchStrategy[Event] = st.one_of(
    # Half of them belong to a life that can be followed; the rest is anything of any class.
    _run_starts,
    values(ev.SessionStarting),
    *(values(kind) for kind in EVENT_CLASSES),
)
"""Any event; runs whose plans have tasks with the ids of `IDS` are frequent."""


@st.composite
def journals(draw: st.DrawFn, *, max_size: int = 20) -> list[Record]:
    """Any events in any order, numbered upwards with gaps, as a damaged journal may hold them."""
    records = []
    seq, mono = 0, 0.0
    for event in draw(st.lists(events, max_size=max_size)):
        seq += draw(st.integers(1, 3))
        mono += draw(st.integers(0, 100))
        # Milliseconds: what RFC 3339 instants in records keep.
        at = draw(st.integers(0, 4_000_000_000_000)) / 1000
        records.append(Record(seq=seq, at=at, mono=mono, event=event))
    return records


# --- a journal to write to --------------------------------------------------------


class Ledger:
    """A journal in memory: numbers events, folds them, and keeps a clock that stands still unless moved."""

    def __init__(self, *first: Event, mono: float = 1000.0) -> None:
        self.world = World()
        self.records: list[Record] = []
        self.mono = mono
        self.commit(*first)

    def commit(self, *new: Event) -> None:
        """Append events at the present instant."""
        for event in new:
            record = Record(seq=len(self.records) + 1, at=1e9 + self.mono, mono=self.mono, event=event)
            self.records.append(record)
            fold([record], self.world)

    @property
    def events(self) -> list[Event]:
        """Everything committed so far."""
        return [record.event for record in self.records]
