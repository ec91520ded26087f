"""Harnesses: which program is which, how it is started, what its words mean, and what follows a failure."""

from __future__ import annotations

import datetime

import pytest

from kasmos.harnesses.aftermath import Step, decide_after_failure
from kasmos.harnesses.catalog import find_harness, harness_names, recognise
from kasmos.harnesses.command import Continuation, Wish, build_arguments, judge_wish
from kasmos.harnesses.conclusion import Failure, FailureKind
from kasmos.harnesses.facts import BUILT_IN, common_rules, knows_version, load_facts, parse_facts
from kasmos.harnesses.parser import DIALECTS
from kasmos.harnesses.words import classify, read_comeback, status_in
from kasmos.model.approval import PermissionDefault

NOW = datetime.datetime(2026, 11, 20, 18, 40, tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize(
    ("command", "harness"),
    [
        (["claude"], "claude"),
        (["/opt/bin/claude", "-p"], "claude"),
        (["npx", "-y", "@anthropic-ai/claude-code@2.1.197"], "claude"),
        (["npx", "@openai/codex", "exec"], "codex"),
        (["node", "/usr/lib/node_modules/@openai/codex/bin/codex.js"], "codex"),
        (["env", "A=1", "timeout", "30m", "codex", "exec"], "codex"),
        (["bunx", "opencode-ai"], "opencode"),
        (["python3", "-m", "aider"], "aider"),
        (["uvx", "--from", "aider-chat", "aider"], "aider"),
        (["/venv/bin/python", "/venv/bin/mini"], "mini"),
        (["gemini"], "gemini"),
        (["qwen"], "qwen"),
        (["sh", "-c", "claude"], "generic"),
        (["claude-wrapper"], "generic"),
        (["npx"], "generic"),
        ([], "generic"),
    ],
)
def test_recognise(command: list[str], harness: str) -> None:
    """A program is known by its name, also behind wrappers; what only looks like one is not."""
    assert recognise(command).name == harness


def test_facts() -> None:
    """Every harness that ships has facts with a dialect that exists, and the last versions they were found with."""
    for name in harness_names():
        facts = find_harness(name)
        assert facts is not None
        assert facts.dialect in DIALECTS
        assert not facts.reference or knows_version(facts, facts.reference)
        for rule in facts.rules:
            assert not rule.is_about("")
    assert find_harness("nosuch") is None


def test_versions() -> None:
    """A version beyond the range is not known; no version, or no range, is no answer."""
    facts = load_facts("claude")
    assert knows_version(facts, "2.1.197 (Claude Code)") is True
    assert knows_version(facts, "3.0") is False
    assert knows_version(facts, "1.9.9") is False
    assert knows_version(facts, "unknown") is None
    assert knows_version(load_facts("generic"), "1.0") is None


def test_third_party_facts() -> None:
    """A third party's facts are made of a document with the same keys."""
    document = {"programs": ["acme"], "dialect": "claude", "failures": [{"kind": "quota", "pattern": "no more beans"}]}
    facts = parse_facts("acme", document, common_rules())
    assert classify("there are No More Beans", facts.rules) is FailureKind.QUOTA
    with pytest.raises(ValueError, match="nonsense"):
        parse_facts("acme", {"failures": [{"kind": "nonsense", "pattern": "x"}]})
    with pytest.raises(ValueError, match=r"'no \(beans' is no regular expression"):
        parse_facts("acme", {"failures": [{"kind": "quota", "pattern": "no (beans"}]})


@pytest.mark.parametrize(
    ("kind", "words", "near_miss"),
    [
        ("auth", "Invalid API key · Fix external API key", "the API keyword is fine"),
        ("auth", "OAuth token has expired", "the token bucket was refilled"),
        ("quota", "Claude AI usage limit reached|1795221600", "usage: claude [options]"),
        ("quota", "You've hit your limit · resets 9pm (UTC)", "the limit of the loop"),
        ("rate_limit", "429 Too Many Requests", "port 4290 is taken"),
        ("overloaded", "API Error: Overloaded", "the function is overload-resolved"),
        ("context_too_long", "Prompt is too long · the request is ~210000 tokens", "the line is too long (E501)"),
        ("max_turns", "Reached maximum number of turns (3)", "it turns out well"),
        ("budget", "Reached maximum budget ($0.02)", "the table of budgets"),
        ("refused", "appears to violate our Usage Policy", "policy: none"),
        ("tool_denied", "patch rejected: rejected by user approval settings", "the patch was rejected by git"),
        ("network", "Unable to connect to API (ConnectionRefused)", "the graph is connected"),
        ("timed_out", "time limit exceeded", "the time is limited"),
        ("crash", "thread 'main' panicked at src/main.rs", "nobody panics"),
    ],
)
def test_classify(kind: str, words: str, near_miss: str) -> None:
    """Every kind of failure is told by its words, and words that are near them tell nothing."""
    rules = load_facts("claude").rules
    assert classify(words, rules).value == kind
    assert classify(near_miss, rules) is FailureKind.UNKNOWN


def test_classify_status() -> None:
    """An HTTP status decides where words do not, and gives way to exacter words."""
    rules = common_rules()
    assert classify("no", rules, 401) is FailureKind.AUTH
    assert classify("no", rules, 402) is FailureKind.QUOTA
    assert classify("no", rules, 429) is FailureKind.RATE_LIMIT
    assert classify("no", rules, 529) is FailureKind.OVERLOADED
    assert classify("no", rules, 400) is FailureKind.UNKNOWN
    assert classify("You exceeded your current quota", rules, 429) is FailureKind.QUOTA
    assert classify("prompt is too long", rules, 400) is FailureKind.CONTEXT_TOO_LONG
    assert status_in("unexpected status 503 Service Unavailable") == 503
    assert status_in("line 503 of the file") is None


@pytest.mark.parametrize(
    ("words", "after"),
    [
        ("Please try again in 1s.", 1),
        ("Your quota will reset after 3h20m5s.", 12005),
        ("try again in 3 hours 20 minutes", 12000),
        ("Please retry in 12.34s.", 12.34),
        ("retry-after: 30", 30),
        ('"retryDelay":"34s"', 34),
        ("limit reached|1795200060", 60),
        ("resets 7:50pm (UTC)", 4200),
        ("5-hour limit reached ∙ resets 3pm", 73200),
        ("resets Nov 30, 12:53am (UTC)", 799980),
        ("try again at Nov 30th, 2026 12:53 AM.", 799980),
        ("reset at 2026-11-30T12:00:00Z", 840000),
        ("try again later", None),
        ("resets Monday", None),
        ("line 5 of 3pm.py", None),
    ],
)
def test_comeback(words: str, after: float | None) -> None:
    """When a limit is over is read from every form that programs write it in, and never guessed."""
    now = 1795200000.0
    found = read_comeback(words, now)
    assert found.retry_after == after
    assert found.reset_at == (None if after is None else now + after)


def test_comeback_zone() -> None:
    """A time of day counts in the zone that is named with it; without a clock it says nothing."""
    tokyo = datetime.timezone(datetime.timedelta(hours=9))
    words = "resets 5am (Asia/Tokyo)"
    assert read_comeback(words, NOW, {"Asia/Tokyo": tokyo}.get).retry_after == 80 * 60
    assert read_comeback(words).reset_at is None


@pytest.mark.parametrize(("seconds", "after"), [(-50, 50), (0, 60), (7, 53), (59, 1), (60, 0), (599, 0), (600, 85_800)])
def test_minute_that_is_not_over(seconds: int, after: int) -> None:
    """A time of day told to the minute means that minute, and one that has just been is not tomorrow's."""
    at = datetime.datetime(2026, 11, 26, 1, 54, tzinfo=datetime.UTC).timestamp()
    assert read_comeback("or try again at 1:54 AM.", at + seconds).retry_after == after


BYPASS = PermissionDefault.BYPASS


@pytest.mark.parametrize(
    ("program", "spelled", "wish", "words"),
    [
        ("claude", "", Wish("P"), "-p --output-format stream-json --verbose P"),
        ("claude", "-p --output-format json", Wish("P"), "-p --output-format json P"),
        ("claude", "--model=x", Wish("P", model="m", structured=False), "-p --model=x P"),
        (
            "claude",
            "--dangerously-skip-permissions",
            Wish("P", structured=False, permission=BYPASS),
            "-p --dangerously-skip-permissions P",
        ),
        ("claude", "", Wish("P", structured=False, conversation="i"), "-p --session-id i P"),
        (
            "claude",
            "",
            Wish("P", structured=False, conversation="i", continuation=Continuation.FORK),
            "-p --resume i --fork-session P",
        ),
        ("codex", "", Wish("P", conversation="i", continuation=Continuation.RESUME), "exec --json resume i P"),
        (
            "codex",
            "exec --sandbox x -",
            Wish(None, conversation="i", continuation=Continuation.RESUME),
            "exec --sandbox x --json resume i -",
        ),
        ("codex", "exec --full-auto", Wish("P", permission=BYPASS), "exec --full-auto --json P"),
        ("codex", "-c a=1", Wish("P", effort="high"), 'exec -c a=1 --json -c model_reasoning_effort="high" P'),
        ("opencode", "", Wish("P", model="m"), "run --format json -m m P"),
        ("gemini", "", Wish("P", permission=BYPASS), "-o stream-json -y -p P"),
        (
            "gemini",
            "--approval-mode auto_edit",
            Wish("P", permission=BYPASS),
            "--approval-mode auto_edit -o stream-json -p P",
        ),
        ("mini", "", Wish("P", permission=BYPASS), "-y --exit-immediately -t P"),
        ("mini", "-m m -y --exit-immediately -t", Wish("P"), "-m m -y --exit-immediately -t P"),
        ("generic", "--x", Wish("P", model="m"), "--x P"),
    ],
)
def test_arguments(program: str, spelled: str, wish: Wish, words: str) -> None:
    """A program gets the words it understands, and nothing that the profile has said already."""
    assert build_arguments(load_facts(program), spelled.split(), wish) == tuple(words.split())


def test_refusals() -> None:
    """What a program would refuse is told before it is started, all at once and with the cure."""
    claude, codex, aider = load_facts("claude"), load_facts("codex"), load_facts("aider")

    def problems(facts: object, wish: Wish, **environment: str) -> list[str]:
        found = judge_wish(facts, (), wish, agent="a", environment=environment, is_root=True)  # type: ignore[arg-type]
        return [str(one) for one in found]

    (said,) = problems(claude, Wish(permission=BYPASS))
    assert "for root" in said
    assert "IS_SANDBOX" in said
    assert problems(claude, Wish(permission=BYPASS), IS_SANDBOX="1") == []
    assert problems(claude, Wish(permission=PermissionDefault.PROMPT)) == []
    wish = Wish(permission=PermissionDefault.PROMPT, system="x", tools=("y",))
    assert len(problems(codex, wish)) == 2
    assert len(problems(aider, wish)) == 3
    assert problems(load_facts("aider"), Wish(conversation="i", continuation=Continuation.RESUME))


def test_aftermath() -> None:
    """What follows a failure: a login is asked for, a quota is waited for, what may pass is tried again."""

    def after(kind: str, attempt: int = 1, **told: float) -> tuple[Step, float]:
        made = decide_after_failure(Failure(FailureKind(kind), "x", **told), attempt=attempt, now=NOW)  # type: ignore[arg-type]
        return made.step, made.wait

    assert after("auth") == (Step.ASK, 0)
    assert after("quota", reset_at=NOW + 90) == (Step.PARK, 90)
    assert after("quota", reset_at=NOW - 90) == (Step.PARK, 0)
    assert after("quota")[0] is Step.PARK
    assert after("rate_limit", retry_after=7) == (Step.PARK, 7)
    assert after("overloaded", 1)[1] < after("overloaded", 2)[1] <= after("network", 99)[1] <= 600
    for kind in ("context_too_long", "refused", "budget", "max_turns", "tool_denied"):
        assert after(kind)[0] is Step.GIVE_UP
    for kind in ("crash", "killed", "timed_out", "unknown"):
        assert after(kind)[0] is Step.AS_USUAL


def test_built_in_names() -> None:
    """The harnesses that ship come first in every list."""
    assert harness_names()[: len(BUILT_IN)] == BUILT_IN
