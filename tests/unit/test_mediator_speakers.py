"""What the mediator says and asks, whatever a program says, and how that comes to be answered."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kasmos.model.approval import Answer, AnswerKind, Meaning, ReasonGoes
from kasmos.sessions.inotify import Inotify
from kasmos.sessions.letterbox import Letterbox
from kasmos.sessions.mailbox import Mailbox
from kasmos.sessions.mediator.acp import AgentClient
from kasmos.sessions.mediator.app_server import AppServer
from kasmos.sessions.mediator.link import Link, Message, Speaker
from kasmos.sessions.mediator.mediation import of_the_mute
from kasmos.sessions.mediator.streams import MOST, Lines

from .test_transcripts import anything, mutated


class Ear:
    """A link that only listens."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.asked: dict[Any, Mapping[str, Any]] = {}
        self.withdrawn: list[Any] = []
        self.codes: list[int] = []

    def send(self, message: Message, shown: Message | None = None) -> None:
        json.dumps(message)
        json.dumps(shown)
        self.sent.append(message)

    def ask(self, key: Any, question: Mapping[str, Any]) -> None:
        json.dumps(question)
        self.asked[key] = question

    def withdraw(self, key: Any) -> None:
        self.withdrawn.append(key)

    def when_silent(self, seconds: float, then: Callable[[], None]) -> None:
        then()

    def wait(self, seconds: float, why: str, then: Callable[[], None]) -> None:
        then()

    def opened(self) -> None:
        pass

    def remark(self, said: Message) -> None:
        json.dumps(said)

    @property
    def pid(self) -> int:
        return os.getpid()

    def end(self, code: int, words: str = "") -> None:
        self.codes.append(code)


def codex(link: Link) -> Speaker:
    return AppServer(link, "prompt", "", "/w", ["codex", "app-server"])


def acp(link: Link) -> Speaker:
    return AgentClient(link, "prompt", "", "/w")


COMMAND = "item/commandExecution/requestApproval"
CHANGES = [
    {"path": "/w/a", "kind": {"type": "update", "move_path": "/w/b"}},
    {"path": "/w/c", "kind": {"type": "delete"}},
]
CODEX: list[Message] = [
    {"id": 1, "result": {"userAgent": "x"}},
    {"id": 2, "result": {"thread": {"id": "t"}}},
    {"id": 3, "result": {"turn": {"id": "u"}}},
    {"method": "item/started", "params": {"item": {"type": "fileChange", "id": "c", "changes": CHANGES}}},
    {"method": "item/fileChange/requestApproval", "id": 7, "params": {"itemId": "c", "grantRoot": None}},
    {"method": COMMAND, "id": 8, "params": {"command": "/bin/bash -lc 'rm x'", "availableDecisions": ["accept"]}},
    {"method": "item/permissions/requestApproval", "id": "p", "params": {"permissions": {"network": {}}}},
    {"method": "mcpServer/elicitation/request", "id": 9, "params": {"serverName": "s", "message": "May I?"}},
    {"method": "serverRequest/resolved", "params": {"requestId": 8}},
    {"method": "turn/completed", "params": {"threadId": "t", "turn": {"id": "u", "status": "completed"}}},
]
CALL = {"toolCallId": "c", "kind": "execute", "title": "rm x", "rawInput": {"command": "rm x"}, "content": []}
OPTIONS = [{"optionId": name, "kind": name} for name in ("allow_always", "allow_once", "reject_once")]
ACP: list[Message] = [
    {"id": 1, "result": {"agentCapabilities": {"loadSession": True}}},
    {"id": 2, "result": {"sessionId": "s"}},
    {"method": "session/update", "params": {"update": {"sessionUpdate": "tool_call", **CALL}}},
    {"method": "session/request_permission", "id": 4, "params": {"toolCall": CALL, "options": OPTIONS}},
    {"method": "$/cancel_request", "params": {"requestId": 4}},
    {"id": 3, "result": {"stopReason": "end_turn"}},
]
SPEAKERS = {"codex": (codex, CODEX), "acp": (acp, ACP)}


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data(), st.sampled_from(sorted(SPEAKERS)))
def test_whatever_a_program_says(data: st.DataObject, name: str) -> None:
    """Nothing a program says raises; each question that stands has one answer at the most, to its own request."""
    make, messages = SPEAKERS[name]
    spots = data.draw(st.sets(st.integers(0, len(messages) - 1), max_size=3))
    asking = data.draw(st.integers(0, len(messages)))
    ear = Ear()
    speaker = make(ear)
    speaker.begin()
    for at, message in enumerate(messages):
        said = {key: mutated(value, data.draw) for key, value in message.items()} if at in spots else message
        speaker.take(said)
        if at >= asking:
            for key in [key for key in ear.asked if key not in ear.withdrawn]:
                speaker.answer(key, key == 7)
                del ear.asked[key]
    speaker.take(data.draw(st.dictionaries(st.sampled_from(["id", "method", "params", "result", "error"]), anything)))
    speaker.interrupt()
    answered = [one["id"] for one in ear.sent if "result" in one]
    assert len(answered) == len(set(map(repr, answered)))


