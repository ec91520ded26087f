"""What `kas doctor` looks at on this machine: each probe a function that gives findings, and changes nothing.

A **problem** keeps kasmos from doing what it promises, and comes with its cure. A **note** is worth knowing.
"""

from __future__ import annotations

import enum
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kasmos.cli.gc import render_size
from kasmos.model.value import frozen

if TYPE_CHECKING:
    from kasmos.config.schema import Config
    from kasmos.store.stateroot import StateRoot

DESCRIPTORS_PER_SESSION = 4
"""What the supervisor holds open for one headless session, rounded up."""
SESSIONS = 1000
"""Sessions side by side that a machine should have room for."""
LITTLE_SPACE = 256 << 20


class Level(enum.StrEnum):
    """How much a finding matters."""

    FINE = "fine"
    NOTE = "note"
    PROBLEM = "problem"


@frozen
class Finding:
    """One thing that was looked at."""

    area: str
    """`machine`, `programs`, `state`, `project`, `agents` or `sessions`."""
    level: Level
    text: str
    cure: str = ""


def machine(proc: Path = Path("/proc")) -> Iterator[Finding]:
    """Look at Python, the kernel and its limits."""
    yield _finding("machine", f"Python {platform.python_version()} ({sys.executable})")
    if sys.platform != "linux":
        yield _note("machine", f"{platform.system()}: sessions end with their supervisor here", "adoption needs Linux")
        return
    yield from _kernel()
    yield from _proc(proc)
    yield from _inotify(proc / "sys" / "fs" / "inotify")
    yield from _limits()
    yield from _signals(proc)
    yield from _cgroups()


def _kernel() -> Iterator[Finding]:
    from kasmos.sessions.processes import has_exit_info

    release = platform.release()
    try:
        os.close(os.pidfd_open(os.getpid()))
        exact = has_exit_info()
    except OSError as error:
        yield _problem(
            "machine",
            f"Linux {release}: pidfd_open fails ({error.strerror})",
            "Linux 5.3 or newer is needed, and a sandbox must allow pidfd_open",
        )
        return
    if exact:
        yield _finding("machine", f"Linux {release}: pidfd, exact exit status of any process")
    else:
        yield _note(
            "machine",
            f"Linux {release}: pidfd, but no PIDFD_GET_INFO",
            "before Linux 6.15 the exit of an adopted session is known by its shell's word only: "
            "`exit 137` and SIGKILL look alike",
        )


def _proc(proc: Path) -> Iterator[Finding]:
    if not (proc / "self" / "stat").exists():
        yield _problem("machine", f"{proc} is not there", "mount it: mount -t proc proc /proc")
    elif not (proc / "1" / "stat").exists():
        yield _note(
            "machine",
            f"{proc} hides the processes of others (hidepid)",
            "leftovers that run as another user (sudo) are not found",
        )
    else:
        yield _finding("machine", f"{proc} shows every process")


def _inotify(directory: Path) -> Iterator[Finding]:
    limits = {name: _number(directory / name) for name in ("max_user_instances", "max_user_watches")}
    instances, watches = limits["max_user_instances"], limits["max_user_watches"]
    if instances is None or watches is None:
        yield _note("machine", "no inotify: output is polled", "live output is up to a second late")
        return
    text = f"inotify: {instances} instances, {watches} watches"
    # Two watches for a session: its log and, while it starts, its directory.
    if watches < 2 * SESSIONS or instances < 8:
        yield _note(
            "machine",
            f"{text}: few",
            "without watches, output is polled: "
            "sysctl fs.inotify.max_user_watches=65536 fs.inotify.max_user_instances=128",
        )
    else:
        yield _finding("machine", text)


def _limits() -> Iterator[Finding]:
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_PER_SESSION * SESSIONS
    text = f"open files: {_limit(descriptors)} (RLIMIT_NOFILE, hard)"
    if descriptors != resource.RLIM_INFINITY and descriptors < wanted:
        possible = descriptors // DESCRIPTORS_PER_SESSION
        yield _note(
            "machine", f"{text}: enough for about {possible} sessions", f"raise it to {wanted}: ulimit -Hn {wanted}"
        )
    else:
        yield _finding("machine", text)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    text = f"processes: {_limit(processes)} (RLIMIT_NPROC)"
    if processes != resource.RLIM_INFINITY and processes < 1024:
        yield _note("machine", f"{text}: few", "a session takes three processes and what its program starts")
    else:
        yield _finding("machine", text)


def _signals(proc: Path) -> Iterator[Finding]:
    match = re.search(r"^SigIgn:\s*([0-9a-f]+)", _text(proc / "self" / "status"), re.MULTILINE)
    ignored = int(match[1], 16) if match else 0
    if ignored >> (signal.SIGCHLD - 1) & 1:
        yield _note(
            "machine",
            "SIGCHLD is ignored by whatever started this",
            "kas takes it back for itself and its sessions; look at what starts it",
        )
    else:
        yield _finding("machine", "SIGCHLD is not ignored")


def _cgroups() -> Iterator[Finding]:
    from kasmos.sessions.cgroups import NoCgroups, find_cgroups

    # Any path will do: it only gives the group its name.
    found = find_cgroups(Path("/"), delegated=True)
    if isinstance(found, NoCgroups):
        text = (
            f"sessions get no control groups: {found.reason}; a descendant that hides in every other way is not found"
        )
        yield _note("machine", text, found.cure or "nothing needs to be done")
    else:
        yield _finding("machine", f"each session gets a control group in {found.home.rpartition('/')[0]}")


