"""One line per event: for logs, and for terminals that cannot move a cursor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from kasmos.cli.render import facts
from kasmos.cli.render.report import report
from kasmos.cli.render.text import (
    Look,
    cells,
    clean,
    duration,
    local_time,
    pad,
    plural,
    shorten,
)
from kasmos.cli.render.writer import PATIENCE, Writer
from kasmos.daemon.wire import task_status
from kasmos.model import event as ev
from kasmos.model.approval import AskKind
from kasmos.model.event import Event, Record
from kasmos.model.session import SessionKind
from kasmos.model.task import Cause
from kasmos.model.view import RunView, SessionView, TaskView, World
from kasmos.orchestration.approvals import told

TAIL_LINES = 30
"""Lines of output that are shown when a task did not succeed."""
_SUBJECT = 40
"""Widest column of names."""


class PlainLines:
    """See `View`.

    Args:
        width: gives the cells of the screen, where there is one.
    """

    interval: float | None = None

    def __init__(self, writer: Writer, look: Look, width: Callable[[], int] | None = None) -> None:
        self._writer = writer
        self._look = look
        self._columns = width
        self._run_id = ""
        self._width = 0

    def begin(self, world: World, run_id: str, notice: str) -> None:
        self._run_id = run_id
        run = world.runs[run_id]
        names = [task.spec.name for task in run.tasks.values()]
        self._width = min(_SUBJECT, max(map(cells, ["wave 1", *names])))
        if notice:
            self.message(notice)

    def record(self, record: Record, world: World) -> None:
        if not facts.concerns(record, world, self._run_id):
            return
        event, run = record.event, world.runs[self._run_id]
        told = tell(event, world, run)
        if told is None:
            return
        subject, text, word = told
        self._line(record.at, subject, self._look.status(word, text) if word else text)
        if isinstance(event, ev.TaskEnded):
            task = run.tasks.get(event.task_id)
            if task is not None and task_status(task) in facts.BAD:
                self._failed(world, run, task)

    def tick(self, now_mono: float, tails: Mapping[str, str]) -> None:
        pass

    def message(self, text: str) -> None:
        self._writer.out(f"{self.neutral(clean(text))}\n")

    def end(self, world: World) -> None:
        width = max(1, self._columns() - 1) if self._columns is not None else None
        text = report(world, self._run_id, self._look, time.monotonic(), time.time(), tails=False, width=width)
        self._writer.out("\n" + "".join(f"{self.neutral(line)}\n" for line in text.splitlines()))
        self._writer.close()

    def flush(self) -> None:
        self._writer.flush(PATIENCE)

    def neutral(self, line: str) -> str:
        """*line* so that whoever reads the log takes it for nothing but a line."""
        return line

    def _line(self, at: float, subject: str, text: str) -> None:
        time_of_day = self._look.paint(local_time(at), "dim")
        name = pad(shorten(subject, self._width, self._look.cut), self._width)
        self._writer.out(f"{time_of_day}  {name}  {self.neutral(text)}\n")

    def _failed(self, world: World, run: RunView, task: TaskView) -> None:
        lines = facts.tail_lines(world, task, TAIL_LINES)
        indent = " " * 10
        self._writer.out("".join(f"{indent}| {line}\n" for line in lines))


Told = tuple[str, str, str | None]
"""Who, what, and the status word whose colour it has."""


def tell(event: Event, world: World, run: RunView) -> Told | None:
    """What a line says about an event; None for those that say nothing to people."""
    session = facts.session_of(event, world)
    if session is not None:
        subject, prefix = _session_subject(world, run, session)
        said = _about_session(event, session) or _about_approval(event, world)
        return (subject, prefix + said[0], said[1]) if said is not None else None
    task = facts.task_of(event, world)
    if task is not None:
        return task.spec.name, *_about_task(event, task, world)
    if isinstance(event, ev.WaveStarted | ev.WaveEnded | ev.RunParked | ev.RunAdvanced):
        return f"wave {event.wave}", *_about_wave(event, run)
    said = _about_run(event, run, world)
    return ("run", *said) if said is not None else None


def _session_subject(world: World, run: RunView, session: SessionView) -> tuple[str, str]:
    task = run.tasks.get(session.task_id or "")
    subject = task.spec.name if task is not None else clean(session.name)
    if session.kind is SessionKind.CHECK:
        command = facts.check_command(world, session)
        return subject, f"check `{command}` " if command else "check "
    if session.attempt > 1:
        return subject, f"attempt {session.attempt} "
    return subject, ""


def _about_session(event: Event, session: SessionView) -> tuple[str, str | None] | None:
    match event:
        case ev.SessionStarted(pid=pid):
            return "started" + (f" (pid {pid})" if pid else ""), None
        case ev.SessionStartFailed(reason=reason):
            return f"could not be started: {clean(reason)}", "failed"
        case ev.SessionNeverStarted(reason=reason):
            return f"waits for room: {clean(reason)}" if reason else "had not been started", "waiting"
        case ev.SessionAdopted(pid=pid):
            return "adopted: it went on without a supervisor" + (f" (pid {pid})" if pid else ""), None
        case ev.SessionDetached():
            return "left running, for adoption", "waiting"
        case ev.StopRequested(reason=why):
            return f"is being stopped ({why.replace('_', ' ')})", "stopping"
        case ev.KillSent():
            return "did not stop in time: SIGKILL", "stopping"
        case ev.SessionUnkillable(pids=pids):
            return f"survives SIGKILL: {', '.join(map(str, pids))}", "failed"
        case ev.LeftoversFound(leftovers=left):
            named = ", ".join(f"{one.name} ({one.pid}) {one.action}" for one in left)
            return f"left processes behind: {clean(named)}", "waiting"
        case ev.OutputLost(reason=reason):
            return f"lost output: {clean(reason)}", "waiting"
        case ev.InputAwaited(what=what) if what:
            return f"hangs: {clean(what)}", "waiting"
        case ev.SessionEnded(exit=status, output_bytes=size):
            taken = _taken(session)
            return f"{status}{taken}, {plural(size, 'byte')} of output", None if status.succeeded else "failed"
        case ev.SessionLost(reason=reason):
            return f"lost: {clean(reason)}", "lost"
    return None


def _about_approval(event: Event, world: World) -> tuple[str, str | None] | None:
    match event:
        case ev.ApprovalRequested(approval_id=name, ask=ask, waits=True):
            verb = f"kas answer {name} TEXT" if ask.kind is AskKind.QUESTION else f"kas approve {name}"
            return f"waits for you: {clean(ask.subject)} ({verb}, or kas deny {name})", "waiting"
        case ev.ApprovalResolved(approval_id=name) if name in world.approvals:
            view = world.approvals[name]
            return f"{clean(view.ask.subject)}: {clean(told(view))}", None
        case ev.ApprovalWithdrawn(approval_id=name, reason=reason) if name in world.approvals:
            return f"{clean(world.approvals[name].ask.subject)}: {clean(reason)}", None
    return None


def _taken(session: SessionView) -> str:
    if session.ended_mono is None or session.ended_mono < session.starting_mono:
        return ""
    return f" after {duration(session.ended_mono - session.starting_mono)}"


def _about_task(event: Event, task: TaskView, world: World) -> tuple[str, str | None]:
    match event:
        case ev.TaskRetryScheduled(attempt=attempt, delay=delay, cause=cause):
            return f"attempt {attempt} {clean(cause.message)}; again in {duration(delay)}", "waiting"
        case ev.TakeoverRequested(who=who, now=now):
            when = "now" if now else "when its turn has ended"
            return f"{clean(who) or 'somebody'} takes its conversation over {when}", "waiting"
        case ev.HandedBack(reason=reason, who=who, done=done):
            said = clean(reason) if reason else f"by {clean(who) or 'somebody'}{', as done' if done else ''}"
            return f"handed back: {said}", None
        case ev.TaskPutBack(reason=reason):
            return f"put back: {clean(reason)}", "queued"
        case ev.TaskEnded(outcome=outcome, cause=cause):
            taken = duration(facts.task_seconds(world, task, 0.0, 0.0))
            after = "" if taken == "-" else f" after {taken}"
            return f"{_shout(outcome.value)}{after}{_because(outcome.value, cause)}", outcome.value
    return "", None


def _shout(word: str) -> str:
    """Words that a person scrolls for stand out without colours."""
    said = word.replace("_", " ")
    return said.upper() if word in facts.BAD else said


def _because(word: str, cause: Cause) -> str:
    if word == "succeeded":
        return ""
    # "LOST after 3s: why", and not "LOST after 3s: lost: why".
    said = word.replace("_", " ")
    why = clean(cause.message)
    return "" if why == said else f": {why.removeprefix(f'{said}: ')}"


def _about_wave(event: Event, run: RunView) -> tuple[str, str | None]:
    match event:
        case ev.WaveStarted(wave=number):
            wave = next((wave for wave in run.plan.waves if wave.number == number), None)
            title = f": {clean(wave.title)}" if wave is not None and wave.title else ""
            return f"started ({plural(len(wave.tasks) if wave is not None else 0, 'task')}){title}", None
        case ev.WaveEnded(outcome=outcome):
            return outcome.value.replace("_", " "), outcome.value
        case ev.RunParked():
            return "has ended; the run waits: `kas advance` lets it go on", "waiting"
        case _:
            return "advanced past", None


def _about_run(event: Event, run: RunView, world: World) -> tuple[str, str | None] | None:
    match event:
        case ev.RunStarted():
            what = f"{plural(len(run.tasks), 'task')} in {plural(len(run.plan.waves), 'wave')}"
            return f"{run.id} started: {facts.run_title(run)} ({what}, from {clean(run.source)})", None
        case ev.RunContinued():
            return f"{run.id} continued: {facts.count_words(facts.count_tasks(run))}", None
        case ev.RunInterrupted(reason=reason):
            return f"{run.id} interrupted: {clean(reason)}", "interrupted"
        case ev.RunCancelRequested(reason=reason):
            return f"{run.id} is being ended: {clean(reason)}", "cancelled"
        case ev.RunReopened():
            return f"{run.id} taken up again", None
        case ev.RunEnded(outcome=outcome):
            taken = duration(facts.run_seconds(world, run, 0.0, 0.0))
            return f"{run.id} {_shout(outcome.value)} after {taken}", outcome.value
    return None
