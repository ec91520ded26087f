"""The API over TCP, with raw sockets: who is let in, and what a client that means no good can do."""

from __future__ import annotations

import json
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from kasmos.api import server
from kasmos.api.access import Routes
from kasmos.daemon.access import AccessPolicy, Needs, TokenSource
from kasmos.exceptions import KasmosInternalError, StoreError
from kasmos.model import event as ev
from tests.e2e.api_world import LIMIT, FakeOrchestrator, make_app

ADMIN, READONLY = "a" * 32, "r" * 32
TOKENS = AccessPolicy(admin=TokenSource(ADMIN), readonly=TokenSource(READONLY))
OPEN = AccessPolicy()
SOON = 100.0


class Tcp:
    """A served API, and the way to it."""

    def __init__(self, orchestrator: FakeOrchestrator, port: int, facts: list[ev.Event]) -> None:
        self.orchestrator = orchestrator
        self.port = port
        self.facts = facts

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def ask(self, head: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers, body."""
        said = {"Host": f"127.0.0.1:{self.port}", "Connection": "close"}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        if body:
            said.setdefault("Content-Type", "application/json")
            said["Content-Length"] = str(len(body))
        text = f"{head} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in said.items()) + "\r\n"
        stream = await self.connect()
        async with stream:
            with trio.fail_after(SOON):
                await stream.send_all(text.encode() + body)
                return parse(await read_to_end(stream))


def parse(data: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, value in pairs}, body


async def read_to_end(stream: trio.SocketStream) -> bytes:
    data = b""
    try:
        async for piece in stream:
            data += piece
    except trio.BrokenResourceError:
        pass  # Closed while we were sending: what was received counts.
    return data


@asynccontextmanager
async def serve(root: Path, policy: AccessPolicy, listen: str = "127.0.0.1:0") -> AsyncIterator[Tcp]:
    orchestrator, facts = FakeOrchestrator(), list[ev.Event]()
    app = make_app(orchestrator, policy=policy, record=facts.append)
    shutdown = trio.Event()
    with trio.fail_after(2 * LIMIT):
        async with trio.open_nursery() as nursery:
            serve_all = partial(server.serve_api, app, root / "kas.sock", listen=[listen], shutdown=shutdown)
            (url,) = await nursery.start(serve_all)
            yield Tcp(orchestrator, int(url.rpartition(":")[2]), facts)
            shutdown.set()


def code(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    return answer[0], json.loads(answer[2])["code"]


async def test_without_a_token_loopback_is_open(root: Path) -> None:
    """With `auto` and no token, who is on this machine may do everything."""
    async with serve(root, OPEN) as tcp:
        status, headers, body = await tcp.ask("GET /v1/status")
        assert (status, json.loads(body)["schema"]) == (200, 1)
        assert headers["x-kasmos-api"] == "1"
        status, _, _ = await tcp.ask("POST /v1/stop", b'{"all": true}')
        assert status == 202


async def test_tokens(root: Path) -> None:
    """With tokens: the probes are open, questions need one of the two, commands the admin's; so does what is none."""
    async with serve(root, TOKENS) as tcp:
        read, admin = {"Authorization": f"Bearer {READONLY}"}, {"Authorization": f"Bearer {ADMIN}"}
        assert (await tcp.ask("GET /healthz"))[0] == 200
        refused = await tcp.ask("GET /v1/status")
        assert code(refused) == (401, "unauthorized")
        assert refused[1]["www-authenticate"].startswith("Bearer")
        assert (await tcp.ask("GET /v1/status", **read))[0] == 200
        assert code(await tcp.ask("POST /v1/stop", b'{"all": true}', **read)) == (403, "read_only")
        assert (await tcp.ask("POST /v1/stop", b'{"all": true}', **admin))[0] == 202
        for head in ("GET /nothing", "DELETE /v1/status", "GET /v1/tasks/x/nothing"):
            assert code(await tcp.ask(head)) == (401, "unauthorized")
            assert code(await tcp.ask(head, **read)) == (403, "read_only")
        assert code(await tcp.ask("GET /nothing", **admin)) == (404, "not_found")


async def test_failed_attempts_are_recorded_without_the_token(root: Path) -> None:
    """Failed attempts are in the journal, with the address and without the token, and too many are not listened to."""
    async with serve(root, TOKENS) as tcp:
        for _ in range(10):
            await tcp.ask("GET /v1/status", Authorization="Bearer nonsense-nonsense")
        answer = await tcp.ask("GET /v1/status", Authorization=f"Bearer {ADMIN}")
        assert code(answer) == (429, "too_many_attempts")
        assert int(answer[1]["retry-after"]) > 0
        assert [type(fact) for fact in tcp.facts] == [ev.AccessRefused, ev.AccessRefused]
        assert "nonsense" not in repr(tcp.facts)
        assert (await tcp.ask("GET /healthz"))[0] == 200


async def test_a_web_page_cannot_ask(root: Path) -> None:
    """Requests by another name, of another origin, or with a body that a form could send, are refused."""
    async with serve(root, OPEN) as tcp:
        assert code(await tcp.ask("GET /v1/status", Host="evil.example")) == (403, "forbidden_host")
        assert code(await tcp.ask("GET /v1/status", Origin="http://evil.example")) == (403, "forbidden_origin")
        assert code(await tcp.ask("POST /v1/stop", Origin="null")) == (403, "forbidden_origin")
        answer = await tcp.ask("POST /v1/stop", b'{"all": true}', Content_Type="text/plain")
        assert code(answer) == (415, "unsupported_media_type")
        assert "access-control-allow-origin" not in answer[1]


async def test_a_web_socket_is_under_the_same_rules(root: Path) -> None:
    """The handshake of a WebSocket without the token, or of another page, is refused."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec_WebSocket_Version": "13",
    }
    async with serve(root, TOKENS) as tcp:
        assert (await tcp.ask("GET /v1/ws", **upgrade))[0] == 401
        upgrade["Authorization"] = f"Bearer {READONLY}"
        assert (await tcp.ask("GET /v1/ws", **upgrade, Origin="http://evil.example"))[0] == 403
        assert (await tcp.ask("GET /v1/ws", **upgrade, Host="evil.example"))[0] == 403


async def test_clients_that_mean_no_good(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes one at a time, a bad length, a body that never ends, a request cut short: others are answered meanwhile."""
    monkeypatch.setattr(server, "KEEP_ALIVE_TIMEOUT", 2.0)
    async with serve(root, OPEN) as tcp:
        slow = await tcp.connect()
        cut = await tcp.connect()
        await cut.send_all(b"POST /v1/stop HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Le")
        await cut.aclose()
        for length in (b"-1", b"1e9", b"99999999999999999999999", b"5, 6"):
            stream = await tcp.connect()
            async with stream:
                await stream.send_all(
                    b"POST /v1/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + length + b"\r\n\r\n"
                )
                with trio.fail_after(SOON):
                    assert (await read_to_end(stream))[9:12] in (b"400", b"413", b"415", b""), length
        huge = await tcp.connect()
        head = b"POST /v1/stop HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        await huge.send_all(head + b"Content-Length: 104857600\r\n\r\n")
        with trio.fail_after(SOON):
            assert (await huge.receive_some(4096))[9:12] == b"413"
        await huge.aclose()
        with trio.fail_after(SOON):
            try:
                for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Padding: " + b"x" * 1000:
                    await slow.send_all(bytes([byte]))
                    assert (await tcp.ask("GET /healthz"))[0] == 200
                    await trio.sleep(0.05)
            except trio.BrokenResourceError:
                pass  # It took too long for a head, and was hung up on.
            else:
                pytest.fail("a client that sends a byte now and then was never hung up on")
        await slow.aclose()


async def test_a_thousand_connections(root: Path, request: pytest.FixtureRequest) -> None:
    """A thousand connections that say nothing keep nobody from being answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Both ends are in this process.
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    async with serve(root, OPEN) as tcp:
        idle = [await tcp.connect() for _ in range(1000)]
        assert (await tcp.ask("GET /v1/status"))[0] == 200
        for stream in idle:
            await stream.aclose()
        assert (await tcp.ask("GET /v1/status"))[0] == 200


async def test_a_port_that_is_taken_is_said(root: Path) -> None:
    """An address that cannot be had is an error that names it, and leaves no socket behind."""
    async with serve(root, OPEN) as tcp:
        app = make_app(FakeOrchestrator())
        taken = f"127.0.0.1:{tcp.port}"
        with pytest.raises(StoreError, match=taken):
            await server.serve_api(app, root / "other.sock", listen=[taken], shutdown=trio.Event())
        assert not (root / "other.sock").exists()


def test_a_route_says_what_it_needs() -> None:
    """A route that does not say what it needs cannot be registered, nor slipped in beside the others."""
    routes = Routes("x")
    with pytest.raises(TypeError):
        routes.get("/x")  # type: ignore[call-arg]

    async def handler() -> Any:
        return ""

    app = make_app(FakeOrchestrator())
    app.admission.require_declared(app)
    app.add_url_rule("/secret", "secret", handler)
    with pytest.raises(KasmosInternalError, match="/secret"):
        app.admission.require_declared(app)
    assert {operation.needs for operation in app.admission.operations if operation.method == "POST"} == {Needs.ADMIN}
