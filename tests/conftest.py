"""What every test gets: a home of its own, nothing of the surrounding world, and the leak gate behind it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, settings

from kasmos.sessions import cgroups
from tests.leaks import close_gate, open_gate

# Properties are searched without a clock: a busy machine is no defect, and what is too slow is found by the benchmarks.
# And in the same way each time: what is wrong is so for everybody, and nobody's run fails by chance. To search anew:
# scripts/test tests/unit --hypothesis-profile=search
_HEALTH = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("search", deadline=None, suppress_health_check=_HEALTH)
settings.register_profile("kasmos", deadline=None, suppress_health_check=_HEALTH, derandomize=True, database=None)
settings.load_profile("kasmos")

_FOREIGN = re.compile(
    # Who surrounds us: a CI, a service manager, another terminal, another user's configuration and keys,
    r"KASMOS_|GITHUB_|CI$|INVOCATION_ID|JOURNAL_STREAM|NOTIFY_SOCKET|WATCHDOG_|TMUX|COLUMNS$|LINES$|XDG_|OTEL_|\w+_API_KEY$"
    # how they like colours and languages, and by which way they leave their network.
    r"|NO_COLOR|FORCE_COLOR|CLICOLOR|LC_|LANGUAGE$|\w+_PROXY$",
    re.IGNORECASE,
)
_OURS = {"LANG": "C.UTF-8", "TERM": "xterm-256color"}
_OF_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that Python itself ignores, and that it does not pass on as ignored to what it starts."""


def pytest_configure(config: pytest.Config) -> None:
    """Begin as at a terminal, however the suite was started: under `nohup`, behind `&`, with another umask.

    Programs inherit which signals are ignored or blocked, and tests look at what signals do to them.
    """
    os.umask(0o022)
    if not hasattr(config, "workerinput") and config.getoption("numprocesses", None):
        return  # no test runs in this process: who wanted it to outlive a terminal gets that
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for signum in signal.valid_signals() - {*_OF_PYTHON}:
        if signal.getsignal(signum) is signal.SIG_IGN:
            ours = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
            signal.signal(signum, ours)


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory of the test's own with a short path: a Unix socket's path has room for 107 bytes."""
    # Wherever files are to be by TMPDIR, unless that is somewhere deep.
    place = tempfile.gettempdir()
    path = Path(tempfile.mkdtemp(prefix="kas-", dir=place if len(place) < 30 else "/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def leak_gate(request: pytest.FixtureRequest, root: Path) -> Iterator[None]:
    """Fail a test that leaves processes, descriptors, threads or listeners behind, and remove them."""
    roots = [root]
    if "tmp_path" in request.fixturenames:
        roots.append(request.getfixturevalue("tmp_path"))
    # Unit tests start no processes; they are many, so only their children are looked for.
    gate = open_gate(roots, everywhere="unit" not in request.node.path.parts)
    yield
    if leaks := close_gate(gate):
        pytest.fail("the test left behind:\n  " + "\n  ".join(leaks), pytrace=False)


@pytest.fixture(autouse=True)
def state_home(leak_gate: None, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `kas` keeps its state in this test: `XDG_STATE_HOME`. Home and configuration are empty."""
    for name in filter(_FOREIGN.match, list(os.environ)):
        monkeypatch.delenv(name)
    for name, value in _OURS.items():
        monkeypatch.setenv(name, value)
    for name, folder in (("HOME", "home"), ("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state")):
        (root / folder).mkdir()
        monkeypatch.setenv(name, str(root / folder))
    return root / "state"


@attrs.frozen
class Result:
    """What a `kas` command did."""

    code: int
    stdout: str
    stderr: str


class Kas:
    """Runs the command line as a user does: in a process of its own."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd

    def __call__(
        self,
        *arguments: str | os.PathLike[str],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        timeout: float = 240.0,
    ) -> Result:
        """Run `kas ARGUMENTS` to its end. Blocks; in a Trio test, use a thread."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=cwd or self.cwd,
            env={**os.environ, **(env or {})},
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def running(
        self,
        *arguments: str | os.PathLike[str],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Iterator[subprocess.Popen[str]]:
        """Run `kas ARGUMENTS` beside the block, with its output in pipes; it is killed if it outlives the block."""
        with subprocess.Popen(
            self.command(*arguments),
            cwd=cwd or self.cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    @staticmethod
    def command(*arguments: str | os.PathLike[str]) -> list[str]:
        """The command that is run."""
        return [sys.executable, "-m", "kasmos", *map(os.fspath, arguments)]


class PatientKas(Kas):
    """The command line with other limits than its own: for what a busy machine may take longer to do.

    Args:
        cwd: where it runs.
        limits: seconds by the whole name of a constant, as in `kasmos.cli.tail.PATIENCE`.
    """

    def __init__(self, cwd: Path, limits: Mapping[str, float]) -> None:
        super().__init__(cwd)
        settings = [f"{name} = {limit!r}" for name, limit in limits.items()]
        modules = {name.rpartition(".")[0] for name in limits}
        lines = [f"import {module}" for module in ("sys", "kasmos.cli.main", *sorted(modules))]
        self._program = "\n".join([*lines, *settings, "kasmos.cli.main.main(sys.argv[1:])"])

    def command(self, *arguments: str | os.PathLike[str]) -> list[str]:  # type: ignore[override]  # by what it is told
        """The command that is run."""
        return [sys.executable, "-c", self._program, *map(os.fspath, arguments)]


@pytest.fixture
def kas(root: Path, state_home: Path) -> Kas:
    """The `kas` command, in an empty project directory of this test."""
    project = root / "project"
    project.mkdir()
    return Kas(project)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the control groups of supervisors that were killed and had no successor, once all tests are over."""
    found = cgroups.find_cgroups(Path("/"))
    if hasattr(session.config, "workerinput") or isinstance(found, cgroups.NoCgroups):
        return
    for home in Path(found.home).parent.glob("kasmos-*"):
        # A young one may be another test run's, which is just about to enter it.
        with suppress(FileNotFoundError):
            if time.time() - home.stat().st_mtime > 60 and not cgroups.is_populated(str(home)):
                cgroups.remove(str(home))
