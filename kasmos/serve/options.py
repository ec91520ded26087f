"""What a supervisor is started with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from kasmos.config.schema import Config
from kasmos.daemon.held import Reread
from kasmos.daemon.life import Life
from kasmos.model.clock import Clock
from kasmos.model.value import frozen
from kasmos.store.stateroot import StateRoot

LOCK_WAIT = 2.0
"""Seconds to wait for the lock: a child of a killed supervisor holds it until its `exec`."""


@frozen
class Options:
    """What a supervisor is started with."""

    project: Path
    root: StateRoot
    configure: Callable[[Mapping[str, object]], Config]
    """Gives the configuration in force, with these key paths on top. Blocks on the disk."""
    environ: Mapping[str, str] = attrs.field(repr=False)
    announce: Callable[[str], None]
    """Tells the person at the terminal, or the log, what they should know."""
    note: Callable[[str], None] = lambda text: None
    """Tells the log what may be of use to who looks for a reason."""
    lock_wait: float = LOCK_WAIT
    take_up: bool = True
    """Whether runs that an earlier supervisor left under way go on by themselves, or wait until they are asked for."""
    clock: Clock = Clock(time.time, time.monotonic)
    life: Life = attrs.field(factory=Life)
    present: Callable[[], Config] | None = None
    """What is in force, read from nowhere. Without it, *configure* puts in force what it reads: see `Reread`."""
    workspace_root: Path | None = None
    """Where tasks run, if it is not in the project itself."""
    may_ask: bool = True
    """Whether a person is there to see to an account that is refused; if not, its tasks fail."""
    stays: bool = False
    """Whether it stays when all its work has ended, as a daemon does."""


def in_force(options: Options) -> tuple[Callable[[Mapping[str, object]], Config], Callable[[], Config]]:
    """How a submission is configured, and what sessions are made of: always one and the same configuration."""
    if options.present is not None:
        return options.configure, options.present
    reread = Reread(options.configure)
    return reread.configure, reread.present
