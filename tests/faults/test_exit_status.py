"""How a program ended is known exactly, or known not to be known, whatever happens to those who watch it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import trio

from kasmos.model.event import KillSent, OutputLost, StopRequested
from kasmos.model.profile import Limits, OutputMode, StopPolicy
from kasmos.model.session import ExitStatus
from kasmos.sessions import ending
from kasmos.sessions.process_table import scan
from kasmos.sessions.processes import read_entry
from tests.faults.conftest import LIMIT, Gate, Ground, alive, ended, everything, kill, needs_exit_info, until, wrote

both_outputs = pytest.mark.parametrize("output", list(OutputMode))


@both_outputs
@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", ExitStatus(code=0)),
        ("exit 7", ExitStatus(code=7)),
        ("exit 128", ExitStatus(code=128)),
        ("exit 137", ExitStatus(signal=9, certain=False)),
        ("kill -KILL $$", ExitStatus(signal=9, certain=False)),
        ("kill -TERM $$", ExitStatus(signal=15, certain=False)),
        ("exit 200", ExitStatus(code=200, certain=False)),
    ],
)
async def test_end_while_nobody_watches(
    ground: Ground, gate: Gate, output: OutputMode, script: str, status: ExitStatus
) -> None:
    """What ended while nobody watched has the status its shell recorded, uncertain where a shell cannot be sure."""
    spec = ground.sh(f"{gate.wait}; echo last words; {script}", output=output)
    await ground.detached(spec)
    gate.open()
    await until(ground.records(spec).exit)
    async with ground.adopted(spec) as session:
        assert await ended(session) == status
        assert await everything(session) == b"last words\n"


@both_outputs
@needs_exit_info
@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 137", ExitStatus(code=137)), ("kill -KILL $$", ExitStatus(signal=9)), ("exit 200", ExitStatus(code=200))],
)
async def test_end_after_adoption(
    ground: Ground, gate: Gate, output: OutputMode, script: str, status: ExitStatus
) -> None:
    """The end of an adopted program is as exact as that of one's own: `exit 137` is not SIGKILL."""
    spec = ground.sh(f"{gate.wait}; {script}", output=output)
    await ground.detached(spec)
    async with ground.adopted(spec) as session:
        gate.open()
        assert await ended(session) == status


@both_outputs
@needs_exit_info
async def test_code_beside_a_real_signal(ground: Ground, output: OutputMode) -> None:
    """While it is watched, `exit 137` is a code and SIGKILL from outside is a signal."""
    assert await ground.run(ground.sh("exit 137", output=output)) == ExitStatus(code=137)
    async with ground.opened(ground.spec("sleep", "1000", output=output)) as session:
        assert session.pid is not None
        kill(session.pid)
        assert await ended(session) == ExitStatus(signal=9)


