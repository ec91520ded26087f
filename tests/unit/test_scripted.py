"""The scripted backend: every fault it can play, by Trio's mock clock, and the scripts it reads."""

from __future__ import annotations

import math
import re
import signal
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from kasmos.exceptions import ConfigError, SessionClosedError, SessionError, SessionLostError, SessionStartError
from kasmos.model.event import Event, KillSent, LeftoversFound, OutputLost, SessionUnkillable, StopRequested
from kasmos.model.profile import StopPolicy
from kasmos.model.session import ExitStatus, Leftover, SessionHandle, SessionKind, SessionSpec
from kasmos.sessions.protocol import Backend, ExecutionSession, OutputChunk, SessionNeverStarted
from kasmos.sessions.script import Fail, Hang, Script, Truncate, parse_scripts, script_from_spec
from kasmos.sessions.scripted import ScriptedBackend, ScriptedMachine, Scripts
from kasmos.supervision.termination import terminate

FOREVER = Script(duration=math.inf)


def spec(session_id: str = "s", **changes: Any) -> SessionSpec:
    return attrs.evolve(SessionSpec(id=session_id, name=session_id, argv=("agent",), cwd="/"), **changes)


class Journal:
    """Collects what is made durable, with the instants of Trio's clock."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, Event]] = []

    async def __call__(self, event: Event) -> None:
        await trio.lowlevel.checkpoint()
        self.entries.append((trio.current_time(), event))

    @property
    def events(self) -> list[Event]:
        return [event for _, event in self.entries]


def backend_for(scripts: Script | Scripts, machine: ScriptedMachine | None = None) -> ScriptedBackend:
    return ScriptedBackend(
        {"*": scripts} if isinstance(scripts, Script) else scripts, terminate=terminate, machine=machine
    )


async def test_backend_satisfies_the_protocol() -> None:
    """The scripted backend and its sessions are what the protocol says, to a type checker as well."""
    backend: Backend = backend_for(Script())
    async with backend.open(spec(), notify=Journal()) as session:
        checked: ExecutionSession = session
        assert await checked.wait() == ExitStatus(code=0)


# --- time -------------------------------------------------------------------------


async def test_output_and_end_come_when_the_script_says(autojump_clock: MockClock) -> None:
    """A script's output and end come at exactly its instants."""
    script = Script(output=((1.0, b"one"), (2.0, b"two")), duration=5.0, exit=ExitStatus(code=4))
    start = trio.current_time()
    seen: list[tuple[float, bytes]] = []
    async with backend_for(script).open(spec(), notify=Journal()) as session:
        offset = 0
        while (chunk := await session.read(offset)).data:
            seen.append((trio.current_time() - start, chunk.data))
            offset = chunk.end
        assert trio.current_time() - start == 5.0
        assert await session.wait() == ExitStatus(code=4)
    assert seen == [(1.0, b"one"), (3.0, b"two")]


async def test_end_right_after_the_last_output(autojump_clock: MockClock) -> None:
    """Without a duration a script ends when it has written all."""
    start = trio.current_time()
    async with backend_for(Script(output=((1.5, b"x"),))).open(spec(), notify=Journal()) as session:
        await session.wait()
    assert trio.current_time() - start == 1.5
    assert session.output_bytes == 1


async def test_duration_cuts_the_output(autojump_clock: MockClock) -> None:
    """What a script would have written after its end is never written."""
    script = Script(output=((1.0, b"a"), (9.0, b"b")), duration=2.0)
    async with backend_for(script).open(spec(), notify=Journal()) as session:
        await session.wait()
        assert session.capture() == "a"
        assert session.tail() == "a"


# --- faults -----------------------------------------------------------------------


async def test_start_fails(autojump_clock: MockClock) -> None:
    """A start that fails says why, after the time it takes, and leaves nothing behind."""
    backend = backend_for(Script(start=Fail("no such program", after=2.0)))
    start = trio.current_time()
    with pytest.raises(SessionStartError, match="no such program"):
        async with backend.open(spec(), notify=Journal()):
            pytest.fail("it started")
    assert trio.current_time() - start == 2.0
    assert not backend.machine.programs


