"""Being the supervisor, for as long as there is work."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import trio

from kasmos.cli.awaiting import first
from kasmos.cli.errand import Errand, continuing, ending, trying_again
from kasmos.config.schema import Config
from kasmos.exceptions import KasmosError
from kasmos.model.view import World
from kasmos.serve import Engine, Options, open_engine, serve_when_knocked

LEAVE_GRACE = 2.5
"""Seconds that readers of the API are given when the work is over."""
SHOW_TIMEOUT = 5.0
"""Seconds that are waited for a view that is stuck."""


class Supervising:
    """Does an errand as the supervisor of its state root."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self._engine: Engine | None = None
        self._root = trio.CancelScope()

    def escalate(self, count: int) -> None:
        """Heed a signal. First: stop and put back. Second: at once. Third: leave everything running, and go."""
        engine, view = self._engine, self._errand.view
        if engine is None:
            # Nothing has been begun, or all is done: there is nothing to be put back, only something to wait for.
            self._root.cancel()
            return
        match count:
            case 1 if self._errand.request.keep:
                view.message(f"{self._errand.signals.received[0].name}: leaving; what runs is left running")
                engine.orchestrator.refuse(self._reason)
            case 1:
                view.message(f"{self._errand.signals.received[0].name}: stopping; again to stop at once")
                # At once: what is just being begun is not begun after a signal.
                engine.orchestrator.refuse(self._reason)
            case 2:
                view.message("stopping at once; again to leave the programs running and go")
                engine.leaving.hurry()
            case _:
                view.message("left; what still runs is taken up by the next `kas run` or `kas resume`")
                engine.abandon()
                self._root.cancel()

    @property
    def _reason(self) -> str:
        return f"received {self._errand.signals.received[0].name}"

    async def run(self) -> int:
        """Supervise until nothing is under way any more; the exit status.

        Raises:
            StateLockedError: another supervisor owns the state root; perhaps within a group.
            KasmosError: it could not be begun.
        """
        place, errand = self._errand.place, self._errand
        options = Options(
            project=place.project,
            root=place.root,
            configure=self._configure,
            environ=place.environ,
            announce=errand.view.message,
            lock_wait=0.3,
            # Who only wants an end has nothing taken up that would have to be stopped then.
            take_up=errand.request.cancel is None,
            may_ask=sys.stderr.isatty(),
        )
        # Anew each time: this may be the second attempt, after one that found the lock taken.
        with trio.CancelScope() as self._root:
            async with open_engine(options) as engine:
                self._engine = engine
                try:
                    return await self._work(engine)
                finally:
                    self._engine = None
        return errand.exit_code(errand.world)

    def _configure(self, flags: Mapping[str, object]) -> Config:
        daily = self._errand.request.budget_daily
        return self._errand.place.configure(flags if daily is None else {"budgets.daily": daily, **flags})

    async def _work(self, engine: Engine) -> int:
        for count in range(1, len(self._errand.signals.received) + 1):
            # They came while the engine came up.
            self.escalate(count)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.watch_ground)
            code = await self._until_idle(engine)
            nursery.cancel_scope.cancel()
        return code

    async def _until_idle(self, engine: Engine) -> int:
        errand = self._errand
        async with trio.open_nursery() as nursery:
            after = await self._begin_unless_signalled(engine)
            over = trio.Event()
            if after is not None:
                nursery.start_soon(self._show, engine, after)
                socket, say = errand.place.root.socket, errand.view.message
                nursery.start_soon(serve_when_knocked, engine.service, socket, over, say)
                await first(engine.orchestrator.leave_when_idle, errand.signals.first.wait)
            if errand.signals.received:
                await self._leave(engine)
                await engine.leaving.wait_unless_stuck(engine.journal.flush)
            else:
                await engine.journal.flush()
            if after is not None:
                with trio.move_on_after(SHOW_TIMEOUT):
                    await errand.wait_shown(engine.journal.world.seq)
            over.set()
            nursery.cancel_scope.deadline = trio.current_time() + LEAVE_GRACE
            engine.bus.close()
        return errand.exit_code(engine.journal.world)

    # --- the beginning -----------------------------------------------------------------

    async def _begin_unless_signalled(self, engine: Engine) -> int | None:
        """The journal number after which to show events; None if a signal came first."""
        after: int | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._interrupt_when_signalled, engine)
            try:
                after = await self._begin(engine)
            except KasmosError:
                if not self._errand.signals.received:
                    raise
                self._errand.view.message("nothing new was begun")
            nursery.cancel_scope.cancel()
        return after

    async def _interrupt_when_signalled(self, engine: Engine) -> None:
        await self._errand.signals.first.wait()
        await self._leave(engine)

    async def _leave(self, engine: Engine) -> None:
        """Stop what runs, or leave it running if that was asked for; returns when nothing of it is ours any more."""
        if not self._errand.request.keep:
            departure = await engine.leaving.interrupt(self._reason)
            if departure.unwritten:
                self._errand.view.message(str(departure))
            return
        left = await engine.leaving.depart(self._reason, stop=False)
        if left.left:
            self._errand.view.message(str(left))

    async def _begin(self, engine: Engine) -> int:
        """Submit the plan, or find the run to resume; the journal number after which to show events."""
        errand = self._errand
        await self._try_refused_logins_again(engine)
        after = engine.journal.world.seq
        before = engine.journal.world.copy()
        handed_in = before.runs.get(errand.run_id or "")
        if handed_in is not None and errand.document is not None:
            # It was handed to a supervisor that is gone. Perhaps only its end was missed: nothing is run again.
            if handed_in.unfinished and not engine.orchestrator.is_driven(handed_in.id):
                await engine.orchestrator.continue_run(handed_in.id)
            if errand.begun:
                return errand.shown
            errand.present(before, continuing(handed_in))
            return after
        if errand.document is not None:
            notice = await self._submit(engine, before)
        elif errand.request.cancel is not None:
            notice = await self._cancel(engine, before, errand.request.cancel)
        else:
            notice = await self._take_up(engine, before)
        self._tell_of_others(engine)
        errand.present(before, notice)
        return after

    async def _try_refused_logins_again(self, engine: Engine) -> None:
        """Whoever gives this command wants it tried: what waits for a person has got one."""
        for view in list(engine.journal.world.accounts.values()):
            if view.parked is not None and view.parked.until_at is None:
                await engine.orchestrator.release_account(view.name, "kas run")

    async def _submit(self, engine: Engine, before: World) -> str:
        errand = self._errand
        assert errand.document is not None
        errand.announce_end_of_old(before)
        submitted = await engine.service.runs.submit(
            errand.document.data,
            errand.document.source,
            fresh=errand.request.fresh,
            overrides=errand.request.overrides,
        )
        errand.run_id = submitted.run_id
        errand.warn(submitted.warnings)
        return continuing(before.runs[submitted.run_id]) if submitted.continued else ""

    async def _cancel(self, engine: Engine, before: World, reason: str) -> str:
        errand = self._errand
        errand.cancelled = errand.find_cancelled(before)
        errand.run_id = errand.cancelled[-1]
        for run_id in errand.cancelled:
            await engine.orchestrator.cancel_run(run_id, reason)
        return ending(before, errand.cancelled)

    async def _take_up(self, engine: Engine, before: World) -> str:
        errand, request = self._errand, self._errand.request
        if request.retry is not None and request.resume:
            run = engine.service.runs.get(request.resume)
            await engine.service.runs.retry(run.id, request.retry, resume=request.in_conversation)
            errand.run_id = run.id
            return trying_again(before.runs[run.id], request.retry)
        run = errand.find_run(engine.journal.world)
        if not engine.orchestrator.is_driven(run.id):
            await engine.orchestrator.continue_run(run.id)
        errand.run_id = run.id
        return continuing(run)

    def _tell_of_others(self, engine: Engine) -> None:
        world, mine = engine.journal.world, self._errand.run_id
        driven = (world.runs[name] for name in engine.findings.to_continue if engine.orchestrator.is_driven(name))
        others = [run.id for run in driven if run.id != mine and run.cancel_reason is None]
        if others:
            message = f"also continuing {', '.join(others)}: their supervisor died with them under way"
            self._errand.view.message(message)

    # --- showing it --------------------------------------------------------------------

    async def _show(self, engine: Engine, after: int) -> None:
        """Feed the view from the bus, and let it draw between events where it wants to."""
        async with trio.open_nursery() as nursery:
            if self._errand.view.interval is not None:
                nursery.start_soon(self._tick, engine, self._errand.view.interval)
            async with engine.bus.subscribe(after) as subscription:
                async for records in subscription:
                    self._errand.tell(records, engine.journal.world)
            nursery.cancel_scope.cancel()

    async def _tick(self, engine: Engine, interval: float) -> None:
        while True:
            await trio.sleep(interval)
            if self._errand.begun:
                self._errand.view.tick(time.monotonic(), self._tails(engine))

    def _tails(self, engine: Engine) -> dict[str, str]:
        tails = {}
        run = self._errand.world.runs.get(self._errand.run_id or "")
        for task in run.tasks.values() if run is not None else ():
            session = engine.orchestrator.live_session(task.sessions[-1]) if task.sessions else None
            if session is None:
                continue
            said = engine.orchestrator.said(session.spec.id)
            if said is not None:
                # What an agent means, rather than the JSON it says it in.
                tails[session.spec.id] = said
            else:
                end = session.output_bytes
                text = session.read_nowait(max(0, end - 512), 512).data.decode(errors="replace")
                lines = [line for line in text.splitlines() if line.strip()]
                tails[session.spec.id] = lines[-1] if lines else ""
        return tails
