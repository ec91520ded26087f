"""One invocation of the foreground: what was asked, what of it has been shown, and what has come to pass.

It is the same errand whether this process supervises, follows another, or does first the one and then the other.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable

import attrs
import click
import trio

from kasmos.cli.render import View
from kasmos.cli.render.facts import run_title
from kasmos.cli.render.files import write_reports
from kasmos.cli.request import Document, Place, Request
from kasmos.daemon.submission import plan_key
from kasmos.exceptions import RequestError
from kasmos.model import event as ev
from kasmos.model.event import Record
from kasmos.model.plan import Origin
from kasmos.model.task import Outcome
from kasmos.model.value import define
from kasmos.model.view import RunState, RunView, World
from kasmos.orchestration.retry import tasks_to_retry
from kasmos.sessions.output import LogFile
from kasmos.store import fold

EXIT_OF_SIGNAL = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


class Signals:
    """The signals by which this process was asked to leave."""

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        self.first = trio.Event()

    async def receive(self, heed: Callable[[int], None], *, task_status: trio.TaskStatus[None]) -> None:
        """Take signals for ever; *heed* is told how many there have been.

        Args:
            task_status: started when a signal does not kill us any more.
        """
        watched = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            watched.append(signal.SIGHUP)
        with trio.open_signal_receiver(*watched) as received:
            task_status.started()
            async for signum in received:
                self.received.append(signal.Signals(signum))
                self.first.set()
                heed(len(self.received))

    @property
    def exit_code(self) -> int | None:
        """What a process exits with that was asked to leave; None if it was not."""
        return EXIT_OF_SIGNAL[self.received[0]] if self.received else None


@define(eq=False)
class Errand:
    """What was asked for, and how far it is."""

    place: Place
    request: Request
    """Changes when a part is done that must not be done once more."""
    document: Document | None
    view: View
    signals: Signals = attrs.field(factory=Signals)
    run_id: str | None = None
    """The run it is about, once that is known."""
    cancelled: tuple[str, ...] = ()
    """The runs that are to end for good."""
    world: World = attrs.field(factory=World)
    """What the view is shown."""
    shown: int = 0
    """Number of the newest event that the view has seen, or that was there before."""
    begun: bool = False
    """Whether the view shows a run."""
    of_daemon: bool = False
    """Whether a daemon does it: nobody else takes over what is a daemon's."""
    _told: trio.Event = attrs.field(factory=trio.Event)
    """Set, and replaced, each time the view has been shown something of what happened here."""
    _warned: set[str] = attrs.field(factory=set)

    def warn(self, warnings: Iterable[object]) -> None:
        """Tell the person each of these once, however often it comes up."""
        for text in map(str, warnings):
            if text not in self._warned:
                self._warned.add(text)
                self.view.message(f"warning: {text}")

    def present(self, world: World, notice: str) -> None:
        """Show the run as it is in *world*, unless it begins only later; *notice* says what kind of beginning it is."""
        self.world, self.shown = world, world.seq
        if self.begun:
            if notice:
                self.view.message(notice)
        elif self.run_id in world.runs:
            self.view.begin(world, self.run_id, notice)
            self.begun = True

    def feed(self, records: Iterable[Record]) -> None:
        """Show what has happened elsewhere."""
        for record in records:
            fold.apply(self.world, record)
            self._show(record)

    def tell(self, records: Iterable[Record], world: World) -> None:
        """Show what has happened here; *world* has it all, and perhaps more: nothing is folded a second time."""
        self.world = world
        for record in records:
            self._show(record)
        told, self._told = self._told, trio.Event()
        told.set()

    def _show(self, record: Record) -> None:
        self.shown = record.seq
        if not self.begun:
            if not (isinstance(record.event, ev.RunStarted) and record.event.run_id == self.run_id):
                return
            self.view.begin(self.world, record.event.run_id, "")
            self.begun = True
        self.view.record(record, self.world)

    async def wait_shown(self, seq: int) -> None:
        """Wait until the view has seen the event with this number."""
        while self.shown < seq:
            await self._told.wait()

    def exit_code(self, world: World) -> int:
        """The exit status, as things are in *world*."""
        run = world.runs.get(self.run_id or "")
        if self.cancelled and not any(world.runs[run_id].unfinished for run_id in self.cancelled):
            return 0
        if run is not None and run.state is RunState.ENDED:
            return 0 if run.outcome is Outcome.SUCCEEDED else 1
        return self.signals.exit_code or 1

    def report(self) -> bool:
        """Tell how it ended: to the view, and in the files that were asked for; whether all were written."""
        if not self.begun:
            return True
        self.view.end(self.world)
        problems = write_reports(
            self.world,
            self.run_id or "",
            junit_file=self.request.junit,
            summary_file=self.request.summary,
            tail_of=self._log_tail,
        )
        for problem in problems:
            click.echo(f"kas: {problem}", err=True)
        return not problems

    def _log_tail(self, session_id: str) -> str:
        return LogFile(self.place.root.session_dir(session_id)).tail_lines(100)

    # --- which run, and what is said of it -----------------------------------------------

    def find_run(self, world: World) -> RunView:
        """The unfinished run to go on with.

        Raises:
            RequestError: there is none.
        """
        return find_unfinished(world, self.request.resume or "")

    def find_cancelled(self, world: World) -> tuple[str, ...]:
        """The runs to end for good, the newest last.

        Raises:
            RequestError: there is none.
        """
        if self.request.resume is not None:
            return (self.find_run(world).id,)
        unfinished = tuple(run.id for run in world.runs.values() if run.unfinished)
        return unfinished or (find_unfinished(world, "").id,)

    def announce_end_of_old(self, world: World) -> None:
        """Say that the run in whose place a fresh one begins has to end first: that may take a while."""
        if self.document is None:
            return
        key = plan_key(self.document.data, self.document.source)
        old = [run for run in world.runs.values() if run.key == key and run.unfinished]
        if old and (self.request.fresh or old[-1].cancel_reason is not None):
            self.view.message(f"ending run {old[-1].id} first")


