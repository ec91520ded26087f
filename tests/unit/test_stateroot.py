"""Where the state root is, what it must be like, and what is where in it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from kasmos.exceptions import StoreError
from kasmos.store.filesystem import filesystem_type, is_network, refuse_network
from kasmos.store.stateroot import StateRoot, find_state_root, log_name

MOUNTS = """\
22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /home rw - nfs4 server:/home rw,vers=4.2
31 30 0:27 / /home/ann/my\\040disk rw - ext4 /dev/vdb rw
32 22 0:28 / /mnt/c rw - 9p C:\\134 rw
33 22 0:29 / /data rw shared:2 master:1 - fuse.sshfs host:/data rw
34 22 0:30 / /data2 rw - tmpfs none rw
35 22 0:31 / /data2 rw - cifs //server/share rw
not a mount at all
"""


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/", "ext4", False),
        ("/homework/x", "ext4", False),
        ("/home/ann", "nfs4", True),
        ("/home/ann/my disk/x/y", "ext4", False),
        ("/mnt/c/users", "9p", True),
        ("/data/x", "fuse.sshfs", True),
        ("/data2", "cifs", True),
    ],
)
def test_filesystem_of_a_path(path: str, kind: str, network: bool) -> None:
    """The file system of a path is that of the innermost and newest mount over it."""
    assert filesystem_type(Path(path), MOUNTS) == kind
    assert is_network(kind) is network


def test_network_file_system_is_refused() -> None:
    """A state root on a network file system is refused with its reason and a cure; a local one is not."""
    with pytest.raises(StoreError, match=r"network file system \(nfs4\), where locks do not hold.*--state-root"):
        refuse_network(Path("/home/somebody/.local/state/kasmos/x"), MOUNTS)
    refuse_network(Path("/var/lib"), MOUNTS)


@pytest.mark.parametrize("kind", ["", "overlay", "btrfs", "tmpfs", "fuse.fuse-overlayfs", "fuseblk", "virtiofs"])
def test_local_file_systems_are_accepted(kind: str) -> None:
    """A file system that lives on this machine, or that is not known at all, is accepted."""
    assert not is_network(kind)


def test_this_machine_has_a_file_system() -> None:
    """The kernel's own list of mounts is understood."""
    assert filesystem_type(Path("/proc/self")) == "proc"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "my.project"
    project.mkdir()
    return project


def test_default_place(project: Path, tmp_path: Path) -> None:
    """Without any wish, a project's state is under XDG_STATE_HOME, named after the project and its path."""
    root = find_state_root(project, environ={"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": "/home/ann"})
    assert root.path.parent == tmp_path / "state" / "kasmos"
    assert root.path.name.startswith("my_project-")
    assert root.project == project
    assert not root.path.exists()


@pytest.mark.parametrize("state_home", [{}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "relative"}])
def test_default_place_without_state_home(project: Path, state_home: dict[str, str]) -> None:
    """An XDG_STATE_HOME that is missing, empty or relative is ignored, as its specification says."""
    root = find_state_root(project, environ={"HOME": "/home/ann", **state_home})
    assert root.path.parent == Path("/home/ann/.local/state/kasmos")


def test_projects_of_one_name_are_apart(tmp_path: Path) -> None:
    """Two projects never share a default state root, and one project has one, however it is named."""
    environ = {"HOME": "/home/ann"}
    for name in ("a", "b"):
        (tmp_path / name / "app").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "app")
    first = find_state_root(tmp_path / "a" / "app", environ=environ)
    assert first.path != find_state_root(tmp_path / "b" / "app", environ=environ).path
    assert first == find_state_root(tmp_path / "link", environ=environ)
    assert first == find_state_root(tmp_path / "b" / ".." / "a" / "app", environ=environ)


def test_order_of_wishes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag wins over the environment, that over the configuration; each is relative to what its author means."""
    monkeypatch.chdir(project.parent)
    environ = {"HOME": "/home/ann", "KASMOS_STATE_ROOT": "/env/root"}
    assert find_state_root(project, environ=environ, override="flag", configured="c").path == project.parent / "flag"
    assert find_state_root(project, environ=environ, configured="c").path == Path("/env/root")
    assert find_state_root(project, environ={}, configured="../c").path == project.parent / "c"
    assert find_state_root(project, environ={"HOME": "/home/ann"}, override="~/s").path == Path("/home/ann/s")


def test_relative_path_in_the_environment_is_refused(project: Path) -> None:
    """A relative KASMOS_STATE_ROOT would be another directory for each working directory, and is refused."""
    with pytest.raises(StoreError, match=r"KASMOS_STATE_ROOT is 'state'.*absolute"):
        find_state_root(project, environ={"KASMOS_STATE_ROOT": "state"})


def test_prepare_makes_a_private_directory(project: Path, tmp_path: Path) -> None:
    """`prepare` makes the state root and what belongs into it for its owner alone, and may be repeated."""
    root = StateRoot(tmp_path / "deep" / "root", project)
    old = os.umask(0)
    try:
        root.prepare()
    finally:
        os.umask(old)
    root.prepare()
    for directory in (root.path, root.sessions, root.logs, root.path.parent):
        assert directory.stat().st_mode & 0o777 == 0o700
    assert sorted(file.name for file in root.path.iterdir()) == ["logs", "sessions"]


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_prepare_refuses_what_others_can_write(tmp_path: Path, mode: int) -> None:
    """A state root that others can write to is refused, with the command that cures it, and not changed."""
    root = StateRoot(tmp_path / "root")
    root.path.mkdir()
    root.path.chmod(mode)
    with pytest.raises(StoreError, match=f"others can write.*chmod 700 {root.path}"):
        root.prepare()
    assert root.path.stat().st_mode & 0o777 == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_prepare_refuses_what_belongs_to_others(tmp_path: Path) -> None:
    """A state root of another user is refused with that user's number."""
    root = StateRoot(tmp_path / "root")
    root.path.mkdir(mode=0o700)
    os.chown(root.path, 12345, -1)
    with pytest.raises(StoreError, match="uid 12345"):
        root.prepare()


