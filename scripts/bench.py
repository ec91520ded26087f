"""Measure kasmos against a baseline or a peer in the same run, and print the ratios as a table.

Every row says what is compared and which bar it is held to. Read ratios, not digits: the numbers depend on the
machine and on what else it is doing. Nothing here is asserted; the tests never look at a clock.

    scripts/bench                  everything (about five minutes)
    scripts/bench life wave        some rows
    scripts/bench --sessions 200   a smaller crowd
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import attrs
import trio

from kasmos.config.schema import Config, Logs
from kasmos.model import event as ev
from kasmos.model.plan import Plan, PlanTask, RunSettings, Wave
from kasmos.model.profile import AgentProfile, PromptMode, StopPolicy
from kasmos.model.session import SessionSpec
from kasmos.model.task import Outcome
from kasmos.serve import Engine, Options, import_later, open_engine
from kasmos.sessions import launch
from kasmos.store.reader import read_world
from kasmos.store.stateroot import StateRoot

DISK = Path(os.environ.get("KASMOS_BENCH_DISK", str(Path(__file__).resolve().parent.parent)))
TMPFS = Path("/dev/shm")


@attrs.frozen
class Row:
    """One line of the table."""

    what: str
    ours: str
    theirs: str
    ratio: str
    bar: str
    held: bool | None


def profile(program: tuple[str, ...]) -> AgentProfile:
    """A program that takes no notice of its prompt."""
    return AgentProfile(
        name="bench", program=program, prompt=PromptMode.STDIN, stop=StopPolicy(stop_grace=2.0, kill_grace=5.0)
    )


def plan_of(waves: int, tasks: int) -> Plan:
    """A plan of so many waves with so many tasks each."""
    number = 0
    made = []
    for wave in range(1, waves + 1):
        members = []
        for _ in range(tasks):
            number += 1
            members.append(PlanTask(id=str(number), number=number, wave=wave, title=f"t{number}", body=""))
        made.append(Wave(number=wave, tasks=tuple(members)))
    return Plan(waves=tuple(made), goal="bench")


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A directory that is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="kasmos-bench-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def options(root: Path, program: tuple[str, ...], project: Path) -> Options:
    """A supervisor whose only agent is *program*."""
    config = Config(agents={"bench": profile(program)}, logs=Logs())
    limited = attrs.evolve(config, orchestration=attrs.evolve(config.orchestration, max_concurrent=100_000))

    def configure(flags: Mapping[str, object]) -> Config:
        return limited

    return Options(
        project=project,
        root=StateRoot(path=root),
        configure=configure,
        environ={"PATH": os.environ["PATH"]},
        announce=lambda text: print(f"  ({text})", file=sys.stderr),
    )


async def submit(engine: Engine, plan: Plan, concurrent: int, project: Path) -> str:
    """Start a run of the plan."""
    settings = RunSettings(max_concurrent=concurrent, default_agent="bench")
    accepted = await engine.orchestrator.submit(
        plan, source="-", key="bench", digest="", settings=settings, project=str(project)
    )
    return accepted.run_id


async def run_plan(root: Path, plan: Plan, program: tuple[str, ...], concurrent: int) -> tuple[float, Engine]:
    """Run a plan to its end; seconds, and the engine with its world."""
    async with open_engine(options(root, program, root.parent)) as engine:
        begin = time.perf_counter()
        run_id = await submit(engine, plan, concurrent, root.parent)
        await engine.orchestrator.wait_idle()
        seconds = time.perf_counter() - begin
        run = engine.journal.world.runs[run_id]
        if run.outcome is not Outcome.SUCCEEDED:
            raise SystemExit(f"the bench run ended {run.outcome}: {next(iter(run.tasks.values())).state}")
    return seconds, engine


@attrs.frozen
class Cost:
    """What a number of programs cost."""

    wall: float
    """Seconds until all had ended."""
    cpu: float
    """Seconds of CPU, user and system, in this process and in all that were started and waited for."""


@contextlib.contextmanager
def costing() -> Iterator[list[Cost]]:
    """Measure the block; what it cost is in the list afterwards."""
    found: list[Cost] = []
    begin, before = time.perf_counter(), cpu_time(resource.RUSAGE_SELF) + cpu_time(resource.RUSAGE_CHILDREN)
    yield found
    after = cpu_time(resource.RUSAGE_SELF) + cpu_time(resource.RUSAGE_CHILDREN)
    found.append(Cost(time.perf_counter() - begin, after - before))


def cpu_time(who: int) -> float:
    """Seconds of CPU so far, of this process or of its children that have ended."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


