"""A headless agent that a person sits down beside: its conversation goes to a terminal and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import kasmos
from kasmos.model import event as ev
from kasmos.model.session import StopReason
from tests.e2e.supervisor_world import Live
from tests.e2e.talker_world import LIMIT, PROGRAM, Parlour, make_parlour


@asynccontextmanager
async def at_work(parlour: Parlour, prompt: str, **fields: Any) -> AsyncIterator[tuple[Live, str]]:
    """A supervisor with one task whose program is in its turn; it is stopped in the end."""
    async with parlour.site.supervisor() as live:
        task = await live.submit(prompt, **fields)
        try:
            await told(live, task)
            yield live, task
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LIMIT):
                await live.http.post(f"/v1/tasks/{task}/cancel")
                await live.ended(task)


async def told(live: Live, task: str) -> None:
    """Wait until the program has told its conversation, so that it may be taken over."""
    with trio.fail_after(LIMIT):
        while (await post(live, task, "attach", check=True))[0] != 200:  # noqa: ASYNC110  # output is no event
            await trio.sleep(0.02)


async def post(live: Live, task: str, verb: str, **body: Any) -> tuple[int, dict[str, Any]]:
    response = await live.http.post(f"/v1/tasks/{task}/{verb}", json=body)
    return response.status_code, response.json()


async def attended(parlour: Parlour, live: Live, task: str, *, times: int = 1) -> str:
    """Wait until the conversation is open in a terminal; the session of it."""
    await parlour.noted("attended", times=times)
    await live.event(lambda event: isinstance(event, ev.SessionStarted) and is_attended(live, event))
    return str((await live.task(task))["session_id"])


def is_attended(live: Live, event: ev.SessionStarted) -> bool:
    return live.engine.service.world.sessions[event.session_id].attended


async def says(live: Live, session: str, text: str) -> None:
    """The person at the terminal says something."""
    response = await live.http.post(f"/v1/sessions/{session}/input", json={"text": text})
    assert response.status_code == 200, response.text


async def test_over_and_back(root: Path) -> None:
    """A conversation goes to a terminal at the end of its turn, and back to headless, in one attempt."""
    parlour = make_parlour(root)
    async with at_work(parlour, "wait go; write one 1") as (live, task):
        status, answer = await post(live, task, "attach")
        assert (status, answer["takeover"]["phase"], answer["status"]) == (202, "requested", "running")
        assert (await post(live, task, "attach"))[1]["code"] == "already_attached"
        assert parlour.ledger("attended") == []
        parlour.let("go")
        session = await attended(parlour, live, task)
        seen = await live.task(task)
        assert (seen["takeover"]["phase"], seen["status"], seen["attempts"]) == ("attended", "running", 1)
        wire = (await live.http.get(f"/v1/sessions/{session}")).json()
        assert (wire["backend"], wire["attended"]) == ("tmux", True)
        attention = (await live.http.get("/v1/status")).json()["attention"]
        assert [one["kind"] for one in attention] == ["attended"]
        await says(live, session, "write two 2")
        await parlour.noted("took")
        status, answer = await post(live, task, "detach", prompt="write three 3")
        assert (status, answer["takeover"]["phase"]) == (202, "handed_back")
        done = await live.ended(task)
        lines = await live.lines("GET", f"/v1/tasks/{task}/events?output=true")
        # What a person's terminal shows is not what the task writes.
        written = dict.fromkeys(line["session_id"] for line in lines if line["type"] == "output")
        assert list(written) == [one for one in done["sessions"] if one != session]
    assert (done["status"], done["attempts"], done["takeover"], len(done["sessions"])) == ("succeeded", 1, None, 3)
    assert [parlour.text(name) for name in ("one", "two", "three")] == ["1\n", "2\n", "3\n"]
    lines = parlour.ledger("headless", "attended", "overlap")
    assert [line[0] for line in lines] == ["headless", "attended", "headless"]
    assert len({line[1] for line in lines}) == 1
    ends = [event.exit.code for event in parlour.site.events() if isinstance(event, ev.SessionEnded)]
    assert ends == [0, 0, 0]
    # A person's time is not the agent's, and what is used at a terminal nobody tells.
    used = {event.session_id: event for event in parlour.site.events() if isinstance(event, ev.SessionUsed)}
    assert (used[session].seconds, used[session].usage.input_tokens) == (0.0, None)


async def test_turn_in_the_terminal_is_waited_for(root: Path) -> None:
    """A conversation that is given back in the middle of a turn goes back when that turn is over."""
    parlour = make_parlour(root)
    async with at_work(parlour, "write one 1; wait go") as (live, task):
        await post(live, task, "attach")
        parlour.let("go")
        session = await attended(parlour, live, task)
        await says(live, session, "wait more; write two 2")
        await parlour.noted("took")
        await live.event(lambda event: isinstance(event, ev.ScreenSeen) and event.screen == "working")
        assert (await post(live, task, "detach"))[0] == 202
        assert not any(isinstance(event, ev.StopRequested) for event in parlour.site.events())
        parlour.let("more")
        assert (await live.ended(task))["status"] == "succeeded"
    assert parlour.text("two") == "2\n"
    assert parlour.ledger("interrupted") == []
    # Nothing was said: the program is told that nobody can be asked any more.
    assert "until it is done." in " ".join(parlour.ledger("headless")[-1])


async def test_turn_that_asks_is_waited_for(root: Path) -> None:
    """What the terminal's program asks is answered as any approval; a turn that asks is not over."""
    parlour = make_parlour(root)
    async with at_work(parlour, "wait go") as (live, task):
        await post(live, task, "attach")
        parlour.let("go")
        session = await attended(parlour, live, task)
        await says(live, session, "wait more; ask make; write two 2")
        await parlour.noted("took")
        await live.event(lambda event: isinstance(event, ev.ScreenSeen) and event.screen == "working")
        assert (await post(live, task, "detach"))[0] == 202
        parlour.let("more")
        asked = await live.event(lambda event: isinstance(event, ev.ApprovalRequested))
        assert not any(isinstance(event, ev.StopRequested) for event in parlour.site.events())
        await live.http.post(f"/v1/approvals/{asked.approval_id}", json={"decision": "allow_once"})
        assert (await live.ended(task))["status"] == "succeeded"
    assert parlour.text("two") == "2\n"
    assert len(parlour.ledger("allowed")) == 1
    assert parlour.ledger("interrupted") == []


