"""`kas config`: what its verbs print, and how they exit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kasmos.cli.config import config, write_new

TEXT = """\
[orchestration]
max_concurrent = 2
[agents.a]
program = "a"
env = { TOKEN = "sesame" }
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "project"
    (directory / ".kasmos").mkdir(parents=True)
    monkeypatch.chdir(directory)
    return directory


def kas_config(*arguments: str) -> Result:
    return CliRunner().invoke(config, arguments)


def say(project: Path, text: str) -> Path:
    file = project / ".kasmos" / "config.toml"
    file.write_text(text)
    return file


def test_check_of_a_right_configuration(project: Path) -> None:
    """A right configuration exits 0 and names its files and agents; warnings go to standard error."""
    file = say(project, TEXT + 'model = "m"\n')
    result = kas_config("check")
    assert (result.exit_code, str(file) in result.stdout, "agents: shell, a" in result.stdout) == (0, True, True)
    assert "agents.a.model has no effect" in result.stderr


def test_check_tells_every_mistake(project: Path) -> None:
    """A wrong configuration exits 2, with every mistake on standard error and nothing on standard output."""
    file = say(project, "[orchestration]\nretries = -1\nmax_concurent = 1\n")
    result = kas_config("check")
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == [f"{file}:2", f"{file}:3"]


def test_check_finds_the_project(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From a subdirectory the project is found; with --project it is named."""
    file = say(project, TEXT)
    (project / "sub").mkdir()
    monkeypatch.chdir(project / "sub")
    assert str(file) in kas_config("check").stdout
    monkeypatch.chdir(tmp_path)
    assert str(file) not in kas_config("check").stdout
    assert str(file) in kas_config("check", "--project", str(project)).stdout


def test_show_has_value_and_origin(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`show` prints each value in effect as TOML with its origin, and no value of `env`."""
    file = say(project, TEXT)
    monkeypatch.setenv("KASMOS_TASK_TIMEOUT", "10m")
    result = kas_config("show")
    lines = dict(line.split("  # ") for line in result.stdout.splitlines() if "  # " in line)
    shown = {text.strip(): origin for text, origin in lines.items()}
    assert shown["orchestration.max_concurrent = 2"] == f"{file}:2"
    assert shown['orchestration.task_timeout = "10m"'] == "KASMOS_TASK_TIMEOUT"
    assert shown["orchestration.retries = 0"] == "default"
    assert shown['agents.a.env.TOKEN = "(hidden)"'] == f"{file}:5"
    assert "agents.a.stop_grace" not in result.stdout
    assert 'agents.a.stop_grace = "10s"' in kas_config("show", "--all").stdout
    assert "sesame" not in result.output


def test_show_as_json(project: Path) -> None:
    """`show --json` prints one object with every value, its origin, and secrets left out."""
    file = say(project, TEXT)
    shown = json.loads(kas_config("show", "--json", "--all").stdout)
    assert (shown["project"], shown["files"], shown["warnings"]) == (str(project), [str(file)], [])
    assert shown["values"]["orchestration.max_concurrent"] == {
        "value": 2,
        "hidden": False,
        "origin": {"kind": "file", "name": str(file), "line": 2},
    }
    assert (shown["values"]["agents.a.env.TOKEN"]["value"], shown["values"]["agents.a.env.TOKEN"]["hidden"]) == (
        None,
        True,
    )
    assert "sesame" not in json.dumps(shown)


def test_schema_is_json() -> None:
    """`schema` prints a JSON Schema of draft 2020-12 that knows the tables."""
    schema = json.loads(kas_config("schema").stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"orchestration", "agents", "phases", "logs", "state_root"} <= set(schema["properties"])


def test_init_enables_what_is_on_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`init` writes a file with the agent programs that are there, and the file is right."""
    programs = project / "bin"
    programs.mkdir()
    (programs / "codex").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(programs))
    result = kas_config("init")
    file = project / ".kasmos" / "config.toml"
    assert (result.exit_code, f"wrote {file}" in result.stdout) == (0, True)
    assert "agents: codex, shell" in result.stdout
    assert 'default_agent = "codex"' in file.read_text()
    assert kas_config("check").exit_code == 0
    assert os.listdir(file.parent) == ["config.toml"]


def test_init_never_overwrites(project: Path) -> None:
    """Where there is a file, `init` leaves it as it is, says so and exits 2."""
    file = say(project, "# mine\n")
    result = kas_config("init")
    assert (result.exit_code, result.stdout, file.read_text()) == (2, "", "# mine\n")
    assert "is there already" in result.stderr


def test_new_file_is_never_put_in_place_of_another(tmp_path: Path) -> None:
    """A file that is written by somebody else in the meantime stays; a link to nowhere counts as a file."""
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "link", "text")
    write_new(tmp_path / "sub" / "new", "text")
    assert (tmp_path / "sub" / "new").read_text() == "text"
    (tmp_path / "plain").touch()
    assert (tmp_path / "sub" / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(os.listdir(tmp_path)) == ["link", "plain", "sub"]
