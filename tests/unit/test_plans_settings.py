"""Settings of tasks, and where they stand."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.model.located import TomlSyntaxError, read_toml
from kasmos.model.plan import Check
from kasmos.plans.findings import Findings
from kasmos.plans.settings import TASK_KEYS, Settings, parse_duration, read_settings


def read(text: str) -> tuple[Settings, Findings]:
    findings = Findings("p.toml")
    return read_settings(read_toml(text), (), TASK_KEYS, findings), findings


def test_settings_all_keys() -> None:
    """Every key of a task is read to the value it stands for."""
    settings, findings = read(
        'agent = "coder"\nneeds = [1, "2", "01.3"]\ntimeout = "1h30m"\nretries = 2\n'
        'checks = ["make", { command = "make test", timeout = 60 }]\n'
        'files = ["a", "b"]\n[env]\nA = "1"\n'
    )
    assert findings.mistakes == ()
    assert settings.agent == "coder"
    assert settings.needs == ("1", "2", "1.3")
    assert settings.timeout == 5400.0
    assert settings.retries == 2
    assert settings.checks == (Check("make"), Check("make test", 60.0))
    assert settings.files == ("a", "b")
    assert settings.env == {"A": "1"}
    assert settings.lines["checks"] == 5


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("agent = 3", "agent must be text, not a number"),
        ('agent = " "', "agent must not be empty"),
        ('agent = "a\\u0000"', "NUL"),
        ("needs = 1", "needs must be a list, not a number"),
        ("needs = [true]", "does not name a task"),
        ("needs = [1.2]", "needs[0] does not name a task: 1.2"),
        ("needs = [-1]", "does not name a task"),
        ("timeout = true", "timeout must be a duration"),
        ("timeout = 0", "timeout must be a duration of more than 0"),
        ("timeout = inf", "timeout must be a duration"),
        ("timeout = nan", "timeout must be a duration"),
        ('timeout = "10 minutes"', "timeout must be a duration"),
        ("timeout = 1979-05-27", "timeout must be a duration"),
        ("retries = 1.0", "retries must be a whole number"),
        ("retries = true", "retries must be a whole number"),
        ('checks = "make"', "checks must be a list, not text"),
        ("checks = [{}]", "checks[0] must have a command"),
        ('checks = [{ command = "x", timeout = 0 }]', "timeout must be a duration"),
        ('checks = [{ command = "x", tiemout = 1 }]', 'unknown key "tiemout" (did you mean "timeout"?)'),
        ("files = [1]", "files[0] must be text, not a number"),
        ('files = ["a", "b", ""]', "files[2] must not be empty"),
        ('checks = ["a", { command = 1 }]', "checks[1].command must be text, not a number"),
        ("env = 1", "env must be a table, not a number"),
        ("env.A = 1", "the variable A must be text, not a number"),
        ('env."A B" = "1"', "is not the name of an environment variable"),
    ],
)
def test_settings_mistakes(text: str, problem: str) -> None:
    """A wrong value is a mistake that says what would be right, in the line it stands in."""
    _, findings = read(f"\n\n{text}")
    assert [str(mistake) for mistake in findings.mistakes if problem in str(mistake)]
    assert all(mistake.place == "p.toml:3" for mistake in findings.mistakes)


def test_settings_over_defaults() -> None:
    """A task's settings win over the plan's, key by key; its environment is added to the plan's."""
    mine = Settings(timeout=1.0, env={"A": "1"}, checks=())
    plan = Settings(agent="a", timeout=2.0, env={"A": "0", "B": "0"}, checks=(Check("make"),))
    both = mine.over(plan)
    assert (both.agent, both.timeout, both.env, both.checks) == ("a", 1.0, {"A": "1", "B": "0"}, ())


def test_settings_repr_has_no_values_of_variables() -> None:
    """Values of environment variables never appear in a repr."""
    assert "hunter2" not in repr(Settings(env={"PASSWORD": "hunter2"}))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(90, 90.0), (0.5, 0.5), ("90s", 90.0), ("10m", 600.0), ("1h30m", 5400.0), ("500ms", 0.5), ("1.5h", 5400.0)],
)
def test_duration(value: object, seconds: float) -> None:
    """A duration is a number of seconds, or numbers with units."""
    assert parse_duration(value) == seconds


@pytest.mark.parametrize("value", [True, "", "10", "m", "-1s", "1 s", "1w", None, [1], float("nan")])
def test_duration_refused(value: object) -> None:
    """Nothing else is a duration."""
    assert parse_duration(value) is None


def test_locations() -> None:
    """Every key has the line it was first written in, past strings, lists and comments of several lines."""
    text = (
        '# comment\ntitle = """\nnot = "a key"\n[[wave]]\n"""\n'
        "list = [\n  1, # ]\n  2,\n]\n"
        "[[wave]]\nnumber = 1\n[[wave.task]]\ntitle = 'x # y'\n"
        '[wave.task.env]\n"A" = "1"\n[[wave.task]]\n[[wave]]\nnumber = 2\n[[wave.task]]\na.b = { c = 1 }\n'
    )
    table = read_toml(text)
    assert table.line(("title",)) == 2
    assert table.line(("list",)) == 6
    assert table.line(("wave", 0)) == 10
    assert table.line(("wave", 0, "task", 0, "title")) == 13
    assert table.line(("wave", 0, "task", 0, "env", "A")) == 15
    assert table.line(("wave", 0, "task", 1)) == 16
    assert table.line(("wave", 1, "number")) == 18
    assert table.line(("wave", 1, "task", 0, "a", "b", "c")) == 20
    assert table.line(("nowhere",)) == 1


@pytest.mark.parametrize(
    ("text", "line"), [("a = 1\nb =\n", 2), ("a = [\n1,\n", 2), ("a = 1" + "0" * 5000, 1), ("a = " + "[" * 10**5, 1)]
)
def test_syntax_errors(text: str, line: int) -> None:
    """What is not TOML, or is out of all bounds, is one kind of error with its line."""
    with pytest.raises(TomlSyntaxError) as caught:
        read_toml(text)
    assert caught.value.line == line


@given(st.text(alphabet="ab=.[]{}\"'#\\\n, 1", max_size=60))
def test_locations_of_any_text(text: str) -> None:
    """Whatever tomllib accepts can be located: every top-level key has a line within the text."""
    try:
        tomllib.loads(text)
    except ValueError:
        return
    table = read_toml(text)
    for key in table.values:
        assert 1 <= table.line((key,)) <= text.count("\n") + 1
        assert key.strip() == "" or key in text or "\\" in text
