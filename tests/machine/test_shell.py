"""What the policy takes a command line for is what a real shell makes of it."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_approval_policy import ALLOW, PIECES, bash, judge, only

LIMIT = 120.0


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
@settings(max_examples=150)
def test_allowed_line_in_a_shell(line: str) -> None:
    """A real shell runs nothing for an allowed line but the command that the rule names."""
    command = f"ok {line}"
    if judge(bash(command), only("ok *")).decision is not ALLOW:
        return
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "bin").mkdir()
        (home / "cwd").mkdir()
        for program in ("ok", "evil", "a", "x"):
            (home / "bin" / program).write_text(f"#!/bin/sh\necho {program} >>{shlex.quote(str(home / 'ran'))}\n")
            (home / "bin" / program).chmod(0o755)
        environment = {"PATH": str(home / "bin"), "HOME": str(home)}
        script = ["/bin/sh", "-c", command + "\nwait"]
        subprocess.run(script, cwd=home / "cwd", env=environment, timeout=LIMIT, check=False)
        assert set((home / "ran").read_text().split()) <= {"ok"} if (home / "ran").exists() else True
        assert os.listdir(home / "cwd") == []
