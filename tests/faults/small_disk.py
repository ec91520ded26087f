"""Sessions on a disk that is full: run in a mount namespace, with a directory that holds a megabyte."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import trio

from kasmos.exceptions import SessionStartError
from kasmos.model.event import OutputLost
from kasmos.model.profile import OutputMode
from kasmos.model.session import ExitStatus, SessionSpec
from kasmos.sessions import launch
from kasmos.sessions.output import LogFile
from kasmos.sessions.protocol import SessionNeverStarted
from tests.faults.conftest import BOOT, LIMIT, Gate, Ground, ended, everything, until, wrote

CLAIMED = "2>/dev/null || exit 125"


def fill(root: Path) -> Path:
    """Leave not a byte on the disk; what has to be removed to have room again."""
    filler = root / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (65_536, 4096, 512, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return filler


def run_doorman(ground: Ground, spec: SessionSpec, *, insert: str = "") -> int:
    """Start a doorman for a prepared directory, with something that happens after its claim; how it ended."""
    command = launch.doorman_command(str(ground.directory(spec)), spec, 1024)
    assert CLAIMED in command[2]
    command[2] = command[2].replace(CLAIMED, f"{CLAIMED}; {insert or ':'}")
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, env=dict(spec.env), cwd=ground.directory(spec), start_new_session=True
    ).returncode


async def assert_never_started(ground: Ground, spec: SessionSpec) -> None:
    try:
        async with ground.adopted(spec):
            raise AssertionError("adopted what has not run")
    except* SessionNeverStarted:
        pass
    assert not trace_of(spec).exists()


def trace_of(spec: SessionSpec) -> Path:
    """A file that is not on the small disk."""
    return Path("/dev/shm", spec.id)


def tracer(ground: Ground, output: OutputMode) -> SessionSpec:
    """A session whose program leaves a trace beside the full disk."""
    spec = ground.sh("true", output=output)
    return ground.sh(f"echo >/dev/shm/{spec.id}", output=output, id=spec.id)


async def start(ground: Ground, output: OutputMode) -> None:
    filler = fill(ground.root)
    async with ground.backend() as backend:
        spec = tracer(ground, output)
        try:
            async with backend.open(spec, notify=ground.notify):
                raise AssertionError("started")
        except SessionStartError as error:
            reason = str(error)
        assert "No space left on device" in reason
        assert not ground.directory(spec).exists()
        filler.unlink()
        async with backend.open(ground.spec("true"), notify=ground.notify) as session:
            assert await ended(session) == ExitStatus(code=0)


async def claim(ground: Ground, output: OutputMode) -> None:
    spec = tracer(ground, output)
    launch.prepare(str(ground.directory(spec)), spec, BOOT)
    fill(ground.root)
    assert run_doorman(ground, spec) == 125
    assert ground.records(spec).claimed
    assert ground.records(spec).shim() is None
    await assert_never_started(ground, spec)


async def pid(ground: Ground, output: OutputMode) -> None:
    spec = tracer(ground, output)
    launch.prepare(str(ground.directory(spec)), spec, BOOT)
    run_doorman(ground, spec, insert="cat /dev/zero >../../filler 2>/dev/null")
    assert ground.records(spec).program() is None
    assert ground.records(spec).shim() is not None
    assert ground.records(spec).exit() == ExitStatus(code=125)
    await assert_never_started(ground, spec)


def take(file: Path) -> str:
    """What is in a file, which is no longer needed."""
    text = file.read_text()
    file.unlink()
    return text


async def log(ground: Ground, output: OutputMode) -> None:
    """The log does not fit; then there is room again."""
    gate = Gate(ground.root / "gate")
    script = f"head -c 4000000 /dev/zero; echo $? >/dev/shm/$KASMOS_SESSION_ID; {gate.wait}; echo end; exit 5"
    spec = ground.sh(script, output=output)
    trace = trace_of(spec)
    (ground.root / "ballast").write_bytes(b"x" * 65_536)
    async with ground.opened(spec) as session:
        await until(lambda: trace.exists() and trace.read_text().endswith("\n"))
        # With a pipe a program does not notice; with a file it is told, and can do something about it.
        assert (take(trace) == "0\n") is (output is OutputMode.PIPE)
        (ground.root / "ballast").unlink()
        gate.open()
        assert await ended(session) == ExitStatus(code=5)
        data = await everything(session)
    assert data.endswith(b"\0end\n")
    assert 500_000 < len(data) < 1_048_576
    if output is OutputMode.PIPE:
        assert len(ground.told(OutputLost)) == 1
        assert ground.records(spec).copier_lost()
    else:
        assert ground.told(OutputLost) == []
    gate.close()


async def exit_(ground: Ground, output: OutputMode) -> None:
    gate = Gate(ground.root / "gate")
    spec = ground.sh(f"echo ready; {gate.wait}; cat /dev/zero >filler 2>/dev/null; exit 9", output=output)
    async with ground.opened(spec) as session:
        await wrote(session, b"ready\n")
        session.detach()
    gate.open()
    await until(ground.records(spec).exit)
    assert await ground.adopt_end(spec) == ExitStatus(code=9)
    gate.close()


async def truncation(ground: Ground, output: OutputMode) -> None:
    gate = Gate(ground.root / "gate")
    script = f"echo lost; {gate.wait}; echo kept >/dev/stderr; {gate.wait}; exit 3"
    spec = ground.sh(script, output=output)
    async with ground.opened(spec) as session:
        await wrote(session, b"lost\n")
        filler = fill(ground.root)
        gate.open()
        with trio.fail_after(LIMIT):
            assert (await session.read(5)).data == b"kept\n"
        await until(lambda: ground.warnings)
        # What is known to be wrong on the disk is not read from there.
        assert session.read_nowait(0).data in (b"lost\nkept\n", b"kept\n")
        filler.unlink()
        gate.open()
        assert await ended(session) == ExitStatus(code=3)
    assert [event.offset for event in ground.told(OutputLost)] == [5]
    assert LogFile(ground.directory(spec)).base == 5
    gate.close()


async def cap(ground: Ground, output: OutputMode) -> None:
    """The head of a log cannot be given up without a place to say so: it is kept, and the session goes on."""
    gate = Gate(ground.root / "gate")
    script = f"{gate.wait}; head -c 300000 /dev/zero; {gate.wait}; exit 4"
    spec = ground.sh(script, output=output, max_log_bytes=100_000)
    await ground.detached(spec)
    gate.open()
    log = LogFile(ground.directory(spec))
    await until(lambda: log.end == 300_000)
    fill(ground.root)
    async with ground.adopted(spec) as session:
        await until(lambda: any("No space left on device" in warning for warning in ground.warnings))
        gate.open()
        assert (await ended(session)).code == 4
        assert await everything(session) == bytes(300_000)
    assert log.base == 0
    gate.close()


CASES = {"start": start, "claim": claim, "pid": pid, "log": log, "exit": exit_, "truncation": truncation, "cap": cap}


def main(case: str, output: str, root: str) -> None:
    ground = Ground(Path(root))
    os.chdir("/")
    trio.run(CASES[case], ground, OutputMode(output))


if __name__ == "__main__":
    main(*sys.argv[1:])
