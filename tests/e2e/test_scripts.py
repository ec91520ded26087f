"""The scripts of a checkout: the environment they make, and what they pass on.

Python and its tools are stand-ins here, small shell scripts that write down how they were called: what is
tested is what the scripts do, without a network and in no time.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import pytest

from tests.waiting import LIMIT, wait_for

SCRIPTS = Path(__file__).parents[2] / "scripts"

FAKE_PYTHON = r"""#!/bin/sh
case "$*" in
*"sys.version_info < (3, 11)"*) exit "${FAKE_OLD:-0}" ;;
"-c import venv, ensurepip") exit "${FAKE_NO_VENV:-0}" ;;
"-c "*) echo 3.11 ;;
"-I -m venv .venv") mkdir -p .venv/bin && cp "$KASMOS_PYTHON" .venv/bin/python && echo venv >>"$FAKE_LOG" ;;
"-I -m pip "*)
    echo "pip ${*##*--no-input }" >>"$FAKE_LOG"
    if [ -n "${FAKE_GATE:-}" ]; then
        : >"$FAKE_GATE.reached"
        until [ -e "$FAKE_GATE" ]; do sleep 0.01; done
    fi
    echo "no space on the moon"
    exit "${FAKE_PIP:-0}" ;;
"-I -m compileall"*) ;;
*) echo "$PWD: $*"; echo "$PATH" >"$FAKE_LOG.path"; exit "${FAKE_EXIT:-0}" ;;
esac
"""


@attrs.frozen
class Checkout:
    """A checkout with the real scripts and a stand-in for Python."""

    path: Path
    started: list[subprocess.Popen[str]] = attrs.field(factory=list, eq=False, repr=False)

    @property
    def log(self) -> list[str]:
        """What the stand-in was asked to do to the environment."""
        log = self.path.parent / "log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def stamp(self) -> Path:
        return self.path / ".venv" / ".kasmos"

    def environ(self, extra: Mapping[str, str]) -> dict[str, str]:
        python = self.path.parent / "python"
        log = self.path.parent / "log"
        return {**os.environ, "KASMOS_PYTHON": str(python), "FAKE_LOG": str(log), **extra}

    def start(self, *command: str | Path, **extra: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [os.fspath(word) for word in command],
            cwd=self.path.parent,
            env=self.environ(extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *command: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*command, **extra)
        out, err = process.communicate(timeout=LIMIT)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def script(self, name: str) -> Path:
        return self.path / "scripts" / name


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    """A checkout whose path has a blank in it, without an environment."""
    path = tmp_path / "check out"
    shutil.copytree(SCRIPTS, path / "scripts", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (path / "kasmos").mkdir()
    (path / "requirements-dev.lock").write_text("trio==1\n")
    (path / "pyproject.toml").write_text("[project]\n")
    write_program(tmp_path / "python", FAKE_PYTHON)
    checkout = Checkout(path)
    yield checkout
    for process in checkout.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=LIMIT)


@pytest.fixture
def ready(checkout: Checkout) -> Checkout:
    """A checkout whose environment is complete."""
    assert checkout.run(checkout.script("bootstrap")).returncode == 0
    return checkout


INSTALLED = ["venv", "pip --require-hashes --requirement requirements-dev.lock"]
IN_PLACE = "pip --no-deps --no-build-isolation --editable ."


def test_kas_makes_the_environment_once(checkout: Checkout) -> None:
    """The first use installs the locked versions and says so in one line; the second is silent and installs nothing."""
    first = checkout.run(checkout.script("kas"), "status", "--json")
    assert first.stdout == f"{checkout.path.parent}: -P -m kasmos status --json\n"
    assert len(first.stderr.splitlines()) == 1
    assert checkout.log == [*INSTALLED, IN_PLACE]

    second = checkout.run(checkout.script("kas"), "status", "--json")
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert checkout.log == [*INSTALLED, IN_PLACE]


def test_kas_through_a_symbolic_link(ready: Checkout, tmp_path: Path) -> None:
    """The checkout is found by the script's real path; arguments and exit status pass through unchanged."""
    link = tmp_path / "bin" / "kas"
    link.parent.mkdir()
    link.symlink_to(ready.script("kas"))
    result = ready.run(link, "run", "a  b", "*", FAKE_EXIT="3")
    assert result.stdout == f"{tmp_path}: -P -m kasmos run a  b *\n"
    assert result.returncode == 3


