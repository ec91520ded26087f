"""What the service asks of others, what it is given, and what it answers. Values and protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import attrs

from kasmos.config.schema import Config
from kasmos.daemon.life import Health, Life, always_well
from kasmos.exceptions import Mistake
from kasmos.model.approval import Answer
from kasmos.model.event import Event
from kasmos.model.plan import Plan, RunSettings
from kasmos.model.takeover import HandBack
from kasmos.model.value import frozen
from kasmos.model.view import ApprovalView, SessionView, World
from kasmos.orchestration.budgets import Shortage
from kasmos.orchestration.intake import TaskAccepted, TaskSubmission
from kasmos.sessions.protocol import ExecutionSession, OutputChunk

if TYPE_CHECKING:
    from kasmos.supervision.terminal import Terminal

STDIN = "-"
"""The source of a plan that came from no file."""


class AcceptedLike(Protocol):
    """**Protocol.** What became of a submission."""

    @property
    def run_id(self) -> str:
        """The run that executes the plan."""

    @property
    def continued(self) -> bool:
        """An unfinished run of the same plan was taken up."""

    @property
    def following(self) -> bool:
        """The run was under way already; nothing was started."""


class OrchestratorLike(Protocol):
    """**Protocol.** What the service asks of the orchestrator.

    Every command raises `SupervisionError` when it does not fit the present state.
    """

    @property
    def world(self) -> World:
        """The present, as folded from the journal."""

    @property
    def accepting(self) -> bool:
        """Whether new work is taken; False from the moment a shutdown begins."""

    async def submit(
        self,
        plan: Plan,
        *,
        source: str,
        key: str,
        digest: str,
        settings: RunSettings,
        project: str,
        fresh: bool,
        patience: float,
    ) -> AcceptedLike:
        """Start, continue or join a run of *plan*."""

    async def advance(self, run_id: str) -> None:
        """Let a parked run go on."""

    async def continue_run(self, run_id: str) -> None:
        """Take up an unfinished run; nothing changes for one that is under way."""

    async def cancel_run(self, run_id: str, reason: str) -> None:
        """End a run for good."""

    async def retry(
        self, run_id: str, task_ids: tuple[str, ...] = (), conversations: Mapping[str, str] | None = None
    ) -> None:
        """Try tasks again; none named means all that did not succeed."""

    async def stop_task(self, run_id: str, task_id: str) -> None:
        """Stop a task for good."""

    async def stop_session(self, session_id: str) -> None:
        """Stop one session."""

    async def take_over(self, run_id: str, task_id: str, conversation: str, who: str, *, now: bool) -> None:
        """Have a task's conversation opened in a terminal for a person, when its turn has ended."""

    async def hand_back(self, run_id: str, task_id: str, back: HandBack) -> None:
        """Let a conversation that was taken over go on headless."""

    async def resolve_approval(self, approval_id: str, answer: Answer, who: str, *, patience: float) -> ApprovalView:
        """Answer what a session asks, in the name of a person."""

    async def release_account(self, name: str, who: str) -> None:
        """Let an account be used again, in the name of a person."""

    def live_session(self, session_id: str) -> ExecutionSession | None:
        """The session, while it is held open."""

    def terminal(self, session_id: str) -> Terminal | None:
        """The watch over a session's terminal, if it runs here and has one."""

    @property
    def queued_tasks(self) -> int:
        """How many tasks that were handed in by themselves wait."""

    def find_submitted(self, request_key: str, digest: str) -> TaskAccepted | None:
        """The task that was handed in with this key."""

    async def submit_task(self, submission: TaskSubmission) -> TaskAccepted:
        """Accept a task that is handed in by itself."""


def _none_short(world: World, agent: str | None) -> Shortage | None:
    return None


def _soon(shortage: Shortage) -> int:
    return 60


@frozen
class Surroundings:
    """What the service is given by the composition root."""

    project: str
    """The directory of the project. Absolute."""
    configure: Callable[[Mapping[str, object]], Config]
    """Gives the configuration in force, with these key paths on top. Blocks on the disk."""
    present: Callable[[], Config]
    """The configuration in force; reads nothing."""
    read_ended: Callable[[SessionView, int, int], OutputChunk]
    """Reads the output of a session that is not held open. Blocks on the disk; `OSError` when it is gone."""
    last_output_at: Callable[[str], float | None] = lambda session_id: None
    """When the session with this id last wrote something; wall clock. Looks at one file."""
    last_screen: Callable[[SessionView], str | None] = lambda session: None
    """The last screen of a session that has ended, where one was kept. Blocks on the disk."""
    life: Life = attrs.field(factory=Life)
    health: Health = attrs.field(factory=lambda: Health(always_well, lambda: True))
    shortage: Callable[[World, str | None], Shortage | None] = _none_short
    """Why an agent, or anybody, may spend nothing more today."""
    retry_after: Callable[[Shortage], int] = _soon
    """Seconds after which that may be otherwise."""
    workspace: str = attrs.field(default=attrs.Factory(lambda self: self.project, takes_self=True))
    """The directory tasks run in: the project, if it is not another one. Absolute."""
    record: Callable[[Event], object] = lambda event: None
    """Makes a fact durable in its own time. Never blocks."""
    environ: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """The supervisor's own environment."""


@frozen
class RunOverrides:
    """What a submission sets for its run only, above the configuration. None leaves it alone."""

    agent: str | None = None
    mode: str | None = None
    max_concurrent: int | None = None
    task_timeout: float | str | None = None
    on_failure: str | None = None

    def flags(self) -> dict[str, object]:
        """As key paths of the configuration."""
        pairs = {
            "orchestration.default_agent": self.agent,
            "orchestration.max_concurrent": self.max_concurrent,
            "orchestration.task_timeout": self.task_timeout,
            "orchestration.on_failure": self.on_failure,
        }
        return {key: value for key, value in pairs.items() if value is not None}


@frozen
class Submitted:
    """The answer to a submission."""

    run_id: str
    continued: bool
    following: bool
    cursor: int
    """Number of the newest event before the submission: a new run's events all come after it."""
    warnings: tuple[Mistake, ...]


@frozen
class Output:
    """A piece of a session's output, and whether more can follow."""

    chunk: OutputChunk
    ended: bool
    """Nothing will ever follow this piece."""