async def test_start_hangs(autojump_clock: MockClock) -> None:
    """A start that hangs can be cancelled, and nothing runs then."""
    backend = backend_for(Script(start=Hang()))
    with trio.move_on_after(60) as scope:
        async with backend.open(spec(), notify=Journal()):
            pytest.fail("it started")
    assert scope.cancelled_caught
    assert not backend.machine.programs


async def test_start_is_slow(autojump_clock: MockClock) -> None:
    """A start may take its time."""
    start = trio.current_time()
    async with backend_for(Script(start=Hang(3.0))).open(spec(), notify=Journal()) as session:
        assert trio.current_time() - start == 3.0
        await session.wait()


async def test_start_overtaken_by_a_tombstone(autojump_clock: MockClock) -> None:
    """A start that is still hanging when recovery buries its session never runs."""
    machine = ScriptedMachine()
    backend = backend_for(Script(start=Hang(5.0)), machine)

    async def bury() -> None:
        await trio.sleep(1)
        handle = SessionHandle("s", boot_id=machine.boot_id)
        with pytest.raises(SessionNeverStarted):
            async with backend.adopt(spec(), handle, notify=Journal()):
                pytest.fail("there was nothing to adopt")

    async def start() -> None:
        with pytest.raises(SessionStartError):
            async with backend.open(spec(), notify=Journal()):
                pytest.fail("it started")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bury)
        nursery.start_soon(start)
    assert machine.starts["s"] == 0


async def test_terminate_ignored_for_a_while(autojump_clock: MockClock) -> None:
    """A program may take its time to end when asked to; within the grace it is not killed."""
    script = Script(
        duration=math.inf, ignores_terminate_for=4.0, last_words=b"bye", ends_on_terminate_with=ExitStatus(code=2)
    )
    journal = Journal()
    start = trio.current_time()
    async with backend_for(script).open(spec(), notify=journal) as session:
        pass
    assert trio.current_time() - start == 4.0
    assert session.exit == ExitStatus(code=2)
    assert session.capture() == "bye"
    assert [type(event) for event in journal.events] == [StopRequested]


async def test_terminate_ignored_beyond_the_grace(autojump_clock: MockClock) -> None:
    """A program that ignores the polite signal is killed at the end of its grace."""
    backend = backend_for(attrs.evolve(FOREVER, ignores_terminate_for=math.inf, last_words=b"never said"))
    journal = Journal()
    start = trio.current_time()
    async with backend.open(spec(stop=StopPolicy(stop_grace=7.0)), notify=journal) as session:
        pass
    assert [(at - start, type(event)) for at, event in journal.entries] == [(0.0, StopRequested), (7.0, KillSent)]
    assert session.exit == ExitStatus(signal=signal.SIGKILL)
    assert session.output_bytes == 0
    assert backend.machine.programs["s"].signals == [signal.SIGTERM, signal.SIGCONT, signal.SIGKILL]


async def test_end_by_itself_while_asked_to(autojump_clock: MockClock) -> None:
    """A program that would have ended by itself first ends as it would have."""
    script = Script(duration=3.0, exit=5, ignores_terminate_for=4.0, last_words=b"unsaid")
    async with backend_for(script).open(spec(), notify=Journal()) as session:
        pass
    assert (session.exit, session.output_bytes) == (ExitStatus(code=5), 0)


async def test_unkillable(autojump_clock: MockClock) -> None:
    """A program that survives SIGKILL is reported after the bound and not waited for."""
    backend = backend_for(attrs.evolve(FOREVER, ignores_terminate_for=math.inf, unkillable=True))
    policy = StopPolicy(stop_grace=1.0, kill_grace=2.0)
    journal = Journal()
    start = trio.current_time()
    async with backend.open(spec(stop=policy), notify=journal):
        pass
    assert trio.current_time() - start <= 5.0
    assert SessionUnkillable("s", ()) in journal.events
    assert backend.machine.live == ("s",)


