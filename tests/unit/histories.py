"""Journals made by hand: a run as a list of events, folded as they happen."""

from __future__ import annotations

from collections.abc import Callable

from kasmos.model import event as ev
from kasmos.model.event import Event, Record
from kasmos.model.plan import Check, Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import ExitStatus, SessionKind
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.view import TaskView, World
from kasmos.store.fold import apply

BOOT = "boot-1"
START_AT = 1_700_000_000.0
START_MONO = 1000.0


def make_plan(*waves: int, goal: str = "Build the parser", checks: tuple[str, ...] = (), title: str = "Do it") -> Plan:
    """A plan with that many tasks in each wave, numbered through."""
    made, number = [], 0
    for wave, count in enumerate(waves, start=1):
        tasks = []
        for _ in range(count):
            number += 1
            commands = tuple(Check(command) for command in checks)
            task = PlanTask(str(number), number, wave, f"{title} {number}", "Work.", checks=commands, line=10 * number)
            tasks.append(task)
        made.append(Wave(wave, tuple(tasks)))
    return Plan(tuple(made), goal=goal)


class History:
    """A journal under way. Every method appends records, folds them, and hands them to `listener`."""

    def __init__(self, plan: Plan, *, run_id: str = "r1", source: str = "/work/plan.md", boot: str = BOOT) -> None:
        self.world = World()
        self.records: list[Record] = []
        self.run_id = run_id
        self.boot = boot
        self.listener: Callable[[Record, World], None] = lambda record, world: None
        self.now = 0.0
        self.add(ev.SupervisorStarted(pid=77, boot_id=boot, version="0"))
        self.add(
            ev.RunStarted(
                run_id=run_id,
                plan=plan,
                source=source,
                key=source,
                digest="d",
                settings=RunSettings(),
                project="/work",
            )
        )

    @property
    def mono(self) -> float:
        """The monotonic instant it is."""
        return START_MONO + self.now

    @property
    def wall(self) -> float:
        """The wall-clock instant it is."""
        return START_AT + self.now

    def add(self, event: Event, *, after: float = 0.0) -> Record:
        """Let an event happen, some seconds later."""
        self.now += after
        record = Record(len(self.records) + 1, self.wall, self.mono, event)
        self.records.append(record)
        apply(self.world, record)
        self.listener(record, self.world)
        return record

    def task(self, task_id: str) -> TaskView:
        """A task as it is now."""
        return self.world.runs[self.run_id].tasks[task_id]

    def start(
        self,
        task_id: str,
        *,
        attempt: int = 1,
        check: int | None = None,
        harness: str = "",
        backend: ExecutionMode = ExecutionMode.HEADLESS,
        after: float = 0.0,
    ) -> str:
        """Start a session of a task; its id."""
        spec = self.task(task_id).spec
        session_id = f"{self.run_id}-{task_id}a{attempt}" + ("" if check is None else f"c{check}")
        self.add(
            ev.SessionStarting(
                session_id=session_id,
                name=spec.name,
                kind=SessionKind.AGENT if check is None else SessionKind.CHECK,
                backend=backend,
                boot_id=self.boot,
                run_id=self.run_id,
                task_id=task_id,
                attempt=attempt,
                check=check,
                profile="sh",
                harness=harness,
            ),
            after=after,
        )
        self.add(ev.SessionStarted(session_id=session_id, pid=4000 + len(self.records)))
        return session_id

    def end(
        self, task_id: str, *, code: int = 0, tail: str = "", after: float = 1.0, message: str | None = None
    ) -> None:
        """End a task's session, and the task with it."""
        session_id = self.task(task_id).sessions[-1]
        status = ExitStatus(code=code)
        self.add(ev.SessionEnded(session_id=session_id, exit=status, output_bytes=len(tail), tail=tail), after=after)
        kind, outcome = (CauseKind.DONE, Outcome.SUCCEEDED) if code == 0 else (CauseKind.EXIT, Outcome.FAILED)
        cause = Cause(kind, str(status) if message is None else message, session_id, status, tail=tail)
        self.add(ev.TaskEnded(self.run_id, task_id, outcome, cause))

    def finish(self, task_id: str, outcome: Outcome, cause: Cause) -> None:
        """End a task without a session."""
        self.add(ev.TaskEnded(self.run_id, task_id, outcome, cause))

    def wave(self, number: int, *, ended: Outcome | None = None) -> None:
        """Start a wave, or end it."""
        if ended is None:
            self.add(ev.WaveStarted(self.run_id, number))
        else:
            self.add(ev.WaveEnded(self.run_id, number, ended))

    def over(self, outcome: Outcome) -> None:
        """End the run."""
        self.add(ev.RunEnded(self.run_id, outcome))


def failed_run() -> History:
    """Two waves: one task succeeded, one failed with output, the third was skipped because of it."""
    history = History(make_plan(2, 1))
    history.wave(1)
    history.start("1")
    history.start("2")
    history.end("1", after=2.0)
    history.end("2", code=3, tail="compiling\nerror: no such file\n", after=3.0)
    history.wave(1, ended=Outcome.FAILED)
    cause = Cause(CauseKind.WAVE_FAILED, "wave 1 did not succeed: task 2 failed", because_of=("2",))
    history.finish("3", Outcome.SKIPPED, cause)
    history.over(Outcome.FAILED)
    return history