async def test_terminal_that_asks_is_not_left(root: Path) -> None:
    """A conversation is not given back while its terminal waits for an answer; with `now` it is."""
    parlour = make_parlour(root)
    async with at_work(parlour, "wait go") as (live, task):
        await post(live, task, "attach")
        parlour.let("go")
        session = await attended(parlour, live, task)
        await says(live, session, "ask make")
        await live.event(lambda event: isinstance(event, ev.ApprovalRequested))
        status, answer = await post(live, task, "detach")
        assert (status, answer["code"]) == (409, "approval_waiting")
        assert (await post(live, task, "detach", now=True, done=True))[0] == 202
        assert (await live.ended(task))["status"] == "succeeded"


async def test_now(root: Path) -> None:
    """With --now a turn is interrupted as its program likes it, on both ways, and what was left is done once."""
    parlour = make_parlour(root)
    async with at_work(parlour, "write one 1; wait go; write two 2", timeout="100s") as (live, task):
        assert (await post(live, task, "attach", now=True))[0] == 202
        session = await attended(parlour, live, task)
        assert len(parlour.ledger("interrupted")) == 1
        await says(live, session, "write three 3")
        await parlour.noted("took")
        assert (await post(live, task, "detach", now=True))[0] == 202
        await parlour.noted("headless", times=2)
        parlour.let("go")
        assert (await live.ended(task))["status"] == "succeeded"
    assert [parlour.text(name) for name in ("one", "two", "three")] == ["1\n", "2\n", "3\n"]
    reasons = [event.reason for event in parlour.site.events() if isinstance(event, ev.StopRequested)]
    assert reasons == [StopReason.HANDED_OVER, StopReason.HANDED_BACK]
    assert not any(isinstance(event, ev.TaskRetryScheduled | ev.KillSent) for event in parlour.site.events())


