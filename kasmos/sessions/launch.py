"""How a program is started so that its fate outlives the supervisor: doorman, shim, records.

The **doorman** is the process the supervisor starts: a `sh` in a kernel session of its own. Its subshell
is the **shim**: it claims the session's directory, starts the program, waits for it and records how it ended.
The shim's subshell becomes the program by `exec`. With `output = "pipe"` a **copier** stands between the
program and the log, and a **recorder** (the shim's other subshell) is the program's parent.

Why each line is as it is:

* `trap :` and never `trap ''`: an ignored signal would be inherited by the program, a caught one is not. The
  copier alone ignores signals: it has no program below it, and must outlive what is sent to the whole session.
* Nothing runs in the background (`&`): the shell would have the program ignore SIGINT and SIGQUIT.
* `set -C` makes the creation of `shim` exclusive: of any number of shims started for a directory, one goes on.
* Whoever claimed the directory enters the session's control group, if there is one, and everybody below it is born
  there. A group that cannot be entered keeps nothing from running: the supervisor sees who is in it. `>|`, because
  `set -C` counts what the kernel shows as a file among those that are there already.
* A record is one line; without its final newline it does not exist. If one cannot be written, nothing runs.
* The program waits at the **gate** (standard input, a socket to the supervisor) until its pid was proven, so that
  even the exit of a program that lives for a microsecond is exact. It knocks (one byte) when its record is written;
  so does the copier, through descriptor 3. Nobody listening must not kill it: SIGPIPE is ignored for the knock
  alone. A dead supervisor leaves the gate open: reading gives end-of-file and the program runs. One that gives the
  start up says `no`: then the program does not run, and the record of its pid is taken back.
* `exit` is overwritten in place (`1<>`): its 32 bytes were reserved before the start. So is `lost`, by which the
  copier tells that it had to let output go: when the disk is full there is no other place to say so.
* The copier's `cat` is the supervisor's, by its whole path: the program's PATH need not have one. When it cannot be
  run any more (126, 127) trying again would not help; when it was killed, or could not write, it would.
* Variables are named `_kas_*`, because a shell exports what it finds in its environment: `T` might be the user's.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress

import attrs

from kasmos.exceptions import NoRoomError, SessionStartError
from kasmos.model import codec
from kasmos.model.profile import Limits, OutputMode
from kasmos.model.session import ExitStatus, SessionSpec, StopReason
from kasmos.model.value import define, frozen
from kasmos.sessions import layout
from kasmos.sessions.processes import ProcessEntry, parse_stat

SHIM = r"""_kas_t='HUP INT QUIT TERM USR1 USR2 ALRM PIPE'; trap : $_kas_t
_kas_dir=$1 _kas_in=$2 _kas_cat=$3 _kas_n=$4 _kas_group=$5; shift 5
_kas_run() {
  read -r _kas_s </proc/self/stat; printf '%s\n' "$_kas_s" >pid || exit 125
  trap '' PIPE; printf . >&0; trap - PIPE; read -r _kas_s
  [ "$_kas_s" != no ] || { : >|pid; exit 125; }
  exec <"$_kas_in"; cd "$_kas_dir" || exit 126; ulimit -S -n "$_kas_n"; unset OLDPWD
  exec "$@" 2>&1
}
( trap : $_kas_t; set -C
  read -r _kas_s </proc/self/stat; { printf '%s\n' "$_kas_s" >shim; } 2>/dev/null || exit 125
  [ -z "$_kas_group" ] || printf 0 2>/dev/null >|"$_kas_group"/cgroup.procs
  if [ -n "$_kas_cat" ]; then
    exec 3<&0
    ( exec 3<&-; trap : $_kas_t
      ( _kas_run "$@" ); _kas_c=$?; set +C; printf '%s\n' "$_kas_c" 1<>exit; exit "$_kas_c" ) |
    ( trap '' $_kas_t; read -r _kas_s </proc/self/stat; printf '%s\n' "$_kas_s" >copier
      printf . >&3; exec 3<&-
      until "$_kas_cat"; do _kas_c=$?; printf 'lost\n' 1<>lost
        echo 'kasmos: output was lost: the log could not be written' >&2
        case $_kas_c in 126|127) break;; esac
      done )
  else
    ( _kas_run "$@" ); _kas_c=$?; set +C; printf '%s\n' "$_kas_c" 1<>exit; exit "$_kas_c"
  fi )
