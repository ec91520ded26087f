"""The leak gate: what a test may not leave behind, how it is found, and how the next test is protected from it.

Looks at four things: processes, descriptors, threads, and Unix sockets that somebody still listens on (a tmux
server, a supervisor). A process belongs to the test if it descends from this one, or if its environment, command line
or working directory names one of the test's own directories: so it is found even after it has left its
kernel session, its parent and every descriptor behind.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import select
import signal
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

PATIENCE = 60.0
"""Seconds that whatever is on its way out may take; nobody waits when nothing is left."""
INTERVAL = 0.02
"""Seconds between two looks at what tells nobody when it goes."""


@attrs.frozen
class Process:
    """A process that is known not to be another one: pid and start time."""

    pid: int
    start: int
    ppid: int
    state: str
    name: str
    why: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name}): {self.why}: {_command_line(self.pid)}"


@attrs.frozen
class Gate:
    """What there was before a test, and whose things are looked for after it."""

    roots: tuple[str, ...]
    """The test's own directories."""
    descriptors: frozenset[tuple[int, str]]
    threads: frozenset[int | None]
    children: frozenset[int]
    everywhere: bool = True
    """Whether the whole process table is searched, or children only."""


def open_gate(roots: Iterable[Path], *, everywhere: bool = True) -> Gate:
    """Remember what there is before a test."""
    return Gate(
        roots=tuple(str(root) for root in roots),
        descriptors=frozenset(_descriptors()),
        # An idle worker may be at work after the test.
        threads=frozenset(thread.ident for thread in threading.enumerate() if not _idle_worker(thread)),
        children=frozenset(_children(os.getpid())),
        everywhere=everywhere,
    )


def close_gate(gate: Gate, *, patience: float = PATIENCE) -> list[str]:
    """Tell what the test left behind that was not there before, after removing it as far as possible.

    Waits up to *patience* seconds for what is on its way out.
    """
    deadline = time.monotonic() + patience
    return [
        *_close_processes(gate, deadline),
        *_close_sockets(gate, deadline),
        *_close_threads(gate, deadline),
        *_close_descriptors(gate, deadline),
    ]


# --- processes --------------------------------------------------------------------


def _close_processes(gate: Gate, deadline: float) -> list[str]:
    left = list(_processes(gate))
    while left and time.monotonic() < deadline:
        _wait_ended(left, min(deadline, time.monotonic() + 0.5))
        left = list(_processes(gate))
    told = [str(process) for process in left]
    # Whoever is killed may have forked just before: until nobody is left, but not for ever.
    for _ in range(20):
        if not left:
            break
        for process in left:
            _kill(process)
        _wait_ended(left, time.monotonic() + 1.0)
        left = list(_processes(gate))
    return told


def _processes(gate: Gate) -> Iterator[Process]:
    own = os.getpid()
    if not gate.everywhere and not _children(own) - gate.children:
        return
    table = _table()
    mine = _descendants(own, table) - gate.children
    roots = [root.encode() for root in gate.roots]
    for process in table.values():
        if process.pid == own:
            continue
        if process.pid in mine:
            # A zombie below a child of ours is that child's to reap.
            if process.state != "Z" or process.ppid == own:
                yield attrs.evolve(process, why="a descendant of the test")
        elif process.state != "Z" and process.pid not in gate.children and _names(process.pid, roots):
            yield attrs.evolve(process, why="it names a directory of the test")


def _table() -> dict[int, Process]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := _process(int(name))) is not None:
            found[process.pid] = process
    return found


