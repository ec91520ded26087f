"""The doorman as our child: started, waited for, dismissed. What it does is written in `launch`."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from kasmos.model.session import ExitStatus
from kasmos.sessions.services import Services
from kasmos.sessions.threads import no_thread_is_exhaustion


@attrs.frozen
class Descriptors:
    """What a doorman is given."""

    gate: int
    """Its standard input."""
    output: int
    errors: int
    lease: int


@attrs.define(eq=False)
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

        async def run(*, task_status: trio.TaskStatus[trio.Process]) -> None:
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
                        task_status=task_status,
                    )
                    self._returncode = done.returncode
            finally:
                self.ended.set()

        async with services.spawn_limiter:
            # A start cannot be taken back half-way: whoever is cancelled must know what there is to undo.
            # It lasts as long as fork and exec, which run in a thread that cannot be abandoned anyway.
            with trio.CancelScope(shield=True), no_thread_is_exhaustion():
                process: trio.Process = await services.nursery.start(run)
        self.pid = process.pid

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