def talk(make: Callable[[Link], Speaker], messages: list[Message]) -> tuple[Ear, Speaker]:
    ear = Ear()
    speaker = make(ear)
    speaker.begin()
    for message in messages:
        speaker.take(message)
    return ear, speaker


def test_what_codex_asks() -> None:
    """Every kind of codex' questions is told whole, and what reaches beyond one use is for a person."""
    ear, speaker = talk(codex, CODEX[:8])
    assert ear.asked[7]["paths"] == ["/w/a", "/w/b", "/w/c"]
    assert ear.asked[7]["exact"] is True
    assert ear.asked[8]["input"]["command"] == "rm x"
    assert ear.asked["p"]["exact"] is False
    assert (ear.asked[9]["tool_name"], ear.asked[9]["exact"]) == ("s", False)
    for key in ear.asked:
        speaker.answer(key, True)
    assert [one["result"] for one in ear.sent[-4:]] == [
        {"decision": "accept"},
        {"decision": "accept"},
        {"permissions": {"network": {}}, "scope": "turn"},
        {"action": "accept", "content": {}},
    ]


@pytest.mark.parametrize(
    ("params", "exact", "choices"),
    [
        ({"command": "ls"}, True, ["allow_once", "deny"]),
        ({"command": "ls", "availableDecisions": ["cancel"]}, True, ["deny"]),
        ({"command": "curl x", "networkApprovalContext": {"host": "x"}}, False, ["allow_once", "deny"]),
        ({"command": "ls", "additionalPermissions": {"network": {"enabled": True}}}, False, ["allow_once", "deny"]),
        ({}, False, ["allow_once", "deny"]),
    ],
)
def test_what_is_exact(params: Message, exact: bool, choices: list[str]) -> None:
    """A command that would get more than its one use is not told as one that a rule may allow."""
    ear, _ = talk(codex, [*CODEX[:3], {"method": COMMAND, "id": 1, "params": params}])
    assert (ear.asked[1]["exact"], ear.asked[1]["choices"]) == (exact, choices)


def test_a_change_that_was_not_told() -> None:
    """A change of which no file is known is allowed by no rule."""
    ear, _ = talk(codex, [*CODEX[:3], CODEX[4]])
    assert ear.asked[7]["exact"] is False


def test_what_a_title_says() -> None:
    """A title is a command where the program says that it runs one, and never the name of a tool."""
    call = {"toolCallId": "c", "kind": "execute", "title": "rm x"}
    other = {"toolCallId": "d", "title": "read"}
    asking = [{"method": "session/request_permission", "id": n, "params": {"toolCall": one, "options": OPTIONS}}
              for n, one in enumerate((call, other))]  # fmt: skip
    ear, _ = talk(acp, [*ACP[:2], *asking])
    assert (ear.asked[0]["tool_name"], ear.asked[0]["input"]["command"]) == ("execute", "rm x")
    assert (ear.asked[1]["tool_name"], ear.asked[1]["input"]["command"]) == ("other", "")


