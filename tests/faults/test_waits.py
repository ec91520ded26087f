"""Programs that wait for input that nobody gives: seen as what they are, told of within seconds, and never ended."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from kasmos.model import event as ev
from kasmos.model.event import Event, Record
from kasmos.model.profile import ExecutionMode, StopPolicy
from kasmos.model.session import InputWait, SessionKind, SessionSpec, WaitSource
from kasmos.model.view import World
from kasmos.sessions.headless import HeadlessSession, open_headless
from kasmos.sessions.waits import Family
from kasmos.store.fold import apply
from kasmos.supervision.quiet import LONGEST, MOST, QUIET, TICK, QuietWatch
from kasmos.supervision.termination import terminate
from tests.e2e.supervisor_world import make_site

LIMIT = 120.0
PARENT = """
import os, select, socket, subprocess, sys
how, *child = sys.argv[1:]
if how == "pty":
    import pty
    pid, master = pty.fork()
    if pid == 0:
        os.execvp(child[0], child)
    while os.read(master, 100):
        pass
elif how == "socket":
    ours, theirs = socket.socketpair()
    subprocess.Popen(child, stdin=theirs).wait()
else:
    process = subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.wait() if how == "wait" else select.select([process.stdout], [], [])
"""
PYTHON = (sys.executable, "-c")
POLL = "import os, select; p = select.poll(); p.register(0, select.POLLIN); p.register(os.pipe()[0], 1); p.poll()"
SELECT = "import os, select; terminal = os.open('/dev/tty', os.O_RDWR); select.select([terminal, os.pipe()[0]], [], [])"
SERVER = "import select, socket; s = socket.create_server(('127.0.0.1', 0))"
LOOP = "import select; loop = select.epoll(); loop.register(0, select.EPOLLIN); loop.poll()"


def below(how: str, *child: str) -> tuple[str, ...]:
    """A program that starts *child* with an input that it never gives anything, and then waits."""
    return (*PYTHON, PARENT, how, *child)


class Memory:
    """A journal of a few events."""

    def __init__(self) -> None:
        self.world = World()
        self.told: list[ev.InputAwaited] = []

    async def append(self, *events: Event) -> tuple[Record, ...]:
        self.append_nowait(*events)
        await trio.lowlevel.checkpoint()
        return ()

    def append_nowait(self, *events: Event) -> None:
        for event in events:
            apply(self.world, Record(self.world.seq + 1, 0.0, 0.0, event))
            if isinstance(event, ev.InputAwaited):
                self.told.append(event)


@attrs.define
class Place:
    """Real sessions, and a watch over them whose clock a test turns."""

    open: Callable[..., object]
    memory: Memory = attrs.field(factory=Memory)
    sessions: list[HeadlessSession] = attrs.field(factory=list)
    at_tool: float | None = None
    now: float = 0.0

    @property
    def watch(self) -> QuietWatch:
        return QuietWatch(
            self.memory, lambda: self.sessions, trio.sleep_forever, lambda name: self.at_tool, lambda: self.now
        )

    async def look_until_sure(self, watch: QuietWatch, rounds: int = 4) -> None:
        """As many rounds as it takes, in a moment, to be told of a session that waits."""
        for _ in range(rounds):
            await watch.look_round()
            self.now += max(TICK, QUIET)


@pytest.fixture
async def place(root: Path) -> AsyncIterator[Place]:
    async with open_headless(root / "state", terminate=terminate) as backend, trio.open_nursery() as nursery:

        @asynccontextmanager
        async def start(*argv: str) -> AsyncIterator[HeadlessSession]:
            name = f"waits-{uuid.uuid4().hex[:12]}"
            spec = SessionSpec(
                id=name, name=name, argv=argv, cwd=str(root),
                env={"PATH": os.environ["PATH"], "KASMOS_SESSION_ID": name},
                stop=StopPolicy(stop_grace=0.1, kill_grace=LIMIT),
            )  # fmt: skip
            made.memory.append_nowait(
                ev.SessionStarting(name, name, SessionKind.AGENT, ExecutionMode.HEADLESS, "boot"),
                ev.SessionStarted(name),
            )
            async with backend.open(spec, notify=ignore) as session:
                made.sessions.append(session)
                yield session
            made.sessions.remove(session)

        async def ignore(event: Event) -> None:
            await trio.lowlevel.checkpoint()

        made = Place(start)
        yield made
        nursery.cancel_scope.cancel()


async def seen(session: HeadlessSession, name: str, facts: Mapping[str, object] | None = None) -> InputWait:
    """Wait until a process of this name is seen waiting, and then always, and each time with these facts.

    Whoever started it may still be on the way to where it stays.
    """
    found: list[InputWait] = []
    with trio.fail_after(LIMIT):
        while len(found) < 5:
            named = [one for one in await session.look_for_waits() if one.name.startswith(name)]
            wanted = [one for one in named if all(getattr(one, fact) == is_ for fact, is_ in (facts or {}).items())]
            found = [*found, wanted[0]] if wanted else []
            await trio.sleep(0.05)
    return found[-1]


async def nobody_waits(session: HeadlessSession) -> None:
    """Wait until no process is seen waiting."""
    with trio.fail_after(LIMIT):
        while await session.look_for_waits():  # noqa: ASYNC110  # nothing tells of it
            await trio.sleep(0.05)


def fifo(root: Path) -> str:
    path = str(root / "fifo")
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("argv", "name", "facts"),
    [
        (below("pty", "cat"), "cat", {"source": WaitSource.TERMINAL}),
        (below("pty", "sh", "-c", "read answer"), "sh", {"source": WaitSource.TERMINAL}),
        (below("pty", *PYTHON, "input()"), "python", {"source": WaitSource.TERMINAL}),
        (below("pty", *PYTHON, LOOP), "python", {"source": WaitSource.TERMINAL}),
        (below("pty", *PYTHON, POLL), "python", {"source": WaitSource.TERMINAL}),
        (below("pty", *PYTHON, SELECT), "python", {"source": WaitSource.TERMINAL}),
        (below("wait", "cat"), "cat", {"stalemate": True, "held_above": True, "alone": False}),
        (below("wait", *PYTHON, "input()"), "python", {"stalemate": True, "held_above": True}),
        (below("wait", *PYTHON, LOOP), "python", {"stalemate": True, "held_above": True}),
        (below("wait", *PYTHON, POLL), "python", {"stalemate": True, "held_above": True}),
        (below("socket", "cat"), "cat", {"stalemate": True, "held_above": True}),
        (below("talk", "cat"), "cat", {"stalemate": False, "held_above": True, "alone": False}),
        (("sh", "-c", "sleep 1000 | cat; :"), "cat", {"stalemate": False, "held_above": False, "alone": False}),
    ],
)
async def test_who_waits_is_seen(place: Place, argv: tuple[str, ...], name: str, facts: dict[str, object]) -> None:
    """Real programs that read a terminal or a pipe are seen to, whatever they read it with, and who could write."""
    async with place.open(*argv) as session:  # type: ignore[attr-defined]
        found = await seen(session, name, facts)
        assert not found.is_program


async def test_who_waits_for_itself(place: Place, root: Path) -> None:
    """A program whose input nobody but itself could give is seen to be alone."""
    path = fifo(root)
    async with place.open("sh", "-c", f"exec cat <>{path}") as session:  # type: ignore[attr-defined]
        found = await seen(session, "cat")
        assert (found.alone, found.is_program, found.source) == (True, True, WaitSource.PIPE)


@pytest.mark.parametrize(
    "argv",
    [
        ("sleep", "1000"),
        ("sh", "-c", "sleep 1000; :"),
        (*PYTHON, "import time; time.sleep(1000)"),
        (*PYTHON, "import socket; s = socket.create_server(('127.0.0.1', 0)); s.accept()"),
        (*PYTHON, f"{SERVER}; select.select([0, s], [], [])"),
        (*PYTHON, f"{SERVER}; select.select([0], [], [s])"),
        (*PYTHON, f"{SERVER}; loop = select.poll(); loop.register(0); loop.register(s); loop.poll()"),
    ],
)
async def test_who_does_not_wait_for_input(place: Place, argv: tuple[str, ...]) -> None:
    """A program that waits for a timer, a child or a connection waits for no input; nor does standard input itself."""
    async with place.open(*argv) as session:  # type: ignore[attr-defined]
        await nobody_waits(session)  # it may just be at the gate that it waits at before it is the program
        for _ in range(3):
            assert await session.look_for_waits() == ()


async def test_who_is_stopped_is_seen(place: Place) -> None:
    """A program that a signal has stopped is seen, and not any more when it goes on."""
    async with place.open("sleep", "1000") as session:  # type: ignore[attr-defined]
        await nobody_waits(session)
        os.kill(session.pid, signal.SIGSTOP)
        assert (await seen(session, "")).source is WaitSource.STOPPED
        watch = place.watch
        await place.look_until_sure(watch)
        assert [one.source for one in place.memory.told] == [WaitSource.STOPPED]
        os.kill(session.pid, signal.SIGCONT)
        await nobody_waits(session)
        place.now += LONGEST
        await watch.look_round()
        assert place.memory.told[-1].what == ""
        assert session.exit is None


async def test_told_once_and_taken_back(place: Place, root: Path) -> None:
    """A wait is told of once however often it is seen, and taken back as soon as the session writes again."""
    path = fifo(root)
    script = f"exec 3<>{path}; read answer <{path}; echo $answer; exec sleep 1000"
    async with place.open("bash", "-c", script) as session:  # type: ignore[attr-defined]
        await seen(session, "bash")
        watch = place.watch
        await place.look_until_sure(watch, 8)
        (told,) = place.memory.told
        assert "bash (pid" in told.what
        assert told.pid == session.pid
        (root / "fifo").write_text("yes\n")
        with trio.fail_after(LIMIT):
            await session.read(0)
        await watch.look_round()
        assert [one.what for one in place.memory.told[1:]] == [""]


@pytest.mark.parametrize(("at_tool", "told"), [(0.0, 1), (math.inf, 0), (None, 0)])
async def test_a_server_of_tools_is_no_wait(place: Place, at_tool: float | None, told: int) -> None:
    """Who reads from its agent is told of only while that uses a tool, and only if the tool began it."""
    place.at_tool = at_tool
    async with place.open(*below("talk", "cat")) as session:  # type: ignore[attr-defined]
        await seen(session, "cat", {"stalemate": False, "held_above": True})
        watch = place.watch
        await place.look_until_sure(watch, 8)
        assert len(place.memory.told) == told


async def test_of_a_crowd_a_few_are_looked_at(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round looks at a few of many silent sessions, those first whose turn it is; nobody is forgotten."""
    looked: list[str] = []

    class Quiet:
        def __init__(self, number: int) -> None:
            self.spec = SessionSpec(id=f"s{number}", name=f"s{number}", argv=("x",), cwd="/")
            self.exit, self.output_bytes = None, 0
            self.capabilities = HeadlessSession._capabilities

        async def look_for_waits(self) -> tuple[InputWait, ...]:
            looked.append(self.spec.id)
            await trio.lowlevel.checkpoint()
            return ()

        def last_output_at(self) -> None:
            return None

    crowd = 2 * MOST + 5
    place.sessions = [Quiet(number) for number in range(crowd)]  # type: ignore[misc]
    for one in place.sessions:
        place.memory.append_nowait(
            ev.SessionStarting(one.spec.id, "s", SessionKind.AGENT, ExecutionMode.HEADLESS, "boot")
        )
    watch = place.watch
    await watch.look_round()
    assert looked == []
    for rounds in range(1, 4):
        place.now += QUIET / 3 if rounds > 1 else QUIET
        await watch.look_round()
        assert len(looked) == min(crowd, rounds * MOST)
    assert sorted(looked) == sorted(one.spec.id for one in place.sessions)


