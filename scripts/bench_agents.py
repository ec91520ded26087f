"""What it costs to understand agents: rows of scripts/bench for agents at work under a real supervisor.

Each agent is a program that writes the stream of a working claude, at a steady pace, until it is stopped. Measured is
all that the supervisor's process spends while they do: following logs, understanding streams, counting, the journal.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import attrs
import bench_transcripts
import trio

from kasmos.config.schema import Config, Logs
from kasmos.harnesses.facts import load_facts
from kasmos.harnesses.parser import TranscriptParser
from kasmos.harnesses.placed import PlacedTranscript
from kasmos.model import event as ev
from kasmos.model.plan import Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import AgentProfile, PromptMode, StopPolicy
from kasmos.serve import Engine, Options, open_engine
from kasmos.store.stateroot import StateRoot

AGENTS = 20
RATE = 200
"""Events of each agent in a second."""
SECONDS = 5.0
PACE = 0.05
"""Seconds between two pieces of an agent's stream: agents write in bursts."""
AGENT = """
import sys, time
lines, size, pace = open(sys.argv[1], "rb").readlines(), int(sys.argv[2]), float(sys.argv[3])
out, at, due = sys.stdout.buffer, 0, time.monotonic()
while True:
    for line in lines[at : at + size]:
        out.write(line)
    out.flush()
    at = (at + size) % (len(lines) - size)
    due += pace
    time.sleep(max(0.0, due - time.monotonic()))
"""


@attrs.frozen
class Work:
    """What the agents made the supervisor do."""

    cpu: float
    """Of a core."""
    events: float
    """Of agents, in a second."""
    megabytes: float
    """In a second."""
    records: float
    """Of the journal, in a second."""


def options(root: Path, program: tuple[str, ...]) -> Options:
    """A supervisor whose only agent is *program*, which speaks as claude does."""
    agent = AgentProfile(
        name="agent", program=program, harness="claude", prompt=PromptMode.STDIN,
        stop=StopPolicy(stop_grace=0.5, kill_grace=5.0),
    )  # fmt: skip
    config = Config(agents={"agent": agent}, logs=Logs())
    limited = attrs.evolve(config, orchestration=attrs.evolve(config.orchestration, max_concurrent=AGENTS))

    def configure(flags: Mapping[str, object]) -> Config:
        return limited

    return Options(
        project=root.parent,
        root=StateRoot(path=root),
        configure=configure,
        environ={"PATH": os.environ["PATH"]},
        announce=lambda text: print(f"  ({text})", file=sys.stderr),
    )


async def work(path: Path, seconds: float) -> Work:
    """Have the agents work for so long, and measure."""
    # Without its result, which would tell that they are done.
    stream = b"".join(bench_transcripts.lines(2 << 20)).rsplit(b"\n", 2)[0] + b"\n"
    (path / "stream").write_bytes(stream)
    each = len(TranscriptParser(load_facts("claude")).feed(stream)) / stream.count(b"\n")
    size = round(RATE * PACE / each)
    script = path / "agent"
    script.write_text(f"#!{sys.executable}\n{AGENT}")
    script.chmod(0o755)
    program = (str(script), str(path / "stream"), str(size), str(PACE))
    tasks = tuple(PlanTask(id=str(n), number=n, wave=1, title=f"t{n}", body="") for n in range(1, AGENTS + 1))
    plan = Plan(waves=(Wave(number=1, tasks=tasks),), goal="bench")
    async with open_engine(options(path / "root", program)) as engine:
        settings = RunSettings(max_concurrent=AGENTS, default_agent="agent")
        await engine.orchestrator.submit(plan, source="-", key="bench", digest="", settings=settings, project=str(path))
        await _started(engine)
        while not all(session.output_bytes for session in engine.orchestrator.live_sessions):  # noqa: ASYNC110
            await trio.sleep(0.1)
        await trio.sleep(1.0)
        before, seq = _written(engine), engine.journal.world.seq
        begun, cpu = time.perf_counter(), time.process_time()
        await trio.sleep(seconds)
        spent, taken = time.process_time() - cpu, time.perf_counter() - begun
        after, records = _written(engine), engine.journal.world.seq - seq
        engine.orchestrator.hurry()
        await engine.orchestrator.interrupt("bench")
    per_byte = each * stream.count(b"\n") / len(stream)
    written = (after - before) / taken
    return Work(spent / taken, written * per_byte, written / 1e6, records / taken)


async def _started(engine: Engine) -> None:
    left = AGENTS
    async with engine.bus.subscribe(0) as subscription:
        async for records in subscription:
            left -= sum(isinstance(record.event, ev.SessionStarted) for record in records)
            if left <= 0:
                return


def _written(engine: Engine) -> int:
    return sum(session.output_bytes for session in engine.orchestrator.live_sessions)


def agents() -> Work:
    """Twenty agents at work."""
    path = Path(tempfile.mkdtemp(prefix="kasmos-bench-", dir="/dev/shm"))
    try:
        return trio.run(work, path, SECONDS)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def placed(megabytes: int) -> float:
    """MB/s of processor time at which a transcript is read with the places of its events, as the API does."""
    transcript = PlacedTranscript(TranscriptParser(load_facts("claude")))
    made = list(bench_transcripts.lines(megabytes << 20))
    begun = time.process_time()
    for piece in made:
        transcript.feed(piece)
    return sum(map(len, made)) / 1e6 / (time.process_time() - begun)


if __name__ == "__main__":
    print(agents())
