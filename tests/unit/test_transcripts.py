"""Transcripts of real programs: what they tell and what they come to, however their bytes arrive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kasmos.harnesses import lines
from kasmos.harnesses.conclusion import Conclusion, Shortfall, render_conclusion
from kasmos.harnesses.events import render_agent_event
from kasmos.harnesses.facts import BUILT_IN, load_facts
from kasmos.harnesses.parser import TranscriptParser
from kasmos.model import codec
from kasmos.model.agent_event import AGENT_EVENT_KINDS, AgentEvent, agent_event_kind
from kasmos.model.session import ExitStatus
from kasmos.model.task import Outcome

RECORDED = Path(__file__).parents[1] / "data" / "transcripts"
EXPECTED: dict[str, dict[str, Any]] = json.loads((RECORDED / "expected.json").read_text())
NOW = 1795219200.0  # in the minutes of the recordings


def status_of(number: int) -> ExitStatus:
    return ExitStatus(signal=-number) if number < 0 else ExitStatus(code=number)


def read(
    program: str,
    data: bytes,
    exit_: int | None = 0,
    *,
    stderr: bytes = b"",
    cuts: list[int] | None = None,
    **options: Any,
) -> tuple[list[AgentEvent], Conclusion]:
    parser = TranscriptParser(load_facts(program), now=NOW, **options)
    events: list[AgentEvent] = []
    at = 0
    for cut in cuts or ():
        events += parser.feed(data[at : at + cut])
        at += cut
    events += parser.feed(data[at:])
    parser.feed_stderr(stderr)
    events += parser.close()
    return events, parser.finish(None if exit_ is None else status_of(exit_))


def jsonl(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def kind_of(conclusion: Conclusion) -> str | None:
    return None if conclusion.failure is None else conclusion.failure.kind.value


@pytest.mark.parametrize("case", EXPECTED)
def test_recorded(case: str) -> None:
    """Every recorded transcript comes to the outcome, failure, usage, conversation and events that it really had."""
    expected = EXPECTED[case]
    err = RECORDED / f"{case}.err"
    stderr = err.read_bytes() if err.exists() else b""
    events, found = read(case.split("/")[0], (RECORDED / f"{case}.out").read_bytes(), expected["exit"], stderr=stderr)
    failure, usage = found.failure, found.usage
    assert {
        "exit": expected["exit"],
        "outcome": found.outcome.value,
        "kind": kind_of(found),
        "shortfall": failure and failure.shortfall and failure.shortfall.value,
        "reset_at": failure and failure.reset_at,
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cached": usage.cached_tokens,
        "reasoning": usage.reasoning_tokens,
        "cost": usage.cost_usd,
        "source": usage.source.value,
        "conversation": found.conversation,
        "events": [agent_event_kind(one) for one in events if not getattr(one, "partial", False)],
    } == expected
    assert failure is None or failure.message


CLAUDE = (RECORDED / "claude" / "bash_default.out").read_bytes()
SAMPLES = {case: (RECORDED / f"{case}.out").read_bytes() for case in EXPECTED}


@pytest.mark.parametrize("case", ["claude/task", "codex/bash_full", "opencode/edit", "gemini/todo", "aider/edit"])
def test_bytewise(case: str) -> None:
    """A transcript that comes byte by byte, or with CRLF, gives what it gives in one piece."""
    program, data = case.split("/")[0], SAMPLES[case]
    assert read(program, data, cuts=[1] * len(data)) == read(program, data)
    assert read(program, data.replace(b"\n", b"\r\n")) == read(program, data)


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """A transcript cut off, with bytes replaced, or with lines in another order."""
    cut = st.integers(0, len(data)).map(lambda at: data[:at])
    spots = st.lists(st.tuples(st.integers(0, max(len(data) - 1, 0)), st.binary(min_size=1, max_size=4)), max_size=8)
    patched = spots.map(lambda places: _patched(data, places))
    shuffled = st.permutations(data.split(b"\n")[:12]).map(b"\n".join)
    return cut | patched | shuffled


def _patched(data: bytes, places: list[tuple[int, bytes]]) -> bytes:
    for at, new in places:
        data = data[:at] + new + data[at + len(new) :]
    return data


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from(sorted(SAMPLES)), st.sampled_from([None, 0, 1, 143, -9]))
def test_damage(data: st.DataObject, case: str, exit_: int | None) -> None:
    """Whatever a transcript has become: nothing raises, cuts make no difference, a failure has its reason."""
    text = data.draw(damaged(SAMPLES[case][:20_000]))
    program = data.draw(st.sampled_from([case.split("/")[0], *BUILT_IN]))
    cuts = data.draw(st.lists(st.integers(1, 500), max_size=50))
    events, found = read(program, text, exit_, cuts=cuts)
    assert (events, found) == read(program, text, exit_)
    for event in events:
        assert json.loads(render_agent_event(event))["type"] in AGENT_EVENT_KINDS
    assert (found.failure is None) == (found.outcome is Outcome.SUCCEEDED)
    codec.encode(render_conclusion(found))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)


def mutated(value: Any, draw: Any) -> Any:
    if draw(st.integers(0, 14)) == 0:
        return draw(anything)
    if isinstance(value, dict):
        return {key: mutated(one, draw) for key, one in value.items() if draw(st.integers(0, 19))}
    return [mutated(one, draw) for one in value] if isinstance(value, list) else value


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.data(), st.sampled_from(["claude/task", "codex/bash_full", "opencode/fail", "gemini/todo", "claude/max_turns"])
)
def test_other_shapes(data: st.DataObject, case: str) -> None:
    """Fields may be missing, new or of another type: the line is understood as far as it goes."""
    records = [json.loads(line) for line in SAMPLES[case].splitlines()[-4:]]
    events, found = read(case.split("/")[0], jsonl(*(mutated(record, data.draw) for record in records)))
    for event in events:
        json.loads(render_agent_event(event))
    codec.encode(render_conclusion(found))


@given(st.binary(max_size=2000), st.sampled_from(BUILT_IN))
def test_garbage(data: bytes, program: str) -> None:
    """Bytes that are no transcript at all are read without an error, the same however they are cut."""
    assert read(program, data, cuts=[7] * 20) == read(program, data)


def test_long_line() -> None:
    """A line of 50 MB is shortened, keeps its meaning and is not kept in memory; what follows is read as ever."""
    text = 'line \\ "quoted" \u00e9\n'
    result = {"type": "tool_result", "tool_use_id": "t", "content": "%"}
    record = json.dumps({"type": "user", "message": {"role": "user", "content": [result]}}).encode()
    head, _, tail = record.partition(b"%")
    inside = json.dumps(text).encode()[1:-1]
    parser = TranscriptParser(load_facts("claude"))
    assert parser.feed(head) == []
    piece = inside * 10_000
    for _ in range((50 << 20) // len(piece)):
        assert parser.feed(piece) == []
    (event,) = parser.feed(tail + b"\n")
    rendered = json.loads(render_agent_event(event))
    assert rendered["type"] == "tool_result"
    assert rendered["output"].startswith(text)
    assert "bytes left out]" in rendered["output"]
    assert len(rendered["output"]) < 100_000
    assert parser.feed(jsonl({"type": "result", "subtype": "success", "is_error": False, "result": "ok"}))
    assert parser.finish(ExitStatus(code=0)).outcome is Outcome.SUCCEEDED


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.integers(1, 90), max_size=40), st.integers(1, 60))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_shortened(texts: list[str], cuts: list[int], keep: int) -> None:
    """A shortened line is still JSON, whatever its letters, and does not depend on how it was cut."""
    line = json.dumps({"a": texts, "b": {"c": '\U0001f600\\"' * 40}}).encode()
    whole, kept = lines.WHOLE, lines.KEEP
    lines.WHOLE, lines.KEEP = 50, keep
    try:
        one, many = lines.Lines(), lines.Lines()
        found = [*one.feed(line + b"\n"), one.close()]
        at, pieces = 0, []
        for cut in cuts:
            pieces += many.feed(line[at : at + cut])
            at += cut
        pieces += [*many.feed(line[at:] + b"\n"), many.close()]
    finally:
        lines.WHOLE, lines.KEEP = whole, kept
    assert pieces == found
    codec.decode_loose(found[0])


def test_mixed_text() -> None:
    """What wrappers write around the lines of a program is `unknown`, and the lines are read all the same."""
    records = CLAUDE.splitlines()
    noisy = b"npm notice new version\n" + b"warning: " + records[0] + b"\n" + records[1] + b" (node:1) Warning\n"
    noisy += b"[1, 2]\nnull\n\xff\xfe\n" + b"\n".join(records[2:4]) + b"\n" + records[4] + records[5] + b"\n"
    events, found = read("claude", noisy)
    clean, same = read("claude", CLAUDE)
    assert [one for one in events if agent_event_kind(one) != "unknown"] == clean
    assert (found.outcome, found.usage) == (same.outcome, same.usage)
    assert sum(agent_event_kind(one) == "unknown" for one in events) == 6


def test_unknown_type() -> None:
    """A line of a type that is not known is an `unknown` event with its name, never an error."""
    (event,), _ = read("claude", jsonl({"type": "dream", "x": [1]}))
    assert json.loads(render_agent_event(event)) == {
        "type": "unknown",
        "name": "dream",
        "text": '{"type":"dream","x":[1]}',
    }


def test_half_letters() -> None:
    """Invalid UTF-8 and halves of surrogate pairs become replacement characters, and the line is read."""
    line = b'{"type":"assistant","message":{"content":[{"type":"text","text":"a\\ud83d b\xff \\\\ud83d"}]}}\n'
    (event,), _ = read("claude", line)
    assert json.loads(render_agent_event(event))["text"] == "a\ufffd b\ufffd \\ud83d"


def test_accept() -> None:
    """What may be missing although the program exits 0 is the user's choice."""
    denied, empty = SAMPLES["claude/bash_default"], SAMPLES["claude/empty"]
    cut = jsonl({"type": "result", "subtype": "success", "is_error": False, "result": "x", "stop_reason": "max_tokens"})
    silent = b"".join(CLAUDE.splitlines(keepends=True)[:2])
    cases = {
        Shortfall.TOOL_DENIED: denied,
        Shortfall.EMPTY_ANSWER: empty,
        Shortfall.CUT_OFF: cut,
        Shortfall.NO_RESULT: silent,
    }
    for shortfall, data in cases.items():
        _, found = read("claude", data)
        assert found.failure is not None
        assert found.failure.shortfall is shortfall
        assert read("claude", data, accept=[shortfall])[1].outcome is Outcome.SUCCEEDED


