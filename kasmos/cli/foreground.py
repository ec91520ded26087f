"""The foreground: being the supervisor for as long as there is work, or following the one there is.

`kas run` takes the state root's lock and becomes its supervisor. If another process has the lock, the plan is
handed to that one and followed; if that one dies, this process takes over. Either way the same view shows it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click
import trio

from kasmos.cli.render import View, make_view
from kasmos.cli.render.junit import junit
from kasmos.cli.render.summary import summary
from kasmos.config.load import find_project, load_config
from kasmos.config.schema import Config
from kasmos.daemon.service import RunOverrides
from kasmos.exceptions import ClientError, KasmosError, Mistake, PlanError, RequestError, StateLockedError
from kasmos.model import event as ev
from kasmos.model.event import Record
from kasmos.model.profile import PromptMode
from kasmos.model.task import Outcome
from kasmos.model.view import RunState, RunView, World
from kasmos.plans import load_plan
from kasmos.serve import Engine, Options, open_engine
from kasmos.sessions.environment import child_environment, keys_not_passed
from kasmos.sessions.output import LogFile
from kasmos.store import fold
from kasmos.store.journal import read_world
from kasmos.store.stateroot import StateRoot, find_state_root

if TYPE_CHECKING:
    from kasmos.client.aio import Client

STDIN = "-"
EXIT_OF_SIGNAL = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
LEAVE_GRACE = 2.5
"""Seconds that readers of the API are given when the work is over."""
TAKEOVER_INTERVAL = 0.2
"""Seconds between attempts to reach, or to become, the supervisor while one comes up or leaves."""
TAKEOVER_TIMEOUT = 15.0
"""Seconds after which a supervisor that holds the lock and does not answer is reported."""


@attrs.frozen
class Request:
    """What the person asked for."""

    plan: str | None = None
    resume: str | None = None
    """Id of the run to continue; empty for the newest unfinished one; None when a plan is given."""
    retry: tuple[str, ...] | None = None
    """Tasks of the run in `resume` to try again first; empty for all that did not succeed."""
    overrides: RunOverrides = RunOverrides()
    fresh: bool = False
    as_json: bool = False
    junit: str | None = None
    summary: str | None = None


@attrs.frozen
class Place:
    """Where the command works: project, configuration, state root."""

    project: Path
    root: StateRoot
    environ: Mapping[str, str] = attrs.field(repr=False)
    warnings: tuple[str, ...] = ()
    """What the configuration's loader had to say."""

    def configure(self, flags: Mapping[str, object]) -> Config:
        """The configuration with these key paths on top."""
        return load_config(self.project, environ=self.environ, flags=flags).config


@attrs.frozen
class _Document:
    source: str
    data: bytes


def place_of(ctx: click.Context) -> Place:
    """Find the project and its state root from the options of `kas` itself.

    Raises:
        ConfigError: the configuration is wrong.
    """
    options: Mapping[str, str | None] = ctx.find_root().params
    environ = dict(os.environ)
    named = options.get("project")
    project = Path(named).resolve() if named else find_project(Path.cwd())
    loaded = load_config(project, environ=environ)
    override, configured = options.get("state_root"), loaded.config.state_root
    root = find_state_root(project, environ=environ, override=override, configured=configured)
    return Place(project, root, environ, tuple(map(str, loaded.warnings)))


def execute(place: Place, request: Request) -> int:
    """Do what was asked; the exit status of `kas`.

    Raises:
        KasmosError: it could not be begun.
    """
    _complete_streams()
    _reset_dispositions()
    _require_writable(request.junit)
    _require_writable(request.summary)
    document = _read(request.plan) if request.plan is not None else None
    warnings = place.warnings
    if document is not None:
        warnings += _check(place, request, document)
    view = make_view(
        json=request.as_json,
        stdout=sys.stdout,
        stderr=sys.stderr,
        environ=place.environ,
        is_terminal=sys.stdout.isatty(),
    )
    for warning in warnings:
        view.message(f"warning: {warning}")
    foreground = _Foreground(place, request, document, view)
    try:
        return trio.run(foreground.main, strict_exception_groups=True)
    except BaseExceptionGroup as group:
        raise _single(group) from group


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error of ours in a group, for the person; else the group."""
    leaves = list(_leaves(group))
    ours = [leaf for leaf in leaves if isinstance(leaf, KasmosError)]
    if len(leaves) == 1:
        return leaves[0]
    return ours[0] if ours and len(ours) == len(leaves) else group


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _leaves(one)
        else:
            yield one


def _complete_streams() -> None:
    """Put nothing in the place of standard streams that are closed.

    The next file that is opened would take their number, and get what is meant for the person.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: those before it have been seen to.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  # as long as the process