def test_what_was_told_before() -> None:
    """A permission that says less than its tool call is asked with all that was told of the call."""
    asking = {"method": "session/request_permission", "id": 4, "params": {"toolCall": {"toolCallId": "c"}}}
    ear, speaker = talk(acp, [*ACP[:3], asking])
    assert ear.asked[4]["input"]["command"] == "rm x"
    assert ear.asked[4]["choices"] == ["deny"]
    speaker.answer(4, False)
    assert ear.sent[-1]["result"] == {"outcome": {"outcome": "cancelled"}}


def test_a_turn_of_somebody_else() -> None:
    """Only the end of its own turn ends codex' session: its helpers have turns too."""
    other = {"method": "turn/completed", "params": {"threadId": "helper", "turn": {"id": "v", "status": "completed"}}}
    ear, speaker = talk(codex, [*CODEX[:3], other])
    assert ear.codes == []
    speaker.take(CODEX[-1])
    assert ear.codes == [0]


def test_what_cannot_be_loaded() -> None:
    """A program that loads no sessions cannot go on with one."""
    ear = Ear()
    speaker = AgentClient(ear, "prompt", "s-1", "/w")
    speaker.begin()
    speaker.take({"id": 1, "result": {"agentCapabilities": {}}})
    assert ear.codes == [1]


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=20))
def test_lines(data: bytes, cuts: list[int]) -> None:
    """The log gets every byte in order, whole lines at a time, however they come."""
    lines, log, found, at = Lines(), b"", [], 0
    for cut in (*cuts, len(data) + 1):
        logged, more = lines.feed(data[at : at + cut])
        log, found, at = log + logged, found + more, at + cut
        assert log[-1:] in (b"", b"\n")
    end = lines.close()
    assert b"".join(line + b"\n" for line in found) == log
    assert (log + end).rstrip(b"\n") == data.rstrip(b"\n")


def test_a_line_without_end() -> None:
    """A line that is too long to be read is logged as it comes, and the next one is read."""
    lines = Lines()
    first, _ = lines.feed(b"x" * (MOST + 1))
    assert len(first) == MOST + 1
    assert not lines.is_between
    rest, found = lines.feed(b"yz\nnext\n")
    assert (rest, found) == (b"yz\nnext\n", [b"next"])
    assert lines.is_between


@pytest.fixture
async def inotify() -> AsyncIterator[Inotify]:
    watching = Inotify()
    yield watching
    watching.close()


@pytest.mark.parametrize(
    ("said", "behavior"),
    [
        (Answer(AnswerKind.ALLOW_ONCE), "allow"),
        (Answer(AnswerKind.DENY, "no"), "deny"),
        (Answer(AnswerKind.CHOOSE, option=0), "allow"),
        (Answer(AnswerKind.CHOOSE, option=1), "deny"),
        (Answer(AnswerKind.CHOOSE, option=7), "deny"),
    ],
)
async def test_how_it_is_answered(tmp_path: Path, inotify: Inotify, said: Answer, behavior: str) -> None:
    """What a speaker asks is an ask with all it says, and comes back as yes or no."""
    letterbox = Letterbox(str(tmp_path))
    name = letterbox.ask({"tool_name": "apply_patch", "input": {}, "paths": ["/a", "/b"], "exact": False})
    mailbox = Mailbox(tmp_path, inotify, trio.Event())
    ask = await mailbox.wait_ask("")
    assert ask is not None
    assert (ask.identity, ask.tool, ask.paths, ask.exact) == (name, "apply_patch", ("/a", "/b"), False)
    assert mailbox.asks
    await mailbox.answer(ask, said)
    assert not mailbox.asks
    ((answered, text),) = letterbox.take_answers()
    assert (answered, json.loads(text)["behavior"]) == (name, behavior)
    mailbox.close()
    os.close(letterbox.fileno())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(AnswerKind.DENY, "use git rm", own_words=True), "use git rm"),
        (Answer(AnswerKind.DENY, "refused by the rules"), None),
        (Answer(AnswerKind.ALLOW_ONCE), None),
    ],
)
async def test_whose_reason(tmp_path: Path, inotify: Inotify, answer: Answer, reason: str | None) -> None:
    """Only a person's own words are a reason that is told a program whose protocol has no place for it."""
    letterbox = Letterbox(str(tmp_path))
    letterbox.ask({"tool_name": "shell", "input": {"command": "rm x"}, "reason": "message"})
    mailbox = Mailbox(str(tmp_path), inotify, trio.Event())
    ask = await mailbox.wait_ask("")
    assert ask is not None
    assert ask.reason_goes is ReasonGoes.MESSAGE
    await mailbox.answer(ask, answer)
    ((_, text),) = letterbox.take_answers()
    assert json.loads(text).get("reason") == reason
    mailbox.close()
    os.close(letterbox.fileno())


