"""What a configuration says of prompts that are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kasmos.config.load import load_config
from kasmos.exceptions import ConfigError


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ('prompt = "type"', "needs execution_mode"),
        ('prompt = "stdin"\nexecution_mode = "tmux"', "standard input is the terminal"),
        ('execution_mode = "tmux"\nwhen_done = "leave"', "only of a program whose prompt is typed"),
        ('execution_mode = "tmux"\nprompt = "type"\nwhen_done = "go"', "when_done"),
    ],
)
def test_typed_prompts(tmp_path: Path, said: str, problem: str) -> None:
    """What cannot be typed, or seen to be over, is a mistake before anything runs."""
    (tmp_path / ".kasmos").mkdir()
    (tmp_path / ".kasmos" / "config.toml").write_text(f'[agents.a]\nprogram = "claude"\n{said}\n')
    with pytest.raises(ConfigError, match=problem):
        load_config(tmp_path, environ={})
