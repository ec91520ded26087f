"""What the table of keys is written out as: the example, a first file, the manual's reference."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kasmos.config.keys import KEYS
from kasmos.config.load import Loaded, load_config
from kasmos.config.presets import PRESETS
from kasmos.config.render import render_example, render_init, render_reference, render_value, render_variables

CHECKOUT = Path(__file__).parents[2]
EXAMPLE = CHECKOUT / "config.toml.example"


def load(tmp_path: Path, text: str) -> Loaded:
    (tmp_path / ".kasmos").mkdir(exist_ok=True)
    (tmp_path / ".kasmos" / "config.toml").write_text(text)
    return load_config(tmp_path, environ={})


def uncomment(text: str) -> str:
    """Put every commented key in force."""
    return re.sub(r"^#(?! |$)", "", text, flags=re.MULTILINE)


def test_example_is_the_table() -> None:
    """config.toml.example says what the table of keys says, to the letter."""
    assert EXAMPLE.read_text() == render_example(), "write kasmos.config.render.render_example() to config.toml.example"


def test_example_has_every_key_with_its_default_and_why() -> None:
    """No key is missing from the example; each has its default and one line of why above it."""
    lines = EXAMPLE.read_text().splitlines()
    for key in KEYS:
        if key.former:
            continue
        value = key.example if key.default is None else render_value(key.default)
        above = [lines[number - 1] for number, line in enumerate(lines) if line.lstrip("#").endswith(f" = {value}")]
        assert any(line.startswith(f"# {key.why}") for line in above), key.path
        assert key.why
        assert "\n" not in key.why


def test_example_changes_nothing(tmp_path: Path) -> None:
    """The example as it stands says nothing but that there is an agent with a program."""
    loaded = load(tmp_path, EXAMPLE.read_text())
    assert loaded.warnings == ()
    assert set(loaded.config.agents) == {"shell", "coder"}
    said = [name for name, origin in loaded.origins.items() if origin.line is not None]
    assert said == ["agents.coder.program"]


def test_example_is_right_in_every_line(tmp_path: Path) -> None:
    """With every line in force the example is a valid configuration, whose defaults are the defaults."""
    text = uncomment(EXAMPLE.read_text()).replace('default_agent = "claude"', 'default_agent = "coder"')
    loaded = load(tmp_path, text.replace("flags = []", 'flags = ["{model}", "{effort}", "{temperature}"]'))
    assert loaded.warnings == ()
    plain = load(tmp_path, EXAMPLE.read_text()).config
    assert loaded.config.orchestration.on_failure == plain.orchestration.on_failure
    assert loaded.config.agents["coder"].restart == plain.agents["coder"].restart
    assert loaded.config.agents["coder"].stop.first_signal == plain.agents["coder"].stop.first_signal


@pytest.mark.parametrize("found", [(), ("codex",), tuple(preset.name for preset in PRESETS)])
def test_first_file_is_right(tmp_path: Path, found: tuple[str, ...]) -> None:
    """What `kas config init` writes loads without a warning, has what was found, and names a default agent."""
    text = render_init(found)
    loaded = load(tmp_path, text)
    assert loaded.warnings == ()
    assert set(loaded.config.agents) == {"shell", *found}
    assert loaded.config.orchestration.default_agent == (found[0] if found else None)
    # The others need no more than their comment signs taken away.
    load(tmp_path, uncomment(text).replace("#default_agent", ""))


def test_presets_are_those_of_the_examples(tmp_path: Path) -> None:
    """A profile of `kas config init` runs the same command as the profile in examples/agents."""
    ready = load(tmp_path, render_init([preset.name for preset in PRESETS])).config.agents
    shown = load(tmp_path, (CHECKOUT / "examples" / "agents" / "config.toml").read_text()).config.agents
    assert ready == shown


def test_manual_has_the_reference() -> None:
    """docs/configuration.md has every key, variable and flag as the table has them."""
    manual = (CHECKOUT / "docs" / "configuration.md").read_text()
    assert render_reference() in manual, "put kasmos.config.render.render_reference() into docs/configuration.md"
    assert render_variables() in manual, "put kasmos.config.render.render_variables() into docs/configuration.md"
