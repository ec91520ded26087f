"""The profiles in examples/agents work with the programs they are for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from .conftest import LIMIT, Workshop
from .programs import PACKAGES, RECIPES, Place

EXAMPLE = Path(__file__).parents[2] / "examples" / "agents" / "config.toml"


def environment(name: str, place: Place) -> Mapping[str, str]:
    """What a user of the program has set: only what the profile passes on reaches it."""
    env = {**RECIPES[name].env(place), "PATH": f"{PACKAGES[name].program.parent}:{os.environ['PATH']}"}
    if name == "codex":
        env["OPENAI_API_KEY"] = env["MOCK_API_KEY"]
    return env


@pytest.mark.parametrize("name", ["claude", "codex", "opencode", "gemini", "qwen", "aider"])
def test_example_profile(shop: Workshop, name: str) -> None:
    """A program edits a file under the profile of the examples, just as it is."""
    shutil.copy(EXAMPLE, shop.kas.cwd / ".kasmos" / "config.toml")
    home = Path(os.environ["HOME"])
    for file, text in RECIPES[name].settings(Place(shop.model.url, home)).items():
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_text(text.replace("MOCK_API_KEY", "OPENAI_API_KEY"))
    path = shop.kas.cwd / "f.txt"
    steps = "edit f.txt world kasmos" if name == "aider" else f"read {path} ;; edit {path} world kasmos ;; say done"
    shop.write_tasks({name: steps}, settings='checks = ["grep -qx kasmos f.txt"]')
    result = shop.kas("run", "plan.md", env=environment(name, Place(shop.model.url, home)), timeout=LIMIT)
    assert result.code == 0, f"{result.stdout}{result.stderr}\n{shop.output()}"
    assert "env_pass" not in result.stderr
