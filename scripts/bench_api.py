"""What a daemon's API costs: from a request to a program, the snapshot, crowds of readers, and coming up.

Used by `scripts/bench api`. Daemons are real ones, in processes of their own, on their Unix sockets; what they are
compared with runs beside them, or is the bare thing: the import of the web stack, a route that returns a constant.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import attrs
import trio

import kasmos

READY_LIMIT = 60.0


@attrs.frozen
class Measured:
    """One line of the table; see `bench.Row`."""

    what: str
    ours: str
    theirs: str
    ratio: str
    bar: str
    held: bool | None


class Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("kasmos", timeout=30)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """One question, on a connection that stays."""
        data = None if body is None else json.dumps(body)
        self.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        answer = self.getresponse()
        return answer.status, answer.read()


CONFIG = """\
[orchestration]
default_agent = "bench"
max_concurrent = 1000
max_queued = 2000
[agents.bench]
program = "/bin/bash"
flags = ["-c", 'echo "$EPOCHREALTIME" >>times']
prompt = "stdin"
stop_grace = 0.5
[agents.chatty]
program = "/bin/bash"
flags = ["-c", 'while :; do for i in 1 2 3 4 5 6 7 8 9 10; do echo "line $i of a chatty agent"; done; sleep 1; done']
prompt = "stdin"
stop_grace = 0.5
"""


@attrs.frozen
class Town:
    """A project, its state root, and its daemon."""

    project: Path
    root: Path
    process: subprocess.Popen[bytes]
    ready_after: float
    """Seconds from its start to the first answer to `/healthz`."""

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.root / "kas.sock"


@contextlib.contextmanager
def project(parent: Path) -> Iterator[Path]:
    """A project with agents that say when they began, or say a lot."""
    with tempfile.TemporaryDirectory(prefix="kb-", dir=parent) as name:
        path = Path(name) / "p"
        (path / ".kasmos").mkdir(parents=True)
        (path / ".kasmos/config.toml").write_text(CONFIG)
        yield path


@contextlib.contextmanager
def daemon(where: Path) -> Iterator[Town]:
    """A daemon of this project; what it runs is stopped at the end."""
    root = where.parent / "r"
    environ = {**os.environ, "KASMOS_STATE_ROOT": str(root)}
    argv = [sys.executable, "-m", "kasmos", "daemon", "start", "--foreground"]
    begin = time.perf_counter()
    process = subprocess.Popen(argv, cwd=where, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield Town(where, root, process, _until_healthy(root / "kas.sock", process, begin))
    finally:
        with contextlib.suppress(OSError):
            Unix(root / "kas.sock").ask("POST", "/v1/daemon/stop", {"stop": True})
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _until_healthy(path: Path, process: subprocess.Popen[bytes], begin: float) -> float:
    while time.perf_counter() - begin < READY_LIMIT and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if Unix(path).ask("GET", "/healthz")[0] == 200:
                return time.perf_counter() - begin
        time.sleep(0.002)
    raise SystemExit("the bench's daemon did not come up")


# --- from a request to a program ----------------------------------------------------


def submission(count: int, parent: Path) -> list[Measured]:
    """From the first byte of a request to the program's own first look at the clock, one after the other."""
    with project(parent) as where, daemon(where) as town:
        client = Unix(town.socket)
        times, sent = where / "times", []
        for number in range(count):
            sent.append(time.time())
            status, body = client.ask("POST", "/v1/tasks", {"prompt": "x"})
            if status != 202:
                raise SystemExit(f"the bench's task was refused: {body!r}")
            while not times.exists() or times.read_text().count("\n") <= number:
                time.sleep(0.001)
        began = [float(line) for line in times.read_text().split()]
    taken = [after - before for before, after in zip(sent, began, strict=True)]
    median = statistics.median(taken)
    return [
        Measured(
            f"POST /v1/tasks to the program's first statement (median of {count})",
            f"{median * 1e3:.1f} ms",
            f"bash itself, from nothing, {_bash(parent) * 1e3:.1f} ms",
            "-",
            "< 25 ms",
            median < 0.025,
        )
    ]


def _bash(parent: Path) -> float:
    taken = []
    for _ in range(20):
        begin = time.time()
        told = subprocess.run(["/bin/bash", "-c", 'echo "$EPOCHREALTIME"'], cwd=parent, check=True, capture_output=True)
        taken.append(float(told.stdout) - begin)
    return statistics.median(taken)


# --- the snapshot -------------------------------------------------------------------

BARE = """\
import sys, trio
from pathlib import Path
from quart import Response
from quart_trio import QuartTrio
import hypercorn.trio, hypercorn.config
app = QuartTrio("bare")
body = b"x" * int(sys.argv[2])
@app.get("/v1/status")
async def status():
    return Response(body, content_type="application/json")
config = hypercorn.config.Config()
config.bind = ["unix:" + sys.argv[1]]
config.accesslog = None
config.errorlog = None
trio.run(hypercorn.trio.serve, app, config)
"""


