"""A disk that is full while a run is under way."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from ..conftest import Kas
from .namespace import in_mount_namespace
from .oracle import Scene, Task

DRIVER = r"""
import os, shutil, subprocess, sys, time
from pathlib import Path

state, book, kept, *command = sys.argv[1:]
book, ballast = Path(book), Path(state, "ballast")
said = book / "said"

def until(holds):
    give_up = time.monotonic() + 45
    while not holds():
        assert time.monotonic() < give_up, said.read_text()
        assert run.poll() is None, said.read_text()
        time.sleep(0.01)

def ledger():
    try:
        return (book / "ledger").read_text()
    except FileNotFoundError:
        return ""

def fill():
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass

with said.open("wb") as out:
    run = subprocess.Popen(command, stdout=out, stderr=out)
until(lambda: ledger().count("start") == 2)
until(lambda: said.read_text().count("started (pid") == 2)
fill()
(book / "go").touch()
until(lambda: ledger().count("done") == 2)
until(lambda: "waits for space" in said.read_text())
time.sleep(0.3)  # for whatever might be begun nevertheless
assert ledger().count("start") == 2, ledger()
assert run.poll() is None
if "killed" in os.environ:
    run.kill()
    run.wait()
    ballast.unlink()
    with said.open("ab") as out:
        run = subprocess.Popen(command, stdout=out, stderr=out)
else:
    ballast.unlink()
code = run.wait(45)
shutil.copytree(state, kept, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
print(code)
"""


@pytest.fixture
def scene(kas: Kas) -> Scene:
    return Scene(kas)


@pytest.mark.parametrize("killed", [False, True], ids=["waits", "killed while it waits"])
def test_full_disk(scene: Scene, root: Path, killed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the state root's disk is full nothing new begins and it is said; with space again, nothing is lost."""
    scene.write_plan([Task("until_exists go; done_")] * 2, [Task("count 2; done_")])
    if killed:
        monkeypatch.setenv("killed", "1")
    state, kept = root / "state", root / "kept"
    # kas runs where the disk is: a mount of a namespace is seen by nobody else.
    done = in_mount_namespace(
        'mount -t tmpfs -o size=2m none "$1"; cd "$4"; exec "$2" -c "$3" "$1" "$5" "$6" "$2" -m kasmos run plan.md',
        str(state), sys.executable, DRIVER, str(scene.kas.cwd), str(scene.book), str(kept),
    )  # fmt: skip
    said = (scene.book / "said").read_text()
    assert done.stdout == "0\n", done.stderr + said
    assert said.count("waits for space") == 1
    assert killed or "can be written again" in said
    assert "Traceback" not in said
    shutil.rmtree(state)
    shutil.copytree(kept, state, symlinks=True)
    scene.judge()
    assert len(scene.lines("done")) == 3
