"""Which state a screen shows: recorded screens, and what must not be taken for one."""

import re

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kasmos.model.screen import Picture
from kasmos.screens import Cursor, Meaning, Screen, ScreenState, detect, examine, known_programs, load_rules, program_of
from kasmos.screens.detect import contradictions
from kasmos.screens.menu import meaning_of
from kasmos.supervision.asking import ask_of
from kasmos.supervision.terminal import waits_for_person
from tests.unit.screenshots import (
    DATA,
    DRAWN,
    HOSTS,
    NEAR,
    PROGRAMS,
    VERDICTS,
    all_recordings,
    drawn,
    meta_of,
    quoted_in_draft,
    quoted_in_reply,
    recorded,
    text_of,
)

LIVE = [
    (program, name)
    for program, name in all_recordings()
    if program in HOSTS and VERDICTS[program][name][1] != "terminal-is-dead"
]
WORKING_BY_TITLE = [("codex", "working-1")]
"""Nothing but the title tells that these work."""
KNOWN = [(program, name) for program, name in LIVE if VERDICTS[program][name][0] != "unknown"]
"""Not those that are unknown for what is out of sight above."""
RECORDED = {(program, rule) for program, verdicts in VERDICTS.items() for _, rule in verdicts.values()}
"""The rules by which recorded screens are told."""
RULES = {(program, rule.name) for program in known_programs() for rule in load_rules(program).rules}


@pytest.mark.parametrize(("program", "name"), list(all_recordings()))
def test_recorded_screen(program: str, name: str) -> None:
    """A recorded screen is told by the rule that is meant for it."""
    verdict = detect(recorded(program, name), load_rules(program))
    assert [verdict.state, verdict.rule] == VERDICTS[program][name]
    assert verdict.evidence or verdict.state is ScreenState.UNKNOWN


@pytest.mark.parametrize(("program", "name"), LIVE)
def test_recorded_screen_without_title_and_cursor(program: str, name: str) -> None:
    """A plain capture, without title and cursor, shows the same state."""
    verdict = detect(Screen.from_text(text_of(program, name)), load_rules(program))
    assert verdict.state == VERDICTS[program][name][0]


@pytest.mark.parametrize("entry", DRAWN, ids=lambda entry: f"{entry['program']}-{entry['rule']}")
def test_drawn_screen(entry: dict[str, str]) -> None:
    """A screen that is known from notes only is told by the rule that was written for it."""
    assert detect(drawn(entry), load_rules(entry["program"])).rule == entry["rule"]


def test_every_rule_has_a_screen() -> None:
    """Every shipped rule decides a recorded screen, or a drawn one that says why there is no recording."""
    drawn_only = {(entry["program"], entry["rule"]) for entry in DRAWN if entry.get("why")}
    assert RULES - RECORDED - drawn_only == set()


DEAD = [(program, name) for program, name in all_recordings() if program in HOSTS and (program, name) not in LIVE]
POSITIVES = [
    *((program, name, text_of(program, name)) for program, name in (*LIVE, *DEAD)),
    *((e["program"], e["rule"], e["text"].strip("\n")) for e in DRAWN if e["program"] in PROGRAMS),
]
NAMES = [f"{program}-{name}" for program, name, _ in POSITIVES]


@pytest.mark.parametrize(("program", "rule"), [(program, rule) for program, rules in NEAR.items() for rule in rules])
def test_recorded_near_miss(program: str, rule: str) -> None:
    """A recording that shows the same text as a screen of a rule, and is something else, is told by another rule."""
    entry = NEAR[program][rule]
    assert VERDICTS[program][entry["on"]][1] == rule
    for name in (entry["on"], *entry["near"]):
        assert entry["text"] in text_of(program, name)
    for name in entry["near"]:
        assert VERDICTS[program][name][1] != rule, name


def test_every_rule_has_a_near_miss() -> None:
    """Every shipped rule has a recorded near miss; one that has no recording, its drawing in a reply and in a draft."""
    near = {(program, rule) for program, rules in NEAR.items() for rule in rules}
    near |= {(entry["program"], entry["rule"]) for entry in DRAWN if entry["program"] in PROGRAMS and entry.get("why")}
    assert RULES - near == set()


