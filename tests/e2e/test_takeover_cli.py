"""`kas attach` and `kas detach` of a headless agent, driven by a person at a real terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from kasmos.model import event as ev
from tests.conftest import Kas, Result
from tests.e2e.supervisor_world import Live
from tests.e2e.talker_world import Parlour, make_parlour
from tests.e2e.test_attach import Person
from tests.e2e.test_takeover import at_work, attended, says


@pytest.fixture
def person(root: Path) -> Iterator[Person]:
    """Somebody at a terminal."""
    person = Person(root)
    yield person
    person.leave()


class Desk:
    """Where the person types `kas` commands about a task."""

    def __init__(self, parlour: Parlour, person: Person, task: str) -> None:
        self.person = person
        self.task = task
        self._place = ("-C", parlour.site.project, "--state-root", parlour.site.root.path)
        self._kas = Kas(parlour.site.project)

    async def types(self, *words: str) -> None:
        """Run a command at the terminal. What Ctrl-C is for is `kas`, not the shell around it."""
        line = " ".join(f"'{word}'" for word in Kas.command(*map(str, self._place), *words))
        shell = f"unset TMUX; trap : INT; {line}; echo left with \\$?; exec cat"
        command = ("new-session", "-d", "-s", "person", "-x", "100", "-y", "30", f'sh -c "{shell}"')
        await trio.to_thread.run_sync(self.person.tmux, *command)

    async def runs(self, *words: str, **options: Any) -> Result:
        """Run a command without a terminal."""
        return await trio.to_thread.run_sync(lambda: self._kas(*self._place, *words, **options))


async def test_a_person_sits_down_and_leaves(root: Path, person: Person) -> None:
    """Who attaches is asked, sees the wait, is in the terminal, leaves it, and hands it back; each is told truly."""
    parlour = make_parlour(root)
    async with at_work(parlour, "wait go; write one 1") as (live, task):
        desk = Desk(parlour, person, task)
        await desk.types("attach", task)
        seen = await person.sees("Take it over? [y/N]")
        assert "runs headless" in seen
        assert (await live.task(task))["takeover"] is None
        person.presses("y", "Enter")
        await person.sees("to end its turn")
        assert "takes it over when its turn has ended" in (await desk.runs("status")).stdout
        parlour.let("go")
        await person.sees("* Talker")
        status = (await desk.runs("status")).stdout
        assert "with a person: " in status
        assert f"kas detach {task}" in status
        assert "with a person" in (await desk.runs("ps")).stdout
        why = (await desk.runs("why", task)).stdout
        assert "with a person: " in why
        assert "(talker, with a person): running" in why
        person.presses("w", "r", "i", "t", "e", "Space", "t", "w", "o", "Space", "2", "Enter")
        await parlour.noted("took")
        person.presses("C-b", "d")
        told = await person.sees("left with 0")
        assert "is still yours" in told
        assert "kas detach" in told
        assert (await live.task(task))["takeover"]["phase"] == "attended"
        back = await desk.runs("detach", task, "--prompt", "write three 3")
        assert (back.code, "is handed back: it goes on headless" in back.stdout) == (0, True), back
        assert (await live.ended(task))["status"] == "succeeded"
    assert [parlour.text(name) for name in ("one", "two", "three")] == ["1\n", "2\n", "3\n"]


async def test_a_program_that_is_quit(root: Path, person: Person) -> None:
    """Who quits the program at its terminal is told that the task goes on; `--yes` asks nothing."""
    parlour = make_parlour(root)
    async with at_work(parlour, "wait go") as (live, task):
        desk = Desk(parlour, person, task)
        await desk.types("attach", task, "--yes", "--now")
        await person.sees("* Talker")
        parlour.let("go")
        person.presses("/", "e", "x", "i", "t", "Enter")
        assert "its terminal has ended" in await person.sees("left with 0")
        assert (await live.ended(task))["status"] == "succeeded"
    assert [event.reason for event in parlour.site.events() if isinstance(event, ev.HandedBack)] == [
        "its program has ended: exit 0"
    ]


@pytest.mark.parametrize(("keys", "code"), [(("n", "Enter"), 1), (("y", "Enter", "C-c"), 130)])
async def test_thought_better_of(root: Path, person: Person, keys: tuple[str, ...], code: int) -> None:
    """Who says no, or leaves while the turn goes on, changes nothing."""
    parlour = make_parlour(root)
    async with at_work(parlour, "wait go; write one 1") as (live, task):
        desk = Desk(parlour, person, task)
        await desk.types("attach", task)
        await person.sees("Take it over? [y/N]")
        person.presses(*keys[:2])
        if keys[2:]:
            await person.sees("to end its turn")
            person.presses(*keys[2:])
            await person.sees("as if it had not been asked for")
        await person.sees(f"left with {code}")
        assert (await live.task(task))["takeover"] is None
        parlour.let("go")
        done = await live.ended(task)
    assert (done["status"], len(done["sessions"])) == ("succeeded", 1)


async def test_somebody_else_comes_along(root: Path, person: Person) -> None:
    """Who comes when somebody has asked already waits for the same terminal, and several may be in it."""
    parlour = make_parlour(root)
    async with at_work(parlour, "wait go") as (live, task):
        desk = Desk(parlour, person, task)
        await live.http.post(f"/v1/tasks/{task}/attach")
        await desk.types("attach", task)
        await person.sees("is taken over already; waiting until it is open")
        parlour.let("go")
        await person.sees("* Talker")
        session = await attended(parlour, live, task)
        await says(live, session, "write one 1")
        await person.sees("> write one 1")
        (root / "other").mkdir()
        onlooker = Person(root / "other")
        try:
            await Desk(parlour, onlooker, task).types("attach", "-r", task)
            await onlooker.sees("> write one 1")
            onlooker.presses("C-b", "d")
            # Whose it is, who only looks is not told: it is not theirs.
            assert "is still yours" not in await onlooker.sees("left with 0")
        finally:
            await trio.to_thread.run_sync(onlooker.leave)


async def test_refused(root: Path, person: Person) -> None:
    """Without a terminal, and where nobody has anything, `kas` refuses and says what to do instead."""
    parlour = make_parlour(root)
    async with at_work(parlour, "wait go; write one 1") as (live, task):
        desk = Desk(parlour, person, task)
        refused = await desk.runs("attach", task, "--yes")
        assert (refused.code, "needs a terminal" in refused.stderr) == (4, True), refused
        assert f"kas logs -f {task}" in refused.stderr
        refused = await desk.runs("attach", task, "-r")
        assert (refused.code, "no terminal to look at" in refused.stderr) == (4, True), refused
        refused = await desk.runs("detach", task)
        assert (refused.code, "has not been taken over" in refused.stderr) == (4, True), refused
        refused = await desk.runs("detach", task, "--done", "--prompt", "x")
        assert (refused.code, "exclude each other" in refused.stderr) == (2, True), refused
        await live.http.post(f"/v1/tasks/{task}/attach")
        given_up = await desk.runs("detach", task)
        assert (given_up.code, "it goes on as it was" in given_up.stdout) == (0, True), given_up
        parlour.let("go")
        await live.ended(task)
        refused = await desk.runs("attach", task)
        assert (refused.code, f"kas submit --continue {task}" in refused.stderr) == (4, True), refused
    assert await alone(desk, live)


async def alone(desk: Desk, live: Live) -> bool:
    """Whether `kas detach` says that nobody is there to hand it to."""
    refused = await desk.runs("detach", desk.task)
    return (refused.code, "no supervisor is running" in refused.stderr) == (3, True)