async def side_by_side(count: int, concurrent: int, do: Callable[[], Awaitable[object]]) -> Cost:
    """What it costs to do something so many times, so many at once."""
    left = count

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await do()

    with costing() as cost:
        async with trio.open_nursery() as nursery:
            for _ in range(concurrent):
                nursery.start_soon(worker)
    return cost[0]


async def bare(count: int, concurrent: int) -> Cost:
    """So many bare `trio.run_process` of /bin/true."""
    return await side_by_side(count, concurrent, partial(trio.run_process, ["/bin/true"]))


async def three(count: int, concurrent: int) -> Cost:
    """The same as the grandchild of a `sh`, as every program of kasmos is, and nothing else."""
    command = ["/bin/sh", "-c", '( ( exec "$@" ); exit $? ); exit $?', "sh", "/bin/true"]
    return await side_by_side(count, concurrent, partial(trio.run_process, command, start_new_session=True))


async def recipe(count: int, concurrent: int) -> Cost:
    """Doorman, shim and gate as they are, with a directory for each; no journal, no supervision, no look at the end."""
    with scratch(TMPFS) as path:
        numbers = itertools.count()

        async def one() -> None:
            spec = SessionSpec(id=str(next(numbers)), name="t", argv=("/bin/true",), cwd="/", env={"PATH": os.defpath})
            directory = str(path / spec.id)
            opened = launch.prepare_opened(directory, spec, "")
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            with ours, theirs:
                command = launch.doorman_command(directory, spec, 1024)
                async with trio.open_nursery() as nursery:
                    await nursery.start(
                        partial(
                            trio.run_process, command, stdin=theirs, stdout=opened.output, stderr=opened.errors,
                            env=dict(spec.env), cwd=directory, start_new_session=True, pass_fds=(opened.lease,),
                        )
                    )  # fmt: skip
                    opened.close()
                    await trio.lowlevel.wait_readable(ours)
                    ours.send(b"\n")

        return await side_by_side(count, concurrent, one)


async def lives(parent: Path, count: int, concurrent: int) -> Cost:
    """So many whole lives of trivial sessions, with the state root in *parent*, where it stays."""
    path = Path(tempfile.mkdtemp(dir=parent))
    async with open_engine(options(path / "root", ("/bin/true",), path)) as engine:
        with costing() as cost:
            run_id = await submit(engine, plan_of(1, count), concurrent, path)
            await engine.orchestrator.wait_idle()
        run = engine.journal.world.runs[run_id]
        if run.outcome is not Outcome.SUCCEEDED:
            raise SystemExit(f"the bench run ended {run.outcome}: {next(iter(run.tasks.values())).state}")
    return cost[0]


def against_bare(what: str, count: int, bar: float | None, measure: Callable[[], Cost]) -> list[Row]:
    """Two rows, by the clock and by CPU time: the median of three rounds, each beside a bare `trio.run_process`."""
    rounds = [(trio.run(bare, count, 8), measure()) for _ in range(3)]

    def row(name: str, unit: str, pairs: list[tuple[float, float]]) -> Row:
        theirs, ours = sorted(pairs, key=lambda pair: pair[0] / pair[1])[1]
        held = None if bar is None else theirs / ours >= bar
        scale = 1000 / count
        return Row(
            name,
            f"{ours * scale:.2f} ms{unit}",
            f"bare trio.run_process {theirs * scale:.2f} ms{unit}",
            f"{theirs / ours:.2f}",
            "-" if bar is None else f">= {bar}",
            held,
        )

    return [
        row(what, "", [(base.wall, ours.wall) for base, ours in rounds]),
        row(f"{what}: CPU", " of CPU", [(base.cpu, ours.cpu) for base, ours in rounds]),
    ]


def life(count: int) -> list[Row]:
    """The whole life of a trivial session against a bare `trio.run_process`."""
    rows = []
    for name, parent, bar in (("tmpfs", TMPFS, 0.4), ("disk", DISK, 0.15)):
        what = f"life of a trivial session, 8 at once, state root on {name}"
        # All rounds are removed together: for seconds, ext4 goes around each file that was removed when it makes one.
        with scratch(parent) as path:
            rows += against_bare(what, count, bar, partial(trio.run, lives, path, count, 8))
    return rows


