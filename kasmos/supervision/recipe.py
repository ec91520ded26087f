"""What a child is given: the recipe of its task, and the surroundings that all children share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import attrs

from kasmos.model.approval import ApprovalPolicy
from kasmos.model.profile import RestartPolicy, WhenDone
from kasmos.model.session import SessionSpec
from kasmos.model.task import Cause
from kasmos.model.usage import Price, Shortfall
from kasmos.model.value import frozen
from kasmos.model.view import SessionView, World
from kasmos.sessions.protocol import Backend, ExecutionSession
from kasmos.supervision.handover import Thread
from kasmos.supervision.ledger import Ledger
from kasmos.supervision.room import Room

if TYPE_CHECKING:
    from kasmos.screens import Ruleset


@frozen
class Hindrance:
    """Why a task's program may not be started now."""

    reason: str
    final: Cause | None = None
    """What the task ends with; None where it waits."""


class Recipe(Protocol):
    """**Protocol.** How a task's sessions are made; the task's configuration, resolved."""

    policy: RestartPolicy
    retries: int
    checks: int
    retry_lost: bool
    timeout: float | None
    approvals: ApprovalPolicy
    accept: frozenset[Shortfall]
    """What may be missing although the program exits 0."""
    when_done: WhenDone
    """What becomes of a program when its turn is over, where its prompt is typed."""
    exit_grace: float
    """Seconds of silence a program may still run after it has said that it is done."""
    cwd: str
    """Where the task's programs begin. Absolute."""
    typed_max: int
    """Bytes; a text to be typed that is longer goes as a file."""

    def screen_rules(self) -> Ruleset:
        """The rules by which its agent's screen is read. Blocks on the disk.

        Raises:
            ConfigError: they have mistakes.
        """

    def typed_prompt(self, attempt: int) -> str | None:
        """The prompt, where it is typed into the agent's terminal."""

    account: str
    """The account its agent uses; empty for what uses none."""
    may_ask: bool
    """Whether a person is there to see to an account."""

    def agent(self, attempt: int, thread: Thread | None = None) -> SessionSpec:
        """The session of an attempt, with the conversation that it goes on with."""

    def quit_keys(self) -> tuple[str, ...]:
        """Keys that end its agent in a terminal, pressed one after the other until it has ended."""

    def check(self, attempt: int, index: int) -> SessionSpec:
        """The session of a check."""

    def check_timeout(self, index: int) -> float | None:
        """Seconds a check may take."""

    def is_unhindered(self, world: World) -> bool:
        """Whether the agent may be started as soon as that is recorded, whatever is being spent."""

    def hindrance(self, world: World) -> Hindrance | None:
        """Why the agent may not be started now; if nothing is said, it is started."""

    def wait_before_start(self, world: World, now: float, boot_id: str) -> float:
        """Seconds until it is its turn to start on its account; the place in the row is taken."""

    def time_left(self, world: World) -> float | None:
        """Seconds that its budgets leave for a session that starts now."""

    def wall(self) -> float:
        """The wall clock."""

    def day(self) -> str:
        """The present day of budgets."""

    def over_budget(self, world: World, session_id: str) -> str:
        """Why a live session may spend no more; nothing if it may."""

    def price_of(self, model: str) -> Price | None:
        """What a model costs; by an unknown name or none, the one its agent is started with."""

    def backend(self, spec: SessionSpec | SessionView) -> Backend:
        """Where a session runs.

        Raises:
            BackendUnavailableError: nowhere on this machine.
        """


@frozen
class Surroundings:
    """What all children are given."""

    ledger: Ledger
    boot_id: str
    now: Callable[[], float]
    """CLOCK_MONOTONIC."""
    rand: Callable[[], float]
    """Uniform in [0, 1)."""
    started: Callable[[ExecutionSession], None]
    """Told of each session that runs, and of its end by `ended`."""
    ended: Callable[[str], None]
    wall: Callable[[], float] = time.time
    """The wall clock: who is attached is told by it."""
    room: Room = attrs.field(factory=Room)
    """Whether there is room for new sessions."""
