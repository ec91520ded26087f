"""`kas gc` on a real state root: a journal, directories, links and a lease that is held."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from kasmos.cli.gc import Collected, collect, render_size
from kasmos.model.clock import Clock
from kasmos.model.event import Event, SessionEnded, SessionStarted, SessionStarting
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import ExitStatus, SessionKind
from kasmos.store.journal import open_journal
from kasmos.store.stateroot import StateRoot

from ..conftest import Kas

DAY = 86_400.0
NOW = 1_800_000_000.0


@pytest.fixture
def state(root: Path) -> StateRoot:
    """A state root without sessions."""
    state = StateRoot(root / "state-root")
    state.prepare()
    return state


def starting(session_id: str) -> SessionStarting:
    return SessionStarting(session_id, f"name-{session_id}", SessionKind.AGENT, ExecutionMode.HEADLESS, "boot")


async def journal(state: StateRoot, history: Sequence[tuple[float, Event]]) -> None:
    """Write events, each at its instant."""
    now = 0.0
    async with open_journal(state.db, clock=Clock(wall=lambda: now, mono=lambda: now), announce=pytest.fail) as book:
        for at, event in history:
            now = at
            await book.append(event)


def lived(session_id: str, *, ended_days_ago: float | None) -> list[tuple[float, Event]]:
    history: list[tuple[float, Event]] = [(NOW - 99 * DAY, starting(session_id))]
    if ended_days_ago is None:
        return [*history, (NOW - 99 * DAY, SessionStarted(session_id, pid=1))]
    return [*history, (NOW - ended_days_ago * DAY, SessionEnded(session_id, ExitStatus(code=0)))]


def store(state: StateRoot, session_id: str, *, log: int = 10, recorded: bool = True) -> Path:
    """Make a session's directory and its link, as a session leaves them."""
    directory = state.session_dir(session_id)
    directory.mkdir()
    (directory / "output.log").write_bytes(b"x" * log)
    (directory / "lease").touch()
    (directory / "exit").write_bytes(b"0\n".ljust(32) if recorded else b" " * 32)
    state.link_log(f"name-{session_id}", session_id)
    return directory


def run_gc(
    state: StateRoot, *, older_than: float = 7 * DAY, max_bytes: int | None = None, dry_run: bool = False
) -> Collected:
    return collect(state, now=NOW, older_than=older_than, max_bytes=max_bytes, dry_run=dry_run)


async def test_gc_by_age(state: StateRoot) -> None:
    """Old sessions go with their links; young and live ones stay with theirs; the trash is empty afterwards."""
    await journal(
        state,
        [
            *lived("old", ended_days_ago=8),
            *lived("live", ended_days_ago=None),
            *lived("young", ended_days_ago=1),
        ],
    )
    for session_id in ("old", "young", "live"):
        store(state, session_id)

    result = run_gc(state)

    assert [removal.id for removal in result.removed] == ["old"]
    assert {path.name for path in state.sessions.iterdir()} == {"young", "live"}
    assert {path.name for path in state.logs.iterdir()} == {"name-young.log", "name-live.log"}
    assert result.links == ("name-old.log",)
    assert result.kept == 2
    assert result.failures == ()
    assert not (state.path / "trash").exists()


async def test_gc_by_size(state: StateRoot) -> None:
    """The size that counts is what the disk gives: a log's punched head takes nothing."""
    await journal(state, [*lived("a", ended_days_ago=2), *lived("b", ended_days_ago=1)])
    store(state, "a", log=1 << 20)
    log = store(state, "b") / "output.log"
    os.truncate(log, 1 << 30)

    assert run_gc(state, max_bytes=2 << 20).removed == ()
    assert [removal.id for removal in run_gc(state, max_bytes=1 << 20).removed] == ["a"]


async def test_gc_with_a_held_lease(state: StateRoot) -> None:
    """A session whose lease is held by a process that outlived it stays, whatever the journal says."""
    await journal(state, lived("a", ended_days_ago=8))
    lease = os.open(store(state, "a") / "lease", os.O_RDWR)
    try:
        fcntl.flock(lease, fcntl.LOCK_EX)
        assert run_gc(state).removed == ()
        assert state.session_dir("a").exists()
    finally:
        os.close(lease)
    assert len(run_gc(state).removed) == 1


async def test_gc_dry_run(state: StateRoot) -> None:
    """A dry run names what would go and touches nothing."""
    await journal(state, lived("a", ended_days_ago=8))
    store(state, "a")
    result = run_gc(state, dry_run=True)
    assert [removal.id for removal in result.removed] == ["a"]
    assert result.links == ("name-a.log",)
    assert state.session_dir("a").exists()
    assert (state.logs / "name-a.log").exists()


async def test_gc_after_an_interrupted_one(state: StateRoot) -> None:
    """What an interrupted removal left in the trash is removed by the next one, and dangling links as well."""
    await journal(state, lived("a", ended_days_ago=8))
    store(state, "a")
    trash = state.path / "trash"
    trash.mkdir()
    state.session_dir("a").rename(trash / "a.1")

    result = run_gc(state)

    assert result.removed == ()
    assert result.links == ("name-a.log",)
    assert not trash.exists()


async def test_gc_of_a_session_about_to_be_made(state: StateRoot) -> None:
    """A link whose session is journalled and not made yet is left alone."""
    await journal(state, [(NOW, starting("soon"))])
    state.link_log("soon", "soon")
    assert run_gc(state, older_than=0).links == ()


async def test_gc_of_directories_without_a_history(state: StateRoot) -> None:
    """A directory that the journal lost goes once its own exit record is complete and old enough."""
    await journal(state, lived("other", ended_days_ago=None))
    for session_id, recorded in (("done", True), ("open", False)):
        directory = store(state, session_id, recorded=recorded)
        for path in directory.iterdir():
            os.utime(path, (NOW - 8 * DAY, NOW - 8 * DAY))
    assert [removal.id for removal in run_gc(state).removed] == ["done"]


def test_gc_without_a_state_root(root: Path) -> None:
    """Where nothing ever ran there is nothing to remove, and nothing is made."""
    state = StateRoot(root / "nothing")
    assert run_gc(state).removed == ()
    assert not state.path.exists()


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (200 << 10, "200 KiB"), (3 << 40, "3.0 TiB")],
)
def test_size_for_people(size: int, text: str) -> None:
    """A size is shown with at most three digits after which a unit follows."""
    assert render_size(size) == text


async def test_gc_command(kas: Kas, state: StateRoot) -> None:
    """`kas gc --json` prints what was removed; a wrong age is refused with exit 2."""
    await journal(state, lived("a", ended_days_ago=1000))
    store(state, "a")

    result = kas("--state-root", state.path, "gc", "--json")
    assert result.code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert [removed["id"] for removed in answer["removed"]] == ["a"]
    assert answer["kept"] == 0

    refused = kas("--state-root", state.path, "gc", "--older-than", "yesterday")
    assert refused.code == 2
    assert "--older-than" in refused.stderr
