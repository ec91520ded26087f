"""What becomes of a plan that is handed in: a new run, or the one there is. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kasmos.exceptions import SupervisionError
from kasmos.model import event as ev
from kasmos.model.plan import Plan, RunSettings
from kasmos.model.value import frozen
from kasmos.model.view import RunView, World


@frozen
class Accepted:
    """What became of a plan that was handed in."""

    run_id: str
    continued: bool = False
    """An unfinished run of the same plan goes on."""
    following: bool = False
    """That run was under way already."""
    ended: bool = False
    """That run had ended, and its supervisor was killed before it could say so."""


@frozen
class Submission:
    """A plan as it is handed in."""

    plan: Plan
    source: str
    key: str
    """What makes two plans the same plan."""
    digest: str
    settings: RunSettings
    project: str
    fresh: bool = False

    def started(self, run_id: str) -> ev.RunStarted:
        """The event by which it is accepted as a new run."""
        return ev.RunStarted(
            run_id=run_id,
            plan=self.plan,
            source=self.source,
            key=self.key,
            digest=self.digest,
            settings=self.settings,
            project=self.project,
        )


def unfinished_run(world: World, key: str) -> RunView | None:
    """The newest unfinished run of the plan with this key."""
    found = [run for run in world.runs.values() if run.key == key and run.unfinished]
    return found[-1] if found else None


def is_gone_on_with(submission: Submission, old: RunView | None) -> bool:
    """Whether an unfinished run of the same plan goes on, instead of a new one.

    Raises:
        SupervisionError: the document has changed since that run began.
    """
    # One that is being cancelled is nothing to go on with: it ends, as for a fresh run.
    if old is None or submission.fresh or old.cancel_reason is not None:
        return False
    if old.digest != submission.digest:
        raise SupervisionError(
            f"the plan {old.source} has changed since its unfinished run {old.id} began; "
            f"choose: `kas run --fresh` ends that run and starts anew with the document as it is now, "
            f"`kas resume {old.id}` goes on with the plan as it was"
        )
    return True


def told_of(submission: Submission, old: RunView | None, untold: Iterable[RunView]) -> RunView | None:
    """The run of the same document that has ended, and of whose end nobody has been told yet."""
    if old is not None or submission.fresh:
        return None
    same = (run for run in untold if (run.key, run.digest) == (submission.key, submission.digest))
    return next((run for run in same if not run.unfinished), None)
