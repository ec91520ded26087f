"""Sessions in tmux under trouble, with a real tmux: its server, our connection to it, the supervisor, the program."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from kasmos.cli.gc import clear_terminals
from kasmos.exceptions import BackendUnavailableError, SessionError, SessionLostError, SessionStartError
from kasmos.model.event import LeftoversFound, OutputLost
from kasmos.model.profile import ExecutionMode, LeftoverPolicy, Leftovers, StopPolicy
from kasmos.model.session import CgroupUse, ExitStatus, SessionHandle, SessionSpec
from kasmos.sessions import cgroups, launch, tmux, tmux_launch, tmux_start
from kasmos.sessions.cgroups import NoCgroups, find_cgroups
from kasmos.sessions.headless import open_headless
from kasmos.sessions.hold import Hold
from kasmos.sessions.stdin import unread_bytes
from kasmos.sessions.tmux_backend import TmuxBackend, open_tmux
from kasmos.sessions.tmux_host import children_of, resident
from kasmos.sessions.tmux_session import TmuxSession
from kasmos.store.stateroot import StateRoot
from kasmos.supervision.termination import terminate
from tests.faults.conftest import BOOT, LIMIT, PROGRAMS, Ground, alive, everything, until, wrote
from tests.faults.test_cgroups import HIDE

QUICK = StopPolicy(stop_grace=0.5, kill_grace=5.0)


@attrs.define
class Desk:
    """A ground with tmux on it."""

    ground: Ground
    name: str = "root"

    @property
    def state(self) -> Path:
        return self.ground.root / self.name

    @property
    def socket(self) -> str:
        return str(tmux.socket_path(self.state, os.environ.get("XDG_RUNTIME_DIR")))

    def sh(self, script: str, **changes: object) -> SessionSpec:
        return self.ground.sh(script, **{"backend": ExecutionMode.TMUX, "stop": QUICK, **changes})

    def spec(self, *argv: str | Path) -> SessionSpec:
        return self.ground.spec(*argv, backend=ExecutionMode.TMUX, stop=QUICK)

    @asynccontextmanager
    async def backend(self, **options: Any) -> AsyncIterator[TmuxBackend]:
        self.state.mkdir(mode=0o700, exist_ok=True)
        async with (
            open_headless(self.state, terminate=terminate, warn=self.ground.warnings.append, **options) as headless,
            open_tmux(self.state, headless) as backend,
        ):
            yield backend

    @asynccontextmanager
    async def opened(self, spec: SessionSpec, **options: Any) -> AsyncIterator[TmuxSession]:
        async with self.backend(**options) as backend, backend.open(spec, notify=self.ground.notify) as session:
            yield session

    async def tmux(self, *words: str) -> str:
        """Run a tmux command on our socket."""
        done = await trio.run_process(
            ["tmux", "-S", self.socket, *words], capture_stdout=True, capture_stderr=True, check=False
        )
        return done.stdout.decode()

    async def server_pid(self) -> int:
        return int(await self.tmux("display-message", "-p", "#{pid}"))


@pytest.fixture
def desk(ground: Ground) -> Desk:
    return Desk(ground)


async def shown(session: TmuxSession, text: str) -> str:
    """Wait until the screen shows a text; the whole screen."""
    with trio.fail_after(LIMIT):
        while text not in (screen := await session.screen()):  # noqa: ASYNC110  # nobody tells when it is drawn
            await trio.sleep(0.01)
    return screen


async def ended(session: TmuxSession) -> ExitStatus:
    with trio.fail_after(LIMIT):
        return await session.wait()


# --- the server ----------------------------------------------------------------------


async def test_server_killed_under_many(desk: Desk) -> None:
    """A tmux server that dies is told apart from agents that end: each session is lost at once, and nothing is left."""
    specs = [desk.sh("trap '' HUP; echo ready; sleep 1000 & wait") for _ in range(20)]
    lost: list[str] = []

    async def live(backend: TmuxBackend, spec: SessionSpec, ready: list[str]) -> None:
        async with backend.open(spec, notify=desk.ground.notify) as session:
            await wrote(session, b"ready")
            ready.append(spec.id)
            with pytest.raises(SessionLostError, match="tmux server ended"):
                await session.wait()
            lost.append(spec.id)

    with trio.fail_after(LIMIT):
        async with desk.backend() as backend:
            async with trio.open_nursery() as nursery:
                ready: list[str] = []
                for spec in specs:
                    nursery.start_soon(live, backend, spec, ready)
                await until(lambda: len(ready) == 20)
                await desk.tmux("kill-server")
            assert sorted(lost) == sorted(spec.id for spec in specs)
            assert [desk.ground.left(spec) for spec in specs] == [[]] * 20
            # The next session gets a server of its own.
            async with backend.open(desk.sh("exit 4"), notify=desk.ground.notify) as session:
                assert await ended(session) == ExitStatus(code=4)


async def test_last_screen_of_a_lost_one(desk: Desk) -> None:
    """What was seen last of a session is kept when its tmux server is killed, whoever looked at it."""
    async with desk.backend() as backend:
        for ansi in (True, False):
            async with backend.open(
                desk.sh(r"printf '\033[31mred\033[0m words'; sleep 1000"), notify=desk.ground.notify
            ) as session:
                await shown(session, "red words")
                await session.look(ansi=ansi)
                await desk.tmux("kill-server")
                with pytest.raises(SessionLostError):
                    await session.wait()
                assert backend.last_screen(session.spec.id) == "red words"


async def test_server_killed_while_nobody_watched(desk: Desk) -> None:
    """A session whose tmux server died between two supervisors is lost, whether its program outlived it or not."""
    polite, stubborn = desk.sh("echo ready; sleep 1000"), desk.sh("trap '' HUP; echo ready; sleep 1000 & wait")
    async with desk.backend() as backend:
        for spec in (polite, stubborn):
            async with backend.open(spec, notify=desk.ground.notify) as session:
                await wrote(session, b"ready")
                session.detach()
    await desk.tmux("kill-server")
    async with desk.backend() as backend:
        for spec in (polite, stubborn):
            handle = SessionHandle(spec.id, ExecutionMode.TMUX, BOOT)
            with pytest.raises(SessionLostError, match="tmux server ended"):
                async with backend.adopt(spec, handle, notify=desk.ground.notify):
                    pytest.fail("its terminal is gone")
            assert desk.ground.left(spec) == []


async def test_server_that_stands_still(desk: Desk) -> None:
    """A server that is stopped for seconds is slow and not dead: sessions go on, and their ends are exact."""
    notify, much = desk.ground.notify, r"until [ -e go ]; do sleep 0.02; done; head -c 40000 /dev/zero | tr '\000' %"
    async with (
        desk.backend() as backend,
        backend.open(desk.sh("echo ready; read x; echo got $x; exit 7"), notify=notify) as one,
        backend.open(desk.sh(f"echo ready; {much}; echo last words; exit 8"), notify=notify) as other,
    ):
        await wrote(one, b"ready")
        await wrote(other, b"ready")
        pid = await desk.server_pid()
        os.kill(pid, signal.SIGSTOP)
        (desk.ground.root / "go").touch()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.send_keys, "hello")
                await trio.sleep(5)
                assert (one.exit, other.exit) == (None, None)
                os.kill(pid, signal.SIGCONT)
        finally:
            os.kill(pid, signal.SIGCONT)
        await one.tap_enter()
        assert await ended(one) == ExitStatus(code=7)
        assert await ended(other) == ExitStatus(code=8)
        assert b"got hello" in await everything(one)
        said = await everything(other)
        assert (said.count(b"%"), said.count(b"last words")) == (40_000, 1)


async def test_last_words_wait_for_the_server(desk: Desk) -> None:
    """What a program wrote last is logged, however late the server reads it: its terminal is not given up before."""
    much = r"until [ -e go ]; do sleep 0.02; done; head -c 8000 /dev/zero | tr '\000' %"
    async with desk.opened(desk.sh(f"echo ready; {much}; exit 7")) as session:
        await wrote(session, b"ready")
        pid = await desk.server_pid()
        os.kill(pid, signal.SIGSTOP)
        (desk.ground.root / "go").touch()
        try:
            records = launch.Records(str(desk.state / "sessions" / session.spec.id))
            await until(lambda: records.exit() is not None)
            shim = records.shim()
            assert shim is not None
            await trio.sleep(0.5)  # who goes too early has gone by now
            assert alive(shim.ppid)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert await ended(session) == ExitStatus(code=7)
        assert (await everything(session)).count(b"%") == 8000


async def test_end_of_a_stopped_terminal(desk: Desk) -> None:
    """A program whose terminal somebody has stopped (Ctrl-S) ends all the same, and its terminal is closed."""
    async with desk.opened(desk.sh("echo ready; until [ -e go ]; do sleep 0.02; done; exit 7")) as session:
        await wrote(session, b"ready")
        await session.press("C-s")
        (desk.ground.root / "go").touch()
        assert await ended(session) == ExitStatus(code=7)
        assert session.spec.id not in await desk.tmux("list-sessions", "-F", "#{session_name}")


async def test_control_connection_killed(desk: Desk) -> None:
    """A control connection that is killed is made anew; sessions do not notice."""
    async with desk.backend() as backend, backend.open(desk.sh("cat"), notify=desk.ground.notify) as session:
        host = await backend.host()
        for round_ in range(3):
            connects = host.control.connects
            assert host.control.pid is not None
            os.kill(host.control.pid, signal.SIGKILL)
            await until(lambda connects=connects: host.control.connects > connects)
            await session.send_keys(f"round {round_}")
            await shown(session, f"round {round_}")


async def test_supervisor_killed_with_fifty(desk: Desk) -> None:
    """`kill -9` of the supervisor, twice, with fifty sessions: the same programs in the same panes, no byte missing."""
    script = "i=0; while [ $i -lt 40 ]; do printf '%04d\\n' $i; i=$((i+1)); sleep 0.1; done; read x; exit 5"
    specs = [desk.sh(script) for _ in range(50)]
    (desk.ground.root / "ids").write_text("\n".join(spec.id for spec in specs))
    pids: dict[str, int] = {}
    for start in (True, False):
        supervisor = await trio.to_thread.run_sync(start_supervisor, desk, script, start)
        for line in supervisor:
            name, _, pid = line.partition(" ")
            assert pids.setdefault(name, int(pid)) == int(pid)
    assert len(pids) == 50
    whole = b"".join(b"%04d\r\n" % i for i in range(40))
    async with desk.backend() as backend, trio.open_nursery() as nursery:

        async def finish(spec: SessionSpec) -> None:
            handle = SessionHandle(spec.id, ExecutionMode.TMUX, BOOT)
            async with backend.adopt(spec, handle, notify=desk.ground.notify) as session:
                assert session.pid == pids[spec.id]
                await wrote(session, b"0039\r\n")
                await session.tap_enter()
                assert await ended(session) == ExitStatus(code=5)
                assert (await everything(session)).startswith(whole)

        for spec in specs:
            nursery.start_soon(finish, spec)


SUPERVISOR = """
import os, sys, trio
from pathlib import Path
from kasmos.model.profile import ExecutionMode, LeftoverPolicy, Leftovers, StopPolicy
from kasmos.model.session import SessionHandle, SessionSpec
from kasmos.sessions.headless import open_headless
from kasmos.sessions.tmux_backend import open_tmux
from kasmos.supervision.termination import terminate

