"""The books of the programs: what they add to a protocol that tells less, and when they are not believed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kasmos.harnesses.facts import load_facts
from kasmos.harnesses.parser import TranscriptParser
from kasmos.model.session import ExitStatus
from kasmos.sessions.mediator.books import GeminiBooks, OpencodeBooks, Tally, find_books, make_ready

SESSION = "dc72b9f0-4d3f-4347-8320-dcf59da0c36e"
SERVER = """
    import http.server, json, sys, threading
    books, *others = sys.argv[1:]
    asked = []
    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.server)
            with open(books) as file:
                said = json.load(file).get(self.path)
            answer = None if said is None else json.dumps(said)
            if others and self.server is asked[0]:
                [answer] = others
            self.send_response(404 if answer is None else 200)
            self.end_headers()
            self.wfile.write((answer or "").encode())
        def log_message(self, *words):
            pass
    servers = [http.server.HTTPServer(("127.0.0.1", 0), Server) for _ in (books, *others)]
    print("ready", flush=True)
    for server in servers:
        threading.Thread(target=server.serve_forever).start()
"""
"""A server that shows the books in a file. With one more argument it has two ports: whichever is asked first is that of
something else, which always answers this."""


def answer(id_: str, read: int, out: int, *, cached: int = 0, thought: int = 0, **more: Any) -> dict[str, Any]:
    """An answer as opencode's server has it."""
    tokens = {"input": read, "output": out, "reasoning": thought, "cache": {"read": cached, "write": 0}}
    return {"info": {"id": id_, "role": "assistant", "tokens": tokens, **more}, "parts": []}


class Kept:
    """What an opencode has in its books, and a server that shows them."""

    def __init__(self, directory: Path, *beside: str) -> None:
        self._file = directory / "books.json"
        self.say({})
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SERVER), str(self._file), *beside],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def say(self, said: dict[str, Any]) -> None:
        draft = self._file.with_suffix(".new")
        draft.write_text(json.dumps(said))
        draft.rename(self._file)


@contextmanager
def keeping(directory: Path, *beside: str) -> Iterator[Kept]:
    made = Kept(directory, *beside)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        assert made.process.stdout is not None
        made.process.stdout.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with keeping(tmp_path) as made:
        yield made


def told(read: int, out: int) -> dict[str, Any]:
    """The answer to a prompt, of opencode and of gemini."""
    quota = {"token_count": {"input_tokens": read, "output_tokens": out}}
    return {"usage": {"inputTokens": read, "outputTokens": out}, "_meta": {"quota": quota}}


def test_opencode(kept: Kept) -> None:
    """Of opencode every answer since the prompt counts, and every one of its helpers; earlier ones do not."""
    user = {"info": {"id": "u", "role": "user"}}
    old = answer("m1", 7, 7)
    kept.say({"/session/s/message": [user, old], "/session/s/children": []})
    books = find_books("OpenCode", kept.process.pid)
    books.open("s")
    new = [answer("m2", 10, 3, cached=5, cost=0.25), answer("m3", 20, 4, thought=2, cost=0.5)]
    kept.say({
        "/session/s/message": [user, old, *new],
        "/session/s/children": [{"id": "h"}, {}],
        "/session/h/message": [answer("h1", 100, 50)],
        "/session/h/children": [],
    })  # fmt: skip
    assert books.close("s", told(20, 4)) == Tally(135, 59, 5, 2, 0.75)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"/session/s/message": {"data": []}, "/session/s/children": []},
        {
            "/session/s/message": [
                None,
                {"info": 5},
                {"info": {"role": "assistant", "tokens": {"input": "x"}, "id": "m"}},
            ]
        },
        {"/session/s/message": [answer("m", 21, 4)], "/session/s/children": []},
    ],
    ids=["none", "another-shape", "nonsense", "other-numbers"],
)
def test_opencode_is_not_believed(kept: Kept, said: dict[str, Any]) -> None:
    """Books of another shape, or that do not agree with what the protocol tells, are no books."""
    kept.say(said)
    books = OpencodeBooks(kept.process.pid)
    books.open("s")
    assert books.close("s", told(20, 4)) is None


@pytest.mark.parametrize("beside", ["<html></html>", '{"name": "another"}'], ids=["no-json", "another-shape"])
def test_opencode_listens_elsewhere_too(tmp_path: Path, beside: str) -> None:
    """Where a program listens on a port that is not its books' server, the next of its ports is asked."""
    with keeping(tmp_path, beside) as kept:
        books = OpencodeBooks(kept.process.pid)
        books.open("s")
        kept.say({"/session/s/message": [answer("m", 20, 4)], "/session/s/children": []})
        assert books.close("s", told(20, 4)) == Tally(20, 4)


