"""`kasmos.cli.render.text`: what is shown to people can do nothing but be read."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.cli.render.text import (
    Look,
    cells,
    clean,
    clean_lines,
    columns,
    duration,
    last_line,
    look_of,
    pad,
    plural,
    shorten,
    wrap,
)

_PIECES = st.one_of(
    st.text(),
    st.sampled_from(
        ["\x1b[31m", "\x1b]0;t\x07", "\x1b]8;;x\x1b\\", "\x1bP", "\x9b2J", "\r", "\n", "\t", "\u202e", "\x1b"]
    ),
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("漢字 é ✓", "漢字 é ✓"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\after", "after"),
        ("\x9b2Jafter", "after"),
        ("\x1b(Btext\x1b7", "text"),
        ("cut off \x1b[31", "cut off "),
        ("cut off \x1b", "cut off "),
        (" 10%\r 50%\r100%", "100%"),
        ("windows\r\n", "windows"),
        ("a\tb", "a       b"),
        ("bell\x07 null\x00", "bell\\x07 null\\x00"),
        ("two\nlines", "two lines"),
        ("evil \u202egnp.exe", "evil \\u202egnp.exe"),
        ("sep\u2028arator", "sep\\u2028arator"),
        ("half \udcff", "half \\udcff"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    """Sequences vanish, other controls are spelt, and of a redrawn line the last state remains."""
    assert clean(text) == shown


@given(st.lists(_PIECES).map("".join))
def test_clean_is_inert(text: str) -> None:
    """Whatever goes in, what comes out holds no control, no separator and no mark that reorders."""
    shown = clean(text)
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs")]
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert clean(shown) == shown


def test_clean_lines_keeps_the_last() -> None:
    """The last lines are kept, empty ones around them are not."""
    assert clean_lines("a\nb\n\nc\n\n\n", 3) == ["b", "", "c"]
    assert clean_lines("", 3) == []
    assert clean_lines("\n\n  \n", 3) == []


def test_last_line_passes_over_what_shows_nothing() -> None:
    """The last line is the last one that shows anything."""
    assert last_line("one\ntwo\n\x1b[0m\n\n") == "two"
    assert last_line("\n") == ""


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (-1.0, "0.0s"),
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (3599.4, "59m 59s"),
        (3600, "1h 00m"),
        (86_399, "23h 59m"),
        (90_000, "1d 01h"),
    ],
)
def test_duration(seconds: float | None, shown: str) -> None:
    """A length of time is shown as exactly as a person wants it."""
    assert duration(seconds) == shown


def test_plural_and_shorten() -> None:
    """One task is a task, and what is cut says so."""
    assert (plural(1, "task"), plural(0, "task")) == ("1 task", "0 tasks")
    assert shorten("abcdefgh", 6) == "abc..."
    assert shorten("abc", 6) == "abc"


def test_columns_are_aligned() -> None:
    """Cells of a column stand one below the other, and no line ends in spaces."""
    assert columns([("A", "N", "Z"), ("long", "12", "")], right=(1,)) == ["A      N  Z", "long  12"]
    assert columns([]) == []
    assert columns([("漢字", "x"), ("abc", "y")]) == ["漢字  x", "abc   y"]


def test_widths_are_cells() -> None:
    """A sign that takes two cells of the screen counts as two, one that takes none as none."""
    assert [cells(text) for text in ("abc", "漢字", "🚀", "e\u0301")] == [3, 4, 2, 1]
    assert pad("漢字", 6) == "漢字  "
    assert shorten("漢字漢字", 6, "…") == "漢字…"
    assert shorten("漢字", 4, "…") == "漢字"


@given(st.text(alphabet="ab 漢🚀é", max_size=60), st.integers(2, 30))
def test_wrapped_text_fits_and_is_whole(text: str, width: int) -> None:
    """No line is wider than asked, and nothing but spaces is lost."""
    lines = wrap(text, width)
    assert all(cells(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@given(st.text(alphabet="ab 漢🚀é"), st.integers(0, 30))
def test_shortened_text_fits(text: str, width: int) -> None:
    """What is cut takes no more cells than asked."""
    assert cells(shorten(text, width, "…")) <= width


@pytest.mark.parametrize(
    ("environ", "is_terminal", "color"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_look_follows_the_environment(environ: dict[str, str], is_terminal: bool, color: bool) -> None:
    """Colours are for terminals that have them, unless the person says otherwise."""
    assert look_of(environ, "utf-8", is_terminal=is_terminal).color is color


def test_look_without_unicode_uses_ascii_signs() -> None:
    """Where the encoding has no ticks, the signs are ASCII."""
    look = look_of({}, "iso-8859-1", is_terminal=False)
    assert not look.unicode
    assert all(look.glyph(word).isascii() for word in ("succeeded", "failed", "running", "queued", "waiting"))
    assert Look().glyph("succeeded") == "✓"
