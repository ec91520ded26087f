"""Where control groups may be made, found out from what the kernel and the service manager say."""

from __future__ import annotations

from pathlib import Path

import pytest

from kasmos.sessions import cgroups
from kasmos.sessions.cgroups import Cgroups, NoCgroups, find_cgroups

MOUNT = "30 24 0:26 {top} {where} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


class Machine:
    """A machine made of files: `proc`, a mounted hierarchy, and perhaps systemd."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.systemd = path / "systemd"
        self.mounted = path / "a mount"
        (path / "proc" / "self").mkdir(parents=True)
        self.say(own="/", top="/")

    def say(self, *, own: str, top: str) -> None:
        where = str(self.mounted).replace(" ", r"\040")
        mounts = "24 1 254:0 / / rw - ext4 /dev/vda rw\n" + MOUNT.format(top=top, where=where)
        (self.path / "proc/self/mountinfo").write_text(mounts)
        (self.path / "proc/self/cgroup").write_text(f"1:cpu:/elsewhere\n0::{own}\n")

    def group(self, name: str) -> Path:
        group = self.mounted / name
        group.mkdir(parents=True, exist_ok=True)
        (group / "cgroup.procs").touch()
        return group

    def find(self) -> Cgroups | NoCgroups:
        return find_cgroups(self.path / "root", proc=str(self.path / "proc"), systemd=str(self.systemd))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def with_procs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every new directory has the file that the kernel would put there."""
    monkeypatch.setattr("os.access", lambda path, mode: True)


@pytest.mark.usefixtures("with_procs")
@pytest.mark.parametrize(
    ("own", "top", "inside"), [("/", "/", "."), ("/a/b", "/", "a/b"), ("/docker/x/in", "/docker/x", "in")]
)
def test_groups_are_made_below_our_own(machine: Machine, own: str, top: str, inside: str) -> None:
    """Sessions have their groups below the group we are in, wherever it is mounted."""
    machine.say(own=own, top=top)
    group = machine.group(inside)
    found = machine.find()
    assert isinstance(found, Cgroups)
    assert Path(found.home).parent == group
    assert list(group.glob("kasmos-*")) == []


@pytest.mark.usefixtures("with_procs")
def test_state_roots_have_homes_of_their_own(machine: Machine) -> None:
    """Two state roots never share groups."""
    machine.group(".")
    one = find_cgroups(machine.path / "one", proc=str(machine.path / "proc"), systemd="/nowhere")
    other = find_cgroups(machine.path / "other", proc=str(machine.path / "proc"), systemd="/nowhere")
    assert one != other


@pytest.mark.usefixtures("with_procs")
def test_what_systemd_has_not_delegated_is_left_alone(machine: Machine) -> None:
    """Where systemd runs, a group without its mark of delegation is not divided, though it could be."""
    group = machine.group(".")
    machine.systemd.mkdir()
    found = machine.find()
    assert isinstance(found, NoCgroups)
    assert "delegated" in found.reason
    assert "Delegate=yes" in found.cure
    assert list(group.glob("kasmos-*")) == []


@pytest.mark.usefixtures("with_procs")
def test_what_systemd_has_delegated_is_ours(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd has marked our group as delegated, it is divided."""
    group = machine.group(".")
    machine.systemd.mkdir()
    marks = {(str(group), "user.delegate"): b"1"}

    def getxattr(path: str, name: str) -> bytes:
        if (path, name) not in marks:
            raise OSError(61, "No data available")
        return marks[path, name]

    monkeypatch.setattr("os.getxattr", getxattr)
    assert isinstance(machine.find(), Cgroups)


def test_delegated_only(tmp_path: Path, machine: Machine) -> None:
    """Asked for a group that was delegated, one that may merely be written is none."""
    found = find_cgroups(tmp_path / "root", delegated=True, proc=str(machine.path / "proc"), systemd="/nowhere")
    assert isinstance(found, NoCgroups)
    assert "delegated" in found.reason


def test_without_cgroups(machine: Machine) -> None:
    """Where no control group can be used, it is said why."""
    (machine.path / "proc/self/mountinfo").write_text("24 1 254:0 / / rw - ext4 /dev/vda rw\n")
    assert machine.find() == NoCgroups("no cgroup v2 is mounted")
    machine.say(own="/elsewhere", top="/docker/x")
    found = machine.find()
    assert isinstance(found, NoCgroups)
    assert "not below" in found.reason
    machine.say(own="/../..", top="/")
    assert machine.find() == NoCgroups("our own control group cannot be seen from here")
    machine.say(own="/gone", top="/")
    found = machine.find()
    assert isinstance(found, NoCgroups)
    assert "no group can be made" in found.reason


def test_a_group_that_is_gone_holds_nobody(tmp_path: Path) -> None:
    """Whatever is asked of a group that was removed, nobody is in it."""
    path = str(tmp_path / "gone")
    assert cgroups.members(path) == []
    assert not cgroups.is_populated(path)
    assert not cgroups.kill(path)
    assert cgroups.remove(path)


def test_groups_within_a_group_count(tmp_path: Path) -> None:
    """Who is in a group that the program made within its own is a member as well."""
    for name, pids in (("s", "7\n"), ("s/a", ""), ("s/a/b", "8\n9\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").write_text(pids)
    assert cgroups.members(str(tmp_path / "s")) == [7, 8, 9]


def test_a_group_that_does_not_tell_is_passed_over(tmp_path: Path) -> None:
    """A group below a session's that cannot be read hides nobody in those that can."""
    (tmp_path / "s/threaded/cgroup.procs").mkdir(parents=True)
    (tmp_path / "s/cgroup.procs").write_text("7\n")
    assert cgroups.members(str(tmp_path / "s")) == [7]
