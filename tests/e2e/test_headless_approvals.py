"""Agents that ask without a terminal: rules and people answer, once, whoever dies in between."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from ..conftest import Kas
from ..waiting import LIMIT, wait_for
from .asking_world import asked, marks

ASKER = Path(__file__).parents[1] / "programs" / "asker"


def configure(kas: Kas, rules: str = "") -> None:
    """A profile whose program asks before it leaves its mark."""
    (kas.cwd / ".kasmos").mkdir()
    (kas.cwd / ".kasmos" / "config.toml").write_text(
        f'[orchestration]\ndefault_agent = "coder"\n[agents.coder]\nprogram = "{ASKER}"\nharness = "claude"\n'
        f'permission_default = "prompt"\nrules = [{rules}]\nenv = {{ ASKER_COMMAND = "echo mark >> marks" }}\n'
    )
    (kas.cwd / "plan.md").write_text("## Wave 1\n### Task 1: Work\nDo it.\n")


def test_a_rule_answers_a_headless_agent(kas: Kas) -> None:
    """What a rule denies is not run, and the program is told why; nobody is asked."""
    configure(kas, '{ deny = "Bash", command = "echo *", name = "no-marks" }')
    ran = kas("run", "plan.md")
    assert ran.code == 1
    assert marks(kas) == 0
    assert "no-marks" in kas("why", "w1t1-work").stdout
    assert "refused by the rules" in kas("logs", "w1t1-work", "--raw").stdout
    task = json.dumps(json.loads(kas("status", "--json").stdout))
    assert "tool_denied" in task


def test_a_person_answers_a_headless_agent(kas: Kas) -> None:
    """A headless agent waits for a person's yes, also over the death of its supervisor, and is answered once."""
    configure(kas)
    with kas.running("run", "plan.md") as first:
        approval = wait_for(lambda: asked(kas, "Bash"))
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert marks(kas) == 0
    with kas.running("run", "plan.md") as second:
        assert wait_for(lambda: asked(kas, "Bash")) == approval
        # The journal tells of it before the new supervisor can be reached.
        wait_for(lambda: kas("approve", approval).code == 0)
        assert second.wait(LIMIT) == 0
    assert marks(kas) == 1
    assert "allowed by" in kas("why", "w1t1-work").stdout
