"""Which of its program's conversations a task had, so that it can be gone on with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from kasmos.model.session import SessionKind
from kasmos.model.view import SessionView, TaskView
from kasmos.sessions.protocol import OutputChunk

ReadEnded = Callable[[SessionView, int, int], OutputChunk]
LOOKED_THROUGH = 4 << 20
"""Bytes of a log in which a program tells the id of its conversation, if it does."""
PIECE = 262_144


async def find_conversation(task: TaskView, sessions: Mapping[str, SessionView], read: ReadEnded) -> str:
    """The conversation of the task's newest session that had one; empty if none is known.

    What a program told before its machine died is found in its log.

    Cancellation: no effect.
    """
    for session_id in reversed(task.sessions):
        session = sessions.get(session_id)
        if session is None or session.kind is not SessionKind.AGENT:
            continue
        told = ""
        if not session.conversation or session.conclusion is None:
            # In a thread: it reads the log. What was told counts before what was chosen.
            told = await trio.to_thread.run_sync(_told, session, read)
        found = told or session.conversation
        if found:
            return found
    return ""


async def told_conversation(session: SessionView, read: ReadEnded) -> str:
    """The conversation that a session's program has told; empty if it has not told any. Cancellation: no effect."""
    return await trio.to_thread.run_sync(_told, session, read)


def _told(session: SessionView, read: ReadEnded) -> str:
    from kasmos.harnesses.catalog import find_harness
    from kasmos.harnesses.parser import TranscriptParser

    facts = find_harness(session.harness) if session.harness else None
    if facts is None:
        return ""
    parser, offset, looked = TranscriptParser(facts), 0, 0
    try:
        while looked < LOOKED_THROUGH and parser.evidence.conversation is None:
            chunk = read(session, offset, PIECE)
            if not chunk.data:
                break
            parser.feed(chunk.data)
            offset, looked = chunk.end, looked + len(chunk.data)
    except OSError:
        return ""
    return parser.evidence.conversation or ""
