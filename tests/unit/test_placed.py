"""Events of agents with their places: whoever goes on anywhere misses nothing and sees nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kasmos.harnesses.facts import load_facts
from kasmos.harnesses.parser import TranscriptParser
from kasmos.harnesses.placed import Place, PlacedEvent, PlacedTranscript

RECORDED = Path(__file__).parents[1] / "data" / "transcripts"
ALL = sorted(RECORDED.glob("*/*.out"))


def read(harness: str, data: bytes, piece: int = 1 << 30) -> list[PlacedEvent]:
    transcript = PlacedTranscript(TranscriptParser(load_facts(harness)))
    found = []
    for begin in range(0, len(data), piece):
        found += transcript.feed(data[begin : begin + piece])
    return found + transcript.close()


@pytest.mark.parametrize("path", ALL, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_places_of_recorded_transcripts(path: Path) -> None:
    """Places only grow, are those of lines, have one event each, and do not depend on how the bytes were cut."""
    data = path.read_bytes()
    events = read(path.parent.name, data)
    places = [event.after for event in events]
    assert sorted(set(places)) == places
    for event in events:
        assert event.offset in (0, len(data)) or data[event.offset - 1 : event.offset] == b"\n"
        assert Place(event.offset) < event.after
    parser = TranscriptParser(load_facts(path.parent.name))
    assert [event.event for event in events] == parser.feed(data) + parser.close()
    assert read(path.parent.name, data, 7) == events


@given(st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_place_survives_being_written(data: st.DataObject) -> None:
    """A place is the same after it was written and read; anything else is refused."""
    place = Place(data.draw(st.integers(0, 10**17)), data.draw(st.integers(0, 10**8)))
    assert Place.parse(str(place)) == place


@pytest.mark.parametrize("text", ["", "x", "-1", "1.", ".1", "1.2.3", "1e3", " 1", "\u0661", "9" * 19])
def test_what_is_no_place(text: str) -> None:
    """A place is written in one way; everything else is refused."""
    with pytest.raises(ValueError, match="is no place"):
        Place.parse(text)


def test_what_is_gone_is_passed_over() -> None:
    """A line that was cut by a gap ends there; places go on behind the gap."""
    transcript = PlacedTranscript(TranscriptParser(load_facts("claude")))
    line = b'{"type":"error","error":{"message":"first"}}\n'
    assert [event.offset for event in transcript.feed(line + line[:10])] == [0]
    cut = transcript.skip_to(1000)
    assert [event.offset for event in cut] == [len(line)]
    assert [event.offset for event in transcript.feed(b"rest of it\n" + line)] == [1000, 1011]


def test_what_only_the_end_makes_clear() -> None:
    """A last line without its end stands where it begins, and what only the end tells stands at the end."""
    transcript = PlacedTranscript(TranscriptParser(load_facts("claude")))
    data = b"one line\nand half of"
    assert transcript.feed(data) == []
    assert transcript.place == Place(9)
    assert [event.after for event in transcript.close()] == [Place(len(data), 1), Place(len(data), 2)]
    assert transcript.place == Place(len(data))
    cut = PlacedTranscript(TranscriptParser(load_facts("claude")))
    line = b'{"type":"error","error":{"message":"first"}}'
    assert [event.offset for event in cut.feed(line + b"\n" + line) + cut.close()] == [0, len(line) + 1]
