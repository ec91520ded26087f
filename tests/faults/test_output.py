"""Every byte a program writes is in its log or declared lost, whatever it does with its output."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from kasmos.model.event import OutputLost
from kasmos.model.profile import OutputMode
from kasmos.model.session import ExitStatus
from kasmos.sessions.follow import FollowedLog
from kasmos.sessions.output import LogFile
from tests.faults.conftest import LIMIT, Gate, Ground, ended, everything, until, wrote

both_outputs = pytest.mark.parametrize("output", list(OutputMode))
MIB = 1 << 20

reopen = pytest.mark.parametrize(
    "script",
    ["echo lost; {wait}; echo kept >/dev/stderr", "echo lost; {wait}; echo kept | tee /dev/stderr >/dev/null"],
    ids=["echo", "tee"],
)


@reopen
async def test_standard_error_opened_anew_with_a_pipe(ground: Ground, gate: Gate, script: str) -> None:
    """With `output = "pipe"` a program may open /dev/stderr as it likes: nothing is lost."""
    spec = ground.sh(script.format(wait=gate.wait), output=OutputMode.PIPE)
    async with ground.opened(spec) as session:
        await wrote(session, b"lost\n")
        gate.open()
        assert await ended(session) == ExitStatus(code=0)
        assert await everything(session) == b"lost\nkept\n"
    assert ground.events == []


@reopen
async def test_standard_error_opened_anew_with_a_file(ground: Ground, gate: Gate, script: str) -> None:
    """With `output = "file"` it truncates the log: what was there is declared lost, and offsets go on."""
    spec = ground.sh(script.format(wait=gate.wait), output=OutputMode.FILE)
    async with ground.opened(spec) as session:
        await wrote(session, b"lost\n")
        gate.open()
        assert await ended(session) == ExitStatus(code=0)
        assert session.output_bytes == 10
        assert session.read_nowait(5).data == b"kept\n"
    [lost] = ground.told(OutputLost)
    assert (lost.offset, "truncated" in lost.reason) == (5, True)
    # Durably: whoever reads the log later is told as well.
    chunk = LogFile(ground.directory(spec)).read(0, 100)
    assert (chunk.offset, chunk.lost, chunk.data) == (5, 5, b"kept\n")


async def test_offsets_after_a_truncation_and_an_adoption(ground: Ground, gate: Gate) -> None:
    """Offsets go on from where they were although the log was truncated to nothing and then adopted."""
    spec = ground.sh(f"echo lost; {gate.wait}; : >/dev/stderr; {gate.wait}; echo kept", output=OutputMode.FILE)
    async with ground.opened(spec) as session:
        await wrote(session, b"lost\n")
        gate.open()
        await until((ground.directory(spec) / "output.base").exists)
        session.detach()
    async with ground.adopted(spec) as session:
        assert session.output_bytes == 5
        gate.open()
        await ended(session)
        assert (session.output_bytes, session.read_nowait(5).data) == (10, b"kept\n")


async def test_offsets_only_grow_while_it_truncates(ground: Ground, gate: Gate) -> None:
    """A program that truncates its output again and again never makes the count of its output go back."""
    script = f"seq 1000; {gate.wait}; for i in 1 2 3 4 5 6 7 8; do echo again >/dev/stderr; seq 99; sleep 0.01; done"
    script += "; echo end"
    seen = [0]
    async with ground.opened(ground.sh(script, output=OutputMode.FILE)) as session:

        async def watch() -> None:
            offset = 0
            while (chunk := await session.read(offset)).data:
                assert chunk.offset == offset + chunk.lost
                offset = chunk.end
                seen.append(session.output_bytes)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            # One truncation at least is known by then: what was seen ends beyond the end of all that follows.
            await until(lambda: seen[-1] == 3893)
            gate.open()
            await ended(session)
        assert seen == sorted(seen)
        assert session.tail(1) == "end\n"
    assert 1 <= len(ground.told(OutputLost)) <= 8


@both_outputs
async def test_fifty_megabytes_without_a_newline(ground: Ground, output: OutputMode) -> None:
    """A line of fifty megabytes is a line like any other: exact in the log, and bounded in memory."""
    size = 50 * MIB
    spec = ground.sh(f"head -c {size} /dev/zero | tr '\\0' x", output=output)
    async with ground.opened(spec) as session:
        assert await ended(session) == ExitStatus(code=0)
        assert session.output_bytes == size
        assert len(session.capture()) == spec.buffer_bytes
        assert session.read_nowait(size - 3).data == b"xxx"
        assert session.tail(3, 10) == "x" * 10
    log = ground.directory(spec) / "output.log"
    assert await trio.to_thread.run_sync(digest, log) == hashlib.sha256(b"x" * size).digest()


def digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


# Lines of eight bytes that tell their own place, a mebibyte at a time.
NUMBERED = """
import sys
for part in range(int(sys.argv[1])):
    start = part << 17
    sys.stdout.buffer.write(b"".join([b"%07x\\n" % line for line in range(start, start + (1 << 17))]))
