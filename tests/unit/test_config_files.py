"""Where configuration files are found, and which directory is the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kasmos.config.files import CONFIG_FILE, config_files, find_project, locate_project, main_checkout, read_config_file
from kasmos.exceptions import ConfigError


def configure(directory: Path, text: str = "") -> Path:
    file = directory / CONFIG_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def make_worktree(main: Path, worktree: Path, *, git_dir: str = ".git") -> None:
    """Lay the files that `git worktree add` makes, as far as they matter."""
    private = main / git_dir / "worktrees" / worktree.name
    private.mkdir(parents=True)
    (private / "commondir").write_text("../..\n")
    worktree.mkdir(parents=True, exist_ok=True)
    (worktree / ".git").write_text(f"gitdir: {private}\n")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    directory = tmp_path / "home"
    directory.mkdir()
    return directory


def found(cwd: Path, home: Path) -> Path:
    cwd.mkdir(parents=True, exist_ok=True)
    return find_project(cwd, environ={"HOME": str(home)})


def test_project_is_the_nearest_directory_with_a_configuration(home: Path) -> None:
    """A verb in a subdirectory finds the project by walking up, past a nested repository."""
    configure(home / "code")
    (home / "code" / "vendor" / ".git").mkdir(parents=True)
    assert found(home / "code" / "vendor" / "src", home) == home / "code"


def test_project_without_configuration_is_the_repository(home: Path) -> None:
    """Where nothing is configured, the repository's root is the project."""
    (home / "code" / ".git").mkdir(parents=True)
    assert found(home / "code" / "a" / "b", home) == home / "code"


def test_project_without_anything_is_the_working_directory(home: Path) -> None:
    """Where there is neither a configuration nor a repository, the working directory is the project."""
    assert found(home / "notes" / "today", home) == home / "notes" / "today"


def test_home_is_no_project_for_what_lies_below(home: Path) -> None:
    """A configuration or a repository in the home directory does not rule everything below it."""
    configure(home)
    (home / ".git").mkdir()
    assert found(home / "notes", home) == home / "notes"


def test_home_is_a_project_for_those_who_stand_in_it(home: Path) -> None:
    """In the home directory itself, its own configuration counts."""
    configure(home)
    assert found(home, home) == home


def test_worktree_is_a_project_of_its_own(home: Path) -> None:
    """A git worktree inside the configured main checkout is not taken for the main checkout."""
    main, worktree = home / "main", home / "main" / ".worktrees" / "feature"
    configure(main)
    make_worktree(main, worktree)
    assert found(worktree / "src", home) == worktree
    assert found(main / "src", home) == main


def test_worktree_reads_the_main_checkouts_file_below_its_own(home: Path) -> None:
    """The files of a worktree are the user's, the main checkout's, and its own, lowest first."""
    main, worktree = home / "main", home / "elsewhere"
    make_worktree(main, worktree)
    assert config_files(worktree, environ={"HOME": str(home)}) == (
        home / ".config" / "kasmos" / "config.toml",
        main / CONFIG_FILE,
        worktree / CONFIG_FILE,
    )


def test_project_inside_a_worktree_reads_its_counterpart_in_the_main_checkout(home: Path) -> None:
    """A configured subdirectory of a worktree has the same subdirectory's file of the main checkout below it."""
    main, worktree = home / "main", home / "elsewhere"
    make_worktree(main, worktree)
    files = config_files(worktree / "sub", environ={})
    assert files == (main / "sub" / CONFIG_FILE, worktree / "sub" / CONFIG_FILE)


def test_worktree_of_a_hidden_bare_repository_reads_the_file_beside_it(home: Path) -> None:
    """With `DIR/.bare` and its worktrees in `DIR`, the file in `DIR` counts for all of them."""
    make_worktree(home / "code", home / "code" / "feature", git_dir=".bare")
    assert main_checkout(home / "code" / "feature") == home / "code"


def test_submodule_is_a_checkout_in_its_own_right(home: Path) -> None:
    """A `.git` file without a common directory is a submodule's, and there is no main checkout."""
    (home / "code" / ".git" / "modules" / "sub").mkdir(parents=True)
    (home / "code" / "sub").mkdir()
    (home / "code" / "sub" / ".git").write_text("gitdir: ../.git/modules/sub\n")
    assert main_checkout(home / "code" / "sub") is None
    assert found(home / "code" / "sub" / "src", home) == home / "code" / "sub"


@pytest.mark.parametrize("content", [b"", b"gitdir:", b"gitdir: nowhere", b"\xff\xfe", b"nonsense\n"])
def test_damaged_git_file_means_no_worktree(home: Path, content: bytes) -> None:
    """A `.git` file that says nothing sensible marks a root, and no main checkout."""
    (home / "code").mkdir()
    (home / "code" / ".git").write_bytes(content)
    assert main_checkout(home / "code") is None
    assert found(home / "code" / "src", home) == home / "code"


def test_configuration_of_a_stranger_above_is_refused(home: Path) -> None:
    """A configuration above the working directory that belongs to another user is refused, with the way out."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    file = configure(home)
    os.chown(file, 12345, 12345)
    with pytest.raises(ConfigError, match=r"uid 12345.*--project"):
        find_project_below(home)
    assert find_project(home, environ={}) == home


def find_project_below(directory: Path) -> Path:
    (directory / "sub").mkdir()
    return find_project(directory / "sub", environ={})


def test_user_directory_follows_xdg(home: Path) -> None:
    """`XDG_CONFIG_HOME` counts when it is absolute; a relative one is ignored, as its specification says."""
    environ = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "xdg")}
    assert config_files(home / "p", environ=environ)[0] == home / "xdg" / "kasmos" / "config.toml"
    environ["XDG_CONFIG_HOME"] = "relative"
    assert config_files(home / "p", environ=environ)[0] == home / ".config" / "kasmos" / "config.toml"
    assert config_files(home / "p", environ={}) == (home / "p" / CONFIG_FILE,)


def test_missing_file_is_no_mistake(tmp_path: Path) -> None:
    """A file that is not there says nothing; nor does one whose directory is a file."""
    (tmp_path / "file").touch()
    assert read_config_file(tmp_path / "none.toml") is None
    assert read_config_file(tmp_path / "file" / "config.toml") is None


def test_unreadable_file_is_a_mistake(tmp_path: Path) -> None:
    """A directory, a pipe, a link to nowhere, too much and no UTF-8 are each told with the file's name."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "large").write_bytes(b"#" * (5 << 20))
    (tmp_path / "latin").write_bytes(b"# one\n# caf\xe9\n")
    for name, problem in (
        (".", "cannot be read: Is a directory"),
        ("pipe", "is not a file"),
        ("link", "points to nowhere"),
        ("large", "larger than 4 MiB"),
        ("latin", "latin:2: is not UTF-8"),
    ):
        with pytest.raises(ConfigError, match=problem):
            read_config_file(tmp_path / name)


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a deleted directory no project can be found, and one that is named can."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for named in (None, "sub"):
        with pytest.raises(ConfigError, match=r"the working directory: is gone .*-C DIR"):
            locate_project(named)
    assert locate_project(str(tmp_path)) == tmp_path
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    assert locate_project("sub") == tmp_path / "sub"