def floor(count: int) -> list[Row]:
    """What cannot be saved while a `sh` is doorman and shim: the same without any supervision."""
    return [
        *against_bare("a program below a sh that forks twice", count, None, partial(trio.run, three, count, 8)),
        *against_bare("doorman, shim and gate, without a supervisor", count, None, partial(trio.run, recipe, count, 8)),
    ]


def peer(count: int) -> list[Row]:
    """`kas run` of so many commands against GNU parallel with a job log."""
    what = f"kas run of {count} commands, 8 at once, from nothing to its exit"
    if shutil.which("parallel") is None:
        return [Row(what, "-", "GNU parallel is missing (Debian: parallel)", "-", "faster", None)]
    with scratch(TMPFS) as path:
        document = ['goal = "bench"', "[[wave]]", "number = 1"]
        for number in range(1, count + 1):
            document += ["[[wave.task]]", f"number = {number}", f'title = "t{number}"', 'body = "-"', 'agent = "bench"']
        (path / "plan.toml").write_text("\n".join(document))
        (path / ".kasmos").mkdir()
        (path / ".kasmos/config.toml").write_text(
            '[agents.bench]\nprogram = "/bin/true"\nprompt = "stdin"\n[orchestration]\nmax_concurrent = 8\n'
        )
        environ = {**os.environ, "KASMOS_STATE_ROOT": str(path / "root")}
        with costing() as mine:
            subprocess.run(
                [sys.executable, "-m", "kasmos", "run", "plan.toml"],
                cwd=path, env=environ, check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        with costing() as other:
            subprocess.run(
                ["parallel", "-j8", "--joblog", str(path / "joblog"), "/bin/true", "#"],
                input="\n".join(map(str, range(count))), text=True, check=True, cwd=path,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
    ours, theirs = mine[0], other[0]
    return [
        Row(
            what,
            f"{ours.wall:.2f} s",
            f"parallel --joblog {theirs.wall:.2f} s",
            f"{theirs.wall / ours.wall:.2f}",
            "> 1",
            ours.wall < theirs.wall,
        ),
        Row(
            f"{what}: CPU",
            f"{ours.cpu:.2f} s of CPU",
            f"parallel --joblog {theirs.cpu:.2f} s of CPU",
            f"{theirs.cpu / ours.cpu:.2f}",
            "-",
            None,
        ),
    ]


def fdatasync(path: Path) -> float:
    """Median seconds of an fdatasync after a small write."""
    taken = []
    with open(path / "sync", "wb") as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


OBSERVER = """
import ctypes, os, struct, sys, time
OPEN, CLOSE = 0x20, 0x10
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(os.O_CLOEXEC)
if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(sys.argv[1]), OPEN | CLOSE) < 0:
    raise OSError(ctypes.get_errno(), "no inotify")
print("ready", flush=True)
left = int(sys.argv[2])
while left:
    data = os.read(fd, 4096)
    now, place = time.monotonic(), 0
    while place < len(data):
        _, mask, _, length = struct.unpack_from("iIII", data, place)
        place += 16 + length
        left -= bool(mask & CLOSE)
        print("exec" if mask & OPEN else "exit", now, flush=True)
"""
"""Tells when a program's file is opened, by `exec`, and when who runs it lets go of it, by its end."""


def wave(count: int) -> list[Row]:
    """From the last exit of a wave to the first exec of the next, as the kernel tells of the program's file."""
    with scratch(DISK) as path:
        sync = fdatasync(path)
        program = path / "program"
        shutil.copy(shutil.which("true") or "/bin/true", program)
        with subprocess.Popen(
            [sys.executable, "-c", OBSERVER, program, str(count)], stdout=subprocess.PIPE, text=True
        ) as observer:
            assert observer.stdout is not None
            observer.stdout.readline()
            trio.run(run_plan, path / "root", plan_of(count, 1), (str(program),), 8)
            seen = [line.split() for line in observer.stdout]
    gaps = [
        float(after) - float(before)
        for (was, before), (comes, after) in itertools.pairwise(seen)
        if (was, comes) == ("exit", "exec")
    ]
    assert len(gaps) == count - 1
    median = statistics.median(gaps)
    bar = 0.005 + 3 * sync
    return [
        Row(
            "last exit of a wave to first exec of the next (median)",
            f"{median * 1e3:.1f} ms",
            f"fdatasync {sync * 1e3:.2f} ms",
            f"{median / bar:.2f}",
            f"< {bar * 1e3:.1f} ms",
            median < bar,
        )
    ]


def rss() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def hold(root: Path, count: int, report: Path, seconds: float) -> None:
    """Open so many idle sessions, measure, say so, and stay."""
    async with open_engine(options(root, ("/bin/sleep", "100000"), root.parent)) as engine:
        import_later()  # what is there once, however many sessions there are
        await trio.sleep(0.2)
        before = rss()
        await submit(engine, plan_of(1, count), count, root.parent)
        await started(engine, count)
        await trio.sleep(1.0)
        after, cpu = rss(), time.process_time()
        await trio.sleep(seconds)
        spent = time.process_time() - cpu
        await trio.Path(report).write_text(f"{before} {after} {spent / seconds}")
        await trio.sleep_forever()


async def started(engine: Engine, count: int) -> None:
    """Wait until so many sessions run."""
    async with engine.bus.subscribe(0) as subscription:
        async for records in subscription:
            count -= sum(isinstance(record.event, ev.SessionStarted) for record in records)
            if count <= 0:
                return


async def adopt(root: Path, count: int) -> float:
    """Seconds until a new supervisor holds every one of them; then end them."""
    before = read_world(root / "state.db").seq
    begin = time.perf_counter()
    async with open_engine(options(root, ("/bin/sleep", "100000"), root.parent)) as engine:
        # What the earlier supervisor started is in the journal already; only adoptions are new.
        async with engine.bus.subscribe(before) as subscription:
            left = count
            async for records in subscription:
                left -= sum(isinstance(record.event, ev.SessionAdopted) for record in records)
                if left <= 0:
                    break
        seconds = time.perf_counter() - begin
        engine.orchestrator.hurry()
        await engine.orchestrator.interrupt("bench")
    return seconds


def crowd(count: int) -> list[Row]:
    """Many live idle sessions: what they cost, and how fast they are adopted."""
    with scratch(TMPFS) as path:
        report = path / "report"
        holder = subprocess.Popen([sys.executable, __file__, "--hold", str(path / "root"), str(count), str(report)])
        while not report.exists() or not report.read_text():
            if holder.poll() is not None:
                raise SystemExit("the holder of the crowd died")
            time.sleep(0.1)
        before, after, cpu = (float(word) for word in report.read_text().split())
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        seconds = trio.run(adopt, path / "root", count)
    each = (after - before) / count / 1024
    return [
        Row(f"{count} idle sessions: CPU", f"{cpu * 100:.2f} % of a core", "-", "-", "< 1 %", cpu < 0.01),
        Row(f"{count} idle sessions: memory of each", f"{each:.1f} KiB", "-", "-", "< 40 KiB", each < 40),
        Row(f"adoption of {count} live sessions", f"{seconds:.2f} s", "-", "-", "< 2 s", seconds < 2),
    ]


def output(megabytes: int) -> list[Row]:
    """A session that writes a lot, against writing to a file directly."""
    command = f"head -c {megabytes}M /dev/zero"
    best: list[tuple[float, float, float]] = []
    for _ in range(3):
        with scratch(TMPFS) as path:
            begin = time.perf_counter()
            subprocess.run(["/bin/sh", "-c", f"{command} >{path}/direct"], check=True)
            theirs = time.perf_counter() - begin
            (path / "direct").unlink()
            ours, _ = trio.run(run_plan, path / "root", plan_of(1, 1), ("/bin/sh", "-c", command), 1)
        best.append((theirs / ours, ours, theirs))
    ratio, ours, theirs = sorted(best)[1]
    return [
        Row(
            f"a session that writes {megabytes} MB",
            f"{ours:.2f} s",
            f"to a file directly {theirs:.2f} s",
            f"{ratio:.2f}",
            ">= 0.9",
            ratio >= 0.9,
        )
    ]


def start() -> list[Row]:
    """How long `kas --help` takes."""
    kas = Path(sys.executable).with_name("kas")
    command = [str(kas), "--help"] if kas.exists() else [sys.executable, "-m", "kasmos", "--help"]
    ours, theirs = [], []
    for _ in range(15):
        for taken, argv in ((ours, command), (theirs, [sys.executable, "-c", "pass"])):
            begin = time.perf_counter()
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
            taken.append(time.perf_counter() - begin)
    mine, other = statistics.median(ours), statistics.median(theirs)
    return [
        Row(
            "kas --help (median)",
            f"{mine * 1e3:.0f} ms",
            f"python -c pass {other * 1e3:.0f} ms",
            f"{mine / other:.1f}",
            "< 100 ms",
            mine < 0.1,
        )
    ]


def terminals(count: int) -> list[Row]:
    """What sessions in tmux cost; see `bench_tmux`."""
    sys.path.append(str(Path(__file__).parent))
    import bench_tmux

    return [Row(**attrs.asdict(measured)) for measured in bench_tmux.tmux(count)]


def transcripts() -> list[Row]:
    """How fast the streams of agents are understood; see `bench_transcripts`."""
    import bench_agents
    import bench_transcripts

    read = bench_transcripts.measure(100)
    speed, grown = read["mb_per_s"], read["grown_kib"] / 1024
    placed = bench_agents.placed(100)
    what = f"a transcript of {read['megabytes']:.0f} MB"
    return [
        Row(f"{what}: understood", f"{speed:.0f} MB/s", "-", "-", ">= 50 MB/s", speed >= 50),
        Row(
            f"{what}: the same with places, as for the API", f"{placed:.0f} MB/s", "-", "-", ">= 50 MB/s", placed >= 50
        ),
        Row(f"{what}: memory", f"+{grown:.1f} MiB", "-", "-", "flat (< 16 MiB)", grown < 16),
    ]


def agents() -> list[Row]:
    """What it costs to understand agents while they work; see `bench_agents`."""
    import bench_agents

    work = bench_agents.agents()
    each = work.events / bench_agents.AGENTS
    return [
        Row(
            f"{bench_agents.AGENTS} agents, {each:.0f} events/s each ({work.megabytes:.1f} MB/s): supervisor",
            f"{work.cpu:.1%} of a core",
            "-",
            "-",
            "< 25 %",
            work.cpu < 0.25,
        )
    ]


def api() -> list[Row]:
    """What a daemon's API costs; see `bench_api`."""
    sys.path.append(str(Path(__file__).parent))
    import bench_api

    return [Row(**attrs.asdict(measured)) for measured in bench_api.api(TMPFS)]


def render(rows: list[Row]) -> str:
    """The table, as Markdown."""
    lines = ["| what | kasmos | compared with | ratio | bar | held |", "|---|---|---|---|---|---|"]
    for row in rows:
        held = "-" if row.held is None else "yes" if row.held else "**no**"
        lines.append(f"| {row.what} | {row.ours} | {row.theirs} | {row.ratio} | {row.bar} | {held} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what was asked for."""
    # What is imported late stands beside this file, where `python -P` does not look.
    sys.path.append(str(Path(__file__).parent))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    groups = ("life", "floor", "peer", "wave", "crowd", "output", "transcripts", "agents", "tmux", "start", "api")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(groups)}; all by default")
    parser.add_argument("--commands", type=int, default=1000, help="trivial sessions for life, floor and peer")
    parser.add_argument("--sessions", type=int, default=1000, help="idle sessions for crowd")
    parser.add_argument("--megabytes", type=int, default=1024, help="for output")
    parser.add_argument("--hold", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.hold:
        trio.run(hold, Path(asked.hold[0]), int(asked.hold[1]), Path(asked.hold[2]), 10.0)
        return
    wanted = asked.groups or groups
    unknown = set(wanted) - set(groups)
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(groups)}")
    rows: list[Row] = []
    for name in wanted:
        print(f"measuring {name} ...", file=sys.stderr)
        match name:
            case "life":
                rows += life(asked.commands)
            case "floor":
                rows += floor(asked.commands)
            case "peer":
                rows += peer(asked.commands)
            case "wave":
                rows += wave(60)
            case "crowd":
                rows += crowd(asked.sessions)
            case "output":
                rows += output(asked.megabytes)
            case "transcripts":
                rows += transcripts()
            case "agents":
                rows += agents()
            case "tmux":
                rows += terminals(min(asked.sessions, 200))
            case "start":
                rows += start()
            case "api":
                rows += api()
    print(
        f"{os.cpu_count()} cores, Linux {os.uname().release}, Python {sys.version.split()[0]}, {time.strftime('%F')}\n"
    )
    print(render(rows))


if __name__ == "__main__":
    main()