async def test_program_is_quit(root: Path) -> None:
    """A terminal whose program is quit hands its conversation back by itself, whatever it exits with."""
    parlour = make_parlour(root)
    async with at_work(parlour, "wait go") as (live, task):
        await post(live, task, "attach")
        parlour.let("go")
        session = await attended(parlour, live, task)
        await live.http.post(f"/v1/sessions/{session}/input", json={"text": "/crash", "force": True})
        assert (await live.ended(task))["status"] == "succeeded"
    (back,) = [event for event in parlour.site.events() if isinstance(event, ev.HandedBack)]
    assert (back.reason, back.who) == ("its program has ended: exit 1", "")


@pytest.mark.parametrize(
    ("checks", "outcome", "message"),
    [
        ([], "succeeded", "said that it is done"),
        (["test -e one"], "succeeded", "exit 0, 1 check passed"),
        (["test -e nothing"], "failed", "check 1 (test -e nothing): exit 1"),
    ],
)
async def test_done(root: Path, checks: list[str], outcome: str, message: str) -> None:
    """What a person says is done is told nothing more; its checks decide."""
    parlour = make_parlour(root)
    async with at_work(parlour, "write one 1; wait go", checks=checks) as (live, task):
        refused = await post(live, task, "detach", done=True)
        assert (refused[0], refused[1]["code"]) == (409, "not_attached")
        await post(live, task, "attach")
        assert (await post(live, task, "detach", done=True))[1]["code"] == "not_attached"
        parlour.let("go")
        await attended(parlour, live, task)
        assert (await post(live, task, "detach", done=True))[0] == 202
        done = await live.ended(task)
    assert done["status"] == outcome
    assert len(parlour.ledger("headless")) == 1
    assert message in done["cause"]["message"]


async def test_opened_at_once(root: Path) -> None:
    """A person does not stand in line for an account: what keeps programs apart keeps nobody from a terminal."""
    parlour = make_parlour(root, 'start_interval = "1h"\n')
    async with at_work(parlour, "wait go; write one 1") as (live, task):
        await post(live, task, "attach")
        parlour.let("go")
        await attended(parlour, live, task)
        await post(live, task, "detach", done=True)
        assert (await live.ended(task))["status"] == "succeeded"


async def test_thought_better_of(root: Path) -> None:
    """A takeover that is given up before it came to pass leaves the task as it was."""
    parlour = make_parlour(root)
    async with at_work(parlour, "wait go; write one 1") as (live, task):
        await post(live, task, "attach")
        status, answer = await post(live, task, "detach")
        assert (status, answer["takeover"]) == (202, None)
        parlour.let("go")
        done = await live.ended(task)
    assert (done["status"], len(done["sessions"])) == ("succeeded", 1)


async def test_cannot_be_opened(root: Path) -> None:
    """A conversation that no terminal can be opened for leaves the task as its turn has left it."""
    parlour = make_parlour(root)
    async with at_work(parlour, "wait go; write one 1") as (live, task):
        await post(live, task, "attach")
        # Where the server of tmux would be, there is something else.
        tmux = parlour.site.root.path / "tmux"
        tmux.rmdir() if tmux.is_dir() else None
        tmux.write_text("in the way")
        parlour.let("go")
        done = await live.ended(task)
    assert (done["status"], done["attempts"], parlour.text("one")) == ("succeeded", 1, "1\n")
    (back,) = [event for event in parlour.site.events() if isinstance(event, ev.HandedBack)]
    assert back.reason.startswith("it could not be opened: ")
    tmux.unlink()


