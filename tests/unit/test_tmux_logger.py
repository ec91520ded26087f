"""The mark at the end of what a terminal says, and the one who listens for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kasmos.sessions.tmux_logger import Ear

MARK = b"\x18\x1b^kasmos s1\x1b\\"
WORDS = st.lists(st.sampled_from([b"a", b"\x18", b"\x1b", MARK[:2], MARK[:-1], b"\xff"])).map(b"".join)


@given(WORDS, WORDS, st.lists(st.integers(1, 9)))
def test_only_the_mark_is_missing(before: bytes, after: bytes, sizes: list[int]) -> None:
    """However it is cut into pieces: all is logged but for the mark, and nothing is held that cannot begin one."""
    ear, logged = Ear("s1", tells=False), b""
    given_, sizes = before + MARK + after, [*sizes, 1 << 20]
    while given_:
        size = sizes.pop(0)
        logged += ear.hear(given_[:size])
        assert MARK.startswith(ear.held)
        given_ = given_[size:]
    logged += ear.held
    assert logged == before + after
