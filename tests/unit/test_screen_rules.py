"""Rule files: how strictly they are read, and how a project changes them."""

from pathlib import Path

import pytest

from kasmos.exceptions import ConfigError
from kasmos.screens import Screen, ScreenState, detect, known_programs, load_rules
from kasmos.screens.pattern import compile_pattern

OWN = """format = 1
program = "claude"
disable = ["not-logged-in"]

[[rule]]
name = "coffee"
state = "question"
every = { bottom = 'coffee or tea\\?' }

[[rule]]
name = "ready"
state = "unknown"
has = ["composer"]
"""


def rules_in(directory: Path, text: str, program: str = "claude") -> list[Path]:
    """Write a project's rule file."""
    (directory / f"{program}.toml").write_text(text)
    return [directory]


def test_project_changes_shipped_rules(tmp_path: Path) -> None:
    """A project's rule of a known name takes its place, a new one is asked first, and one can be left out."""
    shipped = load_rules("claude")
    rules = load_rules("claude", rules_in(tmp_path, OWN))
    names = [rule.name for rule in shipped.rules if rule.name != "not-logged-in"]
    assert [rule.name for rule in rules.rules] == ["coffee", *names]
    assert rules.layout == shipped.layout
    assert detect(Screen.from_text("coffee or\ntea?"), rules).state is ScreenState.QUESTION
    frame = "─" * 30
    assert detect(Screen.from_text(f"{frame}\n❯\n{frame}"), rules).state is ScreenState.UNKNOWN


def test_project_adds_a_program(tmp_path: Path) -> None:
    """A program that kasmos has no rules for gets them from a file of the project."""
    text = "format = 1\nprogram = 'mine'\n[[rule]]\nname = 'up'\nstate = 'ready'\nevery = { bottom = '^mine>' }\n"
    directories = rules_in(tmp_path, text, "mine")
    assert "mine" in known_programs(directories)
    assert detect(Screen.from_text("mine>"), load_rules("mine", directories)).state is ScreenState.READY


def test_unknown_program_names_the_known() -> None:
    """A program without rules is refused with the names of those that have some."""
    with pytest.raises(ConfigError, match="known: aider, claude, codex"):
        load_rules("nobody")


WRONG = """format = 2
program = "codex"
colour = "red"
disable = ["redy"]

[layout]
composer = ["rule"]
keys = "digits"
prompt = '['
overlay = 'esc$'

[[rule]]
name = "Not A Name"
state = "raedy"
has = ["compser"]

[[rule]]
name = "empty"
state = "ready"

[[rule]]
name = "empty"
state = "ready"
versions = "2.x"
every = { bottm = 'x', footer = '(' }
fields = { reset = 'no group' }
choices = [{ text = "", meaning = "yes", keys = "y", selected = 1 }]
"""


def test_every_mistake_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    """A wrong rule file is refused with all its mistakes, each with file, line and what would be right."""
    with pytest.raises(ConfigError) as caught:
        load_rules("claude", rules_in(tmp_path, WRONG))
    told = "\n".join(str(mistake).removeprefix(f"{tmp_path}/") for mistake in caught.value.mistakes)
    for line in (
        "claude.toml:1: format: must be 1",
        'claude.toml:1: program: must be "claude"',
        "claude.toml:1: colour: is not known here",
        'claude.toml:1: disable: there is no rule "redy" (did you mean "ready"?)',
        "claude.toml:1: layout.composer: must be one of",
        'claude.toml:1: layout.keys: must be one of digit, letter, arrows (did you mean "digit"?)',
        "claude.toml:1: layout.prompt: not a regular expression",
        "claude.toml:1: layout.overlay: must have a group that is the heading",
        "claude.toml:12: rule.name: must be small letters",
        'claude.toml:12: rule "Not A Name".state: must be one of',
        'claude.toml:12: rule "Not A Name".has: no sign is called "compser" (did you mean "composer"?)',
        'claude.toml:17: rule "empty": has nothing that must be seen',
        'claude.toml:21: rule "empty".versions: cannot be read',
        'claude.toml:21: rule "empty".every.bottm: is not known here (did you mean "bottom"?)',
        'claude.toml:21: rule "empty".every.footer: not a regular expression',
        'claude.toml:21: rule "empty".fields.reset: must have a group',
        'claude.toml:21: rule "empty".choices.text: must be text',
        'claude.toml:21: rule "empty".choices.meaning: must be one of',
        'claude.toml:21: rule "empty".choices.keys: must be a list of words',
        'claude.toml:21: rule "empty".choices.selected: must be true or false',
        'claude.toml:1: rule: two rules are called "empty"',
    ):
        assert line in told


@pytest.mark.parametrize(
    ("text", "told"),
    [("format = ", "not TOML"), ("rule = 1", "must be an array of tables"), ("layout = 1", "must be a table")],
)
def test_broken_file_is_told(tmp_path: Path, text: str, told: str) -> None:
    """A file that is no rule file at all is refused by its name."""
    with pytest.raises(ConfigError, match=told):
        load_rules("claude", rules_in(tmp_path, text))


def test_rule_holds_for_versions(tmp_path: Path) -> None:
    """A rule with a version range is asked only for a program of that range, or of an unknown version."""
    text = OWN.replace('state = "question"', 'state = "question"\nversions = ">=2.1, <3"')
    rules = load_rules("claude", rules_in(tmp_path, text))
    for banner, state in (
        ("Claude Code v2.1.197", ScreenState.QUESTION),
        ("Claude Code v3.0.0", ScreenState.UNKNOWN),
        ("Claude Code v2.0.9", ScreenState.UNKNOWN),
        ("", ScreenState.QUESTION),
    ):
        assert detect(Screen.from_text(f"{banner}\ncoffee or tea?"), rules).state is state


def test_blank_in_a_pattern_matches_a_wrapped_line() -> None:
    """A blank in a pattern stands for any run of blanks and for the end of a line; `[ ]` is one blank."""
    assert compile_pattern("want to go").search("  want\n   to  go")
    assert not compile_pattern("want[ ]to").search("want\nto")
    assert compile_pattern(r"^a\ b").search("x\na b")
