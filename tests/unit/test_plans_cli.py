"""`kas plan check`, from the command line to what is printed."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kasmos.cli.plan import plan

CONFIG = """
[agents.coder]
program = "coder --quiet"
flags = ["-p", "{prompt}"]

[agents.shell]
program = "sh"
prompt = "script"

[agents.reader]
program = "reader"
prompt = "stdin"
"""

DOCUMENT = """# T

**Goal:** a goal

## Wave 1: first

### Task 1: one

```toml kasmos
agent = "coder"
```

### Task 2: two

```toml kasmos
agent = "shell"
checks = ["make"]
timeout = "10m"
```

```sh
ls
```

## Wave 2

### Task 3: three

```toml kasmos
agent = "reader"
needs = [1, 2]
```
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with agents, in a home of its own, as the working directory."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    directory = tmp_path / "project"
    (directory / ".kasmos").mkdir(parents=True)
    (directory / ".kasmos" / "config.toml").write_text(CONFIG)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("coder", "reader", "sh"):
        (programs / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.chdir(directory)
    return directory


def check(*arguments: str, document: str | bytes = DOCUMENT, file: str = "plan.md") -> Result:
    if file != "-":
        Path(file).write_bytes(document.encode() if isinstance(document, str) else document)
    stdin = document if file == "-" else None
    return CliRunner().invoke(plan, ["check", file, *arguments], input=stdin)


@pytest.mark.usefixtures("project")
def test_text() -> None:
    """A plan is shown with its waves, tasks, needs, checks and the commands that would run."""
    result = check()
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "goal: a goal\n"
        "wave 1: first\n"
        "  task 1: one\n"
        "      agent coder\n"
        "      $ coder --quiet -p '# Task 1: one…'\n"
        "  task 2: two\n"
        "      agent shell; timeout 600 s\n"
        "      then check: make\n"
        "      $ sh script.sh\n"
        "      line 22: ls\n"
        "wave 2\n"
        "  task 3: three\n"
        "      agent reader; needs 1, 2\n"
        "      $ reader < prompt.md\n"
        "3 tasks in 2 waves\n"
    )