def test_exit_after_result() -> None:
    """A program that is ended after it said that it is done has succeeded; one that exits 1 by itself has not."""
    data = SAMPLES["claude/text"]
    assert read("claude", data, -9)[1].outcome is Outcome.SUCCEEDED
    assert read("claude", data, 143)[1].outcome is Outcome.SUCCEEDED
    assert kind_of(read("claude", data, 1)[1]) == "crash"


def test_turn_after_result() -> None:
    """A result counts for its own turn: what begins after it has no result yet."""
    again = CLAUDE.splitlines(keepends=True)[1]
    _, found = read("claude", SAMPLES["claude/text"] + again)
    assert found.failure is not None
    assert found.failure.shortfall is Shortfall.NO_RESULT


def test_unknown_exit() -> None:
    """Without an exit status a result still decides; without either, the end is lost, never a success."""
    assert read("claude", SAMPLES["claude/text"], None)[1].outcome is Outcome.SUCCEEDED
    assert read("claude", SAMPLES["claude/hang"], None)[1].outcome is Outcome.LOST


def test_interrupted_with_exit_0() -> None:
    """claude exits 0 after an interrupt: that is cancelled, not succeeded."""
    result = {
        "type": "result", "subtype": "error_during_execution", "is_error": True,
        "terminal_reason": "aborted_streaming", "permission_denials": [], "errors": ["x"],
    }  # fmt: skip
    _, found = read("claude", jsonl(result))
    assert (found.outcome, kind_of(found)) == (Outcome.CANCELLED, "killed")


