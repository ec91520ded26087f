"""`kas why`: the chain of causes behind an outcome, and where to look further."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from kasmos.cli.context import Place, all_ids, complete, place_of, say
from kasmos.cli.found import Found, look_around, seconds
from kasmos.cli.render import facts
from kasmos.cli.render.report import describe, failures, log_name
from kasmos.cli.render.text import Look, clean, columns, duration, local_moment, look_of
from kasmos.daemon.spending import say_tally
from kasmos.daemon.wire import held_by, task_status
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import SessionKind
from kasmos.model.usage import Tally
from kasmos.model.value import frozen
from kasmos.model.view import Active
from kasmos.orchestration.budgets import task_tally
from kasmos.sessions.last_screen import load_screen

if TYPE_CHECKING:
    from kasmos.model.view import RunView, SessionView, TaskView, World

TAIL_LINES = 20
_FILES = (
    ("output.log", "what it wrote"),
    ("prompt.md", "what it was told"),
    ("spec.json", "what was run"),
    ("shim.log", "what the shell that ran it said"),
    ("screen", "what its terminal showed last"),
)


@click.command("why")
@click.argument("name", metavar="[ID]", required=False, shell_complete=complete(all_ids))
@click.pass_context
def why(ctx: click.Context, name: str | None) -> None:
    """Say why task, session or run ID ended as it did; without an ID, the newest run.

    Shows the outcome with its cause, the attempts, the last lines of the output, what else was stopped or
    skipped because of it, and the files to look at.
    """
    place = place_of(ctx)
    world = place.read_world()
    look = look_of(place.environ, sys.stdout.encoding, is_terminal=sys.stdout.isatty())
    story = Story(place, world, look, look_around(place, world))
    say("\n".join(story.of(name)))


@frozen
class Story:
    """Tells why, from the journal."""

    place: Place
    world: World
    look: Look
    found: Mapping[str, Found]
    """What has become of sessions without a supervisor."""

    def of(self, name: str | None) -> Iterator[str]:
        """The story of whatever *name* means.

        Raises:
            SupervisionError: nothing, or several things.
        """
        from kasmos.exceptions import SupervisionError
        from kasmos.store.lookup import (
            find_run,
            find_session,
            find_task,
            match_runs,
            match_sessions,
            match_tasks,
            unknown,
        )

        world = self.world
        if name is None:
            if not world.runs:
                raise SupervisionError("there has been no run yet")
            return self.run(next(reversed(world.runs.values())))
        tasks = match_tasks(world, name)
        if name not in world.runs and name not in world.sessions and len(tasks) == 1:
            return self.task(tasks[0])
        if name in world.sessions or (not match_runs(world, name) and match_sessions(world, name)):
            return self.session(find_session(world, name))
        if match_runs(world, name):
            return self.run(find_run(world, name))
        if tasks:
            return self.task(find_task(world, name))
        raise unknown(world, name)

    def run(self, run: RunView) -> Iterator[str]:
        """Why a run ended so: the tasks that are to blame, each with its cause."""
        over = [name for name, one in self.found.items() if not one.fate.at_work]
        counts = facts.count_words(facts.count_tasks(run, over))
        word = facts.present_status(run, supervised=self.place.supervisor_pid() is not None)
        yield f"{self.look.paint(f'run {run.id}', 'bold')}  {self._word(word)}: {counts}"
        yield f"  {facts.run_title(run)}"
        yield from self._used(self.world.ledger.runs.get(run.id, Tally()))
        if run.cancel_reason:
            yield f"  ended for good: {clean(run.cancel_reason)}"
        blamed = failures(run)
        for task in blamed:
            yield ""
            yield from self.task(task)
        if not blamed:
            waiting = "; not every task has ended" if run.unfinished else ""
            yield f"  no task has failed by itself{waiting}"
        for task in run.tasks.values():
            if task.takeover is not None:
                yield ""
                yield from self.task(task)
        for session in self.world.sessions.values():
            if session.run_id == run.id and session.id in self.found:
                yield f"  {clean(session.name)}: {self._attempt(session)}   kas why {session.id}"

    def task(self, task: TaskView) -> Iterator[str]:
        """Why a task ended so, from its own end back to the first cause."""
        world, run = self.world, self.world.runs[task.run_id]
        found = self.found.get(task.state.session_id) if isinstance(task.state, Active) else None
        said = str(found or describe(world, task) or task_status(task))
        label = self.look.paint(f"task {task.id}  {facts.task_label(task)}", "bold")
        yield f"{label}  {self.look.status(task_status(task), said)}"
        if task.takeover is not None:
            yield f"  since {local_moment(task.takeover.since_at)}: {clean(held_by(task))}"
        cause = facts.cause_of(task)
        yield from self._roots(run, cause.because_of if cause is not None else ())
        sessions = facts.all_sessions(world, task)
        for session in sessions:
            yield f"  {self._attempt(session)}"
            yield from self._asked(session)
        yield from self._used(task_tally(world, task))
        decisive = facts.cause_session(world, task)
        yield from self._tail(decisive, facts.tail_of(world, task))
        yield from self._consequences(run, task)
        if decisive is not None or sessions:
            yield from self._where(decisive or sessions[-1])
        elif cause is None:
            yield "  it has not begun"

    def session(self, session: SessionView) -> Iterator[str]:
        """How a session ended."""
        yield self.look.paint(f"session {session.id}  {clean(session.name)}", "bold")
        yield f"  {self._attempt(session)}"
        yield from self._asked(session)
        if session.reason:
            yield f"  {clean(session.reason)}"
        yield from self._used(session.tally)
        yield from self._tail(session, session.tail)
        yield from self._where(session)
        if session.run_id and session.task_id:
            yield f"  kas why {session.run_id}.{session.task_id}"

    def _word(self, word: str) -> str:
        return self.look.status(word, word.replace("_", " "))

    def _roots(self, run: RunView, roots: tuple[str, ...]) -> Iterator[str]:
        for name in roots:
            root = run.tasks.get(name)
            if root is not None:
                said = self.look.status(task_status(root), describe(self.world, root))
                yield f"  because of task {facts.task_label(root)}: {said}   kas why {root.id}"

    def _attempt(self, session: SessionView) -> str:
        what = f"attempt {session.attempt}"
        if session.kind is SessionKind.CHECK:
            what += f" check `{facts.check_command(self.world, session) or session.check}`"
        elif session.profile:
            what += f" ({clean(session.profile)}{', with a person' if session.attended else ''})"
        taken = duration(seconds(self.world, session, self.found, time.monotonic(), time.time()))
        end = str(self.found.get(session.id) or session.exit or session.state.value.replace("_", " "))
        if session.awaits and session.state.live:
            end += f", hangs: {clean(session.awaits)}"
        line = f"{local_moment(session.starting_at)}  {what}: {end}" + (f" after {taken}" if taken != "-" else "")
        if session.stop_reason is not None:
            killed = ", then killed" if session.killed else ""
            line += f", stopped ({session.stop_reason.value.replace('_', ' ')}){killed}"
        if session.reason and session.exit is None:
            line += f": {clean(session.reason)}"
        left = [f"{one.name} ({one.pid}) {one.action}" for one in session.leftovers]
        return line + (f"; left behind: {clean(', '.join(left))}" if left else "")

    def _asked(self, session: SessionView) -> Iterator[str]:
        """What it asked of late, and who answered."""
        from kasmos.orchestration.approvals import told

        for name in session.approvals:
            view = self.world.approvals.get(name)
            if view is None:
                continue
            is_open = view.answer is None and not view.state.settled
            said = f"waits for you: {view.why}" if is_open else told(view)
            when = local_moment(view.requested_at)
            yield f"    {when}  asked {view.id}: {clean(view.ask.subject)}: {clean(said)}"

    def _used(self, tally: Tally) -> Iterator[str]:
        said = say_tally(tally)
        if said:
            yield f"  used {said}"

    def _tail(self, session: SessionView | None, text: str) -> Iterator[str]:
        if screen := self._last_screen(session):
            # What a terminal was told says little without the terminal.
            title, lines = "what its terminal showed last", screen
        else:
            title, lines = "last lines of the output", facts.meant_lines(session, text, TAIL_LINES)
        if lines:
            yield f"  {title}:"
            bar = self.look.paint("│" if self.look.unicode else "|", "dim")
            yield from (f"    {bar} {line}" for line in lines)

    def _last_screen(self, session: SessionView | None) -> list[str]:
        if session is None or session.backend is not ExecutionMode.TMUX:
            return []
        lines = load_screen(str(self.place.root.session_dir(session.id))) or ()
        return [shown for line in lines if (shown := clean(line).rstrip())][-TAIL_LINES:]

    def _consequences(self, run: RunView, task: TaskView) -> Iterator[str]:
        led_to = [
            other
            for other in run.tasks.values()
            if (cause := facts.cause_of(other)) is not None and task.spec.id in cause.because_of
        ]
        if led_to:
            yield "  because of it:"
            for other in led_to:
                yield f"    {facts.task_label(other)}: {self._word(task_status(other))}"

    def _checked(self, check: SessionView) -> SessionView | None:
        """The session whose work a check was for, if it is known."""
        attempt = (check.run_id, check.task_id, check.attempt)
        newest_first = reversed(self.world.sessions.values())
        agents = (one for one in newest_first if one.kind is SessionKind.AGENT)
        return next((one for one in agents if (one.run_id, one.task_id, one.attempt) == attempt), None)

    def _where(self, session: SessionView) -> Iterator[str]:
        directory = self.place.root.session_dir(session.id)
        yield "  look at:"
        yield f"    kas logs {log_name(self.world, session)}"
        if session.backend is ExecutionMode.TMUX and not session.state.live:
            yield f"    kas capture {log_name(self.world, session)}"
        if session.kind is SessionKind.CHECK and (checked := self._checked(session)) is not None:
            yield f"    kas logs {log_name(self.world, checked)}"
        run = self.world.runs.get(session.run_id or "")
        found = [(run.project, "where it worked")] if run is not None else []
        for name, what in _FILES:
            path = directory / name
            if path.exists() and path.stat().st_size:
                found.append((str(path), what))
        yield from (f"    {line}" for line in columns(found))
