"""A project whose programs keep a ledger of what they did, and the oracle that judges it.

Every program writes a line when it begins and one when its work is done, and holds a lock of its task for as long
as any process of it lives. So what happened is known from the programs themselves, whatever kasmos believes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

from kasmos.model import event as ev
from kasmos.model.event import Record
from kasmos.model.view import RunView, World
from kasmos.store.journal import read_records, read_world
from kasmos.store.stateroot import StateRoot, find_state_root

from ..conftest import Kas, Result

LIMIT = 120.0
"""Seconds after which something that has to happen has failed to."""

WORK = r"""# Sourced by every program of these tests.
note() { echo "$1 $KASMOS_TASK $KASMOS_SESSION_ID $$" >>"$BOOK/ledger"; }
exec 9>>"$BOOK/lock.${KASMOS_SESSION_ID%%-*}.$KASMOS_TASK"
# Inherited by every child: it is free when the last process of the attempt has gone.
flock -n 9 || note overlap
# Before it says that it has begun: whoever stops it then has stopped the first.
set -C; { true >"$BOOK/first.$KASMOS_TASK"; } 2>/dev/null; _first=$?; set +C
note start
count() { _n=0; while [ $_n -lt "$1" ]; do _n=$((_n + 1)); echo "line $_n"; ${2:+sleep "$2"}; done; echo "total $_n"; }
first() { return $_first; }
until_exists() { until [ -e "$BOOK/$1" ]; do sleep 0.02; done; }
done_() { note done; }
"""

CONFIG = """
[orchestration]
default_agent = "worker"
{orchestration}

[agents.worker]
program = "sh"
prompt = "script"
output = "{output}"
stop_grace = {stop_grace}

[agents.worker.env]
BOOK = "{book}"

[agents.worker.restart]
backoff = {backoff}
jitter = 0.0

