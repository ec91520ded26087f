"""`kas attach`: which key a person leaves with."""

from __future__ import annotations

from pathlib import Path

import pytest

from kasmos.cli.attach import attach_command, user_prefix
from kasmos.sessions.tmux import Place


@pytest.mark.parametrize(
    ("config", "prefix"),
    [
        ("", "C-b"),
        ("set -g prefix C-a\n", "C-a"),
        ("unbind C-b\nset-option -g prefix 'C-Space'  # as in screen\n", "C-Space"),
        ("set -g prefix C-a\nset -g prefix M-x\n", "M-x"),
        ("# set -g prefix C-a\nset -g prefix2 C-a\nset -g prefix $KEY\n", "C-b"),
    ],
)
def test_own_prefix(tmp_path: Path, config: str, prefix: str) -> None:
    """A person's own tmux prefix is found where their configuration says it in so many words."""
    (tmp_path / ".tmux.conf").write_text(config)
    assert user_prefix({"HOME": str(tmp_path)}) == prefix


def test_own_prefix_beside_ours() -> None:
    """It is given to the session as its second prefix, before the terminal enters."""
    place = Place("/usr/bin/tmux", "/s", "token")
    command = attach_command(place, "r1.2", "C-a", read_only=True)
    assert command[-4:] == ["attach-session", "-t", "=r1_2", "-r"]
    assert command[command.index("prefix2") :][:3] == ["prefix2", "C-a", ";"]
    assert "prefix2" not in attach_command(place, "r1.2", "C-b", read_only=False)
