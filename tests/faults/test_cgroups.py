"""Descendants that hide in every way but one, and control groups that are not as they should be."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from kasmos.exceptions import SessionStartError
from kasmos.model.event import LeftoversFound
from kasmos.model.session import CgroupUse, ExitStatus, Leftover, SessionSpec
from kasmos.sessions import cgroups, headless
from kasmos.sessions.cgroups import Cgroups, NoCgroups, find_cgroups

from ..conftest import Kas
from .conftest import Ground, alive, ended, everything, kill, needs_exit_info, until, wrote

HIDE = """
import os, sys
ours, theirs = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.write(theirs, str(os.getpid()).encode())
    os.closerange(0, 256)
    os.execve(sys.argv[1], [sys.argv[1], "1000"], {})
print(os.read(ours, 99).decode(), flush=True)
"""
"""Starts a program in a kernel session of its own, without environment and descriptors, and says its pid."""


@pytest.fixture
def place(ground: Ground) -> Cgroups:
    """Where the sessions of this ground have their groups."""
    found = find_cgroups(ground.root / "root")
    if isinstance(found, NoCgroups):
        pytest.skip(f"needs a control group (v2) that may be divided: {found.reason}")
    return found


def hider(ground: Ground, then: str = "", what: str = "/bin/sleep") -> SessionSpec:
    return ground.spec("/usr/bin/env", "python3", "-c", HIDE + then, what)


def found(ground: Ground) -> dict[int, Leftover]:
    return {one.pid: one for event in ground.told(LeftoversFound) for one in event.leftovers}


def is_gone(place: Cgroups) -> bool:
    return not os.path.exists(place.home)


async def test_nobody_leaves_its_group_by_hiding(ground: Ground, place: Cgroups) -> None:
    """A descendant without environment, descriptors or kernel session in common is found and stopped."""
    async with ground.opened(hider(ground), with_cgroups=CgroupUse.ALWAYS) as session:
        assert await ended(session) == ExitStatus(code=0)
        pid = int(await everything(session))
        assert not alive(pid)
        assert (found(ground)[pid].action, found(ground)[pid].reason) == ("stopped", "known by cgroup")
        assert place.sessions() == []
    assert is_gone(place)


async def test_without_a_group_who_hides_well_is_not_found(ground: Ground) -> None:
    """The group is what finds such a descendant: without one it lives on."""
    async with ground.opened(hider(ground)) as session:
        await ended(session)
        pid = int(await everything(session))
    assert alive(pid)
    kill(pid)


async def test_a_stop_reaches_who_hides(ground: Ground, place: Cgroups) -> None:
    """Leaving a session's scope ends who has hidden as well."""
    async with ground.opened(hider(ground, "import time; time.sleep(1000)"), with_cgroups=CgroupUse.ALWAYS) as session:
        pid = int(await wrote(session, b"\n"))
        assert alive(pid)
    assert not alive(pid)
    assert is_gone(place)


@needs_exit_info
async def test_the_next_supervisor_finds_who_hides(ground: Ground, place: Cgroups) -> None:
    """A session that is adopted is known with its group: what hides in it is stopped, and the group removed."""
    spec = hider(ground, "import time; time.sleep(1000)")
    async with ground.opened(spec, with_cgroups=CgroupUse.ALWAYS) as session:
        pid = int(await wrote(session, b"\n"))
        program = session.pid
        session.detach()
    assert program is not None
    assert alive(pid)
    assert place.sessions() == [spec.id]
    async with ground.adopted(spec, with_cgroups=CgroupUse.ALWAYS) as session:
        kill(program)
        assert await ended(session) == ExitStatus(signal=9)
        assert not alive(pid)
        assert found(ground)[pid].reason == "known by cgroup"
    assert is_gone(place)


async def test_a_daemon_of_the_user_is_spared_in_a_group_too(ground: Ground, place: Cgroups) -> None:
    """What is known to be a daemon of the user's is reported; its group goes when it has ended, by a later life."""
    agent = ground.root / "ssh-agent"
    agent.symlink_to("/bin/sleep")
    spec = hider(ground, what=str(agent))
    async with ground.opened(spec, with_cgroups=CgroupUse.ALWAYS) as session:
        await ended(session)
        pid = int(await everything(session))
        assert alive(pid)
        assert found(ground)[pid].action == "reported"
    assert place.sessions() == [spec.id]
    kill(pid)
    await until(lambda: not cgroups.is_populated(f"{place.home}/{spec.id}"))
    async with ground.backend(with_cgroups=CgroupUse.ALWAYS):
        assert place.sessions() == []
    assert is_gone(place)


