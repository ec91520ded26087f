"""The state root: the directory in which everything lives that must outlive the supervisor.

Where it is, what is where in it, and what it must be like. It lies outside of the project, because
agents run `git clean -fdx` there; and never on a network file system, where locks do not hold.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import stat
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path

from kasmos.exceptions import StoreError
from kasmos.model.value import frozen
from kasmos.store.filesystem import is_in_memory, refuse_network
from kasmos.store.lock import StateLock, acquire_lock, acquire_lock_nowait, boot_id, read_holder

__all__ = ["StateRoot", "boot_id", "find_state_root", "log_name"]

_SOCKET_LIMIT = 107
"""Bytes of a path in `sockaddr_un`, see unix(7)."""
_NAME_LIMIT = 80


@frozen
class StateRoot:
    """A state root and what is where in it."""

    path: Path
    """Absolute."""
    project: Path | None = None
    """The project it belongs to, if it belongs to one."""
    runtime_dir: Path | None = None
    """Where the socket may go if the path is too long for one: `$XDG_RUNTIME_DIR`."""
    socket_wanted: Path | None = None
    """Where its supervisor puts the socket instead. Absolute; whoever looks for it need not know."""

    @property
    def db(self) -> Path:
        """The journal."""
        return self.path / "state.db"

    @property
    def lock_path(self) -> Path:
        """The lock: one supervisor per state root."""
        return self.path / "lock"

    @property
    def sessions(self) -> Path:
        """The directory with a directory for each session."""
        return self.path / "sessions"

    @property
    def logs(self) -> Path:
        """The directory of links from names to logs."""
        return self.path / "logs"

    @property
    def socket(self) -> Path:
        """The API's socket: where `place_socket` wrote down that it is; if it wrote nothing down, here."""
        try:
            return Path(os.fsdecode(self._socket_record.read_bytes().rstrip(b"\n")))
        except FileNotFoundError:
            inside = self.path / "kas.sock"
            return inside if len(os.fsencode(inside)) <= _SOCKET_LIMIT else self._short_socket()

    @property
    def _socket_record(self) -> Path:
        return self.path / "socket"

    @property
    def in_memory(self) -> bool:
        """Whether it is on no disk: then nobody has to wait for one. Blocks, for a look at the mounts."""
        return is_in_memory(self.path)

    def session_dir(self, session_id: str) -> Path:
        """The directory of a session.

        Raises:
            StoreError: this is no session's id.
        """
        _require_session_id(session_id)
        return self.sessions / session_id

    def prepare(self, *, announce: Callable[[str], None] = lambda text: None) -> None:
        """Make sure that the state root exists, is private, and can be relied on.

        Args:
            announce: is told what is inconvenient but does no harm.

        Raises:
            StoreError: it cannot be used; with the reason and the cure.
        """
        try:
            refuse_network(self.path)
            _make_private(self.path)
            for directory in (self.sessions, self.logs):
                directory.mkdir(mode=0o700, exist_ok=True)
            self._require_space_unless_held()
        except OSError as error:
            raise StoreError(
                f"the state root {self.path} cannot be used: {error.strerror or error}; "
                "choose another one with --state-root or KASMOS_STATE_ROOT"
            ) from error
        self._link_project_logs(announce)

    def place_socket(self) -> None:
        """Write down where the socket is, if that is not in the state root. For who holds the lock.

        Raises:
            StoreError: it cannot be there; with the reason and the cure.
        """
        try:
            self._place_socket()
        except OSError as error:
            raise StoreError(f"the state root {self.path} cannot be used: {error.strerror or error}") from error

    def acquire_lock(self, wait: float) -> AbstractAsyncContextManager[StateLock]:
        """Hold the lock for an `async with`, after waiting for it up to *wait* seconds. See `kasmos.store.lock`."""
        return acquire_lock(self.lock_path, wait)

    def acquire_lock_nowait(self) -> AbstractContextManager[StateLock]:
        """Hold the lock for a `with`, or raise `StateLockedError` at once. See `kasmos.store.lock`."""
        return acquire_lock_nowait(self.lock_path)

    def link_log(self, name: str, session_id: str) -> Path:
        """Point `logs/NAME.log` at a session's output, in place of what it pointed at before, and return it.

        Raises:
            StoreError: the link cannot be made.
        """
        # Texts, not paths: this is done once for each session, in the Trio thread.
        _require_session_id(session_id)
        target = f"../sessions/{session_id}/output.log"
        link = f"{self.path}/logs/{log_name(name)}.log"
        try:
            _replace_link(link, target)
        except OSError as error:
            raise StoreError(f"the link {link} cannot be made: {error.strerror}") from error
        return Path(link)

    def _require_space_unless_held(self) -> None:
        try:
            self.require_space(4096)
        except OSError:
            # A supervisor that is at work copes with a full disk, and has the word: the lock tells who it is.
            if read_holder(self.lock_path) is None:
                raise

    def require_space(self, size: int, directory: Path | None = None) -> None:
        """See whether its disk takes so many bytes, where the journal is or in another directory. Blocks on it.

        Raises:
            OSError: it does not.
        """
        # Some file systems find out only when they write.
        with tempfile.TemporaryFile(dir=directory or self.path) as probe:
            probe.write(bytes(size))
            probe.flush()
            os.fsync(probe.fileno())

    def _place_socket(self) -> None:
        inside = self.path / "kas.sock"
        if self.socket_wanted is not None:
            elsewhere = self._require_fit(self.socket_wanted)
        elif len(os.fsencode(inside)) <= _SOCKET_LIMIT:
            # An earlier supervisor may have had it elsewhere.
            self._socket_record.unlink(missing_ok=True)
            return
        else:
            elsewhere = self._short_socket()
            _make_private(elsewhere.parent)
        record = self._socket_record.with_name("socket.new")
        record.write_bytes(os.fsencode(elsewhere) + b"\n")
        record.replace(self._socket_record)

    def _require_fit(self, socket: Path) -> Path:
        length = len(os.fsencode(socket))
        if length > _SOCKET_LIMIT:
            raise StoreError(
                f"the socket's path {socket} is too long: {length} bytes, and {_SOCKET_LIMIT} is the most; "
                f"use a shorter one, such as {self._short_socket()}, or none: then it is in the state root"
            )
        if not socket.parent.is_dir():
            raise StoreError(f"the socket {socket} cannot be made: there is no directory {socket.parent}")
        return socket

    def _short_socket(self) -> Path:
        name = f"{_digest(self.path)}.sock"
        if self.runtime_dir is not None:
            short = self.runtime_dir / "kasmos" / name
            usable = self.runtime_dir.is_dir() and self.runtime_dir.stat().st_uid == os.geteuid()
            if usable and len(os.fsencode(short)) <= _SOCKET_LIMIT:
                return short
        return Path(f"/tmp/kasmos-{os.geteuid()}", name)  # noqa: S108  # made private, or refused, by `_make_private`

    def _link_project_logs(self, announce: Callable[[str], None]) -> None:
        if self.project is None or not (self.project / ".kasmos").is_dir():
            return
        link = self.project / ".kasmos" / "logs"
        if link.exists() and not link.is_symlink():
            announce(f"{link} is not ours and stays as it is: the logs are in {self.logs}")
            return
        try:
            _replace_link(str(link), str(self.logs))
        except OSError as error:
            announce(f"{link} cannot be made ({error.strerror}): the logs are in {self.logs}")