"""


@both_outputs
async def test_bounded_log(ground: Ground, output: OutputMode) -> None:
    """Of a gigabyte of output a bounded log keeps exactly the newest part, and the disk holds no more than that."""
    size, keep = 1 << 30, 8 * MIB
    # The numbered lines come last; before them, as fast as the machine can.
    script = f'head -c {size - 16 * MIB} /dev/zero; exec {sys.executable} -c "$SCRIPT" 16'
    spec = ground.sh(script, output=output, max_log_bytes=keep)
    spec = attrs.evolve(spec, env={**spec.env, "SCRIPT": NUMBERED})
    directory = ground.directory(spec)
    async with ground.opened(spec) as session:
        with trio.fail_after(2 * LIMIT):
            assert await session.wait() == ExitStatus(code=0)
        assert session.output_bytes == size
    log = LogFile(directory)
    assert (directory / "output.log").stat().st_blocks * 512 <= keep * 9 // 8 + MIB
    # Every byte is accounted for: what is not there is declared lost, and the rest is right.
    chunk = log.read(0, size)
    assert (chunk.lost, chunk.offset, chunk.end) == (log.base, log.base, size)
    assert keep <= len(chunk.data) <= keep * 9 // 8 + MIB
    lines = chunk.data[-chunk.offset % 8 :].splitlines()
    assert [int(line, 16) for line in lines] == list(range((16 << 17) - len(lines), 16 << 17))
    assert (directory / "output.base").read_bytes() == b"%d 0\n" % log.base


async def test_bounded_log_of_an_adopted_session(ground: Ground, gate: Gate) -> None:
    """A log that outgrew its bound while nobody watched is cut back when its session is adopted."""
    spec = ground.sh(f"{gate.wait}; head -c 20000000 /dev/zero", max_log_bytes=2 * MIB)
    await ground.detached(spec)
    gate.open()
    await until(ground.records(spec).exit)
    assert await ground.adopt_end(spec) == ExitStatus(code=0)
    assert (ground.directory(spec) / "output.log").stat().st_blocks * 512 <= 3 * MIB


@both_outputs
async def test_bytes_are_exact(ground: Ground, output: OutputMode) -> None:
    """Output is bytes: each of the 256, in any order, is kept as it is, and shown with replacement."""
    data = bytes(range(256)) * 3 + b"\xc3"
    (ground.root / "data").write_bytes(data)
    async with ground.opened(ground.spec("cat", "data", output=output)) as session:
        assert await ended(session) == ExitStatus(code=0)
        assert await everything(session) == data
        assert session.capture() == data.decode(errors="replace").removesuffix("\n")
    assert ground.output(session.spec) == data


# --- input ----------------------------------------------------------------------------


@both_outputs
async def test_prompt_of_a_megabyte_on_standard_input(ground: Ground, output: OutputMode) -> None:
    """A prompt of a megabyte reaches a program on its standard input, byte for byte."""
    prompt = "0123456789abcde\n" * 65_536 + "\udcff"
    spec = ground.spec("sha256sum", prompt=prompt, stdin_prompt=True, output=output)
    assert await ground.run(spec) == ExitStatus(code=0)
    expected = hashlib.sha256(prompt.encode("utf-8", "surrogateescape")).hexdigest()
    assert ground.output(spec).split()[0].decode() == expected


async def test_prompt_of_a_megabyte_that_nobody_reads(ground: Ground) -> None:
    """A program that does not read its prompt ends all the same, and a child of it that holds it delays nothing."""
    spec = ground.sh("sleep 1000 & exit 2", prompt="x" * MIB, stdin_prompt=True)
    with trio.fail_after(LIMIT / 2):
        assert await ground.run(spec) == ExitStatus(code=2)


async def test_prompt_of_a_megabyte_in_a_file(ground: Ground) -> None:
    """A prompt of a megabyte can be read from a file, byte for byte."""
    prompt = "fünf Wörter\n" * 80_000
    spec = ground.spec("sha256sum", "{prompt_file}", prompt=prompt)
    assert await ground.run(spec) == ExitStatus(code=0)
    assert ground.output(spec).split()[0].decode() == hashlib.sha256(prompt.encode()).hexdigest()


@both_outputs
async def test_program_that_reads_its_input(ground: Ground, output: OutputMode) -> None:
    """A program that reads its standard input without having been given one gets end-of-file at once."""
    spec = ground.sh("cat; echo end of input", output=output)
    assert await ground.run(spec) == ExitStatus(code=0)
    assert ground.output(spec) == b"end of input\n"


# --- the log itself ---------------------------------------------------------------------


@both_outputs
async def test_log_deleted(ground: Ground, gate: Gate, output: OutputMode) -> None:
    """A log that is deleted while its program runs is there again when it has ended, with every byte."""
    spec = ground.sh(f"echo one; {gate.wait}; echo two", output=output)
    async with ground.opened(spec) as session:
        await wrote(session, b"one\n")
        (ground.directory(spec) / "output.log").unlink()
        gate.open()
        await ended(session)
        assert await everything(session) == b"one\ntwo\n"
    assert ground.output(spec) == b"one\ntwo\n"


async def test_log_deleted_while_nobody_watches(ground: Ground, gate: Gate) -> None:
    """A log that was deleted while nobody watched is found again through its program."""
    spec = ground.sh(f"echo one; {gate.wait}; echo two; {gate.wait}; echo three")
    await ground.detached(spec)
    await until(lambda: ground.output(spec) == b"one\n")
    (ground.directory(spec) / "output.log").unlink()
    gate.open()
    async with ground.adopted(spec) as session:
        await wrote(session, b"one\n")
        gate.open()
        await ended(session)
        assert await everything(session) == b"one\ntwo\nthree\n"
    assert ground.output(spec) == b"one\ntwo\nthree\n"


async def test_bounded_log_written_while_it_is_cut(ground: Ground, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written while a log's head is given up counts as well: the bound holds though nothing follows."""
    size, keep = 4 * MIB, MIB
    script = f"head -c {size} /dev/zero | tr '\\0' y; {gate.wait}"
    spec = ground.sh(f"{script}; {script}", max_log_bytes=keep)
    cap, cuts, written = LogFile.cap, [], threading.Event()

    def slowly(log: LogFile, bound: int) -> int | None:
        base = cap(log, bound)
        if base is not None:
            cuts.append(base)
            if len(cuts) == 1:
                gate.open()
                assert written.wait(LIMIT)
        return base

    monkeypatch.setattr(LogFile, "cap", slowly)
    async with ground.opened(spec) as session:
        await until(lambda: session.output_bytes == 2 * size)
        await trio.sleep(0.5)  # whoever looks only when something is written has looked
        written.set()
        await until(lambda: LogFile(ground.directory(spec)).base > 2 * size - 2 * keep)
        gate.open()
        await ended(session)


