"""Every value of the journal survives the way to JSON and back."""

from __future__ import annotations

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.model import codec
from kasmos.model import event as ev
from kasmos.model.event import Event, Record
from kasmos.model.plan import Plan, RunSettings
from kasmos.model.session import ExitStatus
from tests import strategies

HEAD = {"seq", "at", "mono", "type"}


@pytest.mark.parametrize("kind", strategies.EVENT_CLASSES, ids=codec.event_kinds())
@given(data=st.data())
def test_event_round_trip(kind: type[Event], data: st.DataObject) -> None:
    """Every kind of event is read back as it was written."""
    event = data.draw(strategies.values(kind))
    assert codec.decode_event(codec.event_kind(event), codec.encode_event(event)) == event


@given(strategies.journals(max_size=4))
def test_record_round_trip(records: list[Record]) -> None:
    """A record is one line of JSON and is read back as it was, its instant to the millisecond."""
    for record in records:
        line = codec.encode_record(record)
        back = codec.decode_record(line)
        assert b"\n" not in line
        assert attrs.evolve(back, at=record.at) == record
        assert abs(back.at - record.at) < 0.0011


@pytest.mark.parametrize("kind", strategies.EVENT_CLASSES, ids=codec.event_kinds())
def test_event_fields_beside_the_head(kind: type[Event]) -> None:
    """No event has a field that a record's head would hide."""
    assert not HEAD & {field.name for field in attrs.fields(kind)}


def test_event_kinds_are_distinct() -> None:
    """Each class of events has a name of its own, in snake case."""
    kinds = codec.event_kinds()
    assert len(set(kinds)) == len(kinds) == len(strategies.EVENT_CLASSES)
    assert "session_start_failed" in kinds


def test_record_of_a_newer_kasmos() -> None:
    """Fields that this version does not know are passed over."""
    record = Record(1, 0.0, 0.0, ev.RunContinued("r1"))
    line = json.dumps({**json.loads(codec.encode_record(record)), "colour": "blue"})
    assert codec.decode_record(line) == record


def test_event_of_an_older_kasmos() -> None:
    """Fields that have a default may be missing."""
    old = '{"session_id": "s1", "exit": {"code": 3}}'
    assert codec.decode_event("session_ended", old) == ev.SessionEnded("s1", ExitStatus(code=3))


@pytest.mark.parametrize(
    ("kind", "body", "place"),
    [
        ("session_melted", "{}", "unknown kind of event 'session_melted'"),
        ("run_continued", "{}", "missing required field `run_id`"),
        ("run_continued", '{"run_id": 3}', "$.run_id"),
        ("session_ended", '{"session_id": "s1", "exit": {"code": "3"}}', "$.exit.code"),
        ("stop_requested", '{"session_id": "s1", "reason": "boredom"}', "$.reason"),
        ("run_continued", '{"run_id": "r1"', "truncated"),
        ("run_continued", b'{"run_id": "\xff"}', "run_continued"),
    ],
)
def test_event_that_does_not_fit(kind: str, body: bytes | str, place: str) -> None:
    """What is not an event is refused with its place, never coerced."""
    with pytest.raises(codec.CodecError) as caught:
        codec.decode_event(kind, body)
    assert place in str(caught.value)


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"seq": 1, "at": "noon", "mono": 0, "type": "run_continued"}'])
def test_record_that_is_none(line: str) -> None:
    """A line that is no record is refused."""
    with pytest.raises(codec.CodecError):
        codec.decode_record(line)


@given(st.binary(max_size=40))
def test_record_of_any_bytes(line: bytes) -> None:
    """Whatever a damaged journal holds, reading it gives a record or a `CodecError`."""
    with pytest.raises(codec.CodecError):
        codec.decode_record(line)


def test_text_that_is_not_unicode() -> None:
    """A lone surrogate, as in the name of a file that is not UTF-8, is refused on the way out."""
    event = ev.RunInterrupted("r1", "\udcff")
    with pytest.raises(codec.CodecError):
        codec.encode_event(event)
    with pytest.raises(codec.CodecError):
        codec.encode_record(Record(1, 0.0, 0.0, event))
    with pytest.raises(codec.CodecError):
        codec.encode_pretty(event)


@given(strategies.plans(), strategies.settings_of_runs)
def test_plan_round_trip(plan: Plan, settings: RunSettings) -> None:
    """A plan and its settings are read back as they were written."""
    assert codec.decode(codec.encode(plan), Plan) == plan
    assert codec.decode(codec.encode_pretty(settings), RunSettings) == settings


@pytest.mark.parametrize(("text", "place"), [("{", "truncated"), ('{"max_concurrent": "4"}', "$.max_concurrent")])
def test_value_that_does_not_fit(text: str, place: str) -> None:
    """A value of the wrong type is refused with its JSON path."""
    with pytest.raises(codec.CodecError) as caught:
        codec.decode(text, RunSettings)
    assert place in str(caught.value)


def test_to_builtins() -> None:
    """Values become plain dicts, lists, strings and numbers."""
    said = {"code": 3, "signal": None, "certain": True, "out_of_memory": False}
    assert codec.to_builtins(ExitStatus(code=3)) == said


def test_json_schemas() -> None:
    """Types are described by JSON Schemas that refer to shared components."""
    (schema,), components = codec.json_schemas((ExitStatus,), "#/components/schemas/{name}")
    assert schema == {"$ref": "#/components/schemas/ExitStatus"}
    assert set(components["ExitStatus"]["properties"]) == {"code", "signal", "certain", "out_of_memory"}


@pytest.mark.parametrize(
    ("at", "text"), [(0.0, "1970-01-01T00:00:00.000Z"), (1_700_000_000.1234, "2023-11-14T22:13:20.123Z")]
)
def test_format_instant(at: float, text: str) -> None:
    """Instants are shown in UTC with milliseconds, as RFC 3339 has them."""
    assert codec.format_instant(at) == text