def test_drawings_stand_for_what_is_not_recorded() -> None:
    """What is drawn of a rule without a recording says why it is; of others only what shows something else is drawn."""
    assert all(bool(e.get("why")) == ((e["program"], e["rule"]) not in RECORDED) for e in DRAWN)
    assert not {(e["program"], e["rule"]) for e in DRAWN if e["program"] not in HOSTS} & RECORDED


@pytest.mark.parametrize(("program", "name", "text"), POSITIVES, ids=NAMES)
@pytest.mark.parametrize("titled", [True, False], ids=["title", "no-title"])
def test_text_about_a_screen_is_not_that_screen(program: str, name: str, text: str, titled: bool) -> None:
    """Quoted in a reply, in a diff or in a draft, no screen changes the state: the near miss of every rule."""
    host = HOSTS[program]
    rules = load_rules(program)
    title = meta_of(program, host)["title"] if titled else None
    for quoted in (
        quoted_in_reply(program, host, text),
        quoted_in_reply(program, host, text, prefix="    12 + "),
        "\n".join(quoted_in_reply(program, host, text).split("\n")[-40:]),
        quoted_in_draft(program, "\n".join(text.rstrip().split("\n")[-20:])),
    ):
        assert detect(Screen.from_text(quoted, title=title), rules).state is ScreenState.READY


@pytest.mark.parametrize(("program", "name", "text"), POSITIVES, ids=NAMES)
@pytest.mark.parametrize("working", ["working-1"])
def test_quotes_do_not_make_a_working_screen_ready(program: str, name: str, text: str, working: str) -> None:
    """A program that works is never told ready, whatever its reply quotes."""
    # These recordings show no reply yet.
    bare = program in ("opencode", "qwen")
    quoted = text_of(program, working) if bare else quoted_in_reply(program, working, text)
    title = meta_of(program, working)["title"]
    assert detect(Screen.from_text(quoted, title=title), load_rules(program)).state is ScreenState.WORKING
    if (program, working) not in WORKING_BY_TITLE:
        assert detect(Screen.from_text(quoted), load_rules(program)).state is ScreenState.WORKING


WORDS = st.text(alphabet="abcdefghij klmno.,", min_size=1, max_size=40).map(str.strip).filter(bool)


@settings(max_examples=60, deadline=None)
@given(
    recording=st.sampled_from([one for one in KNOWN if one[0] in ("claude", "codex", "gemini")]),
    above=st.sampled_from(LIVE),
    blanks=st.integers(0, 8),
)
def test_what_has_scrolled_up_does_not_matter(recording: tuple[str, str], above: tuple[str, str], blanks: int) -> None:
    """Older text above, of whatever program, and blank lines below change no state."""
    program, name = recording
    older = "\n".join(f"  {line}" for line in text_of(*above).rstrip().split("\n"))
    text = f"{older}\n\n{text_of(program, name).rstrip()}" + "\n" * blanks
    assert detect(Screen.from_text(text), load_rules(program)).state == VERDICTS[program][name][0]


@settings(max_examples=60, deadline=None)
@given(recording=st.sampled_from(LIVE), words=WORDS)
def test_other_words_in_the_transcript_do_not_matter(recording: tuple[str, str], words: str) -> None:
    """What was asked and answered does not matter for the state."""
    program, name = recording
    text = re.sub(
        r"\[\[mock:[^\]]*\]\]( go)?|tick( tick)*|I will run a command\.", lambda _: words, text_of(program, name)
    )
    assert detect(Screen.from_text(text), load_rules(program)).state == VERDICTS[program][name][0]


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet=" \n│❯›●─╭╰▀▄┃╹123.)abYesNo:?✦•⎿", max_size=400), program=st.sampled_from(known_programs())
)
def test_any_screen_has_a_verdict(text: str, program: str) -> None:
    """No screen breaks a rule, and asking what each saw gives the same verdict."""
    screen = Screen.from_text(text)
    verdict, tried = examine(screen, load_rules(program))
    assert verdict == detect(screen, load_rules(program))
    assert all(one.rule.state is not verdict.state for one in contradictions(verdict, tried))


@pytest.mark.parametrize("name", ["overlay_wide-1", "overlay_wide-2"])
def test_overlay_beside_a_column_is_found_by_the_width_of_the_terminal(name: str) -> None:
    """A picker in a terminal in which OpenCode shows a column at the right stands in the middle of both."""
    verdict = detect(recorded("opencode", name), load_rules("opencode"))
    assert (verdict.state, verdict.rule, verdict.composer) == (ScreenState.DIALOG, "overlay", None)


