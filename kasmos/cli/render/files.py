"""Reports in files: what is known before the run about whether they can be written, and writing them after it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from kasmos.model.view import World


def check_writable(path: str) -> None:
    """Find out, before there is anything to write, whether a report can be written; leaves no trace.

    Raises:
        OSError: it cannot; the message says why.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        # Only making the file tells: permissions alone say nothing of names, quotas and mounts.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        os.unlink(path)
        return
    # Neither a pipe nor a device is opened for a try: its reader would take that for the end.
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
    elif not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def write_reports(
    world: World,
    run_id: str,
    *,
    junit_file: str | None,
    summary_file: str | None,
    tail_of: Callable[[str], str],
) -> list[str]:
    """Write the reports that were asked for, each whatever became of the other; what went wrong, for people.

    Args:
        tail_of: gives the last lines of a session's output; may raise `OSError`.
    """
    problems = []
    if junit_file is not None:
        from kasmos.cli.render.junit import junit

        problems += _written(junit_file, "wb", lambda: junit(world, run_id, tail_of))
    if summary_file is not None:
        from kasmos.cli.render.summary import summary

        problems += _written(summary_file, "ab", lambda: summary(world, run_id).encode())
    return problems


def _written(path: str, mode: str, made: Callable[[], bytes]) -> list[str]:
    data = made()
    try:
        with open(path, mode) as file:
            file.write(data)
    except OSError as error:
        return [f"the report {path} cannot be written: {error.strerror or error}"]
    return []
