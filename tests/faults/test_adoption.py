"""What a supervisor makes of the sessions of its predecessor: every row of the table of cases, with real processes."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from kasmos.exceptions import SessionLostError, SessionStartError
from kasmos.model.event import KillSent, LeftoversFound, OutputLost, StopRequested
from kasmos.model.profile import LeftoverPolicy, Leftovers, OutputMode
from kasmos.model.session import ExitStatus, SessionHandle, SessionSpec, StopReason
from kasmos.sessions import ending, launch
from kasmos.sessions.hold import Hold
from kasmos.sessions.process_table import scan
from kasmos.sessions.processes import read_entry
from kasmos.sessions.protocol import SessionNeverStarted
from kasmos.supervision.termination import stop
from tests.faults.conftest import (
    BOOT,
    LIMIT,
    Gate,
    Ground,
    alive,
    ended,
    everything,
    kill,
    needs_exit_info,
    until,
    wrote,
)
from tests.faults.test_processes import no_descriptors

both_outputs = pytest.mark.parametrize("output", list(OutputMode))
SHORT = 0.3
"""Seconds granted to a shim that does not come."""


async def never_started(ground: Ground, spec: SessionSpec, *, claim_grace: float = LIMIT) -> None:
    """Adopt what has not run, and make sure that it is told so and cannot run any more."""
    with pytest.RaisesGroup(SessionNeverStarted, flatten_subgroups=True):
        async with ground.adopted(spec, claim_grace=claim_grace):
            pytest.fail("adopted what has not run")
    assert ground.records(spec).claimed
    # Whoever comes now is too late.
    code = await trio.to_thread.run_sync(late_doorman, ground, spec)
    assert code in (0, 125)
    assert not (ground.root / "ran").exists()
    assert ground.left(spec) == []


async def lost(ground: Ground, spec: SessionSpec, *, boot: str = BOOT) -> str:
    """Adopt what is lost; the reason. It is told at once."""
    with trio.fail_after(LIMIT / 2):
        with pytest.RaisesGroup(SessionLostError, flatten_subgroups=True) as caught:
            async with ground.adopted(spec, boot=boot):
                pytest.fail("adopted what is lost")
    assert ground.told(StopRequested) == []
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


def late_doorman(ground: Ground, spec: SessionSpec) -> int:
    """Start a doorman for a directory that exists; how it ended."""
    directory = ground.directory(spec)
    directory.mkdir(parents=True, exist_ok=True)
    command = launch.doorman_command(str(directory), spec, 1024)
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=dict(spec.env),
        cwd=directory,
        start_new_session=True,
    ).returncode


@contextmanager
def held_lease(ground: Ground, spec: SessionSpec) -> Iterator[int]:
    """Hold a session's lease as a process does that is on its way to become a shim."""
    fd = os.open(ground.directory(spec) / "lease", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield fd
    finally:
        os.close(fd)


def prepared(ground: Ground, spec: SessionSpec) -> SessionSpec:
    """A session for which nothing was started yet."""
    launch.prepare(str(ground.directory(spec)), spec, BOOT)
    return spec


def agent(ground: Ground, script: str, **changes: object) -> SessionSpec:
    """A session that leaves a trace of having run."""
    return ground.sh(f"echo $$ >>ran; {script}", **changes)


# --- nothing ran ------------------------------------------------------------------------


async def test_nothing_was_prepared(ground: Ground) -> None:
    """A session of which only the intent is known has not run, and never will."""
    await never_started(ground, agent(ground, "exit 0"))


@both_outputs
async def test_prepared_only(ground: Ground, output: OutputMode) -> None:
    """A session whose directory was prepared, and for which nobody came, has not run, and never will."""
    await never_started(ground, prepared(ground, agent(ground, "exit 0", output=output)))


async def test_tombstone(ground: Ground) -> None:
    """What was found not to have run is found so again by the next supervisor."""
    spec = prepared(ground, agent(ground, "exit 0"))
    await never_started(ground, spec)
    await never_started(ground, spec)


async def test_lease_held_and_nobody_comes(ground: Ground) -> None:
    """Where somebody holds the lease it is waited for, bounded; then nobody may come any more."""
    spec = prepared(ground, agent(ground, "exit 0"))
    with held_lease(ground, spec):
        started = trio.current_time()
        await never_started(ground, spec, claim_grace=SHORT)
        assert trio.current_time() - started >= SHORT


async def test_lease_held_and_let_go(ground: Ground) -> None:
    """Where whoever held the lease lets go of it without having come, it is not waited for any longer."""
    spec = prepared(ground, agent(ground, "exit 0"))
    async with trio.open_nursery() as nursery:

        async def adopt() -> None:
            with trio.fail_after(LIMIT / 2):
                await never_started(ground, spec, claim_grace=LIMIT)

        with held_lease(ground, spec):
            nursery.start_soon(adopt)
            await trio.sleep(SHORT)
            assert not ground.records(spec).claimed


@both_outputs
async def test_shim_on_its_way(ground: Ground, gate: Gate, output: OutputMode) -> None:
    """A shim that is on its way when its supervisor dies is waited for, and its program is adopted."""
    spec = prepared(ground, agent(ground, f"{gate.wait}; exit 5", output=output))
    directory = ground.directory(spec)
    command = launch.doorman_command(str(directory), spec, 1024)
    with held_lease(ground, spec) as lease, open(directory / "output.log", "ab") as log:  # noqa: ASYNC230  # short
        # Stopped before it has claimed anything.
        slow = ["/bin/sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *command]
        doorman = subprocess.Popen(  # noqa: ASYNC220  # short
            slow, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(spec.env), cwd=directory,
            start_new_session=True, pass_fds=(lease,),
        )  # fmt: skip
    await until(lambda: (entry := read_entry(doorman.pid)) and entry.state == "T")
    async with trio.open_nursery() as nursery:

        async def wake() -> None:
            await trio.sleep(SHORT)
            assert not ground.records(spec).claimed
            os.kill(doorman.pid, signal.SIGCONT)

        nursery.start_soon(wake)
        async with ground.adopted(spec, claim_grace=LIMIT) as session:
            assert session.pid is not None
            gate.open()
            assert (await ended(session)).code == 5
    await trio.to_thread.run_sync(doorman.wait)
    assert len((ground.root / "ran").read_text().split()) == 1


@both_outputs
async def test_shim_that_never_starts_its_program(ground: Ground, output: OutputMode) -> None:
    """A shim that has claimed and then hangs is killed: its program cannot run after it was found not to have."""
    spec = prepared(ground, agent(ground, "exit 0", output=output))
    directory = ground.directory(spec)
    command = launch.doorman_command(str(directory), spec, 1024)
    claimed = "2>/dev/null || exit 125"
    assert claimed in command[2]
    command[2] = command[2].replace(claimed, claimed + "; kill -STOP ${_kas_s%% *}")
    with held_lease(ground, spec) as lease:
        doorman = subprocess.Popen(  # noqa: ASYNC220  # short
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=dict(spec.env), cwd=directory,
            start_new_session=True, pass_fds=(lease,), stderr=subprocess.DEVNULL,
        )  # fmt: skip
    shim = await shim_of(ground, spec)
    with pytest.RaisesGroup(SessionNeverStarted, flatten_subgroups=True):
        async with ground.adopted(spec, claim_grace=SHORT):
            pytest.fail("adopted what has not run")
    assert not alive(shim)
    await trio.to_thread.run_sync(doorman.wait)
    assert not (ground.root / "ran").exists()


async def shim_of(ground: Ground, spec: SessionSpec) -> int:
    await until(ground.records(spec).shim)
    shim = ground.records(spec).shim()
    assert shim is not None
    return shim.id.pid


async def test_claim_without_a_record(ground: Ground) -> None:
    """A claim that was made on a full disk, so that it tells of nobody, is a claim: nothing ran and nothing will."""
    spec = prepared(ground, agent(ground, "exit 0"))
    (ground.directory(spec) / "shim").touch()
    await never_started(ground, spec)


async def test_shim_that_could_not_record(ground: Ground) -> None:
    """A shim that gave up before its program had an identity has run nothing, whatever status it recorded."""
    spec = prepared(ground, agent(ground, "exit 0"))
    (ground.directory(spec) / "pid").mkdir()
    assert await trio.to_thread.run_sync(late_doorman, ground, spec) == 125
    assert ground.records(spec).exit() == ExitStatus(code=125)
    await never_started(ground, spec)


# --- it runs, or it ran ------------------------------------------------------------------


@both_outputs
async def test_program_is_adopted(ground: Ground, gate: Gate, output: OutputMode) -> None:
    """A program that lives is adopted: the same process, all its output, and its end."""
    spec = agent(ground, f"echo one; {gate.wait}; echo two; exit 7", output=output)
    pid = await ground.detached(spec)
    async with ground.adopted(spec) as session:
        assert session.pid == pid
        await wrote(session, b"one\n")
        gate.open()
        assert (await ended(session)).code == 7
        assert await everything(session) == b"one\ntwo\n"


async def test_program_ends_while_it_is_adopted(ground: Ground, gate: Gate) -> None:
    """However close an end and an adoption come, the status is right and the program has run once."""
    for round_ in range(30):
        spec = ground.sh(f"echo $$ >>ran{round_}; {gate.wait}; exit 7")
        await ground.detached(spec)
        async with trio.open_nursery() as nursery:

            async def end(delay: float = round_ * 0.0003) -> None:
                await trio.sleep(delay)
                gate.open()

            nursery.start_soon(end)
            assert (await ground.adopt_end(spec)).code == 7
        assert len((ground.root / f"ran{round_}").read_text().split()) == 1


@needs_exit_info
async def test_stop_goes_on_after_adoption(ground: Ground) -> None:
    """A stop that was under way is taken up without being requested a second time."""
    # It starts nobody: a child that is born as it is killed would be told of as what it left behind.
    script = (
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'asked\\n'))\n"
        "os.write(1, b'ready\\n')\n"
        "while True: signal.pause()"
    )
    spec = ground.python(script)
    async with ground.opened(spec) as session:
        await wrote(session, b"ready\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(stop, session, reason=StopReason.REQUESTED))
            await wrote(session, b"asked\n")
            nursery.cancel_scope.cancel()
        session.detach()
    async with ground.adopted(spec) as session:
        await stop(session, reason=StopReason.REQUESTED, requested=True, grace=0.05)
        assert session.exit == ExitStatus(signal=9)
    assert [type(event) for event in ground.events] == [StopRequested, KillSent]


async def test_policies_are_those_of_the_start(ground: Ground, gate: Gate) -> None:
    """An adopted session keeps the policies it was started with, though its new supervisor knows but its handle."""
    spec = ground.sh(f"sleep 1000 & echo $!; {gate.wait}", leftovers=Leftovers(LeftoverPolicy.REPORT))
    await ground.detached(spec)
    async with ground.adopted(spec) as session:
        assert session.spec.leftovers == spec.leftovers
        pid = int(await wrote(session, b"\n"))
        gate.open()
        await ended(session)
    assert alive(pid)
    kill(pid)


@both_outputs
async def test_leftovers_of_what_ended_unwatched(ground: Ground, gate: Gate, output: OutputMode) -> None:
    """What a program left behind while nobody watched is swept when its session is adopted."""
    script = f"sleep 1000 & setsid sleep 1000 & {gate.wait}; exit 6"
    spec = ground.sh(script, output=output)
    await ground.detached(spec)
    await until(lambda: [entry.comm for entry in ground.left(spec)].count("sleep") == 2)
    gate.open()
    await until(ground.records(spec).exit)
    assert [entry.comm for entry in ground.left(spec)].count("sleep") == 2
    assert await ground.adopt_end(spec) == ExitStatus(code=6)
    assert ground.left(spec) == []
    assert sum(len(event.leftovers) for event in ground.told(LeftoversFound)) >= 2


async def ended_with_a_full_pipe(ground: Ground, gate: Gate) -> tuple[SessionSpec, list[int]]:
    """A session whose program has ended while its copier stood still, before 30,004 bytes; and who stands still."""
    spec = ground.sh(f"{gate.wait}; head -c 30000 /dev/zero; echo end", output=OutputMode.PIPE)
    await ground.detached(spec)
    copier = ground.records(spec).copier()
    assert copier is not None
    await until(lambda: [entry for entry in scan() if entry.ppid == copier.id.pid])
    copiers = [copier.id.pid, *(entry.id.pid for entry in scan() if entry.ppid == copier.id.pid)]
    for pid in copiers:
        os.kill(pid, signal.SIGSTOP)
    gate.open()
    await until(ground.records(spec).exit)
    assert ground.output(spec) == b""
    return spec, copiers


async def test_last_words_that_were_still_in_the_pipe(
    ground: Ground, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exit that is on record before the last output has reached the log does not cost that output."""
    monkeypatch.setattr(ending, "IDLE_GRACE", 0.02)
    monkeypatch.setattr(ending, "RECORD_GRACE", 0.02)
    monkeypatch.setattr(ending, "UNREAD_LIMIT", LIMIT)
    spec, copiers = await ended_with_a_full_pipe(ground, gate)
    async with trio.open_nursery() as nursery:

        async def wake() -> None:
            await trio.sleep(SHORT)  # who gives up too early has done so by now
            # However long it takes them here, once they go on.
            monkeypatch.setattr(ending, "IDLE_GRACE", LIMIT)
            monkeypatch.setattr(ending, "RECORD_GRACE", LIMIT)
            for pid in copiers:
                os.kill(pid, signal.SIGCONT)

        nursery.start_soon(wake)
        async with ground.adopted(spec) as session:
            assert await ended(session) == ExitStatus(code=0)
            assert session.output_bytes == 30_004
    assert ground.told(OutputLost) == []


async def test_last_words_that_nobody_comes_to(ground: Ground, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a copier that is held up for good leaves in its pipe is declared as lost."""
    monkeypatch.setattr(ending, "IDLE_GRACE", 0.02)
    monkeypatch.setattr(ending, "UNREAD_LIMIT", 0.2)
    monkeypatch.setattr(ending, "RECORD_GRACE", 0.2)
    spec, _ = await ended_with_a_full_pipe(ground, gate)
    assert await ground.adopt_end(spec) == ExitStatus(code=0)
    (lost,) = ground.told(OutputLost)
    assert (lost.offset, lost.reason) == (0, "at least 30004 bytes: its copier did not come to write it")


async def test_last_words_that_are_written_late(ground: Ground, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a copier writes after all, while it is being dismissed, is not declared as lost."""
    monkeypatch.setattr(ending, "IDLE_GRACE", 0.02)
    monkeypatch.setattr(ending, "UNREAD_LIMIT", 0.2)
    monkeypatch.setattr(ending, "RECORD_GRACE", LIMIT)
    spec, copiers = await ended_with_a_full_pipe(ground, gate)
    dismiss = ending._dismiss_helpers

    async def wake_and_dismiss(hold: Hold) -> bool:
        for pid in copiers:
            os.kill(pid, signal.SIGCONT)
        return await dismiss(hold)

    monkeypatch.setattr(ending, "_dismiss_helpers", wake_and_dismiss)
    assert await ground.adopt_end(spec) == ExitStatus(code=0)
    assert len(ground.output(spec)) == 30_004
    assert ground.told(OutputLost) == []


async def test_copier_that_is_held_up_in_writing(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a copier has read and not written yet is waited for, since nobody can write to its pipe any more."""
    monkeypatch.setattr(ending, "IDLE_GRACE", 0.02)
    monkeypatch.setattr(ending, "RECORD_GRACE", 0.02)
    slow = tmp_path / "cat"
    slow.write_text(f'#!/bin/sh\nsaid=$(exec cat)\nuntil [ -e {tmp_path}/go ]; do sleep 0.02; done\necho "$said"\n')
    slow.chmod(0o700)
    monkeypatch.setattr(launch, "_own_tool", lambda name: str(slow))
    spec = ground.sh("echo last words", output=OutputMode.PIPE)
    async with ground.opened(spec) as session, trio.open_nursery() as nursery:

        async def release() -> None:
            await until(ground.records(spec).exit)
            await trio.sleep(SHORT)  # who gives up too early has done so by now
            monkeypatch.setattr(ending, "RECORD_GRACE", LIMIT)
            (tmp_path / "go").touch()

        nursery.start_soon(release)
        assert await ended(session) == ExitStatus(code=0)
        assert session.output_bytes == len("last words\n")
    assert ground.told(OutputLost) == []


# --- it is lost --------------------------------------------------------------------------


@both_outputs
async def test_everybody_was_killed(ground: Ground, output: OutputMode) -> None:
    """A program that ran, and of whose end nobody was left to tell, is lost; what it left is swept."""
    spec = agent(ground, "setsid sleep 1000 & echo ready; exec sleep 1000", output=output)
    async with ground.opened(spec) as session:
        await wrote(session, b"ready\n")
        session.detach()
    await until(lambda: [e.comm for e in ground.left(spec)].count("sleep") == 2)
    shim, program = ground.records(spec).shim(), ground.records(spec).program()
    assert shim is not None
    assert program is not None
    kill(shim.id.pid, program.ppid, program.id.pid)
    # Not even as zombies, of which a status could be learnt.
    await until(lambda: read_entry(program.id.pid) is None and read_entry(shim.id.pid) is None)
    assert "its end was not recorded" in await lost(ground, spec)
    assert ground.left(spec) == []


async def test_another_boot(ground: Ground) -> None:
    """What was started in another boot is lost, and no process of this one is looked at."""
    spec = agent(ground, "exec sleep 1000")
    pid = await ground.detached(spec)
    assert "started anew" in await lost(ground, spec, boot="another")
    assert alive(pid)
    async with ground.adopted(spec):
        pass


async def test_another_boot_after_the_end(ground: Ground) -> None:
    """What had ended in another boot, and is on record, has that status."""
    spec = agent(ground, "echo words; exit 3")
    await ground.run(spec)
    async with ground.adopted(spec, boot="another") as session:
        assert await ended(session) == ExitStatus(code=3)
        assert await everything(session) == b"words\n"


@contextmanager
def stranger(*, setsid: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody else."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=setsid) as process:
        try:
            yield process
        finally:
            process.kill()


def stat_line(pid: int, *, start: int) -> bytes:
    """A process's line in the process table, with a forged start time."""
    head, _, tail = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")
    fields = tail.split()
    fields[19] = b"%d" % start
    return head + b") " + b" ".join(fields) + b"\n"


@pytest.mark.parametrize("back", [1, 1000])
async def test_recycled_pid(ground: Ground, back: int) -> None:
    """A stranger that has the pid of a program, a shim and a whole kernel session of old is never signalled."""
    spec = prepared(ground, agent(ground, "exit 0"))
    with stranger() as other:
        entry = read_entry(other.pid)
        assert entry is not None
        for name in ("shim", "pid", "copier"):
            line = stat_line(other.pid, start=entry.id.start - back)
            (ground.directory(spec) / name).write_bytes(line)
        assert "its end was not recorded" in await lost(ground, spec)
        assert other.poll() is None
    assert ground.events == []


async def test_recycled_kernel_session(ground: Ground) -> None:
    """A stranger's kernel session that has the number of ours is not swept when our program has ended."""
    spec = prepared(ground, agent(ground, "exit 0"))
    with stranger() as other:
        # Older than the stranger, as everybody of ours would be.
        entry = read_entry(other.pid)
        assert entry is not None
        line = stat_line(other.pid, start=entry.id.start - 5).replace(b"%d (" % other.pid, b"4194303 (", 1)
        for name in ("shim", "pid"):
            (ground.directory(spec) / name).write_bytes(line)
        (ground.directory(spec) / "exit").write_bytes(b"4\n")
        assert await ground.adopt_end(spec) == ExitStatus(code=4)
        assert other.poll() is None
    assert ground.told(LeftoversFound) == []


async def test_torn_records(ground: Ground, gate: Gate) -> None:
    """A record without its final newline does not exist: the program is not held by it, and no status is made up."""
    spec = agent(ground, f"{gate.wait}; exit 17")
    await ground.detached(spec)
    (ground.directory(spec) / "exit").write_bytes(b"1")
    async with ground.adopted(spec) as session:
        assert session.exit is None
        gate.open()
        assert (await ended(session)).code == 17


@both_outputs
async def test_directory_removed_under_a_session(ground: Ground, output: OutputMode) -> None:
    """A session that runs and whose directory is gone is stopped and lost, never found not to have started."""
    spec = agent(ground, "echo; exec sleep 1000", output=output)
    pid = await ground.detached(spec)
    shutil.rmtree(ground.directory(spec))
    assert "records were removed while it ran" in await lost(ground, spec)
    assert not alive(pid)
    assert ground.left(spec) == []


@pytest.mark.parametrize("damage", ["cut off", "a directory", "removed"])
async def test_words_of_a_session_that_runs(ground: Ground, gate: Gate, damage: str) -> None:
    """A session that runs and whose words cannot be read is not taken for a fragment, and is adopted all the same."""
    spec = agent(ground, f"{gate.wait}; exit 3", output=OutputMode.PIPE)
    await ground.detached(spec)
    words = ground.directory(spec) / "spec.json"
    if damage == "cut off":
        words.write_bytes(words.read_bytes()[:50])
    else:
        words.unlink()
        if damage == "a directory":
            words.mkdir()
    async with ground.backend() as backend:
        assert backend.stored_specs() == {}
        assert backend.unreadable() == (spec.id,)
    async with ground.adopted(spec) as session:
        assert session.spec.output is OutputMode.PIPE
        gate.open()
        assert (await ended(session)).code == 3
    assert bool([text for text in ground.warnings if "spec.json cannot be read" in text]) == (damage != "removed")


async def test_fragments(ground: Ground) -> None:
    """A directory in which nothing was started is a fragment, and one that says what was started is no fragment."""
    spec, empty = prepared(ground, agent(ground, "exit 0")), ground.spec("true")
    ground.directory(empty).mkdir()
    async with ground.backend() as backend:
        stored = backend.stored_specs()
        assert stored.keys() == {spec.id, empty.id}
        assert stored[empty.id] is None
        assert stored[spec.id] is not None
        assert backend.unreadable() == ()


async def test_no_descriptor_to_adopt_with(ground: Ground, gate: Gate) -> None:
    """A session that is to be adopted while there is no free descriptor waits for one; it is not harmed."""
    spec = agent(ground, f"{gate.wait}; exit 6")
    await ground.detached(spec)
    handle = SessionHandle(session_id=spec.id, boot_id=BOOT)
    async with ground.backend() as backend, trio.open_nursery() as nursery:

        async def adopt() -> None:
            async with backend.adopt(spec, handle, notify=ground.notify) as session:
                gate.open()
                assert (await ended(session)).code == 6

        with ExitStack() as without:
            without.enter_context(no_descriptors())
            backend.services.reserve.close()
            without.enter_context(no_descriptors())
            nursery.start_soon(adopt)
            await until(lambda: ground.warnings)
    assert any("Too many open files" in warning for warning in ground.warnings)


async def test_open_after_a_claim(ground: Ground) -> None:
    """A session that was adopted as never started cannot be opened under the same id."""
    spec = agent(ground, "exit 0")
    await never_started(ground, spec)
    with pytest.RaisesGroup(SessionStartError, flatten_subgroups=True):
        async with ground.opened(spec):
            pytest.fail("started")
    assert not (ground.root / "ran").exists()
