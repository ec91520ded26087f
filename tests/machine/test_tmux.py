"""A real tmux: it reads what is sent to it as it was meant, and `kas doctor` says of it what is true."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from kasmos.cli import probes
from kasmos.cli.probes import Level
from kasmos.sessions.tmux_wire import Block, ControlParser, render_line
from kasmos.store.stateroot import StateRoot

LIMIT = 120.0


def ask(binary: str, socket: str, lines: bytes) -> subprocess.CompletedProcess[bytes]:
    """Have a server of tmux's own read these lines."""
    return subprocess.run(
        [binary, "-S", socket, "-f", "/dev/null", "-u", "-C", "new-session"],
        input=lines + b'"kill-server"\n',
        capture_output=True,
        env={"PATH": "/bin:/usr/bin", "LC_ALL": "C.UTF-8"},
        timeout=LIMIT,
    )


@settings(max_examples=15)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r"), max_size=8), min_size=1, max_size=8))
def test_tmux_reads_words_as_they_were(words: list[str]) -> None:
    """A real tmux reads a quoted line as exactly the words it was made of."""
    binary = shutil.which("tmux")
    assert binary is not None
    wanted = [word for word in words if word.isprintable() and "#" not in word]
    lines = b"".join(render_line(["display-message", "-p", "x" + word]) for word in wanted)
    with tempfile.TemporaryDirectory(prefix="kas-", dir="/tmp") as place:  # short: a socket's path
        done = ask(binary, f"{place}/sock", lines)
    blocks = [item for item in ControlParser().feed(done.stdout) if isinstance(item, Block) and item.own]
    assert [block.lines[0].decode() for block in blocks[: len(wanted)]] == ["x" + word for word in wanted]


@contextmanager
def open_pidfd(pid: int) -> Iterator[int]:
    """A descriptor that is readable when the process has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_tmux_that_is_too_old(tmp_path: Path) -> None:
    """A tmux that is too old for the backend is a problem, with what to install."""
    (tmp_path / "tmux").write_text("#!/bin/sh\necho tmux 3.1c\n")
    (tmp_path / "tmux").chmod(0o755)
    finding = list(probes.programs({"PATH": str(tmp_path)}))[-1]
    assert (finding.level, finding.cure[:10]) == (Level.PROBLEM, "install it")
    assert "3.1c" in finding.text


def test_tmux_server(root: Path) -> None:
    """The tmux server of a state root is shown with its sessions; one that is gone is noted; none is nothing."""
    state = StateRoot(root)
    environ = {"PATH": os.environ["PATH"]}
    assert list(probes.tmux_server(state, environ)) == []
    socket = root / "tmux" / "sock"
    socket.parent.mkdir()
    command = ["tmux", "-S", str(socket), "-f", "/dev/null"]
    subprocess.run([*command, "new-session", "-d", "-s", "one"], check=True)
    (finding,) = probes.tmux_server(state, environ)
    assert "with 1 sessions" in finding.text
    asked = subprocess.run([*command, "display-message", "-p", "#{pid}"], check=True, capture_output=True)
    with open_pidfd(int(asked.stdout)) as server:
        subprocess.run([*command, "kill-server"], check=True)
        # Who asked it to end hears of that before it has.
        assert select.select([server], [], [], LIMIT)[0]
    socket.touch()
    (finding,) = probes.tmux_server(state, environ)
    assert finding.level is Level.NOTE
