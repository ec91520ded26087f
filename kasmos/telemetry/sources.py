"""What metrics ask for when they are collected. Light to import."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kasmos.model.value import frozen
from kasmos.model.view import World


@frozen
class Sources:
    """What is asked for when it is scraped. None of them may block."""

    world: Callable[[], World]
    queued: Callable[[], int]
    """Tasks that wait for their turn."""
    running: Callable[[], Iterable[tuple[str, str, int]]]
    """Backend, agent, and bytes of output so far, of each session that runs."""
    approvals: Callable[[], int]
    """Questions of agents that wait for a human."""
    readers: Callable[[], int]
    """Who listens to events."""
    dropped: Callable[[], int]
    """Readers that were dropped because they did not read."""
    ready: Callable[[], bool]