async def test_refused(root: Path) -> None:
    """What cannot be taken over is refused before anything is done, with the reason and what to do instead."""
    extra = '[agents.shell]\nprogram = "sh"\nprompt = "script"\n'
    extra += '[agents.mute]\nprogram = "sh"\nflags = ["-c", "sleep 1000"]\n'
    stand_in = root / "stand-in"
    stand_in.write_text("#!/bin/sh\nexec sleep 1000\n")
    stand_in.chmod(0o755)
    extra += f'[agents.aider]\nprogram = "{stand_in}"\nharness = "aider"\n'
    parlour = make_parlour(root, extra)
    async with at_work(parlour, "wait go") as (live, task):
        for agent, code, words in (
            ("shell", "cannot_attach", "a program that kasmos does not know"),
            ("mute", "cannot_attach", "a program that kasmos does not know"),
            ("aider", "cannot_attach", "cannot resume"),
        ):
            other = await live.submit("```sh\nsleep 1000\n```", agent=agent)
            await live.event(lambda event, other=other: getattr(event, "run_id", "") == other)
            with trio.fail_after(LIMIT):
                while (await live.task(other))["status"] == "queued":  # noqa: ASYNC110
                    await trio.sleep(0.02)
            status, answer = await post(live, other, "attach")
            assert (status, answer["code"]) == (409, code), answer
            assert words in answer["detail"]
            assert (await post(live, other, "detach"))[1]["code"] == "not_attached"
            await live.http.post(f"/v1/tasks/{other}/cancel")
        assert (await post(live, task, "attach", check=True))[0] == 200
        assert (await live.task(task))["takeover"] is None
        assert (await post(live, task, "detach", done=True, prompt="x"))[0] == 400
        parlour.let("go")
        await live.ended(task)
        status, answer = await post(live, task, "attach")
        assert (status, answer["code"]) == (409, "task_ended")
        assert f"kas submit --continue {task}" in answer["detail"]
        assert (await post(live, "nothing", "attach"))[0] == 404


async def test_interrupted_supervisor(root: Path) -> None:
    """A conversation that a person has when the supervisor leaves is theirs again under the next one."""
    parlour = make_parlour(root)
    async with parlour.site.supervisor() as live:
        task = await live.submit("wait go; write one 1")
        await told(live, task)
        await post(live, task, "attach")
        parlour.let("go")
        await attended(parlour, live, task)
    async with parlour.site.supervisor() as live:
        await attended(parlour, live, task, times=1)
        await live.engine.service.runs.continue_run(task)
        assert (await live.task(task))["takeover"]["phase"] == "attended"
        assert (await post(live, task, "detach"))[0] == 202
        assert (await live.ended(task))["status"] == "succeeded"
    assert (parlour.text("one"), parlour.ledger("overlap")) == ("1\n", [])


async def test_what_waits_for_an_answer(root: Path) -> None:
    """A turn that cannot end before somebody answers is not waited for by somebody else."""
    asker = PROGRAM.with_name("asker")
    extra = f'[agents.asker]\nprogram = "{asker}"\nharness = "claude"\npermission_default = "prompt"\n'
    extra += 'env = { ASKER_COMMAND = "echo mark" }\n'
    parlour = make_parlour(root, extra)
    async with parlour.site.supervisor() as live:
        task = await live.submit("do it", agent="asker")
        asked = await live.event(lambda event: isinstance(event, ev.ApprovalRequested))
        status, answer = await post(live, task, "attach")
        assert (status, answer["code"]) == (409, "approval_waiting")
        assert asked.approval_id in answer["detail"]
        await live.http.post(f"/v1/approvals/{asked.approval_id}", json={"decision": "allow_once"})
        assert (await live.ended(task))["status"] == "succeeded"


async def test_from_python(root: Path) -> None:
    """A client takes over and hands back with the same verbs."""
    parlour = make_parlour(root)
    async with at_work(parlour, "wait go") as (live, task), kasmos.connect(socket=parlour.site.root.socket) as kas:
        assert (await kas.attach_task(task, check=True)).takeover is None
        held = (await kas.attach_task(task)).takeover
        assert held is not None
        assert (held.phase, held.now) == ("requested", False)
        parlour.let("go")
        await attended(parlour, live, task)
        held = (await kas.detach_task(task, "write one 1")).takeover
        assert held is not None
        assert held.phase == "handed_back"
        assert (await live.ended(task))["status"] == "succeeded"
    assert parlour.text("one") == "1\n"
