"""Verbs that read and steer: without a supervisor from what it left, beside one through its door."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from kasmos.model import event as ev
from kasmos.model.clock import Clock
from kasmos.model.event import Event
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import ExitStatus
from kasmos.sessions.stdin import unread_in
from kasmos.store.journal import open_journal
from kasmos.store.stateroot import StateRoot, find_state_root
from tests.conftest import Kas
from tests.unit.histories import History, failed_run, make_plan
from tests.waiting import wait_for

LIMIT = 120.0
CONFIG = """\
[orchestration]
default_agent = "sh"
[agents.sh]
program = "sh"
prompt = "script"
stop_grace = "2s"
"""


@pytest.fixture
def project(kas: Kas) -> Path:
    """A project whose agent runs the task's script."""
    folder = kas.cwd / ".kasmos"
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG)
    return kas.cwd


@pytest.fixture
def state(project: Path) -> StateRoot:
    """The project's state root, prepared."""
    root = find_state_root(project, environ=os.environ)
    root.prepare()
    return root


def write_plan(project: Path, *waves: Sequence[str]) -> Path:
    """A plan of tasks that run these scripts."""
    lines, number = ["**Goal:** Try it"], 0
    for wave, scripts in enumerate(waves, start=1):
        lines += ["", f"## Wave {wave}"]
        for script in scripts:
            number += 1
            lines += ["", f"### Task {number}: Job", "```sh", script, "```"]
    path = project / "plan.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def write_journal(root: StateRoot, events: Sequence[Event]) -> None:
    """Make a journal as a supervisor would have left it."""

    async def write() -> None:
        clock = Clock(wall=time.time, mono=time.monotonic)
        async with open_journal(root.db, clock=clock, announce=pytest.fail) as journal:
            await journal.append(*events)

    trio.run(write)


def events_of(history: History) -> list[Event]:
    return [record.event for record in history.records]


def unfinished_run() -> History:
    """A run whose supervisor has died: one task had failed, one was running, one waits."""
    history = History(make_plan(2, 1))
    history.wave(1)
    history.start("1")
    history.start("2")
    history.end("1", code=1, tail="oops\n")
    return history


def write_output(root: StateRoot, session_id: str, output: bytes) -> Path:
    directory = root.session_dir(session_id)
    directory.mkdir(parents=True)
    (directory / "output.log").write_bytes(output)
    return directory