async def test_the_doorman_stays_outside(ground: Ground, place: Cgroups) -> None:
    """The shim and everybody below it are in the group, its doorman and its supervisor are not."""
    async with ground.opened(ground.sh("echo ready; exec sleep 1000"), with_cgroups=CgroupUse.ALWAYS) as session:
        await wrote(session, b"ready\n")
        shim = ground.records(session.spec).shim()
        assert shim is not None
        inside = set(cgroups.members(f"{place.home}/{session.spec.id}"))
        assert inside == {shim.id.pid, session.pid}


@needs_exit_info
async def test_the_kernel_ends_a_group_as_a_whole(ground: Ground, place: Cgroups) -> None:
    """A group that is killed is empty, whatever is being forked in it."""
    script = "while :; do sleep 1000 & done"
    async with ground.opened(ground.sh("echo ready; " + script), with_cgroups=CgroupUse.ALWAYS) as session:
        await wrote(session, b"ready\n")
        path = f"{place.home}/{session.spec.id}"
        assert cgroups.kill(path)
        assert (await ended(session)).signal == 9
        assert not cgroups.is_populated(path)


async def test_a_group_that_cannot_be_made(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no group can be made any more, sessions run without one, and that is said once."""
    monkeypatch.setattr(headless, "find_cgroups", lambda root, **_: Cgroups("/proc/kasmos-nowhere"))
    async with ground.backend(with_cgroups=CgroupUse.ALWAYS) as backend:
        for _ in range(2):
            async with backend.open(ground.sh("exit 3"), notify=ground.notify) as session:
                assert await ended(session) == ExitStatus(code=3)
    assert len(ground.warnings) == 1
    assert "no control group can be made" in ground.warnings[0]


async def test_a_group_that_cannot_be_entered(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a group cannot be entered the program runs without it, and that is said once."""
    monkeypatch.setattr(headless, "find_cgroups", lambda root, **_: Cgroups(str(ground.root / "none")))
    async with ground.backend(with_cgroups=CgroupUse.ALWAYS) as backend:
        for _ in range(2):
            async with backend.open(ground.sh("exit 3"), notify=ground.notify) as session:
                assert await ended(session) == ExitStatus(code=3)
    assert len(ground.warnings) == 1
    assert "cannot be entered" in ground.warnings[0]


async def test_a_start_that_fails_leaves_no_group(ground: Ground, place: Cgroups) -> None:
    """A session that could not be started leaves no group behind."""
    async with ground.backend(with_cgroups=CgroupUse.ALWAYS) as backend:
        with pytest.raises(SessionStartError, match="does not exist"):
            async with backend.open(ground.spec("/nowhere/program"), notify=ground.notify):
                pass
        assert place.sessions() == []
    assert is_gone(place)


def test_who_is_on_the_way_keeps_the_group(ground: Ground, place: Cgroups) -> None:
    """Empty groups of earlier lives are removed, but not the one of a session whose lease is held."""
    place.make("gone")
    coming = Path(place.make("coming"))
    sessions = ground.root / "root" / "sessions"
    (sessions / "coming").mkdir(parents=True)
    with open(sessions / "coming" / "lease", "wb") as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        assert place.tidy(sessions) == ["gone"]
        assert coming.exists()
    assert place.tidy(sessions) == ["coming"]
    place.close()
    assert is_gone(place)


def test_gc_removes_empty_groups(kas: Kas, root: Path) -> None:
    """`kas gc` removes the empty groups that a killed supervisor left."""
    place = find_cgroups(root / "state")
    if isinstance(place, NoCgroups):
        pytest.skip(f"needs a control group (v2) that may be divided: {place.reason}")
    env = {"KASMOS_STATE_ROOT": str(root / "state")}
    (kas.cwd / "plan.md").write_text("# x\n## Wave 1\n### Task 1: t\n```sh\ntrue\n```\n")
    assert kas("run", "plan.md", "--agent", "shell", env=env).code == 0
    place.make("left")
    assert kas("gc", env=env).code == 0
    assert is_gone(place)