root, script, start = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "start"
boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

async def notify(event):
    pass

async def live(backend, name, ready):
    env = {"PATH": os.environ["PATH"], "HOME": str(root), "KASMOS_SESSION_ID": name}
    spec = SessionSpec(id=name, name="x", argv=("/bin/sh", "-c", script), cwd=str(root), env=env,
                       backend=ExecutionMode.TMUX, stop=StopPolicy(stop_grace=0.5))
    handle = SessionHandle(name, ExecutionMode.TMUX, boot)
    opened = backend.open(spec, notify=notify) if start else backend.adopt(spec, handle, notify=notify)
    async with opened as session:
        print(name, session.pid, flush=True)
        await trio.sleep_forever()

async def main():
    state = root / "root"
    state.mkdir(mode=0o700, exist_ok=True)
    async with open_headless(state, terminate=terminate) as headless, open_tmux(state, headless) as backend:
        async with trio.open_nursery() as nursery:
            for name in (root / "ids").read_text().split():
                nursery.start_soon(live, backend, name, None)

trio.run(main)
"""


def start_supervisor(desk: Desk, script: str, start: bool) -> list[str]:
    """Run a supervisor until it holds all its sessions, and kill it; what it said."""
    command = [sys.executable, "-c", SUPERVISOR, str(desk.ground.root), script, "start" if start else "adopt"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    lines = []
    with process:
        for line in process.stdout:
            lines.append(line.strip())
            if len(lines) == 50:
                break
        process.kill()
    return lines


async def test_strangers_on_our_socket_and_elsewhere(desk: Desk) -> None:
    """Tmux sessions that are not ours are never touched, on whatever server they are, and keep their server alive."""
    elsewhere = desk.ground.root / "other.sock"
    await trio.run_process(["tmux", "-S", elsewhere, "-f", "/dev/null", "new-session", "-d", "-s", "_kasmos-decoy"])
    try:
        async with desk.opened(desk.sh("echo ready; exec sleep 1000")) as session:
            await wrote(session, b"ready")
            await desk.tmux("new-session", "-d", "-s", "kasmos-decoy", "exec sleep 1000")
        assert (await desk.tmux("list-sessions", "-F", "#{session_name}")).split() == ["_kasmos", "kasmos-decoy"]
        async with desk.opened(desk.sh("exit 3")) as session:
            assert await ended(session) == ExitStatus(code=3)
        assert "kasmos-decoy" in await desk.tmux("list-sessions", "-F", "#{session_name}")
        listed = await trio.run_process(["tmux", "-S", elsewhere, "list-sessions"], capture_stdout=True)
        assert b"_kasmos-decoy" in listed.stdout
    finally:
        await desk.tmux("kill-server")
        await trio.run_process(["tmux", "-S", elsewhere, "kill-server"])


async def test_two_projects(desk: Desk) -> None:
    """Two state roots have two servers, and the end of one is nothing to the other."""
    other = Desk(Ground(desk.ground.root / "second"))
    other.ground.root.mkdir()
    async with desk.opened(desk.sh("cat")) as one:
        async with other.opened(other.sh("cat")) as two:
            assert await desk.server_pid() != await other.server_pid()
            await two.send_keys("two")
            await shown(two, "two")
        await one.send_keys("one")
        assert "two" not in await shown(one, "one")


async def test_server_ends_with_the_last_session(desk: Desk) -> None:
    """When the supervisor leaves, its server stays for sessions it leaves running, and else is gone."""
    spec = desk.sh("echo ready; exec sleep 1000")
    async with desk.opened(spec) as session:
        await wrote(session, b"ready")
        pid = await desk.server_pid()
        session.detach()
    assert alive(pid)
    handle = SessionHandle(spec.id, ExecutionMode.TMUX, BOOT)
    async with desk.backend() as backend, backend.adopt(spec, handle, notify=desk.ground.notify):
        pass
    assert not alive(pid)
    assert not Path(desk.socket).exists()  # noqa: ASYNC240  # a look


async def test_spared_process_loses_its_terminal(desk: Desk) -> None:
    """A process that is spared outlives its program, but not on its terminal: nothing is kept for it."""
    spec = desk.sh("echo ready; trap '' HUP; sleep 1000 & exit 3", leftovers=Leftovers(LeftoverPolicy.REPORT))
    async with desk.opened(spec) as session:
        assert await ended(session) == ExitStatus(code=3)
        assert await session.screen() == "ready"
    (left,) = desk.ground.left(spec)
    assert not Path(desk.socket).exists()  # noqa: ASYNC240  # a look
    os.kill(left.id.pid, signal.SIGKILL)


async def test_dead_terminals_are_cleared(desk: Desk) -> None:
    """A dead terminal waits for the supervisor that takes its session over; when its records are gone, it goes too."""
    spec = desk.sh("echo last words; read x; exit 5")
    async with desk.opened(spec) as session:
        session.detach()
    await desk.tmux("send-keys", "-t", f"={spec.id}:", "Enter")
    with trio.fail_after(LIMIT):
        while "1" not in (await desk.tmux("list-panes", "-a", "-F", "#{pane_dead}")).split():  # noqa: ASYNC110
            await trio.sleep(0.02)
    async with desk.backend():
        pass
    assert spec.id in await desk.tmux("list-sessions", "-F", "#{session_name}")
    shutil.rmtree(desk.ground.directory(spec))
    clear_terminals(StateRoot(desk.state), os.environ)
    assert spec.id not in await desk.tmux("list-sessions", "-F", "#{session_name}")
    async with desk.backend():
        pass
    assert not Path(desk.socket).exists()  # noqa: ASYNC240  # a look


# --- the program ---------------------------------------------------------------------


async def test_flood_is_logged_to_the_byte(desk: Desk) -> None:
    """A program that writes as fast as a terminal takes it loses no byte, and the tmux server does not grow."""
    count = 50_000_000
    async with desk.backend() as backend:
        await backend.host()
        before = resident(await desk.server_pid())
        spec = desk.spec(PROGRAMS / "raw_flood", str(count))
        async with backend.open(spec, notify=desk.ground.notify) as session:
            assert await ended(session) == ExitStatus(code=0)
            assert session.output_bytes == count
            assert resident(await desk.server_pid()) - before < 30_000_000
        assert (desk.ground.directory(spec) / "output.log").stat().st_size == count


async def test_flood_of_lines_is_logged_to_the_byte(desk: Desk) -> None:
    """A program that leaves the terminal as it is loses no byte either; each newline is two, in its place."""
    block = b"".join(b"%06d " % number + bytes(range(33, 105)) + b"\n" for number in range(800))
    translated = block.replace(b"\n", b"\r\n")
    blocks = 50_000_000 // len(block) + 1
    count = blocks * len(block)
    async with desk.backend() as backend:
        await backend.host()
        before = resident(await desk.server_pid())
        spec = desk.spec(PROGRAMS / "cooked_flood", str(count))
        async with backend.open(spec, notify=desk.ground.notify) as session:
            assert await ended(session) == ExitStatus(code=0)
            assert session.output_bytes == count + 800 * blocks
            assert resident(await desk.server_pid()) - before < 30_000_000
    with (desk.ground.directory(spec) / "output.log").open("rb") as log:
        # By size and content: nothing is lost, added or in another place.
        assert all(log.read(len(translated)) == translated for _ in range(blocks))
        assert log.read() == b""
    assert desk.ground.told(OutputLost) == []


@pytest.mark.parametrize("who", ["reader", "both"])
async def test_stopped_logger(desk: Desk, who: str) -> None:
    """A logger that somebody stopped does not make the tmux server grow for ever, and loses nothing."""
    count = 60_000_000 if who == "both" else 30_000_000
    spec = desk.sh(f"read x; exec {PROGRAMS / 'raw_flood'} {count}")
    async with desk.opened(spec) as session:
        guardian = desk.ground.records(spec).copier()
        assert guardian is not None
        await until(lambda: children_of(guardian.id.pid))
        (reader,) = children_of(guardian.id.pid)
        before = resident(await desk.server_pid())
        # In this order, or the one would continue the other.
        for one in [reader] if who == "reader" else [guardian, reader]:
            os.kill(one.id.pid, signal.SIGSTOP)
        await session.tap_enter()
        with trio.fail_after(2 * LIMIT):
            assert await session.wait() == ExitStatus(code=0)
        assert any("was stopped" in text for text in desk.ground.warnings) == (who == "both")
        if who == "reader":
            assert resident(await desk.server_pid()) - before < 20_000_000
    # What was typed is echoed as well.
    assert len(desk.ground.output(spec)) >= count
    assert desk.ground.told(OutputLost) == []


async def test_disk_that_hangs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk hangs, program and tmux server go on, the server does not grow, and nothing is lost."""
    # A pipe that nobody reads stands in for a disk that takes nothing.
    hung = desk.ground.root / "hung"
    os.mkfifo(hung)
    held = os.open(hung, os.O_RDWR | os.O_CLOEXEC)
    prepare = launch.prepare

    def prepare_hung(directory: str, spec: SessionSpec, boot_id: str) -> None:
        prepare(directory, spec, boot_id)
        os.unlink(f"{directory}/output.log")
        os.link(hung, f"{directory}/output.log")

    monkeypatch.setattr(launch, "prepare", prepare_hung)
    monkeypatch.setattr(Hold, "follow", lambda self: None)
    spec = desk.spec(PROGRAMS / "raw_flood", str(count := 30_000_000))
    async with desk.opened(spec) as session:
        before = resident(await desk.server_pid())
        with trio.fail_after(2 * LIMIT):
            assert await session.wait() == ExitStatus(code=0)
        assert resident(await desk.server_pid()) - before < 20_000_000
        guardian = desk.ground.records(spec).copier()
        assert guardian is not None
        assert alive(guardian.id.pid)
    received = await trio.to_thread.run_sync(drain, hung, guardian.id.pid)
    os.close(held)
    assert received == count
    assert desk.ground.records(spec).copier_lost() is None