def test_kas_leaves_the_path_alone(ready: Checkout) -> None:
    """What an agent calls `python` is what its project calls so, and not the environment of kasmos."""
    path = os.environ["PATH"]
    assert ready.run(ready.script("kas"), PATH=path).returncode == 0
    assert (ready.path.parent / "log.path").read_text() == f"{path}\n"


@pytest.mark.parametrize("changed", ["requirements-dev.lock", "pyproject.toml"])
def test_bootstrap_after_a_change(ready: Checkout, changed: str) -> None:
    """A changed lock file or project installs again, into the same environment."""
    with open(ready.path / changed, "a") as file:
        file.write("# changed\n")
    assert ready.run(ready.script("bootstrap")).returncode == 0
    assert ready.log == [*INSTALLED, IN_PLACE, INSTALLED[1], IN_PLACE]


def test_bootstrap_after_a_move(ready: Checkout, tmp_path: Path) -> None:
    """A checkout that was moved installs again: the environment holds its old path."""
    moved = Checkout(ready.path.rename(tmp_path / "elsewhere"))
    assert moved.run(moved.script("bootstrap")).returncode == 0
    assert moved.log.count(IN_PLACE) == 2


def test_bootstrap_twice_at_once(checkout: Checkout, tmp_path: Path) -> None:
    """Of two that are started at once one installs, and the other waits for it and uses the result."""
    gate = tmp_path / "gate"
    first = checkout.start(checkout.script("bootstrap"), FAKE_GATE=str(gate))
    wait_for((tmp_path / "gate.reached").exists)
    second = checkout.start(checkout.script("bootstrap"))
    inode = (checkout.path / "requirements-dev.lock").stat().st_ino
    wait_for(
        lambda: any("->" in line and f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines())
    )
    gate.touch()
    first.communicate(timeout=LIMIT)
    second.communicate(timeout=LIMIT)
    assert (first.returncode, second.returncode) == (0, 0)
    assert checkout.log == [*INSTALLED, IN_PLACE]


def test_bootstrap_interrupted(checkout: Checkout, tmp_path: Path) -> None:
    """What a killed installation left is thrown away and made anew by the next one."""
    gate = tmp_path / "gate"
    killed = checkout.start(checkout.script("bootstrap"), FAKE_GATE=str(gate))
    wait_for((tmp_path / "gate.reached").exists)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=LIMIT)
    half = checkout.path / ".venv" / "half"
    half.touch()

    assert checkout.run(checkout.script("bootstrap")).returncode == 0
    assert not half.exists()
    assert checkout.log == [*INSTALLED, *INSTALLED, IN_PLACE]


def test_bootstrap_in_an_environment_of_others(checkout: Checkout) -> None:
    """An environment that somebody else made is brought up to date, and kept even when that fails."""
    write_program(checkout.path / ".venv" / "bin" / "python", FAKE_PYTHON)
    theirs = checkout.path / ".venv" / "theirs"
    theirs.touch()
    assert checkout.run(checkout.script("bootstrap"), FAKE_PIP="1").returncode == 1
    assert checkout.run(checkout.script("bootstrap")).returncode == 0
    assert theirs.exists()
    assert "venv" not in checkout.log


def test_bootstrap_when_pip_fails(checkout: Checkout) -> None:
    """A failed installation shows what pip said, names the way out, and is not taken for a complete one."""
    failed = checkout.run(checkout.script("kas"), "status", FAKE_PIP="1")
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "no space on the moon" in failed.stderr
    assert "rm -r" in failed.stderr
    assert checkout.stamp.read_text() == ""


