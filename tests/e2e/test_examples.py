"""The examples and the README hold what they say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from ..conftest import Kas

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "examples"


def test_agents_example(kas: Kas) -> None:
    """The profiles for agent programs are a valid configuration, and their plan uses every one of them."""
    (kas.cwd / ".kasmos").mkdir()
    shutil.copy(EXAMPLES / "agents" / "config.toml", kas.cwd / ".kasmos")
    shutil.copy(EXAMPLES / "agents" / "plan.md", kas.cwd)

    configured = kas("config", "check")
    assert configured.code == 0, configured.stderr

    checked = kas("plan", "check", "plan.md", "--json")
    assert checked.code == 0, checked.stderr
    tasks = [task for wave in json.loads(checked.stdout)["waves"] for task in wave["tasks"]]
    assert {task["agent"] for task in tasks} == {"claude", "codex", "opencode", "aider"}


def test_agents_example_gives_prompts_no_argument(kas: Kas) -> None:
    """No example profile puts the prompt on the command line, where its size is limited and everybody reads it."""
    (kas.cwd / ".kasmos").mkdir()
    shutil.copy(EXAMPLES / "agents" / "config.toml", kas.cwd / ".kasmos")
    plan = kas.cwd / "plan.md"
    huge = "x" * 200_000
    tasks = "\n".join(
        f'### Task {number}: T\n{huge}\n```toml kasmos\nagent = "{agent}"\n```\n'
        for number, agent in enumerate(("claude", "codex", "opencode", "aider"), 1)
    )
    plan.write_text(f"## Wave 1\n{tasks}")
    checked = kas("plan", "check", "plan.md")
    assert checked.code == 0, checked.stderr


def test_quickstart_example(kas: Kas) -> None:
    """The quickstart needs no configuration: three waves of the built-in agent, with a need across a wave."""
    checked = kas("plan", "check", "--json", EXAMPLES / "quickstart" / "plan.md")
    assert checked.code == 0, checked.stderr
    assert checked.stderr == ""
    waves = json.loads(checked.stdout)["waves"]
    assert [len(wave["tasks"]) for wave in waves] == [3, 2, 1]
    assert {task["agent"] for wave in waves for task in wave["tasks"]} == {"shell"}
    assert waves[1]["tasks"][1]["needs"] == [1]


def test_readme_example(kas: Kas) -> None:
    """The plan in the README is one."""
    example = re.search(r"````markdown\n(.*?)````", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    (kas.cwd / "plan.md").write_text(example[1])
    checked = kas("plan", "check", "--agent", "shell", "plan.md", "--json")
    # Without an agent program, the only thing that can be wrong is that there is nothing to run for one.
    assert checked.code == 2
    assert "sh" in checked.stderr
    (kas.cwd / ".kasmos").mkdir()
    (kas.cwd / ".kasmos" / "config.toml").write_text('[agents.claude]\nprogram = "claude"\n')
    checked = kas("plan", "check", "--agent", "claude", "plan.md", "--json")
    assert checked.code == 0, checked.stderr
    assert [len(wave["tasks"]) for wave in json.loads(checked.stdout)["waves"]] == [2, 1]


def test_documents_name_files_that_exist() -> None:
    """Every relative link in the README and the documents leads to something."""
    documents = [CHECKOUT / "README.md", *EXAMPLES.rglob("*.md"), *(CHECKOUT / "docs").glob("*.md")]
    links = [
        (document, target)
        for document in documents
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text())
    ]
    assert links
    assert [(str(document), target) for document, target in links if not (document.parent / target).exists()] == []
