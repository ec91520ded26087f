"""What belongs to a session ends with it, and nothing else is ever touched."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest
import trio

from kasmos.exceptions import SessionStartError
from kasmos.model.event import KillSent, LeftoversFound, SessionUnkillable
from kasmos.model.profile import LeftoverPolicy, Leftovers, OutputMode, StopPolicy
from kasmos.model.session import ExitStatus, Leftover, SessionSpec
from kasmos.sessions import launch
from kasmos.sessions.environment import child_environment
from kasmos.sessions.hold import Hold
from kasmos.sessions.process_table import scan
from kasmos.sessions.processes import ProcessId, read_entry
from kasmos.sessions.protocol import ExecutionSession
from kasmos.sessions.script import Script
from kasmos.sessions.scripted import ScriptedBackend
from kasmos.supervision.termination import terminate
from tests.faults.conftest import BOOT, LIMIT, PROGRAMS, Gate, Ground, alive, ended, everything, kill, until, wrote

both_outputs = pytest.mark.parametrize("output", list(OutputMode))
STOP, REPORT = Leftovers(), Leftovers(LeftoverPolicy.REPORT)


async def pid_told(session: ExecutionSession) -> int:
    """The pid that a program writes as its first line."""
    return int((await session.read(0)).data.split()[0])


def found(ground: Ground) -> dict[int, Leftover]:
    """Every leftover that was told, by its pid; each is told once."""
    told = [leftover for event in ground.told(LeftoversFound) for leftover in event.leftovers]
    assert len({leftover.pid for leftover in told}) == len(told)
    return {leftover.pid: leftover for leftover in told}


# --- leftovers ------------------------------------------------------------------------


@both_outputs
@pytest.mark.parametrize(
    ("program", "known_by"), [("forker", "session"), ("setsid_forker", "marker"), ("python_forker", "marker")]
)
async def test_leftover_is_stopped(ground: Ground, output: OutputMode, program: str, known_by: str) -> None:
    """A child that outlives its program is stopped and told, wherever it hides; the end is exact and not delayed."""
    async with ground.opened(ground.spec(PROGRAMS / program, output=output)) as session:
        with trio.fail_after(LIMIT / 2):
            assert await session.wait() == ExitStatus(code=0)
        pid = await pid_told(session)
        assert not alive(pid)
        told = found(ground)[pid]
        assert (told.action, told.reason) == ("stopped", f"known by {known_by}")


@pytest.mark.parametrize("times", [2, 100])
async def test_leftover_that_forks_and_ends_again_and_again(ground: Ground, times: int) -> None:
    """A child that moves on by forks, as daemons do, each time in a new kernel session, is stopped where it settles."""
    script = (
        "import os\n"
        f"for _ in range({times}):\n"
        "    if os.fork():\n"
        "        os._exit(0)\n"
        "    os.setsid()\n"
        "    os.closerange(0, 256)\n"
        "os.execv('/bin/sleep', ['sleep', '1000'])"
    )
    for _ in range(5):
        async with ground.opened(ground.python(script)) as session:
            assert await ended(session) == ExitStatus(code=0)
            assert ground.left(session.spec) == []


@both_outputs
@pytest.mark.parametrize("program", ["forker", "setsid_forker", "python_forker"])
async def test_leftover_is_reported(ground: Ground, output: OutputMode, program: str) -> None:
    """Where leftovers are only reported, a child that outlives its program lives on, and delays no end."""
    async with ground.opened(ground.spec(PROGRAMS / program, output=output, leftovers=REPORT)) as session:
        assert await ended(session) == ExitStatus(code=0)
        pid = await pid_told(session)
        assert alive(pid)
        assert found(ground)[pid].action == "reported"
    assert alive(pid)
    kill(pid)


async def test_leftover_spared_by_name(ground: Ground) -> None:
    """A program that the profile names is left alone, and only it."""
    become = 'until [ "$(cat /proc/$!/comm)" = tail ]; do :; done'
    script = f"sleep 1000 & echo $!; tail -f /dev/null & echo $!; {become}"
    spec = ground.sh(script, leftovers=Leftovers(spare=("tail",)))
    async with ground.opened(spec) as session:
        await ended(session)
        stopped, spared = map(int, (await everything(session)).split())
    assert (alive(stopped), alive(spared)) == (False, True)
    assert found(ground)[spared].reason == "spared by name"
    kill(spared)


async def test_leftover_that_ignores_sigterm(ground: Ground) -> None:
    """A leftover that ignores SIGTERM is killed."""
    script = "(trap '' TERM; while :; do sleep 0.05; done) & echo $!"
    async with ground.opened(ground.sh(script, stop=StopPolicy(stop_grace=0.2))) as session:
        assert await ended(session) == ExitStatus(code=0)
        assert not alive(await pid_told(session))


async def test_leftover_without_any_mark(ground: Ground) -> None:
    """A child in a session of its own that threw its environment away is found by the descriptor it kept."""
    script = (
        "import os, subprocess\n"
        "fds = {fd: f'/proc/self/fd/{fd}' for fd in range(3, 100)}\n"
        "lease = [fd for fd, path in fds.items() if os.path.exists(path) and os.readlink(path).endswith('/lease')]\n"
        "child = subprocess.Popen(['/bin/sleep', '1000'], env={}, start_new_session=True, pass_fds=lease)\n"
        "print(child.pid, flush=True)\n"
        "os._exit(0)"
    )
    async with ground.opened(ground.python(script)) as session:
        assert await ended(session) == ExitStatus(code=0)
        pid = await pid_told(session)
        assert not alive(pid)
        assert found(ground)[pid].reason == "known by lease"


@both_outputs
async def test_leftover_that_never_stops_writing(ground: Ground, output: OutputMode) -> None:
    """A spared child that writes for ever cannot keep the session from ending, and is not cut off."""
    log = ground.root / "after"
    script = f"(while sleep 0.3; echo more; do :; done; echo $? >{log}) & echo $!"
    async with ground.opened(ground.sh(script, output=output, leftovers=REPORT)) as session:
        with trio.fail_after(LIMIT):
            assert await session.wait() == ExitStatus(code=0)
        pid = await pid_told(session)
    size = ground.directory(session.spec).joinpath("output.log").stat().st_size
    await until(lambda: ground.directory(session.spec).joinpath("output.log").stat().st_size > size)
    kill(pid)
    assert not log.exists()


async def test_many_levels_of_children_are_killed(ground: Ground) -> None:
    """A program that forks faster than it can be killed is killed, and so is everything it forked."""
    script = 'trap "" TERM; f() { while :; do (f) & sleep 0.02; done; }; echo ready; g() { sleep 0.01 & g; }; g'
    async with ground.opened(ground.sh(script, stop=StopPolicy(stop_grace=0.1))) as session:
        await wrote(session, b"ready\n")
    assert ground.left(session.spec) == []
    assert ground.told(SessionUnkillable) == []


@both_outputs
async def test_cat_is_a_program_like_any_other(ground: Ground, output: OutputMode) -> None:
    """A program that goes by the name of the copier's own tool is stopped like any other, and so is its child."""
    script = "trap '' TERM; cat /dev/zero | cat >/dev/null & echo ready; exec cat /dev/zero >/dev/null"
    async with ground.opened(ground.sh(script, output=output, stop=StopPolicy(stop_grace=0.1))) as session:
        await wrote(session, b"ready\n")
    assert session.exit == ExitStatus(signal=9)
    assert ground.left(session.spec) == []