async def test_bounded_log_deleted(ground: Ground, gate: Gate) -> None:
    """A bounded log that is deleted is restored without the head it had given up, at the same offsets."""
    size, keep = 30 * MIB, 2 * MIB
    spec = ground.sh(f"head -c {size} /dev/zero | tr '\\0' y; {gate.wait}; echo", max_log_bytes=keep)
    directory = ground.directory(spec)
    async with ground.opened(spec) as session:
        await until(lambda: session.output_bytes == size and LogFile(directory).base > size - 2 * keep)
        (directory / "output.log").unlink()
        gate.open()
        await ended(session)
    chunk = LogFile(directory).read(0, size + 1)
    assert (chunk.end, set(chunk.data)) == (size + 1, set(b"y\n"))
    assert (directory / "output.log").stat().st_blocks * 512 <= 2 * keep


@both_outputs
async def test_reader_in_a_thread_outlives_the_session(ground: Ground, output: OutputMode) -> None:
    """Whoever reads in a thread while a session is left reads true bytes to the end."""
    spec = ground.sh("seq -f '%07.0f' 0 200000", output=output, buffer_bytes=4096)
    expected = b"".join(b"%07d\n" % line for line in range(200_001))
    left = threading.Event()
    async with trio.open_nursery() as nursery:
        async with ground.opened(spec) as session:

            def read() -> None:
                offset = 0
                while offset < len(expected):
                    # One half while the scope is left, the other half after that.
                    assert offset < len(expected) // 2 or left.wait(LIMIT)
                    chunk = session.read_nowait(offset, 3000)
                    assert chunk.data == expected[offset : chunk.end]
                    offset = chunk.end

            await ended(session)
            nursery.start_soon(trio.to_thread.run_sync, read)
        left.set()


