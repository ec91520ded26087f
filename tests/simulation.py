"""A supervisor's lives, simulated: all from the orchestrator down is real, but the journal, the machine and the time.

A `Town` is what survives a supervisor: the machine with its programs, and the records of the journal. Each
`Town.life` is a supervisor at work in it, with everything it is made of; it ends in order, or by `Life.crash`, after
which nothing of it has any effect, just as after SIGKILL. Time is Trio's, so a mock clock drives it.
"""

from __future__ import annotations

import errno
import itertools
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

from kasmos.daemon.recovery import Findings, end_stray, find_untold, take_stock
from kasmos.model import event as ev
from kasmos.model.budget import Budgets
from kasmos.model.event import Event, Record
from kasmos.model.plan import Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import AgentProfile, ExecutionMode, StopPolicy
from kasmos.model.session import SessionSpec
from kasmos.model.usage import Price
from kasmos.model.view import RunView, SessionView, TaskView, World
from kasmos.orchestration.kitchen import Kitchen
from kasmos.orchestration.orchestrator import Accepted, LiveSessions, Orchestrator, open_orchestrator
from kasmos.orchestration.treasury import Treasury
from kasmos.sessions.protocol import Backend
from kasmos.sessions.script import Script
from kasmos.sessions.scripted import ScriptedBackend, ScriptedMachine
from kasmos.store.fold import fold
from kasmos.supervision.recipe import Surroundings
from kasmos.supervision.room import open_room
from kasmos.supervision.supervisor import Supervisor, open_supervisor
from kasmos.supervision.termination import terminate

WRITE_TIME = 0.001
"""Seconds a commit takes, so that things can happen while one is under way."""
LIFETIME = 1e6
"""Seconds after which a life that should have come to its end has not."""


@attrs.define(eq=False)
class _Job:
    events: tuple[Event, ...]
    mono: float
    wall: float
    records: tuple[Record, ...] = ()
    done: trio.Event = attrs.field(factory=trio.Event)


class SimJournal:
    """A journal in memory that commits in batches, like the real one, and dies with its supervisor.

    Args:
        records: what is durable; it grows, and outlives this object.
        now: the monotonic clock.
        kill_at: die when that many records were to be written in this life, ...
        durable: ... just after that batch has become durable, or just before.
        write_times: seconds that commits take, in turn.
    """

    def __init__(
        self,
        records: list[Record],
        now: Callable[[], float],
        *,
        kill_at: int | None = None,
        durable: bool = True,
        write_times: Sequence[float] = (WRITE_TIME,),
    ) -> None:
        self.records = records
        self.world: World = fold(records)
        self.killed = trio.Event()
        self.killed_at = 0.0
        self.committed = trio.Event()
        """Set, and replaced, with each commit."""
        self._now = now
        self._left = kill_at
        self._durable = durable
        self._write_times = itertools.cycle(write_times)
        self._waiting: list[_Job] = []
        self._news = trio.Event()

    async def append(self, *events: Event) -> tuple[Record, ...]:
        """Make events durable."""
        job = self._enqueue(events)
        await job.done.wait()
        return job.records

    def append_nowait(self, *events: Event) -> None:
        """Make events durable soon."""
        self._enqueue(events)

    @property
    def events(self) -> list[Event]:
        """Everything that is durable."""
        return [record.event for record in self.records]

    def kill(self) -> None:
        """Write nothing any more, and let nobody who waits go on."""
        if not self.killed.is_set():
            self.killed_at = trio.current_time()
            self.killed.set()

    async def run(self) -> None:
        """Commit what is appended, for ever."""
        while True:
            if not self._waiting:
                await self._news.wait()
                self._news = trio.Event()
                continue
            batch, self._waiting = self._waiting, []
            await trio.sleep(next(self._write_times))
            self._commit(batch)

    def _enqueue(self, events: tuple[Event, ...]) -> _Job:
        # Unlike the other clock, the wall clock goes on over reboots.
        job = _Job(events, self._now(), 1e9 + trio.current_time())
        self._waiting.append(job)
        self._news.set()
        return job

    def _commit(self, batch: list[_Job]) -> None:
        if self._left is not None:
            self._left -= sum(len(job.events) for job in batch)
        dies = self._left is not None and self._left <= 0
        if self.killed.is_set() or (dies and not self._durable):
            self.kill()
            return
        for job in batch:
            job.records = tuple(
                Record(len(self.records) + 1 + index, job.wall, job.mono, event)
                for index, event in enumerate(job.events)
            )
            self.records += job.records
            if not dies:
                fold(job.records, self.world)
        if dies:
            self.kill()
            return
        committed, self.committed = self.committed, trio.Event()
        committed.set()
        for job in batch:
            job.done.set()