async def test_lost(autojump_clock: MockClock) -> None:
    """A session whose fate can no longer be learnt is lost to all who wait, and to who would adopt it."""
    backend = backend_for(Script(output=((1.0, b"x"), (9.0, b"y")), duration=math.inf, lost=3.0))
    journal = Journal()
    async with backend.open(spec(), notify=journal) as session:
        with pytest.raises(SessionLostError):
            await session.wait()
        assert session.exit is None
        assert await session.read(0) == OutputChunk(0, b"x")
        assert await session.read(1) == OutputChunk(1, b"")
    assert journal.events == []
    with pytest.raises(SessionLostError):
        async with backend.adopt(spec(), session.handle, notify=journal):
            pytest.fail("it was adopted")


async def test_truncation(autojump_clock: MockClock) -> None:
    """Output a script destroys is declared lost once, before the end is told, however many wait."""
    script = Script(output=((0.0, b"abc"), (1.0, Truncate()), (0.0, b"d"), (1.0, Truncate()), (1.0, b"e")))
    journal = Journal()
    async with backend_for(script).open(spec(), notify=journal) as session, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(session.wait)
    assert [event.offset for event in journal.events if isinstance(event, OutputLost)] == [3, 4]
    assert session.read_nowait(0) == OutputChunk(4, b"e", lost=4)


async def test_leftovers(autojump_clock: MockClock) -> None:
    """What outlives a script is told once, and before anybody learns of the end."""
    leftover = Leftover(pid=7, name="tool", action="stopped")
    journal = Journal()
    async with backend_for(Script(leftovers=(leftover,))).open(spec(), notify=journal) as session:
        await session.wait()
        assert journal.events == [LeftoversFound("s", (leftover,))]
        await session.wait()
    assert len(journal.events) == 1


async def test_unknown_exit() -> None:
    """A script may end without anybody knowing how, and that is no success."""
    (script,) = parse_scripts('exit = "unknown"', "here")
    async with backend_for(script).open(spec(), notify=Journal()) as session:
        status = await session.wait()
    assert not status.known
    assert not status.succeeded


async def test_ladder_that_breaks() -> None:
    """If the stop ladder itself fails, the program is killed and the failure is told."""

    async def broken(session: ExecutionSession) -> None:
        raise ZeroDivisionError

    backend = ScriptedBackend({"*": FOREVER}, terminate=broken)

    async def leave() -> None:
        async with backend.open(spec(), notify=Journal()):
            pass

    with pytest.raises(ZeroDivisionError):
        await leave()
    assert backend.machine.live == ()


async def test_log_bounded() -> None:
    """A script's log is bounded where its spec says so, and readers are told."""
    backend = backend_for(Script(output=((0.0, b"0123456789"),)))
    async with backend.open(spec(max_log_bytes=4), notify=Journal()) as session:
        await session.wait()
        assert session.read_nowait(1) == OutputChunk(6, b"6789", lost=5)


async def test_used_after_its_scope() -> None:
    """A session that was detached can no longer be waited for or signalled when its scope was left."""
    async with backend_for(FOREVER).open(spec(), notify=Journal()) as session:
        session.detach()
    for use in (session.wait, session.kill, lambda: session.signal(signal.SIGTERM)):
        with pytest.raises(SessionClosedError):
            await use()


# --- the machine ------------------------------------------------------------------


async def test_supervisor_killed(autojump_clock: MockClock) -> None:
    """A program survives a supervisor that crashed, is adopted by the next one, and has run once."""
    machine = ScriptedMachine()
    first, second = (backend_for(Script(output=((10.0, b"done"),)), machine) for _ in range(2))
    journal = Journal()
    start = trio.current_time()
    async with first.open(spec(), notify=journal) as session:
        first.crash()
    assert machine.live == ("s",)
    async with second.adopt(spec(), session.handle, notify=journal) as adopted:
        assert await adopted.wait() == ExitStatus(code=0)
    assert trio.current_time() - start == 10.0
    assert machine.starts == {"s": 1}
    assert journal.events == []