def test_prepare_refuses_what_is_no_directory(tmp_path: Path) -> None:
    """A state root that is a file, below a file, or a link, is refused with a way out."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "file/below", "link"):
        with pytest.raises(StoreError, match=name.rpartition("/")[0] or name):
            StateRoot(tmp_path / name).prepare()
    assert (tmp_path / "file").read_text() == "mine"


def test_logs_are_linked_into_the_project(project: Path, tmp_path: Path) -> None:
    """A project that has a .kasmos directory finds its logs there; one that has none is not touched."""
    root = StateRoot(tmp_path / "root", project)
    root.prepare()
    assert list(project.iterdir()) == []
    (project / ".kasmos").mkdir()
    (project / ".kasmos" / "logs").symlink_to("/nowhere")
    root.prepare()
    assert (project / ".kasmos" / "logs").readlink() == root.logs


def test_a_directory_of_logs_is_not_overwritten(project: Path, tmp_path: Path) -> None:
    """A real directory in place of the link to the logs stays as it is, and that is said."""
    root = StateRoot(tmp_path / "root", project)
    mine = project / ".kasmos" / "logs"
    mine.mkdir(parents=True)
    (mine / "precious").write_text("x")
    said: list[str] = []
    root.prepare(announce=said.append)
    assert (mine / "precious").read_text() == "x"
    assert len(said) == 1
    assert str(root.logs) in said[0]


def test_socket_in_the_state_root(tmp_path: Path) -> None:
    """The socket is in the state root if its path fits into a socket's address, to the byte."""
    short = StateRoot(Path("/" + "x" * (107 - len("//kas.sock"))))
    assert short.socket == short.path / "kas.sock"
    assert len(bytes(short.socket)) == 107
    assert StateRoot(Path(f"{short.path}x")).socket.name != "kas.sock"


def long_root(tmp_path: Path, runtime_dir: Path | None) -> StateRoot:
    return StateRoot(tmp_path / ("x" * 100), runtime_dir=runtime_dir)


def test_socket_of_a_long_path(tmp_path: Path) -> None:
    """With a path that is too long, the socket is in a private directory elsewhere, where every process finds it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as runtime:
        root = long_root(tmp_path, runtime_dir=Path(runtime))
        root.prepare()
        root.place_socket()
        assert root.socket.parent == Path(runtime, "kasmos")
        assert root.socket.parent.stat().st_mode & 0o777 == 0o700
        assert len(bytes(root.socket)) <= 107
        # Another process, with another environment.
        assert long_root(tmp_path, runtime_dir=None).socket == root.socket


def test_socket_of_a_long_path_without_runtime_directory(tmp_path: Path) -> None:
    """Without a usable runtime directory the socket of a long path is in a directory of the user's own in /tmp."""
    expected = Path("/tmp") / f"kasmos-{os.geteuid()}"
    first, second = long_root(tmp_path, None).socket, long_root(tmp_path / "other", None).socket
    assert first.parent == second.parent == expected
    assert first != second
    assert long_root(tmp_path, tmp_path / "missing").socket == first


def test_session_directory(tmp_path: Path) -> None:
    """A session's directory is below `sessions`, and nothing that is no id can lead out of there."""
    root = StateRoot(tmp_path)
    assert root.session_dir("20260101-ab.1-2") == tmp_path / "sessions" / "20260101-ab.1-2"
    for bad in ("", ".", "..", "../x", "a/b", "a\n", "-rf", "x" * 201):
        with pytest.raises(StoreError, match="not the id"):
            root.session_dir(bad)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("coder", "coder"),
        ("my coder\t1", "mycoder1"),
        ("v1.2", "v1_2"),
        ("a/../b", "a____b"),
        ("", "_"),
        ("-f", "_f"),
        ("übung", "übung"),
        ("a\0b", "a_b"),
        ("\udc80", "?"),
    ],
)
def test_log_name(name: str, safe: str) -> None:
    """A log is named after its session, without anything that a file's name or a shell would stumble over."""
    assert log_name(name) == safe


def test_long_log_names_stay_apart() -> None:
    """Names that begin alike and are too long for a file's name become different short names."""
    first, second = log_name("ü" * 300 + "1"), log_name("ü" * 300 + "2")
    assert first != second
    assert max(len(first.encode()), len(second.encode())) <= 80


def test_link_log_points_at_the_newest(tmp_path: Path) -> None:
    """`logs/NAME.log` always leads to the output of the newest session of that name."""
    root = StateRoot(tmp_path / "root")
    root.prepare()
    for session_id in ("s1", "s2", "s2"):
        root.session_dir(session_id).mkdir(exist_ok=True)
        (root.session_dir(session_id) / "output.log").write_text(session_id)
        link = root.link_log("my coder.x", session_id)
        assert link.read_text() == session_id
    assert [file.name for file in root.logs.iterdir()] == ["mycoder_x.log"]
    assert not link.readlink().is_absolute()


def test_link_log_that_cannot_be_made(tmp_path: Path) -> None:
    """A link that cannot be made is an error of the store, not of the system."""
    root = StateRoot(tmp_path / "root")
    root.prepare()
    root.logs.rmdir()
    with pytest.raises(StoreError, match=r"coder\.log cannot be made"):
        root.link_log("coder", "s1")