@both_outputs
async def test_signals_to_the_whole_kernel_session(
    ground: Ground, gate: Gate, output: OutputMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signals that hit a whole kernel session do not shake off those who record the end."""
    # However long it takes the shim here.
    monkeypatch.setattr(ending, "RECORD_GRACE", LIMIT)
    names = ("QUIT", "USR1", "USR2", "PIPE", "HUP", "INT", "ALRM", "TERM")
    # Ignored by the program, so that it is not the program whose end is recorded.
    spec = ground.sh(f"trap '' {' '.join(names)}; echo ready; {gate.wait}; echo end; exit 5", output=output)
    async with ground.opened(spec) as session:
        await wrote(session, b"ready\n")
        entry = read_entry(session.pid or 0)
        assert entry is not None
        mates = [one for one in scan() if one.sid == entry.sid]
        assert len(mates) == (3 if output is OutputMode.FILE else 6)
        for name in names:
            for mate in mates:
                os.kill(mate.id.pid, signal.Signals[f"SIG{name}"])
        gate.open()
        assert await ended(session) == ExitStatus(code=5)
        assert await everything(session) == b"ready\nend\n"
    assert ground.records(spec).exit() == ExitStatus(code=5)
    assert ground.events == [], "output was lost, or something left behind"


@both_outputs
async def test_signal_dispositions_of_the_program(ground: Ground, output: OutputMode) -> None:
    """A program starts with every signal as by default: none ignored, none caught, none blocked."""
    async with ground.opened(ground.spec("cat", "/proc/self/status", output=output)) as session:
        await ended(session)
        status = dict(line.split(":", 1) for line in (await everything(session)).decode().splitlines())
    masks = {name: int(status[name], 16) for name in ("SigIgn", "SigCgt", "SigBlk")}
    assert masks == {"SigIgn": 0, "SigCgt": 0, "SigBlk": 0}


@both_outputs
@needs_exit_info
@pytest.mark.parametrize("victim", ["shim", "doorman", "both"])
async def test_helper_killed(ground: Ground, gate: Gate, output: OutputMode, victim: str) -> None:
    """A program whose shim or doorman is killed runs on, and its end is exact."""
    async with ground.opened(ground.sh(f"{gate.wait}; echo end; exit 137", output=output)) as session:
        shim = ground.records(session.spec).shim()
        assert shim is not None
        kill(*{"shim": [shim.id.pid], "doorman": [shim.ppid], "both": [shim.ppid, shim.id.pid]}[victim])
        await until(lambda: not (victim != "doorman" and alive(shim.id.pid)))
        assert session.exit is None
        gate.open()
        assert await ended(session) == ExitStatus(code=137)
        assert await everything(session) == b"end\n"


@both_outputs
async def test_record_after_the_doorman_was_killed(
    ground: Ground, gate: Gate, output: OutputMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a session's end is told, its shim has recorded it, although the doorman was killed."""
    # However long it takes the shim here.
    monkeypatch.setattr(ending, "RECORD_GRACE", LIMIT)
    spec = ground.sh(f"{gate.wait}; exit 3", output=output)
    async with ground.opened(spec) as session:
        shim = ground.records(spec).shim()
        assert shim is not None
        kill(shim.ppid)
        gate.open()
        assert await ended(session) == ExitStatus(code=3)
        assert ground.records(spec).exit() == ExitStatus(code=3)
        assert not alive(shim.id.pid)


async def test_shim_that_hangs(ground: Ground, gate: Gate) -> None:
    """A shim that does not get round to recording the end delays the end for a second, and is gone after it."""
    async with ground.opened(ground.sh(f"{gate.wait}; exit 3")) as session:
        shim = ground.records(session.spec).shim()
        assert shim is not None
        os.kill(shim.id.pid, signal.SIGSTOP)
        gate.open()
        assert await ended(session) == ExitStatus(code=3)
        assert not alive(shim.id.pid)


async def test_stopped_program_is_stopped_politely(ground: Ground) -> None:
    """A program that was suspended is woken to be asked to end, so no force is needed."""
    spec = ground.sh("trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.01; done")
    async with ground.opened(spec) as session:
        await wrote(session, b"ready\n")
        assert session.pid is not None
        os.kill(session.pid, signal.SIGSTOP)
        await until(lambda: (entry := read_entry(session.pid or 0)) and entry.state == "T")
    assert session.exit == ExitStatus(code=4)
    assert (len(ground.told(StopRequested)), ground.told(KillSent)) == (1, [])


@needs_exit_info
async def test_stubborn_program_is_killed(ground: Ground) -> None:
    """A program that ignores SIGTERM is killed after its grace, and each rung is told before it is taken."""
    spec = ground.sh("trap '' TERM; echo ready; exec sleep 1000", stop=StopPolicy(stop_grace=0.1))
    async with ground.opened(spec) as session:
        await wrote(session, b"ready\n")
    assert session.exit == ExitStatus(signal=9)
    assert [type(event) for event in ground.events] == [StopRequested, KillSent]


@both_outputs
async def test_last_words(ground: Ground, output: OutputMode) -> None:
    """What a program writes when it is asked to end is in its log."""
    spec = ground.sh(
        "trap 'echo one; sleep 0.1; echo two; exit 6' TERM; echo ready; while :; do sleep 0.01; done", output=output
    )
    async with ground.opened(spec) as session:
        await wrote(session, b"ready\n")
    assert session.exit == ExitStatus(code=6)
    assert ground.output(spec).endswith(b"one\ntwo\n")


@both_outputs
@needs_exit_info
async def test_tool_under_timeout(ground: Ground, output: OutputMode) -> None:
    """A tool under coreutils' `timeout`, which is in a process group of its own, ends with its agent."""
    # Without end: its tool may be gone before it is asked itself.
    script = "timeout 1000 sleep 1000 & echo ready; while :; do wait; done"
    async with ground.opened(ground.sh(script, output=output)) as session:
        await wrote(session, b"ready\n")
        await until(lambda: any(entry.comm == "sleep" for entry in ground.left(session.spec)))
    assert session.exit == ExitStatus(signal=15)
    assert ground.left(session.spec) == []


@needs_exit_info
async def test_program_with_zombies(ground: Ground) -> None:
    """Children that a program did not wait for are neither signalled nor waited for."""
    async with ground.opened(ground.sh("true & exec sleep 1000")) as session:
        await until(lambda: any(entry.ppid == session.pid and entry.state == "Z" for entry in scan()))
        # A shell that is about to become another program may still take this signal for itself, to no end.
        await until(lambda: (entry := read_entry(session.pid or 0)) and entry.comm == "sleep")
        await session.signal(signal.SIGINT)
        assert await ended(session) == ExitStatus(signal=2)
    assert ground.events == []


async def test_program_without_its_first_thread(ground: Ground) -> None:
    """A program whose first thread has ended looks like a zombie, and is alive until its last thread ends."""
    script = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "print('ready', flush=True)\n"
        "ctypes.CDLL(None).syscall(60, 0)"  # exit(2): of this thread alone
    )
    spec = ground.python(script, stop=StopPolicy(stop_grace=LIMIT))
    async with ground.opened(spec) as session:
        await wrote(session, b"ready\n")
        path = f"/proc/{session.pid}/stat"
        await until(lambda: b") Z " in Path(path).read_bytes())
        assert alive(session.pid or 0)
        session.detach()
    async with ground.adopted(spec) as session:
        with trio.move_on_after(0.1) as too_long:
            await session.wait()
        assert too_long.cancelled_caught
    assert session.exit in (ExitStatus(signal=15), ExitStatus(signal=15, certain=False))
    assert not alive(session.pid or 0)


