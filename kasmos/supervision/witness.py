"""The witness: reads what a session's program says of itself, while it says it, and judges at the end.

It reads the session's output from its beginning by absolute offsets, so a witness of the next supervisor comes to
the same judgement. It keeps what the judgement needs, which is bounded, and none of the output; while the program is
silent it costs nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection

import trio

from kasmos.harnesses.catalog import find_harness
from kasmos.harnesses.conclusion import Conclusion, Failure, FailureKind
from kasmos.harnesses.facts import Facts
from kasmos.harnesses.parser import TranscriptParser
from kasmos.harnesses.zones import zone_of_name
from kasmos.model.session import ExitStatus
from kasmos.model.task import Outcome
from kasmos.model.usage import Shortfall
from kasmos.sessions.protocol import ExecutionSession

PIECE = 65_536
"""Bytes that are read and understood at once: others have their turn after each."""


class Witness:
    """Reads one session; made by `make_witness`."""

    def __init__(
        self,
        session: ExecutionSession,
        facts: Facts,
        *,
        accept: Collection[Shortfall],
        exit_grace: float,
        wall: Callable[[], float],
    ) -> None:
        self._session = session
        self._exit_grace = exit_grace
        self._wall = wall
        self._offset = 0
        self._unreadable = ""
        self._parser = TranscriptParser(
            facts,
            zone_of=zone_of_name,
            accept=accept,
            # Whose word decides was asked for it, if it has such a stream at all.
            structured=bool(facts.launch.structured),
        )

    @property
    def said_done(self) -> bool:
        """Whether the program has said that it is done, and nothing has gone on since."""
        evidence = self._parser.evidence
        return evidence.verdict is not None and not evidence.turn_open

    async def wait_overstayed(self) -> bool:
        """Read until the output ends, or the program has said that it is done and goes on in silence all the same.

        Returns: whether it stays although it is done.

        Cancellation: what was read counts; may be called again.
        """
        while True:
            grace = self._exit_grace if self.said_done else math.inf
            with trio.move_on_after(grace) as silence:
                if not await self._read_on():
                    return False
            if silence.cancelled_caught:
                return True

    async def conclude(self, status: ExitStatus) -> Conclusion:
        """Read what is left and judge the whole.

        Args:
            status: how the program ended.

        Cancellation: what was read counts; may be called again.
        """
        while await self._read_on():
            pass
        self._parser.evidence.now = self._wall()
        conclusion = self._parser.finish(status)
        if self._unreadable and conclusion.outcome is Outcome.SUCCEEDED:
            failure = Failure(FailureKind.UNKNOWN, f"its output cannot be read: {self._unreadable}")
            return Conclusion(Outcome.FAILED, failure, conclusion.usage, conclusion.conversation)
        return conclusion

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
        self._parser.evidence.now = self._wall()
        self._parser.feed(chunk.data)
        return True


def make_witness(
    session: ExecutionSession,
    harness: str,
    *,
    accept: Collection[Shortfall] = (),
    exit_grace: float = math.inf,
    wall: Callable[[], float] = time.time,
) -> Witness | None:
    """The witness of a session; None where no harness is known by this name, so that only its exit status counts.

    Args:
        session: the session.
        harness: the name of the harness whose word decides; may be empty.
        accept: what may be missing although the program exits 0.
        exit_grace: seconds of silence a program may still run after it has said that it is done.
        wall: the wall clock, for times of day that programs tell.
    """
    facts = find_harness(harness) if harness else None
    if facts is None:
        return None
    return Witness(session, facts, accept=accept, exit_grace=exit_grace, wall=wall)