async def test_reboot(autojump_clock: MockClock) -> None:
    """After a reboot nothing runs: what had ended is known, the rest is lost, and what never ran is lost too."""
    machine = ScriptedMachine()
    backend = backend_for({"short": Script(), "*": FOREVER}, machine)
    async with (
        backend.open(spec("short"), notify=Journal()) as short,
        backend.open(spec("long"), notify=Journal()) as long,
    ):
        await short.wait()
        unknown = SessionHandle("unknown", boot_id=machine.boot_id)
        machine.reboot()
        with pytest.raises(SessionLostError):
            await long.wait()
    assert machine.live == ()
    async with backend.adopt(spec("short"), short.handle, notify=Journal()) as adopted:
        assert await adopted.wait() == ExitStatus(code=0)
    for handle in (long.handle, unknown):
        with pytest.raises(SessionLostError):
            async with backend.adopt(spec(handle.session_id), handle, notify=Journal()):
                pytest.fail("it was adopted")


async def test_killed_from_outside() -> None:
    """A program that somebody else kills has ended, and those who wait learn how."""
    backend = backend_for(FOREVER)
    async with backend.open(spec(), notify=Journal()) as session, trio.open_nursery() as nursery:
        nursery.start_soon(session.wait)
        await trio.testing.wait_all_tasks_blocked()
        backend.machine.programs["s"].end(ExitStatus(signal=signal.SIGKILL))
    assert session.exit == ExitStatus(signal=signal.SIGKILL)


async def test_machine_sees_a_task_that_runs_twice() -> None:
    """Two agent sessions of one task that run at once are noticed; a check beside its agent is not one."""
    backend = backend_for(lambda _: FOREVER)
    task: dict[str, Any] = {"run_id": "r", "task_id": "1"}
    async with (
        backend.open(spec("a", **task), notify=Journal()),
        backend.open(spec("c", kind=SessionKind.CHECK, **task), notify=Journal()),
        backend.open(spec("other", run_id="r", task_id="2"), notify=Journal()),
    ):
        assert backend.machine.overlaps == []
        async with backend.open(spec("b", attempt=2, **task), notify=Journal()):
            assert backend.machine.overlaps == [("a", "b")]
            assert backend.machine.live_by_task == {"r.1": ("a", "b"), "r.2": ("other",)}
            assert backend.machine.peak == 3
    assert backend.machine.live_by_task == {}


async def test_forget_what_runs() -> None:
    """What still runs is not forgotten, nor is anything else that was named with it."""
    backend = backend_for({"done": Script(), "*": FOREVER})
    async with (
        backend.open(spec("done"), notify=Journal()) as done,
        backend.open(spec("runs"), notify=Journal()),
    ):
        await done.wait()
        with pytest.raises(SessionError, match="still running: runs"):
            backend.forget(["done", "runs"])
        assert set(backend.machine.programs) == {"done", "runs"}


# --- which script -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"id": "x", "name": "w1t1-build"}, 1),
        ({"id": "x", "name": "w1t2", "task_id": "2"}, 2),
        ({"id": "s9", "name": "other"}, 3),
        ({"id": "x", "name": "w1t1-build", "kind": SessionKind.CHECK}, 4),
        ({"id": "x", "name": "flaky", "attempt": 1}, 10),
        ({"id": "x", "name": "flaky", "attempt": 2}, 11),
        ({"id": "x", "name": "flaky", "attempt": 5}, 11),
    ],
)
async def test_script_by_pattern(changes: dict[str, Any], code: int) -> None:
    """A script is found by name, task, id or kind, and by attempt; the last one holds for all further attempts."""
    scripts: Scripts = {
        "w1t1*": Script(exit=1),
        "2": Script(exit=2),
        "s9": Script(exit=3),
        "check:*": Script(exit=4),
        "flaky": [Script(exit=10), Script(exit=11)],
    }
    async with backend_for(scripts).open(spec(**changes), notify=Journal()) as session:
        assert await session.wait() == ExitStatus(code=code)


async def test_script_not_found() -> None:
    """A session for which there is no script cannot be started, and the error says what was looked for."""
    with pytest.raises(SessionStartError, match="looked for s, 7"):
        async with backend_for({"other": Script()}).open(spec(task_id="7"), notify=Journal()):
            pytest.fail("it started")


async def test_script_in_the_prompt() -> None:
    """A task's body may hold its script; a block inside another fence is not meant."""
    prompt = (
        "````md\n```toml scripted\nexit = 1\n```\n````\n~~~\n~~~\n"
        '```toml  scripted\noutput = ["hi\\n"]\nexit = 3\n```\n'
    )
    async with ScriptedBackend(terminate=terminate).open(spec(prompt=prompt), notify=Journal()) as session:
        assert await session.wait() == ExitStatus(code=3)
        assert session.capture() == "hi"