exit $?"""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What a disk, or a quota, says that has no room."""
_STOP_REASONS = frozenset(reason.value.encode() for reason in StopReason)
_RECORD_BYTES = 4096
"""What any record fits into."""


@frozen
class CopierLoss:
    """Output that a copier had to let go."""

    count: int | None = None
    """Bytes; None where nobody counted them."""
    at: int | None = None
    """Size of the log when it began."""

    @property
    def reason(self) -> str:
        """In words."""
        return f"{self.count} bytes: the log could not be written" if self.count else "the log could not be written"


class Records:
    """The records in a session's directory. Blocks on the disk; cheap: what was complete once is kept.

    Every look raises `OSError` where a record cannot be read, as opposed to not being there.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._entries: dict[str, ProcessEntry] = {}
        self._exit: ExitStatus | None = None

    @property
    def claimed(self) -> bool:
        """Whether a shim, or a tombstone, has claimed the directory."""
        return os.path.exists(self._path(layout.SHIM))

    def shim(self) -> ProcessEntry | None:
        """The shim as it described itself when it claimed the directory."""
        return self._entry(layout.SHIM)

    def program(self) -> ProcessEntry | None:
        """The program as its process described itself just before `exec`."""
        return self._entry(layout.PID)

    def copier(self) -> ProcessEntry | None:
        """The copier, with `output = "pipe"`."""
        return self._entry(layout.COPIER)

    def exit(self) -> ExitStatus | None:
        """The exit record, if it is complete."""
        if self._exit is None:
            code, _ = self._ending()
            self._exit = None if code is None else ExitStatus.from_shell(code)
        return self._exit

    def stop_reason(self) -> StopReason | None:
        """Why it was stopped, where the journal could not be told."""
        return self._ending()[1]

    def note_stop(self, reason: StopReason) -> None:
        """Write behind how it ended why it was stopped: in place, which needs no room on the disk.

        What has not ended, or says so already, is left as it is; so is what cannot be written.
        """
        code, noted = self._ending()
        if code is None or noted is not None:
            return
        record = f"{code} {reason.value}\n".encode()
        if len(record) <= layout.EXIT_RECORD_BYTES:
            with suppress(OSError), open(self._path(layout.EXIT), "r+b") as file:
                file.write(record)

    def _ending(self) -> tuple[int | None, StopReason | None]:
        """The code in the exit record, and the reason behind it; None for what is not there."""
        code, space, word = (self._line(layout.EXIT) or b"").partition(b" ")
        if not code.isdigit() or (space and word not in _STOP_REASONS):
            return None, None
        return int(code), StopReason(word.decode()) if space else None

    def entomb(self) -> bool:
        """Claim the directory ourselves, so that no shim can run any more; False when it is claimed already."""
        try:
            fd = os.open(self._path(layout.SHIM), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
        except FileExistsError:
            return False
        os.close(fd)
        return True

    def spec(self) -> SessionSpec | None:
        """What was started, without environment values, arguments and prompt; None where nothing was.

        Raises:
            OSError: it cannot be read.
            CodecError: it is damaged, or of another version.
        """
        try:
            with open(self._path(layout.SPEC), "rb") as file:
                return codec.decode(file.read(), SessionSpec)
        except FileNotFoundError:
            return None

    def copier_lost(self) -> CopierLoss | None:
        """What the copier said of output that it could not write."""
        line = self._line(layout.LOST)
        if line is None:
            return None
        words = line.split()[1:]
        known = len(words) == 2 and all(word.isdigit() for word in words)
        return CopierLoss(*map(int, words)) if known else CopierLoss()

    def refused(self) -> bool:
        """Whether there was no room for the record of somebody who has gone, or would be none for one."""
        for name in (layout.SHIM, layout.PID, layout.COPIER):
            content = self._content(name)
            # What was taken back, since the gate was shut, is no record either.
            if content is not None and b"\n" not in content and content != b"no":
                return True
        try:
            with tempfile.TemporaryFile(dir=self._directory, buffering=0) as file:
                file.write(bytes(_RECORD_BYTES))
        except OSError as error:
            return error.errno in NO_ROOM
        return False

    def shim_log(self) -> str:
        """What the shell had to say."""
        try:
            with open(self._path(layout.SHIM_LOG), "rb") as file:
                return file.read()[-2000:].decode(errors="replace").strip()
        except OSError:
            return ""

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"

    def _entry(self, name: str) -> ProcessEntry | None:
        entry = self._entries.get(name)
        if entry is None:
            line = self._line(name)
            try:
                entry = None if line is None else parse_stat(line)
            except (ValueError, IndexError):
                return None
            if entry is not None:
                self._entries[name] = entry
        return entry

    def _line(self, name: str) -> bytes | None:
        line, newline, _ = (self._content(name) or b"").partition(b"\n")
        return line if newline else None

    def _content(self, name: str) -> bytes | None:
        try:
            # Whatever somebody has put in its place: never wait for it.
            fd = os.open(self._path(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                return os.read(fd, 4096)
            finally:
                os.close(fd)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            # Nothing else means "there is none", which is a fact of weight here.
            return None


@define(eq=False)
class Opened:
    """Descriptors of the files of a session's directory that was just made; whoever has it closes it."""

    output: int = -1
    """The log, to append to."""
    errors: int = -1
    """What the shell says, to append to."""
    lease: int = -1
    """To be locked: whoever inherits it then holds the lease."""
    log: int = -1
    """The log, to read."""

    def take_log(self) -> int:
        """The log to read; its receiver closes it."""
        log, self.log = self.log, -1
        return log

    def close(self) -> None:
        """Close what is still here."""
        for fd in (self.output, self.errors, self.lease, self.log):
            if fd >= 0:
                os.close(fd)
        self.output = self.errors = self.lease = self.log = -1