@pytest.mark.parametrize("name", ["overlay_wide-1", "overlay_wide-2"])
def test_what_a_rule_does_not_know_over_the_input_is_not_ready(name: str) -> None:
    """An input that the cursor is not in, or that has none, takes no prompt, whatever is drawn over it."""
    screen = attrs.evolve(recorded("opencode", name), width=None)
    assert detect(screen, load_rules("opencode")).state is ScreenState.UNKNOWN


@pytest.mark.parametrize(("width", "waits"), [(160, True), (200, None)])
def test_overlay_is_looked_for_in_the_middle_of_the_terminal(width: int, waits: bool | None) -> None:
    """What stands over the screen waits for a person if it is in the middle; elsewhere it is not known what it is."""
    picture = Picture(text=text_of("opencode", "overlay_wide-1"), width=width, height=45, cursor_x=54, cursor_y=14)
    assert waits_for_person(load_rules("opencode"), picture) is waits


def test_quoted_overlay_in_the_middle_is_told_by_the_cursor() -> None:
    """A reply that shows a picker in the very middle of the screen is no picker: the cursor is in the input."""
    rules, name = load_rules("opencode"), "overlay_agents-1"
    screen = recorded("opencode", name)
    in_input = attrs.evolve(screen, cursor=Cursor(34, 5, visible=True))
    assert detect(screen, rules).state is ScreenState.DIALOG
    assert detect(in_input, rules).state is ScreenState.READY


def test_dead_screen_has_exited() -> None:
    """What an ended program left on the screen does not count; tmux's own last line says it too."""
    working = text_of("claude", "working-1")
    assert detect(Screen.from_text(working, dead=True), load_rules("claude")).state is ScreenState.EXITED
    gone = f"{working.rstrip()}\nPane is dead (status 0, Sat Nov 21 01:05:36 2026)"
    assert detect(Screen.from_text(gone), load_rules("claude")).state is ScreenState.EXITED


def test_unknown_screen_is_unknown() -> None:
    """A screen that no rule knows is unknown, and says so by name."""
    verdict = detect(Screen.from_text("$ make\ncc -c a.c"), load_rules("generic"))
    assert (verdict.state, verdict.rule, verdict.evidence) == (ScreenState.UNKNOWN, "none", ())


@pytest.mark.parametrize("asked", ["Delete everything? [y/N]", "Go on (yes/no)?"])
def test_question_of_unknown_program(asked: str) -> None:
    """What a program without rules asks is the line that asks, not the first one of its screen."""
    verdict = detect(Screen.from_text(f"$ make\ncc -c a.c\n{asked} \n\n"), load_rules("generic"))
    assert verdict.state is ScreenState.QUESTION
    assert verdict.request is not None
    assert verdict.request.question == asked


def test_secret_is_no_approval() -> None:
    """A password is asked of a person at the terminal: no answer to it goes through the journal."""
    verdict = detect(Screen.from_text("$ sudo make\n[sudo] password for mia: \n"), load_rules("generic"))
    assert (verdict.state, verdict.rule) == (ScreenState.DIALOG, "secret")
    assert ask_of(verdict) is None


@pytest.mark.parametrize(
    ("program", "name", "draft"),
    [
        ("claude", "typed-1", "[[mock:slow:12]]"),
        ("claude", "pasted-1", "[Pasted text #1 +3 lines]"),
        ("claude", "bash_mode-1", "!"),
        ("claude", "ready-1", None),
        ("claude", "working_queued-1", None),
        ("codex", "typed-1", "[[mock:slow:10]]"),
        ("codex", "pasted-1", "line one\nline two\nline three\nline four [[mock:text]]"),
        ("codex", "ready-1", None),
        ("gemini", "ready-1", None),
        ("opencode", "typed-1", "[[mock:slow:10]] go"),
        ("opencode", "ready-1", None),
    ],
)
def test_draft(program: str, name: str, draft: str | None) -> None:
    """What is typed and not sent is read; a hint is no draft; a shell mode is one."""
    composer = detect(recorded(program, name), load_rules(program)).composer
    assert composer is not None
    assert composer.draft == draft


