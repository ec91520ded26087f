"""A feed: events and output of sessions over one WebSocket, over as many supervisors as it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import kasmos
from kasmos.client.feed import Feed, Item
from kasmos.client.results import Gap, SessionOutput
from kasmos.exceptions import ClientError, RequestError
from kasmos.model import event as ev
from kasmos.model.event import Record
from tests.e2e.api_world import open_api
from tests.e2e.supervisor_world import Site, make_site
from tests.e2e.test_streams import commit_after_a_gap
from tests.e2e.test_tcp import READONLY, TOKENS, serve

SOON = 100.0


@pytest.fixture
def site(root: Path) -> Site:
    return make_site(root)


async def take(feed: Feed) -> Item:
    with trio.fail_after(SOON):
        return await anext(feed)


async def test_events_and_output_in_one_feed(root: Path) -> None:
    """A program has the events, history first, and the output of the sessions it follows, until it leaves them."""
    async with open_api(root) as api, kasmos.connect(socket=api.socket) as kas:
        api.orchestrator.start_run()
        session = api.orchestrator.start_session("r1", "1")
        session.write(b"hello\n")
        async with kas.open_feed(after=2) as feed:
            items = [await take(feed) for _ in range(2)]
            assert [item.seq for item in items if isinstance(item, Record)] == [3, 4]
            assert await feed.follow_output("1") == "s-r1-1-1"
            output = await take(feed)
            assert isinstance(output, SessionOutput)
            assert (output.text, output.offset, output.next_offset, output.ended) == ("hello\n", 0, 6, False)
            await feed.leave_output("s-r1-1-1")
            session.write(b"unheard\n")
            # From another place: what was on its way from the first one does not come.
            await feed.follow_output("1", offset=8)
            output = await take(feed)
            assert isinstance(output, SessionOutput)
            assert (output.text, output.offset) == ("heard\n", 8)
            api.orchestrator.end_task("r1", "1")
            seen = [await take(feed) for _ in range(3)]
            assert [item.ended for item in seen if isinstance(item, SessionOutput)] == [True]
            assert feed.cursor == 6


async def test_refusals_are_errors_and_the_feed_goes_on(root: Path) -> None:
    """What cannot be subscribed to is a `RequestError` where it was asked for; the rest of the feed goes on."""
    async with open_api(root) as api, kasmos.connect(socket=api.socket) as kas:
        api.orchestrator.start_run()
        async with kas.open_feed(after=2) as feed:
            with pytest.raises(RequestError, match="no session"):
                await feed.follow_output("nobody")
            api.orchestrator.start_session("r1", "1")
            assert isinstance(await take(feed), Record)
        async with kas.open_feed(after=99) as ahead:
            with pytest.raises(RequestError) as caught:
                await take(ahead)
            assert caught.value.code == "cursor_ahead"


async def test_a_feed_over_tcp_needs_its_token(root: Path) -> None:
    """Over TCP a feed shows its token; without the right one it is refused, and not tried again."""
    async with serve(root, TOKENS) as tcp:
        tcp.orchestrator.start_run()
        url = f"http://127.0.0.1:{tcp.port}"
        async with kasmos.connect(url=url, token=READONLY) as kas, kas.open_feed() as feed:
            assert isinstance(await take(feed), Record)
        async with kasmos.connect(url=url, token="x" * 32) as kas, kas.open_feed() as feed:
            with pytest.raises(RequestError) as caught:
                await take(feed)
            assert (caught.value.status, caught.value.code) == (401, "unauthorized")


async def test_a_gap_is_an_item(root: Path) -> None:
    """Where events were pruned, the feed says between which."""
    async with open_api(root) as api, kasmos.connect(socket=api.socket) as kas:
        api.orchestrator.start_run()
        commit_after_a_gap(api, 40)
        async with kas.open_feed(after=0) as feed:
            items = [await take(feed) for _ in range(4)]
        assert items[2] == Gap(after=2, before=40)


async def test_a_feed_goes_on_with_the_next_supervisor(site: Site) -> None:
    """When another supervisor takes over, a feed comes back with all that it followed: every event and byte once."""
    records: list[Record] = []
    text, half, over = "", trio.Event(), trio.Event()

    async def listen() -> None:
        nonlocal text
        async with kasmos.connect(socket=site.root.socket) as kas, kas.open_feed(after=0) as feed:
            async for item in feed:
                match item:
                    case Record(event=ev.SessionStarted(session_id=session)):
                        await feed.follow_output(session)
                    case SessionOutput():
                        text += item.text
                        half.set()
                if isinstance(item, Record):
                    records.append(item)
                if "two" in text and any(isinstance(record.event, ev.TaskEnded) for record in records):
                    over.set()
                    return

    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            async with site.supervisor() as here:
                nursery.start_soon(listen)
                await here.submit("echo one; until test -e go; do sleep 0.05; done; echo two")
                await half.wait()
                here.engine.abandon()
            async with site.supervisor():
                (site.project / "go").touch()
                await over.wait()
    assert text == "one\ntwo\n"
    seqs = [record.seq for record in records]
    assert seqs == list(range(1, seqs[-1] + 1))


async def test_a_feed_without_a_supervisor_fails_after_its_patience(root: Path) -> None:
    """When nobody listens for as long as the patience lasts, iterating says so."""
    async with kasmos.connect(socket=root / "none.sock") as kas, kas.open_feed(patience=0.05) as feed:
        with pytest.raises(ClientError, match="no supervisor is running"):
            await take(feed)


async def test_the_last_screen_of_a_terminal(root: Path) -> None:
    """What a terminal showed last can be read when its session has ended."""
    site = make_site(
        root,
        '[orchestration]\ndefault_agent = "shell"\n'
        '[agents.term]\nprogram = "sh"\nflags = ["-c", "echo seen on the screen"]\nprompt = "argument"\n'
        'execution_mode = "tmux"\n',
    )
    async with site.supervisor() as here:
        task = await here.ended(await here.submit("x", agent="term"))
        assert task["status"] == "succeeded"
        answer = await here.http.get(f"/v1/sessions/{task['session_id']}/screen")
        assert (answer.status_code, answer.json()["ended"]) == (200, True)
        assert "seen on the screen" in answer.json()["lines"]
        other = await here.ended(await here.submit("true"))
        refused = await here.http.get(f"/v1/sessions/{other['session_id']}/screen")
        assert (refused.status_code, refused.json()["code"]) == (409, "session_closed")