def test_family(root: Path) -> None:
    """A process is found below those that started it, and nobody is below who has no children."""
    family = Family()
    assert family.below(os.getppid())[0] == os.getppid()
    assert os.getpid() in family.below(os.getppid())


async def test_a_supervisor_tells_within_seconds(root: Path) -> None:
    """A running supervisor tells of a program that hangs on input: as an event, in the status, and by `kas why`."""
    site = make_site(root)
    waits = " ".join(f"'{word}'" for word in below("pty", "cat"))
    async with site.supervisor() as here:
        await here.submit(waits, name="hangs")
        async with here.engine.bus.subscribe(0) as subscription:
            async for records in subscription:
                told = [record.event for record in records if isinstance(record.event, ev.InputAwaited)]
                if told:
                    break
        assert "cat (pid" in told[0].what
        assert "terminal that nobody is at" in told[0].what
        status = (await here.http.get("/v1/status")).json()
        assert [(one["kind"], told[0].what in one["message"]) for one in status["attention"]] == [("input", True)]
        (session,) = status["sessions"]
        assert session["awaits"] == told[0].what
        assert json.dumps(session)
        # It is told of, and that is all.
        assert session["status"] == "running"
        await here.engine.service.runs.cancel_all("it is over")
        await here.engine.orchestrator.wait_idle()


async def test_who_asks_at_its_terminal(root: Path) -> None:
    """In tmux a program that asks at its terminal, and whose screen nobody can read, is told of with how to answer."""
    asks = """
[agents.asks]
program = "sh"
flags = ["-c", "read answer"]
execution_mode = "tmux"
stop_grace = "100ms"
"""
    site = make_site(root, asks)
    async with site.supervisor() as here:
        await here.submit("Do it.", agent="asks", name="asks")
        what = ""
        async with here.engine.bus.subscribe(0) as subscription:
            async for records in subscription:
                what = next((one.event.what for one in records if isinstance(one.event, ev.InputAwaited)), "")
                if what:
                    break
        assert "sh (pid" in what
        assert "at its terminal" in what
        (concern,) = (await here.http.get("/v1/status")).json()["attention"]
        assert (concern["kind"], "`kas attach asks`" in concern["message"]) == ("input", True)
        await here.engine.service.runs.cancel_all("it is over")
        await here.engine.orchestrator.wait_idle()