def test_suggestion_is_no_draft() -> None:
    """Text that is faint, or that the cursor stands before, is the program's suggestion."""
    frame = "─" * 40
    plain = f"{frame}\n❯ fix the tests\n{frame}\n  ? for shortcuts"
    rules = load_rules("claude")
    for screen, draft in (
        (Screen.from_text(plain), "fix the tests"),
        (Screen.from_text(plain, cursor=Cursor(1, 15, visible=False)), "fix the tests"),
        (Screen.from_text(plain, cursor=Cursor(1, 2, visible=False)), None),
        (Screen.from_text(plain.replace("fix the tests", "\x1b[7mf\x1b[0;2mix the tests\x1b[0m")), None),
    ):
        composer = detect(screen, rules).composer
        assert composer is not None
        assert composer.draft == draft


@pytest.mark.parametrize(
    ("program", "name", "tool", "command", "path", "keys"),
    [
        ("claude", "permission_bash-1", "Bash", "echo hi > f.txt", None, "1 2 3"),
        ("claude", "permission_edit-1", "Edit", None, "f.txt", "1 2 3"),
        ("claude", "permission_write-1", "Create", None, "f.txt", "1 2 3"),
        ("codex", "permission_bash-3", "command", "echo hi > f.txt", None, "y p Escape"),
        ("codex", "permission_edit-1", "edits", None, "/home/agent/work/codex/tmux-patch/f.txt", "y a Escape"),
        ("gemini", "permission_bash-1", "Shell", "echo hi > f.txt", None, "1 2 3"),
        ("gemini", "permission_write-1", "WriteFile", None, "f.txt", "1 2 4"),
        ("gemini", "permission_fetch-1", "WebFetch", "https://example.invalid/", None, "1 2 3"),
    ],
)
def test_request(program: str, name: str, tool: str, command: str | None, path: str | None, keys: str) -> None:
    """A permission dialog is read: what is asked for, and the key of each answer by its meaning."""
    verdict = detect(recorded(program, name), load_rules(program))
    assert verdict.request is not None
    assert (verdict.request.tool, verdict.request.command, verdict.request.path) == (tool, command, path)
    assert verdict.request.exact
    assert not verdict.dangerous_default
    chosen = [verdict.choice(meaning) for meaning in (Meaning.ALLOW_ONCE, Meaning.ALLOW_ALWAYS, Meaning.DENY)]
    assert [choice and choice.keys for choice in chosen] == [(key,) for key in keys.split()]


@pytest.mark.parametrize(
    ("program", "name"),
    [("gemini", "permission_tall-1"), ("gemini", "permission_tall-2"), ("qwen", "permission_tall-1")],
)
def test_request_that_is_not_wholly_shown_is_not_exact(program: str, name: str) -> None:
    """A command of which lines are left out, or that is higher than the screen, is not known to the letter."""
    verdict = detect(recorded(program, name), load_rules(program))
    assert verdict.state is ScreenState.PERMISSION
    assert verdict.request is not None
    assert not verdict.request.exact


def test_plan_is_turned_down() -> None:
    """Approving a plan offers a no: by Escape, for the option that says it asks for an explanation."""
    verdict = detect(recorded("claude", "plan_approval-1"), load_rules("claude"))
    chosen = [verdict.choice(meaning) for meaning in (Meaning.ALLOW_ONCE, Meaning.ALLOW_ALWAYS, Meaning.DENY)]
    assert [choice and choice.keys for choice in chosen] == [("2",), ("1",), ("Escape",)]


def test_request_with_a_description_is_exact_only_if_the_transcript_shows_the_command() -> None:
    """Of a command with a line below it, only what the transcript calls the command is taken for it."""
    text = text_of("claude", "permission_bash-1")
    alone = text[text.index("─" * 100) :]
    alone = alone[alone.index("\n Bash command") :]
    request = detect(Screen.from_text(alone), load_rules("claude")).request
    assert request is not None
    assert not request.exact


def test_what_stands_beside_a_dialog() -> None:
    """What opencode shows at the right of a wide terminal is no part of the command that it asks for."""
    rules, lines = load_rules("opencode"), text_of("opencode", "permission_bash-1").split("\n")
    narrow = detect(recorded("opencode", "permission_bash-1"), rules)
    above = next(row for row, line in enumerate(lines) if "Allow once" in line) - 1
    lines[above] = lines[above].ljust(157) + "/home/agent/work/opencode:master"
    wide = detect(Screen.from_text("\n".join(lines)), rules)
    assert wide.request == narrow.request
    assert wide.request is not None
    assert wide.request.command == "echo hi > f.txt"


