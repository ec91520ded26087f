"""The language of control mode: what is sent is read as it was meant; what comes back, however it is cut, as well."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.exceptions import BackendUnavailableError
from kasmos.sessions import tmux
from kasmos.sessions.last_screen import render_range
from kasmos.sessions.tmux_launch import logger_command, tmux_name
from kasmos.sessions.tmux_wire import Block, ControlParser, Notification, quote, render_line

LINES = st.lists(
    st.binary(max_size=12).map(lambda data: data.replace(b"\n", b""))
    | st.sampled_from([b"%end 1 2 0", b"%begin 1 2 1", b"%error 9 9 1", b"%exit", b"", b"%output %1 x"]),
    max_size=5,
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[Block | Notification]]:
    """What a server says, and what it means."""
    said, meant = b"", []
    for number in range(draw(st.integers(0, 5))):
        if draw(st.booleans()):
            guard = b"1700000000 %d %d" % (number + 100, own := draw(st.integers(0, 1)))
            lines, ok = draw(LINES), draw(st.booleans())
            inside = b"".join(line + b"\n" for line in lines)
            said += b"%begin " + guard + b"\n" + inside + (b"%end " if ok else b"%error ") + guard + b"\n"
            meant.append(Block(tuple(lines), ok, own=own == 1))
        else:
            said += b"%window-renamed @1 a name\n"
            meant.append(Notification("window-renamed", b"@1 a name"))
    return said, meant


@given(streams(), st.data())
def test_stream_is_taken_apart_however_it_is_cut(stream: tuple[bytes, list[object]], data: st.DataObject) -> None:
    """Blocks and notifications come out whole and in order, whatever is inside a block and wherever reads end."""
    said, meant = stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=6)))
    parser, found = ControlParser(), []
    for start, end in zip([0, *cuts], [*cuts, len(said)], strict=True):
        found += parser.feed(said[start:end])
    assert found == meant


@given(st.text(st.characters(exclude_characters="\0"), max_size=30))
def test_quoted_word_is_one_line(word: str) -> None:
    """A quoted word has no control character, so a command stays one line."""
    assert re.fullmatch(rb'"[^\x00-\x1f\x7f]*"', quote(word)) is not None


def test_word_with_nul() -> None:
    """NUL is refused: no argument can hold it."""
    with pytest.raises(ValueError, match="NUL"):
        quote("a\0b")


def test_line_of_commands() -> None:
    """Commands on one line are parted by semicolons that stand alone; one in a word is only a character."""
    assert render_line(["a", "b;c"], ["d"]) == b'"a" "b;c" ; "d"\n'


@pytest.mark.parametrize(
    ("said", "version"),
    [("tmux 3.3a\n", (3, 3)), ("tmux next-3.5\n", (3, 5)), ("tmux master\n", None), ("tmux 3.10", (3, 10))],
)
def test_version(said: str, version: tuple[int, int] | None) -> None:
    """The version is read from what tmux says of itself; a build without a number is taken as it is."""
    assert tmux.parse_version(said) == version


def test_scope_of_its_own() -> None:
    """Under systemd the server gets a scope of its own, from the manager that runs us; elsewhere there is none."""
    service = {"INVOCATION_ID": "x"}
    assert tmux.scope_prefix(service, 1000, has_manager=True)[:3] == ["systemd-run", "--user", "--scope"]
    assert tmux.scope_prefix(service, 0, has_manager=True)[:3] == ["systemd-run", "--system", "--scope"]
    assert tmux.scope_prefix(service, 0, has_manager=False) == []
    assert tmux.scope_prefix({}, 0, has_manager=True) == []


def test_server_has_little_environment() -> None:
    """The server is given what it needs to run, and no key or marker of ours."""
    given = tmux.server_environment({"PATH": "/bin", "ANTHROPIC_API_KEY": "x", "KASMOS_SESSION_ID": "y", "TMUX": "z"})
    assert set(given) == {"PATH", "LC_ALL", "SHELL"}


def test_long_path(root: Path) -> None:
    """The socket is inside the state root, or in a short private place where that is too long for a socket."""
    assert tmux.socket_path(root) == root / "tmux" / "sock"
    deep = root / ("d" * 90)
    assert len(str(tmux.socket_path(deep))) <= 100
    assert tmux.socket_path(deep, str(root)).is_relative_to(root)
    assert tmux.socket_path(deep) != tmux.socket_path(root / ("e" * 90))


def test_directory_that_is_not_private(root: Path) -> None:
    """A place that others may write to is refused."""
    (root / "tmux").mkdir()
    (root / "tmux").chmod(0o777)
    with pytest.raises(BackendUnavailableError, match="not private"):
        tmux.prepare(root, "tmux")


def test_token_stays(root: Path) -> None:
    """The token that proves what is ours is the same for every supervisor of a state root."""
    assert tmux.prepare(root, "tmux") == tmux.prepare(root, "tmux")


def test_names_and_commands_that_tmux_would_expand() -> None:
    """What tmux would take for a target, a format or a time is put so that it does not."""
    assert tmux_name("run-1.2:a") == "run-1_2_a"
    command = logger_command("/a#{pid}%H")
    assert "/a##{pid}%%H" in command


def test_ranges_of_a_screen() -> None:
    """Lines of a screen are counted as tmux does: from 0 at its top, above it negative, both ends included."""
    lines = ("h1", "h2", "a", "b", "c")
    assert render_range(2, lines, None, None) == "a\nb\nc"
    assert render_range(2, lines, -1, 0) == "h2\na"
    assert render_range(2, lines, 1, 1) == "b"
    assert render_range(2, lines, -100, -1) == "h1\nh2"
