"""Signals to the supervisor, signals it was made to ignore, and a terminal or pipe that goes away."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from kasmos.model.task import Outcome
from kasmos.model.view import RunState

from ..conftest import Kas
from .oracle import LIMIT, Running, Scene, Task

SLEEPER = "trap 'note term; exit 1' TERM; note ready; if first; then while :; do sleep 0.05; done; fi; count 2; done_"
"""Works without end the first time, and leaves politely when asked."""
DEAF = "if first; then trap '' TERM; note ready; while :; do sleep 0.05; done; fi; count 2; done_"
"""Works without end the first time, and cannot be asked."""


@pytest.fixture
def scene(kas: Kas) -> Scene:
    return Scene(kas)


def ready(scene: Scene, *running: Running) -> None:
    scene.wait(lambda: scene.lines("ready"), *running)


# --- asked to leave -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=lambda value: str(value),
)
def test_asked_to_leave_once(scene: Scene, signum: signal.Signals, code: int) -> None:
    """One signal stops the programs, puts unfinished tasks back and says how to go on; the same command does."""
    scene.write_plan([Task("count 1; done_"), Task(SLEEPER)], [Task("done_")])
    with scene.start() as running:
        ready(scene, running)
        scene.wait(lambda: scene.lines("done", "1"), running)
        scene.wait(lambda: scene.only_run().tasks["1"].outcome is not None, running)
        running.signal(signum)
        assert running.wait() == code
        assert "stopping; again to stop at once" in running.text()
        assert "the same command" in running.stdout or "kas resume" in running.stdout, running.text()
    assert len(scene.lines("term")) == 1
    run = scene.only_run()
    assert run.state is RunState.INTERRUPTED
    assert [task.outcome for task in run.tasks.values()] == [Outcome.SUCCEEDED, None, None]
    assert scene.run().code == 0
    scene.judge()


def test_asked_to_leave_twice(scene: Scene) -> None:
    """A second signal cuts the grace of programs that do not listen."""
    scene.configure(output="pipe", stop_grace=600)
    scene.write_plan([Task(DEAF)])
    with scene.start() as running:
        ready(scene, running)
        running.signal(signal.SIGINT)
        scene.wait(lambda: "again to stop at once" in running.text(), running)
        running.signal(signal.SIGINT)
        assert running.wait() == 130
    session = next(iter(scene.world().sessions.values()))
    assert session.killed
    assert session.exit is not None
    assert session.exit.signal == signal.SIGKILL
    assert scene.run().code == 0
    scene.judge()


def test_asked_to_leave_three_times(scene: Scene) -> None:
    """A third signal leaves the programs running; the next supervisor adopts them, the same processes."""
    scene.write_plan([Task("trap : TERM; note ready; until_exists go; count 2; done_")] * 2, [Task("done_")])
    with scene.start() as running:
        scene.wait(lambda: len(scene.lines("ready")) == 2, running)
        all_at_once(running, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
        assert running.wait() == 129
        assert "is taken up by the next" in running.text()
    pids = {line.pid for line in scene.lines("start")}
    for pid in pids:
        os.kill(pid, 0)
    with scene.start() as running:
        scene.wait(lambda: "adopted" in running.text() or "taken up" in running.text(), running)
        scene.let("go")
        assert running.wait() == 0
    assert {line.pid for line in scene.lines("done") if line.task in "12"} == pids
    scene.judge()


def all_at_once(running: Running, *signums: signal.Signals) -> None:
    """Send it signals that are all there when it looks."""
    pid = running.process.pid
    running.signal(signal.SIGSTOP)
    running.wait_state("T")
    for signum in signums:
        # To its first thread: of what is sent to a process each thread may take a part, whenever it comes to run.
        assert ctypes.CDLL(None).tgkill(pid, pid, signum) == 0
    running.signal(signal.SIGCONT)


def test_asked_to_leave_three_times_with_time_between(scene: Scene) -> None:
    """A third signal is heeded whenever it comes: nobody is killed who was to be, but had not been by then."""
    scene.configure(stop_grace=600)
    scene.write_plan([Task("trap : TERM; note ready; until_exists go; count 2; done_")] * 2, [Task("done_")])
    with scene.start() as running:
        scene.wait(lambda: len(scene.lines("ready")) == 2, running)
        running.signal(signal.SIGHUP)
        scene.wait(lambda: all(one.stop_reason for one in scene.world().sessions.values()), running)
        # Before a kill it is written down.
        with scene.journal_held():
            running.signal(signal.SIGINT)
            scene.wait(lambda: "again to leave the programs running" in running.text(), running)
            running.signal(signal.SIGTERM)
            scene.wait(lambda: "is taken up by the next" in running.text(), running)
        assert running.wait() == 129
    for line in scene.lines("start"):
        os.kill(line.pid, 0)
    scene.let("go")
    assert scene.run().code == 0
    # Who ended after it had been asked to is run again: nobody can tell that from a polite exit.
    scene.judge(broken="12")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_leave_while_coming_up(scene: Scene, signum: signal.Signals) -> None:
    """A signal at any instant of the start leaves nothing that the same command does not mend, and no traceback."""
    scene.write_plan([Task("count 2 0.01; done_")] * 3)
    for number in range(5):
        with scene.start() as running:
            maps = Path(f"/proc/{running.process.pid}/maps")
            # From when the command line is being read: what comes before is the interpreter's.
            scene.wait(partial(_has_loaded, maps))
            time.sleep(number * 0.06)  # any instant will do
            running.signal(signum)
            assert running.wait() in (0, 128 + signum, -signum), running.text()
    assert scene.run().code == 0
    # Who was asked to leave with its work just done does it again: nobody can tell that from a polite exit.
    scene.judge(next(reversed(scene.world().runs)), broken="123")


def test_asked_to_leave_before_a_fresh_run_begins(scene: Scene) -> None:
    """After a signal no fresh run begins, however long the end of the old one takes; the same command begins it."""
    scene.configure(stop_grace=600)
    scene.write_plan([Task(DEAF)])
    with scene.start() as running:
        ready(scene, running)
        running.kill()
    old = scene.only_run().id
    with scene.start("run", "plan.md", "--fresh") as running:
        scene.wait(lambda: scene.only_run().cancel_reason, running)
        scene.wait(lambda: f"ending run {old} first" in running.text(), running)
        running.signal(signal.SIGINT)
        scene.wait(lambda: "again to stop at once" in running.text(), running)
        running.signal(signal.SIGINT)
        assert running.wait() == 130
        assert "nothing new was begun" in running.text()
        # It was ended, not continued.
        assert "also continuing" not in running.text()
    assert list(scene.world().runs) == [old]
    assert len(scene.lines("start")) == 1
    again = scene.run()
    assert again.code == 0, again.stderr
    assert [run.outcome for run in scene.world().runs.values()] == [Outcome.CANCELLED, Outcome.SUCCEEDED]


def _has_loaded(maps: Path) -> bool:
    try:
        return b"_struct" in maps.read_bytes()
    except OSError:
        return True  # it has ended


@pytest.mark.parametrize("where", ["back-off", "slot", "need"])
def test_asked_to_leave_while_a_task_waits(scene: Scene, where: str) -> None:
    """A supervisor whose tasks wait leaves at once, and they wait no less afterwards."""
    scene.configure(backoff=25)
    match where:
        case "back-off":
            plan = [[Task("if first; then exit 7; fi; count 2; done_", "retries = 1")]]
            arguments: tuple[str, ...] = ()
        case "slot":
            plan, arguments = [[Task(SLEEPER), Task("done_")]], ("--max-concurrent", "1")
        case _:
            plan, arguments = [[Task(SLEEPER)], [Task("done_", "needs = [1]")]], ()
    scene.write_plan(*plan)
    with scene.start("run", "plan.md", *arguments) as running:
        if where == "back-off":
            scene.wait(lambda: "again in" in running.text(), running)
        else:
            ready(scene, running)
        running.signal(signal.SIGINT)
        assert running.wait() == 130
    # It has not waited for what they wait for.
    assert len(scene.lines("start")) == 1
    assert [task.outcome for task in scene.only_run().tasks.values()] == [None] * len(scene.only_run().tasks)
    assert scene.run(*arguments).code == 0
    scene.judge()


# --- made to ignore -----------------------------------------------------------------


def ignoring(*names: str) -> tuple[str, ...]:
    return ("sh", "-c", f"trap '' {' '.join(names)}; exec \"$@\"", "sh")


def test_sigchld_ignored_at_the_start(scene: Scene) -> None:
    """Exit statuses are right even if the parent had SIGCHLD ignored."""
    scene.write_plan([Task("exit 3"), Task("done_"), Task("kill -9 $$"), Task("exit 137")])
    with scene.start(through=ignoring("CHLD")) as running:
        assert running.wait() == 1
    world = scene.world()
    exits = {session.task_id: session.exit for session in world.sessions.values()}
    found = {task: (how.code, how.signal, how.certain) for task, how in exits.items() if how is not None}
    assert found == {"1": (3, None, True), "2": (0, None, True), "3": (None, 9, True), "4": (137, None, True)}


def test_signals_ignored_at_the_start_are_not_inherited(scene: Scene) -> None:
    """Programs get every signal as it should be, whatever was ignored when kasmos was started."""
    scene.write_plan([Task('grep SigIgn /proc/self/status >"$BOOK/ignored"; done_')])
    with scene.start(through=ignoring("INT", "HUP", "QUIT", "TERM", "CHLD", "USR1", "PIPE")) as running:
        assert running.wait() == 0
    mask = int((scene.book / "ignored").read_text().split()[1], 16)
    ignored = {signum for signum in range(1, 32) if mask & 1 << (signum - 1)}
    assert ignored <= {signal.SIGQUIT, signal.SIGUSR1}


def test_nohup(scene: Scene) -> None:
    """Under `nohup` the supervisor stays when the terminal goes; another signal still ends it in order."""
    scene.write_plan([Task(SLEEPER)])
    with scene.start(through=("nohup",)) as running:
        ready(scene, running)
        running.signal(signal.SIGHUP)
        running.signal(signal.SIGHUP)
        running.signal(signal.SIGTERM)
        assert running.wait() == 143
    assert scene.run().code == 0
    scene.judge()


# --- a terminal ---------------------------------------------------------------------


class Terminal:
    """A terminal of its own, read all the time, as a person would."""

    def __init__(self) -> None:
        self._master, self.slave = os.openpty()
        self.before = termios.tcgetattr(self.slave)
        self._screen = bytearray()
        self._hung_up = False
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65_536)
            except OSError:
                return  # nobody has it open any more
            if not data:
                return
            self._screen += data
            if self._hung_up:
                os.close(self._master)
                return

    @property
    def text(self) -> str:
        return self._screen.decode(errors="replace")

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def hang_up(self) -> None:
        """Close it from the side of the person: whoever has it as its terminal gets SIGHUP."""
        # The reader holds it open while it reads, so it is given something to read first.
        self._hung_up = True
        os.write(self._master, b"x")

    def close(self) -> None:
        os.close(self.slave)
        self._thread.join()
        if not self._hung_up:
            os.close(self._master)


@contextmanager
def terminal() -> Iterator[Terminal]:
    one = Terminal()
    try:
        yield one
    finally:
        one.close()


@pytest.mark.parametrize("kind", ["xterm-256color", "dumb"])
def test_ctrl_c_at_a_terminal(scene: Scene, kind: str) -> None:
    """Ctrl-C at the terminal reaches kasmos alone: the programs are asked by kasmos, and the terminal is left well."""
    scene.write_plan([Task(f"trap 'note int; exit 1' INT; {SLEEPER}")])
    with terminal() as tty:
        process = subprocess.Popen(
            ["setsid", "--ctty", *scene.kas.command("run", "plan.md")],
            cwd=scene.kas.cwd, env={**os.environ, "TERM": kind}, stdin=tty.slave, stdout=tty.slave, stderr=tty.slave,
        )  # fmt: skip
        try:
            scene.wait(lambda: scene.lines("ready") or process.poll() is not None)
            assert process.poll() is None, tty.text
            tty.type(b"\x03")
            assert process.wait(LIMIT) == 130, tty.text
            assert termios.tcgetattr(tty.slave) == tty.before
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in tty.text
        hidden, shown = tty.text.rfind("\x1b[?25l"), tty.text.rfind("\x1b[?25h")
        assert shown >= hidden
    assert [line.what for line in scene.ledger] == ["start", "ready", "term"]
    assert scene.run().code == 0
    scene.judge()


def test_terminal_goes_away(scene: Scene) -> None:
    """When its terminal is closed, the supervisor leaves in order, and the same command goes on elsewhere."""
    scene.write_plan([Task(SLEEPER)], [Task("done_")])
    with terminal() as tty:
        process = subprocess.Popen(
            ["setsid", "--ctty", *scene.kas.command("run", "plan.md")],
            cwd=scene.kas.cwd, env=os.environ, stdin=tty.slave, stdout=tty.slave, stderr=tty.slave,
        )  # fmt: skip
        scene.wait(lambda: scene.lines("ready") or process.poll() is not None)
        tty.hang_up()
        try:
            assert process.wait(LIMIT) == 129
        finally:
            process.kill()
            process.wait()
    assert [line.what for line in scene.ledger] == ["start", "ready", "term"]
    assert scene.run().code == 0
    scene.judge()


# --- pipes that go away -------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["plain", "json"])
@pytest.mark.parametrize("code", [0, 1])
def test_reader_of_stdout_goes_away(scene: Scene, arguments: tuple[str, ...], code: int) -> None:
    """`kas run | head -1` completes the run, and its exit status is the run's."""
    scene.write_plan([Task("until_exists go; count 50; done_")] * 2, [Task(f"count 2; done_; exit {code}")])
    with scene.kas.running("run", "plan.md", *arguments) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        process.stderr.close()
        scene.let("go")
        assert process.wait(LIMIT) == code
    assert len(scene.lines("done")) == 3
    assert scene.only_run().outcome == ("failed" if code else "succeeded")


@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full", ">/dev/full 2>/dev/full"])
def test_streams_that_take_nothing(scene: Scene, streams: str) -> None:
    """A run is completed and its exit status is right, whatever its streams are."""
    scene.write_plan([Task("count 3; done_"), Task("done_; exit 1")])
    with scene.start(through=("sh", "-c", f'exec "$@" {streams}', "sh")) as running:
        assert running.wait() == 1
        assert "Exception" not in running.text()
    assert len(scene.lines("done")) == 2
    log = scene.root.session_dir(scene.lines("done", "1")[0].session) / "output.log"
    assert re.fullmatch(r"line 1\nline 2\nline 3\ntotal 3\n", log.read_text())
    assert scene.world().supervisor_pid is None
