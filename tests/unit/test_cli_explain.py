"""`kas explain --screen`, from the command line to what is printed."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kasmos.cli.explain import explain
from tests.unit.screenshots import DATA, text_of


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without rules of its own is where everything happens."""
    (tmp_path / ".kasmos").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, text: str | None = None) -> Result:
    """Run the verb."""
    return CliRunner().invoke(explain, arguments, input=text)


def explained(*arguments: str, text: str | None = None) -> dict[str, Any]:
    """Run the verb with --json."""
    result = run(*arguments, "--json", text=text)
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def test_json_begins_with_state_rule_and_evidence() -> None:
    """A program reads the state, the rule and the lines it saw."""
    value = explained("--screen", str(DATA / "claude" / "permission_bash-1.txt"), "--program", "claude")
    assert list(value)[:3] == ["state", "rule", "evidence"]
    assert (value["state"], value["rule"]) == ("permission", "permission")
    assert {"region": "question", "line": 27, "text": "Do you want to proceed?"} in value["evidence"]
    assert value["request"]["command"] == "echo hi > f.txt"
    assert [choice["keys"] for choice in value["choices"]] == [["1"], ["2"], ["3"]]


def test_screen_from_standard_input_with_title() -> None:
    """`-` is standard input; the title counts where the screen alone does not tell."""
    text = text_of("codex", "working-1")
    assert explained("--screen", "-", "--program", "codex", "--title", "⠸ tmux-basic", text=text)["rule"] == "working"
    assert explained("--screen", "-", "--program", "codex", text=text)["rule"] == "turn-is-open"


def test_screen_with_what_was_recorded_beside_it() -> None:
    """`--meta` gives title, cursor and whether the program has ended."""
    file = DATA / "claude" / "sigterm_tui-1"
    value = explained("--screen", f"{file}.txt", "--meta", f"{file}.meta.json", "--program", "claude")
    assert value["state"] == "exited"


def test_person_sees_every_rule() -> None:
    """Without --json: the verdict, what is asked, which rules held as well, and why the others did not."""
    result = run("--screen", str(DATA / "claude" / "permission_bash-1.txt"), "--program", "claude")
    assert result.exit_code == 0
    assert result.stdout.startswith("permission  (rule permission, program version 2.1.197)\n")
    assert "command: echo hi > f.txt" in result.stdout
    assert "other-menu would say dialog" in result.stdout
    assert "nothing seen in title or footer or turn" in result.stdout


def test_rules_of_the_project_count(project: Path) -> None:
    """A rule file of the project is used."""
    (project / ".kasmos" / "screens").mkdir()
    text = "format = 1\nprogram = 'mine'\n[[rule]]\nname = 'up'\nstate = 'ready'\nevery = { bottom = '^mine>' }\n"
    (project / ".kasmos" / "screens" / "mine.toml").write_text(text)
    assert explained("--screen", "-", "--program", "mine", text="mine>\n")["rule"] == "up"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--screen", "-", "--program", "nobody"), "known: aider, claude, codex, gemini"),
        (("--screen", "-"), "which program?"),
        (("--program", "claude"), "which screen?"),
        (("--screen", "missing.txt", "--program", "claude"), "missing.txt: No such file"),
        (("--screen", "-", "--meta", "-", "--program", "claude"), "is not JSON"),
    ],
)
def test_wrong_use_is_told(arguments: tuple[str, ...], told: str) -> None:
    """What cannot be explained ends with 2 and one message."""
    result = run(*arguments, text="")
    assert result.exit_code == 2
    assert told in result.stderr


def test_mistakes_of_a_rule_file_are_told(project: Path) -> None:
    """A wrong rule file of the project ends with 2 and every mistake."""
    (project / ".kasmos" / "screens").mkdir()
    (project / ".kasmos" / "screens" / "claude.toml").write_text("format = 1\nprogram = 'x'\ncolour = 1\n")
    result = run("--screen", "-", "--program", "claude", text="")
    assert result.exit_code == 2
    assert result.stderr.count("claude.toml:1: ") == 2