def programs(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look for the programs that kasmos itself uses."""
    path = environ.get("PATH", os.defpath)
    script = 'set -C; trap : TERM; read -r line </proc/self/stat && printf "%s\\n" "$line"'
    shell = shutil.which("sh", path=path)
    if shell is None:
        yield _problem("programs", "sh is not on PATH", "every session is held by a POSIX shell")
    elif not _output([shell, "-c", script]):
        yield _problem(
            "programs", f"{shell} cannot do what sessions need", "put a POSIX shell (dash, bash) first on PATH"
        )
    else:
        yield _finding("programs", f"sh: {Path(shell).resolve()}")
    yield _version("git", ["git", "--version"], path, "agents and worktrees use it: apt-get install git")
    yield _tmux(path)


def _tmux(path: str) -> Finding:
    from kasmos.sessions import tmux

    found = _version("tmux", ["tmux", "-V"], path, 'needed for execution_mode = "tmux": apt-get install tmux')
    version = tmux.parse_version(found.text) if found.level is Level.FINE else None
    if version is not None and version < tmux.OLDEST:
        return _problem("programs", f'{found.text} is too old for execution_mode = "tmux"', tmux.INSTALL)
    return found


def _version(name: str, command: list[str], path: str, cure: str) -> Finding:
    found = shutil.which(name, path=path)
    if found is None:
        return _note("programs", f"{name} is not on PATH", cure)
    said = _output([found, *command[1:]]).strip()
    return _finding("programs", f"{said or name} ({found})")


def state(root: StateRoot) -> Iterator[Finding]:
    """Look at the state root without making it."""
    from kasmos.store.filesystem import filesystem_type, is_network

    kind = filesystem_type(root.path)
    if is_network(kind):
        yield _problem(
            "state",
            f"{root.path} is on a network file system ({kind})",
            "locks do not hold there: choose another place with --state-root or KASMOS_STATE_ROOT",
        )
        return
    existing = next(parent for parent in (root.path, *root.path.parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield _problem(
            "state", f"{existing} is not writable", "choose another place with --state-root or KASMOS_STATE_ROOT"
        )
        return
    status = root.path.stat() if root.path.exists() else None
    if status is not None and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
        yield _problem("state", f"{root.path} is not private", f"chown it to you and chmod 700 {root.path}")
        return
    yield _finding("state", f"{root.path} ({kind or 'unknown file system'}{'' if status else ', not made yet'})")
    space = os.statvfs(existing)
    free = space.f_bavail * space.f_frsize
    if free < LITTLE_SPACE:
        yield _problem("state", f"{render_size(free)} free on the disk", "make room: kas gc --older-than 1d")
    elif space.f_files and space.f_favail < 20 * SESSIONS:
        yield _problem("state", f"{space.f_favail} inodes free on the disk", "make room: kas gc --older-than 1d")
    else:
        yield _finding("state", f"{render_size(free)} free on the disk")


def tmux_server(root: StateRoot, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at the tmux server of this state root, if there is one. Changes nothing in it."""
    from kasmos.sessions import tmux

    socket = tmux.socket_path(root.path, environ.get("XDG_RUNTIME_DIR"))
    found = shutil.which("tmux", path=environ.get("PATH", os.defpath))
    if found is None or not socket.exists():
        return
    command = [found, "-S", str(socket), "-N", "list-sessions", "-F", "#{pid} #{session_name}"]
    lines = [line.split(" ", 1) for line in _output(command).splitlines()]
    if not lines:
        yield _note("state", f"nobody answers on {socket}", "its tmux server has ended, or is stopped (SIGSTOP)")
        return
    count = sum(name != tmux.KEEPER for _, name in lines)
    yield _finding("state", f"its tmux server runs (pid {lines[0][0]}), with {count} sessions")


_GET = {
    "claude": "npm install -g @anthropic-ai/claude-code",
    "codex": "npm install -g @openai/codex",
    "opencode": "npm install -g opencode-ai",
    "gemini": "npm install -g @google/gemini-cli",
    "qwen": "npm install -g @qwen-code/qwen-code",
    "aider": "pipx install aider-chat",
    "mini": "pipx install mini-swe-agent",
}


def agents(config: Config, environ: Mapping[str, str], project: Path) -> Iterator[Finding]:
    """Look for the program of each agent profile."""
    for name, profile in sorted(config.agents.items()):
        if not profile.enabled:
            yield _finding("agents", f"{name}: not enabled")
            continue
        program = profile.program[0]
        # As the session will look for it: its own PATH, relative names from the project.
        path = profile.env.get("PATH", environ.get("PATH", os.defpath))
        found = shutil.which(project / program if "/" in program else program, path=path)
        if found is None:
            cure = _GET.get(Path(program).name)
            yield _problem(
                "agents",
                f"{name}: {program} is not {'there' if '/' in program else 'on PATH'}",
                f"{cure}; or enabled = false" if cure else "install it, or set enabled = false in its profile",
            )
        else:
            yield _finding("agents", f"{name}: {found}")


def _finding(area: str, text: str) -> Finding:
    return Finding(area, Level.FINE, text)


def _note(area: str, text: str, cure: str) -> Finding:
    return Finding(area, Level.NOTE, text, cure)


def _problem(area: str, text: str, cure: str) -> Finding:
    return Finding(area, Level.PROBLEM, text, cure)


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _output(command: list[str]) -> str:
    """What a command prints, empty when it fails or takes long."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