def prepare(directory: str, spec: SessionSpec, boot_id: str) -> None:
    """Make a session's directory with everything the shim needs. Blocks on the disk.

    Raises:
        SessionStartError: it could not be made; what was made of it is removed.
    """
    prepare_opened(directory, spec, boot_id).close()


def prepare_opened(directory: str, spec: SessionSpec, boot_id: str) -> Opened:
    """As `prepare`; what the doorman is given, and what we read, comes out of it open.

    Raises:
        SessionStartError: it could not be made; what was made of it is removed.
    """
    try:
        try:
            os.mkdir(directory, mode=0o700)
        except FileNotFoundError:
            os.makedirs(directory, mode=0o700)
    except OSError as error:
        raise cannot(f"make the session directory {directory}", error) from error
    opened = Opened()
    try:
        _write(f"{directory}/{layout.EXIT}", b" " * layout.EXIT_RECORD_BYTES)
        if spec.has_copier:
            _write(f"{directory}/{layout.LOST}", b" " * layout.EXIT_RECORD_BYTES)
        opened.errors = _create(f"{directory}/{layout.SHIM_LOG}", os.O_WRONLY | os.O_APPEND)
        opened.lease = _create(f"{directory}/{layout.LEASE}", os.O_RDWR)
        opened.output = _create(f"{directory}/{layout.OUTPUT}", os.O_WRONLY | os.O_APPEND)
        opened.log = os.open(f"{directory}/{layout.OUTPUT}", os.O_RDONLY | os.O_CLOEXEC)
        _write(f"{directory}/{layout.PROMPT}", spec.prompt.encode("utf-8", "surrogateescape"))
        if spec.asks:
            os.mkdir(f"{directory}/{layout.ASKS}", mode=0o700)
        if spec.script is not None:
            _write(f"{directory}/{layout.SCRIPT}", spec.script.encode("utf-8", "surrogateescape"))
        if spec.context is not None:
            _write(f"{directory}/{layout.CONTEXT}", spec.context.encode("utf-8", "surrogateescape"))
        # Last: a directory without it was never spawned in.
        _write(f"{directory}/{layout.SPEC}", _stored(spec, boot_id))
    except OSError as error:
        opened.close()
        discard(directory)
        raise cannot(f"write to {directory}", error) from error
    except BaseException:
        opened.close()
        raise
    return opened


def cannot(what: str, error: OSError) -> SessionStartError:
    """The error for what could not be done on the disk in order to start a session."""
    kind = NoRoomError if error.errno in NO_ROOM else SessionStartError
    return kind(f"cannot {what}: {error.strerror or error}")