def drain(pipe: Path, writer: int) -> int:
    """Take what comes out of a pipe until the writer has ended; how much it was."""
    received, there = 0, True
    fd = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    while there or alive(writer):
        there = bool(select.select([fd], [], [], 0.05)[0])
        received += len(os.read(fd, 1 << 20)) if there else 0
    os.close(fd)
    return received


async def test_log_that_cannot_be_attached(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the output cannot be logged no program runs, and the reason is told."""
    async with desk.backend() as backend:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nowhere/python")
            with pytest.raises(SessionStartError, match="the output log cannot be attached: /nowhere/python"):
                async with backend.open(desk.sh("touch ran"), notify=desk.ground.notify):
                    pass
        assert list((desk.state / "sessions").iterdir()) == []
        assert list(desk.ground.root.rglob("ran")) == []


async def test_logger_that_does_not_come(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start does not wait without end for a logger that does not record itself; nothing has run then."""
    monkeypatch.setattr(tmux_launch, "LOGGER", "exit 0")
    monkeypatch.setattr(tmux_start, "READY_LIMIT", 0.5)
    async with desk.backend() as backend:
        with pytest.raises(SessionStartError, match="were not there within"):
            async with backend.open(desk.sh("touch ran"), notify=desk.ground.notify):
                pass
        assert list(desk.ground.root.rglob("ran")) == []


async def test_killed_program(desk: Desk) -> None:
    """A program that is killed has that signal, exactly, and its last screen can be looked at."""
    async with desk.opened(desk.sh("echo last words; exec sleep 1000")) as session:
        await wrote(session, b"words")
        assert session.pid is not None
        os.kill(session.pid, signal.SIGKILL)
        assert await ended(session) == ExitStatus(signal=signal.SIGKILL)
        assert session.capture() == await session.screen() == "last words"


def places_for_memory() -> Iterator[tuple[Path, str]]:
    """Where a memory control group might be made, and how its limit is called: version 1, then 2 from here upwards."""
    with open("/proc/self/cgroup") as file:
        own = {controllers: path for _, controllers, path in (line.strip().split(":", 2) for line in file)}
    if "memory" in own:
        yield Path("/sys/fs/cgroup/memory", own["memory"].lstrip("/")), "memory.limit_in_bytes"
    if "" in own:
        inside = Path("/sys/fs/cgroup", own[""].lstrip("/"))
        top = "/sys/fs/cgroup"
        yield from ((place, "memory.max") for place in (inside, *inside.parents) if place.is_relative_to(top))


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path | None]:
    """A memory control group with this limit; None where none can be made."""
    for place, name in places_for_memory():
        group = place / f"kasmos-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if is_limited(group, name, limit):
                yield group
                return
        finally:
            remove(group)
    yield None


