"""One persistent control connection to a tmux server: every command of the hot path goes through it.

Commands are answered in the order in which they were sent, so each waits in a queue for its turn. A caller that is
cancelled gives up its answer, not its place. A connection that breaks while the server lives is made anew; what was
under way then fails with `ControlLost`, because nobody can know whether it was run.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import attrs
import trio

from kasmos.model.value import define
from kasmos.sessions.tmux_wire import Block, ControlParser, Notification, render_line

HEALTH_INTERVAL = 30.0
"""Seconds of silence after which the connection is asked whether it is there."""
HEALTH_TIMEOUT = 20.0
"""Seconds in which it has to answer; a server that is stopped for a while is not a dead one."""
RECONNECT_DELAY = 0.05
"""Seconds before the second and every further attempt to connect; doubles up to a second."""


class ControlError(Exception):
    """tmux refused a command; says why."""


class ControlLost(Exception):  # noqa: N818  # a finding, not an error
    """The connection broke, or the server ended, before the answer came: the command may have been run or not."""


@define(eq=False)
class _Waiting:
    """A line that was sent, and the answers it has had."""

    expected: int
    blocks: list[Block] = attrs.field(factory=list)
    lost: bool = False
    done: trio.Event = attrs.field(factory=trio.Event)


class ControlClient:
    """The connection; `run` keeps it up until it is cancelled."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], notify: Callable[[Notification], None]) -> None:
        self._argv = list(argv)
        self._env = dict(env)
        self._notify = notify
        self._outgoing: deque[tuple[bytes, _Waiting]] = deque()
        self._pending: deque[_Waiting] = deque()
        self._wake = trio.Event()
        self._heard = trio.Event()
        self._closed = False
        self.connects = 0
        """How often a connection was made."""
        self.pid: int | None = None
        """Of the client process."""

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Keep the connection up until *is_over*, or cancelled."""
        delay = 0.0
        try:
            while not is_over():
                before = self.connects
                with contextlib.suppress(OSError):
                    await self._serve_connection()
                delay = 0.0 if self.connects > before and not delay else min(1.0, max(RECONNECT_DELAY, 2 * delay))
                self._lose()
                if not is_over():
                    await trio.sleep(delay)
        finally:
            self.close()

    async def _serve_connection(self) -> None:
        async with trio.open_nursery() as nursery:
            start = partial(
                trio.run_process, self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            process: trio.Process = await nursery.start(
                partial(start, env=self._env, start_new_session=True, check=False, deliver_cancel=_kill)
            )
            self.pid = process.pid
            assert process.stdin is not None
            assert process.stdout is not None
            nursery.start_soon(self._write, process.stdin)
            nursery.start_soon(self._check_health, process)
            await self._read(process.stdout)
            nursery.cancel_scope.cancel()

    async def _read(self, stream: trio.abc.ReceiveStream) -> None:
        parser = ControlParser()
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in stream:
                self._heard.set()
                for item in parser.feed(bytes(data)):
                    if isinstance(item, Notification):
                        if item.name == "exit":
                            return
                        self._notify(item)
                    elif item.own:
                        self._answer(item)
                    elif item.ok:
                        self.connects += 1

    def _answer(self, block: Block) -> None:
        waiting = self._pending[0]
        waiting.blocks.append(block)
        if not block.ok or len(waiting.blocks) == waiting.expected:
            self._pending.popleft().done.set()

    async def _write(self, stream: trio.abc.SendStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                if not self._outgoing:
                    self._wake = trio.Event()
                    await self._wake.wait()
                batch, self._outgoing = self._outgoing, deque()
                # From here on it may have been run.
                self._pending.extend(waiting for _, waiting in batch)
                await stream.send_all(b"".join(line for line, _ in batch))

    async def _check_health(self, process: trio.Process) -> None:
        """End a connection that does not answer; it is made anew."""
        while True:
            self._heard = trio.Event()
            await trio.sleep(HEALTH_INTERVAL)
            if self._heard.is_set():
                continue
            with trio.move_on_after(HEALTH_TIMEOUT) as scope, contextlib.suppress(ControlError, ControlLost):
                await self.command(["display-message", "-p", "here"])
            if scope.cancelled_caught:
                process.kill()
                return

    def _lose(self) -> None:
        """Tell everybody who waits for an answer that there will be none. What was not sent yet stays queued."""
        while self._pending:
            waiting = self._pending.popleft()
            waiting.lost = True
            waiting.done.set()

    def close(self) -> None:
        """No further command is taken."""
        self._closed = True
        self._pending.extend(waiting for _, waiting in self._outgoing)
        self._outgoing.clear()
        self._lose()

    async def command(self, *commands: Sequence[str]) -> list[tuple[bytes, ...]]:
        """Run commands one after the other, with nothing in between; the lines each of them printed.

        Raises:
            ControlError: one was refused; those after it were not run.
            ControlLost: nobody knows whether they were run.

        Cancellation: they are run, or not, and nobody is told.
        """
        if self._closed:
            raise ControlLost("the tmux server has ended")
        waiting = _Waiting(len(commands))
        self._outgoing.append((render_line(*commands), waiting))
        self._wake.set()
        await waiting.done.wait()
        if waiting.lost:
            raise ControlLost("the connection to the tmux server broke")
        last = waiting.blocks[-1]
        if not last.ok:
            raise ControlError(b"; ".join(last.lines).decode(errors="replace"))
        return [block.lines for block in waiting.blocks]


async def _kill(process: trio.Process) -> None:
    process.send_signal(signal.SIGKILL)