async def test_copier_killed(ground: Ground, gate: Gate) -> None:
    """A copier that is killed costs its program the output and, if it goes on writing, its life; not the status."""
    async with ground.opened(ground.sh(f"{gate.wait}; echo lost; exit 3", output=OutputMode.PIPE)) as session:
        copier = ground.records(session.spec).copier()
        assert copier is not None
        await until(lambda: any((entry.ppid, entry.comm) == (copier.id.pid, "cat") for entry in scan()))
        await until(lambda: any(entry.ppid == copier.id.pid for entry in scan()))
        copiers = [entry.id.pid for entry in scan() if copier.id.pid in (entry.id.pid, entry.ppid)]
        kill(*copiers)
        await until(lambda: not any(map(alive, copiers)))
        gate.open()
        assert await ended(session) == ExitStatus(signal=signal.SIGPIPE)


# --- who is none of ours ----------------------------------------------------------------


async def test_ssh_agent_is_left_alone(ground: Ground) -> None:
    """An ssh-agent that an agent started is the user's from then on: reported, and never killed."""
    async with ground.opened(ground.sh("ssh-agent -a ./agent.sock >env; . ./env; exec sleep 1000")) as session:
        await until(lambda: any(entry.comm == "ssh-agent" for entry in ground.left(session.spec)))
        await until(lambda: [e.comm for e in ground.left(session.spec) if e.id.pid == session.pid] == ["sleep"])
    [agent] = ground.left(session.spec)
    assert agent.comm == "ssh-agent"
    assert found(ground)[agent.id.pid].reason == "belongs to the user's ssh-agent"
    kill(agent.id.pid)