def remove(group: Path) -> None:
    """Remove a control group, which the last of its processes may just be leaving."""
    for _ in range(1000):
        with contextlib.suppress(OSError):
            group.rmdir()
        if not group.exists():
            return
        time.sleep(0.02)
    pytest.fail(f"somebody is still in {group}")


def is_limited(group: Path, name: str, limit: int) -> bool:
    """Limit a group's memory, as far as the group above hands the controller on, and this is one at all."""
    swap = group / "memory.swap.max"
    try:
        if (group / name).exists():
            (group / name).write_text(str(limit))
            if swap.exists():
                swap.write_text("0")
            return True
    except OSError:
        pass
    return False


def may_read_kernel_log() -> bool:
    """Whether the kernel's log is to be read here, and speaks of the process ids that we know."""
    if os.readlink("/proc/self/ns/pid") != "pid:[4026531836]":
        return False
    try:
        os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


async def test_program_out_of_memory(desk: Desk, record_property: Callable[[str, object], None]) -> None:
    """A program that the kernel kills for its memory has ended by SIGKILL, for that reason; the tmux server lives on.

    That is so where a memory control group can be made; and the reason is known where the kernel's log may be read.
    Nothing else makes the kernel kill one process alone: with a limit of its own (`RLIMIT_AS`) a program is refused
    memory and lives. Elsewhere the program sends itself the signal, and no reason is told. The report says which.
    """
    with memory_group(48 << 20) as group:
        record_property("killed_by", "kernel" if group is not None else "itself")
        eat = "x = bytearray(1 << 30)" if group is not None else "import os; os.kill(os.getpid(), 9)"
        enter = f"echo $$ >{group}/cgroup.procs; " if group is not None else ""
        spec = desk.sh(f"echo ready; {enter}exec python3 -c '{eat}'")
        known = group is not None and may_read_kernel_log()
        async with desk.opened(spec) as session:
            pid = await desk.server_pid()
            status = await ended(session)
            assert status == ExitStatus(signal=signal.SIGKILL, out_of_memory=known)
            assert str(status) == "killed by SIGKILL" + ": the kernel was out of memory for it" * known
            assert "ready" in await session.screen()
            assert alive(pid)
        assert desk.ground.left(spec) == []