def test_bootstrap_without_venv(checkout: Checkout) -> None:
    """A Python without venv is named together with the package that Debian has for it."""
    result = checkout.run(checkout.script("kas"), FAKE_NO_VENV="1", PATH=bare_path(checkout))
    assert result.returncode == 1
    assert "apt-get install python3.11-venv" in result.stderr


def test_bootstrap_without_python(checkout: Checkout) -> None:
    """A machine with an old Python only is told which one is needed, and how to name another one."""
    result = checkout.run(checkout.script("kas"), FAKE_OLD="1", PATH=bare_path(checkout))
    assert result.returncode == 1
    assert "Python 3.11 or newer" in result.stderr
    assert "KASMOS_PYTHON=" in result.stderr


def bare_path(checkout: Checkout) -> str:
    """A PATH with what the scripts use and no Python."""
    directory = checkout.path.parent / "bare"
    directory.mkdir()
    for name in ("sh", "cat", "cmp", "dirname", "env", "flock", "mkdir", "mv", "readlink", "rm", "tail"):
        found = shutil.which(name)
        assert found is not None
        (directory / name).symlink_to(found)
    return str(directory)


# --- scripts/check and scripts/test -------------------------------------------------


@pytest.fixture
def tools(ready: Checkout) -> Checkout:
    """A checkout in a git repository, whose tools all succeed."""
    for name in ("ruff", "mypy", "lint-imports"):
        write_program(ready.path / ".venv" / "bin" / name, '#!/bin/sh\necho "$0 $*"\nexit "${FAKE_LINT:-0}"\n')
    (ready.path / ".gitignore").write_text(".venv/\n")
    subprocess.run(["git", "init", "-q", ready.path], check=True)
    return ready


def test_check_passes(tools: Checkout) -> None:
    """A sound checkout passes with one line for each check."""
    result = tools.run(tools.script("check"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert {line.split()[0] for line in result.stdout.splitlines()} == {"ok"}
    assert len(result.stdout.splitlines()) == 7


def test_check_runs_all_checks(tools: Checkout) -> None:
    """A check that fails says how to mend it and does not keep the others from running."""
    result = tools.run(tools.script("check"), FAKE_LINT="1")
    assert result.returncode == 1
    assert "scripts/check --fix" in result.stdout
    verdicts = [line for line in result.stdout.splitlines() if line.startswith(("ok", "FAILED"))]
    names = [verdict.split()[1].rstrip(":") for verdict in verdicts]
    assert names == ["format", "lint", "types", "async", "layers", "hosts", "paths"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("hosts", "--index-url https://" + "pypi" + ".org/simple", id="host"),
        pytest.param("paths", "cd {checkout}/kasmos", id="checkout"),
        pytest.param("paths", "cache = {home}/cache", id="home"),
    ],
)
def test_check_words(tools: Checkout, name: str, text: str) -> None:
    """A file that names a registry's host or a directory of this machine is found, with its line."""
    text = text.format(checkout=tools.path.resolve(), home="/home/somebody")
    (tools.path / "new.md").write_text(f"fine\n{text}\n")
    result = tools.run(tools.script("check"), HOME="/home/somebody")
    assert result.returncode == 1
    assert "new.md:2:" in result.stdout
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    assert [line.split()[1] for line in failed] == [f"{name}:"]


@pytest.fixture
def testable(tools: Checkout) -> Checkout:
    """A checkout on a machine that has every program the suite wants."""
    listed = re.findall(r"^(?:needed|wanted)\+?=\((.*)\)$", tools.script("test").read_text(), re.MULTILINE)
    names = [entry.partition("=")[0] for line in listed for entry in line.split()]
    assert {"git", "tmux", "parallel"} <= set(names)
    for name in names:
        if shutil.which(name) is None:
            write_program(tools.path / ".venv" / "bin" / name, "#!/bin/sh\n")
    write_program(tools.script("test-agents"), '#!/bin/sh\necho "agents $*"; exit "${FAKE_AGENTS:-0}"\n')
    return tools


def path_of(checkout: Checkout) -> str:
    return f"{checkout.path}/.venv/bin:{os.environ['PATH']}"


def test_test_passes_arguments(testable: Checkout) -> None:
    """Arguments go to pytest as they are; then only pytest runs, on as many workers as were asked for."""
    result = testable.run(testable.script("test"), "-k", "a or b", "-n0", PATH=path_of(testable))
    assert result.stdout == f"{testable.path}: -m pytest -k a or b -n0\n"
    assert result.returncode == 0


def test_test_runs_everything(testable: Checkout) -> None:
    """Without arguments the checks run, then the real agents, then the suite, whose closing line is the last one."""
    result = testable.run(testable.script("test"), PATH=path_of(testable))
    assert result.stdout.splitlines()[-1].startswith(f"{testable.path}: -m pytest -n ")
    assert result.stdout.startswith("ok ")
    assert "\nagents \n" in result.stdout
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("lint", "agents", "suite", "status"),
    [("1", "0", "0", 1), ("0", "1", "0", 1), ("0", "0", "5", 5), ("1", "1", "5", 5)],
)
def test_test_status(testable: Checkout, lint: str, agents: str, suite: str, status: int) -> None:
    """The suite runs even when a check or an agent failed, and every failure shows in the status."""
    fakes = {"FAKE_LINT": lint, "FAKE_AGENTS": agents, "FAKE_EXIT": suite}
    result = testable.run(testable.script("test"), PATH=path_of(testable), **fakes)
    assert " -m pytest " in result.stdout.splitlines()[-1]
    assert result.returncode == status


