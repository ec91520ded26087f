"""Whether a silent session hangs on input that nobody gives, decided from who of its processes waits. Pure.

A process that reads and is given nothing is no proof of anything: servers of tools wait so for as long as their agent
thinks, and shells that agents keep wait at a prompt. So it is told of only where nobody can give it anything (nobody
but itself could; or whoever could waits for it to end), where it is the session's own program, or where it was begun
by the tool that the agent uses at this moment.
"""

from __future__ import annotations

from collections.abc import Iterable

from kasmos.model.session import InputWait, WaitSource
from kasmos.model.value import frozen

SLACK = 1.5
"""Seconds by which a process may seem older than the tool that began it."""


@frozen
class Circumstances:
    """What else is known of the session."""

    since: float
    """Wall clock: what was begun earlier than this was not begun by what goes on now."""
    at_tool: bool | None
    """Whether the agent uses a tool; None where that is not known."""
    has_terminal: bool
    """Whether a person can sit down at the session's terminal."""
    is_seen: bool = False
    """Whether its screen is read, so that what it waits for is told by that."""


def decide_wait(waits: Iterable[InputWait], around: Circumstances) -> InputWait | None:
    """Decide which of the processes a person should know of; the first of those that count, or None."""
    return next((wait for wait in waits if _counts(wait, around)), None)


def _counts(wait: InputWait, around: Circumstances) -> bool:
    young = wait.born_at >= around.since - SLACK
    match wait.source:
        case WaitSource.STOPPED:
            return True
        case WaitSource.TERMINAL:
            if around.has_terminal:
                return not around.is_seen and (wait.is_program or young)
            return wait.is_program or (young and around.at_tool is not False)
        case WaitSource.PIPE:
            nobody = wait.alone or wait.stalemate
            return nobody or (wait.held_above and young and around.at_tool is True)


def same_wait(one: InputWait, other: InputWait) -> bool:
    """Whether a process has done nothing between two looks but wait."""
    return (one.pid, one.start, one.source, one.ticks) == (other.pid, other.start, other.source, other.ticks)


def describe_wait(wait: InputWait, *, has_terminal: bool) -> str:
    """What a person is told of it."""
    who = f"{wait.name} (pid {wait.pid})"
    match wait.source:
        case WaitSource.STOPPED:
            return f"{who} is stopped by a signal; `kill -CONT {wait.pid}` lets it go on"
        case WaitSource.TERMINAL:
            where = "at its terminal" if has_terminal else "from a terminal that nobody is at"
            return f"{who} waits for input {where}"
        case WaitSource.PIPE if wait.alone:
            return f"{who} waits for standard input that nobody but itself could give"
        case WaitSource.PIPE if wait.stalemate:
            return f"{who} waits for standard input from {wait.holder}, which waits for it to end"
        case WaitSource.PIPE:
            return f"{who} waits for standard input, which {wait.holder or 'its parent'} holds open and gives nothing"
