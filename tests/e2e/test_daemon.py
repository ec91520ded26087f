"""`kas daemon`: coming up, staying, being told, leaving; nothing that it was given is lost or run twice."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from kasmos.client.sync import Supervisor
from kasmos.exceptions import RequestError
from kasmos.model import event as ev
from kasmos.model.view import RunState

from ..conftest import Kas, PatientKas, Result
from ..faults.oracle import LIMIT, Running, Scene, Task


@pytest.fixture
def scene(kas: Kas) -> Iterator[Scene]:
    scene = Scene(kas)
    yield scene
    # Whatever a test has left in the background, a failed one too.
    pid = _holder(scene)
    if pid is not None:
        with suppress(ProcessLookupError):  # it may be just leaving
            os.kill(pid, signal.SIGKILL)
        scene.wait(lambda: _holder(scene) is None)


def _holder(scene: Scene) -> int | None:
    from kasmos.store.lock import read_holder

    return read_holder(scene.root.lock_path)


def start(scene: Scene, *arguments: str, env: dict[str, str] | None = None) -> Result:
    """Start the daemon in the background, and require that it came up."""
    result = scene.kas("daemon", "start", *arguments, env=env)
    assert result.code == 0, result.stderr
    assert result.stdout.startswith("daemon started (pid ")
    return result


@contextmanager
def foreground(scene: Scene, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Running]:
    """A daemon in the foreground; up when the block begins, and killed if it outlives it."""
    with scene.start("daemon", "start", "--foreground", *arguments, env=env) as daemon:
        scene.wait(lambda: "daemon ready" in daemon.stderr, daemon)
        yield daemon


def ask(scene: Scene) -> Supervisor:
    """The daemon, for questions."""
    return Supervisor(scene.root.socket)


# --- up and down ----------------------------------------------------------------------


def test_start_status_stop(scene: Scene) -> None:
    """A daemon comes up in the background, says where it listens and how it is, and is gone when `stop` returns."""
    start(scene)
    pid = _holder(scene)
    assert pid is not None
    assert os.getsid(pid) == pid, "it has a kernel session of its own"
    status = scene.kas("daemon", "status", "--json")
    assert status.code == 0, status.stderr
    told = json.loads(status.stdout)
    assert (told["daemon"], told["phase"], told["healthy"], told["pid"]) == (True, "ready", True, pid)
    assert told["addresses"] == [str(scene.root.socket)]
    stopped = scene.kas("daemon", "stop")
    assert (stopped.code, stopped.stdout) == (0, "daemon stopped: nothing ran\n")
    assert _holder(scene) is None
    assert not scene.root.socket.exists()
    assert scene.kas("daemon", "status").code == 3


def test_daemon_stays_when_its_work_is_done(scene: Scene) -> None:
    """`kas run` hands its plan to the daemon and follows with the same status; the daemon stays."""
    start(scene)
    scene.write_plan([Task("count 3; done_")], [Task("exit 3")])
    first = scene.run()
    assert first.code == 1, first.stderr
    assert scene.kas("daemon", "status").code == 0
    scene.write_plan([Task("done_")], name="other.md")
    assert scene.kas("run", "other.md").code == 0
    assert scene.kas("daemon", "stop").code == 0
    assert [str(run.outcome) for run in scene.world().runs.values()] == ["failed", "succeeded"]


def test_interrupted_follower_leaves_the_run(scene: Scene) -> None:
    """Ctrl-C in a `kas run` that follows the daemon ends the following, not the run."""
    start(scene)
    scene.write_plan([Task("until_exists go; done_")])
    with scene.start() as following:
        scene.wait_started("1", following)
        scene.wait(lambda: "following" in following.text(), following)
        following.signal(signal.SIGINT)
        assert following.wait() == 130
        assert "the run goes on" in following.text()
    scene.let("go")
    scene.wait(lambda: scene.only_run().state is RunState.ENDED)
    assert len(scene.lines("start")) == 1
    scene.kas("daemon", "stop")
    scene.judge()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_programs_outlive_the_daemon(scene: Scene, how: str) -> None:
    """What runs when a daemon stops, or is killed, runs on; the next daemon takes hold of it and does the rest."""
    start(scene)
    scene.write_plan([Task("until_exists go; done_")], [Task("done_")])
    with scene.start() as following:
        scene.wait_started("1", following)
        if how == "stop":
            stopped = scene.kas("daemon", "stop")
            assert stopped.code == 0, stopped.stderr
            assert stopped.stdout.startswith("daemon stopped: left running: ")
            assert "1 task wait" in stopped.stdout
        else:
            pid = _holder(scene)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            scene.wait(lambda: _holder(scene) != pid)
        following.kill()
    start(scene)
    adopted = [record for record in scene.records() if isinstance(record.event, ev.SessionAdopted)]
    assert adopted, "it is in hand again before the daemon says that it is up"
    scene.let("go")
    scene.wait(lambda: scene.only_run().state is RunState.ENDED)
    assert scene.kas("daemon", "stop").code == 0
    assert len(scene.lines("start")) == 2
    scene.judge()


def test_stop_that_stops(scene: Scene) -> None:
    """`stop --stop` ends the programs; their tasks begin anew under the next daemon, by themselves."""
    start(scene)
    scene.write_plan([Task("until_exists go; done_")])
    with scene.start() as following:
        scene.wait_started("1", following)
        following.signal(signal.SIGINT)
        following.wait()
    stopped = scene.kas("daemon", "stop", "--stop")
    assert stopped.stdout.startswith("daemon stopped: stopped, to begin anew: "), stopped
    assert not any(session.state.live for session in scene.world().sessions.values())
    scene.let("go")
    start(scene)
    scene.wait(lambda: scene.only_run().state is RunState.ENDED)
    scene.kas("daemon", "stop")
    scene.judge()
    assert len(scene.lines("start")) == 2


def test_on_stop_of_the_configuration(scene: Scene) -> None:
    """`on_stop = "stop"` makes a signal stop the programs, too."""
    scene.configure(tables='[daemon]\non_stop = "stop"')
    with foreground(scene) as daemon:
        scene.write_plan([Task("until_exists go; done_")])
        with scene.start() as following:
            scene.wait_started("1", following)
            following.signal(signal.SIGINT)
            following.wait()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
    assert not any(session.state.live for session in scene.world().sessions.values())
    assert scene.only_run().state is RunState.RUNNING, "the next daemon goes on with it by itself"


def test_follower_waits_for_the_next_daemon(scene: Scene) -> None:
    """A `kas run` that follows a daemon does not take its place when it leaves, and follows the next one to the end."""
    start(scene)
    # However long the next one takes to come up here.
    patient = PatientKas(scene.kas.cwd, {"kasmos.cli.foreground.COMING_UP_TIMEOUT": LIMIT})
    scene.write_plan([Task("until_exists go; done_")])
    with Running(scene, patient.command("run", "plan.md"), {}) as following:
        scene.wait_started("1", following)
        assert scene.kas("daemon", "stop").code == 0
        start(scene)
        scene.let("go")
        assert following.wait() == 0
    scene.judge()
    assert len(scene.lines("start")) == 1


def test_other_version(scene: Scene) -> None:
    """A client of another version than the daemon's says so, and works."""
    start(scene)
    program = "import sys, kasmos; kasmos.__version__ = '99.9'; from kasmos.cli.main import main; main(sys.argv[1:])"
    scene.write_plan([Task("done_")])
    for arguments in (["daemon", "status"], ["run", "plan.md"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=scene.kas.cwd,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "this is kasmos 99.9, the supervisor that runs here is " in done.stdout + done.stderr


# --- draining ---------------------------------------------------------------------------


def test_drain(scene: Scene) -> None:
    """A drain takes nothing new, lets what runs end, leaves what is queued on the disk, and is then gone."""
    start(scene, "--max-concurrent", "1")
    scene.write_plan([Task("until_exists go; done_"), Task("done_")])
    with scene.start() as following:
        scene.wait_started("1", following)
        following.signal(signal.SIGINT)
        following.wait()
    with scene.start("daemon", "stop", "--drain") as draining:
        scene.wait(lambda: ask(scene).get("/v1/daemon")["phase"] == "draining", draining)
        scene.write_plan([Task("done_")], name="other.md")
        with pytest.raises(RequestError) as refusal:
            ask(scene).submit_run((scene.kas.cwd / "other.md").read_bytes(), str(scene.kas.cwd / "other.md"))
        assert (refusal.value.status, refusal.value.code) == (503, "draining")
        assert ask(scene).get("/v1/daemon")["ready"] is False
        scene.let("go")
        assert draining.wait() == 0
        assert draining.stdout == "daemon stopped: drained; nothing ran; 1 task wait for the next daemon\n"
    assert [line.task for line in scene.lines("done")] == ["1"]
    start(scene)
    scene.wait(lambda: scene.only_run().state is RunState.ENDED)
    scene.kas("daemon", "stop")
    scene.judge()


def test_drain_does_not_wait_for_a_retry(scene: Scene) -> None:
    """A task that waits for its next attempt does not hold up a drain; the next daemon makes the attempt."""
    scene.configure(backoff=60, orchestration="retries = 1")
    start(scene)
    scene.write_plan([Task("first && exit 1; done_")])
    with scene.start() as following:
        scene.wait(lambda: any(isinstance(r.event, ev.TaskRetryScheduled) for r in scene.records()), following)
        following.signal(signal.SIGINT)
        following.wait()
    assert scene.kas("daemon", "stop", "--drain").code == 0
    assert scene.only_run().state is RunState.RUNNING


def test_drain_that_takes_too_long(scene: Scene) -> None:
    """When the time of a drain is over, what runs is left running for the next daemon."""
    start(scene)
    scene.write_plan([Task("until_exists go; done_")])
    with scene.start() as following:
        scene.wait_started("1", following)
        following.signal(signal.SIGINT)
        following.wait()
    stopped = scene.kas("daemon", "stop", "--drain", "--timeout", "200ms")
    assert stopped.stdout.startswith("daemon stopped: left running: "), stopped
    scene.let("go")
    start(scene)
    scene.wait(lambda: scene.only_run().state is RunState.ENDED)
    scene.kas("daemon", "stop")
    scene.judge()


# --- coming up in vain ------------------------------------------------------------------


def test_two_daemons(scene: Scene) -> None:
    """A second daemon on a state root is refused, naming the first; the first goes on."""
    start(scene)
    second = scene.kas("daemon", "start")
    assert second.code == 4
    assert f"another supervisor (pid {_holder(scene)})" in second.stderr
    assert scene.kas("daemon", "status").code == 0


def test_a_port_that_is_taken_is_refused(scene: Scene) -> None:
    """A daemon that cannot have a port does not come up, and says why and what to do."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        result = scene.kas("daemon", "start", "--listen", address)
    assert result.code == 4
    assert f"cannot listen on {address}: Address already in use; something else is there" in result.stderr
    assert _holder(scene) is None


def test_wrong_configuration(scene: Scene) -> None:
    """A wrong configuration is told with every mistake, and nothing is started."""
    scene.configure(tables='[daemon]\nlisten = "nowhere"\non_stop = "perhaps"')
    result = scene.kas("daemon", "start")
    assert result.code == 2
    assert "daemon.listen" in result.stderr
    assert "daemon.on_stop" in result.stderr
    assert _holder(scene) is None


def test_socket_too_long(scene: Scene, root: Path) -> None:
    """A socket's path that is too long is refused with the length that is possible and a shorter path."""
    result = scene.kas("daemon", "start", "--socket", str(root / ("x" * 100)))
    assert result.code == 4
    assert "107 is the most" in result.stderr
    assert "such as /" in result.stderr


def test_socket_elsewhere(scene: Scene, root: Path) -> None:
    """A socket that is put elsewhere is found by every verb, also after a second daemon was refused."""
    start(scene, "--socket", str(root / "here.sock"))
    assert scene.kas("daemon", "start").code == 4
    status = scene.kas("daemon", "status")
    assert str(root / "here.sock") in status.stdout
    assert scene.kas("daemon", "stop").code == 0
    start(scene)
    assert scene.root.socket == scene.root.path / "kas.sock"


def test_stale_socket(scene: Scene) -> None:
    """The socket file of a daemon that was killed is no obstacle."""
    start(scene)
    pid = _holder(scene)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    scene.wait(lambda: _holder(scene) is None)
    assert scene.root.socket.exists()
    assert scene.world().supervisor_stays, "it is known to have been a daemon"
    start(scene)
    assert scene.kas("daemon", "status").code == 0


def test_died_while_coming_up(scene: Scene) -> None:
    """The reason of a daemon that fails after it was put in the background reaches whoever started it."""
    scene.root.prepare()
    (scene.root.path / "state.db").write_bytes(b"no journal" * 1000)
    result = scene.kas("daemon", "start")
    assert result.code == 4
    assert "state.db" in result.stderr
    assert _holder(scene) is None


def test_stop_of_what_is_no_daemon(scene: Scene) -> None:
    """`kas daemon stop` refuses to end a `kas run`, and says what does."""
    scene.write_plan([Task("until_exists go; done_")])
    with scene.start() as running:
        scene.wait_started("1", running)
        result = scene.kas("daemon", "stop")
        assert result.code == 4
        assert "kas stop --all" in result.stderr
        scene.let("go")
        assert running.wait() == 0


def test_a_workspace_that_is_not_there_is_refused(scene: Scene) -> None:
    """A daemon whose tasks would have no place to run in does not come up, and names the place."""
    result = scene.kas("daemon", "start", "--workspace-root", "nowhere")
    assert result.code == 2
    assert "daemon.workspace_root: there is no directory" in result.stderr


def test_a_workspace_of_its_own(scene: Scene) -> None:
    """With `--workspace-root` tasks run there, and status names the project as well as that place."""
    work = scene.book / "work"
    work.mkdir()
    start(scene, "--workspace-root", str(work))
    scene.write_plan([Task('pwd >"$BOOK/where"; done_')])
    assert scene.run().code == 0
    assert (scene.book / "where").read_text().strip() == os.path.realpath(work)
    project = os.path.realpath(scene.plan.parent)
    assert ask(scene).get("/v1/status")["project"] == project
    standing = ask(scene).get("/v1/daemon")
    assert (standing["project"], standing["workspace"]) == (project, os.path.realpath(work))
    assert scene.only_run().project == os.path.realpath(work)


# --- reload -----------------------------------------------------------------------------


def test_reload(scene: Scene) -> None:
    """A reload applies what can change at once, names what needs a restart, and refuses a broken file whole."""
    start(scene)
    scene.configure(orchestration="max_concurrent = 7", tables='[daemon]\nmetrics = "127.0.0.1:1"')
    result = scene.kas("daemon", "reload")
    assert result.code == 0, result.stderr
    assert "reloaded: orchestration.max_concurrent" in result.stdout
    assert "needs a restart: daemon.metrics" in result.stdout
    scene.configure(orchestration="max_concurrent = 0")
    result = scene.kas("daemon", "reload")
    assert result.code == 2
    assert "max_concurrent" in result.stderr
    # What is in force goes on being so, for submissions too.
    scene.write_plan([Task("done_")])
    document = scene.plan.read_bytes()
    assert ask(scene).submit_run(document, str(scene.plan))["run_id"]
    scene.wait(lambda: scene.only_run().state is RunState.ENDED)
    assert scene.only_run().settings.max_concurrent == 7


def test_a_plan_beside_a_broken_file(scene: Scene) -> None:
    """A file that was broken after the daemon had read it keeps nobody from handing a plan to that daemon."""
    scene.configure()
    start(scene)
    scene.configure(orchestration="max_concurrent = 0")
    scene.write_plan([Task("done_")])
    handed = scene.run()
    assert handed.code == 0, handed
    assert "warning: the configuration has a mistake (kas config check)" in handed.stdout
    # A wrong plan is refused by the daemon.
    wrong = scene.plan.with_name("wrong.md")
    wrong.write_text("nothing")
    assert scene.kas("run", str(wrong)).code == 2
    assert scene.kas("daemon", "stop").code == 0
    # Without it there is nothing in force.
    alone = scene.run()
    assert alone.code == 2
    assert "max_concurrent" in alone.stderr


def test_reloaded_agent(scene: Scene) -> None:
    """An agent that was changed is used from the next attempt on, without a restart."""
    start(scene)
    scene.configure(tables='[agents.other]\nprogram = "sh"\nprompt = "script"')
    plan = scene.write_plan([Task("true", 'agent = "other"')])
    with pytest.raises(RequestError, match="other"):
        ask(scene).submit_run(plan.read_bytes(), str(plan))
    assert "agents.other" in scene.kas("daemon", "reload").stdout
    ask(scene).submit_run(plan.read_bytes(), str(plan))
    scene.wait(lambda: scene.world().runs and scene.only_run().state is RunState.ENDED)


# --- the service manager ------------------------------------------------------------------


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """A service manager's notification socket."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind("\0" + address[1:] if address.startswith("@") else address)
        sock.settimeout(LIMIT)
        yield sock


def hear(sock: socket.socket, word: str) -> str:
    """Wait for a message that has *word*."""
    while True:
        message = sock.recv(4096).decode()
        if word in message:
            return message


@pytest.mark.parametrize("abstract", [False, True])
def test_service_manager(scene: Scene, root: Path, abstract: bool) -> None:
    """The service manager hears when the daemon is up, that it is well, that it reloads, and that it leaves."""
    address = f"@kasmos-{root.name}" if abstract else str(root / "notify")
    with manager(address) as sock:
        env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000"}
        with foreground(scene, env=env) as daemon:
            hear(sock, "READY=1")
            hear(sock, "WATCHDOG=1")
            hear(sock, "WATCHDOG=1")
            daemon.signal(signal.SIGHUP)
            assert "MONOTONIC_USEC=" in hear(sock, "RELOADING=1")
            hear(sock, "READY=1")
            daemon.signal(signal.SIGTERM)
            hear(sock, "STOPPING=1")
            assert daemon.wait() == 0


# --- its log ------------------------------------------------------------------------------


def test_log_tells_no_secrets(scene: Scene) -> None:
    """The daemon's log tells what happened by ids; it has neither output of agents nor values of secrets."""
    start(scene, "--http-admin-token", "sesame-of-the-admin")
    scene.write_plan([Task("echo words-of-an-agent; done_")])
    assert scene.run().code == 0
    scene.kas("daemon", "stop")
    log = scene.kas("daemon", "logs").stdout
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"daemon ready", "run started", "session ended", "task ended", "daemon left"} <= {
        line["event"] for line in lines
    }
    assert all(line["state_root"] == str(scene.root.path) for line in lines if "run_id" in line)
    assert "words-of-an-agent" not in log
    assert "sesame" not in log
    newest = scene.kas("daemon", "logs", "-n", "1").stdout
    assert newest == log.splitlines(keepends=True)[-1]


def test_log_is_followed(scene: Scene) -> None:
    """`kas daemon logs -f` prints what was logged, and what is logged from then on."""
    start(scene)
    with scene.start("daemon", "logs", "-f") as following:
        scene.wait(lambda: "daemon ready" in following.stdout, following)
        scene.kas("daemon", "reload")
        scene.wait(lambda: "configuration reloaded" in following.stdout, following)
        following.signal(signal.SIGINT)
        assert following.wait() == 130


# --- what it counts -----------------------------------------------------------------------


def scrape(address: str) -> str:
    """What /metrics answers."""
    with urllib.request.urlopen(address, timeout=240) as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(response.read().decode())


def test_metrics(scene: Scene) -> None:
    """The metrics tell what ran and runs, on their own listener and beside the API; promtool finds nothing wrong."""
    started = start(scene, "--metrics", "127.0.0.1:0")
    address = started.stdout.split(", ")[-1].strip()
    assert address.endswith("/metrics")
    scene.write_plan([Task("echo 1; until_exists go; done_"), Task("exit 3")])
    with scene.start() as following:
        scene.wait_started("1", following)
        scene.wait(lambda: 'kasmos_tasks_ended_total{outcome="failed"} 1.0' in scrape(address), following)
        text = scrape(address)
        assert 'kasmos_sessions_running{agent="worker",backend="headless"} 1.0' in text
        assert 'kasmos_sessions_started_total{backend="headless",kind="agent"} 2.0' in text
        assert "kasmos_ready 1.0" in text
        assert re.search(r"^kasmos_journal_commit_seconds_count [1-9]", text, re.MULTILINE)
        assert re.search(r"^kasmos_loop_turn_seconds_count [1-9]", text, re.MULTILINE)
        scene.let("go")
        following.wait()
    scene.wait(lambda: 'kasmos_runs_ended_total{outcome="failed"} 1.0' in scrape(address))
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=scrape(address),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_port_taken(scene: Scene) -> None:
    """A port that is taken is told by whoever starts the daemon, and nothing is left behind."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        result = scene.kas("daemon", "start", "--metrics", f"127.0.0.1:{port}")
    assert result.code == 4
    assert f"127.0.0.1:{port}" in result.stderr
    assert _holder(scene) is None


def test_leaves_with_readers_attached(scene: Scene) -> None:
    """Readers of events hold up no stop: each is given all there is, and the end of its stream."""
    start(scene)
    with closing(ask(scene).events()) as reading, closing(ask(scene).events()) as idle:
        assert isinstance(next(reading).event, ev.SupervisorStarted)
        next(idle)
        assert scene.kas("daemon", "stop").code == 0
        assert list(reading) == []