def test_chosen_button_is_told_by_its_colour() -> None:
    """Buttons side by side: which of them Enter would press is known only from a capture with escapes."""
    rules = load_rules("opencode")
    plain = detect(recorded("opencode", "permission_write-1"), rules)
    assert plain.dangerous_default
    assert not any(choice.selected for choice in plain.choices)
    coloured = detect(Screen.from_text((DATA / "opencode" / "permission_write-1.esc.txt").read_text()), rules)
    assert not coloured.dangerous_default
    assert [choice.text for choice in coloured.choices if choice.selected] == ["Allow once"]
    assert [choice.keys for choice in coloured.choices] == [("Enter",), ("Right", "Enter"), ("Escape",)]


@pytest.mark.parametrize(
    ("program", "name"),
    [("claude", "apikey-1"), ("claude", "error_oauth_limit-1"), ("codex", "upgrade_nag-1"), ("gemini", "trust-1")],
)
def test_dangerous_default(program: str, name: str) -> None:
    """Where Enter means no, a purchase, another model or lasting trust, Enter is never the answer."""
    verdict = detect(recorded(program, name), load_rules(program))
    assert verdict.dangerous_default
    assert all(choice.keys != ("Enter",) for choice in verdict.choices)


def test_moved_selection_is_a_dangerous_default() -> None:
    """A permission dialog on which a person has moved to the wider answer is not answered by Enter."""
    moved = (
        text_of("claude", "permission_bash-1").replace("❯ 1. Yes", "  1. Yes").replace("  2. Yes, and", "❯ 2. Yes, and")
    )
    verdict = detect(Screen.from_text(moved), load_rules("claude"))
    assert verdict.state is ScreenState.PERMISSION
    assert verdict.dangerous_default


def test_question_has_answers() -> None:
    """The options of a question are answers, chosen with arrows, and never yes or no to a tool."""
    verdict = detect(recorded("claude", "question-1"), load_rules("claude"))
    assert verdict.request is not None
    assert verdict.request.question == "Which color should I use?"
    assert [choice.text for choice in verdict.choices] == ["Red", "Blue", "Type something.", "Chat about this"]
    assert {choice.meaning for choice in verdict.choices} == {Meaning.OTHER}
    assert [choice.takes_text for choice in verdict.choices] == [False, False, True, False]
    assert verdict.choices[1].keys == ("Down", "Enter")


def test_limit_says_when_it_ends() -> None:
    """The end of a limit is told in the program's words."""
    assert detect(recorded("claude", "error_oauth_limit-1"), load_rules("claude")).reset == "Nov 30, 12:53am (UTC)"
    assert detect(recorded("opencode", "error_err429-1"), load_rules("opencode")).reset == "1s"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("Yes", Meaning.ALLOW_ONCE),
        ("Allow once", Meaning.ALLOW_ONCE),
        ("Yes, manually approve edits", Meaning.ALLOW_ONCE),
        ("Yes, and use auto mode", Meaning.ALLOW_ALWAYS),
        ("Yes, and don’t ask again for git:*", Meaning.ALLOW_ALWAYS),
        ("Always allow in this project", Meaning.ALLOW_ALWAYS),
        ("Allow for this session", Meaning.ALLOW_ALWAYS),
        ("No, and tell Codex what to do differently (esc)", Meaning.DENY),
        ("Don't trust", Meaning.DENY),
        ("Reject", Meaning.DENY),
        ("Tell Claude what to change", Meaning.DENY),
        ("Modify with external editor", Meaning.OTHER),
        ("Nothing of this", Meaning.OTHER),
    ],
)
def test_meaning(text: str, meaning: Meaning) -> None:
    """An option is understood by its words."""
    assert meaning_of(text) is meaning


def test_program_of_a_command() -> None:
    """Rules are found by the first word of a command; what is not known has the general ones."""
    found = [program_of(word) for word in ("/opt/bin/claude", "codex", "gemini-cli", "bin/claude.exe", "make")]
    assert found == ["claude", "codex", "gemini", "claude", "generic"]