def discard(directory: str) -> None:
    """Remove a session's directory, without needing a descriptor for it; what cannot be removed stays."""
    for name in layout.ALL:
        with suppress(OSError):
            os.unlink(f"{directory}/{name}")
    with suppress(OSError):
        os.rmdir(f"{directory}/{layout.ASKS}")
    with suppress(OSError):
        os.rmdir(directory)


def _stored(spec: SessionSpec, boot_id: str) -> bytes:
    # Names of the environment are worth keeping, values may be secrets; so may arguments, and the prompt is one of them
    # for most programs. Prompt, script and context have own files.
    env = dict.fromkeys(spec.env, "")
    plain = attrs.evolve(spec, argv=spec.argv[:1], env=env, prompt="", script=None, context=None, boot_id=boot_id)
    return codec.encode(plain)


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _write(path: str, data: bytes) -> None:
    fd = _create(path, os.O_WRONLY)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def doorman_command(directory: str, spec: SessionSpec, soft_nofile: int) -> list[str]:
    """The command that is started in *directory* with the gate as its standard input.

    Raises:
        SessionStartError: the program, or a tool its limits or its output need, is not there; or the directory it
            should run in.
    """
    argv = program_command(directory, spec)
    source = layout.PROMPT if spec.stdin_prompt else "/dev/null"
    copier = _own_tool("cat") if spec.output is OutputMode.PIPE else ""
    return ["/bin/sh", "-c", SHIM, "kasmos", spec.cwd, source, copier, str(soft_nofile), spec.cgroup, *argv]


def program_command(directory: str, spec: SessionSpec) -> list[str]:
    """The program's own command line, limits included.

    Raises:
        SessionStartError: the program, or a tool its limits need, is not there; or the directory it should run in.
    """
    if not os.path.isdir(spec.cwd):
        raise SessionStartError(f"the working directory {spec.cwd} does not exist")
    program = [_substitute(word, directory) for word in spec.argv]
    prefix = limit_prefix(spec.limits)
    for word in {program[0], *(word for word in prefix if word in ("nice", "ionice", "prlimit"))}:
        resolve(word, spec.env, spec.cwd)
    return prefix + _mediator(directory, spec) + program


def _mediator(directory: str, spec: SessionSpec) -> list[str]:
    """What stands before a program that is spoken to over a protocol."""
    if not spec.protocol:
        return []
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mediator", "__main__.py")
    words = [spec.protocol, f"{directory}/{layout.ASKS}", spec.conversation, f"{spec.handshake_timeout:g}"]
    return [sys.executable, "-I", script, *words, "--"]


def _own_tool(name: str) -> str:
    """The absolute path of a tool that is ours, not the program's."""
    found = shutil.which(name)
    if found is None:
        raise SessionStartError(f"{name!r}, which copies the output, was not found on PATH")
    return os.path.abspath(found)


def _substitute(word: str, directory: str) -> str:
    return (
        word.replace("{prompt_file}", f"{directory}/{layout.PROMPT}")
        .replace("{script_file}", f"{directory}/{layout.SCRIPT}")
        .replace("{kasmos_mailbox}", f"{directory}/{layout.ASKS}")
    )


def resolve(program: str, env: Mapping[str, str], cwd: str) -> str:
    """The path of a program as the child's own PATH gives it.

    Raises:
        SessionStartError: there is none, or it may not be executed.
    """
    if "/" in program:
        path = os.path.join(cwd, program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
        what = "is not executable" if os.path.exists(path) else "does not exist"
        raise SessionStartError(f"the program {program} {what}")
    found = shutil.which(program, path=env.get("PATH", os.defpath))
    if found is None:
        raise SessionStartError(
            f"the program {program!r} was not found on PATH; install it or give its path as `program`"
        )
    return found


def limit_prefix(limits: Limits) -> list[str]:
    """The commands that set resource limits and then become the program by `exec`: same process, same pid."""
    prefix: list[str] = []
    if limits.nice is not None:
        prefix += ["nice", "-n", str(limits.nice)]
    if limits.ionice is not None:
        kind, _, level = limits.ionice.partition(":")
        number = {"realtime": "1", "best-effort": "2", "idle": "3"}[kind]
        prefix += ["ionice", "-c", number, *(["-n", level] if level else [])]
    if limits.rlimits:
        prefix += ["prlimit", *(f"--{name}={value}:{value}" for name, value in limits.rlimits.items()), "--"]
    return prefix
