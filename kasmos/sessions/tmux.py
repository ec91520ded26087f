"""The private tmux server of a state root: where it is, how it is started, set up and ended.

The one module that speaks to libtmux, in one thread at a time: set-up, options and teardown are worth a process each.
What is done often goes through `tmux_control`.

Whose a tmux session is, is told by two things together: our socket, in a directory nobody else may enter, and the
token in its option `@kasmos-token`. What lacks either is never listed, changed or ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kasmos.exceptions import BackendUnavailableError
from kasmos.model.value import frozen
from kasmos.sessions import layout

if TYPE_CHECKING:
    import libtmux

OLDEST = (3, 2)
"""The oldest tmux with an environment per session and client flags."""
KEEPER = "_kasmos"
"""The tmux session that holds the server and the control connection; nothing of anybody's runs in it."""
TOKEN = "@kasmos-token"  # noqa: S105  # a name, no secret
SESSION = "@kasmos-session"
SIZE = (200, 50)
"""Columns and rows of a terminal until somebody changes them."""
HISTORY_LINES = 5000
"""Lines above the screen that tmux keeps of each session."""
COMMAND_TIMEOUT = 10.0
"""Seconds a tmux command of the set-up may take."""
INSTALL = "install it (Debian, Ubuntu: apt-get install tmux; Fedora: dnf install tmux)"

_SOCKET_LIMIT = 100
_OPTIONS = (
    ("-s", "exit-empty", "off"),
    ("-s", "escape-time", "20"),
    # An agent must not write into the clipboard of whoever looks at it.
    ("-s", "set-clipboard", "off"),
    ("-g", "update-environment", ""),
    ("-g", "history-limit", str(HISTORY_LINES)),
    ("-g", "default-size", f"{SIZE[0]}x{SIZE[1]}"),
    ("-g", "destroy-unattached", "off"),
    ("-g", "bell-action", "none"),
    # The name of a session is what a person knows it by: it is not to be cut.
    ("-g", "status-left-length", "60"),
    # A last screen can be looked at. Never `-g window-size manual`: that kills tmux 3.3 with all that runs in it.
    ("-gw", "remain-on-exit", "on"),
    ("-gwq", "remain-on-exit-format", ""),
    ("-gw", "automatic-rename", "off"),
    ("-gw", "allow-rename", "off"),
    ("-gw", "monitor-activity", "off"),
)  # fmt: skip


@frozen
class Place:
    """Where the server of a state root is."""

    binary: str
    socket: str
    token: str
    """Proves, with the socket, that a tmux session is ours."""

    @property
    def command(self) -> list[str]:
        """The beginning of every tmux command line."""
        return [self.binary, "-S", self.socket, "-f", "/dev/null"]

    @property
    def control_command(self) -> list[str]:
        """The command line of a control connection; it brings the keeper back if somebody ended it."""
        return [
            *self.command, "-N", "-u", "-C", "new-session", "-A", "-s", KEEPER, "-f", "no-output,ignore-size",
            "exec sleep infinity", ";", "set-option", "-t", f"={KEEPER}:", TOKEN, self.token,
        ]  # fmt: skip

    def attach_command(self, name: str, *, read_only: bool = False) -> list[str]:
        """The command line by which a person's terminal enters this tmux session."""
        return [*self.command, "-u", "attach-session", "-t", f"={name}", *(["-r"] if read_only else [])]


