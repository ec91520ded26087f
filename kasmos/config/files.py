"""Where configuration files are: the project's, the main checkout's behind a git worktree, the user's own."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from kasmos.exceptions import ConfigError, Mistake

CONFIG_FILE = Path(".kasmos", "config.toml")
"""The project's configuration, relative to the project."""
_MAX_BYTES = 4 << 20


def find_project(cwd: Path, *, environ: Mapping[str, str] | None = None) -> Path:
    """Find the project that a working directory belongs to.

    The nearest directory upward that has `.kasmos/config.toml`, else the nearest that has `.git`, else *cwd* itself.
    A git worktree is a project of its own, wherever it lies. The home directory is a project only for those who
    stand in it: a file that is there by accident must not rule everything below.

    Raises:
        ConfigError: the configuration found above *cwd* belongs to somebody else, and would run their programs.
    """
    cwd = Path(os.path.realpath(cwd))
    inside = list(_upward(cwd, os.environ if environ is None else environ))
    for directory in inside:
        file = directory / CONFIG_FILE
        if os.path.lexists(file):
            _require_trust(file, cwd)
            return directory
        if main_checkout(directory) is not None:
            break
    return next((directory for directory in inside if os.path.lexists(directory / ".git")), cwd)


def locate_project(named: str | os.PathLike[str] | None, *, environ: Mapping[str, str] | None = None) -> Path:
    """The project that was named, else the one that the working directory belongs to.

    Raises:
        ConfigError: there is none to be found from here: the working directory has been deleted, or `find_project`
            refuses.
    """
    if named is not None and os.path.isabs(named):
        return Path(os.path.realpath(named))
    try:
        cwd = Path.cwd()
    except FileNotFoundError as error:
        mistake = Mistake("the working directory", "is gone", "cd to another, or use -C DIR with an absolute path")
        raise ConfigError([mistake]) from error
    return find_project(cwd, environ=environ) if named is None else Path(os.path.realpath(cwd / named))


def config_files(
    project: Path, *, environ: Mapping[str, str] | None = None, user_dir: Path | None = None
) -> tuple[Path, ...]:
    """The files that a project's configuration may consist of, lowest first, whether they exist or not.

    Args:
        project: the project's directory.
        environ: where `XDG_CONFIG_HOME` and `HOME` are looked up; this process's own by default.
        user_dir: the directory of the user's own `config.toml`, if it is another one.
    """
    environ = os.environ if environ is None else environ
    project = Path(os.path.realpath(project))
    user = user_dir if user_dir is not None else _user_dir(environ)
    files = [] if user is None else [user / "config.toml"]
    for directory in (project, *project.parents):
        if not os.path.lexists(directory / ".git"):
            continue
        main = main_checkout(directory)
        if main is not None:
            files.append(main / project.relative_to(directory) / CONFIG_FILE)
        break
    return tuple(dict.fromkeys([*files, project / CONFIG_FILE]))


def main_checkout(directory: Path) -> Path | None:
    """The directory that a git worktree was made from; None when *directory* is not a worktree's root."""
    link = _first_line(directory / ".git")
    if not link.startswith("gitdir:"):
        return None
    git_dir = directory / link.removeprefix("gitdir:").strip()
    # A submodule has no such file: it is a checkout in its own right.
    common = _first_line(git_dir / "commondir")
    if not common:
        return None
    common_dir = Path(os.path.realpath(git_dir / common))
    # `.git`, or a hidden bare repository beside its worktrees. A bare `NAME.git` has no checkout around it.
    return common_dir.parent if common_dir.name.startswith(".") else None


def read_config_file(path: Path) -> str | None:
    """The text of a configuration file; None when there is none.

    Raises:
        ConfigError: it is there and cannot be read.
    """
    try:
        with open(path, "rb", opener=_open_nonblocking) as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISFIFO(mode):
                raise _unreadable(path, "is not a file")
            data = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise _unreadable(path, f"the link points to {os.readlink(path)}, which is not there") from error
        return None
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise _unreadable(path, f"is larger than {_MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Mistake(f"{path}:{line}", "is not UTF-8", "save it as UTF-8")]) from error


def _open_nonblocking(path: str, flags: int) -> int:
    # Whoever has put a pipe in its place must not stop us.
    return os.open(path, flags | os.O_NONBLOCK)


def _upward(cwd: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    home = environ.get("HOME", "")
    home_dir = Path(os.path.realpath(home)) if os.path.isabs(home) else None
    yield cwd
    for directory in cwd.parents:
        if directory != home_dir:
            yield directory


def _require_trust(file: Path, cwd: Path) -> None:
    """Refuse a file above *cwd* that neither we, nor root, nor the owner of *cwd* have put there."""
    if file.parent.parent == cwd:
        return
    owner = os.lstat(file).st_uid
    if owner not in (os.geteuid(), 0, os.lstat(cwd).st_uid):
        problem = f"belongs to another user (uid {owner}) and would run programs of their choice"
        raise ConfigError([Mistake(str(file), problem, "name the project with --project")])


def _user_dir(environ: Mapping[str, str]) -> Path | None:
    # A relative path in it is to be ignored, says the XDG base directory specification.
    for base in (environ.get("XDG_CONFIG_HOME", ""), os.path.join(environ.get("HOME", ""), ".config")):
        if os.path.isabs(base):
            return Path(base, "kasmos")
    return None


def _first_line(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.readline(4096)).strip()
    except OSError:
        return ""


def _unreadable(path: Path, problem: str) -> ConfigError:
    return ConfigError([Mistake(str(path), problem)])
