"""Who was born since a program, told without a look at all of /proc."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kasmos.sessions import births, process_table, processes
from kasmos.sessions.processes import ProcessId


def ended_program() -> ProcessId:
    """A program that has just ended: the identity it had."""
    program = subprocess.Popen(["/bin/sleep", "1000"])
    entry = processes.read_entry(program.pid)
    program.kill()
    program.wait()
    assert entry is not None
    return entry.id


@contextmanager
def program_and_child(*, session: bool = False) -> Iterator[tuple[ProcessId, int]]:
    """A program that has ended, and a process that was born after it and is there."""
    while True:
        program = ended_program()
        child = subprocess.Popen(["/bin/sleep", "1000"], start_new_session=session)
        try:
            # Otherwise the ids have just gone round.
            if child.pid > program.pid:
                yield program, child.pid
                return
        finally:
            child.kill()
            child.wait()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, a program is young and few have come after it."""
    monkeypatch.setattr(births, "YOUNG", 600.0)
    monkeypatch.setattr(births, "FEW", 1_000_000)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("session", [False, True], ids=["same-session", "own-session"])
def test_one_that_was_born_since_is_found(session: bool) -> None:
    """Whoever was born after a program and is still there is asked about, with its kernel session."""
    asked: list[tuple[int, int]] = []

    def belongs(pid: int, sid: int) -> bool:
        asked.append((pid, sid))
        return pid == child

    with program_and_child(session=session) as (program, child):
        assert not births.nobody_since(program, belongs)
    assert (child, child if session else os.getsid(0)) in asked


@pytest.mark.usefixtures("patient")
def test_one_that_is_gone_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that have ended since are not asked about."""
    with program_and_child() as (program, child):
        pass
    monkeypatch.setattr(process_table, "newest_id", lambda: child)
    asked: list[int] = []
    # Strangers of a busy machine may be there.
    assert births.nobody_since(program, lambda pid, sid: bool(asked.append(pid)))
    assert child not in asked


def test_nothing_is_certain_of_a_program_of_more_than_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process ids may have gone round since a program that is old was started."""
    program = ended_program()
    monkeypatch.setattr(births, "YOUNG", -1.0)
    assert not births.nobody_since(program, lambda pid, sid: False)


def test_who_is_held_up_is_not_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program's age is looked at after the newest id: a supervisor that was stopped meanwhile is not fooled."""
    program = ended_program()
    now = 0.0

    def newest() -> int:
        nonlocal now
        now = births.YOUNG + 1
        return program.pid

    monkeypatch.setattr(processes, "age", lambda identity: now)
    monkeypatch.setattr(process_table, "newest_id", newest)
    assert not births.nobody_since(program, lambda pid, sid: False)


@pytest.mark.parametrize("newest", [-1, births.FEW + 1], ids=["gone-round", "too-many"])
def test_nothing_is_certain_where_ids_are_not_as_expected(monkeypatch: pytest.MonkeyPatch, newest: int) -> None:
    """Where the ids have gone round, or too many have been given out, a look at /proc has to tell."""
    program = ended_program()
    monkeypatch.setattr(process_table, "newest_id", lambda: program.pid + newest)
    assert not births.nobody_since(program, lambda pid, sid: False)


def test_nothing_is_certain_where_more_are_born_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever forks as fast as one looks is not missed: a look at /proc has to tell."""
    program = ended_program()
    newest = iter(range(program.pid + 1, program.pid + 100))
    monkeypatch.setattr(process_table, "newest_id", lambda: next(newest))
    assert not births.nobody_since(program, lambda pid, sid: False)


def test_nothing_is_certain_where_it_cannot_be_asked() -> None:
    """A question that cannot be answered, for want of a descriptor, is no answer."""

    def belongs(pid: int, sid: int) -> bool:
        raise OSError(24, "Too many open files")

    with program_and_child() as (program, _):
        assert not births.nobody_since(program, belongs)


def test_nothing_is_certain_where_the_kernel_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container where another file system stands in for /proc/loadavg, what it says is seconds old."""
    program = ended_program()
    monkeypatch.setattr(births, "_can_be_told", lambda: False)
    assert not births.nobody_since(program, lambda pid, sid: False)


def test_the_newest_id_is_the_last_that_was_given_out() -> None:
    """The kernel tells the id of the newest process: one that is started now has it, or somebody came after it."""
    with program_and_child() as (_, child):
        assert process_table.newest_id() >= child
