"""The doorman as our child: started, waited for, dismissed. What it does is written in `launch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import attrs
import trio

from kasmos.model.session import ExitStatus
from kasmos.model.value import define, frozen
from kasmos.sessions.services import Services
from kasmos.sessions.threads import no_thread_is_exhaustion


@frozen
class Descriptors:
    """What a doorman is given."""

    gate: int
    """Its standard input."""
    output: int
    errors: int
    lease: int


@define(eq=False)
class _Begun:
    """Told by `trio.run_process` that there is a process; or why there is none."""

    over: trio.Event = attrs.field(factory=trio.Event)
    process: trio.Process | None = None
    failure: Exception | None = None

    def started(self, process: trio.Process) -> None:
        self.process = process
        self.over.set()


@define(eq=False)
class Doorman:
    """The process between us and the shim. It may end, and be ended, without any loss to the program."""

    pid: int = 0
    ended: trio.Event = attrs.field(factory=trio.Event)
    _returncode: int | None = None
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def start(
        self, services: Services, command: Sequence[str], given: Descriptors, *, env: dict[str, str], cwd: str
    ) -> None:
        """Start it.

        Raises:
            OSError: the kernel would not.

        Cancellation: before there is a process, or not at all: it can be dismissed afterwards.
        """

        begun = _Begun()

        async def run() -> None:
            try:
                with self._scope:
                    done = await trio.run_process(
                        command,
                        stdin=given.gate,
                        stdout=given.output,
                        stderr=given.errors,
                        env=env,
                        cwd=cwd,
                        start_new_session=True,
                        pass_fds=(given.lease,),
                        check=False,
                        deliver_cancel=_kill,
                        task_status=cast("trio.TaskStatus[trio.Process]", begun),
                    )
                    self._returncode = done.returncode
            # For whoever waits below; the nursery is everybody's, and would end with it.
            except Exception as error:
                if begun.process is not None:
                    raise
                begun.failure = error
            finally:
                begun.over.set()
                self.ended.set()

        await services.spawn_lanes.acquire_on_behalf_of(self)
        try:
            # A start cannot be taken back half-way: whoever is cancelled must know what there is to undo.
            # It lasts as long as fork and exec, which run in a thread that cannot be abandoned anyway.
            with trio.CancelScope(shield=True), no_thread_is_exhaustion():
                # Not `Nursery.start`: a nursery for each start, and nothing else to be had from it.
                services.nursery.start_soon(run)
                await begun.over.wait()
                process = begun.process
                if process is None:
                    raise begun.failure or RuntimeError("nobody starts anything any more: the backend has been closed")
                self.pid = process.pid
        finally:
            services.spawn_lanes.release_on_behalf_of(self)

    def dismiss(self) -> None:
        """Kill it, and nothing below it."""
        self._scope.cancel()

    @property
    def has_outlived_all(self) -> bool:
        """Whether it has ended by itself: it waits for the shim, and the shim for recorder and copier."""
        return self._returncode is not None and self._returncode >= 0

    @property
    def word(self) -> ExitStatus | None:
        """How the program ended, by the doorman's own exit; None where that proves nothing.

        Above 128 it may tell of the shim's end by a signal, not of the program's.
        """
        code = self._returncode
        return ExitStatus(code=code) if code is not None and 0 <= code <= 128 else None


async def _kill(process: trio.Process) -> None:
    # The doorman alone: the program below it is stopped by the ladder, or left running.
    process.kill()
