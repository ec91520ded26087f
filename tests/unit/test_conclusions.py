"""The program's own word decides how a task ended: read as it is written, by this supervisor or by the next."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from kasmos.model import event as ev
from kasmos.model.plan import RunSettings
from kasmos.model.session import ExitStatus, StopReason
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.usage import FailureKind, Shortfall
from kasmos.model.view import Ended, TaskView
from kasmos.sessions.script import Script
from tests.simulation import Life, Town, plan, profile, task, town

RECORDED = Path(__file__).parents[1] / "data" / "transcripts" / "claude"
REFUSED_KEY = "Invalid API key · Fix external API key"
INIT = b'{"type":"system","subtype":"init","session_id":"c-1","model":"m"}\n'
SAID = b'{"type":"assistant","message":{"id":"1","content":[{"type":"text","text":"Hello."}]},"session_id":"c-1"}\n'


def result(text: str = "Hello.", **changes: Any) -> bytes:
    line = {"type": "result", "subtype": "success", "is_error": False, "result": text, "session_id": "c-1", **changes}
    return json.dumps(line).encode() + b"\n"


def lines(*written: bytes, **changes: Any) -> Script:
    return Script(output=tuple((0.1, line) for line in written), **changes)


def one(*scripts: Script, **changes: Any) -> Town:
    """A town with one task whose agent speaks as claude does, and with nobody who could log it in."""
    return town({"1": scripts}, profiles={"a": profile(harness="claude", **changes)}, may_ask=False)


async def outcome(life: Life, **settings: Any) -> tuple[TaskView, Cause]:
    await life.submit(plan(task(1)), settings=RunSettings(**settings))
    await life.orchestrator.wait_idle()
    view = life.task("1")
    assert isinstance(view.state, Ended)
    return view, view.state.cause


async def test_a_result_is_a_success(autojump_clock: MockClock) -> None:
    """A program that says that it is done has succeeded, and its conversation and usage are in the journal."""
    here = one(lines(INIT, SAID, result(usage={"input_tokens": 3, "output_tokens": 5})))
    async with here.life() as life:
        view, cause = await outcome(life)
    assert view.outcome is Outcome.SUCCEEDED
    assert cause.message == "exit 0"
    (said,) = [event for event in here.events if isinstance(event, ev.SessionConcluded)]
    assert (said.outcome, said.failure, said.conversation, said.model) == (Outcome.SUCCEEDED, None, "c-1", "m")
    assert said.usage.output_tokens == 5


@pytest.mark.parametrize(
    ("written", "code", "failure", "kind"),
    [
        ((INIT, SAID), 0, FailureKind.UNKNOWN, CauseKind.AGENT),
        ((INIT, SAID, result(REFUSED_KEY, is_error=True)), 1, FailureKind.AUTH, CauseKind.ACCOUNT),
        ((INIT, SAID), 3, FailureKind.CRASH, CauseKind.EXIT),
        ((), 0, FailureKind.UNKNOWN, CauseKind.AGENT),
    ],
)  # fmt: skip
async def test_no_success_without_evidence(
    written: tuple[bytes, ...], code: int, failure: FailureKind, kind: CauseKind, autojump_clock: MockClock
) -> None:
    """Exit 0 without a result is no success, and a failure has its kind and the program's own words."""
    here = one(lines(*written, exit=code))
    async with here.life() as life:
        view, cause = await outcome(life)
    assert view.outcome is Outcome.FAILED
    assert (cause.failure, cause.kind) == (failure, kind)
    if failure is FailureKind.AUTH:
        assert cause.message == "auth: Invalid API key · Fix external API key (exit 1)"


@pytest.mark.parametrize("name", ["text", "task", "nokey", "max_turns", "toolong", "refuse"])
async def test_recorded_sessions(name: str, autojump_clock: MockClock) -> None:
    """What a recorded transcript comes to is what becomes of a task that writes it."""
    expected = json.loads((RECORDED.parent / "expected.json").read_text())[f"claude/{name}"]
    here = one(Script(output=((0.0, (RECORDED / f"{name}.out").read_bytes()),), exit=expected["exit"]))
    async with here.life() as life:
        view, cause = await outcome(life)
    assert view.outcome == expected["outcome"]
    assert (cause.failure.value if cause.failure is not None else None) == expected["kind"]