async def test_what_cannot_be_allowed(tmp_path: Path, inotify: Inotify) -> None:
    """Where only no can be said, yes is not among the options, and the one option there is means no."""
    letterbox = Letterbox(str(tmp_path))
    letterbox.ask({"tool_name": "x", "input": {"command": "ls"}, "choices": ["deny"]})
    mailbox = Mailbox(tmp_path, inotify, trio.Event())
    ask = await mailbox.wait_ask("")
    assert ask is not None
    assert [option.meaning for option in ask.options] == [Meaning.DENY]
    await mailbox.answer(ask, Answer(AnswerKind.CHOOSE, option=0))
    assert json.loads(letterbox.take_answers()[0][1])["behavior"] == "deny"
    mailbox.close()
    os.close(letterbox.fileno())


def test_of_the_mute() -> None:
    """Of a program that keeps silent it is told which protocol it should speak, how far it came, and its last words."""
    never = of_the_mute("ACP", 60, "", "Please log in")
    assert never == "it does not speak ACP: nothing came within 60 s (handshake_timeout); its last words: Please log in"
    midway = of_the_mute("ACP", 60, "session/new", "")
    assert midway.startswith("it left session/new without an answer")


def test_codex_is_told_why() -> None:
    """A person's reason is steered into codex' turn, before the no after which it would ask its model on."""
    ear, speaker = talk(codex, CODEX[:6])
    speaker.answer(8, False, "use git rm")
    steered, answered = ear.sent[-2:]
    assert steered["method"] == "turn/steer"
    assert steered["params"]["expectedTurnId"] == "u"
    (said,) = steered["params"]["input"]
    assert said["text"] == "The person who was asked about shell (rm x) said no: use git rm"
    assert answered == {"id": 8, "result": {"decision": "decline"}}


def test_a_yes_needs_no_reason() -> None:
    """Words that come with a yes are no reason for a no: nobody is told of them."""
    ear, speaker = talk(codex, CODEX[:6])
    speaker.answer(8, True, "fine")
    assert [message.get("method") for message in ear.sent][-2:] != ["turn/steer", None]


def test_an_agent_is_told_why() -> None:
    """Over the Agent Client Protocol a person's reason is a prompt of its own, once, when the turn is over."""
    ear, speaker = talk(acp, ACP[:4])
    speaker.answer(4, False, "use git rm")
    assert ear.sent[-1]["result"] == {"outcome": {"outcome": "selected", "optionId": "reject_once"}}
    speaker.take({"id": 3, "result": {"stopReason": "end_turn"}})
    assert ear.codes == []
    prompt = ear.sent[-1]
    assert prompt["method"] == "session/prompt"
    assert prompt["params"]["prompt"][0]["text"] == "The person who was asked about execute (rm x) said no: use git rm"
    speaker.take({"id": prompt["id"], "result": {"stopReason": "end_turn"}})
    assert ear.codes == [0]


def test_nobody_is_told_why_after_an_interrupt() -> None:
    """A turn that was asked to end is not followed by another one."""
    ear, speaker = talk(acp, ACP[:4])
    speaker.answer(4, False, "use git rm")
    speaker.interrupt()
    speaker.take({"id": 3, "result": {"stopReason": "cancelled"}})
    assert ear.codes == [1]