FAKE_NPM = r"""#!/bin/sh
for package; do :; done
echo "$package" >>"$FAKE_LOG.npm"
case $package in *broken*) echo "no such thing on the moon"; exit 1 ;; esac
"""


@pytest.fixture
def agents(ready: Checkout) -> Checkout:
    """A checkout with two agent programs to install, one of which cannot be, and stand-ins for npm and Node."""
    for name, text in (
        ("npm", FAKE_NPM),
        ("node", "#!/bin/sh\necho v22.1.0\n"),
        ("nice", '#!/bin/sh\nshift 2\n"$@"\n'),
    ):
        write_program(ready.path / ".venv" / "bin" / name, text)
    versions = ready.path / "tests" / "agents" / "versions.txt"
    versions.parent.mkdir(parents=True)
    versions.write_text("# programs\nfine  npm  fine-agent  1.2\nworse npm broken-agent 3.4\n")
    return ready


def run_agents(checkout: Checkout, *arguments: str) -> subprocess.CompletedProcess[str]:
    cache = str(checkout.path.parent / "cache")
    return checkout.run(checkout.script("test-agents"), *arguments, PATH=path_of(checkout), KASMOS_AGENTS_CACHE=cache)


def test_agents_are_installed_once(agents: Checkout) -> None:
    """A program is installed once; one that cannot be is named with what npm said, and tried again the next time."""
    npm = agents.path.parent / "log.npm"
    first = run_agents(agents, "--install")
    assert first.returncode == 1
    assert "no such thing on the moon" in first.stderr
    assert "not installed: worse 3.4" in first.stderr
    assert sorted(npm.read_text().split()) == ["broken-agent@3.4", "fine-agent@1.2"]
    run_agents(agents, "--install")
    assert sorted(npm.read_text().split()) == ["broken-agent@3.4", "broken-agent@3.4", "fine-agent@1.2"]


def test_agents_tests_run_though_one_is_missing(agents: Checkout) -> None:
    """The tests run even when a program could not be installed; the last line and the status tell of it."""
    result = run_agents(agents, "-k", "fine")
    assert result.stdout == f"{agents.path}: -m pytest tests/agents -o faulthandler_timeout=600 -n 2 -k fine\n"
    assert result.stderr.splitlines()[-1].endswith("NOT INSTALLED, their tests failed: worse 3.4")
    assert result.returncode == 1
