"""Control groups (cgroup v2): a place for each session that no descendant leaves by accident.

Membership is inherited by fork and survives everything a process can do to itself: a new kernel session, a cleared
environment, closed descriptors. Each session has a group `kasmos-…/SESSION_ID` below the supervisor's own; its shim
enters it before the program starts, doorman and supervisor stay outside. No controller is enabled: the groups say
who belongs to whom, and limit nothing.

One writer: where systemd runs, groups are its own, and only what it has delegated to us (`Delegate=yes`, which it
marks with an attribute of the group) may be divided further. Elsewhere, whoever may write may divide.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kasmos.model.value import frozen
from kasmos.sessions import layout
from kasmos.sessions.processes import is_exhaustion, lease_is_held, read_if_there

PROCS = "cgroup.procs"
_DELEGATED = ("user.delegate", "trusted.delegate")


@frozen
class NoCgroups:
    """Why sessions have no groups here."""

    reason: str
    cure: str = ""


@frozen
class Cgroups:
    """Where the groups of one state root's sessions are."""

    home: str
    """The directory `kasmos-…`; made with the first session, removed with the last."""

    def make(self, session_id: str) -> str:
        """Make a session's group. Returns: its directory.

        Raises:
            OSError: it cannot be made.
        """
        path = f"{self.home}/{session_id}"
        # Whoever leaves, or clears up, removes a home without groups: perhaps just now.
        for _ in range(3):
            with suppress(FileNotFoundError):
                os.mkdir(path)
                return path
            with suppress(FileExistsError):
                os.mkdir(self.home)
        os.mkdir(path)
        return path

    def sessions(self) -> list[str]:
        """Ids of the sessions that have a group here."""
        try:
            return sorted(one.name for one in os.scandir(self.home) if one.is_dir(follow_symlinks=False))
        except OSError:
            return []

    def tidy(self, sessions: Path) -> list[str]:
        """Remove the empty groups that earlier lives left. Returns: the sessions they were of.

        Not those of sessions that are on their way: somebody still has to enter them.

        Args:
            sessions: where the directories of the sessions are.
        """
        return [
            name
            for name in self.sessions()
            if not lease_is_held(f"{sessions}/{name}/{layout.LEASE}") and remove(f"{self.home}/{name}")
        ]

    def close(self) -> None:
        """Remove the home if it holds no group any more."""
        with suppress(OSError):
            os.rmdir(self.home)


def find_cgroups(
    root: Path, *, delegated: bool = False, proc: str = "/proc", systemd: str = "/run/systemd/system"
) -> Cgroups | NoCgroups:
    """Where the sessions of a state root may have their groups, found out by trying.

    Args:
        root: the state root; its sessions are told from others' by its path.
        delegated: whether only a group counts that a service manager has given to us to be divided.
        proc: where the kernel tells of us.
        systemd: what exists while systemd runs.
    """
    own = _own_group(proc)
    if isinstance(own, NoCgroups):
        return own
    if delegated and not _is_delegated(own):
        return NoCgroups(
            f"no service manager has delegated {own} to us",
            'start kasmos as a service with Delegate=yes, or say orchestration.cgroups = "always"',
        )
    if os.path.exists(systemd) and not _is_delegated(own):
        return NoCgroups(
            f"systemd has not delegated {own} to us",
            "start kasmos as a service with Delegate=yes, or with `systemd-run --user --scope -p Delegate=yes kas ...`",
        )
    name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:12]
    found = Cgroups(f"{own}/kasmos-{name}")
    try:
        with suppress(FileExistsError):
            os.mkdir(found.home)
        # A group may be made there, and a process may be moved into it: both need the same right.
        if not os.access(f"{found.home}/{PROCS}", os.W_OK) or not os.access(f"{own}/{PROCS}", os.W_OK):
            found.close()
            return NoCgroups(f"{own}/{PROCS} may not be written", "let kasmos run in a group of its own user")
    except OSError as error:
        return NoCgroups(
            f"no group can be made in {own}: {error.strerror}", "let kasmos run in a group of its own user"
        )
    found.close()
    return found