@pytest.mark.usefixtures("project")
def test_json() -> None:
    """`--json` prints one object with the goal and the waves, and needs as task numbers."""
    result = check("--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found["goal"] == "a goal"
    assert [wave["number"] for wave in found["waves"]] == [1, 2]
    (task,) = found["waves"][1]["tasks"]
    wanted = {"number": 3, "title": "three", "agent": "reader", "needs": [1, 2], "command": "reader < prompt.md"}
    assert {key: task[key] for key in wanted} == wanted


@pytest.mark.usefixtures("project")
def test_json_numbers_per_wave() -> None:
    """Where tasks are numbered per wave, needs are wave and number."""
    text = '## Wave 1\n### Task 1.1: a\n### Task 1.2: b\n```toml kasmos\nneeds = ["1.1"]\n```\n'
    (wave,) = json.loads(check("--json", document=text).stdout)["waves"]
    assert [(task["number"], task["id"], task["needs"]) for task in wave["tasks"]] == [
        (1, "1.1", []),
        (2, "1.2", ["1.1"]),
    ]


@pytest.mark.usefixtures("project")
def test_mistakes() -> None:
    """Every mistake of the document and of its fit with the agents is told with its line, and the status is 2."""
    text = DOCUMENT.replace('"reader"', '"raeder"').replace("needs = [1, 2]", "needs = [3]\nretries = -1")
    result = check("--json", document=text)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["plan.md:30", "plan.md:31", "plan.md:32"]
    assert "raeder" in lines[0]
    found = json.loads(result.stdout)
    assert [mistake["place"] for mistake in found["mistakes"]] == ["plan.md:30", "plan.md:31", "plan.md:32"]
    assert found["mistakes"][0] == {
        "place": "plan.md:30",
        "problem": 'unknown agent "raeder"',
        "cure": 'did you mean "reader"?',
    }
    assert found["warnings"] == []
    assert check(document=text).stdout == ""


@pytest.mark.usefixtures("project")
def test_no_waves() -> None:
    """A document without waves exits 2 and says what to add."""
    result = check(document="# Nothing here\n")
    assert result.exit_code == 2
    assert "## Wave 1" in result.stderr


@pytest.mark.usefixtures("project")
def test_stdin() -> None:
    """`-` reads the plan from standard input."""
    assert json.loads(check("--json", file="-").stdout)["goal"] == "a goal"


@pytest.mark.usefixtures("project")
def test_agent_option() -> None:
    """`--agent` is the agent of tasks that name none; without one the plan can still be looked at."""
    text = "## Wave 1\n### Task 1: a\n"
    without = check("--json", document=text)
    assert without.exit_code == 0
    assert "no agent" in without.stderr
    (task,) = json.loads(without.stdout)["waves"][0]["tasks"]
    assert (task["agent"], task["command"]) == (None, None)
    given = check("--json", "--agent", "reader", document=text)
    (task,) = json.loads(given.stdout)["waves"][0]["tasks"]
    assert task["agent"] == "reader"


def test_project_option(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--project` says whose agents count."""
    monkeypatch.chdir(tmp_path)
    assert check("--project", str(project)).exit_code == 0


@pytest.mark.usefixtures("project")
def test_no_file() -> None:
    """A file that is not there is a mistake like any other."""
    result = CliRunner().invoke(plan, ["check", "nowhere.md"])
    assert result.exit_code == 2
    assert "nowhere.md: No such file" in result.stderr
    result = CliRunner().invoke(plan, ["check", "--json", "nowhere.md"])
    assert (result.exit_code, json.loads(result.stdout)["mistakes"][0]["place"]) == (2, "nowhere.md")


def test_wrong_configuration(project: Path) -> None:
    """Mistakes in the configuration are told too, with status 2."""
    (project / ".kasmos" / "config.toml").write_text("[agents.x]\nprogam = 'x'\n")
    result = check()
    assert result.exit_code == 2
    assert "progam" in result.stderr
    assert "progam" in json.loads(check("--json").stdout)["mistakes"][1]["place"]


@pytest.mark.usefixtures("project")
def test_control_characters() -> None:
    """Control characters in a document never reach the terminal."""
    text = DOCUMENT.replace("one", "\x1b[31mred").replace("a goal", "a \x1b]0;goal").replace("make", "\x9bmake")
    result = check(document=text)
    assert result.exit_code == 0
    assert not set(result.stdout) & {"\x1b", "\x9b"}


def test_programs_that_are_not_there(project: Path) -> None:
    """An agent of the plan whose program its session would not find is warned about; other agents do not matter."""
    bin_dir = project.parent / "bin"
    (bin_dir / "coder").rename(project / "coder")
    (bin_dir / "sh").unlink()
    text = DOCUMENT.replace('agent = "shell"', 'agent = "reader"')
    result = check("--json", document=text)
    assert result.exit_code == 0
    (warning,) = json.loads(result.stdout)["warnings"]
    assert (warning["place"], warning["problem"]) == ("agent coder", "its program coder is not on its PATH")
    assert "warning: agent coder: " in result.stderr
    # The PATH that counts is the one the program is given.
    moved = CONFIG.replace("[agents.shell]", f'env = {{ PATH = "{project}" }}\n[agents.shell]')
    (project / ".kasmos" / "config.toml").write_text(moved)
    assert check(document=text).stderr == ""
    moved = CONFIG.replace("coder --quiet", "./coder --quiet")
    (project / ".kasmos" / "config.toml").write_text(moved)
    assert check(document=text).stderr == ""


@pytest.mark.usefixtures("project")
def test_script_line_counts_blank_lines() -> None:
    """The line that is shown of a script is its first that says something, and only a script's agent has one."""
    text = DOCUMENT.replace("ls\n", "\n\nmake all\nls\n")
    assert "      line 24: make all …\n" in check(document=text).stdout
    assert "line 24" not in check(document=text.replace('agent = "shell"', 'agent = "reader"')).stdout