def test_plain_where_a_stream_was_asked_for() -> None:
    """Text is no answer of a program that was asked for its stream of events."""
    assert read("claude", b"Hello\n", structured=None)[1].outcome is Outcome.SUCCEEDED
    assert read("claude", b"npm notice\n", structured=True)[1].outcome is Outcome.FAILED


def test_last_words_are_the_program_s() -> None:
    """A program that breaks in a mediator's hands is told by its own last words, not by what is noted below them."""
    below = b"kasmos: the program exited 7 in the middle of its turn\n"
    _, found = read("opencode", b"panic: it broke\n" + below, 7)
    assert found.failure is not None
    assert found.failure.message == "exited 7: panic: it broke"
    _, found = read("opencode", below, 7)
    assert found.failure is not None
    assert found.failure.message.endswith("in the middle of its turn")


@pytest.mark.parametrize(("words", "kind"), [("it wrote nothing else", "unknown"), ("Invalid API key", "auth")])
def test_a_mute_program(words: str, kind: str) -> None:
    """What the mediator says of a program that never came to its turn is the failure, of the kind its words are of."""
    error = f"it does not speak ACP: nothing came within 60 s; {words}"
    _, conclusion = read("opencode", jsonl({"dir": "=", "msg": {"error": error}}), 1)
    assert kind_of(conclusion) == kind
    assert conclusion.failure is not None
    assert conclusion.failure.message == error