def _process(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return Process(pid=pid, start=int(fields[19]), ppid=int(fields[1]), state=fields[0], name=name)


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found.update(map(int, (task / "children").read_text().split()))
        except OSError:
            continue  # the thread has ended
    return found


def _descendants(pid: int, table: dict[int, Process]) -> set[int]:
    below: dict[int, list[int]] = {}
    for process in table.values():
        below.setdefault(process.ppid, []).append(process.pid)
    found: set[int] = set()
    todo = [pid]
    while todo:
        for child in below.get(todo.pop(), ()):
            found.add(child)
            todo.append(child)
    return found


def _names(pid: int, roots: list[bytes]) -> bool:
    for part in ("environ", "cmdline"):
        try:
            text = Path(f"/proc/{pid}/{part}").read_bytes()
        except OSError:
            continue
        if any(root in text for root in roots):
            return True
    try:
        cwd = os.fsencode(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return False
    return any(cwd.startswith(root) for root in roots)


def _command_line(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "gone"
    return text.replace(b"\0", b" ").decode(errors="replace").strip()[:200] or "a zombie"


def _wait_ended(processes: Iterable[Process], deadline: float) -> None:
    for process in processes:
        try:
            fd = os.pidfd_open(process.pid)
        except OSError:
            continue
        try:
            remaining = max(0.0, deadline - time.monotonic())
            select.select([fd], [], [], remaining)
            if process.state == "Z":  # readable at once: give whoever reaps it a moment
                time.sleep(min(0.02, remaining))
        finally:
            os.close(fd)


def _kill(process: Process) -> None:
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        now = _process(process.pid)
        if now is not None and now.start == process.start:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)
    if process.ppid == os.getpid():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, 0)


# --- sockets ----------------------------------------------------------------------


def _close_sockets(gate: Gate, deadline: float) -> list[str]:
    """Listeners whose process could not be recognised: a tmux server that cleared its environment."""
    left = _listeners(gate)
    while left and time.monotonic() < deadline:
        time.sleep(INTERVAL)  # one that is ending has them closed, or is seen no more, before they are gone
        left = _listeners(gate)
    for process in filter(None, map(_process, (pid for owners in left.values() for pid in owners))):
        _kill(process)
        _wait_ended([process], time.monotonic() + 1.0)
    return [f"socket {path}: still listened on by {owners or 'nobody known'}" for path, owners in left.items()]


def _listeners(gate: Gate) -> dict[str, list[int]]:
    """Who listens on sockets in the test's directories. Our own descriptors are counted as such."""
    found = {}
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) < 8 or not any(fields[7].startswith(f"{root}/") for root in gate.roots):
            continue
        if int(fields[3], 16) & 0x10000 and (owners := _owners(f"socket:[{fields[6]}]")) != [os.getpid()]:
            found[fields[7]] = owners
    return found


def _owners(target: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            links = [os.readlink(f"/proc/{name}/fd/{fd}") for fd in os.listdir(f"/proc/{name}/fd")]
        except OSError:
            continue
        if target in links:
            found.append(int(name))
    return found


# --- threads ----------------------------------------------------------------------


def _close_threads(gate: Gate, deadline: float) -> list[str]:
    told = []
    for thread in threading.enumerate():
        if thread.ident in gate.threads:
            continue
        while thread.is_alive() and not _idle_worker(thread) and time.monotonic() < deadline:
            thread.join(INTERVAL)
        if thread.is_alive() and not _idle_worker(thread):
            told.append(f"thread {thread.name!r} is still running")
    return told


def _idle_worker(thread: threading.Thread) -> bool:
    """Trio keeps its worker threads for ten seconds; one that is at work bears the name of its work."""
    return re.fullmatch(r"Trio thread \d+", thread.name) is not None


# --- descriptors ------------------------------------------------------------------


def _descriptors() -> Iterator[tuple[int, str]]:
    for name in os.listdir("/proc/self/fd"):
        try:
            yield int(name), os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that was opened to list them


def _close_descriptors(gate: Gate, deadline: float) -> list[str]:
    gained = set(_descriptors()) - gate.descriptors
    if gained:
        gc.collect()  # what only a cycle of garbage holds is not leaked
        gained = set(_descriptors()) - gate.descriptors
    while gained and time.monotonic() < deadline:
        time.sleep(INTERVAL)  # a thread that has done its work may just be closing its own
        gained = set(_descriptors()) - gate.descriptors
    told = [f"descriptor {fd} -> {target}" for fd, target in sorted(gained)]
    before = {fd for fd, _ in gate.descriptors}
    for fd, _ in gained:
        # One that was open before and now shows something else was replaced: closing it would hurt its owner.
        if fd not in before and not stat.S_ISCHR(os.fstat(fd).st_mode):
            os.close(fd)
    return told