def read_bytes(kas: Kas, *arguments: str) -> bytes:
    """What a command writes to stdout, byte for byte."""
    done = subprocess.run(kas.command(*arguments), cwd=kas.cwd, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- without a supervisor -----------------------------------------------------------


def test_logs_of_an_agent(kas: Kas, state: StateRoot) -> None:
    """`kas logs --rendered` tells what an agent said and did and what it came to; `--json` does so for programs."""
    (kas.cwd / ".kasmos").mkdir(exist_ok=True)
    (kas.cwd / ".kasmos" / "config.toml").write_text('[agents.sh]\nprogram = "wrapper"\nharness = "claude"\n')
    write_journal(state, events_of(failed_run()))
    recorded = Path(__file__).parents[1] / "data" / "transcripts" / "claude" / "bash_default.out"
    write_output(state, "r1-2a1", recorded.read_bytes())
    said = kas("logs", "2", "--rendered").stdout
    assert "→ Bash echo hi > f.txt" in said
    assert "failed: crash: it said that it is done, and exited 3" in said
    lines = [json.loads(line) for line in kas("logs", "2", "--json").stdout.splitlines()]
    assert "tool_call" in [line["type"] for line in lines[:-1]]
    assert lines[-1]["conversation"] == "a5c572b7-79a4-42e9-924d-75085e410fa1"
    assert (
        kas("logs", "2", "--json", "-f").stdout.splitlines()[-1] == kas("logs", "2", "--json").stdout.splitlines()[-1]
    )
    assert kas("logs", "2", "--json", "--raw").code == 2


def test_reading_needs_no_supervisor(kas: Kas, state: StateRoot) -> None:
    """When nothing runs, the journal and the session directories answer."""
    write_journal(state, events_of(failed_run()))
    write_output(state, "r1-2a1", b"compiling\nerror: no such file\n")
    status = kas("status")
    assert status.code == 0
    assert "supervisor: not running" in status.stdout
    assert re.search(r"run r1  failed .*1 succeeded, 1 failed, 1 skipped", status.stdout, re.DOTALL)
    assert "3 Do it 3" in status.stdout
    assert kas("logs", "w1t2-do-it-2").stdout == "compiling\nerror: no such file\n"
    assert kas("logs", "2", "--tail", "1").stdout == "error: no such file\n"
    assert re.search(r"w1t2-do-it-2 +exit 3 .* r1-2a1", kas("ps", "-a").stdout)
    assert kas("ps").stderr == "kas: no session is alive\n"
    assert re.search(r"r1 +failed .* 1/3 +Build the parser", kas("runs").stdout)


def test_json_is_for_programs(kas: Kas, state: StateRoot) -> None:
    """`--json` gives runs with tasks, sessions and attention in the words of the API."""
    write_journal(state, events_of(unfinished_run()))
    status = json.loads(kas("status", "--json").stdout)
    assert status["supervisor"] is None
    (run,) = status["runs"]
    assert run["run"]["status"] == "interrupted"
    assert [task["status"] for task in run["tasks"]] == ["failed", "running", "queued"]
    assert [session["session_id"] for session in status["sessions"]] == ["r1-2a1"]
    assert [one["id"] for one in status["attention"]] == ["r1.1"]
    assert [run["run_id"] for run in json.loads(kas("runs", "--json").stdout)] == ["r1"]
    assert [one["status"] for one in json.loads(kas("ps", "--all", "--json").stdout)] == ["running", "ended"]


def test_why_tells_the_chain(kas: Kas, state: StateRoot) -> None:
    """From the end of a task back to its first cause, with evidence, and forward to what it led to."""
    write_journal(state, events_of(failed_run()))
    directory = write_output(state, "r1-2a1", b"x\n")
    failed = kas("why", "r1.2").stdout
    assert "task r1.2  2 Do it 2  failed: exit 3" in failed
    assert "attempt 1 (sh): exit 3 after" in failed
    assert "│ error: no such file" in failed
    assert "because of it:\n    3 Do it 3: skipped" in failed
    assert f"{directory}/output.log" in failed
    skipped = kas("why", "3").stdout
    assert "skipped: wave 1 did not succeed: task 2 failed" in skipped
    assert "because of task 2 Do it 2: failed: exit 3   kas why r1.2" in skipped
    assert "task r1.2" in kas("why").stdout, "of a run, the tasks to blame are told"
    assert "session r1-2a1" in kas("why", "r1-2a1").stdout


def test_a_run_without_its_supervisor_is_interrupted(kas: Kas, state: StateRoot) -> None:
    """Whatever was written down last, nothing is running when nobody holds the lock; the cure is named."""
    write_journal(state, events_of(unfinished_run()))
    status = kas("status").stdout
    assert "run r1  interrupted" in status
    assert "supervisor is not running; `kas run /work/plan.md` or `kas resume r1` continues" in status
    assert "r1.1  failed: exit 1   kas why r1.1" in status
    assert "supervisor is not running" in kas("ps").stderr


def test_a_run_without_its_daemon(kas: Kas, state: StateRoot) -> None:
    """Where the supervisor was a daemon, a daemon is the first cure."""
    history = unfinished_run()
    history.add(ev.SupervisorStarted(78, history.boot, "0", stays=True))
    write_journal(state, events_of(history))
    cure = "`kas daemon start` or `kas run /work/plan.md` or `kas resume r1`"
    assert f"supervisor is not running; {cure} continues" in kas("status").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["stop", "w1t2-do-it-2"], 3, "gone, its end was not recorded; `kas resume` records it"),
        (["stop", "3"], 3, "what has not begun is not started"),
        (["advance", "r1"], 3, "kas resume r1"),
        (["advance"], 4, "no run waits"),
        (["status", "--watch"], 3, "nothing to watch"),
        (["stop", "1"], 4, "has ended already"),
        (["stop", "w1t2-do-if"], 4, "did you mean w1t2-do-it-2"),
        (["stop", "w1t"], 4, "may mean 2 sessions: r1-1a1, r1-2a1"),
        (["stop"], 2, "one of NAME and --all"),
        (["stop", "1", "--all"], 2, "one of NAME and --all"),
        (["logs", "nothing"], 4, "no session 'nothing'; `kas ps --all` lists them"),
        (["logs", "3"], 4, "no session yet"),
        (["logs", "1"], 4, "is gone"),
        (["logs", "1", "--tail", "3", "--since", "4"], 2, "exclude each other"),
        (["logs", "1", "--tail", "-1"], 2, "--tail"),
        (["why", "nothing"], 4, "no task, session or run 'nothing'"),
        (["why", "w1t2-do-if"], 4, "no task, session or run 'w1t2-do-if'; did you mean w1t2-do-it-2"),
        (["status", "nothing"], 4, "no run 'nothing'; `kas runs --all` lists them"),
        (["retry", "r1", "nothing"], 4, "no task 'nothing'"),
        (["completion", "tcsh"], 2, "tcsh"),
        (["-C", "/nowhere", "status"], 2, "/nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals(kas: Kas, state: StateRoot, arguments: list[str], code: int, said: str) -> None:
    """What cannot be done is refused with the code for it, and the message names the cure."""
    write_journal(state, events_of(unfinished_run()))
    result = kas(*arguments)
    assert result.code == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_logs_of_a_skipped_task(kas: Kas, state: StateRoot) -> None:
    """A task that was skipped has no output, and who asks for it is told that it was, and why."""
    write_journal(state, events_of(failed_run()))
    result = kas("logs", "3")
    assert result.code == 4
    assert "task '3' was skipped, so it has no output: wave 1 did not succeed: task 2 failed" in result.stderr


def test_the_beginning_of_a_name_is_enough(kas: Kas, state: StateRoot) -> None:
    """The beginning of a task's or session's name means it, where nothing else begins so."""
    write_journal(state, events_of(failed_run()))
    write_output(state, "r1-2a1", b"hello\n")
    assert kas("logs", "w1t2").stdout == "hello\n"
    assert "task r1.2" in kas("why", "w1t2-do").stdout


def test_why_of_a_check_leads_to_what_was_checked(kas: Kas, state: StateRoot) -> None:
    """Behind a check that failed stands an agent: its log is named beside the check's."""
    history = History(make_plan(1, checks=("make test",)))
    history.wave(1)
    agent = history.start("1")
    history.add(ev.SessionEnded(session_id=agent, exit=ExitStatus(code=0), output_bytes=0), after=1.0)
    check = history.start("1", check=0)
    history.end("1", code=2, tail="no rule\n")
    write_journal(state, events_of(history))
    said = kas("why", "1").stdout.splitlines()
    named = [line.strip() for line in said if line.startswith("    kas logs ")]
    assert named == [f"kas logs {history.world.sessions[check].name}", f"kas logs {agent}"]


def test_why_of_a_terminal_shows_its_last_screen(kas: Kas, state: StateRoot) -> None:
    """Of a session that had a terminal the last screen is shown: what was written to it are fragments."""
    history = History(make_plan(1))
    history.wave(1)
    session = history.start("1", backend=ExecutionMode.TMUX)
    history.end("1", code=1, tail="Unabletoconnect\x0f\n")
    write_journal(state, events_of(history))
    directory = write_output(state, session, b"x\n")
    (directory / "screen").write_text("\x1b[1mUnable\x1b[0m to connect\n\n\ngood bye\n\n")
    said = kas("why", "1").stdout
    assert "what its terminal showed last:\n    │ Unable to connect\n    │ good bye\n" in said
    assert "Unabletoconnect" not in said
    assert "kas capture " in said


def test_nothing_has_ever_run(kas: Kas, project: Path) -> None:
    """In a new project every reading verb says so, and nothing is made."""
    assert "there has been no run yet" in kas("status").stdout
    assert kas("ps").stderr == "kas: there has been no session yet\n"
    assert kas("runs").stderr == "kas: there has been no run yet\n"
    assert kas("why").code == 4
    assert kas("stop", "--all").stdout == "nothing runs\n"
    assert not list(Path(os.environ["XDG_STATE_HOME"]).iterdir())


# --- logs ---------------------------------------------------------------------------


def test_logs_are_exact(kas: Kas, state: StateRoot) -> None:
    """Every byte is printed as it was written, from any offset and from any of the last lines on."""
    output = bytes(range(256)) * 3 + b"\r\n\nlast \xff"
    write_journal(state, events_of(failed_run()))
    write_output(state, "r1-2a1", output)
    assert read_bytes(kas, "logs", "2") == output
    assert read_bytes(kas, "logs", "2", "--since", "300") == output[300:]
    assert read_bytes(kas, "logs", "2", "--since", "99999") == b""
    assert read_bytes(kas, "logs", "2", "--tail", "1") == b"last \xff"
    assert read_bytes(kas, "logs", "2", "--tail", "2") == b"\nlast \xff"
    assert read_bytes(kas, "logs", "2", "--tail", "0") == b""
    assert read_bytes(kas, "logs", "2", "--tail", "100") == output
    assert read_bytes(kas, "logs", "-f", "2") == output, "one that has ended is followed to its end"


def test_tail_looks_far_back(kas: Kas, state: StateRoot) -> None:
    """Lines longer than what is read at once are found whole."""
    long = b"x" * 700_000
    write_journal(state, events_of(failed_run()))
    write_output(state, "r1-2a1", b"first\n" + long + b"\nlast\n")
    assert read_bytes(kas, "logs", "2", "--tail", "2") == long + b"\nlast\n"


def test_lost_output_is_declared(kas: Kas, state: StateRoot) -> None:
    """What a bounded log has given up is told on stderr, and offsets go on."""
    write_journal(state, events_of(failed_run()))
    directory = write_output(state, "r1-2a1", bytes(100) + b"kept\n")
    (directory / "output.base").write_text("100 0\n")
    result = kas("logs", "2")
    assert (result.code, result.stdout) == (0, "kept\n")
    assert result.stderr == "kas: 100 bytes before offset 100 are gone\n"


def test_a_reader_that_has_seen_enough(kas: Kas, state: StateRoot) -> None:
    """A closed stdout ends a command quietly."""
    write_journal(state, events_of(failed_run()))
    write_output(state, "r1-2a1", b"line\n" * 500_000)
    with kas.running("logs", "2") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(LIMIT) == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_whole_for_a_slow_reader(kas: Kas, state: StateRoot, unbuffered: str) -> None:
    """A log arrives whole although `kas` is suspended in the middle, whether or not Python buffers what it writes."""
    log = b"".join(b"%06d\n" % number for number in range(150_000))
    write_journal(state, events_of(failed_run()))
    write_output(state, "r1-2a1", log)
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(kas.command("logs", "2"), cwd=kas.cwd, env=env, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        pipe, taken = process.stdout.fileno(), b""
        stat = Path(f"/proc/{process.pid}/stat")
        room = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
        for _ in range(5):
            # Nothing more goes into it: it is being written to.
            wait_for(lambda: unread_in(pipe) >= room)
            process.send_signal(signal.SIGSTOP)
            wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
            process.send_signal(signal.SIGCONT)
            taken += os.read(pipe, room)
        taken += process.stdout.read()
        assert process.wait(LIMIT) == 0
    assert taken == log


# --- completion ---------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(kas: Kas, shell: str) -> None:
    """Each shell gets a script that asks `kas` itself."""
    result = kas("completion", shell)
    assert result.code == 0
    assert "_KAS_COMPLETE" in result.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("kas st", {"status", "stop"}),
        ("kas logs w1", {"w1t1-do-it-1", "w1t2-do-it-2"}),
        ("kas stop w1", {"w1t2-do-it-2"}),
        ("kas why r1.", {"r1.1", "r1.2", "r1.3"}),
        ("kas advance r", {"r1"}),
        ("kas completion z", {"zsh"}),
    ],
)
def test_names_are_completed(kas: Kas, state: StateRoot, words: str, offered: set[str]) -> None:
    """Verbs, sessions, tasks and runs are completed, from the journal."""
    write_journal(state, events_of(unfinished_run()))
    env = {"_KAS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    result = kas(env=env)
    assert {line.partition(",")[2] for line in result.stdout.splitlines()} == offered
    assert result.stderr == ""


def test_completion_is_silent_about_errors(kas: Kas, project: Path) -> None:
    """A wrong configuration offers nothing, and says nothing in the middle of a prompt."""
    (project / ".kasmos" / "config.toml").write_text("wrong = \n")
    result = kas(env={"_KAS_COMPLETE": "bash_complete", "COMP_WORDS": "kas logs ", "COMP_CWORD": "2"})
    assert (result.stdout.strip(), result.stderr) == ("", "")


# --- beside a supervisor ------------------------------------------------------------


def await_file(path: Path) -> None:
    """Wait until an agent has made a file."""
    wait_for(path.exists)


def test_a_run_is_watched_and_its_session_followed(kas: Kas, project: Path) -> None:
    """Beside `kas run`, status, ps and logs tell the present, and followers end with what they follow."""
    script = "echo hello; touch up; while ! test -e go; do sleep 0.05; done; printf 'bye \\377'"
    plan = write_plan(project, [script])
    with kas.running("run", plan) as run:
        await_file(project / "up")
        assert "supervisor: running (pid" in kas("status").stdout
        # That it runs is recorded a moment after it does.
        wait_for(lambda: re.search(r"w1t1-job +running", kas("ps").stdout))
        with kas.running("status", "--watch", "--json") as watch, kas.running("logs", "-f", "1") as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline() == "hello\n"
            assert watch.stdout is not None
            first = json.loads(watch.stdout.readline())
            assert first["runs"][0]["run"]["status"] == "running"
            (project / "go").touch()
            assert follower.stdout.read() == "bye \N{REPLACEMENT CHARACTER}"
            assert follower.wait(LIMIT) == 0
            last = [json.loads(line) for line in watch.stdout][-1]
            assert last["runs"][0]["run"]["status"] == "succeeded"
            assert watch.stderr is not None
            assert watch.stderr.read() == "kas: the supervisor has left\n"
            assert watch.wait(LIMIT) == 0
        assert run.wait(LIMIT) == 0


def test_a_session_is_stopped_by_name(kas: Kas, project: Path) -> None:
    """`kas stop NAME` ends one task; the run goes on and counts it as not succeeded."""
    plan = write_plan(project, ["touch up; exec sleep 300", "echo two"])
    with kas.running("run", plan) as run:
        await_file(project / "up")
        stopped = kas("stop", "w1t1-job")
        assert (stopped.code, stopped.stderr) == (0, "")
        assert run.wait(LIMIT) == 1
    assert re.search(r"1 Job .*cancelled: stopped", kas("status").stdout)


def test_everything_is_ended_for_good(kas: Kas, project: Path) -> None:
    """`kas stop --all` ends the run: what had not begun never runs."""
    plan = write_plan(project, ["touch up; exec sleep 300"], ["touch never"])
    with kas.running("run", plan) as run:
        await_file(project / "up")
        assert kas("stop", "--all").code == 0
        assert run.wait(LIMIT) == 1
    assert "cancelled" in kas("runs").stdout
    assert not (project / "never").exists()


def test_a_failed_task_is_tried_again_beside_the_run(kas: Kas, project: Path) -> None:
    """`kas retry` gives a failed task another attempt while its run goes on."""
    plan = write_plan(
        project,
        ["touch up; while ! test -e go; do sleep 0.05; done", "test -e mended || { touch failed; exit 1; }"],
    )
    with kas.running("run", plan) as run:
        await_file(project / "up")
        await_file(project / "failed")
        wait_for(lambda: "1 failed" in kas("status").stdout)
        (project / "mended").touch()
        again = kas("retry", "2")
        assert again.code == 0, again.stderr
        (project / "go").touch()
        assert run.wait(LIMIT) == 0


def test_retry_becomes_the_supervisor(kas: Kas, project: Path) -> None:
    """Without a supervisor, `kas retry` takes up a run that has ended, shows it, and exits as the run does."""
    plan = write_plan(project, ["test -e mended"], ["touch second"])
    assert kas("run", plan).code == 1
    (project / "mended").touch()
    again = kas("retry")
    assert again.code == 0, again.stderr
    assert "2 succeeded" in again.stdout
    assert (project / "second").exists(), "what was skipped because of the failure runs as well"


def test_a_parked_run_is_let_go_on(kas: Kas, project: Path) -> None:
    """With `auto_advance_waves = false` a run waits after each wave until `kas advance`."""
    config = CONFIG.replace("[orchestration]\n", "[orchestration]\nauto_advance_waves = false\n")
    (project / ".kasmos" / "config.toml").write_text(config)
    plan = write_plan(project, ["true"], ["touch second"])
    with kas.running("run", plan) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if "the run waits" in line:
                break
        assert "waiting" in kas("status").stdout
        advanced = kas("advance")
        assert advanced.code == 0, advanced.stderr
        run.stdout.read()
        assert run.wait(LIMIT) == 0
    assert (project / "second").exists()


def test_followers_outlive_their_supervisor(kas: Kas, project: Path) -> None:
    """When the supervisor is killed, a follower says so and goes on with the program's log until the program ends."""
    plan = write_plan(project, ["echo hello; touch up; while ! test -e go; do sleep 0.05; done; echo bye"])
    with kas.running("run", plan) as run:
        await_file(project / "up")
        with kas.running("logs", "-f", "1") as follower:
            assert follower.stdout is not None
            assert follower.stderr is not None
            assert follower.stdout.readline() == "hello\n"
            run.kill()
            run.wait(LIMIT)
            assert "this is the output so far" in follower.stderr.readline()
            assert "supervisor is not running; the program is" in follower.stderr.readline()
            assert "interrupted" in kas("status").stdout
            (project / "go").touch()
            assert follower.stdout.read() == "bye\n"
            assert "ended (exit 0), not yet recorded" in follower.stderr.read()
            assert follower.wait(LIMIT) == 0
    done = kas("run", plan)
    assert done.code == 0, done.stdout
