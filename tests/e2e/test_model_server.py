"""The scripted model server does what its markers say, in every wire format."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import attrs
import httpx
import pytest
import trio

from ..model_server.book import Book
from ..model_server.script import Script, ScriptError, Step, decide_step, parse_script
from ..model_server.server import serve_model

LIMIT = 120.0
PATHS = {
    "anthropic": "/v1/messages",
    "responses": "/v1/responses",
    "chat": "/v1/chat/completions",
    "gemini": "/v1beta/models/mock:generateContent",
}
TOOLS: dict[str, Any] = {
    "anthropic": {"tools": [{"name": "Write"}]},
    "responses": {"tools": [{"type": "function", "name": "exec_command"}, {"type": "custom", "name": "apply_patch"}]},
    "chat": {"tools": [{"type": "function", "function": {"name": "write_file"}}]},
    "gemini": {"tools": [{"functionDeclarations": [{"name": "write_file"}]}]},
}


@attrs.frozen
class Client:
    """A program that speaks one wire format."""

    http: httpx.AsyncClient
    dialect: str

    def body(self, prompt: str, *, results: int = 0) -> dict[str, Any]:
        """A request with a prompt, and results of tools since."""
        match self.dialect:
            case "anthropic":
                result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "ok"}]}
                return {"messages": [{"role": "user", "content": prompt}, *[result] * results]}
            case "responses":
                result = {"type": "function_call_output", "call_id": "x", "output": "ok"}
                return {"input": [{"role": "user", "content": [{"text": prompt}]}, *[result] * results]}
            case "chat":
                return {"messages": [{"role": "user", "content": prompt}, *[{"role": "tool"}] * results]}
            case _:
                result = {"role": "user", "parts": [{"functionResponse": {"name": "x"}}]}
                return {"contents": [{"role": "user", "parts": [{"text": prompt}]}, *[result] * results]}

    async def ask(self, prompt: str, *, results: int = 0, stream: bool = False, tools: bool = True) -> httpx.Response:
        """Send a request."""
        path = PATHS[self.dialect]
        if stream and self.dialect == "gemini":
            path = path.replace(":generate", ":streamGenerate") + "?alt=sse"
        body = {**self.body(prompt, results=results), **(TOOLS[self.dialect] if tools else {}), "stream": stream}
        return await self.http.post(path, json=body)

    async def log(self, **query: Any) -> list[dict[str, Any]]:
        """The server's log."""
        answer: list[dict[str, Any]] = (await self.http.get("/mock/requests", params=query)).json()
        return answer

    async def usage(self, conversation: str) -> dict[str, dict[str, int]]:
        """What the server handed out."""
        answer: dict[str, dict[str, int]] = (await self.http.get(f"/mock/usage?conversation={conversation}")).json()
        return answer


@pytest.fixture
async def http(nursery: trio.Nursery) -> AsyncIterator[httpx.AsyncClient]:
    port = await nursery.start(serve_model, Book())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=LIMIT, trust_env=False) as client:
        yield client


@pytest.fixture(params=PATHS)
async def client(http: httpx.AsyncClient, request: pytest.FixtureRequest) -> Client:
    return Client(http, request.param)


def reported(dialect: str, text: str) -> dict[str, int]:
    """The usage in an answer, streamed or not."""
    documents = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")] or [json.loads(text)]
    found: dict[str, int] = {}
    for document in documents:
        match dialect:
            case "anthropic" if document["type"] != "message_start" and "usage" in document:
                usage = document["usage"]
                found = {
                    "input": usage["input_tokens"] + usage["cache_read_input_tokens"],
                    "output": usage["output_tokens"],
                }
            case "responses" if usage := document.get("response", document).get("usage"):
                found = {"input": usage["input_tokens"], "output": usage["output_tokens"]}
            case "chat" if usage := document["usage"]:
                found = {"input": usage["prompt_tokens"], "output": usage["completion_tokens"]}
            case "gemini" if usage := document.get("usageMetadata"):
                output = usage["candidatesTokenCount"] + usage["thoughtsTokenCount"]
                found = {"input": usage["promptTokenCount"], "output": output}
    return found


