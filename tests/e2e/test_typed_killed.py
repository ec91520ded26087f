"""A supervisor that is killed while it types a prompt, and its successor; sessions that are kept; a mixed plan."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from kasmos.model import event as ev
from kasmos.store.journal import read_records
from tests.conftest import Kas, PatientKas
from tests.e2e.player_world import LIMIT, PROGRAMS, make_stand
from tests.waiting import wait_for

PLAN = "# Plan\n\n**Goal:** try\n\n## Wave 1\n\n### Task 1: Play\n\nquit 0\n"
MIXED = """# Plan

**Goal:** try

## Wave 1

### Task 1: Code

```toml kasmos
agent = "shell"
```

```sh
echo coded
```

## Wave 2

### Task 2: Review

quit 0
"""


@pytest.mark.parametrize("point", ["prompt.delivering", "prompt.typed", "prompt.delivered"])
def test_killed_while_typing(root: Path, kas: Kas, point: str) -> None:
    """Whenever the supervisor is killed, the prompt is typed once at the most, and what is not known is said."""
    stand = _stand(root, kas)
    plan = stand.site.project / "plan.md"
    plan.write_text(PLAN.replace("quit 0", "work 60"))
    state = ("--state-root", stand.site.root.path)
    killed = kas(*state, "run", plan, cwd=stand.site.project, env={"KASMOS_FAILPOINTS": f"{point}=kill"})
    assert killed.code == -signal.SIGKILL
    with kas.running(*state, "run", plan, cwd=stand.site.project):
        ends = (ev.PromptDelivered, ev.DeliveryFailed)
        wait_for(lambda: any(isinstance(record.event, ends) for record in read_records(stand.site.root.db)))
    kas(*state, "stop", "--all", cwd=stand.site.project)
    events = [record.event for record in read_records(stand.site.root.db)]
    assert sum(isinstance(event, ev.PromptDelivering) for event in events) == 1
    assert sum(line.startswith("pasted") for line in stand.log()) == (0 if point == "prompt.delivering" else 1)
    failed = [event.reason for event in events if isinstance(event, ev.DeliveryFailed)]
    assert bool(failed) == (point == "prompt.delivering")
    assert all("died while it was typing" in reason for reason in failed)


def test_second_dialog_keeps_its_approval(root: Path, kas: Kas) -> None:
    """The second of two dialogs that ask the same is the same approval for the next supervisor."""
    stand = _stand(root, kas)
    plan = stand.site.project / "plan.md"
    plan.write_text(PLAN.replace("quit 0", "edit same|same"))
    state = ("--state-root", stand.site.root.path)

    def asked() -> list[str]:
        records = read_records(stand.site.root.db) if stand.site.root.db.exists() else ()
        return [one.event.approval_id for one in records if isinstance(one.event, ev.ApprovalRequested)]

    with kas.running(*state, "run", plan, cwd=stand.site.project):
        wait_for(lambda: len(asked()) == 1)
        assert kas(*state, "keys", "w1t1", "1", cwd=stand.site.project).code == 0
        wait_for(lambda: len(asked()) == 2)
    # It was killed. The next one waits for as long as the program takes here to read an answer.
    limits = ("kasmos.supervision.terminal.ANSWER_PATIENCE", "kasmos.daemon.approvals.DELIVERY_PATIENCE")
    patient = PatientKas(kas.cwd, dict.fromkeys(limits, LIMIT))
    with patient.running(*state, "run", plan, cwd=stand.site.project):
        wait_for(lambda: any(isinstance(one.event, ev.SessionAdopted) for one in read_records(stand.site.root.db)))
        denied = kas(*state, "deny", asked()[1], cwd=stand.site.project)
        assert denied.code == 0, denied.stderr
        wait_for(lambda: "answered no same" in stand.log())
        assert len(asked()) == 2
    kas(*state, "stop", "--all", cwd=stand.site.project)


def test_keep(root: Path, kas: Kas) -> None:
    """`kas run --keep` leaves a session at Ctrl-C, and the next supervisor takes it up: same program, one prompt."""
    stand = _stand(root, kas)
    plan = stand.site.project / "plan.md"
    plan.write_text(PLAN.replace("quit 0", "work 60"))
    state = ("--state-root", stand.site.root.path)
    with kas.running(*state, "run", "--keep", plan, cwd=stand.site.project) as first:
        wait_for(lambda: any(line.startswith("took") for line in stand.log()))
        first.send_signal(signal.SIGINT)
        assert first.wait(LIMIT) == 130
    pid = next(r.event.pid for r in read_records(stand.site.root.db) if isinstance(r.event, ev.SessionStarted))
    assert pid is not None
    os.kill(pid, 0)
    kas(*state, "stop", "--all", cwd=stand.site.project)
    events = [record.event for record in read_records(stand.site.root.db)]
    assert [event.pid for event in events if isinstance(event, ev.SessionAdopted)] == [pid]
    assert sum(line.startswith("pasted") for line in stand.log()) == 1


def test_mixed_plan(root: Path, kas: Kas) -> None:
    """A plan of headless coders and a reviewer in tmux runs to its end; verbs for terminals refuse the coder."""
    stand = _stand(root, kas)
    plan = stand.site.project / "plan.md"
    plan.write_text(MIXED)
    state = ("--state-root", stand.site.root.path)
    done = kas(*state, "run", plan, cwd=stand.site.project)
    assert done.code == 0, done.stdout + done.stderr
    assert stand.log()[-1] == "left 0"
    for verb in (("attach",), ("send", "text"), ("keys", "Enter"), ("capture",), ("resize", "90x20")):
        refused = kas(*state, verb[0], "w1t1", *verb[1:], cwd=stand.site.project)
        assert (refused.code, "has no terminal" in refused.stderr) == (4, True), refused.stderr
    assert "Player 1.0" in kas(*state, "logs", "w2t2", cwd=stand.site.project).stdout
    assert (PROGRAMS / "player").exists()


def _stand(root: Path, kas: Kas):  # type: ignore[no-untyped-def]  # it is `make_stand`, where `kas` has made the project
    kas.cwd.rmdir()
    return make_stand(root)
