"""`kasmos.daemon.wire`: what readers of JSON are told."""

from __future__ import annotations

from kasmos.daemon.wire import run_wire
from kasmos.model import event as ev
from kasmos.model.task import Cause, CauseKind, Outcome
from tests.unit.histories import History, make_plan


def statuses(history: History) -> list[str]:
    return [wave.status for wave in run_wire(history.world.runs["r1"]).waves]


def test_a_wave_is_queued_then_running_then_ended() -> None:
    """The status of a wave follows its tasks."""
    history = History(make_plan(1, 1))
    assert statuses(history) == ["queued", "queued"]
    history.wave(1)
    history.start("1")
    assert statuses(history) == ["running", "queued"]
    history.end("1")
    assert statuses(history) == ["ended", "queued"]


def test_no_wave_of_a_cancelled_run_is_queued_for_ever() -> None:
    """A wave that never began has ended when its tasks have; taken up again, it is queued again."""
    history = History(make_plan(1, 2))
    cause = Cause(CauseKind.RUN_CANCELLED, "the run was cancelled: enough")
    for task in ("1", "2", "3"):
        history.finish(task, Outcome.CANCELLED, cause)
    history.over(Outcome.CANCELLED)
    assert statuses(history) == ["ended", "ended"]
    history.add(ev.RunReopened("r1"))
    history.add(ev.TaskPutBack("r1", "3", "retried"))
    assert statuses(history) == ["ended", "queued"]
