"""Terminals under a whole supervisor: prompts are typed once, asks become approvals, people come first."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from kasmos.model import event as ev
from kasmos.model.session import StopReason
from kasmos.model.task import Outcome
from kasmos.sessions import tmux
from kasmos.sessions.tmux_launch import tmux_name
from kasmos.supervision import delivery, typist
from tests.e2e.player_world import LIMIT, PROGRAMS, Stand, make_stand
from tests.e2e.supervisor_world import Live

RULE = """
[[agents.player.rules]]
allow = "Shell"
command = "git status"
"""


@asynccontextmanager
async def at_work(stand: Stand, prompt: str, **fields: Any) -> AsyncIterator[tuple[Live, str]]:
    """A supervisor with one task; it is stopped in the end."""
    async with stand.site.supervisor() as live:
        task = await live.submit(prompt, **fields)
        try:
            yield live, task
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LIMIT):
                await live.engine.service.runs.cancel_all("the test is over")
                if not (await live.task(task))["status"].endswith(("ed", "out")):
                    await live.http.post(f"/v1/tasks/{task}/cancel")
                await live.ended(task)


async def session_of(live: Live, task: str) -> str:
    return str((await live.task(task))["session_id"])


async def state_of(live: Live, session: str, name: str, value: str) -> None:
    """Wait until the screen, as it is explained, says this."""
    with trio.fail_after(LIMIT):
        while (await live.http.get(f"/v1/sessions/{session}/explain")).json()[name] != value:  # noqa: ASYNC110
            await trio.sleep(0.02)


async def post(live: Live, session: str, verb: str, **body: Any) -> tuple[int, dict[str, Any]]:
    response = await live.http.post(f"/v1/sessions/{session}/{verb}", json=body)
    return response.status_code, response.json()


async def refused(live: Live, session: str, text: str) -> str:
    """A text that is refused, by who does not wait for long; why."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(typist, "BUSY_PATIENCE", 0.5)
        code, said = await post(live, session, "input", text=text)
    assert (code, said["code"]) == (409, "session_busy")
    return str(said["detail"])


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter is soon pressed again: nothing here asks anything that it could answer."""
    monkeypatch.setattr(delivery, "ENTER_AGAIN", 1.0)


@pytest.fixture
def impatient(restless: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for in vain is not waited for long."""
    monkeypatch.setattr(delivery, "TAKE_PATIENCE", 1.0)
    monkeypatch.setattr(delivery, "END_PATIENCE", 1.0)


