"""What is handed in: accepted once, whoever asks however often, and then driven.

Whoever hands something in may go away at any moment, or be sent away while the disk takes nothing. From the beginning
of its commit a task or a run is the supervisor's: it is recorded and driven, or it never was.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from kasmos.exceptions import StoreError
from kasmos.failpoints import reach
from kasmos.model import event as ev
from kasmos.model.plan import Origin, Plan, PlanTask, RunSettings, Wave
from kasmos.model.value import define, frozen
from kasmos.orchestration.driver import Driver
from kasmos.supervision.ledger import Ledger

ACCEPT_TIMEOUT = 5.0
"""Seconds that who hands something in over the API waits for it to be recorded."""


@frozen
class TaskSubmission:
    """A task as it is handed in."""

    task: PlanTask
    """Its id and its wave are given to it when it is accepted."""
    settings: RunSettings
    project: str
    digest: str
    """Of what was asked."""
    needs: tuple[str, ...] = ()
    """Ids of other tasks that must have succeeded before it starts."""
    request_key: str = ""
    """With a key, whoever asks again is given the task there is."""

    def started(self, run_id: str) -> ev.RunStarted:
        """The event by which it is accepted."""
        task = attrs.evolve(self.task, id=run_id, number=1, wave=1, single=True)
        return ev.RunStarted(
            run_id=run_id,
            plan=Plan(waves=(Wave(1, (task,)),), title=task.title),
            source="-",
            key=f"task:{run_id}",
            digest=self.digest,
            settings=self.settings,
            project=self.project,
            origin=Origin.TASK,
            needs=self.needs,
            request_key=self.request_key,
        )


@frozen
class TaskAccepted:
    """What became of a task that was handed in."""

    task_id: str
    repeated: bool = False
    """It had been handed in before, with the same key."""
    same: bool = True
    """Whether what was asked with that key was the same."""


@define(eq=False)
class _Claim:
    """A task or a run of a plan that is being recorded."""

    run_id: str
    digest: str
    done: trio.Event = attrs.field(factory=trio.Event)
    error: Exception | None = None


class Intake:
    """Accepts tasks."""

    def __init__(self, nursery: trio.Nursery, ledger: Ledger, driver: Driver, new_id: Callable[[], str]) -> None:
        self._nursery = nursery
        self._ledger = ledger
        self._driver = driver
        self._new_id = new_id
        self._claims: dict[str, _Claim] = {}
        """By id and by key."""
        self._keys: dict[str, str] | None = None
        """Ids of accepted tasks by key; None before the first look."""

    def find(self, request_key: str, digest: str) -> TaskAccepted | None:
        """The task that was handed in with this key and has been recorded."""
        if self._keys is None:
            runs = self._ledger.world.runs.values()
            self._keys = {run.request_key: run.id for run in runs if run.request_key}
        run = self._ledger.world.runs.get(self._keys.get(request_key, ""))
        return None if run is None else TaskAccepted(run.id, repeated=True, same=run.digest == digest)

    async def submit(self, submission: TaskSubmission) -> TaskAccepted:
        """Accept a task, once for each key.

        Raises:
            StoreError: it cannot be recorded at present; it may be accepted all the same, later.

        Cancellation: the task may have been accepted.
        """
        key = submission.request_key
        if key and (found := self.find(key, submission.digest)):
            return found
        claim = self._claims.get(f"key {key}") if key else None
        repeated = claim is not None
        if claim is None:
            claim = self._record(submission)
        await _recorded(
            claim,
            ACCEPT_TIMEOUT,
            f"task {claim.run_id} cannot be recorded at present (is the disk full?); it is accepted when it can be, if "
            f"this supervisor is still there: GET /v1/tasks/{claim.run_id} tells then, as does its Idempotency-Key",
        )
        return TaskAccepted(claim.run_id, repeated, claim.digest == submission.digest)

    def being_recorded(self, plan_key: str) -> bool:
        """Whether a run of this plan is on its way into the journal."""
        return f"plan {plan_key}" in self._claims

    async def accept_run(self, started: ev.RunStarted, patience: float) -> str:
        """Accept a run of a plan, or wait for the one that is being recorded; the id.

        Raises:
            StoreError: it cannot be recorded within *patience*; it may be accepted all the same, later.

        Cancellation: the run may have been accepted.
        """
        key = f"plan {started.key}"
        claim = self._claims.get(key)
        if claim is None:
            claim = self._claims[key] = _Claim(started.run_id, started.digest)
            self._nursery.start_soon(self._commit, started, claim, key)
        await _recorded(
            claim,
            patience,
            f"run {claim.run_id} cannot be recorded at present (is the disk full?); it begins when it can be, if this "
            "supervisor is still there: the same plan, handed in again, finds it then",
        )
        return claim.run_id

    def _record(self, submission: TaskSubmission) -> _Claim:
        task_id = self._new_id()
        while task_id in self._ledger.world.runs or task_id in self._claims:
            task_id = self._new_id()
        claim = self._claims[task_id] = _Claim(task_id, submission.digest)
        names = [task_id]
        if submission.request_key:
            names.append(f"key {submission.request_key}")
            self._claims[names[-1]] = claim
        # Not in the Trio task of who asked: that one may be gone before it is recorded, and the record may stay.
        self._nursery.start_soon(self._commit, submission.started(task_id), claim, *names)
        return claim

    async def _commit(self, started: ev.RunStarted, claim: _Claim, *names: str) -> None:
        try:
            with self._driver.submitting():
                await self._ledger.append(started)
                reach("task.accepted" if started.origin is Origin.TASK else "run.accepted")
                if started.request_key and self._keys is not None:
                    self._keys[started.request_key] = claim.run_id
                self._driver.drive(claim.run_id)
        # Whatever is wrong with one of them is told to who handed it in, and ends nothing else.
        except Exception as error:
            claim.error = error
        finally:
            for name in names:
                del self._claims[name]
            claim.done.set()


async def _recorded(claim: _Claim, patience: float, otherwise: str) -> None:
    with trio.move_on_after(patience):
        await claim.done.wait()
    if not claim.done.is_set():
        raise StoreError(otherwise)
    if claim.error is not None:
        raise claim.error