{tables}
"""


@attrs.frozen
class Line:
    """A line of the ledger."""

    what: str
    task: str
    session: str
    pid: int


@attrs.frozen
class Task:
    """A task of a plan that is written by a test."""

    script: str
    settings: str = ""
    title: str = "work"


class Scene:
    """A project of one test, with its ledger, its plan and its state root."""

    limit = LIMIT
    """Seconds that `wait`, and the end of a command, may take."""

    def __init__(self, kas: Kas) -> None:
        self.kas = kas
        self.book = kas.cwd.parent / "book"
        self.book.mkdir()
        (self.book / "work.sh").write_text(WORK)
        self.plan = kas.cwd / "plan.md"
        self.configure()

    # --- making it ---------------------------------------------------------------------

    def configure(
        self,
        *,
        orchestration: str = "",
        tables: str = "",
        output: str = "file",
        stop_grace: float = LIMIT,
        backoff: float = 0.05,
    ) -> None:
        """Write the configuration: with these lines in `[orchestration]`, and these tables at its end.

        Args:
            orchestration: lines.
            tables: whole tables.
            output: of the worker.
            stop_grace: seconds; short only for a test whose programs do not listen.
            backoff: seconds.
        """
        directory = self.kas.cwd / ".kasmos"
        directory.mkdir(exist_ok=True)
        text = CONFIG.format(
            book=self.book,
            orchestration=orchestration,
            tables=tables,
            output=output,
            stop_grace=stop_grace,
            backoff=backoff,
        )
        (directory / "config.toml").write_text(text)

    def write_plan(self, *waves: Iterable[Task], name: str = "plan.md") -> Path:
        """Write a plan of these waves; tasks are numbered through."""
        lines, number = ["# Plan", ""], 0
        for wave_number, wave in enumerate(waves, 1):
            lines += [f"## Wave {wave_number}", ""]
            for task in wave:
                number += 1
                lines += [f"### Task {number}: {task.title}", ""]
                if task.settings:
                    lines += ["```toml kasmos", task.settings, "```", ""]
                lines += ["```sh", '. "$BOOK/work.sh"', task.script, "```", ""]
        path = self.kas.cwd / name
        path.write_text("\n".join(lines))
        return path

    # --- running it --------------------------------------------------------------------

    def run(self, *arguments: str, failpoints: str = "", env: Mapping[str, str] | None = None) -> Result:
        """Run `kas run plan.md` to its end."""
        return self.kas("run", "plan.md", *arguments, env={"KASMOS_FAILPOINTS": failpoints, **(env or {})})

    def start(
        self,
        *arguments: str,
        failpoints: str = "",
        env: Mapping[str, str] | None = None,
        through: tuple[str, ...] = (),
    ) -> Running:
        """Begin `kas run plan.md` (or the verb given), with its output in files.

        Args:
            through: a command that becomes the one it is given: `("sh", "-c", 'trap "" HUP; exec "$@"', "sh")`.
        """
        command = [*through, *self.kas.command(*(arguments or ("run", "plan.md")))]
        return Running(self, command, {"KASMOS_FAILPOINTS": failpoints, **(env or {})})

    # --- looking at it -----------------------------------------------------------------

    @property
    def root(self) -> StateRoot:
        """The state root, wherever this test's environment puts it."""
        return find_state_root(self.kas.cwd, environ=os.environ)

    @property
    def ledger(self) -> list[Line]:
        """What the programs wrote down, in the order in which it happened."""
        try:
            text = (self.book / "ledger").read_text()
        except FileNotFoundError:
            return []
        whole = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [Line(what, task, session, int(pid)) for what, task, session, pid in whole]

    def lines(self, what: str, task: str | None = None) -> list[Line]:
        """The ledger's lines of one kind."""
        return [line for line in self.ledger if line.what == what and task in (None, line.task)]

    def world(self) -> World:
        """The journal as folded."""
        return read_world(self.root.db)

    def records(self) -> list[Record]:
        """The journal."""
        return list(read_records(self.root.db, limit=1_000_000))

    def only_run(self) -> RunView:
        """The one run there is."""
        (run,) = self.world().runs.values()
        return run

    def let(self, name: str) -> None:
        """Let programs go on that wait for this file."""
        (self.book / name).touch()

    def wait(self, holds: Callable[[], object], *beside: Running) -> None:
        """Wait until something holds; fails at once if one of the commands *beside* ends before."""
        deadline = time.monotonic() + self.limit
        while not holds():
            for running in beside:
                assert running.process.poll() is None or holds(), f"kas ended:\n{running.text()}"
            assert time.monotonic() < deadline, "waited in vain\n" + "\n".join(map(str, self.ledger))
            time.sleep(0.01)

    def wait_started(self, task: str, *beside: Running, times: int = 1) -> None:
        """Wait until an attempt of a task has begun."""
        self.wait(lambda: len(self.lines("start", task)) >= times, *beside)

    @contextmanager
    def journal_held(self) -> Iterator[None]:
        """Hold the journal beside whoever writes it: nothing can be written down meanwhile."""
        other = sqlite3.connect(self.root.db, isolation_level=None, timeout=LIMIT)
        try:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
        finally:
            other.close()

    # --- judging it --------------------------------------------------------------------

    def judge(self, run_id: str | None = None, *, broken: Iterable[str] = ()) -> None:
        """The oracle: nothing ran twice at once, nothing succeeded twice, all is over and complete.

        Args:
            run_id: the run that is judged; the only one there is when None.
            broken: tasks that may have been put back after their work was done, or whose log was capped.
        """
        world, records, ledger = self.world(), self.records(), self.ledger
        run = world.runs[run_id] if run_id is not None else self.only_run()
        assert [line for line in ledger if line.what == "overlap"] == []
        assert run.outcome is not None
        assert not any(session.state.live for session in world.sessions.values())
        endings = Counter(
            record.event.task_id
            for record in records
            if isinstance(record.event, ev.TaskEnded) and record.event.run_id == run.id
        )
        assert endings == dict.fromkeys(run.tasks, 1)
        _judge_sessions(records)
        mine = [line for line in ledger if line.session.startswith(f"{run.id}-")]
        assert {line.session for line in mine} <= set(world.sessions)
        for task_id in set(run.tasks) - set(broken):
            _judge_task(world, run, task_id, [line for line in mine if line.task == task_id])
            for line in mine:
                if line.task == task_id and line.what == "done":
                    _judge_log(self.root.session_dir(line.session) / "output.log")


