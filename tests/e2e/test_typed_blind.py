"""Texts typed into programs of whose screens nothing is known; and texts of a megabyte."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
import trio

from kasmos.model import event as ev
from tests.e2e.player_world import LIMIT, PROGRAMS, Stand
from tests.e2e.supervisor_world import Live, make_site
from tests.e2e.test_terminal import at_work, post, session_of

CONFIG = """
[orchestration]
default_agent = "typed"

[agents.typed]
program = ["sh", "-c", '{script}']
execution_mode = "tmux"
prompt = "type"
stop_grace = "1s"

[agents.taker]
program = ["{pasted}"]
execution_mode = "tmux"
typed_max = {typed_max}
stop_grace = "1s"
"""
ODD = "two\nlines\twith tab, é 日本, `id` $HOME and a backslash at the end \\"


def make(root: Path, *, script: str = "", typed_max: int = 32_768) -> Stand:
    """A project whose agents take one paste and say what it was."""
    pasted = PROGRAMS / "pasted"
    text = CONFIG.format(script=script or f"exec {pasted}", pasted=pasted, typed_max=typed_max)
    return Stand(make_site(root, text), root / "none.log")


def digest(text: str) -> str:
    """What the program says of a paste."""
    data = text.encode()
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


async def output(stand: Stand, live: Live, task: str) -> str:
    """All that a task's session has written, once it has ended."""
    await live.ended(task)
    directory = stand.site.root.session_dir(await session_of(live, task))
    return await trio.Path(directory / "output.log").read_text()


async def test_prompt_into_the_unknown(root: Path) -> None:
    """Without screen rules a prompt is typed when the program rests, and nobody claims that it was taken."""
    stand = make(root, script="echo ready; exec cat")
    async with at_work(stand, "say it again") as (live, task):
        delivered = await stand.seen(live, ev.PromptDelivered)
        assert not delivered.verified
        await post(live, await session_of(live, task), "keys", keys=["C-d"])
        assert (await output(stand, live, task)).count("say it again") == 2


async def test_prompt_is_no_answer(root: Path) -> None:
    """A question in words that any program uses keeps a prompt waiting, visibly, until a person has answered it."""
    stand = make(root, script=f'exec {PROGRAMS / "pasted"} --ask "Go on? [y/N]"')
    async with at_work(stand, ODD) as (live, task):
        await live.event(lambda event: isinstance(event, ev.ScreenSeen) and "asks something" in event.note)
        session = await session_of(live, task)
        assert (await post(live, session, "keys", keys=["n", "Enter"]))[0] == 200
        said = await output(stand, live, task)
        assert "got n" in said
        assert digest(ODD) in said


async def taking(stand: Stand, live: Live, task: str) -> str:
    """Wait until the program takes what is typed; its session."""
    await live.running(task)
    session = await session_of(live, task)
    log = stand.site.root.session_dir(session) / "output.log"
    with trio.fail_after(LIMIT):
        while "ready" not in log.read_text():  # noqa: ASYNC110  # a file tells nobody
            await trio.sleep(0.02)
    return session


async def send(stand: Stand, session: str, text: str) -> None:
    """`kas send SESSION -`, with a text on standard input."""
    command = [sys.executable, "-m", "kasmos", "-C", str(stand.site.project)]
    command += ["--state-root", str(stand.site.root.path), "send", session, "--no-enter", "-"]
    done = await trio.run_process(command, stdin=text.encode(), capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("text", [ODD, "0123456789abcdef\n" * 61_000 + "end"], ids=["odd", "megabyte"])
async def test_sent_byte_for_byte(root: Path, text: str) -> None:
    """`kas send` gives a text to a program in raw mode byte for byte, up to a megabyte."""
    stand = make(root, typed_max=1 << 20)
    async with at_work(stand, "nothing", agent="taker") as (live, task):
        await send(stand, await taking(stand, live, task), text)
        assert digest(text) in await output(stand, live, task)


async def test_sent_as_a_file(root: Path) -> None:
    """A text above the profile's bound goes as a file, also to a program without rules; what is typed says where."""
    text = "much to say\n" * 90_000 + "the end"
    stand = make(root)
    async with at_work(stand, "nothing", agent="taker") as (live, task):
        session = await taking(stand, live, task)
        await send(stand, session, text)
        said = await output(stand, live, task)
        (file,) = stand.site.root.session_dir(session).glob("typed-*.md")
        assert file.read_text() == text
        assert digest(f"Read the file {file} and do what it says.") in said
