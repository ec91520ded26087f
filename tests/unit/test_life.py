"""The life of a supervisor, its health, its reload, its log, its word to the service manager: each by itself."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import attrs
import pytest
import structlog
import trio
import trio.testing

from kasmos.config.load import load_config, with_flags
from kasmos.config.reload import decide_change
from kasmos.daemon.leaving import Departure
from kasmos.daemon.life import PROBE_TIMEOUT, Health, Life, Phase, StopOrder
from kasmos.exceptions import ConfigError, JournalCorruptError, RequestError, StoreError
from kasmos.telemetry.logs import KEPT, Log, LogFile, configure_log
from kasmos.telemetry.notify import Notifier, watchdog_interval
from kasmos.telemetry.spans import traceparent, wanted

# --- life -------------------------------------------------------------------------------


def test_life_goes_forward_only() -> None:
    """A supervisor that leaves never becomes ready again."""
    life = Life(daemon=True)
    life.enter(Phase.READY)
    life.request_stop(StopOrder(drain=True))
    life.enter(Phase.READY)
    assert life.phase is Phase.DRAINING
    assert not life.ready


def test_a_plain_stop_cuts_a_drain_short() -> None:
    """The stop that is firmer counts, whichever came first."""
    life = Life(daemon=True)
    life.request_stop(StopOrder(drain=True))
    life.request_stop(StopOrder(reason="now"))
    life.request_stop(StopOrder(drain=True))
    assert life.order == StopOrder(reason="now")
    assert life.phase is Phase.STOPPING


async def test_what_is_no_daemon_is_neither_stopped_nor_reloaded() -> None:
    """The supervisor of a `kas run` refuses what is for daemons."""
    life = Life()
    with pytest.raises(RequestError, match="kas stop --all"):
        life.request_stop(StopOrder())
    with pytest.raises(RequestError, match="not reloaded"):
        await life.reload()


def test_departure_is_told() -> None:
    """What became of what ran is told in one line, however much it was."""
    assert str(Departure()) == "nothing ran"
    assert str(Departure(left=("a", "b"), queued=1)) == "left running: a, b; 1 task wait for the next daemon"
    assert str(Departure(stopped=tuple("abcdefghijkl"))).endswith("i, j and 2 more")


# --- health -----------------------------------------------------------------------------


@attrs.define
class Disk:
    """A probe of a disk that is as it is set."""

    error: Exception | None = None
    delay: float = 0.0
    probes: int = 0

    async def probe(self) -> None:
        self.probes += 1
        await trio.sleep(self.delay)
        if self.error is not None:
            raise self.error


async def test_health_writes_and_is_not_asked_too_often(autojump_clock: trio.testing.MockClock) -> None:
    """A verdict comes from a real write, and is given again for a second."""
    disk = Disk()
    health = Health(disk.probe, lambda: True)
    assert (await health.check()).well
    disk.error = StoreError("full")
    assert (await health.check()).well
    await trio.sleep(1)
    verdict = await health.check()
    assert verdict.problems == ("full",)
    assert not verdict.stuck
    assert disk.probes == 2


@pytest.mark.parametrize("disk", [Disk(delay=2 * PROBE_TIMEOUT), Disk(error=JournalCorruptError("torn"))])
async def test_health_tells_a_hang_from_a_full_disk(autojump_clock: trio.testing.MockClock, disk: Disk) -> None:
    """What only a new process can mend is told apart: a disk that hangs, a journal that is damaged."""
    verdict = await Health(disk.probe, lambda: True).check()
    assert verdict.stuck
    assert not verdict.well


async def test_what_cannot_be_recorded_is_refused() -> None:
    """While the journal cannot be written, new work is refused with 503 and nothing is probed."""
    disk = Disk()
    health = Health(disk.probe, lambda: False)
    with pytest.raises(RequestError) as refusal:
        health.require_writable()
    assert (refusal.value.status, refusal.value.code) == (503, "store_unavailable")
    assert not (await health.check()).well
    assert disk.probes == 0


# --- reload -----------------------------------------------------------------------------


def test_change_is_split(tmp_path: Path) -> None:
    """What can change at once does; what cannot keeps its old value and is named."""
    old = load_config(tmp_path, environ={}).config
    new = load_config(
        tmp_path,
        environ={},
        flags={
            "orchestration.retries": 3,
            "orchestration.cgroups": "never",
            "daemon.on_stop": "stop",
            "daemon.listen": "127.0.0.1:1",
            "logs.buffer_bytes": 8192,
        },
    ).config
    change = decide_change(old, new)
    assert change.applied == ("orchestration.retries", "daemon.on_stop")
    assert change.restart == ("orchestration.cgroups", "logs.buffer_bytes", "daemon.listen")
    assert change.config.orchestration.retries == 3
    assert change.config.logs == old.logs
    assert change.config.daemon.listen == ()
    assert decide_change(old, old).applied == ()


@pytest.mark.parametrize("key", ["http_hosts", "http_origins", "listen"])
def test_who_may_ask_is_settled_at_the_start(tmp_path: Path, key: str) -> None:
    """What the listeners are made of is named as needing a restart, and is not said to hold."""
    old = load_config(tmp_path, environ={}).config
    new = attrs.evolve(old, daemon=attrs.evolve(old.daemon, **{key: ("127.0.0.1:7878",)}))
    change = decide_change(old, new)
    assert (change.applied, change.restart) == ((), (f"daemon.{key}",))


def test_flags_on_top_of_what_is_in_force(tmp_path: Path) -> None:
    """A submission's settings are checked against the configuration that is in force."""
    config = load_config(tmp_path, environ={}).config
    assert with_flags(config, {"orchestration.max_concurrent": 9}).orchestration.max_concurrent == 9
    with pytest.raises(ConfigError, match="no agent"):
        with_flags(config, {"orchestration.default_agent": "nobody"})


