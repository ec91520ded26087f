"""Reading the daemon's log across the files it is begun anew in."""

from __future__ import annotations

from pathlib import Path

import pytest

from kasmos.cli.daemon.logs import Followed
from kasmos.telemetry.logs import LogFile, file_names

LINES = [f"line {number}\n" for number in range(20)]


def follow(path: Path) -> Followed:
    return Followed(path.open("rb"), [str(name) for name in file_names(path)])


def test_no_line_is_missed_when_the_log_is_begun_anew(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Who follows the log reads every line once and in order, however many files were begun since it looked last."""
    path = tmp_path / "daemon.log"
    log = LogFile(path, max_bytes=50)
    followed = follow(path)
    for line in LINES:
        log.write(line)
    assert sum(name.exists() for name in file_names(path)) == 4
    while followed.print():
        pass
    assert capfdbinary.readouterr().out == "".join(LINES).encode()
    log.write("last words\n")
    followed.print()
    assert capfdbinary.readouterr().out == b"last words\n"
    followed.close()
    log.close()


def test_a_file_that_was_given_up_is_passed_over(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Who was away for longer than files are kept goes on with the oldest that is there."""
    path = tmp_path / "daemon.log"
    log = LogFile(path, max_bytes=10)
    log.write("line one\n")
    followed = follow(path)
    for line in LINES:
        log.write(line)
    while followed.print():
        pass
    assert capfdbinary.readouterr().out == ("line one\n" + "".join(LINES[-4:])).encode()
    followed.close()
    log.close()
