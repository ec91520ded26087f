"""What `kas doctor` says of a machine, from made-up files and environments."""

from __future__ import annotations

from pathlib import Path

from kasmos.cli import probes
from kasmos.cli.probes import Finding, Level
from kasmos.store.stateroot import StateRoot


def make_proc(path: Path, *, watches: int = 65536, ignored: int = 0, hidden: bool = False) -> Path:
    files = {
        "self/stat": "1 (x) S",
        "self/status": f"Name:\tkas\nSigIgn:\t{ignored:016x}\n",
        "1/stat": "1 (init) S",
        "sys/fs/inotify/max_user_instances": "128\n",
        "sys/fs/inotify/max_user_watches": f"{watches}\n",
    }
    for name, text in files.items():
        if hidden and name == "1/stat":
            continue
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def about(findings: list[Finding], word: str) -> Finding:
    (finding,) = [finding for finding in findings if word in finding.text]
    return finding


def test_machine_that_has_everything(tmp_path: Path) -> None:
    """A machine with enough of everything gives no problem."""
    findings = list(probes.machine(make_proc(tmp_path)))
    assert [finding for finding in findings if finding.level is Level.PROBLEM] == []
    assert about(findings, "SIGCHLD").level is Level.FINE
    assert about(findings, "inotify").level is Level.FINE


def test_machine_that_ignores_sigchld(tmp_path: Path) -> None:
    """An inherited ignored SIGCHLD is noted: other programs lose exit statuses by it."""
    findings = list(probes.machine(make_proc(tmp_path, ignored=1 << 16)))
    assert about(findings, "SIGCHLD").level is Level.NOTE


def test_machine_with_few_watches(tmp_path: Path) -> None:
    """Few inotify watches are noted together with the setting that gives more."""
    finding = about(list(probes.machine(make_proc(tmp_path, watches=100))), "inotify")
    assert finding.level is Level.NOTE
    assert "fs.inotify.max_user_watches" in finding.cure


def test_machine_that_hides_processes(tmp_path: Path) -> None:
    """A /proc with hidepid is noted: leftovers of other users cannot be found."""
    assert about(list(probes.machine(make_proc(tmp_path, hidden=True))), "hidepid").level is Level.NOTE


def test_machine_without_proc(tmp_path: Path) -> None:
    """A machine without /proc has a problem, with its cure."""
    finding = about(list(probes.machine(tmp_path / "nothing")), "is not there")
    assert finding.level is Level.PROBLEM
    assert finding.cure


def test_state_root_that_others_can_write(root: Path) -> None:
    """A state root that others can write to is a problem."""
    path = root / "state-root"
    path.mkdir()
    path.chmod(0o777)
    (finding,) = probes.state(StateRoot(path))
    assert finding.level is Level.PROBLEM
    assert "chmod 700" in finding.cure


def test_state_root_that_is_not_there(root: Path) -> None:
    """A state root that was never used is fine, and looking at it does not make it."""
    path = root / "a" / "b"
    findings = list(probes.state(StateRoot(path)))
    assert "not made yet" in findings[0].text
    assert findings[0].level is Level.FINE
    assert not path.exists()


def test_programs_that_are_missing(tmp_path: Path) -> None:
    """Without sh there is a problem; without git and tmux there are notes that say how to get them."""
    findings = list(probes.programs({"PATH": str(tmp_path)}))
    assert {finding.text.split()[0]: finding.level for finding in findings} == {
        "sh": Level.PROBLEM,
        "git": Level.NOTE,
        "tmux": Level.NOTE,
    }
    assert all(finding.cure for finding in findings)


def test_state_root_that_cannot_be_made(tmp_path: Path) -> None:
    """A place where nothing can be made, not even by root, is a problem."""
    (tmp_path / "file").touch()
    (finding,) = probes.state(StateRoot(tmp_path / "file" / "root"))
    assert finding.level is Level.PROBLEM
