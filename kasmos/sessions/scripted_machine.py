"""What scripted sessions run on: programs that are scripts, and the machine that holds them.

A machine survives its supervisor, as a real one would. What a program did by now is computed from its
script, its signals and Trio's clock, so nothing has to run in the background for it.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import uuid
from collections import Counter, deque

import attrs
import trio

from kasmos.model.approval import Answer, AnswerKind, Ask, Meaning
from kasmos.model.session import ExitStatus, SessionKind, SessionSpec
from kasmos.sessions.output import OutputBuffer
from kasmos.sessions.script import Script, ScriptedAsk, Truncate

_POLITE = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})


class ScriptedProgram:
    """One program on a `ScriptedMachine`: its script, and what became of it so far."""

    def __init__(self, spec: SessionSpec, script: Script) -> None:
        self.spec = spec
        self.script = script
        self.signals: list[int] = []
        """Every signal it was sent while it ran, in order."""
        self.truncations: list[int] = []
        """Absolute offset of each truncation of its log."""
        self.log = OutputBuffer(spec.max_log_bytes or sys.maxsize)
        self.changed = trio.Event()
        """Set, and replaced, whenever something happened that the clock does not tell."""
        self._lock = threading.Lock()
        self._clock = trio.lowlevel.current_clock()
        self._exit: ExitStatus | None = None
        self._lost = False
        self._asked = False
        self._last_words = b""
        self.answers: list[Answer] = []
        """Every answer it was given, in order."""
        now = at = self._clock.current_time()
        self._pending: deque[tuple[float, bytes | Truncate]] = deque()
        for delay, item in script.output:
            at += delay
            self._pending.append((at, item))
        self._asks = deque(script.asks)
        self._asked_so_far = 0
        self._ask_at = now + script.asks[0].after if script.asks else math.inf
        self._asking: ScriptedAsk | None = None
        self._gone_at = math.inf
        last = max(at, now + sum(one.after for one in script.asks))
        self._end_at = last if script.duration is None else now + script.duration
        """When it ends by itself; like its other instants it moves on by the time it waits for an answer."""
        self._end = script.exit
        self._stop_at, self._stop_end = math.inf, script.exit
        """When it ends because of a signal, whether it waits or not."""
        self._lost_at = math.inf if script.lost is None else now + script.lost

    @property
    def exit(self) -> ExitStatus | None:
        """How it ended, if it has."""
        self.advance()
        return self._exit

    @property
    def lost(self) -> bool:
        """Whether its fate can no longer be learnt."""
        self.advance()
        return self._lost

    @property
    def running(self) -> bool:
        """Whether it runs."""
        self.advance()
        return self._exit is None and not self._lost

    @property
    def asking(self) -> Ask | None:
        """What it asks at this moment."""
        self.advance()
        asking = self._asking
        if asking is None or not self.running:
            return None
        return attrs.evolve(asking.ask, identity=f"ask-{self._asked_so_far}")

    @property
    def next_at(self) -> float:
        """Instant of Trio's clock at which it does the next thing by itself."""
        if self._exit is not None or self._lost:
            return math.inf  # of a program that has ended nothing more comes by itself
        if self._asking is not None:
            return min(self._gone_at, self._stop_at, self._lost_at)
        output_at = self._pending[0][0] if self._pending else math.inf
        # Sums of the same seconds may differ by the last digit: what it asks comes before the end.
        end_at = math.inf if self._asks and self.script.duration is None else self._end_at
        return min(output_at, self._ask_at, end_at, self._stop_at, self._lost_at)

    def advance(self) -> None:
        """Do what it has done by now. Safe from any thread."""
        with self._lock:
            while (at := self.next_at) <= self._clock.current_time():
                self._do(at)

    def _do(self, at: float) -> None:
        """Do the next thing, which is due at this instant."""
        if self._pending and self._asking is None and self._pending[0][0] == at:
            self._write(self._pending.popleft()[1])
        elif self._lost_at == at:
            self._lost = True
        elif self._stop_at == at:
            self.log.append(self._last_words)
            self._exit = self._stop_end
        elif self._asking is not None:
            self._go_on(at)
        elif self._ask_at == at:
            self._asking = self._asks.popleft()
            self._asked_so_far += 1
            self._gone_at = at + self._asking.gone_after
        else:
            self._exit = self._end

    def _go_on(self, now: float) -> None:
        """Take up what it was doing: all its instants come later by the time it has waited."""
        asking, self._asking, self._gone_at = self._asking, None, math.inf
        assert asking is not None
        waited = now - self._ask_at
        self._pending = deque((at + waited, item) for at, item in self._pending)
        self._end_at += waited
        self._ask_at = now + self._asks[0].after if self._asks else math.inf

    def answer(self, answer: Answer) -> None:
        """Answer what it asks. It must be asking."""
        asking = self._asking
        assert asking is not None
        self.answers.append(answer)
        meaning = asking.ask.options[answer.option].meaning if answer.option is not None else None
        denied = answer.kind is AnswerKind.DENY or meaning is Meaning.DENY
        with self._lock:
            now = self._clock.current_time()
            self._go_on(now)
            self._write(asking.on_deny if denied else asking.on_allow)
            if denied and asking.deny_exit is not None:
                self._end_at, self._end = now, asking.deny_exit
                self._asks.clear()
                self._ask_at = math.inf
        self.advance()
        self._wake()

    def send(self, signum: int) -> None:
        """Deliver a signal."""
        if not self.running:
            return
        self.signals.append(signum)
        now = self._clock.current_time()
        if signum == signal.SIGKILL and not self.script.unkillable:
            self.end(ExitStatus(signal=signum))
        elif signum in _POLITE and not self._asked:
            self._asked = True
            status = self.script.ends_on_terminate_with or ExitStatus(signal=signum)
            self._end_by(now + self.script.ignores_terminate_for, status, self.script.last_words)
        self._wake()

    def end(self, status: ExitStatus) -> None:
        """Make it end now, as when somebody else kills it."""
        self._end_by(self._clock.current_time(), status, b"")
        self.advance()
        self._wake()

    def lose(self) -> None:
        """Make its fate unknowable from now on, unless it has ended."""
        with self._lock:
            self._lost_at = min(self._lost_at, self._clock.current_time())
        self.advance()
        self._wake()

    def _end_by(self, at: float, status: ExitStatus, last_words: bytes) -> None:
        self.advance()
        with self._lock:
            if at < self._stop_at and (self._asking is not None or at < self._end_at):
                self._stop_at, self._stop_end, self._last_words = at, status, last_words

    def _write(self, item: bytes | Truncate) -> None:
        if isinstance(item, bytes):
            self.log.append(item)
            return
        self.truncations.append(self.log.end)
        self.log.drop()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class ScriptedMachine:
    """What runs, whoever supervises it. Share one between backends to let a supervisor succeed another.

    It keeps count, so that a test can see what must never happen: `starts` above one, or `overlaps`.
    """

    def __init__(self, *, boot_id: str = "") -> None:
        self.boot_id = boot_id or uuid.uuid4().hex
        """Give the supervisor's where sessions are to be adopted by what the journal says of them."""
        self.programs: dict[str, ScriptedProgram] = {}
        """Every program that was started and not forgotten, by session id, in order of their start."""
        self.starts: Counter[str] = Counter()
        """How often each session was started: never more than once."""
        self.overlaps: list[tuple[str, str]] = []
        """Pairs of agent sessions of one task of which the second started while the first still ran."""
        self.peak = 0
        """The largest number of agent sessions that ran at once."""
        self._claimed: set[str] = set()

    @property
    def live(self) -> tuple[str, ...]:
        """Ids of the sessions that run."""
        return tuple(session_id for session_id, program in self.programs.items() if program.running)

    @property
    def live_by_task(self) -> dict[str, tuple[str, ...]]:
        """Ids of the agent sessions that run, by `RUN.TASK`. More than one is a fault."""
        found: dict[str, tuple[str, ...]] = {}
        for session_id, program in self.programs.items():
            if program.running and (key := _task_key(program.spec)):
                found[key] = (*found.get(key, ()), session_id)
        return found

    def claim(self, session_id: str) -> bool:
        """Take the right to run this session, which is given once. False if it is gone."""
        if session_id in self._claimed:
            return False
        self._claimed.add(session_id)
        return True

    def start(self, spec: SessionSpec, script: Script) -> ScriptedProgram:
        """Run a program whose claim was taken."""
        if key := _task_key(spec):
            self.overlaps += [(other, spec.id) for other in self.live_by_task.get(key, ())]
        self.starts[spec.id] += 1
        program = self.programs[spec.id] = ScriptedProgram(spec, script)
        agents = (p for p in self.programs.values() if p.spec.kind is SessionKind.AGENT)
        self.peak = max(self.peak, sum(p.running for p in agents))
        return program

    def reboot(self, *, boot_id: str = "") -> None:
        """Every program that runs is gone, without a word about its end."""
        self.boot_id = boot_id or uuid.uuid4().hex
        for program in self.programs.values():
            program.lose()


def _task_key(spec: SessionSpec) -> str | None:
    if spec.task_id is None or spec.kind is not SessionKind.AGENT:
        return None
    return f"{spec.run_id}.{spec.task_id}"