async def test_program_that_closes_its_terminal(desk: Desk) -> None:
    """A program that closes its terminal goes on, and ends when it ends."""
    async with desk.opened(desk.sh("echo hello; exec <&- >&- 2>&-; sleep 0.3; exit 6")) as session:
        assert await ended(session) == ExitStatus(code=6)
        assert await everything(session) == b"hello\r\n"


async def test_program_is_in_the_foreground(desk: Desk) -> None:
    """A program has its terminal for itself: it controls it, is in its foreground, and gets what is typed there."""
    script = (
        "import os; t = os.open('/dev/tty', os.O_RDWR); print(os.tcgetpgrp(t) == os.getpgrp(), os.isatty(0)); input()"
    )
    spec = desk.ground.python(script, backend=ExecutionMode.TMUX, stop=QUICK)
    async with desk.opened(spec) as session:
        assert b"True True" in await wrote(session, b"\n")
        await session.press("C-c")
        status = await ended(session)
        assert status in (ExitStatus(code=1), ExitStatus(signal=signal.SIGINT), ExitStatus(code=130))


async def test_environment_is_explicit(desk: Desk) -> None:
    """A program has the environment it was given and the terminal's name, and nothing of the tmux server's."""
    given = {"PATH": os.environ["PATH"], "HOME": "/", "A": 'x "y" $z\n\t#{pid} ; é \\', "SHELL": "/bin/false"}
    spec = desk.spec("env", "-0")
    spec = attrs.evolve(spec, env={**given, "KASMOS_SESSION_ID": spec.id})
    async with desk.opened(spec) as session:
        await ended(session)
        said = (await everything(session)).replace(b"\r\n", b"\n").decode()
    found = dict(item.split("=", 1) for item in said.split("\0") if item)
    assert found.pop("TERM").startswith(("tmux", "screen"))
    found.pop("PWD", None)
    assert found == dict(spec.env)