def find_state_root(
    project: Path,
    *,
    environ: Mapping[str, str],
    override: str | None = None,
    configured: str | None = None,
) -> StateRoot:
    """Say where the state root of *project* is, without touching it.

    In this order: *override* (`--state-root`, relative to the working directory), `KASMOS_STATE_ROOT` (absolute),
    *configured* (the configuration's `state_root`, relative to the project), and a directory of
    the project's own under `$XDG_STATE_HOME/kasmos`.

    Raises:
        StoreError: `KASMOS_STATE_ROOT` is relative, or there is no home directory to put it in.
    """
    project = project.resolve()
    named = environ.get("KASMOS_STATE_ROOT", "")
    if override:
        path = Path.cwd() / _expanded(override, environ)
    elif named:
        path = _expanded(named, environ)
        if not path.is_absolute():
            # It would be another directory for each working directory: two supervisors, and none knows of the other.
            raise StoreError(f"KASMOS_STATE_ROOT is {named!r}: it must be an absolute path")
    elif configured:
        path = project / _expanded(configured, environ)
    else:
        path = _state_home(environ) / "kasmos" / f"{log_name(project.name)}-{_digest(project)}"
    runtime = Path(environ.get("XDG_RUNTIME_DIR", ""))
    return StateRoot(
        # `..` and links are resolved once, so that everybody locks and hashes the same path.
        path=path.resolve(),
        project=project,
        runtime_dir=runtime if runtime.is_absolute() else None,
    )


def log_name(name: str) -> str:
    """A name as part of a file's name: no whitespace, no slash, dots become underscores, not too long."""
    safe = re.sub(r"[./\\\x00-\x1f\x7f]", "_", re.sub(r"\s+", "", name))
    safe = re.sub(r"^-", "_", safe).encode(errors="replace").decode() or "_"
    if len(safe.encode()) <= _NAME_LIMIT:
        return safe
    # The digest keeps two long names apart that begin alike.
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{safe.encode()[: _NAME_LIMIT - 9].decode(errors='ignore')}-{digest}"


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _state_home(environ: Mapping[str, str]) -> Path:
    # A relative path in it is to be ignored, says the XDG base directory specification.
    state_home = Path(environ.get("XDG_STATE_HOME", ""))
    return state_home if state_home.is_absolute() else _home(environ) / ".local" / "state"


def _home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME", "")
    if not os.path.isabs(home):
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            home = ""
    if not os.path.isabs(home):
        raise StoreError("there is no home directory for the state root: set --state-root or KASMOS_STATE_ROOT")
    return Path(home)


def _expanded(text: str, environ: Mapping[str, str]) -> Path:
    if text == "~" or text.startswith("~/"):
        return _home(environ) / text[2:]
    return Path(text)


def _make_private(directory: Path) -> None:
    """Make *directory* with mode 0700, or require of an existing one that only we can write to it."""
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    # Not through a link: in /tmp, anybody could have placed one.
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise StoreError(f"{directory} is a link: name the directory itself")
    if status.st_uid != os.geteuid():
        raise StoreError(
            f"{directory} belongs to another user (uid {status.st_uid}): "
            "run kasmos as that user, or choose another state root with --state-root or KASMOS_STATE_ROOT"
        )
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise StoreError(f"others can write to {directory}: look who did, then `chmod 700 {directory}`")


def _require_session_id(session_id: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", session_id) or len(session_id) > 200:
        raise StoreError(f"{session_id!r} is not the id of a session")


def _replace_link(link: str, target: str) -> None:
    new = f"{link}.new"
    try:
        os.symlink(target, new)
    except FileExistsError:
        # Of a supervisor that was killed between the two steps.
        os.unlink(new)
        os.symlink(target, new)
    os.replace(new, link)