def test_a_program_that_ends_before_its_turn() -> None:
    """Of a program that ends without a word it is said when that was, as the mediator has noted it."""
    _, conclusion = read("opencode", b"kasmos: the program exited 3 before its turn began\n", 3)
    assert conclusion.failure is not None
    assert conclusion.failure.message == "the program exited 3 before its turn began"


def test_qwen_error_with_exit_0() -> None:
    """qwen reports an error of the server as a success with exit 0; its usage counts the conversation."""
    usage = {"input_tokens": 2010, "output_tokens": 200, "cache_read_input_tokens": 500, "total_tokens": 2210}
    init = {"type": "system", "subtype": "init", "session_id": "q1", "qwen_code_version": "0.15.10"}
    result = {"type": "result", "subtype": "success", "is_error": False, "session_id": "q1", "usage": usage}
    _, found = read("qwen", jsonl(init, {**result, "result": "[API Error: 401 Incorrect API key provided]"}))
    assert (found.outcome, kind_of(found), found.conversation) == (Outcome.FAILED, "auth", "q1")
    _, found = read("qwen", jsonl(init, {**result, "result": "All is done."}))
    assert (found.outcome, found.usage.input_tokens, found.usage.scope) == (Outcome.SUCCEEDED, 2010, "conversation")


def test_codex_older_form() -> None:
    """The stream of older versions of codex is read too."""
    old = jsonl(
        {"model": "gpt-5", "workdir": "/w"},
        {"prompt": "do it"},
        {"id": "0", "msg": {"type": "session_configured", "session_id": "c1", "model": "gpt-5"}},
        {"id": "1", "msg": {"type": "exec_command_begin", "call_id": "a", "command": ["ls"]}},
        {"id": "1", "msg": {"type": "exec_command_end", "call_id": "a", "exit_code": 2, "aggregated_output": "no"}},
        {
            "id": "1",
            "msg": {"type": "token_count", "info": {"total_token_usage": {"input_tokens": 9, "output_tokens": 3}}},
        },
        {"id": "1", "msg": {"type": "agent_message", "message": "done"}},
        {"id": "1", "msg": {"type": "task_complete", "last_agent_message": "done"}},
    )
    events, found = read("codex", old)
    assert [agent_event_kind(one) for one in events] == ["tool_call", "tool_result", "usage", "message", "result"]
    assert (found.outcome, found.conversation, found.usage.output_tokens) == (Outcome.SUCCEEDED, "c1", 3)
    _, found = read("codex", old[: old.rindex(b'{"id": "1"')] + jsonl({"id": "1", "msg": {"type": "turn_aborted"}}))
    assert found.outcome is Outcome.CANCELLED


