"""Supervisors whose disk is full: nothing is lost, nothing is run twice, and whoever is told to leave leaves."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import pytest

from kasmos.client.sync import Supervisor
from kasmos.exceptions import RequestError
from kasmos.store.filesystem import is_in_memory

from ..conftest import Kas
from .namespace import in_mount_namespace
from .oracle import Scene, Task

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def scene(kas: Kas, root: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("XDG_STATE_HOME", str(root / "state"))
    return Scene(kas)


def play(scene: Scene, root: Path, case: str) -> str:
    """Play a case of `full_disk`; what the supervisors said. The disk as it was at the end is left in their place."""
    state, kept = root / "state", root / "kept"
    state.mkdir(exist_ok=True)
    # kas runs where the disk is: a mount of a namespace is seen by nobody else.
    done = in_mount_namespace(
        'py=$1; mount -t tmpfs -o size=2m,mode=700 none "$2"; cd "$3"; shift 3; '
        'exec "$py" -m tests.faults.full_disk "$@"',
        sys.executable, str(state), str(CHECKOUT), case, str(state), str(scene.book), str(scene.kas.cwd), str(kept),
        limit=240.0,
    )  # fmt: skip
    said = (scene.book / "said").read_text()
    assert done.returncode == 0, done.stderr + said
    assert "Traceback" not in said
    shutil.rmtree(state)
    shutil.copytree(kept, state, symlinks=True)
    return said


@pytest.mark.parametrize("case", ["waits", "killed", "interrupted"])
def test_run(scene: Scene, root: Path, case: str) -> None:
    """While the disk is full `kas run` begins nothing new and says so; with space again, nothing is lost."""
    scene.write_plan([Task("until_exists go; done_")] * 2, [Task("count 2; done_")])
    said = play(scene, root, case)
    assert said.count("waits for space") == 1
    assert case != "waits" or "can be written again" in said
    scene.judge()
    assert len(scene.lines("done")) == 3


def test_disk_that_hangs(scene: Scene, root: Path) -> None:
    """A daemon whose disk hangs says that it is not well, leaves when it is told to, and kills nobody."""
    if is_in_memory(root):
        pytest.skip("where the state root is on no disk, there is none to hang")
    hang = {"KASMOS_FAILPOINTS": "journal.before-commit=hang@12"}
    with scene.kas.running("daemon", "start", "--foreground", env=hang) as daemon:
        scene.wait(lambda: scene.kas("daemon", "status").code == 0)
        supervisor = Supervisor(scene.root.socket)
        supervisor.post("/v1/tasks", {"prompt": '. "$BOOK/work.sh"; until_exists go; done_'})
        scene.wait(lambda: scene.lines("start"))
        with pytest.raises(RequestError) as refused:  # noqa: PT012  # one of them will be
            for _ in range(12):
                supervisor.post("/v1/tasks", {"prompt": "true"})
        assert (refused.value.status, refused.value.code) == (503, "store_unavailable")
        told = supervisor.get("/v1/daemon")
        assert told["problems"] == ["the journal took longer than 5 s to write"]
        daemon.send_signal(signal.SIGTERM)
        said = daemon.communicate(timeout=240)[1]
    assert daemon.returncode == 4, said
    assert "left running" in said
    assert "unless a disk that hangs takes some of them after all" in said
    assert not scene.lines("done")
    (scene.book / "go").touch()
    scene.wait(lambda: scene.lines("done"))


def test_daemon(scene: Scene, root: Path) -> None:
    """On a full disk the daemon answers, says that it is not well, and takes nothing on; with room it goes on."""
    scene.write_plan([Task("until_exists go; done_")])
    play(scene, root, "refuses")


def test_task_that_finds_no_room(scene: Scene, root: Path) -> None:
    """A task whose session finds no room on the disk waits, across a drain and a kill, and spends no attempt."""
    play(scene, root, "task_waits")


def test_stop_leaves_what_runs(scene: Scene, root: Path) -> None:
    """A daemon that is told to stop on a full disk leaves, says what is not recorded, and kills nobody."""
    play(scene, root, "leaves")


def test_second_signal(scene: Scene, root: Path) -> None:
    """A second signal cuts short how long a daemon waits for a full disk."""
    play(scene, root, "hurries")


def test_stop_that_stops(scene: Scene, root: Path) -> None:
    """What is stopped by order while nothing can be recorded is begun anew by the next daemon, as is promised."""
    play(scene, root, "stops")