# --- the service manager ----------------------------------------------------------------


def test_nobody_to_tell() -> None:
    """Without a service manager, or with one that is gone, telling does nothing."""
    Notifier.of({}).ready()
    Notifier("/nowhere/at/all").stopping("x")


def test_watchdog_of_another_process() -> None:
    """A watchdog that is meant for another process, or for none, is not ours."""
    assert watchdog_interval({}) is None
    assert watchdog_interval({"WATCHDOG_USEC": "2000000"}) == 2.0
    assert watchdog_interval({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}) == 2.0
    assert watchdog_interval({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}) is None


# --- the log ----------------------------------------------------------------------------


@pytest.fixture
def own_logging():  # type: ignore[no-untyped-def]
    """What a test does to logging is undone."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_log_is_bounded(tmp_path: Path) -> None:
    """A log that has grown is begun anew; no more than a few earlier files are kept, and no line is torn."""
    file = LogFile(tmp_path / "d.log", max_bytes=100)
    for number in range(100):
        file.write(f"line {number:03}\n")
    file.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["d.log", *(f"d.log.{n}" for n in range(1, KEPT + 1))]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    newest = (tmp_path / "d.log.1").read_text() + (tmp_path / "d.log").read_text()
    lines = newest.splitlines()
    assert lines[-1] == "line 099"
    assert lines == [f"line {n:03}" for n in range(100 - len(lines), 100)]


def test_libraries_log_there_too(tmp_path: Path, own_logging: None) -> None:
    """What libraries log is in the same log, as JSON, with tracebacks but without local variables."""
    file = LogFile(tmp_path / "d.log")
    configure_log(form="json", level="info", file=file)
    log = Log(state_root="/s")
    log.info("hello", n=1)
    secret = "sesame" * 2
    try:
        raise ValueError("wrong")
    except ValueError:
        logging.getLogger("lib").exception("it failed")
    logging.getLogger("lib").debug("chatter")
    file.close()
    first, second = (json.loads(line) for line in (tmp_path / "d.log").read_text().splitlines())
    assert (first["event"], first["state_root"], first["n"]) == ("hello", "/s", 1)
    assert (second["event"], second["logger"], second["level"]) == ("it failed", "lib", "error")
    assert "ValueError" in json.dumps(second)
    assert secret not in json.dumps(second)


# --- traces -----------------------------------------------------------------------------


def test_place_in_a_trace_is_always_the_same() -> None:
    """Every supervisor gives a session the same place in the same trace; other runs have other traces."""
    one = traceparent("r", 5.0, "s")
    assert one == traceparent("r", 5.0, "s")
    assert len(one) == 55
    assert one[:36] == traceparent("r", 5.0, "t")[:36]
    assert one[:36] != traceparent("r", 6.0, "s")[:36]


def test_what_switches_traces_on() -> None:
    """The endpoint alone does; the SDK's own switches turn them off again."""
    assert wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"})
    assert wanted({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"})
    assert not wanted({})
    assert not wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"})