@needs_exit_info
async def test_many_ends_at_once(ground: Ground, gate: Gate) -> None:
    """Five hundred programs that end together are all told, each once, each with its own status."""
    count = 500
    spec = [ground.sh(f"{gate.wait}; exit {number % 250}") for number in range(count)]
    found: list[tuple[int, ExitStatus]] = []
    async with ground.backend() as backend, trio.open_nursery() as nursery:
        running = 0

        async def run(number: int) -> None:
            nonlocal running
            async with backend.open(spec[number], notify=ground.notify) as session:
                running += 1
                found.append((number, await session.wait()))

        with trio.fail_after(2 * LIMIT):
            for number in range(count):
                nursery.start_soon(run, number)
            await until(lambda: running == count)
            gate.open(count)
            await until(lambda: len(found) == count)
    assert sorted(found) == [(number, ExitStatus(code=number % 250)) for number in range(count)]
    assert ground.events == []


# --- things deleted under it ----------------------------------------------------------


@both_outputs
@needs_exit_info
async def test_session_directory_deleted(ground: Ground, gate: Gate, output: OutputMode) -> None:
    """A session whose whole directory is deleted under it still ends with its exit status and its output."""
    spec = ground.sh(f"echo one; {gate.wait}; echo two; exit 9", output=output)
    async with ground.opened(spec) as session:
        await wrote(session, b"one\n")
        shutil.rmtree(ground.directory(spec))
        gate.open()
        assert await ended(session) == ExitStatus(code=9)
        assert await everything(session) == b"one\ntwo\n"
    assert ground.told(OutputLost) == []


async def test_work_directory_deleted(ground: Ground, gate: Gate) -> None:
    """A session whose work directory is deleted under it runs to its end, and so do those beside it."""
    work = ground.root / "work"
    work.mkdir()
    spec = ground.sh(f"exec 9<../gate; echo ready; read -r _ <&9; echo {'x' * 10}; exit 8", cwd=str(work))
    async with ground.opened(spec) as session:
        await wrote(session, b"ready\n")
        work.rmdir()
        gate.open()
        assert await ended(session) == ExitStatus(code=8)
        assert await everything(session) == b"ready\nxxxxxxxxxx\n"


@needs_exit_info
async def test_killed_by_its_own_limit(ground: Ground) -> None:
    """A program killed by a limit it was given has the signal of that, and no other."""
    spec = ground.sh("while :; do :; done", limits=Limits(rlimits={"cpu": 1}))
    assert await ground.run(spec) in (ExitStatus(signal=9), ExitStatus(signal=24))
