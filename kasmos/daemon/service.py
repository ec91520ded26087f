"""Every command and every query: the only door to a running supervisor.

The API translates HTTP into these calls and their answers into JSON; `kas run` makes some of them
itself. Nothing is decided here that the orchestrator decides: the service finds what is meant,
refuses what does not exist, and passes on.
"""

from __future__ import annotations

import trio

from kasmos.daemon.access import Refusal
from kasmos.daemon.agents import AgentWire, describe_agents
from kasmos.daemon.approvals import Approvals
from kasmos.daemon.bus import Bus, Subscription
from kasmos.daemon.gate import Gate
from kasmos.daemon.life import Health, Life
from kasmos.daemon.present import Present
from kasmos.daemon.reading import OutputReader
from kasmos.daemon.runs import Runs
from kasmos.daemon.sessions import Sessions
from kasmos.daemon.tasks import Tasks
from kasmos.daemon.terminals import Terminals
from kasmos.daemon.terms import OrchestratorLike, Surroundings
from kasmos.daemon.transcripts import Transcripts
from kasmos.exceptions import RequestError
from kasmos.model.event import AccessRefused, Record
from kasmos.model.view import AccountView, World


class Service:
    """Commands and queries over one supervisor.

    Raises:
        RequestError: in every method that takes a name: 404 `unknown_run`, `unknown_task` or
            `unknown_session`, 409 `ambiguous`; in every one that begins work: 503 `draining`.
        SupervisionError: in every command, when it does not fit the present state.
    """

    def __init__(self, orchestrator: OrchestratorLike, bus: Bus, surroundings: Surroundings) -> None:
        self._orchestrator = orchestrator
        self._bus = bus
        self._surroundings = surroundings
        self._present = Present(orchestrator.world, bus)
        self._gate = Gate(orchestrator, surroundings)
        self.runs = Runs(orchestrator, surroundings, self._gate)
        self.tasks = Tasks(orchestrator, surroundings, self.runs, self._gate)
        reader = OutputReader(orchestrator, bus, surroundings.read_ended)
        self.sessions = Sessions(orchestrator, surroundings, reader)
        self.transcripts = Transcripts(reader)
        self.approvals = Approvals(orchestrator)
        self.terminals = Terminals(orchestrator, self.sessions.get, surroundings.last_screen)

    # --- the supervisor -----------------------------------------------------------

    @property
    def world(self) -> World:
        """The present. Read it, never change it."""
        return self._orchestrator.world

    @property
    def present(self) -> Present:
        """What is under way, up to date."""
        self._present.look()
        return self._present

    @property
    def life(self) -> Life:
        """Where the supervisor is in its life, and how it is asked to leave."""
        return self._surroundings.life

    @property
    def health(self) -> Health:
        """Whether it is well."""
        return self._surroundings.health

    @property
    def accepting(self) -> bool:
        """Whether new work is taken."""
        return self._gate.open

    @property
    def project(self) -> str:
        """The directory of the project."""
        return self._surroundings.project

    @property
    def workspace(self) -> str:
        """The directory tasks run in."""
        return self._surroundings.workspace

    @property
    def queue_depth(self) -> int:
        """How many tasks that were handed in by themselves wait."""
        return self._orchestrator.queued_tasks

    @property
    def queue_limit(self) -> int:
        """How many of them may wait."""
        return self._surroundings.present().orchestration.max_queued

    async def list_agents(self) -> tuple[AgentWire, ...]:
        """Every agent profile in force, and whether it can be used."""
        around = self._surroundings

        def look() -> tuple[AgentWire, ...]:
            return describe_agents(around.present(), around.environ, around.workspace)

        return await trio.to_thread.run_sync(look)

    def refused(self, refusal: Refusal) -> None:
        """Record that somebody was not let in. Never blocks."""
        self._surroundings.record(AccessRefused(refusal.address, refusal.reason, refusal.attempts))

    async def release_account(self, name: str, who: str) -> AccountView:
        """Let a parked account be used again.

        Raises:
            RequestError: 404 `unknown_account`.
            SupervisionError: it is not parked.
        """
        if name not in self.world.accounts:
            raise RequestError(404, "unknown_account", f"there is no account {name!r}; `kas accounts` lists them")
        await self._orchestrator.release_account(name, who)
        return self.world.accounts[name]

    # --- events ----------------------------------------------------------------------

    async def subscribe(self, after: int) -> Subscription:
        """Listen to every event with a number above *after*, from history into the present.

        Raises:
            RequestError: 400 `cursor_ahead` if the journal has never been that far.
        """
        if after > self._bus.newest and not await self._bus.reaches(after):
            detail = f"cursor {after} is ahead of the journal, which is at {self._bus.newest}"
            raise RequestError(400, "cursor_ahead", detail)
        return self._bus.subscribe(after)

    def nudge(self) -> None:
        """Wake every subscription that waits, although there is nothing new. Never blocks."""
        self._bus.nudge()

    def concerns(self, record: Record, run_id: str, task_id: str | None = None) -> bool:
        """Whether an event is about this run, or about this task of it."""
        event = record.event
        session = self.world.sessions.get(getattr(event, "session_id", ""))
        about_run = session.run_id if session is not None else getattr(event, "run_id", None)
        about_task = session.task_id if session is not None else getattr(event, "task_id", None)
        return about_run == run_id and task_id in (None, about_task)