async def test_what_would_fail_alike_is_not_tried_again(autojump_clock: MockClock) -> None:
    """A prompt that is too long stays too long: the attempts that are left are not spent on it."""
    failed = Script(output=((0.0, (RECORDED / "toolong.out").read_bytes()),), exit=1)
    here = one(failed, lines(INIT, SAID, result()))
    async with here.life() as life:
        view, cause = await outcome(life, retries=3)
    assert (view.outcome, view.attempts) == (Outcome.FAILED, 1)
    assert cause.failure is FailureKind.CONTEXT_TOO_LONG
    assert cause.message.endswith("not tried again: the same prompt would be too long again")


async def test_what_may_be_missing(autojump_clock: MockClock) -> None:
    """A profile's `accept` names what is no failure for it."""
    here = one(lines(INIT, SAID), accept=(Shortfall.NO_RESULT,))
    async with here.life() as life:
        assert (await outcome(life))[0].outcome is Outcome.SUCCEEDED


async def test_a_program_that_stays_though_it_is_done(autojump_clock: MockClock) -> None:
    """A program that has said that it is done, and goes on in silence, is sent away, and has succeeded."""
    here = one(lines(INIT, SAID, result(), b'{"type":"keep_alive"}\n', duration=math.inf), exit_grace=20.0)
    start = trio.current_time()
    async with here.life() as life:
        view, cause = await outcome(life)
    assert view.outcome is Outcome.SUCCEEDED
    assert cause.message == "done, then killed by SIGINT"
    assert trio.current_time() - start == pytest.approx(20.4, abs=0.2)
    session = life.world.sessions[view.sessions[0]]
    assert session.stop_reason is StopReason.SETTLED
    assert here.machine.programs[session.id].signals == [signal.SIGINT]


async def test_a_turn_after_a_result(autojump_clock: MockClock) -> None:
    """A program that goes on after a result is not done: it is left alone, and only its last word counts."""
    written = ((0.0, INIT + SAID + result()), (1.0, SAID), (500.0, result("No.", is_error=True)))
    here = one(Script(output=written, exit=1), exit_grace=20.0)
    async with here.life() as life:
        view, _ = await outcome(life)
    assert view.outcome is Outcome.FAILED
    assert life.world.sessions[view.sessions[0]].stop_reason is None


async def test_the_next_supervisor_knows_what_was_said(autojump_clock: MockClock) -> None:
    """A supervisor that is killed in mid-stream takes nothing along: the next one reads from the beginning."""
    written = ((0.1, INIT + SAID[:40]), (10.0, SAID[40:]), (10.0, result()))
    here = one(Script(output=written, exit=ExitStatus(code=0)))

    async def body(life: Life) -> None:
        await life.submit(plan(task(1)))
        await trio.sleep(5.0)
        life.crash()
        await trio.sleep_forever()

    await here.live(body)
    async with here.life() as life:
        await life.orchestrator.wait_idle()
        view = life.task("1")
    assert (view.outcome, view.attempts) == (Outcome.SUCCEEDED, 1)
    assert len([event for event in here.events if isinstance(event, ev.SessionConcluded)]) == 1


async def test_an_unknown_program_is_judged_by_its_exit(autojump_clock: MockClock) -> None:
    """Nothing changes for programs of which nothing is known."""
    here = town({"1": lines(b"whatever\n")}, profiles={"a": profile(harness="generic")})
    async with here.life() as life:
        view, cause = await outcome(life)
    assert (view.outcome, cause.message, cause.failure) == (Outcome.SUCCEEDED, "exit 0", None)
    assert not [event for event in here.events if isinstance(event, ev.SessionConcluded)]
    assert attrs.evolve(life.world.sessions[view.sessions[0]]).harness == ""