@pytest.mark.parametrize("stream", [False, True])
async def test_text_and_usage(client: Client, stream: bool) -> None:
    """An answer says what the marker says; its usage is what the server remembers to have handed out."""
    answer = await client.ask("Please: [[mock a: say forty-two]]", stream=stream)
    assert answer.status_code == 200
    assert "two" in answer.text
    handed = (await client.usage("a"))["main"]
    assert handed["answers"] == 1
    assert reported(client.dialect, answer.text) == {"input": handed["input"], "output": handed["output"]}


async def test_tools_in_turn(client: Client) -> None:
    """Steps are taken in turn, by the results of tools in the request; the same request gets the same answer again."""
    prompt = "[[mock a: write f.txt 'two words' ;; say done]]"
    for _ in range(2):
        called = await client.ask(prompt)
        assert "two words" in called.text
    assert "done" in (await client.ask(prompt, results=1)).text
    assert [entry["step"] for entry in await client.log(conversation="a")] == ["write", "write", "say"]


async def test_failures(client: Client) -> None:
    """A failing step fails so often as it says, with the reset it says, and costs nothing."""
    prompt = "[[mock a: fail 429 1 30 ;; say done]]"
    failed = await client.ask(prompt, stream=True)
    assert failed.status_code == 429
    assert "30" in (failed.headers.get("retry-after") or failed.text)
    assert (await client.ask(prompt, stream=True)).status_code == 200
    assert (await client.usage("a"))["main"]["answers"] == 1


async def test_cut(client: Client) -> None:
    """A stream that is cut has no end, and nothing counts as handed out."""
    with pytest.raises(httpx.RemoteProtocolError):
        await client.ask("[[mock a: cut]]", stream=True)
    (entry,) = await client.log(conversation="a", ended=1)
    assert entry["ended"] == "cut"
    assert (await client.usage("a"))["main"] == {"answers": 0}


async def test_hold(client: Client) -> None:
    """What is held comes when its gate is opened; a test learns that it is held from the log."""
    answers = []

    async def ask() -> None:
        answers.append(await client.ask("[[mock a: hold door now]]", stream=True))

    async with trio.open_nursery() as asking:
        asking.start_soon(ask)
        await client.log(conversation="a", at_least=1)
        assert not answers
        await client.http.post("/mock/gates/door")
    assert answers[0].status_code == 200


async def test_hang(client: Client) -> None:
    """A request that is never answered is over when the program hangs up, and the log says so."""
    async with trio.open_nursery() as asking:
        asking.start_soon(client.ask, "[[mock a: hang]]")
        await client.log(conversation="a", at_least=1)
        asking.cancel_scope.cancel()
    (entry,) = await client.log(conversation="a", ended=1)
    assert (entry["ended"], entry["usage"]) == ("gone", None)


async def test_side_requests(client: Client) -> None:
    """What a program asks beside the conversation, without tools, takes no step and is counted apart."""
    await client.ask("[[mock a: write f.txt x]]", tools=False)
    usage = await client.usage("a")
    assert (usage["main"]["answers"], usage["side"]["answers"]) == (0, 1)


async def test_honest(http: httpx.AsyncClient) -> None:
    """What the server does not know it refuses, and logs with the reason."""
    assert (await http.get("/v1/models")).status_code == 404
    assert (await http.head("/")).status_code == 404
    assert (await http.post("/v1/messages", content=b"no JSON")).status_code == 404
    client = Client(http, "chat")
    assert (await client.ask("no marker")).status_code == 400
    assert (await client.ask("[[mock a: dance]]")).status_code == 400
    assert (await client.ask("[[mock a: run ls]]")).status_code == 400
    errors = [entry["error"] for entry in await client.log()]
    assert all(errors)
    assert "dance" in errors[4]
    assert "write_file" in errors[5]


def test_decide_step() -> None:
    """The step that is due follows from results and failures alone; after the last one all is said."""
    script = Script("a", (Step("fail", {"status": "500", "times": "2"}), Step("run", {"command": "ls"}), Step("say")))
    assert decide_step(script, 0, {}) == (0, script.steps[0])
    assert decide_step(script, 0, {0: 2}) == (1, script.steps[1])
    assert decide_step(script, 1, {0: 2}) == (2, script.steps[2])
    assert decide_step(script, 2, {0: 2})[1] == Step("say")


@pytest.mark.parametrize("text", ["", "dance", "write f.txt", "hold", "fail 1 2 3 4"])
def test_script_mistakes(text: str) -> None:
    """A step that is not one is refused, not guessed at."""
    with pytest.raises(ScriptError):
        parse_script("a", text)
