"""Which silent processes a person should know of."""

from __future__ import annotations

import pytest

from kasmos.model.session import InputWait, WaitSource
from kasmos.supervision.waiting import Circumstances, decide_wait, describe_wait, same_wait

NOW = 1000.0


def wait(source: str, **facts: object) -> InputWait:
    said = {"pid": 7, "start": 1, "name": "cat", "ticks": 3, "born_at": NOW, **facts}
    return InputWait(source=WaitSource(source), **said)  # type: ignore[arg-type]  # a table's values


HEADLESS = Circumstances(NOW, None, has_terminal=False)
THINKS = Circumstances(NOW, False, has_terminal=False)
AT_TOOL = Circumstances(NOW, True, has_terminal=False)
TMUX = Circumstances(NOW, None, has_terminal=True)
SEEN = Circumstances(NOW, None, has_terminal=True, is_seen=True)


@pytest.mark.parametrize(
    ("found", "around", "told"),
    [
        # A terminal that a program opened itself: nobody will ever type there.
        (wait("terminal"), HEADLESS, True),
        (wait("terminal"), AT_TOOL, True),
        (wait("terminal"), THINKS, False),  # a shell that an agent keeps, while its model thinks
        (wait("terminal", born_at=NOW - 60), AT_TOOL, False),  # the same, while another tool works
        (wait("terminal", born_at=NOW - 60), HEADLESS, False),
        (wait("terminal", is_program=True, born_at=NOW - 60), THINKS, True),
        # The terminal of the session: where its screen is read, that tells.
        (wait("terminal", is_program=True), TMUX, True),
        (wait("terminal", is_program=True), SEEN, False),
        # Standard input that somebody holds open.
        (wait("pipe", held_above=True), AT_TOOL, True),
        (wait("pipe", held_above=True, born_at=NOW - 60), AT_TOOL, False),  # a server of tools
        (wait("pipe", held_above=True), THINKS, False),
        (wait("pipe", held_above=True), HEADLESS, False),
        (wait("pipe"), AT_TOOL, False),  # a sibling in a pipeline may still write
        (wait("pipe", alone=True, born_at=0), THINKS, True),
        (wait("pipe", held_above=True, stalemate=True, born_at=0), THINKS, True),
        (wait("stopped", born_at=0), THINKS, True),
    ],
)
def test_which_waits_are_told(found: InputWait, around: Circumstances, told: bool) -> None:
    """A wait counts where nothing can come, or where what goes on now has begun it; never a server of tools."""
    assert (decide_wait([found], around) is found) == told


def test_the_first_that_counts() -> None:
    """Of several processes the deepest that counts is told of."""
    server, tool = wait("pipe", held_above=True, born_at=0), wait("pipe", held_above=True, pid=8)
    assert decide_wait([server, tool], AT_TOOL) is tool
    assert decide_wait([], AT_TOOL) is None


@pytest.mark.parametrize("changes", [{"pid": 8}, {"start": 2}, {"ticks": 4}])
def test_a_process_that_went_on(changes: dict[str, object]) -> None:
    """A process that was busy in between, or is another one, has not waited all the time."""
    one = wait("terminal")
    assert same_wait(one, wait("terminal", holder="sh"))
    assert not same_wait(one, wait("terminal", **changes))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (wait("terminal"), "cat (pid 7) waits for input from a terminal that nobody is at"),
        (wait("pipe", alone=True), "cat (pid 7) waits for standard input that nobody but itself could give"),
        (wait("pipe", holder="node (pid 6)"), "which node (pid 6) holds open and gives nothing"),
        (wait("pipe", holder="sh (pid 6)", stalemate=True), "from sh (pid 6), which waits for it to end"),
        (wait("stopped"), "`kill -CONT 7` lets it go on"),
    ],
)
def test_what_a_person_is_told(found: InputWait, words: str) -> None:
    """A person is told who waits, for what, and who could give it."""
    assert words in describe_wait(found, has_terminal=False)
    assert "at its terminal" in describe_wait(wait("terminal"), has_terminal=True)