@attrs.define(eq=False)
class Life:
    """One supervisor at work."""

    journal: SimJournal
    backend: ScriptedBackend
    supervisor: Supervisor
    orchestrator: Orchestrator
    findings: Findings
    scope: trio.CancelScope

    @property
    def world(self) -> World:
        """The present."""
        return self.journal.world

    def crash(self) -> None:
        """Die as by SIGKILL: from here on nothing of this life has any effect."""
        self.journal.kill()
        self.backend.crash()
        self.scope.cancel()

    def run(self, run_id: str = "run1") -> RunView:
        """A run as it is now."""
        return self.world.runs[run_id]

    def task(self, task_id: str, run_id: str = "run1") -> TaskView:
        """A task as it is now."""
        return self.run(run_id).tasks[task_id]

    def session(self, task_id: str, run_id: str = "run1") -> SessionView:
        """A task's newest session as it is now."""
        return self.world.sessions[self.task(task_id, run_id).sessions[-1]]

    async def submit(
        self,
        plan: Plan,
        *,
        key: str = "/plan.md",
        digest: str = "d",
        settings: RunSettings | None = None,
        fresh: bool = False,
        patience: float = math.inf,
    ) -> Accepted:
        """Hand in a plan."""
        settings = attrs.evolve(settings or RunSettings(), default_agent="a")
        return await self.orchestrator.submit(
            plan,
            source=key,
            key=key,
            digest=digest,
            settings=settings,
            project="/project",
            fresh=fresh,
            patience=patience,
        )

    async def until(self, condition: Callable[[World], bool]) -> None:
        """Wait until the present is so; never past this life's commits."""
        while not condition(self.world):
            await self.journal.committed.wait()


