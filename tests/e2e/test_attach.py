"""`kas attach` and its like, driven by a real terminal: another tmux plays the person."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from kasmos.model import event as ev
from tests.e2e.player_world import make_stand
from tests.e2e.test_terminal import at_work, refused, session_of, state_of

LIMIT = 120.0


class Person:
    """Somebody at a terminal of 100x30."""

    def __init__(self, root: Path) -> None:
        self.socket = str(root / "person.sock")
        self.env = {**os.environ, "TERM": "xterm-256color"}

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-S", self.socket, "-f", "/dev/null", *words]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=LIMIT, check=True).stdout

    def run(self, *words: str | os.PathLike[str]) -> None:
        """Open the terminal with a command in it; what it says stays readable."""
        line = " ".join(f"'{os.fspath(word)}'" for word in (sys.executable, "-m", "kasmos", *words))
        shell = f"unset TMUX; {line}; echo left with $?; exec cat"
        self.tmux("new-session", "-d", "-s", "person", "-x", "100", "-y", "30", f'sh -c "{shell}"')

    async def sees(self, text: str) -> str:
        screen = ""
        with trio.move_on_after(LIMIT):
            while True:
                screen = await trio.to_thread.run_sync(self.tmux, "capture-pane", "-p", "-t", "person")
                if text in screen:
                    return screen
                await trio.sleep(0.05)
        raise AssertionError(f"{text!r} was not seen:\n{screen}")

    def leave(self) -> None:
        """Close the terminal."""
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], capture_output=True, timeout=LIMIT)

    def presses(self, *keys: str) -> None:
        self.tmux("send-keys", "-t", "person", *keys)


@pytest.fixture
def person(root: Path) -> Iterator[Person]:
    """Somebody at a terminal."""
    person = Person(root)
    yield person
    person.leave()


async def test_attach_and_detach(root: Path, person: Person) -> None:
    """Who attaches sees the agent and types into it; their terminal changes no size, and detaching ends nothing."""
    stand = make_stand(root)
    async with at_work(stand, "work 0.1") as (live, task):
        await stand.seen(live, ev.PromptDelivered)
        session = await session_of(live, task)
        await state_of(live, session, "state", "ready")
        state = ("--state-root", stand.site.root.path)
        await trio.to_thread.run_sync(lambda: person.run("-C", stand.site.project, *state, "attach", session))
        await person.sees("* done")
        person.presses("x", "y")
        await person.sees("> xy")
        assert "somebody is typing: xy" in await refused(live, session, "mine")
        screen = (await live.http.get(f"/v1/sessions/{session}/screen")).json()
        assert (screen["width"], screen["height"]) == (200, 50)
        person.presses("Enter")
        await stand.logged("took 'xy'")
        person.presses("C-b", "d")
        assert "left with 0" in await person.sees("left with")
        assert (await live.task(task))["status"] == "running"


async def test_several_people(root: Path, person: Person) -> None:
    """Several people see the same terminal; the keys of who only looks (`-r`) do nothing, the others' do."""
    stand = make_stand(root)
    (root / "other").mkdir()
    onlooker = Person(root / "other")
    async with at_work(stand, "work 0.1") as (live, task):
        await stand.seen(live, ev.PromptDelivered)
        session = await session_of(live, task)
        await state_of(live, session, "state", "ready")
        words = ("-C", stand.site.project, "--state-root", stand.site.root.path, "attach", session)
        try:
            await trio.to_thread.run_sync(lambda: person.run(*words))
            await trio.to_thread.run_sync(lambda: onlooker.run(*words, "-r"))
            for one in (person, onlooker):
                await one.sees("* done")
            onlooker.presses("n", "o", "Enter")
            person.presses("y", "e", "s")
            for one in (person, onlooker):
                await one.sees("> yes")
            # The onlooker's keys came first, and would be before these.
            person.presses("Enter")
            await stand.logged("took 'yes'")
            onlooker.presses("C-b", "d")
            assert "left with 0" in await onlooker.sees("left with")
        finally:
            await trio.to_thread.run_sync(onlooker.leave)


async def test_attach_refused(root: Path, person: Person) -> None:
    """Without a terminal, and inside the same tmux, attaching is refused with what to do instead."""
    stand = make_stand(root)
    async with at_work(stand, "work 0.1") as (live, task):
        await stand.seen(live, ev.PromptDelivered)
        session = await session_of(live, task)
        command = [sys.executable, "-m", "kasmos", "-C", str(stand.site.project)]
        command += ["--state-root", str(stand.site.root.path), "attach", session]
        done = await trio.run_process(command, stdin=b"", capture_stdout=True, capture_stderr=True, check=False)
        assert (done.returncode, b"needs a terminal" in done.stderr) == (4, True)
        inside = f"TMUX={stand.site.root.path}/tmux/sock,1,0"
        script = f"'{inside}' " + " ".join(f"'{word}'" for word in command)
        await trio.to_thread.run_sync(
            person.tmux, "new-session", "-d", "-s", "person", "-x", "150", "-y", "30", f"env {script}; exec cat"
        )
        await person.sees("switch-client")
