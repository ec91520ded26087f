"""Streams of events: what is missing is said, what is over ends, and who does not read holds up nobody."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path

import trio
import trio.testing

from kasmos.model import event as ev
from kasmos.model.event import Record
from kasmos.store.fold import apply
from tests.e2e.api_world import Api, open_api

SOON = 100.0


def commit_after_a_gap(api: Api, seq: int) -> None:
    """An event whose predecessors nobody has any more."""
    record = Record(seq=seq, at=1.0, mono=1.0, event=ev.WaveEnded("r1", 1, "succeeded"))  # type: ignore[arg-type]
    apply(api.orchestrator.world, record)
    api.orchestrator.bus.publish([record])


async def test_a_gap_is_said(root: Path) -> None:
    """Where events are missing between two, the stream says between which, in a line without a number."""
    async with open_api(root) as api:
        api.orchestrator.start_run()
        commit_after_a_gap(api, 40)
        lines = []
        async with api.http.stream("GET", "/v1/events") as response:
            async for line in response.aiter_lines():
                lines.append(json.loads(line))
                if len(lines) == 4:
                    break
        assert [line.get("seq") for line in lines] == [1, 2, None, 40]
        assert lines[2] == {"type": "gap", "after": 2, "before": 40}


async def test_a_stream_is_whole_in_every_version_of_http(root: Path) -> None:
    """Events that come one by one make a stream of whole chunks with an end in HTTP/1.1, and bare lines in HTTP/1.0."""
    streams: dict[str, trio.SocketStream] = {}
    told = {"1.0": b"", "1.1": b""}
    async with open_api(root) as api:
        for version in told:
            streams[version] = await trio.open_unix_socket(str(api.socket))
            await streams[version].send_all(f"GET /v1/events HTTP/{version}\r\nHost: k\r\n\r\n".encode())
        with trio.fail_after(SOON):
            for run_id in ("r1", "r2", "r3"):
                api.orchestrator.start_run(run_id)
                mark = b'"run_id":"%s","wave":1' % run_id.encode()
                for version, stream in streams.items():
                    while mark not in told[version]:
                        told[version] += await stream.receive_some(65_536)
            api.shutdown.set()
            for version, stream in streams.items():
                async for data in stream:
                    told[version] += data
                await stream.aclose()
    body = told["1.1"].partition(b"\r\n\r\n")[2]
    lines = b""
    while not lines.endswith(b"\n") or body != b"0\r\n\r\n":
        size, _, body = body.partition(b"\r\n")
        assert int(size, 16) > 0
        lines += body[: int(size, 16)]
        assert body[int(size, 16) :].startswith(b"\r\n")
        body = body[int(size, 16) + 2 :]
    assert told["1.0"].partition(b"\r\n\r\n")[2] == lines
    assert [json.loads(line)["seq"] for line in lines.splitlines()] == [1, 2, 3, 4, 5, 6]


async def test_the_stream_of_a_task_that_is_over_ends(root: Path) -> None:
    """Who comes back after a task's end is told that nothing follows, by the end of the stream."""
    async with open_api(root) as api:
        api.orchestrator.start_run()
        api.orchestrator.start_session("r1", "1")
        api.orchestrator.end_task("r1", "1")
        with trio.fail_after(SOON):
            response = await api.get(f"/v1/tasks/1/events?after={api.orchestrator.world.seq}")
        assert (response.status_code, response.content) == (200, b"")


async def test_readers_that_do_not_read_hold_up_nobody(root: Path) -> None:
    """With two hundred readers, of which twenty never read, the others are given every event."""
    head = b"GET /v1/events HTTP/1.1\r\nHost: k\r\nAccept: text/event-stream\r\n\r\n"
    done = 0

    async def read(stream: trio.SocketStream) -> None:
        nonlocal done
        data = b""
        while b"id: 400\n" not in data:
            data = data[-64:] + await stream.receive_some(65_536)
        done += 1

    async with open_api(root) as api:
        streams = [await trio.open_unix_socket(str(api.socket)) for _ in range(200)]
        with trio.fail_after(SOON):
            for stream in streams:
                await stream.send_all(head)
            async with trio.open_nursery() as nursery:
                for stream in streams[20:]:
                    nursery.start_soon(read, stream)
                for number in range(200):
                    # Each tells of a plan: more than the buffers of sockets hold.
                    api.orchestrator.start_run(f"r{number}", tasks=10)
                    if number % 20 == 0:
                        await trio.sleep(0.01)
        assert done == 180
        assert (await api.get("/healthz")).status_code == 200
        for stream in streams:
            await stream.aclose()


async def test_readers_that_do_not_read_cost_no_memory(root: Path) -> None:
    """However much happens, what waits for readers that do not read is the kernel's buffers and one piece each."""
    async with open_api(root) as api:
        # A ring that is full already, so that it does not grow meanwhile.
        api.orchestrator.start_run()
        for number in range(9000):
            api.orchestrator.commit(ev.WaveStarted("r1", number))
        streams = [await trio.open_unix_socket(str(api.socket)) for _ in range(50)]
        with trio.fail_after(SOON):
            for stream in streams:
                await stream.send_all(b"GET /v1/events?after=9000 HTTP/1.1\r\nHost: k\r\n\r\n")
            while api.orchestrator.bus.subscribers < 50:  # noqa: ASYNC110  # the server has no event for us
                await trio.sleep(0.01)
            del api.orchestrator.records[:]
            tracemalloc.start()
            try:
                await _happen(api, 2000)
                before = await _memory()
                await _happen(api, 10_000)
                after = await _memory()
            finally:
                tracemalloc.stop()
        # For each of 50 readers 10,000 events would be more than a megabyte.
        assert after - before < 4 * 1024 * 1024
        for stream in streams:
            await stream.aclose()


async def _memory() -> int:
    """Bytes that are in use when each of the readers waits for its kernel's buffer."""
    await trio.testing.wait_all_tasks_blocked(0.05)
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def _happen(api: Api, events: int) -> None:
    for number in range(events):
        # Not by the stand-in for the journal, which keeps everything.
        seq = api.orchestrator.bus.newest + 1
        record = Record(seq=seq, at=1.0, mono=1.0, event=ev.WaveStarted("r1", number))
        api.orchestrator.bus.publish([record])
        if number % 100 == 0:
            await trio.sleep(0.002)