@attrs.define(eq=False)
class Town:
    """What outlives every supervisor, and what supervisors are made with."""

    scripts: Callable[[SessionSpec], Script]
    profiles: dict[str, AgentProfile]
    max_concurrent: int = 4
    budgets: Budgets = Budgets(zone="UTC")
    prices: Mapping[str, Price] = attrs.field(factory=dict)
    may_ask: bool = True
    machine: ScriptedMachine = attrs.field(factory=ScriptedMachine)
    records: list[Record] = attrs.field(factory=list)
    said: list[str] = attrs.field(factory=list)
    """What supervisors said of the disk."""
    bugs: list[str] = attrs.field(factory=list)
    """What supervisors reported as errors of their own."""
    undeclared: list[str] = attrs.field(factory=list)
    """Sessions that were started without a durable intent."""
    rand: Callable[[], float] = lambda: 0.5
    write_times: Sequence[float] = (WRITE_TIME,)
    is_full: Callable[[], bool] = lambda: False
    """Whether the disk has no room where it is looked for."""
    downtime: float = 0.0
    """Seconds between the death of supervisors and the birth of the next: what is left of them takes time to unwind."""
    _booted: float = 0.0
    _boots: dict[str, str] = attrs.field(factory=dict)
    """The boot each session was started in."""
    _suffixes: Iterator[int] = attrs.field(factory=itertools.count)
    _run_ids: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def now(self) -> float:
        """The monotonic clock, which begins with the boot."""
        return trio.current_time() - self._booted

    @property
    def events(self) -> list[Event]:
        """Everything that is durable."""
        return [record.event for record in self.records]

    def story(self, newest: int = 60) -> str:
        """What has happened of late, for a person to read."""
        return "\n".join(
            f"{record.seq:4} {record.mono:10.4f} {record.event}"[:200] for record in self.records[-newest:]
        )

    def reboot(self) -> None:
        """Start the machine anew: every program is gone, the monotonic clock begins again."""
        self.machine.reboot()
        self._booted = trio.current_time()

    def stored_specs(self) -> Mapping[str, SessionSpec | None]:
        """See `Archive`."""
        # Of a start that was given up nothing is left, so what has run is what is stored.
        return {
            name: attrs.evolve(program.spec, boot_id=self._boots[name])
            for name, program in self.machine.programs.items()
        }

    def unreadable(self) -> tuple[str, ...]:
        """See `Archive`."""
        return ()

    def forget(self, session_ids: tuple[str, ...]) -> None:
        """See `Archive`."""
        raise AssertionError("there are no fragments")

    @asynccontextmanager
    async def life(self) -> AsyncIterator[Life]:
        """Be a supervisor until the block is left; what an earlier one left is taken up first."""
        journal = SimJournal(self.records, self.now, write_times=self.write_times)
        with trio.CancelScope() as scope:
            async with self._open(journal, scope) as life:
                yield life
        self._judge(journal, scope)

    async def live(
        self, body: Callable[[Life], Awaitable[None]], *, kill_at: int | None = None, durable: bool = True
    ) -> None:
        """Be a supervisor for as long as *body* takes, or until it is killed; see `SimJournal`."""
        journal = SimJournal(self.records, self.now, kill_at=kill_at, durable=durable, write_times=self.write_times)
        with trio.CancelScope() as scope:
            async with self._open(journal, scope) as life:
                await body(life)
        self._judge(journal, scope)

    @asynccontextmanager
    async def _open(self, journal: SimJournal, scope: trio.CancelScope) -> AsyncIterator[Life]:
        backend = ScriptedBackend(self._start, terminate=terminate, machine=self.machine)
        live = LiveSessions()
        async with trio.open_nursery() as nursery, open_room(self._probe, report=self.said.append) as room:
            around = Surroundings(
                journal, self.machine.boot_id, self.now, self.rand, live.started, live.ended, room=room
            )
            nursery.start_soon(journal.run)
            nursery.start_soon(_die_with, journal, backend, scope)
            untold = find_untold(journal.world, lambda seq: self.records[seq:])
            await journal.append(ev.SupervisorStarted(1, self.machine.boot_id, "0"))
            async with (
                open_supervisor(around, report=self.bugs.append) as supervisor,
                open_orchestrator(
                    journal,
                    supervisor,
                    self._kitchen(backend),
                    live,
                    max_concurrent=self.max_concurrent,
                    new_run_id=lambda: f"run{next(self._run_ids)}",
                    untold=untold,
                ) as orchestrator,
            ):
                findings = await self._recover(journal, backend, supervisor, orchestrator)
                # From here on: a mock clock would jump over the thread that recovery uses.
                scope.deadline = trio.current_time() + LIFETIME
                yield Life(journal, backend, supervisor, orchestrator, findings, scope)
            await journal.append(ev.SupervisorStopped("left in order"))
            nursery.cancel_scope.cancel()

    def _judge(self, journal: SimJournal, scope: trio.CancelScope) -> None:
        assert not scope.cancelled_caught or journal.killed.is_set(), f"a supervisor came to no end:\n{self.story()}"
        if journal.killed.is_set():
            self.downtime += trio.current_time() - journal.killed_at

    def _start(self, spec: SessionSpec) -> Script:
        if not any(isinstance(event, ev.SessionStarting) and event.session_id == spec.id for event in self.events):
            self.undeclared.append(spec.id)
        self._boots[spec.id] = self.machine.boot_id
        return self.scripts(spec)

    async def _probe(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_full():
            raise OSError(errno.ENOSPC, "no space left")

    def _kitchen(self, backend: Backend) -> Kitchen:
        return Kitchen(
            profiles=lambda: self.profiles,
            environ={},
            backends={ExecutionMode.SCRIPTED: backend},
            new_suffix=lambda: f"s{next(self._suffixes)}",
            treasury=Treasury(
                budgets=lambda: self.budgets,
                prices=lambda: self.prices,
                wall=lambda: 1e9 + trio.current_time(),
                may_ask=self.may_ask,
            ),
        )

    async def _recover(
        self, journal: SimJournal, backend: ScriptedBackend, supervisor: Supervisor, orchestrator: Orchestrator
    ) -> Findings:
        findings = await take_stock(journal, self, self.machine.boot_id)
        for session_id in findings.strays:
            view = journal.world.sessions[session_id]
            supervisor.start_stray(session_id, partial(end_stray, journal, backend, view))
        await orchestrator.recover_runs(findings.to_continue)
        return findings


async def _die_with(journal: SimJournal, backend: ScriptedBackend, scope: trio.CancelScope) -> None:
    await journal.killed.wait()
    backend.crash()
    scope.cancel()


# --- plans, profiles and scripts in a few words --------------------------------------


def profile(**changes: Any) -> AgentProfile:
    """The profile `a`, whose sessions are scripts."""
    plain = AgentProfile(
        name="a",
        program=("agent",),
        execution_mode=ExecutionMode.SCRIPTED,
        stop=StopPolicy(stop_grace=10.0, kill_grace=5.0),
    )
    return attrs.evolve(plain, **changes)


def task(number: int, wave: int = 1, **changes: Any) -> PlanTask:
    """A task of that number."""
    return attrs.evolve(PlanTask(str(number), number, wave, f"task {number}", "Work."), **changes)


def plan(*tasks: PlanTask) -> Plan:
    """A plan of these tasks, in the waves they say."""
    numbers = sorted({each.wave for each in tasks})
    return Plan(tuple(Wave(number, tuple(t for t in tasks if t.wave == number)) for number in numbers))


def by_task(scripts: Mapping[str, Script | tuple[Script, ...]]) -> Callable[[SessionSpec], Script]:
    """Scripts by task id, for checks by `ID/INDEX`; several are one per attempt, and the last one holds on."""

    def choose(spec: SessionSpec) -> Script:
        key = f"{spec.task_id}" if spec.check is None else f"{spec.task_id}/{spec.check}"
        found = scripts.get(key, Script())
        return found if isinstance(found, Script) else found[min(spec.attempt, len(found)) - 1]

    return choose


def town(scripts: Mapping[str, Script | tuple[Script, ...]], **changes: Any) -> Town:
    """A town whose tasks do that; the profile `a` is as in `profile`."""
    return Town(by_task(scripts), **{"profiles": {"a": profile()}, **changes})