def status(sessions: int, parent: Path, seconds: float = 3.0) -> list[Measured]:
    """The snapshot while agents write, against a route that returns a constant of the same size."""
    with project(parent) as where, daemon(where) as town:
        client = Unix(town.socket)
        for _ in range(sessions):
            client.ask("POST", "/v1/tasks", {"prompt": "x", "agent": "chatty"})
        while json.loads(client.ask("GET", "/v1/status")[1])["counts"]["sessions"].get("running", 0) < sessions:
            time.sleep(0.1)
        time.sleep(1)
        size = len(client.ask("GET", "/v1/status")[1])
        ours = sorted(_poll(town.socket, seconds))
        # Beside the same agents: they cost the machine as much.
        with bare(parent, size) as path:
            theirs = sorted(_poll(path, seconds))
    ratio = len(ours) / len(theirs)
    p99 = ours[int(len(ours) * 0.99)]
    what = f"GET /v1/status, {sessions} live sessions that write 10 lines/s each, {size} bytes"
    return [
        Measured(
            what,
            f"{len(ours) / seconds:.0f}/s",
            f"a bare Quart-Trio route {len(theirs) / seconds:.0f}/s",
            f"{ratio:.2f}",
            ">= 0.5",
            ratio >= 0.5,
        ),
        Measured(
            "the same, p99",
            f"{p99 * 1e3:.1f} ms",
            f"the bare route {theirs[int(len(theirs) * 0.99)] * 1e3:.1f} ms",
            "-",
            "< 15 ms",
            p99 < 0.015,
        ),
    ]


def _poll(path: Path, seconds: float) -> list[float]:
    client, taken = Unix(path), []
    until = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < until:
        client.ask("GET", "/v1/status")
        taken.append(time.perf_counter() - begin)
    return taken