async def test_nobody_leaves_its_group_by_hiding(desk: Desk) -> None:
    """A session in tmux has a control group too, where there are any: a descendant that hides otherwise is found."""
    place = find_cgroups(desk.state.parent)
    if isinstance(place, NoCgroups):
        pytest.skip(f"needs a control group (v2) that may be divided: {place.reason}")
    spec = desk.spec("/usr/bin/env", "python3", "-c", HIDE, "/bin/sleep")
    async with desk.opened(spec, with_cgroups=CgroupUse.ALWAYS) as session:
        assert await ended(session) == ExitStatus(code=0)
        pid = int((await everything(session)).split()[0])
        assert not alive(pid)
    assert [one.reason for event in desk.ground.told(LeftoversFound) for one in event.leftovers if one.pid == pid] == [
        "known by cgroup"
    ]


def test_a_server_elsewhere(tmp_path: Path) -> None:
    """Only sessions of a tmux server in our own control group get groups: one in a scope is to outlive our unit."""
    for who, group in {"self": "/unit", "7": "/unit", "8": "/scope"}.items():
        (tmp_path / who).mkdir()
        (tmp_path / who / "cgroup").write_text(f"4:memory:/x\n0::{group}\n")
    assert cgroups.is_beside_us(7, str(tmp_path))
    assert not cgroups.is_beside_us(8, str(tmp_path))
    assert not cgroups.is_beside_us(9, str(tmp_path))