async def test_script_in_the_prompt_is_wrong() -> None:
    """A script with mistakes is a failed start that names all of them."""
    prompt = "```toml scripted\nexit = 300\nduratoin = 1\n```"
    with pytest.raises(SessionStartError, match=r"(?s)script of s: exit.*0 to 255.*duratoin: unknown key"):
        async with ScriptedBackend(terminate=terminate).open(spec(prompt=prompt), notify=Journal()):
            pytest.fail("it started")


def test_script_in_a_file(tmp_path: Path) -> None:
    """A profile's program may be a script's file, found from the working directory."""
    (tmp_path / "agent.toml").write_text("[[attempt]]\nexit = 1\n[[attempt]]\nexit = 0\n")
    session = spec(argv=("agent.toml",), cwd=str(tmp_path))
    codes = [script_from_spec(attrs.evolve(session, attempt=n)).exit.code for n in (1, 2, 3)]
    assert codes == [1, 0, 0]
    with pytest.raises(ConfigError, match=r"missing\.toml: the script cannot be read"):
        script_from_spec(attrs.evolve(session, argv=("missing.toml",)))


def test_script_rehearsal() -> None:
    """Without a script a session is a rehearsal: it says what would have run and succeeds."""
    assert script_from_spec(spec()) == Script(output=((0.0, b"rehearsal: agent would have run\n"),))


def test_script_with_every_key() -> None:
    """Every key of a script in TOML has its place in the value."""
    text = """
        output = ["a", { after = 1.5, text = "b" }, { after = 2, truncate = true }]
        duration = inf
        signal = "SIGSEGV"
        last_words = "bye"
        ignores_terminate_for = 3
        ends_on_terminate_with = 4
        unkillable = true
        lost = 5.0
        start_hangs = 6
    """
    assert parse_scripts(text, "here") == (
        Script(
            output=((0.0, b"a"), (1.5, b"b"), (2.0, Truncate())),
            duration=math.inf,
            exit=ExitStatus(signal=signal.SIGSEGV),
            last_words=b"bye",
            ignores_terminate_for=3.0,
            ends_on_terminate_with=ExitStatus(code=4),
            unkillable=True,
            lost=5.0,
            start=Hang(6.0),
        ),
    )
    assert parse_scripts('start_fails = "no"\nsignal = 9', "here") == (
        Script(start=Fail("no"), exit=ExitStatus(signal=signal.SIGKILL)),
    )


def test_script_keys_are_documented() -> None:
    """The manual lists exactly the keys a script may have."""
    manual = (Path(__file__).parents[2] / "docs" / "sessions.md").read_text()
    table = manual.partition("| key | means |")[2].partition("\n\n")[0]
    listed = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    with pytest.raises(ConfigError) as caught:
        parse_scripts("no_such_key = 1", "here")
    (mistake,) = caught.value.mistakes
    assert listed == set(mistake.cure.removeprefix("one of ").split(", "))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("exit = true", "a code from 0 to 255"),
        ("duration = -1", "seconds, 0 or more"),
        ("duration = nan", "seconds, 0 or more"),
        ("lost = true", "seconds, 0 or more"),
        ("last_words = 1", "a text"),
        ("unkillable = 1", "true or false"),
        ('signal = "SIGNONE"', "a signal"),
        ("signal = 0", "a signal"),
        ('output = "x"', "a list"),
        ("output = [1]", "each a text"),
        ("output = [{ after = 1, truncate = false }]", "each a text"),
        ("exit = 1\nsignal = 9", "said twice"),
        ('start_fails = "x"\nstart_hangs = 1', "said twice"),
        ("exit = 0\n[[attempt]]\nexit = 1", "hold the whole script"),
        ("attempt = 1", "hold the whole script"),
        ("exit = ", "Invalid value"),
    ],
)
def test_script_that_does_not_fit(text: str, problem: str) -> None:
    """A script that is wrong is refused with its place and what would be right."""
    with pytest.raises(ConfigError, match=f"here.*{problem}"):
        parse_scripts(text, "here")