async def test_program_without_cat(ground: Ground) -> None:
    """A program on whose PATH there is no `cat` has its output copied as any other."""
    spec = ground.sh("echo one; exit 3", output=OutputMode.PIPE)
    spec = attrs.evolve(spec, env={**spec.env, "PATH": str(ground.root)})
    assert await ground.run(spec) == ExitStatus(code=3)
    assert ground.output(spec) == b"one\n"


async def test_copier_that_cannot_run(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the `cat` that is to copy the output cannot be run, this is tried once, and the output is told lost."""
    cat = ground.root / "cat"
    cat.write_text("#!/no/such/interpreter\n")
    cat.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ground.root}:{os.environ['PATH']}")
    spec = ground.sh("trap '' PIPE; echo one; exit 3", output=OutputMode.PIPE)
    assert await ground.run(spec) == ExitStatus(code=3)
    assert len(ground.told(OutputLost)) == 1
    assert (ground.directory(spec) / "shim.log").read_bytes().count(b"output was lost") == 1


def test_out_of_watches(ground: Ground) -> None:
    """Where the kernel has no file watch left, sessions start, are followed and end as ever, after a warning."""
    script = """
import sys, trio
from pathlib import Path
from kasmos.model.session import SessionSpec
from kasmos.sessions.headless import open_headless
from kasmos.supervision.termination import terminate

async def main():
    root, said = Path(sys.argv[1]), []
    async def notify(event): raise AssertionError(event)
    async with open_headless(root, terminate=terminate, warn=said.append) as backend:
        argv = ("/bin/sh", "-c", "echo one; until [ -e go ]; do sleep 0.02; done; echo two; exit 6")
        spec = SessionSpec(id="s", name="s", argv=argv, cwd=str(root), env={"PATH": "/bin:/usr/bin"})
        async with backend.open(spec, notify=notify) as session:
            with trio.fail_after(50):
                assert (await session.read(0)).data == b"one\\n"
                assert session.exit is None
                while not said:
                    await trio.sleep(0.01)
                (root / "go").touch()
                assert (await session.read(4)).data == b"two\\n"
                assert (await session.wait()).code == 6
    print(*said)
trio.run(main)
"""
    inner = 'echo 0 >/proc/sys/user/max_inotify_watches && exec "$@"'
    unshare = ["unshare", "--user", "--map-root-user", "sh", "-c", inner, "sh"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this machine has no private limits on file watches")
    done = subprocess.run(
        [*unshare, sys.executable, "-c", script, ground.root], capture_output=True, text=True, timeout=LIMIT,
        env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "out of inotify watches" in done.stdout


async def test_a_log_is_not_closed_while_it_is_put_in_order(tmp_path: Path) -> None:
    """Who settles a log for the last time waits for the settling that is under way: its truncation is durable then."""
    (tmp_path / "output.log").write_bytes(b"lost\n")
    log = FollowedLog(str(tmp_path), os.open(tmp_path / "output.log", os.O_RDONLY), buffer_bytes=1000, max_bytes=None)
    disk = trio.CapacityLimiter(1)
    log.pull()
    (tmp_path / "output.log").write_bytes(b"kept")
    log.pull()
    assert log.needs_settling
    async with trio.open_nursery() as nursery:
        # No thread is to be had at first.
        await disk.acquire_on_behalf_of("somebody")
        nursery.start_soon(log.settle, disk, pytest.fail)
        await trio.testing.wait_all_tasks_blocked()
        disk.release_on_behalf_of("somebody")
        with trio.fail_after(LIMIT):
            await log.settle(disk, pytest.fail, finally_=True)
        log.close()
    assert LogFile(tmp_path).read(0, 100).lost == 5
