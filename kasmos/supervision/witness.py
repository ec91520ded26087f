"""The witness: reads what a session's program says of itself, while it says it, and judges at the end.

It is the only reader of a session's output on this side. It reads from the beginning by absolute offsets, so a
witness of the next supervisor comes to the same judgement. It keeps what the judgement needs, which is bounded, and
none of the output; while the program is silent it costs nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Collection

import attrs
import trio

from kasmos.harnesses.catalog import find_harness
from kasmos.harnesses.conclusion import Conclusion
from kasmos.model.session import ExitStatus
from kasmos.model.task import Outcome
from kasmos.model.usage import Failure, FailureKind, Shortfall
from kasmos.sessions.protocol import ExecutionSession
from kasmos.supervision.hearing import Hearing, Reading, ToldLines

PIECE = 65_536
"""Bytes that are read and understood at once: others have their turn after each."""


class Witness:
    """Reads one session; made by `make_witness`."""

    def __init__(
        self,
        session: ExecutionSession,
        hearing: Hearing,
        *,
        exit_grace: float = math.inf,
        heard: Callable[[Reading], Awaitable[None]] | None = None,
    ) -> None:
        self._session = session
        self._hearing = hearing
        self._exit_grace = exit_grace
        self._heard = heard
        self._offset = 0
        # What an earlier witness has read as well: no reading of less than that is told, for totals never shrink.
        self._written_before = session.output_bytes
        self._unreadable = ""

    @property
    def reading(self) -> Reading:
        """What the session has used, by what was read."""
        return self._hearing.reading

    @property
    def said(self) -> str | None:
        """What the program says or does now, in a line; None where that is not to be had."""
        return self._hearing.said

    @property
    def at_tool(self) -> float | None:
        """Since when the program uses a tool, wall clock; `inf` while it uses none, None where that is not known."""
        return self._hearing.at_tool

    @property
    def silent(self) -> bool:
        """Whether nothing was told, and nothing need have been."""
        return self._hearing.silent

    async def wait_overstayed(self) -> bool:
        """Read until the output ends, or the program has said that it is done and goes on in silence all the same.

        Returns: whether it stays although it is done.

        Cancellation: what was read counts; may be called again.
        """
        while True:
            grace = self._exit_grace if self._hearing.said_done else math.inf
            more = False
            with trio.move_on_after(grace) as silence:
                more = await self._read_on()
            if silence.cancelled_caught:
                return True
            if not more:
                return False
            if self._heard is not None and self._offset >= self._written_before:
                await self._heard(self._hearing.reading)

    async def conclude(self, status: ExitStatus) -> Conclusion | None:
        """Read what is left and judge the whole; None where only the exit status counts.

        Args:
            status: how the program ended.

        Cancellation: what was read counts; may be called again.
        """
        while await self._read_on():
            pass
        conclusion = self._hearing.conclude(status)
        if conclusion is not None and self._unreadable and conclusion.outcome is Outcome.SUCCEEDED:
            failure = Failure(FailureKind.UNKNOWN, f"its output cannot be read: {self._unreadable}")
            return attrs.evolve(conclusion, outcome=Outcome.FAILED, failure=failure)
        return conclusion

    async def hear_out(self) -> None:
        """Read what there is of a session whose end will never be known, and wait for no more.

        Cancellation: what was read counts; may be called again.
        """
        while (chunk := self._session.read_nowait(self._offset, PIECE)).data:
            self._offset = chunk.end
            self._hearing.feed(chunk.data)
            await trio.lowlevel.checkpoint()

    async def _read_on(self) -> bool:
        """Read and understand one more piece; False at the end."""
        try:
            chunk = await self._session.read(self._offset, PIECE)
        except OSError as error:
            self._unreadable = error.strerror or str(error)
            return False
        if not chunk.data:
            return False
        self._offset = chunk.end
        self._hearing.feed(chunk.data)
        return True


def make_witness(
    session: ExecutionSession,
    harness: str,
    *,
    tells: bool = False,
    accept: Collection[Shortfall] = (),
    exit_grace: float = math.inf,
    heard: Callable[[Reading], Awaitable[None]] | None = None,
    wall: Callable[[], float] = time.time,
) -> Witness | None:
    """The witness of a session; None where there is nothing to read, so that only its exit status counts.

    Args:
        session: the session.
        harness: the name of the harness whose word decides; may be empty.
        tells: whether it is a script that may tell what it uses, where it has no harness.
        accept: what may be missing although the program exits 0.
        exit_grace: seconds of silence a program may still run after it has said that it is done.
        heard: told after each piece what has been used so far, once all was read that was there at the beginning.
        wall: the wall clock, for times of day that programs tell.
    """
    facts = find_harness(harness) if harness else None
    if facts is not None:
        # Late: a script has no harness, and needs no dialect.
        from kasmos.supervision.transcript import Transcript

        hearing: Hearing = Transcript(facts, accept=accept, wall=wall)
        return Witness(session, hearing, exit_grace=exit_grace, heard=heard)
    return Witness(session, ToldLines(), heard=heard) if tells else None
