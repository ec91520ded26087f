"""The whole supervisor put together, with a real journal and a real state root, and programs that are scripts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
import trio

from kasmos.config.schema import Config, Orchestration
from kasmos.daemon.terms import RunOverrides
from kasmos.exceptions import ConfigError, Mistake, PlanError, RequestError, StateLockedError
from kasmos.model import event as ev
from kasmos.model.profile import AgentProfile, ExecutionMode
from kasmos.model.task import CauseKind, Outcome
from kasmos.model.view import Ended, RunState
from kasmos.serve import Engine, Options, open_engine
from kasmos.store.journal import read_records
from kasmos.store.stateroot import StateRoot

LIMIT = 60.0

PLAN = b"""# Demo

**Goal:** See it run.

## Wave 1

### Task 1: First

### Task 2: Second

## Wave 2

### Task 3: Third
"""
ENDLESS = b"""## Wave 1

### Task 1: Endless

```toml scripted
output = ["here\\n"]
duration = inf
```
"""


@attrs.define
class Desk:
    """A project with its state root, and what its supervisors had to say."""

    project: Path
    root: StateRoot
    said: list[str] = attrs.field(factory=list)
    agents: dict[str, AgentProfile] = attrs.field(factory=dict)

    def configure(self, flags: Mapping[str, object]) -> Config:
        return Config(agents=self.agents, orchestration=Orchestration(default_agent="a"))

    def options(self) -> Options:
        return Options(
            project=self.project,
            root=self.root,
            configure=self.configure,
            environ={"PATH": "/bin"},
            announce=self.said.append,
            lock_wait=0.0,
        )

    def events(self) -> list[ev.Event]:
        return [record.event for record in read_records(self.root.db)]


@pytest.fixture
def desk(root: Path) -> Desk:
    project = root / "project"
    project.mkdir()
    scripted = AgentProfile(name="a", program=("agent",), execution_mode=ExecutionMode.SCRIPTED)
    tmux = attrs.evolve(scripted, name="t", program=("no-such-program",), execution_mode=ExecutionMode.TMUX)
    return Desk(project, StateRoot(root / "state-root"), agents={"a": scripted, "t": tmux})


async def running(engine: Engine) -> None:
    """Wait until a program runs that has written something."""
    with trio.fail_after(LIMIT):
        async with engine.bus.subscribe(0) as subscription:
            async for records in subscription:
                if any(isinstance(record.event, ev.SessionStarted) for record in records):
                    return


async def test_a_plan_from_its_document_to_its_end(desk: Desk) -> None:
    """A supervisor runs the document it is given, and its journal tells the whole life, first to last."""
    with trio.fail_after(LIMIT):
        async with open_engine(desk.options()) as engine:
            submitted = await engine.service.runs.submit(PLAN, "/plans/demo.md")
            await engine.orchestrator.wait_idle()
            run = engine.service.runs.get(submitted.run_id)
            assert (run.state, run.outcome) == (RunState.ENDED, Outcome.SUCCEEDED)
            assert run.project == str(desk.project)
            output = await engine.service.sessions.read_output("1", 0, 1000)
            assert b"rehearsal" in output.chunk.data
    events = desk.events()
    assert isinstance(events[0], ev.SupervisorStarted)
    assert events[-1] == ev.SupervisorStopped("left in order")
    assert sum(isinstance(event, ev.SessionEnded) for event in events) == 3
    assert desk.said == []


async def test_ids_can_be_read_aloud(desk: Desk) -> None:
    """A run's id is six letters and digits without look-alikes, the first a letter; its sessions' ids begin with it."""
    with trio.fail_after(LIMIT):
        async with open_engine(desk.options()) as engine:
            ids = [(await engine.service.runs.submit(PLAN, f"/plans/{index}.md")).run_id for index in range(5)]
            await engine.orchestrator.wait_idle()
            assert all(re.fullmatch(r"[a-hjkmnp-z][a-hjkmnp-z2-9]{5}", name) for name in ids)
            assert len(set(ids)) == 5
            assert {view.id[:6] for view in engine.service.sessions.list()} == set(ids)


async def test_one_supervisor_per_state_root(desk: Desk) -> None:
    """A second supervisor of one state root is refused, and the first does not notice."""
    with trio.fail_after(LIMIT):
        async with open_engine(desk.options()):
            with pytest.raises(StateLockedError):
                async with open_engine(desk.options()):
                    pytest.fail("two at once")
        async with open_engine(desk.options()):
            pass
    assert [type(event) for event in desk.events()] == [ev.SupervisorStarted, ev.SupervisorStopped] * 2


async def test_a_supervisor_that_cannot_be_configured_leaves_nothing_locked(desk: Desk) -> None:
    """Where the configuration is wrong no supervisor comes up, and the next one finds the place free."""
    broken = attrs.evolve(desk.options(), configure=_broken)
    with trio.fail_after(LIMIT):
        with pytest.raises(ConfigError, match="wrong"):
            async with open_engine(broken):
                pytest.fail("it came up")
        async with open_engine(desk.options()):
            pass


def _broken(flags: Mapping[str, object]) -> Config:
    raise ConfigError([Mistake("config.toml: agents", "wrong")])


async def test_interrupted_and_taken_up_again(desk: Desk) -> None:
    """A run that is interrupted is not gone on with by the next supervisor until it is handed in again."""
    with trio.fail_after(LIMIT):
        async with open_engine(desk.options()) as engine:
            run_id = (await engine.service.runs.submit(ENDLESS, "/p.md")).run_id
            await running(engine)
            await engine.orchestrator.interrupt("received SIGINT")
            with pytest.raises(RequestError, match="shutting down"):
                await engine.service.runs.submit(PLAN, "/q.md")
        async with open_engine(desk.options()) as engine:
            assert engine.findings.to_continue == ()
            submitted = await engine.service.runs.submit(ENDLESS, "/p.md")
            assert (submitted.run_id, submitted.continued) == (run_id, True)
            await engine.service.runs.cancel(run_id, "enough")
            await engine.orchestrator.wait_idle()
            assert engine.service.runs.get(run_id).outcome is Outcome.CANCELLED


async def test_what_is_left_running_is_taken_up_at_once(desk: Desk) -> None:
    """A run whose supervisor left without stopping it goes on with the next; a script lives only in its supervisor."""
    with trio.fail_after(LIMIT):
        async with open_engine(desk.options()) as engine:
            run_id = (await engine.service.runs.submit(ENDLESS, "/p.md")).run_id
            await running(engine)
            engine.abandon()
        async with open_engine(desk.options()) as engine:
            assert engine.findings.to_continue == (run_id,)
            await engine.orchestrator.wait_idle()
            state = engine.service.runs.get(run_id).tasks["1"].state
            assert isinstance(state, Ended)
            assert (state.outcome, state.cause.kind) == (Outcome.LOST, CauseKind.LOST)


async def test_modes(desk: Desk) -> None:
    """A mode that is not there is refused before anything is recorded; `--mode` overrides a profile's."""
    document = PLAN.replace(b"### Task 3: Third", b'### Task 3: Third\n\n```toml kasmos\nagent = "t"\n```')
    with trio.fail_after(LIMIT):
        async with open_engine(desk.options()) as engine:
            with pytest.raises(ConfigError, match="screen"):
                await engine.service.runs.submit(document, "/p.md", overrides=RunOverrides(mode="screen"))
            assert engine.service.runs.list() == ()
            with pytest.raises(PlanError):
                await engine.service.runs.submit(b"no waves here\n", "/p.md")
            await engine.service.runs.submit(document, "/p.md", overrides=RunOverrides(mode="scripted"))
            await engine.orchestrator.wait_idle()
            assert engine.service.runs.list()[0].outcome is Outcome.SUCCEEDED
