"""Sessions on a disk that is full: nothing runs without a record, no status is lost, and lost output is declared."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kasmos.model.profile import OutputMode
from tests.faults.conftest import Ground
from tests.faults.namespace import in_mount_namespace

CHECKOUT = Path(__file__).parents[2]
SCRIPT = 'mount -t tmpfs -o size=1m,mode=700 tmpfs "$1"; cd "$2"; exec "$3" -m tests.faults.small_disk "$4" "$5" "$1"'

both_outputs = pytest.mark.parametrize("output", list(OutputMode))


def on_small_disk(ground: Ground, case: str, output: OutputMode) -> None:
    """Run a case of `small_disk` with a megabyte of disk."""
    disk = ground.root / "disk"
    disk.mkdir()
    done = in_mount_namespace(SCRIPT, str(disk), str(CHECKOUT), sys.executable, case, output)
    assert done.returncode == 0, done.stderr


@both_outputs
def test_start(ground: Ground, output: OutputMode) -> None:
    """On a full disk a start is refused with the reason, nothing is left of it, and the next one with room runs."""
    on_small_disk(ground, "start", output)


@both_outputs
def test_claim(ground: Ground, output: OutputMode) -> None:
    """A shim that cannot write its claim runs nothing, and that is what the next supervisor finds."""
    on_small_disk(ground, "claim", output)


@both_outputs
def test_identity(ground: Ground, output: OutputMode) -> None:
    """A program whose identity cannot be recorded does not run, and that is what the next supervisor finds."""
    on_small_disk(ground, "pid", output)


@both_outputs
def test_log(ground: Ground, output: OutputMode) -> None:
    """Output that does not fit stalls nobody; behind a pipe it is declared lost; with room again the log goes on."""
    on_small_disk(ground, "log", output)


@both_outputs
def test_exit_record(ground: Ground, output: OutputMode) -> None:
    """The end of a program that filled the disk to its last byte is on record: there was room reserved for it."""
    on_small_disk(ground, "exit", output)


def test_truncation(ground: Ground) -> None:
    """A truncation that cannot be made durable on a full disk is known all the same, and made durable later."""
    on_small_disk(ground, "truncation", OutputMode.FILE)


@both_outputs
def test_cap(ground: Ground, output: OutputMode) -> None:
    """A log whose head cannot be given up for want of a place to say so is kept whole, and its session goes on."""
    on_small_disk(ground, "cap", output)