def _require_writable(path: str | None) -> None:
    """Refuse a report that cannot be written before the run, not after it."""
    if path is None:
        return
    target = Path(path)
    place = target if target.exists() else target.absolute().parent
    if target.is_dir() or not place.exists() or not os.access(place, os.W_OK):
        raise click.UsageError(f"the report {path} cannot be written there")


def _reset_dispositions() -> None:
    """Undo what a parent made us ignore: programs would inherit it, and exit statuses would be lost.

    With SIGCHLD ignored the kernel reaps our children itself and every exit reads as 0.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # nohup: we go on ignoring it; a handler, unlike SIG_IGN, is not inherited.
        signal.signal(signal.SIGHUP, lambda *_: None)


def _read(plan: str) -> _Document:
    if plan == STDIN:
        return _Document(STDIN, sys.stdin.buffer.read())
    try:
        return _Document(os.path.realpath(plan), Path(plan).read_bytes())
    except OSError as error:
        raise PlanError([Mistake(plan, f"cannot be read: {error.strerror}")]) from error


def _check(place: Place, request: Request, document: _Document) -> tuple[str, ...]:
    """Refuse a wrong plan before anything is touched; what the person should know all the same.

    Raises:
        PlanError: with every mistake.
    """
    config = place.configure(request.overrides.flags())
    default = config.orchestration.default_agent
    parsed = load_plan(document.data, document.source, config.agents, default)
    used = dict.fromkeys(name for task in parsed.plan.tasks if (name := task.agent or default) is not None)
    warnings = []
    for profile in (config.agents[name] for name in used):
        environment = child_environment(place.environ, env_pass=profile.env_pass, env=profile.env, own={})
        missing = keys_not_passed(place.environ, environment)
        # A script is no agent: it is not expected to use a model.
        if missing and profile.prompt is not PromptMode.SCRIPT:
            names = ", ".join(missing)
            warnings.append(f"{names} is set here but not passed to agent {profile.name!r}: name it in its `env_pass`")
    return tuple(warnings)


class _Foreground:
    """One invocation of `kas run` or `kas resume`."""

    def __init__(self, place: Place, request: Request, document: _Document | None, view: View) -> None:
        self._place = place
        self._request = request
        self._document = document
        self._view = view
        self._run_id: str | None = None
        self._world = World()
        self._begun = False
        self._engine: Engine | None = None
        self._root = trio.CancelScope()
        self._signals: list[signal.Signals] = []
        self._signalled = trio.Event()
        self._fed = trio.Event()
        """Set, and replaced, each time the view has been shown something."""

    async def main(self) -> int:
        """Supervise or follow until the run has ended; the exit status."""
        async with trio.open_nursery() as nursery:
            # Before anything is begun: from here on a signal never just kills us.
            await nursery.start(self._heed_signals)
            code = await self._until_over()
            nursery.cancel_scope.cancel()
        if self._begun:
            self._report()
        return code

    async def _heed_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        """First signal: stop and put back. Second: at once. Third: leave everything running, and go."""
        watched = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            watched.append(signal.SIGHUP)
        with trio.open_signal_receiver(*watched) as received:
            task_status.started()
            async for signum in received:
                self._signals.append(signal.Signals(signum))
                self._signalled.set()
                if self._engine is not None:
                    self._escalate(self._engine, len(self._signals))

    def _escalate(self, engine: Engine, count: int) -> None:
        match count:
            case 1:
                self._view.message(f"{self._signals[0].name}: stopping; again to stop at once")
            case 2:
                self._view.message("stopping at once; again to leave the programs running and go")
                engine.orchestrator.hurry()
            case _:
                self._view.message("left; what still runs is taken up by the next `kas run` or `kas resume`")
                engine.abandon()
                self._root.cancel()

    async def _until_over(self) -> int:
        give_up = trio.current_time() + TAKEOVER_TIMEOUT
        while True:
            if self._signals:
                return EXIT_OF_SIGNAL[self._signals[0]]
            try:
                return await self._supervise()
            except StateLockedError as locked:
                refusal: KasmosError = locked
            except BaseExceptionGroup as group:
                error = _single(group)
                if not isinstance(error, StateLockedError):
                    raise
                refusal = error
            try:
                code = await self._follow_other()
                if code is not None:
                    return code
                # It died under us: perhaps we can take over.
                give_up = trio.current_time() + TAKEOVER_TIMEOUT
            except ClientError:
                # It holds the lock and does not answer: it is just coming up, or just leaving.
                if trio.current_time() > give_up:
                    raise refusal from None
            await trio.sleep(TAKEOVER_INTERVAL)

    # --- being the supervisor ----------------------------------------------------------

    async def _supervise(self) -> int:
        place = self._place
        options = Options(
            project=place.project,
            root=place.root,
            configure=place.configure,
            environ=place.environ,
            announce=self._view.message,
            lock_wait=0.3,
        )
        # Anew each time: this may be the second attempt, after one that found the lock taken.
        with trio.CancelScope() as self._root:
            async with open_engine(options) as engine:
                self._engine = engine
                try:
                    return await self._work(engine)
                finally:
                    self._engine = None
        return self._exit_code(self._world)

    async def _work(self, engine: Engine) -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.watch_ground)
            code = await self._until_idle(engine)
            nursery.cancel_scope.cancel()
        return code

    async def _until_idle(self, engine: Engine) -> int:
        async with trio.open_nursery() as nursery:
            after = await self._begin(engine)
            over = trio.Event()
            nursery.start_soon(self._show, engine, after)
            nursery.start_soon(engine.serve_api, self._place.root.socket, over, self._view.message)
            await self._first(engine.orchestrator.wait_idle, self._signalled.wait)
            if self._signals:
                await engine.orchestrator.interrupt(f"received {self._signals[0].name}")
            await engine.journal.flush()
            await self._until_shown(engine)
            over.set()
            nursery.cancel_scope.deadline = trio.current_time() + LEAVE_GRACE
            engine.bus.close()
        return self._exit_code(engine.journal.world)

    async def _first(self, *waits: Callable[[], Awaitable[None]]) -> None:
        """Wait until one of these returns."""
        async with trio.open_nursery() as nursery:

            async def run(wait: Callable[[], Awaitable[None]]) -> None:
                await wait()
                nursery.cancel_scope.cancel()

            for wait in waits:
                nursery.start_soon(run, wait)

    async def _begin(self, engine: Engine) -> int:
        """Submit the plan, or find the run to resume; the journal number after which to show events."""
        orchestrator = engine.orchestrator
        after = engine.journal.world.seq
        snapshot = _snapshot(engine.journal.world)
        if self._document is not None:
            submitted = await engine.service.submit_run(
                self._document.data,
                self._document.source,
                fresh=self._request.fresh,
                overrides=self._request.overrides,
            )
            self._run_id = submitted.run_id
            for warning in submitted.warnings:
                self._view.message(f"warning: {warning}")
            continued = submitted.continued
        else:
            if self._request.retry is not None:
                await orchestrator.retry(self._request.resume or "", self._request.retry)
            run = find_unfinished(engine.journal.world, self._request.resume or "")
            if not orchestrator.is_driven(run.id):
                await orchestrator.continue_run(run.id)
            self._run_id, continued = run.id, True
        self._world = snapshot
        notice = _notice(snapshot, self._run_id, continued)
        others = [run_id for run_id in engine.findings.to_continue if run_id != self._run_id]
        if others:
            self._view.message(f"also continuing {', '.join(others)}: their supervisor died with them under way")
        if self._begun:
            self._view.message(notice)
        elif self._run_id in snapshot.runs:
            self._view.begin(snapshot, self._run_id, notice)
            self._begun = True
        return after

    async def _show(self, engine: Engine, after: int) -> None:
        """Feed the view from the bus, and let it draw between events where it wants to."""
        async with trio.open_nursery() as nursery:
            if self._view.interval is not None:
                nursery.start_soon(self._tick, engine, self._view.interval)
            async with engine.bus.subscribe(after) as subscription:
                async for records in subscription:
                    self._feed(records)
            nursery.cancel_scope.cancel()

    async def _tick(self, engine: Engine, interval: float) -> None:
        while True:
            await trio.sleep(interval)
            if self._begun:
                self._view.tick(time.monotonic(), self._tails(engine))

    def _tails(self, engine: Engine) -> dict[str, str]:
        tails = {}
        run = self._world.runs.get(self._run_id or "")
        for task in run.tasks.values() if run is not None else ():
            session = engine.orchestrator.live_session(task.sessions[-1]) if task.sessions else None
            if session is not None:
                end = session.output_bytes
                text = session.read_nowait(max(0, end - 512), 512).data.decode(errors="replace")
                lines = [line for line in text.splitlines() if line.strip()]
                tails[session.spec.id] = lines[-1] if lines else ""
        return tails

    async def _until_shown(self, engine: Engine) -> None:
        """Wait until the view has seen the newest event; bounded, in case the view is stuck."""
        newest = engine.journal.world.seq
        with trio.move_on_after(5):
            while self._world.seq < newest:
                await self._fed.wait()

    def _feed(self, records: Iterable[Record]) -> None:
        for record in records:
            fold.apply(self._world, record)
            self._show_record(record)
        fed, self._fed = self._fed, trio.Event()
        fed.set()

    def _show_record(self, record: Record) -> None:
        if not self._begun:
            if not (isinstance(record.event, ev.RunStarted) and record.event.run_id == self._run_id):
                return
            self._view.begin(self._world, record.event.run_id, _notice(World(), record.event.run_id, False))
            self._begun = True
        self._view.record(record, self._world)

    def _exit_code(self, world: World) -> int:
        run = world.runs.get(self._run_id or "")
        if run is not None and run.state is RunState.ENDED:
            return 0 if run.outcome is Outcome.SUCCEEDED else 1
        return EXIT_OF_SIGNAL.get(self._signals[0], 1) if self._signals else 1

    # --- following another supervisor ----------------------------------------------------

    async def _follow_other(self) -> int | None:
        """Hand the plan to the supervisor there is, and follow; None when it went away before the run ended.

        Raises:
            ClientError: it does not answer.
            RequestError: it refuses.
        """
        outcome: list[int | KasmosError | None] = []

        async def follow() -> None:
            # The error as a value: out of a nursery it would come as a group.
            try:
                outcome.append(await self._follow())
            except KasmosError as error:
                outcome.append(error)

        await self._first(follow, self._signalled.wait)
        if not outcome:
            self._view.message("no longer following; the run goes on (`kas stop --all` ends it)")
            return EXIT_OF_SIGNAL[self._signals[0]]
        result = outcome[0]
        if isinstance(result, RequestError) and result.code == "draining":
            raise ClientError(str(result)) from result
        if isinstance(result, KasmosError):
            raise result
        return result

    async def _follow(self) -> int | None:
        # Here, since httpx takes long to import and most runs have no other supervisor.
        from kasmos.client.aio import connect

        root = self._place.root
        async with connect(root.socket) as client:
            if self._document is not None:
                options = attrs.asdict(self._request.overrides)
                answer = await client.submit_run(
                    self._document.data, self._document.source, fresh=self._request.fresh, **options
                )
                self._run_id = str(answer["run_id"])
                # If that supervisor dies, its run is continued, not begun anew once more.
                self._request = attrs.evolve(self._request, fresh=False)
            # In a thread: a long journal takes a while to read.
            self._world = await trio.to_thread.run_sync(read_world, root.db)
            if self._document is None:
                self._run_id = find_unfinished(self._world, self._request.resume or "").id
            return await self._follow_events(client)

    async def _follow_events(self, client: Client) -> int | None:
        run = self._world.runs[self._run_id or ""]
        if not self._begun:
            self._view.begin(self._world, run.id, f"following run {run.id} of a supervisor that runs already")
            self._begun = True
        try:
            events = client.events(self._world.seq, patience=0.5)
            while self._world.runs[run.id].state in (RunState.RUNNING, RunState.PARKED):
                self._feed([await anext(events)])
        except ClientError:
            return None
        if self._world.runs[run.id].state is RunState.INTERRUPTED:
            self._view.message("its supervisor was interrupted; the same command goes on from here")
            return 1
        return self._exit_code(self._world)

    # --- afterwards ------------------------------------------------------------------------

    def _report(self) -> None:
        if self._begun:
            self._view.end(self._world)
        run_id = self._run_id or ""
        try:
            if self._request.junit is not None:
                Path(self._request.junit).write_bytes(junit(self._world, run_id, self._log_tail))
            if self._request.summary is not None:
                with open(self._request.summary, "a", encoding="utf-8") as file:
                    file.write(summary(self._world, run_id))
        except OSError as error:
            # The exit status is the run's, whatever became of what is told about it.
            click.echo(f"kas: the report {error.filename} cannot be written: {error.strerror}", err=True)

    def _log_tail(self, session_id: str) -> str:
        return LogFile(self._place.root.session_dir(session_id)).tail_lines(100)


def find_unfinished(world: World, name: str) -> RunView:
    """The unfinished run with this id, or the newest one.

    Raises:
        RequestError: there is none.
    """
    unfinished = [run for run in world.runs.values() if run.unfinished and run.id.startswith(name)]
    if not unfinished:
        what = f"there is no unfinished run {name}" if name else "there is no unfinished run"
        raise RequestError(404, "unknown_run", f"{what}; `kas runs` lists all, `kas retry RUN` takes up one that ended")
    return unfinished[-1]


def _snapshot(world: World) -> World:
    """The world as it is now. Views are frozen, so the dictionaries are all that needs a copy."""
    return attrs.evolve(world, runs=dict(world.runs), sessions=dict(world.sessions))


def _notice(world: World, run_id: str, continued: bool) -> str:
    run = world.runs.get(run_id)
    if run is None or not continued:
        return ""
    if not run.unfinished:
        return f"run {run_id} had ended when its supervisor was killed; `kas run --fresh` does it all once more"
    ended = sum(1 for task in run.tasks.values() if task.outcome is not None)
    return f"continuing run {run_id}: {ended} of {len(run.tasks)} tasks have ended"