async def test_tmux_server_is_left_alone(ground: Ground) -> None:
    """A tmux server that an agent started is left alone with all that runs in its panes."""
    script = "tmux -S ./tmux.sock -f /dev/null new-session -d 'echo $$ >pane; exec sleep 1000'; exit 3"
    async with ground.opened(ground.sh(script)) as session:
        assert await ended(session) == ExitStatus(code=3)
        told = found(ground)
    await until(lambda: (ground.root / "pane").exists() and (ground.root / "pane").read_text().strip())
    names = {leftover.name for leftover in told.values()}
    assert "tmux: server" in names
    assert {leftover.action for leftover in told.values()} == {"reported"}
    assert alive(int((ground.root / "pane").read_text()))
    await trio.run_process(["tmux", "-S", str(ground.root / "tmux.sock"), "kill-server"])


@contextmanager
def old_daemon(ground: Ground) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon of the user that is older than any session; it listens on `requests`."""
    for name in ("requests", "answers"):
        os.mkfifo(ground.root / name)
    with subprocess.Popen(
        [PROGRAMS / "old_daemon", ground.root / "requests", ground.root / "answers"], env=dict(os.environ)
    ) as daemon:
        try:
            yield daemon
        finally:
            daemon.kill()


async def test_daemon_that_was_there_before(ground: Ground) -> None:
    """What a daemon of the user does on an agent's behalf is the daemon's: reported, and never killed."""
    with old_daemon(ground) as daemon:
        async with ground.opened(ground.sh("echo $KASMOS_SESSION_ID >requests; cat answers; exit 0")) as session:
            assert await ended(session) == ExitStatus(code=0)
            pid = await pid_told(session)
        assert alive(pid)
        assert daemon.poll() is None
        why = found(ground)[pid]
        assert (why.action, why.name) == ("reported", "sleep")
        assert f"(pid {daemon.pid}), which is not of this session" in why.reason
        kill(pid)


async def test_two_sessions_do_not_stop_each_other(ground: Ground) -> None:
    """What one session leaves behind is swept without touching a session that runs beside it."""
    async with ground.backend() as backend:
        spec = ground.sh("setsid sleep 1000 & sleep 1000 & echo ready; wait")
        async with backend.open(spec, notify=ground.notify) as other:
            await wrote(other, b"ready\n")
            before = {entry.id for entry in ground.left(spec)}
            async with backend.open(ground.spec(PROGRAMS / "setsid_forker"), notify=ground.notify) as session:
                await ended(session)
            assert {entry.id for entry in ground.left(spec)} >= before
            assert other.exit is None


# --- starting ---------------------------------------------------------------------------


def doormen(directory: Path, spec: SessionSpec, count: int) -> list[int]:
    """Start this many doormen for one directory at once, as nobody would; how they ended."""
    launch.prepare(str(directory), spec, BOOT)
    command = launch.doorman_command(str(directory), spec, 1024)
    with ExitStack() as stack, open(directory / "output.log", "ab") as log, open(directory / "shim.log", "ab") as said:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=said, env=dict(spec.env),
                    cwd=directory, start_new_session=True,
                )
            )
            for _ in range(count)
        ]  # fmt: skip
        return [doorman.wait() for doorman in started]


@both_outputs
async def test_forty_shims_for_one_directory(ground: Ground, output: OutputMode) -> None:
    """However many shims are started for a directory, the program runs once."""
    spec = ground.sh("echo $$ >>ran; exit 11", output=output)
    codes = await trio.to_thread.run_sync(doormen, ground.directory(spec), spec, 40)
    assert len((ground.root / "ran").read_text().split()) == 1
    assert sorted(codes) == sorted([125] * 39 + [11 if output is OutputMode.FILE else 0])
    assert await ground.adopt_end(spec) == ExitStatus(code=11)


async def test_start_while_another_one_starts(ground: Ground) -> None:
    """Two starts of one session at the same time: one runs, the other is refused and takes nothing away from it."""
    spec = ground.sh("echo $$ >>ran; exit 12")
    found: list[ExitStatus | str] = []
    async with ground.backend() as backend, trio.open_nursery() as nursery:

        async def run() -> None:
            try:
                async with backend.open(spec, notify=ground.notify) as session:
                    found.append(await ended(session))
            except SessionStartError as error:
                found.append(str(error))

        for _ in range(8):
            nursery.start_soon(run)
    assert found.count(ExitStatus(code=12)) == 1
    assert all("File exists" in reason for reason in found if isinstance(reason, str))
    assert len((ground.root / "ran").read_text().split()) == 1


@both_outputs
async def test_start_cancelled_at_every_step(ground: Ground, output: OutputMode) -> None:
    """A start that is cancelled, at whichever step, leaves no process, no directory, and has run nothing."""
    async with ground.backend() as backend:
        steps = 0
        while True:
            steps += 1
            spec = ground.sh("echo $$ >>ran; exec sleep 1000", output=output)
            with CancelAtStep(steps) as scope:
                async with backend.open(spec, notify=ground.notify) as session:
                    session.detach()
            if not scope.cancelled_caught:
                break
            assert ground.left(spec) == [], f"cancelled at step {steps}"
            assert not ground.directory(spec).exists(), f"cancelled at step {steps}"
            assert not (ground.root / "ran").exists(), f"cancelled at step {steps}"
        assert steps > 3
        async with ground.adopted(spec, claim_grace=LIMIT):
            pass


class CancelAtStep(trio.abc.Instrument):
    """A cancel scope that is cancelled while the task that entered it waits for the n-th time."""

    def __init__(self, step: int) -> None:
        self._left = step
        self._scope = trio.CancelScope()

    def __enter__(self) -> trio.CancelScope:
        self._task = trio.lowlevel.current_task()
        trio.lowlevel.add_instrument(self)
        return self._scope.__enter__()

    def __exit__(self, *exc: object) -> bool | None:
        trio.lowlevel.remove_instrument(self)
        return self._scope.__exit__(*exc)  # type: ignore[arg-type]

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


@pytest.mark.parametrize("delay", [0.0005 * step for step in range(1, 25)])
async def test_start_cancelled_at_any_time(ground: Ground, delay: float) -> None:
    """A start that is cancelled after so many microseconds leaves nothing, or has begun and is ended."""
    spec = ground.sh("exec sleep 1000", output=OutputMode.PIPE)
    async with ground.backend() as backend:
        with trio.move_on_after(delay):
            async with backend.open(spec, notify=ground.notify):
                await trio.sleep_forever()
        assert ground.left(spec) == []


async def test_everything_cancelled_from_outside(ground: Ground) -> None:
    """When all of a supervisor is cancelled at once, its sessions are still asked politely and their ends are known."""
    spec = ground.sh("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done")
    with trio.CancelScope() as scope:
        async with ground.opened(spec) as session:
            await wrote(session, b"ready\n")
            scope.cancel()
            await trio.sleep_forever()
    assert session.exit == ExitStatus(code=5)
    assert ground.output(spec).endswith(b"bye\n")
    assert ground.told(KillSent) == []


async def test_adoption_cancelled(ground: Ground) -> None:
    """An adoption that is cancelled does nothing to the session, which the next supervisor adopts."""
    spec = ground.sh("echo ready; exec sleep 1000")
    pid = await ground.detached(spec)
    for step in range(1, 6):
        with CancelAtStep(step):
            async with ground.adopted(spec) as session:
                session.detach()
        assert alive(pid)
    assert ground.events == []
    async with ground.adopted(spec) as session:
        assert session.pid == pid


async def test_stop_that_cannot_be_made_durable(ground: Ground) -> None:
    """Where a stop cannot be made durable nothing is signalled, and the program can still be adopted."""
    spec = ground.sh("echo ready; exec sleep 1000")

    async def notify(event: object) -> None:
        raise OSError("the journal is gone")

    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="the journal is gone"), flatten_subgroups=True):
        async with ground.backend() as backend, backend.open(spec, notify=notify) as session:
            pass
    assert session.pid is not None
    assert alive(session.pid)
    async with ground.adopted(spec):
        pass
    assert not alive(session.pid)


async def test_fork_fails(ground: Ground) -> None:
    """Where the kernel has no process left to give, a start fails with its reason, and nothing of it is left."""
    script = f"""