def test_documents() -> None:
    """One JSON object over many lines, and an array of all records on one, are read like a stream."""
    stats = {"models": {"m": {"tokens": {"prompt": 1000, "candidates": 93, "thoughts": 7, "cached": 500}}}}
    whole = json.dumps({"session_id": "g1", "response": "Hello", "stats": stats}, indent=2).encode()
    _, found = read("gemini", b"Loaded.\n" + whole + b"\n")
    assert (found.outcome, found.conversation, found.answer) == (Outcome.SUCCEEDED, "g1", "Hello")
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.reasoning_tokens) == (1000, 100, 7)
    records = [json.loads(line) for line in SAMPLES["claude/text"].splitlines()]
    assert read("claude", json.dumps(records).encode())[1] == read("claude", SAMPLES["claude/text"])[1]


def test_mini() -> None:
    """mini's trajectory tells how it ended; exit 0 with a limit is no success."""
    answer = {
        "role": "assistant",
        "content": "ok",
        "extra": {"response": {"usage": {"prompt_tokens": 10, "completion_tokens": 2}}},
    }
    info = {"exit_status": "Submitted", "submission": "done", "model_stats": {"instance_cost": 0.5, "api_calls": 1}}
    trajectory = {"messages": [answer], "info": info, "trajectory_format": "mini-swe-agent-1.1"}
    _, found = read("mini", json.dumps(trajectory, indent=2).encode())
    assert (found.outcome, found.answer, found.usage.cost_usd) == (Outcome.SUCCEEDED, "done", 0.5)
    assert (found.usage.input_tokens, found.usage.output_tokens) == (10, 2)
    info["exit_status"] = "LimitsExceeded"
    assert kind_of(read("mini", json.dumps(trajectory).encode())[1]) == "budget"
    assert kind_of(read("mini", b"step 1\nExit: LimitsExceeded\n")[1]) == "budget"


def test_usage_before_a_result() -> None:
    """Until a result tells, each message counts once, with what it told last; what none tells stays unknown."""

    def said(id_: str, **usage: int) -> Any:
        message = {"id": id_, "role": "assistant", "content": [{"type": "text", "text": "x"}], "usage": usage}
        return {"type": "assistant", "message": message}

    _, end = read(
        "claude",
        jsonl(
            said("a", input_tokens=100, cache_read_input_tokens=7),
            said("b", input_tokens=10),
            said("a", input_tokens=120, cache_read_input_tokens=5),
            said("b", input_tokens=10),
        ),
        -9,
    )
    assert (end.usage.input_tokens, end.usage.cached_tokens) == (130, 5)
    assert (end.usage.output_tokens, end.usage.cache_write_tokens, end.usage.source) == (None, None, "estimated")


def test_turns_of_one_process() -> None:
    """Usage is summed over the turns of a process; money and `modelUsage` are totals already."""
    model = {"inputTokens": 2000, "outputTokens": 200}
    one = {"type": "result", "subtype": "success", "result": "a", "usage": {"input_tokens": 1000, "output_tokens": 100}}
    two = jsonl({**one, "total_cost_usd": 0.1}, {**one, "total_cost_usd": 0.2})
    usage = read("claude", two)[1].usage
    assert (usage.input_tokens, usage.output_tokens, usage.cost_usd) == (2000, 200, 0.2)
    usage = read("claude", jsonl(one, {**one, "modelUsage": {"m": model}}))[1].usage
    assert (usage.input_tokens, usage.output_tokens) == (2000, 200)