async def test_prompt_is_typed(root: Path) -> None:
    """A typed prompt arrives whole, once, and the program's own exit ends the task."""
    stand = make_stand(root)
    prompt = "Zeile eins\n\tdann ünïcode \\\nand quit 0"
    async with at_work(stand, prompt) as (live, task):
        done = await live.ended(task)
        assert done["status"] == "succeeded"
    assert stand.log() == [f"pasted {len(prompt)}", f"took {prompt!r}", "left 0"]


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("agent", ["swallower", "slow", "folder"])
async def test_prompt_typed_once(root: Path, agent: str) -> None:
    """However a program delays or swallows, the text is pasted once, and Enter alone is pressed again."""
    stand = make_stand(root)
    async with at_work(stand, "line one\nwork 30", agent=agent) as (live, _):
        await stand.seen(live, ev.PromptDelivered)
        found = [
            type(event) for event in stand.site.events() if isinstance(event, ev.PromptDelivering | ev.PromptDelivered)
        ]
        assert found == [ev.PromptDelivering, ev.PromptDelivered]
        assert stand.log() == ["pasted 16", "took 'line one\\nwork 30'"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("agent", ["deaf", "loser"])
async def test_prompt_not_taken(root: Path, agent: str) -> None:
    """A prompt that is not seen to be taken is reported with the screen; the program is left to a person."""
    stand = make_stand(root)
    async with at_work(stand, "hello", agent=agent) as (live, task):
        failed = await stand.seen(live, ev.DeliveryFailed)
        assert "Player 1.0" in failed.screen
        await stand.logged("pasted")
        assert [line for line in stand.log() if line.startswith("pasted")] == ["pasted 5"]
        assert (await live.task(task))["status"] == "running"
        status = (await live.http.get("/v1/status")).json()
        assert any("its prompt was not seen to be taken" in one["message"] for one in status["attention"])


async def test_dialog_is_for_a_person(root: Path) -> None:
    """A dialog before the first prompt is never answered; the prompt waits visibly, and is typed when it is gone."""
    stand = make_stand(root)
    async with at_work(stand, "work 30", agent="wary") as (live, task):
        note = "a text waits to be typed: a dialog stands before its input"
        await live.event(lambda event: isinstance(event, ev.ScreenSeen) and event.note == note)
        session = await session_of(live, task)
        status = (await live.http.get("/v1/status")).json()
        assert any("kas attach" in one["message"] for one in status["attention"])
        assert status["sessions"][0]["screen_note"] == note
        assert stand.log() == []
        assert (await post(live, session, "keys", keys=["2"]))[0] == 200
        await stand.seen(live, ev.PromptDelivered)
        assert stand.log()[0] == "trusted"


async def test_ask_becomes_approval(root: Path) -> None:
    """What a screen asks is an approval, and its answer is given by the key that means it."""
    stand = make_stand(root)
    async with at_work(stand, "ask git push") as (live, task):
        asked = await stand.seen(live, ev.ApprovalRequested)
        assert (asked.ask.tool, asked.ask.command) == ("Shell", "git push")
        assert (await live.task(task))["status"] == "waiting"
        response = await live.http.post(f"/v1/approvals/{asked.approval_id}", json={"decision": "deny"})
        assert response.json()["status"] == "delivered"
        assert stand.log()[-1] == "answered no git push"


async def test_told_why(root: Path) -> None:
    """Why a person said no is typed into the program's input after the no, once."""
    stand = make_stand(root)
    async with at_work(stand, "ask git push") as (live, _):
        asked = await stand.seen(live, ev.ApprovalRequested)
        said = {"decision": "deny", "reason": "not on Fridays"}
        response = await live.http.post(f"/v1/approvals/{asked.approval_id}", json=said)
        assert response.json()["reason_goes"] == "input"
        await stand.logged("took 'The answer was no: not on Fridays'")
    assert [line for line in stand.log() if "Friday" in line] == ["took 'The answer was no: not on Fridays'"]


async def test_asked_the_same_again(root: Path) -> None:
    """The same dialog once more, right after its answer, is an approval of its own; each is answered once."""
    stand = make_stand(root)
    async with at_work(stand, "ask git push", agent="insister") as (live, _):
        first = await stand.seen(live, ev.ApprovalRequested)
        for decision in ("allow_once", "deny"):
            asked = await live.event(
                lambda event, decision=decision: (
                    isinstance(event, ev.ApprovalRequested)
                    and (decision == "allow_once" or event.approval_id != first.approval_id)
                ),
            )
            response = await live.http.post(f"/v1/approvals/{asked.approval_id}", json={"decision": decision})
            assert response.json()["status"] == "delivered"
        found = [line for line in stand.log() if line.startswith("answered")]
        assert found == ["answered yes git push", "answered no git push"]


async def answer_elsewhere(live: Live, stand: Stand, session: str) -> None:
    """Press a key at a session's terminal that kasmos does not know of."""
    del live
    socket = tmux.socket_path(stand.site.root.path, os.environ.get("XDG_RUNTIME_DIR"))
    command = ["tmux", "-S", str(socket), "send-keys", "-t", f"={tmux_name(session)}:", "1"]
    await trio.run_process(command)


async def answer_with_keys(live: Live, stand: Stand, session: str) -> None:
    """Press a key at a session's terminal as `kas keys` does."""
    del stand
    assert (await post(live, session, "keys", keys=["1"]))[0] == 200


@pytest.mark.parametrize(
    ("agent", "texts", "answer"),
    [
        ("player", "one|two", answer_elsewhere),
        ("player", "same|same", answer_elsewhere),
        ("mute", "one|two", answer_elsewhere),
        ("ticking", "same|same", answer_with_keys),
    ],
    ids=["traced", "same-traced", "traceless", "same-with-keys"],
)
async def test_next_dialog(root: Path, agent: str, texts: str, answer: Callable[..., Awaitable[None]]) -> None:
    """A dialog right after one that was answered at the terminal is another approval; a late answer goes nowhere."""
    stand = make_stand(root)
    first, second = texts.split("|")
    async with at_work(stand, f"edit {texts}", agent=agent) as (live, task):
        asked = await stand.seen(live, ev.ApprovalRequested)
        assert (asked.ask.tool, asked.ask.path) == ("Edit", "a.py")
        await answer(live, stand, await session_of(live, task))
        withdrawn = await stand.seen(live, ev.ApprovalWithdrawn)
        assert withdrawn.approval_id == asked.approval_id
        following = await live.event(
            lambda event: isinstance(event, ev.ApprovalRequested) and event.approval_id != asked.approval_id
        )
        response = await live.http.post(f"/v1/approvals/{asked.approval_id}", json={"decision": "allow_once"})
        assert (response.status_code, response.json()["code"]) == (409, "stale_approval")
        response = await live.http.post(f"/v1/approvals/{following.approval_id}", json={"decision": "deny"})
        assert response.json()["status"] == "delivered"
        found = [line for line in stand.log() if line.startswith("answered")]
        assert found == [f"answered yes {first}", f"answered no {second}"]


async def test_dialog_that_moves(root: Path) -> None:
    """A clock, a counter and a spinner in a dialog, and other sizes of its terminal, make no other approval of it."""
    stand = make_stand(root)
    change = "x" * 150
    async with at_work(stand, f"edit {change}", agent="ticking") as (live, task):
        asked = await stand.seen(live, ev.ApprovalRequested)
        session = await session_of(live, task)
        for width, height in ((60, 40), (120, 14), (200, 50)):
            assert (await post(live, session, "resize", width=width, height=height))[0] == 200
            await drawn_again(live, session, times=10)
        response = await live.http.post(f"/v1/approvals/{asked.approval_id}", json={"decision": "deny"})
        assert response.json()["status"] == "delivered"
        assert len([one for one in stand.site.events() if isinstance(one, ev.ApprovalRequested)]) == 1
        assert stand.log()[-1] == f"answered no {change}"


async def drawn_again(live: Live, session: str, *, times: int) -> None:
    """Wait until a ticking player has drawn its dialog so often."""
    first = -1
    with trio.fail_after(LIMIT):
        while True:
            lines = (await live.http.get(f"/v1/sessions/{session}/screen")).json()["lines"]
            tick = next((int(line.rpartition(" ")[2]) for line in lines if line.startswith("Waiting")), None)
            if tick is not None:
                first = tick if first < 0 else first
                if tick >= first + times:
                    return
            await trio.sleep(0.05)


async def test_rule_answers(root: Path) -> None:
    """A rule of the profile answers what it speaks of, once, without a person."""
    stand = make_stand(root, RULE)
    async with at_work(stand, "ask git status") as (live, _):
        await stand.seen(live, ev.ApprovalDelivered)
        assert [line for line in stand.log() if line.startswith("answered")] == ["answered yes git status"]


async def test_answered_at_the_terminal(root: Path) -> None:
    """What somebody answers at the terminal is withdrawn, and an answer that comes later is refused as stale."""
    stand = make_stand(root)
    async with at_work(stand, "ask git push") as (live, task):
        asked = await stand.seen(live, ev.ApprovalRequested)
        await post(live, await session_of(live, task), "keys", keys=["1"])
        await stand.seen(live, ev.ApprovalWithdrawn)
        response = await live.http.post(f"/v1/approvals/{asked.approval_id}", json={"decision": "allow_once"})
        assert (response.status_code, response.json()["code"]) == (409, "stale_approval")
        assert [line for line in stand.log() if line.startswith("answered")] == ["answered yes git push"]


async def test_has_updated(root: Path) -> None:
    """A session in tmux knows by the rules of its program whether it waits for a person."""
    stand = make_stand(root)
    async with at_work(stand, "ask git push") as (live, task):
        await stand.seen(live, ev.ApprovalRequested)
        session = live.engine.service.terminals.require(await session_of(live, task))
        with trio.fail_after(LIMIT):
            while session.has_updated().prompt is not True:  # noqa: ASYNC110  # it tells when it is asked
                await trio.sleep(0.02)
            await session.send_keys("3")
            while session.has_updated().prompt is not False:  # noqa: ASYNC110
                await trio.sleep(0.02)


async def test_question(root: Path) -> None:
    """A question is answered by choosing an option of its dialog."""
    stand = make_stand(root)
    async with at_work(stand, "a question please") as (live, _):
        asked = await stand.seen(live, ev.ApprovalRequested)
        assert [option.label for option in asked.ask.options] == ["Red", "Blue"]
        response = await live.http.post(f"/v1/approvals/{asked.approval_id}", json={"decision": "choose", "option": 1})
        assert response.json()["status"] == "delivered"
        assert "chose" in stand.log()[-1]


async def test_send(root: Path) -> None:
    """A text is typed and taken; into a program at work it is refused, unless it may wait."""
    stand = make_stand(root)
    async with at_work(stand, f"until {root}/go") as (live, task), trio.open_nursery() as nursery:
        await stand.seen(live, ev.PromptDelivered)
        session = await session_of(live, task)
        await refused(live, session, "too early")
        before = live.engine.bus.newest

        async def let_go() -> None:
            waits = "a text waits to be typed"
            await live.event(lambda event: isinstance(event, ev.ScreenSeen) and waits in event.note, after=before)
            (root / "go").touch()

        nursery.start_soon(let_go)
        code, said = await post(live, session, "input", text="work 0.2; second", wait=True)
        assert (code, said["verified"]) == (200, True)
        assert stand.log()[-1] == "took 'work 0.2; second'"
        assert sum("too early" in line for line in stand.log()) == 0


async def test_send_gives_way(root: Path) -> None:
    """What stands in the input is nobody's to send: a text is refused, and takes its place only if that is forced."""
    stand = make_stand(root)
    async with at_work(stand, "work 0.1") as (live, task):
        await stand.seen(live, ev.PromptDelivered)
        session = await session_of(live, task)
        await state_of(live, session, "state", "ready")
        assert (await post(live, session, "keys", keys="half a tho"))[0] == 200
        await state_of(live, session, "draft", "half a tho")
        assert "half a tho" in await refused(live, session, "mine")
        code, said = await post(live, session, "input", text="mine", force=True)
        assert (code, said["replaced"]) == (200, "half a tho")
        assert stand.log()[-1] == "took 'mine'"


@pytest.mark.usefixtures("impatient")
async def test_removed_and_not_taken(root: Path) -> None:
    """Whoever forces a text is told what it removed, also when the text is not taken after all."""
    stand = make_stand(root)
    async with at_work(stand, "work 0.1", agent="loser") as (live, task):
        await stand.seen(live, ev.DeliveryFailed)
        session = await session_of(live, task)
        assert (await post(live, session, "keys", keys="half"))[0] == 200
        await state_of(live, session, "draft", "half")
        code, said = await post(live, session, "input", text="mine", force=True)
        assert (code, said["code"]) == (409, "delivery_failed")
        assert "what stood in its input was removed: half" in said["detail"]


async def test_long_text_is_a_file(root: Path) -> None:
    """A text above the profile's bound goes as a file, with a line that says where."""
    stand = make_stand(root, "").site
    config = stand.project / ".kasmos" / "config.toml"
    config.write_text(config.read_text().replace('prompt = "type"\n', 'prompt = "type"\ntyped_max = 256\n'))
    world = Stand(stand, root / "player.log")
    prompt = "much to say\n" * 100
    async with at_work(world, prompt) as (live, _):
        event = await world.seen(live, ev.PromptDelivering)
        await world.seen(live, ev.PromptDelivered)
        assert await trio.Path(event.file).read_text() == prompt.rstrip("\n")
        assert world.log()[-1] == f"took 'Read the file {event.file} and do what it says.'"


async def test_paste_terminator(root: Path) -> None:
    """A text that would end its own paste is refused, and nothing is typed."""
    stand = make_stand(root)
    async with at_work(stand, "work 0.1") as (live, task):
        await stand.screen(live, "ready")
        code, said = await post(live, await session_of(live, task), "input", text="a\x1b[201~rm")
        assert code >= 400
        assert "ESC[201~" in said["detail"]
        assert not any("rm" in line for line in stand.log())


LEAVE = """
[agents.leaver]
program = "{player}"
execution_mode = "tmux"
prompt = "type"
when_done = "leave"
exit_grace = "300ms"
stop_grace = "60s"
env = {{ PLAYER_LOG = "{log}" }}
"""


def make_leaver(root: Path) -> Stand:
    """A project with a player that has to leave when its turn is over."""
    return make_stand(root, LEAVE.format(player=PROGRAMS / "player", log=root / "player.log"))


async def test_turn_is_over(root: Path) -> None:
    """A program whose turn is over is sent away where its profile says so; its checks decide then."""
    stand = make_leaver(root)
    async with at_work(stand, "work 0.2", agent="leaver", checks=["exit 3"]) as (live, task):
        done = await live.ended(task)
        assert done["status"] == "failed"
        assert "exit 3" in str(done["cause"])
    (asked,) = [event for event in stand.site.events() if isinstance(event, ev.StopRequested)]
    assert asked.reason is StopReason.SETTLED
    (said,) = [event for event in stand.site.events() if isinstance(event, ev.SessionConcluded)]
    assert said.outcome is Outcome.SUCCEEDED
    assert stand.log() == ["pasted 8", "took 'work 0.2'", "left 0"]


async def test_turn_with_a_question(root: Path) -> None:
    """A turn is not over while the program asks, however long that takes."""
    stand = make_leaver(root)
    async with at_work(stand, "ask git push", agent="leaver") as (live, task):
        asked = await stand.seen(live, ev.ApprovalRequested)
        response = await live.http.post(f"/v1/approvals/{asked.approval_id}", json={"decision": "allow_once"})
        assert response.json()["status"] == "delivered"
        assert (await live.ended(task))["status"] == "succeeded"
    assert stand.log()[-2:] == ["answered yes git push", "left 0"]


async def test_prompt_that_cannot_be_typed(root: Path) -> None:
    """A prompt that cannot be typed at all ends its program, and its task fails and says why."""
    stand = make_stand(root)
    async with at_work(stand, "a\x1b[201~rm -rf") as (live, task):
        done = await live.ended(task)
        assert (done["status"], done["cause"]["kind"]) == ("failed", "undelivered")
        assert "ESC[201~" in done["cause"]["message"]
    (failed,) = [event for event in stand.site.events() if isinstance(event, ev.DeliveryFailed)]
    assert failed.prompt
    assert not any(line.startswith(("pasted", "took")) for line in stand.log())


async def test_look(root: Path) -> None:
    """A session's screen, size and state can be asked for, and which rule saw what."""
    stand = make_stand(root)
    async with at_work(stand, "limit") as (live, task):
        await stand.screen(live, "limit")
        session = await session_of(live, task)
        assert (await post(live, session, "resize", width=100, height=30))[0] == 200
        screen = (await live.http.get(f"/v1/sessions/{session}/screen")).json()
        assert (screen["width"], screen["height"], screen["state"]) == (100, 30, "limit")
        found = (await live.http.get(f"/v1/sessions/{session}/explain")).json()
        assert (found["state"], found["rule"], found["reset"]) == ("limit", "limit", "9pm")
        code, said = await post(live, session, "keys", keys=["Entr"])
        assert (code, said["code"]) == (400, "invalid_body")