def test_nobody_listens() -> None:
    """A program without a server has no books."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        assert OpencodeBooks(process.pid).close("s", told(1, 1)) is None
        process.kill()


def write(home: Path, name: str, *records: Any) -> None:
    path = home / ".gemini" / "tmp" / "work" / "chats" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def gemini_answer(id_: str, read: int, out: int, thought: int = 0) -> dict[str, Any]:
    tokens = {"input": read, "output": out, "cached": 1, "thoughts": thought, "tool": 0}
    return {"id": id_, "type": "gemini", "tokens": tokens}


def test_gemini(tmp_path: Path) -> None:
    """Of gemini every answer since the prompt counts, as it was recorded last, with what was thought; helpers' too."""
    name = "session-2026-11-26T04-53-dc72b9f0.jsonl"
    write(tmp_path, name, {"sessionId": SESSION}, gemini_answer("a", 5, 5))
    books = GeminiBooks(str(tmp_path))
    books.open(SESSION)
    again = [{"id": "b", "type": "gemini", "content": "early"}, gemini_answer("b", 10, 3, 4), gemini_answer("c", 20, 2)]
    write(tmp_path, name, {"sessionId": SESSION}, gemini_answer("a", 5, 5), {"$set": {}}, "text", *again)
    write(tmp_path, f"{SESSION}/helper.jsonl", gemini_answer("h", 100, 10))
    assert books.close(SESSION, told(30, 5)) == Tally(130, 19, 3, 4)
    assert books.close(SESSION, told(30, 5)) is None


def test_gemini_is_not_believed(tmp_path: Path) -> None:
    """Where an answer is missing in the file, nothing in it is a total."""
    write(tmp_path, "session-2026-11-26T04-53-dc72b9f0.jsonl", gemini_answer("a", 10, 3, 4))
    assert GeminiBooks(str(tmp_path)).close(SESSION, told(30, 5)) is None


@pytest.mark.parametrize(("now", "seconds"), [(1795582385.0, 55.5), (1795582439.0, 1.5), (1795582440.0, 0.0)])
def test_gemini_waits(tmp_path: Path, now: float, seconds: float) -> None:
    """A session of gemini may not be loaded in the minute by which its file is named: it would be written over."""
    write(tmp_path, "session-2026-11-25T04-53-dc72b9f0.jsonl", {})
    assert GeminiBooks(str(tmp_path), lambda: now).pause(SESSION) == seconds


def context(session: str) -> list[Any]:
    """What gemini begins a session's file with."""
    message = {"id": "c", "type": "user", "content": [{"text": "<session_context>\nThis is the Gemini CLI."}]}
    return [{"sessionId": session, "kind": "main"}, {"$set": {"messages": [message]}}]


def test_gemini_keeps_what_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What gemini has begun when it loaded a session is removed, or its next start would remove the conversation."""
    asked = {"id": "q", "type": "user", "content": [{"text": "What is the answer?"}]}
    other = f"{SESSION[:8]}-another"
    for at, records in enumerate(
        [[*context(SESSION), asked], context(SESSION), context(other), [*context(SESSION), "no record", asked]]
    ):
        write(tmp_path, f"session-2026-11-26T04-5{at}-dc72b9f0.jsonl", *records)
    monkeypatch.setenv("HOME", str(tmp_path))
    make_ready(SESSION)
    kept = sorted(path.name[19:24] for path in tmp_path.glob(".gemini/tmp/*/chats/*"))
    assert kept == ["04-50", "04-52", "04-53"]


def test_gemini_keeps_what_has_yet_to_be_said(tmp_path: Path) -> None:
    """The only file of a session stays, whatever is in it; a file that was left is removed when another is opened."""
    write(tmp_path, "session-2026-11-26T04-51-dc72b9f0.jsonl", *context(SESSION))
    books = GeminiBooks(str(tmp_path))
    books.open(SESSION)
    assert len(list(tmp_path.glob(".gemini/tmp/*/chats/*"))) == 1
    write(tmp_path, "session-2026-11-26T04-50-dc72b9f0.jsonl", *context(SESSION), gemini_answer("a", 1, 1))
    books.open(SESSION)
    (path,) = tmp_path.glob(".gemini/tmp/*/chats/*")
    assert path.name == "session-2026-11-26T04-50-dc72b9f0.jsonl"


def test_booked_usage() -> None:
    """What the mediator has read in a program's books is its usage, and not what its protocol told of it."""
    parser = TranscriptParser(load_facts("opencode"))
    used = Tally(135, 59, 5, 2, 0.75)._asdict()
    last = {"jsonrpc": "2.0", "id": 3, "result": {"stopReason": "end_turn", "usage": {"inputTokens": 20}}}
    parser.feed(json.dumps(last).encode() + b"\n" + json.dumps({"dir": "=", "msg": {"usage": used}}).encode() + b"\n")
    usage = parser.finish(ExitStatus(code=0)).usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens) == (135, 59, 5, 2)
    assert (usage.source.value, usage.cost_usd, usage.cost_source.value) == ("reported", 0.75, "priced")