def find_unfinished(world: World, name: str) -> RunView:
    """The unfinished run with this id, or the newest one.

    Raises:
        RequestError: there is none.
    """
    begun = [run for run in world.runs.values() if run.unfinished and run.id.startswith(name)]
    plans = [run for run in begun if run.origin is Origin.PLAN or run.id == name]
    # Tasks that were handed in by themselves are taken up without being asked for: any of them will do.
    unfinished = plans or ([] if name else begun)
    if not unfinished:
        what = f"there is no unfinished run {name}" if name else "there is no unfinished run"
        raise RequestError(404, "unknown_run", f"{what}; `kas runs` lists all, `kas retry RUN` takes up one that ended")
    return unfinished[-1]


def continuing(run: RunView) -> str:
    """What is said of a run that was there before."""
    if not run.unfinished:
        return f"run {run.id} had ended when its supervisor was killed; `kas run --fresh` does it all once more"
    ended = sum(1 for task in run.tasks.values() if task.outcome is not None)
    return f"continuing run {run.id} ({run_title(run)}): {ended} of {len(run.tasks)} tasks have ended"


def trying_again(run: RunView, tasks: tuple[str, ...]) -> str:
    """What is said of a run of which tasks are put back, as it was before that."""
    again = tasks_to_retry(run, tasks)
    return f"trying again in run {run.id} ({run_title(run)}): task{'s' * (len(again) != 1)} {', '.join(again)}"


def ending(world: World, run_ids: tuple[str, ...]) -> str:
    """What is said of runs that are ended for good."""
    titles = (f"{run_id} ({run_title(world.runs[run_id])})" for run_id in run_ids)
    return f"ending run {', '.join(titles)} for good"