def test_generic() -> None:
    """Of a program that is not known only its exit counts."""
    assert read("generic", b"rate limit exceeded\n")[1].outcome is Outcome.SUCCEEDED
    _, found = read("generic", b"working\nError: 429 Too Many Requests, retry-after: 30\n", 1)
    assert (kind_of(found), found.failure and found.failure.retry_after) == ("rate_limit", 30.0)
    assert kind_of(read("generic", b"", -11)[1]) == "crash"
    assert read("generic", b"", 124)[1].outcome is Outcome.TIMED_OUT


def test_gemini_stops() -> None:
    """What gemini stops by itself and calls a success is none; an answer that was cut off is told apart."""
    said = {"type": "message", "role": "assistant", "content": "half", "delta": True}
    done = {"type": "result", "status": "success", "stats": {"input_tokens": 9, "output_tokens": 2}}
    for words, kind, shortfall in (
        ("Loop detected, stopping execution", "unknown", None),
        ("Maximum session turns exceeded", "max_turns", None),
        ("Response stopped due to safety reasons.", "refused", None),
        ("Response truncated due to token limits.", "unknown", Shortfall.CUT_OFF),
    ):
        warning = {"type": "error", "severity": "warning", "message": words}
        _, found = read("gemini", jsonl(said, warning, done))
        assert found.failure is not None
        assert (kind_of(found), found.failure.shortfall) == (kind, shortfall)


def test_gemini_exit_codes() -> None:
    """gemini exits with the HTTP status modulo 256, and words that are exacter are believed before it."""
    assert kind_of(read("gemini", b"", 145)[1]) == "auth"
    assert kind_of(read("gemini", b"", 173)[1]) == "rate_limit"
    assert kind_of(read("gemini", b"", 41)[1]) == "auth"
    quota = b"You have exhausted your daily quota on this model."
    assert kind_of(read("gemini", b"", 173, stderr=quota)[1]) == "quota"


def test_aider_empty_answer() -> None:
    """aider that got no answer exits 0 and has not succeeded."""
    said = b"Aider v0.86.2\nRepo-map: disabled\n\nEmpty response received from LLM. Check your provider account?\n"
    _, found = read("aider", said + b"Tokens: 2.4k sent, 0 received. Cost: $0.01 message, $0.01 session.\n")
    assert found.failure is not None
    assert found.failure.shortfall is Shortfall.EMPTY_ANSWER
    assert read("aider", b"Aider v0.86.2\n")[1].outcome is Outcome.FAILED


def test_claude_limit_event() -> None:
    """A limit that claude announces with the time of its end is a quota until then."""
    info = {"status": "rejected", "resetsAt": NOW + 600, "rateLimitType": "five_hour"}
    result = {"type": "result", "subtype": "success", "is_error": True, "result": "You've hit your limit"}
    events, found = read("claude", jsonl({"type": "rate_limit_event", "rate_limit_info": info}, result), 1)
    assert agent_event_kind(events[0]) == "rate_limit"
    assert (kind_of(found), found.failure and found.failure.reset_at) == ("quota", NOW + 600)


def test_words_of_the_agent() -> None:
    """What an agent says of rate limits, keys and policies is no failure."""
    prose = "I fixed the rate limit: 429 Too Many Requests. Invalid API key is now told, usage limit reached too."
    result = {"type": "result", "subtype": "success", "is_error": False, "result": prose}
    assert read("claude", jsonl(result))[1].outcome is Outcome.SUCCEEDED
    assert read("claude", f"{prose}\n".encode())[1].outcome is Outcome.SUCCEEDED
    done = {"type": "turn.completed", "usage": {"input_tokens": 1, "output_tokens": 1}}
    item = {"type": "item.completed", "item": {"type": "agent_message", "text": prose}}
    assert read("codex", jsonl(item, done))[1].outcome is Outcome.SUCCEEDED
