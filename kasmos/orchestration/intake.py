"""Tasks that are handed in by themselves: accepted once, whoever asks however often, and then driven.

Whoever hands one in may go away at any moment. From the beginning of its commit the task is the supervisor's: it is
recorded and driven, or it never was.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from kasmos.exceptions import StoreError
from kasmos.failpoints import reach
from kasmos.model import event as ev
from kasmos.model.plan import Origin, Plan, PlanTask, RunSettings, Wave
from kasmos.orchestration.driver import Driver
from kasmos.supervision.ledger import Ledger

ACCEPT_TIMEOUT = 5.0
"""Seconds that who hands in a task waits for it to be recorded."""


@attrs.frozen
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


@attrs.frozen
class TaskAccepted:
    """What became of a task that was handed in."""

    task_id: str
    repeated: bool = False
    """It had been handed in before, with the same key."""
    same: bool = True
    """Whether what was asked with that key was the same."""


@attrs.define(eq=False)
class _Claim:
    """A task that is being recorded."""

    task_id: str
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
        with trio.move_on_after(ACCEPT_TIMEOUT):
            await claim.done.wait()
        if not claim.done.is_set():
            raise StoreError("nothing can be recorded at present; ask again, with the same Idempotency-Key")
        if claim.error is not None:
            raise claim.error
        return TaskAccepted(claim.task_id, repeated, claim.digest == submission.digest)

    def _record(self, submission: TaskSubmission) -> _Claim:
        task_id = self._new_id()
        while task_id in self._ledger.world.runs or task_id in self._claims:
            task_id = self._new_id()
        claim = self._claims[task_id] = _Claim(task_id, submission.digest)
        if submission.request_key:
            self._claims[f"key {submission.request_key}"] = claim
        # Not in the Trio task of who asked: that one may be gone before it is recorded, and the record may stay.
        self._nursery.start_soon(self._commit, submission, claim)
        return claim

    async def _commit(self, submission: TaskSubmission, claim: _Claim) -> None:
        try:
            with self._driver.submitting():
                await self._ledger.append(submission.started(claim.task_id))
                reach("task.accepted")
                if submission.request_key and self._keys is not None:
                    self._keys[submission.request_key] = claim.task_id
                self._driver.drive(claim.task_id)
        # Whatever is wrong with one task is told to who handed it in, and ends nothing else.
        except Exception as error:
            claim.error = error
        finally:
            del self._claims[claim.task_id]
            self._claims.pop(f"key {submission.request_key}", None)
            claim.done.set()