def _judge_sessions(records: Iterable[Record]) -> None:
    """Every session that was begun has one end, and nothing happens to it after that."""
    over: set[str] = set()
    begun: set[str] = set()
    for record in records:
        match record.event:
            case ev.SessionStarting(session_id=session_id):
                assert session_id not in begun
                begun.add(session_id)
            case (
                ev.SessionEnded(session_id=session_id)
                | ev.SessionLost(session_id=session_id)
                | ev.SessionNeverStarted(session_id=session_id)
                | ev.SessionStartFailed(session_id=session_id)
            ):
                assert session_id not in over, f"two ends of {session_id}"
                over.add(session_id)
            case ev.SessionStarted(session_id=session_id) | ev.SessionAdopted(session_id=session_id):
                assert session_id not in over, f"{session_id} began after its end"
    assert begun == over


def _judge_task(world: World, run: RunView, task_id: str, lines: list[Line]) -> None:
    starts = [line.session for line in lines if line.what == "start"]
    done = [index for index, line in enumerate(lines) if line.what == "done"]
    assert len(set(starts)) == len(starts), f"one session of task {task_id} ran twice: {lines}"
    assert len(done) <= 1, f"task {task_id} was done twice: {lines}"
    outcome = run.tasks[task_id].outcome
    if outcome == "succeeded":
        assert done == [len(lines) - 1], f"task {task_id} ran again after it was done, or never did: {lines}"
        status = world.sessions[lines[-1].session].exit
        assert status is not None
        assert status.succeeded


def _judge_log(path: Path) -> None:
    """A program's counted lines are in its log, each once, in order."""
    lines = [line for line in path.read_text().splitlines() if re.match(r"(line|total) \d", line)]
    if lines:
        assert lines == [f"line {n}" for n in range(1, len(lines))] + [f"total {len(lines) - 1}"]


class Running:
    """A `kas` command under way. Its output goes to files, so that nobody need read it."""

    def __init__(self, scene: Scene, command: list[str], env: Mapping[str, str]) -> None:
        self._scene = scene
        self._outputs = [scene.book / f"kas{len(list(scene.book.glob('kas*.out')))}.{end}" for end in ("out", "err")]
        out, err = (path.open("wb") for path in self._outputs)
        with out, err:
            self.process = subprocess.Popen(
                command,
                cwd=scene.kas.cwd,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._outputs[0].read_text()

    @property
    def stderr(self) -> str:
        """What it has said on stderr so far."""
        return self._outputs[1].read_text()

    def text(self) -> str:
        """All it has said so far, for messages."""
        return f"{self.stdout}\n--- stderr\n{self.stderr}"

    def signal(self, signum: int) -> None:
        """Send it a signal."""
        self.process.send_signal(signum)

    def wait_state(self, state: str) -> None:
        """Wait until its first thread is in this state (a letter as in proc(5))."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        self._scene.wait(lambda: stat.read_bytes().rpartition(b") ")[2].startswith(state.encode()), self)

    def kill(self) -> None:
        """`kill -9`, and wait for its end."""
        self.process.kill()
        assert self.wait() == -signal.SIGKILL

    def wait(self) -> int:
        """Wait for its end; its exit status. Nobody may ever see a traceback."""
        try:
            code = self.process.wait(self._scene.limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"kas does not end:\n{self.text()}\n{self._scene.ledger}") from None
        assert "Traceback" not in self.text(), self.text()
        assert "a bug of kasmos" not in self.text(), self.text()
        return code


def without_tmux(scene: Scene) -> dict[str, str]:
    """The environment of a machine that has a shell and little else."""
    tools = scene.book / "tools"
    tools.mkdir()
    for name in ("sh", "cat", "sleep"):
        (tools / name).symlink_to(shutil.which(name) or name)
    return {"PATH": str(tools)}
