"""A retry runs again what it has to, and nothing else."""

from __future__ import annotations

import pytest

from kasmos.model import event as ev
from kasmos.model.plan import OnFailure, Plan, PlanTask, RunSettings, Wave
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.view import RunView
from kasmos.orchestration.retry import tasks_to_retry
from kasmos.orchestration.scheduler import decide_run
from tests import strategies
from tests.strategies import Ledger

FAILED = (Outcome.FAILED, CauseKind.EXIT)
LOST = (Outcome.LOST, CauseKind.LOST)


def ended(policy: OnFailure, failures: dict[str, tuple[Outcome, CauseKind]]) -> Ledger:
    """A run of two waves, 1 2 3 and 4 5 (5 needs 2), in which these tasks failed and the rest went its way."""
    tasks = {number: PlanTask(id=str(number), number=number, wave=1, title="", body="") for number in (1, 2, 3)}
    second = (
        PlanTask(id="4", number=4, wave=2, title="", body=""),
        PlanTask(id="5", number=5, wave=2, title="", body="", needs=("2",)),
    )
    plan = Plan((Wave(1, tuple(tasks.values())), Wave(2, second)))
    ledger = Ledger(strategies.started(plan, RunSettings(on_failure=policy, max_concurrent=9)))
    busy: set[str] = set()
    while ledger.world.runs["r1"].unfinished:
        decision = decide_run(ledger.world.runs["r1"], busy=frozenset(busy), free_slots=9)
        ledger.commit(*decision.events)
        busy |= set(decision.start)
        for name in sorted(busy):
            outcome, kind = failures.get(name, (Outcome.SUCCEEDED, CauseKind.DONE))
            ledger.commit(ev.TaskEnded("r1", name, outcome, Cause(kind, "")))
        busy.clear()
    return ledger


def the_run(policy: OnFailure, **failures: tuple[Outcome, CauseKind]) -> RunView:
    return ended(policy, {name.removeprefix("t"): failure for name, failure in failures.items()}).world.runs["r1"]


@pytest.mark.parametrize(
    ("policy", "chosen", "expected"),
    [
        pytest.param(OnFailure.STOP, (), ("2", "3", "4", "5"), id="everything that did not succeed"),
        pytest.param(OnFailure.CONTINUE, (), ("2", "3", "5"), id="everything, where the rest went on"),
        pytest.param(OnFailure.STOP, ("3",), ("3",), id="what was skipped because of both waits for both"),
        pytest.param(OnFailure.STOP, ("2",), ("2", "5"), id="not the failure of a sibling"),
        pytest.param(OnFailure.STOP, ("4",), ("2", "3", "4", "5"), id="a skipped task needs its wave to succeed"),
        pytest.param(OnFailure.CONTINUE, ("2",), ("2", "5"), id="what was skipped because of it follows"),
        pytest.param(OnFailure.CONTINUE, ("5",), ("2", "5"), id="what it needs goes first"),
        pytest.param(OnFailure.CONTINUE, ("3",), ("3",), id="nobody depends on it"),
        pytest.param(OnFailure.FAIL_FAST, ("3",), ("2", "3", "4", "5"), id="any other failure would stop it at once"),
        pytest.param(OnFailure.CONTINUE, ("1",), ("1",), id="one that has succeeded"),
    ],
)
def test_tasks_to_retry(policy: OnFailure, chosen: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """Beside the chosen tasks, those run again without which they could not, and those that ended because of them."""
    assert tasks_to_retry(the_run(policy, t2=FAILED, t3=LOST), chosen) == expected


@pytest.mark.parametrize("policy", OnFailure)
@pytest.mark.parametrize("chosen", ["2", "3", "5"])
def test_tasks_to_retry_can_start(policy: OnFailure, chosen: str) -> None:
    """Once put back, none of the tasks is skipped on account of an earlier life."""
    ledger = ended(policy, {"2": FAILED, "3": LOST})
    again = tasks_to_retry(ledger.world.runs["r1"], (chosen,))
    ledger.commit(ev.RunReopened("r1"), *(ev.TaskPutBack("r1", name, "retry") for name in again))
    decision = decide_run(ledger.world.runs["r1"], busy=frozenset(), free_slots=9)
    assert not [event for event in decision.events if isinstance(event, ev.TaskEnded)]
    assert decision.start


def test_tasks_to_retry_unknown() -> None:
    """A task that is not in the run is an error."""
    with pytest.raises(KeyError):
        tasks_to_retry(the_run(OnFailure.STOP), ("17",))
