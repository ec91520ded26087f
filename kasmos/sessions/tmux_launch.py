"""How a program is started in a pane, so that its fate outlives supervisor and tmux server alike.

The same recipe, records and claim as in `launch`; what differs, and why:

* The pane is forked by the tmux server, so the shim takes the lease itself.
* Nothing stands between the program and its terminal: it is in the foreground of a kernel session of its own, whose
  controlling terminal the pane is. The shells above it catch what the terminal sends and do not read from it.
* The gate is a FIFO. The supervisor holds it open; opened for both before it is opened for reading, so that the opening
  does not wait for a supervisor that is dead, whose end is the end of the file: the gate is open then.
* The output goes through the **logger** (`tmux_logger`), a copier that tmux feeds (`pipe-pane`). It is attached by the
  same line that makes the pane, so nothing can come between the two, and it belongs to the tmux server: it outlives
  the supervisor.
* The doorman is the last to go, once the **logger has heard all**: tmux gives a terminal up when its first process has
  ended, whether it has read it to the end or not. So the doorman writes a mark, which terminals ignore, behind all that
  was written, and waits at a FIFO, `heard`, that the logger holds open until it meets the mark, or ends. No supervisor
  is needed for that.
* What the server has of an environment is none of the program's business: variables that tmux adds are taken away, but
  for TERM, which must be the pane's.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys

from kasmos.exceptions import SessionStartError
from kasmos.model.session import SessionSpec
from kasmos.sessions import launch, layout, tmux_logger

PANE = r"""_kas_t='HUP INT QUIT TERM USR1 USR2 ALRM PIPE TSTP TTOU TTIN'; trap : $_kas_t
cd "$1" || exit 125; exec 2>>shim.log; _kas_dir=$2 _kas_n=$3 _kas_flock=$4 _kas_shell=$5
_kas_group=$6; shift 6
( trap : $_kas_t
  exec 9<>lease; "$_kas_flock" -n 9 || exit 125
  set -C; read -r _kas_s </proc/self/stat; { printf '%s\n' "$_kas_s" >shim; } 2>/dev/null || exit 125
  [ -z "$_kas_group" ] || printf 0 2>/dev/null >|"$_kas_group"/cgroup.procs
  ( exec 8<>gate; exec 7<gate 8>&-
    read -r _kas_s </proc/self/stat; printf '%s\n' "$_kas_s" >pid || exit 125
    read -r _kas_s <&7
    [ "$_kas_s" != no ] || { printf no >|pid; exit 125; }
    exec 7<&-; cd "$_kas_dir" || exit 126; ulimit -S -n "$_kas_n"; unset OLDPWD
    unset TMUX TMUX_PANE TERM_PROGRAM TERM_PROGRAM_VERSION
    if [ -n "$_kas_shell" ]; then SHELL=$_kas_shell; else unset SHELL; fi
    exec "$@" 2>&1 ); _kas_c=$?
  set +C; printf '%s\n' "$_kas_c" 1<>exit; exit "$_kas_c" )
_kas_c=$?; trap '' $_kas_t
command exec 8<>heard && command exec 7<heard 8>&- &&
printf '\030\033^kasmos %s\033\\' "${PWD##*/}" && read -r _kas_s <&7
exit $_kas_c"""

LOGGER = r"""cd "$1" || exit; trap '' HUP INT QUIT TERM USR1 USR2 ALRM PIPE TSTP
exec 2>>shim.log
no() { echo "the output log cannot be attached: $1" >&2; exec 3>&-; echo no >gate; exit 1; }
[ -x "$2" ] && [ -r "$3" ] || no "$2 $3 is not there"
command exec 3<>heard || no "it cannot tell what it has heard"
read -r s </proc/self/stat; { printf '%s\n' "$s" >copier; } 2>/dev/null || no "no place for its record"
exec "$2" -I -S "$3" "${1##*/}"
"""
"""Attached before the program may run; where it cannot be, it shuts the gate, so that nothing runs unheard."""


def pane_command(directory: str, spec: SessionSpec, soft_nofile: int) -> list[str]:
    """The command of the pane.

    Raises:
        SessionStartError: the program, or a tool that is needed, is not there; or the directory it should run in.
    """
    if spec.stdin_prompt:
        raise SessionStartError('in tmux standard input is the terminal: use prompt = "argument" or "file"')
    argv = launch.program_command(directory, spec)
    shell = spec.env.get("SHELL", "")
    return [
        "/bin/sh", "-c", PANE, "kasmos",
        directory, spec.cwd, str(soft_nofile), _own_tool("flock"), shell, spec.cgroup, *argv
    ]  # fmt: skip


def logger_command(directory: str) -> str:
    """The command of `pipe-pane`."""
    words = ["/bin/sh", "-c", LOGGER, "kasmos", directory, sys.executable, tmux_logger.__file__]
    # tmux expands formats and times in it.
    return "exec " + shlex.join(words).replace("%", "%%").replace("#", "##")


def new_session(name: str, directory: str, spec: SessionSpec, command: list[str], size: tuple[int, int]) -> list[str]:
    """The tmux command that makes the session and prints its pane's id and process."""
    given = [word for key, value in pane_environment(spec).items() for word in ("-e", f"{key}={value}")]
    return [
        "new-session", "-d", "-P", "-F", "#{pane_id} #{pane_pid}", "-s", name, "-n", _plain(spec.name) or "agent",
        "-x", str(size[0]), "-y", str(size[1]), "-c", directory.replace("#", "##"), *given, *command,
    ]  # fmt: skip


def pane_environment(spec: SessionSpec) -> dict[str, str]:
    """The program's environment, without what tmux sets by itself."""
    return {name: value for name, value in spec.env.items() if name not in ("TERM", "SHELL", "TMUX", "TMUX_PANE")}


def tmux_name(session_id: str) -> str:
    """A session's name in tmux, where colon and dot mean something."""
    return _plain(session_id)


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


def make_gate(directory: str) -> int:
    """Make the FIFOs, and hold the gate open. Returns: the descriptor to open it by.

    Raises:
        SessionStartError: the file system has no FIFOs or no room, or no descriptor is left.
    """
    gate = f"{directory}/{layout.GATE}"
    try:
        os.mkfifo(f"{directory}/{layout.HEARD}", 0o600)
        os.mkfifo(gate, 0o600)
        return os.open(gate, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise launch.cannot(f"make the gate in {directory}", error) from error


def _own_tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SessionStartError(f"{name!r}, which holds sessions in tmux, was not found on PATH")
    return os.path.abspath(found)