import resource, sys, trio
from pathlib import Path
from kasmos.exceptions import SessionStartError
from kasmos.model.session import SessionSpec
from kasmos.sessions.headless import open_headless
from kasmos.supervision.termination import terminate

async def main():
    root = Path(sys.argv[1])
    async def notify(event): raise AssertionError(event)
    async with open_headless(root, terminate=terminate) as backend:
        await trio.to_thread.run_sync(lambda: None)
        for room in range(4):
            resource.setrlimit(resource.RLIMIT_NPROC, (used() + room, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
            spec = SessionSpec(id=f"s{{room}}", name="s", argv=("/bin/true",), cwd="/", env={{"PATH": "/bin:/usr/bin"}})
            try:
                async with backend.open(spec, notify=notify) as session:
                    print("ran", (await session.wait()).code)
            except SessionStartError as error:
                print(error)
                assert not (root / "sessions" / spec.id).exists()
{LIMITED}
trio.run(main)
"""
    done = await trio.to_thread.run_sync(run_as_nobody, ground, script)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    # From no process at all to as many as it takes but one: the doorman, then the shim, then the program.
    assert first == "cannot start s: Resource temporarily unavailable"
    assert [line for line in others if line.startswith("cannot start s: ") and "fork" in line]
    assert all(line.startswith("cannot start s: ") or line == "ran 0" for line in others)


LIMITED = """
def used():
    import os
    uid, threads = os.getuid(), 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            lines = open(f"/proc/{name}/status").read().splitlines()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in lines)
        if int(fields["Uid"].split()[0]) == uid:
            threads += int(fields["Threads"])
    return threads
"""


def run_as_nobody(ground: Ground, script: str) -> subprocess.CompletedProcess[str]:
    """Run a program under a user whose processes are counted; root's are not."""
    if os.getuid() != 0:
        pytest.skip("only root can become a user that has no other processes")
    # Not one that somebody else is at the same time.
    nobody = 20_000 + os.getpid() % 40_000
    os.chown(ground.root, nobody, nobody)
    os.chmod(ground.root, 0o755)
    return subprocess.run(
        [
            "setpriv",
            f"--reuid={nobody}",
            f"--regid={nobody}",
            "--clear-groups",
            sys.executable,
            "-c",
            script,
            ground.root,
        ],
        capture_output=True,
        text=True,
        timeout=3 * LIMIT,
        env={**os.environ, "HOME": str(ground.root), "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_start_refused_by_the_kernel(ground: Ground) -> None:
    """A failure of the operating system while a session is spawned fails that start alone; the next one runs."""
    script = """
import sys, trio
from pathlib import Path
from kasmos.exceptions import SessionStartError
from kasmos.model.session import SessionSpec
from kasmos.sessions.headless import open_headless
from kasmos.supervision.termination import terminate

async def main():
    root = Path(sys.argv[1])
    async def notify(event): raise AssertionError(event)
    async with open_headless(root, terminate=terminate) as backend:
        for point in sys.argv[2:]:
            spec = SessionSpec(id=point, name="s", argv=("/bin/sh", "-c", "echo >>ran"), cwd=str(root))
            try:
                async with backend.open(spec, notify=notify): raise AssertionError("started")
            except SessionStartError as error:
                print(error)
            assert list((root / "sessions").iterdir()) == []
        spec = SessionSpec(id="after", name="s", argv=("/bin/true",), cwd="/", env={"PATH": "/bin:/usr/bin"})
        async with backend.open(spec, notify=notify) as session:
            assert (await session.wait()).code == 0
    assert not (root / "ran").exists()
trio.run(main)
"""
    points = ["session.prepared", "session.spawning", "session.spawned", "session.proven"]
    env = {**os.environ, "KASMOS_FAILPOINTS": ",".join(f"{point}=error" for point in points)}
    done = subprocess.run(
        [sys.executable, "-c", script, ground.root, *points], capture_output=True, text=True, timeout=LIMIT, env=env
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"cannot start s: failpoint {point}" for point in points]


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Leave this process without a single free descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken[0], *map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    try:
        while True:
            try:
                taken.append(os.dup(taken[0]))
            except OSError:
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


async def test_no_descriptor_to_start_with(ground: Ground) -> None:
    """Without a free descriptor a start is refused with the reason, and nothing of it is left."""
    async with ground.backend() as backend:
        spec = ground.spec("true")
        with no_descriptors(), pytest.raises(SessionStartError, match="Too many open files"):
            async with backend.open(spec, notify=ground.notify):
                pytest.fail("started")
        assert not ground.directory(spec).exists()
        async with backend.open(spec, notify=ground.notify) as session:
            assert await ended(session) == ExitStatus(code=0)


async def test_no_descriptor_at_the_end(ground: Ground) -> None:
    """An end that comes while there is no free descriptor is told nevertheless, and exactly: a few were kept back."""
    spec = ground.sh("setsid sleep 1000 & echo $!; exec sleep 1000", stop=StopPolicy(kill_grace=0.3))
    async with ground.opened(spec) as session:
        await until(lambda: [entry.comm for entry in ground.left(session.spec)].count("sleep") == 2)
        hidden = await pid_told(session)
        with no_descriptors():
            with trio.fail_after(LIMIT):
                await session.kill()
            assert await ended(session) == ExitStatus(signal=9)
        assert not alive(hidden)
    assert any("Too many open files" in warning for warning in ground.warnings)


@both_outputs
async def test_no_descriptor_for_the_proof(ground: Ground, output: OutputMode, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose start is given up at the gate does not run, although nobody could be found to be killed."""
    without = ExitStack()
    proof = Hold.take_records

    def fail(hold: Hold) -> None:
        # The program waits at the gate by now.
        without.enter_context(no_descriptors())
        hold.services.reserve.close()
        without.enter_context(no_descriptors())
        proof(hold)

    spec = ground.sh("echo >ran; exec sleep 1000", output=output, stop=StopPolicy(kill_grace=0.2))
    async with ground.backend() as backend:
        monkeypatch.setattr(Hold, "take_records", fail)
        with without, pytest.raises(SessionStartError, match="Too many open files"):
            async with backend.open(spec, notify=ground.notify):
                pytest.fail("started")
        await until(lambda: not ground.left(spec))
    assert not (ground.root / "ran").exists()


async def test_no_thread(ground: Ground) -> None:
    """Where the kernel gives no thread, starts fail with their reason, sessions that run go on and end as ever."""
    script = f"""
import resource, sys, trio
from pathlib import Path
from kasmos.exceptions import SessionStartError
from kasmos.model.session import SessionSpec
from kasmos.sessions import births, scanner
from kasmos.sessions.headless import open_headless
from kasmos.supervision.termination import terminate

births.YOUNG = -1.0  # nothing is certain without a look,
scanner.FEW = -1  # every look wants a thread,
trio._core._thread_cache.IDLE_TIMEOUT = 0.1  # and there is none left over from an earlier use

async def main():
    root = Path(sys.argv[1])
    async def notify(event): raise AssertionError(event)
    async with open_headless(root, terminate=terminate, warn=print) as backend:
        spec = SessionSpec(
            id="s", name="s", argv=("/bin/sh", "-c", "read -r x <gate; exit 4"), cwd=str(root),
            env={{"PATH": "/bin:/usr/bin"}},
        )
        async with backend.open(spec, notify=notify) as session:
            with trio.fail_after(50):
                while used() > 4:  # idle threads end by themselves
                    await trio.sleep(0.1)
            soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
            resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
            try:
                async with backend.open(spec, notify=notify): raise AssertionError("started")
            except SessionStartError as error:
                print(error)
            (root / "gate").write_text("\\n")
            with trio.fail_after(50):
                print("ended", (await session.wait()).code)
{LIMITED}
trio.run(main)
"""
    os.mkfifo(ground.root / "gate")
    os.chmod(ground.root / "gate", 0o666)
    done = await trio.to_thread.run_sync(run_as_nobody, ground, script)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("cannot start s: no thread to be had")
    assert lines[-1] == "ended 4"
    assert any("the process table cannot be read (no thread" in line for line in lines)


# --- identity ---------------------------------------------------------------------------


async def test_unkillable_is_reported(ground: Ground) -> None:
    """What survives SIGKILL is reported as unkillable, within a bound; leaving its scope waits no longer."""
    script = Script(unkillable=True, ignores_terminate_for=float("inf"), duration=float("inf"))
    backend = ScriptedBackend(lambda spec: script, terminate=terminate)
    spec = attrs.evolve(ground.spec("stuck"), stop=StopPolicy(stop_grace=0.05, kill_grace=0.1))
    with trio.fail_after(LIMIT):
        async with backend.open(spec, notify=ground.notify) as session:
            pass
    assert session.exit is None
    assert [event.session_id for event in ground.told(SessionUnkillable)] == [spec.id]


def test_process_of_another_start_time_is_not_proven() -> None:
    """A pid whose start time is another one is another process: it is not even opened."""
    from kasmos.sessions.processes import open_proven

    own = read_entry(os.getpid())
    assert own is not None
    assert open_proven(ProcessId(own.id.pid, own.id.start - 1)) is None
    fd = open_proven(own.id)
    assert fd is not None
    os.close(fd)


# --- nested supervisors -----------------------------------------------------------------


def environment_of(spec: SessionSpec, outer: Mapping[str, str]) -> dict[str, str]:
    """The environment of a session of a supervisor that has the environment *outer* itself."""
    return child_environment(outer, env_pass=(), env={}, own={"KASMOS_SESSION_ID": spec.id})


async def test_nested_supervisor_is_part_of_the_outer_session(ground: Ground, tmp_path: Path) -> None:
    """When an agent that is itself a supervisor is killed, the sessions it started end with it, however deep."""
    outer = ground.spec("sleep", "1000")
    outer_env = environment_of(outer, os.environ)
    middle = attrs.evolve(outer, id=outer.id + "-in")
    inner = attrs.evolve(outer, id=middle.id + "-in")
    middle_env = environment_of(middle, outer_env)
    inner_env = environment_of(inner, middle_env)
    assert inner_env["KASMOS_ANCESTORS"].split(":") == [outer.id, middle.id]
    spec = ground.sh(
        f"env -i PATH=$PATH KASMOS_ANCESTORS={inner_env['KASMOS_ANCESTORS']} KASMOS_SESSION_ID={inner.id} HOME=$HOME"
        " setsid sleep 1000 & echo ready; exec sleep 1000",
        id=outer.id,
        env=outer_env | {"HOME": str(ground.root)},
    )
    async with ground.opened(spec) as session:
        await wrote(session, b"ready\n")
        await until(lambda: len([e for e in ground.left(spec) if e.comm == "sleep"]) == 2)
        assert {e.markers for e in ground.left(spec)} >= {frozenset({outer.id, middle.id, inner.id})}
        await session.kill()
        assert await ended(session) == ExitStatus(signal=signal.SIGKILL)
    assert ground.left(spec) == []
    assert [entry for entry in scan() if inner.id in entry.markers] == []