def _own_group(proc: str) -> str | NoCgroups:
    """The directory of the group we are in."""
    mount: tuple[str, str] | None = None
    with suppress(OSError), open(f"{proc}/self/mountinfo", "rb") as file:
        for line in file.read().decode(errors="surrogateescape").splitlines():
            left, _, right = line.partition(" - ")
            fields = left.split(" ")
            if right.startswith("cgroup2 ") and len(fields) > 4:
                mount = _unescaped(fields[3]), _unescaped(fields[4])
                break
    if mount is None:
        return NoCgroups("no cgroup v2 is mounted")
    path = ""
    with suppress(OSError), open(f"{proc}/self/cgroup", "rb") as file:
        for line in file.read().decode(errors="surrogateescape").splitlines():
            if line.startswith("0::"):
                path = line[3:]
    top, where = mount
    if not path.startswith("/") or path.startswith("/.."):
        return NoCgroups("our own control group cannot be seen from here")
    inside = os.path.relpath(path, top)
    if inside.startswith(".."):
        return NoCgroups(f"our control group {path} is not below what is mounted at {where}")
    return os.path.normpath(f"{where}/{inside}")


def _unescaped(text: str) -> str:
    """As in mountinfo (proc(5)): blanks and backslashes are written in octal."""
    for code, char in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        text = text.replace(code, char)
    return text


def _is_delegated(path: str) -> bool:
    for name in _DELEGATED:
        with suppress(OSError):
            if os.getxattr(path, name) == b"1":
                return True
    return False


def is_beside_us(pid: int, proc: str = "/proc") -> bool:
    """Whether a process is in the same group as we are; False where that cannot be told."""
    found = []
    for who in ("self", pid):
        try:
            with open(f"{proc}/{who}/cgroup", "rb") as file:
                found.append([line for line in file.read().splitlines() if line.startswith(b"0::")])
        except OSError:
            return False
    return bool(found[0]) and found[0] == found[1]


# --- one group ----------------------------------------------------------------------


def members(path: str) -> list[int]:
    """Pids of the processes in a group and in those below it; nobody is in one that is gone.

    Raises:
        OSError: out of descriptors or memory: it cannot be told.
    """
    found: list[int] = []
    for directory in _below(path):
        try:
            with open(f"{directory}/{PROCS}", "rb", buffering=0) as file:
                found += [int(pid) for pid in file.readall().split()]
        except OSError as error:
            # One that is removed at this moment (ENOENT, ENODEV) is empty; one that a program has made a threaded one
            # (EOPNOTSUPP) has its processes in the one above.
            if is_exhaustion(error):
                raise
    return found


def is_populated(path: str) -> bool:
    """Whether anybody is in a group or below it; nobody is in one that is gone.

    Raises:
        OSError: out of descriptors or memory: it cannot be told.
    """
    return b"populated 1" in (read_if_there(f"{path}/cgroup.events", 4096) or b"")


def kill(path: str) -> bool:
    """Have the kernel kill everybody in a group and below, those being forked included; False where it cannot."""
    try:
        fd = os.open(f"{path}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)
    except OSError:
        return False
    return True


def remove(path: str) -> bool:
    """Remove a group and the empty ones below it; False while somebody is in it. One that is gone is removed."""
    try:
        directories = list(_below(path))
    except OSError:
        return False
    for directory in reversed(directories):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def _below(path: str) -> Iterator[str]:
    """A group and all below it, each before what is in it."""
    yield path
    try:
        inner = [one.path for one in os.scandir(path) if one.is_dir(follow_symlinks=False)]
    except OSError as error:
        if is_exhaustion(error):
            raise
        return
    for one in inner:
        yield from _below(one)