async def test_stopped_program_is_seen_and_continued(desk: Desk) -> None:
    """A program that stops itself is seen as stopped, and goes on when it is told to."""
    async with desk.opened(desk.sh("echo ready; kill -STOP $$; echo on again; exit 2")) as session:
        await wrote(session, b"ready")
        await until(lambda: session.stopped)
        assert session.exit is None
        await session.signal(signal.SIGCONT)
        assert await ended(session) == ExitStatus(code=2)
        assert b"on again" in await everything(session)


async def test_odd_screens(desk: Desk) -> None:
    """Wide characters, a line of ten thousand columns and the alternate screen come through log and screen alike."""
    long = "x" * 10_000
    script = (
        f"printf '日本語\\n'; printf '%s\\n' {long}; printf '\\033]2;a | title\\007\\033[?1049hfull screen'; read x"
    )
    async with desk.opened(desk.sh(script)) as session:
        log = await wrote(session, b"full screen")
        assert "日本語\r\n".encode() in log
        assert long.encode() in log
        await shown(session, "full screen")
        picture = await session.look()
        assert (picture.title, picture.alternate, picture.width, picture.height) == ("a | title", True, 200, 50)
        assert picture.cursor_x == len("full screen")


# --- typing and looking --------------------------------------------------------------

ODD = (
    "two\nlines\twith tab \x01\x1b control, é 日本, a quote ' \" $HOME `id` #{pid} %d \\\nand a backslash at the end \\"
)


@pytest.mark.parametrize("text", [ODD, "0123456789abcdef\n" * 62_000], ids=["odd", "megabyte"])
async def test_paste_is_exact(desk: Desk, text: str) -> None:
    """A text is pasted byte for byte, however odd, up to a megabyte."""
    async with desk.opened(desk.spec(PROGRAMS / "pasted")) as session:
        await wrote(session, b"ready")
        await session.paste(text)
        assert await ended(session) == ExitStatus(code=0)
        data = text.encode()
        assert f"{len(data)} {hashlib.sha256(data).hexdigest()}".encode() in await everything(session)


async def test_state_root_that_tmux_would_expand(desk: Desk) -> None:
    """A state root may have any name, also one that means something to tmux."""
    desk.name = "odd #S #{pid} %H"
    async with desk.opened(desk.spec(PROGRAMS / "pasted")) as session:
        await wrote(session, b"ready")
        await session.paste("words")
        assert await ended(session) == ExitStatus(code=0)
        assert hashlib.sha256(b"words").hexdigest().encode() in await everything(session)