@contextlib.contextmanager
def bare(parent: Path, size: int) -> Iterator[Path]:
    """A bare route on a socket of its own."""
    with tempfile.TemporaryDirectory(prefix="kb-", dir=parent) as name:
        path = Path(name) / "s"
        process = subprocess.Popen(
            [sys.executable, "-c", BARE, str(path), str(size)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while True:
                with contextlib.suppress(OSError):
                    Unix(path).ask("GET", "/v1/status")
                    break
                time.sleep(0.02)
            yield path
        finally:
            process.kill()
            process.wait()


# --- readers ------------------------------------------------------------------------


def readers(count: int, parent: Path, events: int = 25) -> list[Measured]:
    """Five events a second to a crowd: how long until each has reached all of them."""
    with project(parent) as where, daemon(where) as town:
        late = trio.run(partial(_crowd, town, count, events))
    return [
        Measured(
            f"{count} readers of events, 5 events/s: each reaches all (slowest)",
            f"{max(late) * 1e3:.0f} ms",
            f"median {statistics.median(late) * 1e3:.0f} ms",
            "-",
            "< 250 ms",
            max(late) < 0.25,
        )
    ]


HEAD = b"GET /v1/events?after=%d HTTP/1.1\r\nHost: k\r\nAccept: text/event-stream\r\n\r\n"


async def _crowd(town: Town, count: int, events: int) -> list[float]:
    """Seconds for each event from its own instant (`at`) until the last reader has it."""
    start = json.loads(Unix(town.socket).ask("GET", "/v1/status")[1])["seq"]
    client = Unix(town.socket)
    reached: dict[int, tuple[int, float]] = {}
    last = start + events
    full, ready = trio.Event(), 0

    async def read(stream: trio.SocketStream) -> None:
        nonlocal ready
        rest = b""
        while True:
            data = await stream.receive_some(65_536)
            now = time.time()
            ready += b"HTTP/1.1 200" in data
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.startswith(b"id: "):
                    seq = int(line[4:])
                    reached[seq] = (reached.get(seq, (0, 0.0))[0] + 1, now)
                    if seq >= last and reached[seq][0] == count:
                        full.set()

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            stream = await trio.open_unix_socket(str(town.socket))
            await stream.send_all(HEAD % start)
            nursery.start_soon(read, stream)
        # The answer's head comes with the first event, so the first ones only warm up.
        for _ in range(events + 5):
            # One event each: a refused attempt at nothing would be none, so a task that is skipped is used.
            await trio.to_thread.run_sync(partial(client.ask, "POST", "/v1/tasks", {"prompt": "x"}))
            await trio.sleep(0.6)
            if full.is_set():
                break
        with trio.move_on_after(30):
            await full.wait()
        nursery.cancel_scope.cancel()
    at = {}
    connection = Unix(town.socket)
    connection.request("GET", f"/v1/events?after={start}", headers={"Accept": "application/x-ndjson"})
    answer = connection.getresponse()
    while len(at) < events:
        record = json.loads(answer.readline())
        if "seq" in record:
            at[record["seq"]] = _instant(record["at"])
    connection.close()
    whole = [(seq, when) for seq, (seen, when) in sorted(reached.items()) if seen == count and seq in at]
    return [when - at[seq] for seq, when in whole[5:]]


def _instant(text: str) -> float:
    import datetime

    return datetime.datetime.fromisoformat(text).timestamp()


def silent(count: int, mute: int, parent: Path) -> list[Measured]:
    """Readers of which some never read: what the daemon's memory does meanwhile."""
    with project(parent) as where, daemon(where) as town:
        before, after, served = trio.run(partial(_mute_crowd, town, count, mute))
    grown = (after - before) / 1024
    return [
        Measured(
            f"{count} SSE readers, {mute} of which never read: growth of memory over 2,000 events",
            f"{grown:.0f} KiB",
            f"all others had every event: {'yes' if served else 'no'}",
            "-",
            "< 10 MiB",
            served and grown < 10_240,
        )
    ]


def rss(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _mute_crowd(town: Town, count: int, mute: int) -> tuple[int, int, bool]:
    client = Unix(town.socket)
    start = json.loads(client.ask("GET", "/v1/status")[1])["seq"]
    newest = [start] * (count - mute)

    async def read(index: int, stream: trio.SocketStream) -> None:
        rest = b""
        while True:
            *lines, rest = (rest + await stream.receive_some(65_536)).split(b"\n")
            for line in lines:
                if line.startswith(b"id: "):
                    newest[index] = int(line[4:])

    async def work(tasks: int) -> None:
        for _ in range(tasks):
            await trio.to_thread.run_sync(partial(client.ask, "POST", "/v1/tasks", {"prompt": "x" * 2000}))

    async with trio.open_nursery() as nursery:
        streams = [await trio.open_unix_socket(str(town.socket)) for _ in range(count)]
        for index, stream in enumerate(streams):
            await stream.send_all(HEAD % start)
            if index >= mute:
                nursery.start_soon(read, index - mute, stream)
        # A new one: that many readers may take longer to come than an idle connection is kept.
        client = Unix(town.socket)
        await work(50)
        await trio.sleep(1)
        before = rss(town.process.pid)
        await work(280)
        await trio.sleep(3)
        after = rss(town.process.pid)
        end = json.loads(client.ask("GET", "/v1/status")[1])["seq"]
        with trio.move_on_after(20):
            while min(newest) < end:  # noqa: ASYNC110  # readers in this process have no event for it
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    return before, after, min(newest) >= end


# --- coming up ----------------------------------------------------------------------

STACK = "import trio, quart, quart_trio, hypercorn.trio, hypercorn.config"


def ready(parent: Path, rounds: int = 5) -> list[Measured]:
    """From `exec` to the first answer of `/healthz`, against the bare import of the web stack."""
    imports, empty, full = [], [], []
    # As it is installed: pip has compiled the web stack as well, and a checkout that was changed may never be.
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(Path(kasmos.__file__).parent)], check=True)
    with project(parent) as history:
        _fill(history.parent / "r", 100_000)
        for _ in range(rounds):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", STACK], check=True)
            imports.append(time.perf_counter() - begin)
            with project(parent) as where, daemon(where) as town:
                empty.append(town.ready_after)
            with daemon(history) as town:
                full.append(town.ready_after)
    bare_import, fresh, aged = map(statistics.median, (imports, empty, full))
    return [
        Measured(
            "daemon start to /healthz, empty journal (median)",
            f"{fresh * 1e3:.0f} ms",
            f"import of the web stack {bare_import * 1e3:.0f} ms",
            f"{fresh / bare_import:.2f}",
            "< 1.5",
            fresh / bare_import < 1.5,
        ),
        Measured(
            "the same with 100,000 events",
            f"{aged * 1e3:.0f} ms",
            f"{(aged - fresh) * 1e3:+.0f} ms",
            "-",
            "< +500 ms",
            aged - fresh < 0.5,
        ),
    ]


def _fill(root: Path, events: int) -> None:
    """A journal of sessions that have ended."""
    # Beside this file.
    sys.path.append(str(Path(__file__).parent))
    import bench_journal

    root.mkdir(mode=0o700)
    trio.run(bench_journal.fill, root / "state.db", events)


def api(parent: Path, groups: frozenset[str] = frozenset()) -> list[Measured]:
    """All of it, or some groups."""
    rows: list[Measured] = []
    for name, measure in (
        ("submission", partial(submission, 100, parent)),
        ("status", partial(status, 200, parent)),
        ("readers", partial(readers, 1000, parent)),
        ("silent", partial(silent, 500, 50, parent)),
        ("ready", partial(ready, parent)),
    ):
        if not groups or name in groups:
            print(f"measuring api: {name} ...", file=sys.stderr)
            rows += measure()
    return rows


if __name__ == "__main__":
    for row in api(Path("/dev/shm"), frozenset(sys.argv[1:])):
        print(row)
