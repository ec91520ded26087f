"""A place to mount things in, without anybody noticing."""

from __future__ import annotations

import shutil
import subprocess

import pytest

LIMIT = 400.0
"""Seconds for a script with several waits in it, each of which has a limit of its own."""


def in_mount_namespace(script: str, *arguments: str, limit: float = LIMIT) -> subprocess.CompletedProcess[str]:
    """Run a shell script where it may mount what it likes; skip where the kernel does not let us."""
    unshare = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this machine has no private mount namespaces")
    return subprocess.run(
        [*unshare, "sh", "-euc", script, "sh", *arguments], capture_output=True, text=True, timeout=limit
    )