async def test_what_was_typed_and_not_read(desk: Desk) -> None:
    """A picture says how much of what was typed its program has not read yet."""
    script = (
        "import tty, sys; tty.setraw(0); print('ready', flush=True); sys.stdin.read(1); sys.stdin.buffer.raw.read(9)"
    )
    spec = desk.ground.python(f"{script}; import signal; signal.pause()", backend=ExecutionMode.TMUX, stop=QUICK)
    async with desk.opened(spec) as session:
        await wrote(session, b"ready")
        os.kill(session.pid or 0, signal.SIGSTOP)
        # Not before it stands still: a read that is being interrupted still takes what comes.
        await until(lambda: Path(f"/proc/{session.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        await session.send_keys("abc")
        await until(lambda: unread_bytes(session.pid or 0) == 3)
        assert session.output_now() == session.output_bytes
        assert (await session.look()).unread == 3
        os.kill(session.pid or 0, signal.SIGCONT)
        await until(lambda: unread_bytes(session.pid or 0) == 0)


async def test_paste_that_would_end_itself(desk: Desk) -> None:
    """A text that would end its own paste is refused, and nothing of it is typed."""
    async with desk.opened(desk.sh("cat")) as session:
        with pytest.raises(SessionError, match="201"):
            await session.paste("before \x1b[201~ after")
        await session.send_keys("typed")
        assert "before" not in await shown(session, "typed")


async def test_size_is_pinned(desk: Desk) -> None:
    """A small terminal that attaches does not change an agent's size; `set_detached_size` does."""
    async with desk.opened(desk.sh("echo ready; exec cat")) as session:
        await wrote(session, b"ready")
        with person(session, "60x20"):
            with trio.fail_after(LIMIT):
                while not (clients := await session.clients()):  # noqa: ASYNC110  # nobody tells who attaches
                    await trio.sleep(0.02)
            assert (clients[0].width, clients[0].read_only) == (60, False)
            picture = await session.look()
            assert (picture.width, picture.height) == (200, 50)
        await session.set_detached_size(90, 30)
        picture = await session.look()
        assert (picture.width, picture.height) == (90, 30)


@contextlib.contextmanager
def person(session: TmuxSession, size: str) -> Iterator[None]:
    """A person at a real terminal of this size, who attaches: another tmux."""
    width, height = size.split("x")
    socket = f"{session.spec.cwd}/person.sock"
    outer = ["tmux", "-S", socket, "-f", "/dev/null"]
    command = ["env", "-u", "TMUX", *session.attach_command()]
    subprocess.run([*outer, "new-session", "-d", "-x", width, "-y", height, *command], check=True)
    try:
        # Without the status line of the outer one.
        subprocess.run([*outer, "set", "-g", "status", "off"], check=True)
        yield
    finally:
        subprocess.run([*outer, "kill-server"], check=True)


async def test_change_is_told(desk: Desk) -> None:
    """Whoever waits for a change of the screen is woken by output, and by the end."""
    async with desk.opened(desk.sh("read x; echo more; read x")) as session:
        seen = session.output_bytes
        woken: list[int] = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                woken.append(await session.wait_changed(seen))

            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            assert woken == []
            await session.tap_enter()
        assert woken[0] > seen
        await shown(session, "more")


# --- under systemd -------------------------------------------------------------------


def systemd_run(desk: Desk, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """As if systemd had started us, with these lines of shell as its `systemd-run`."""
    monkeypatch.setattr(tmux, "_has_manager", lambda: True)
    monkeypatch.setenv("INVOCATION_ID", "x")
    place = desk.ground.root / "bin"
    place.mkdir()
    (place / "systemd-run").write_text("\n".join(["#!/bin/sh", *lines, ""]))
    (place / "systemd-run").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")


async def test_systemd_gives_no_scope(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd has started us and gives no scope, the server starts without one, and that is said once."""
    systemd_run(desk, monkeypatch, "echo 'Failed to connect to bus: No medium found' >&2", "exit 1")
    async with desk.backend() as backend:
        for _ in range(2):
            async with backend.open(desk.sh("echo hello"), notify=desk.ground.notify) as session:
                assert await ended(session) == ExitStatus(code=0)
    (said,) = [text for text in desk.ground.warnings if "scope" in text]
    assert "Failed to connect to bus: No medium found" in said
    assert "KillMode=process" in said


async def test_systemd_gives_a_scope(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd has started us, the server is started by what `systemd-run` is told to run, and by nothing else."""
    told = desk.ground.root / "told"
    lines = (f'echo "$*" >>{told}', 'while [ "$1" != -- ]; do shift; done', "shift", 'exec "$@"')
    systemd_run(desk, monkeypatch, *lines)
    async with desk.opened(desk.sh("echo hello")) as session:
        assert await ended(session) == ExitStatus(code=0)
    (line,) = told.read_text().splitlines()
    assert " --scope " in line
    assert " new-session " in line
    assert desk.ground.warnings == []


# --- without tmux --------------------------------------------------------------------


async def test_without_tmux(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tmux, or with one that is too old, the backend says how to install it, and nothing else is hurt."""
    monkeypatch.setenv("PATH", "/nowhere")
    async with desk.backend() as backend:
        with pytest.raises(BackendUnavailableError, match="apt-get install tmux"):
            async with backend.open(desk.sh("true"), notify=desk.ground.notify):
                pytest.fail("there is no tmux")
    old = desk.ground.root / "bin"
    old.mkdir()
    (old / "tmux").write_text("#!/bin/sh\necho tmux 3.1c\n")
    (old / "tmux").chmod(0o755)
    monkeypatch.setenv("PATH", f"{old}:/bin:/usr/bin")
    async with desk.backend() as backend:
        with pytest.raises(BackendUnavailableError, match=r"3\.1c.*too old"):
            async with backend.open(desk.sh("true"), notify=desk.ground.notify):
                pytest.fail("this tmux is too old")