def find_binary(path: str | None = None) -> str:
    """The tmux there is. Runs it to learn its version.

    Raises:
        BackendUnavailableError: there is none, or it is too old.
    """
    found = shutil.which("tmux", path=path)
    if found is None:
        raise BackendUnavailableError(f'execution_mode = "tmux" needs tmux, which is not on PATH: {INSTALL}')
    try:
        said = subprocess.run([found, "-V"], capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BackendUnavailableError(f"{found} cannot be run ({error}): {INSTALL}") from error
    version = parse_version(said)
    if version is not None and version < OLDEST:
        raise BackendUnavailableError(f"{said.strip()} ({found}) is too old, 3.2 is needed: {INSTALL}")
    return found


def parse_version(said: str) -> tuple[int, int] | None:
    """What `tmux -V` says, as numbers; None for a version without any, such as `tmux master`."""
    match = re.search(r"(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else None


def socket_path(root: Path, runtime_dir: str | None = None) -> Path:
    """Where the socket of this state root's server is: inside it, or in a short place if that is too long for one."""
    inside = root / "tmux" / "sock"
    if len(os.fsencode(inside)) <= _SOCKET_LIMIT:
        return inside
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    short = Path(runtime_dir or "/nowhere", "kasmos", f"{digest}-tmux", "sock")
    if runtime_dir and os.path.isdir(runtime_dir) and len(os.fsencode(short)) <= _SOCKET_LIMIT:
        return short
    return Path(f"/tmp/kasmos-{os.geteuid()}", f"{digest}-tmux", "sock")  # noqa: S108  # refused unless it is private


def prepare(root: Path, binary: str, runtime_dir: str | None = None) -> Place:
    """Make the private directory and the token. Blocks on the disk.

    Raises:
        BackendUnavailableError: they cannot be made, or are not private.
    """
    socket = socket_path(root, runtime_dir)
    try:
        for directory in {root / "tmux", socket.parent.parent, socket.parent} - {root}:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = os.lstat(directory)
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise BackendUnavailableError(f"{directory} is not private: chown it to you and chmod 700 it")
        return Place(binary, str(socket), _token(root / "tmux" / "token"))
    except OSError as error:
        raise BackendUnavailableError(f"no place for a tmux server in {root}: {error.strerror}") from error


def _token(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        token = path.read_text().strip()
        if token:
            return token
    token = secrets.token_hex(16)
    fresh = path.with_name("token.new")
    fresh.write_text(token + "\n")
    fresh.replace(path)
    return token


def scope_prefix(environ: Mapping[str, str], euid: int, *, has_manager: bool) -> list[str]:
    """What puts the server into a systemd scope of its own, so that a restart of our unit does not take it down.

    Only where systemd started us (`INVOCATION_ID`) and its manager is there: elsewhere nobody ends a process because
    of the unit it belongs to.
    """
    if not has_manager or "INVOCATION_ID" not in environ:
        return []
    manager = "--system" if euid == 0 else "--user"
    return ["systemd-run", manager, "--scope", "--quiet", "--collect", "--description=kasmos: tmux server", "--"]


def _has_manager() -> bool:
    return os.path.isdir("/run/systemd/system") and shutil.which("systemd-run") is not None


def server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the server itself is given. Sessions get none of it."""
    names = ("PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR")
    return {**{name: environ[name] for name in names if name in environ}, "LC_ALL": "C.UTF-8", "SHELL": "/bin/sh"}


def start(place: Place, environ: Mapping[str, str]) -> str:
    """See to it that the server runs and is set up. In a thread: runs processes.

    Returns: why it is in no scope of its own although systemd runs us; nothing where all is well.

    Raises:
        BackendUnavailableError: it does not start, or does not answer.
    """
    plain = server_environment(environ)
    prefix = scope_prefix(environ, os.geteuid(), has_manager=_has_manager())
    clean = ["env", "-i", *(f"{name}={value}" for name, value in plain.items())]
    command = [*place.command, "new-session", "-d", "-s", KEEPER, "exec sleep infinity"]
    command += [";", "set-option", "-t", f"={KEEPER}:", TOKEN, place.token]
    surroundings = {**plain, **{k: v for k, v in environ.items() if k.startswith(("XDG_", "DBUS_"))}}
    serving = is_serving(place)
    unscoped = ""
    try:
        if serving:
            _end_stale_clients(place)
        else:
            try:
                _run([*prefix, *clean, *command], surroundings)
            except subprocess.CalledProcessError as error:
                # A service with a user of its own as a rule has no manager that would give it a scope.
                if not prefix or is_serving(place):
                    raise
                unscoped = _said(error)
                _run([*clean, *command], surroundings)
        _set_up(place, plain)
    except (OSError, subprocess.SubprocessError) as error:
        raise BackendUnavailableError(f"the tmux server does not start ({_said(error)}): see `kas doctor`") from error
    return unscoped


def _said(error: Exception) -> str:
    """What a command that failed has said of it."""
    said = getattr(error, "stderr", None)
    return said.strip() if isinstance(said, str) and said.strip() else str(error)


def _run(command: Sequence[str], env: Mapping[str, str]) -> str:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=COMMAND_TIMEOUT,
        check=True,
        env=env,
        cwd="/",
        start_new_session=True,
    ).stdout


def _server(place: Place) -> libtmux.Server:
    import libtmux

    return libtmux.Server(socket_path=place.socket, config_file="/dev/null")


def _set_up(place: Place, given: Mapping[str, str]) -> None:
    server = _server(place)
    commands = [["set-option", *option] for option in _OPTIONS]
    # Sessions bring their whole environment along: whatever the server has of its own goes.
    commands += [["set-environment", "-gu", name] for name in (*given, "PWD", "OLDPWD", "SHLVL", "_")]
    words: list[str] = []
    for command in commands:
        words += [";", *command] if words else command
    done = server.cmd(words[0], *words[1:])
    if done.stderr:
        raise OSError("; ".join(done.stderr))


def _end_stale_clients(place: Place) -> None:
    """End the control connections of supervisors that were killed.

    tmux 3.3 waits without end until it has told such a client all that was on its way, and nobody reads that any more:
    neither client nor server would ever end.
    """
    form = "#{client_control_mode} #{client_pid}"
    for line in _server(place).cmd("list-clients", "-t", f"={KEEPER}", "-F", form).stdout:
        control, _, pid = line.partition(" ")
        if control != "1":
            continue
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(int(pid))
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    if os.fsencode(place.socket) in file.read().split(b"\0"):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                        select.select([pidfd], [], [], 1.0)
            finally:
                os.close(pidfd)


def is_serving(place: Place) -> bool:
    """Whether a server answers on the socket.

    Raises:
        BackendUnavailableError: there is one, and it does not answer. libtmux would wait for it without end.
    """
    if not os.path.exists(place.socket):
        return False
    try:
        _run([*place.command, "-N", "display-message", "-p", "here"], server_environment(os.environ))
    except subprocess.TimeoutExpired as error:
        raise BackendUnavailableError(
            f"the tmux server on {place.socket} does not answer within {COMMAND_TIMEOUT:.0f} s: is it stopped?"
        ) from error
    except (OSError, subprocess.SubprocessError):
        return False
    return True


@frozen
class Found:
    """A tmux session on our socket."""

    name: str
    session_id: str
    ours: bool
    dead: bool
    """Whether everybody has let go of its terminal."""


def list_sessions(place: Place) -> list[Found]:
    """Every tmux session on our socket, and whether it is ours. In a thread: runs a process."""
    form = f"#{{session_name}}\t#{{{SESSION}}}\t#{{{TOKEN}}}\t#{{pane_dead}}"
    found = []
    for line in _server(place).cmd("list-sessions", "-F", form).stdout:
        name, session_id, token, dead = [*line.split("\t"), "", "", ""][:4]
        found.append(Found(name, session_id, token == place.token, dead == "1"))
    return found


def clear_dead(place: Place, sessions: Path) -> list[str]:
    """End those tmux sessions of ours that nobody needs any more. In a thread: runs processes.

    These are the dead ones whose last screen was kept, or whose records have been removed: others are still to be
    taken over. Returns: ids of the sessions they were of.
    """
    over = [
        one
        for one in list_sessions(place)
        if one.ours and one.dead and one.session_id
        and ((sessions / one.session_id / layout.SCREEN).exists() or not (sessions / one.session_id).exists())
    ]  # fmt: skip
    for one in over:
        _server(place).cmd("kill-session", "-t", f"={one.name}")
    return [one.session_id for one in over]


def end_if_unused(place: Place, records: Path, *, wait: float = 5.0) -> bool:
    """End the server if nothing but the keeper is left in it. In a thread: runs processes.

    Otherwise it ends by itself with the last session in it.
    """
    if not is_serving(place):
        return True
    clear_dead(place, records)
    sessions = list_sessions(place)
    keeper = [one for one in sessions if one.ours and one.name == KEEPER]
    server = _server(place)
    if len(sessions) > len(keeper):
        server.cmd("set-option", "-s", "exit-empty", "on")
        return False
    pid = server.cmd("display-message", "-p", "#{pid}").stdout
    pidfd = os.pidfd_open(int(pid[0]))
    try:
        _end_stale_clients(place)
        server.kill()
        if not select.select([pidfd], [], [], wait)[0]:
            # It was told to end and waits for a client that does not: nothing of anybody's is in it any more.
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], wait)
    finally:
        os.close(pidfd)
    with contextlib.suppress(OSError):
        os.unlink(place.socket)
    return True
