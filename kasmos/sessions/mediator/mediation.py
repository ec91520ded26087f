"""One turn of a program, from its start to its end: the only part that has processes, descriptors and a clock."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kasmos.sessions.letterbox import Letterbox
from kasmos.sessions.mediator.link import Link, Message, Speaker
from kasmos.sessions.mediator.streams import Lines, Log

CHUNK = 65_536
MOST_DRAINED = 256
"""Chunks that are taken from a stream whose program is gone: more than any pipe holds."""
RETRY_INTERVAL = 1.0
"""Seconds between two tries to write on a full disk."""
INTERRUPT_GRACE = 3.0
"""Seconds a program has to end its turn once it was asked to."""
CLOSE_GRACE = 5.0
"""Seconds it has to exit when its standard input was closed; then SIGTERM."""
HURRIED_GRACE = 1.0
"""The same when somebody wants us gone, and until SIGKILL."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOST_WORDS = 500
"""Characters that are kept of the last line that was no message."""


class Mediation:
    """Starts a program, has a speaker speak to it, and stays until it is gone.

    Args:
        command: the program's command line.
        letterbox: where questions go.
        speaker: makes the speaker for a link.
        protocol: what it speaks, for people.
        opening_limit: seconds a program may keep silent until it has opened its session; starting the servers of
            its tools is a part of that.
    """

    def __init__(
        self,
        command: Sequence[str],
        letterbox: Letterbox,
        speaker: Callable[[Link], Speaker],
        *,
        protocol: str,
        opening_limit: float,
    ) -> None:
        self._command = command
        self._protocol = protocol
        self._opening_limit = opening_limit
        self._mute_at: float | None = time.monotonic() + opening_limit
        """When it has kept silent for too long; None once it has opened its session."""
        self._understood = False
        """Whether any message has come."""
        self._requested = ""
        """The method of our last request."""
        self._last_words = ""
        """The last line that was no message."""
        self._letterbox = letterbox
        self._speaker = speaker(self)
        self._log = Log(1)
        self._unlogged: list[bytes] = []
        """Lines of ours that wait for the program's own line to end."""
        self._lines, self._errors = Lines(), Lines()
        self._unsent = bytearray()
        self._unasked: list[tuple[Any, Mapping[str, Any]]] = []
        """What could not be put into the mailbox yet."""
        self._keys: dict[str, Any] = {}
        """Keys of what is asked, by the question's name in the mailbox."""
        self._silence: tuple[float | None, float, Callable[[], None]] | None = None
        """What is to be called: after so much silence, or whatever is said; at this time; and what."""
        self._code: int | None = None
        self._signal: int | None = None
        self._deadline: float | None = None
        self._next_signal = signal.SIGTERM
        self._process: subprocess.Popen[bytes]

    def run(self) -> int:
        """Mediate.

        Returns: the exit code; the negative number of the signal by which we should end ourselves.

        Raises:
            OSError: the program cannot be started.
        """
        wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)  # told by the pipe
        # In a kernel session of its own: what is sent to ours is for us, who can have the turn ended properly.
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdout = self._process.stdout.fileno()
        os.set_blocking(self._process.stdin.fileno(), False)
        self._speaker.begin()
        self._loop(wake)
        for name in list(self._keys):
            self._withdraw(name)
        if self._signal is not None:
            return -self._signal
        return self._code if self._code is not None else 1

    def _loop(self, wake: int) -> None:
        process = self._process
        gone = os.pidfd_open(process.pid)
        streams = {stream.fileno(): stream for stream in (process.stdout, process.stderr) if stream is not None}
        while process.returncode is None:
            ready = dict(self._poll([wake, gone, self._letterbox.fileno(), *streams]))
            for fd in [fd for fd in streams if fd in ready]:
                if not self._take(fd):
                    del streams[fd]
                    if fd == self._stdout and self._code is None:
                        self._close(CLOSE_GRACE)  # it has nothing more to say
            if wake in ready:
                for number in os.read(wake, CHUNK):
                    self._signalled(number)
            for name, text in self._letterbox.take_answers():
                self._answered(name, text)
            self._retry()
            self._flush()
            self._notice_silence()
            self._notice_muteness()
            if gone in ready:
                process.wait()
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._late()
        for fd in streams:
            self._drain(fd)
        self._log_own(self._lines.close() + self._errors.close())
        self._ended(process.returncode)

    # -- what happens --------------------------------------------------------------------------------------

    def _poll(self, fds: list[int]) -> list[tuple[int, int]]:
        poll = select.poll()
        stream_fds = fds[3:]
        for fd in fds[:3]:
            poll.register(fd, select.POLLIN)
        for fd in () if self._log.is_behind else stream_fds:
            poll.register(fd, select.POLLIN)
        stdin = self._process.stdin
        if self._unsent and stdin is not None and not stdin.closed:
            poll.register(stdin.fileno(), select.POLLOUT)
        times = [self._deadline, None if self._silence is None else self._silence[1]]
        times += [self._mute_at] if self._deadline is None else []
        waits = [max(0.0, at - time.monotonic()) for at in times if at is not None]
        waits += [RETRY_INTERVAL] if self._log.is_behind or self._unasked else []
        return poll.poll(min(waits) * 1000 + 1 if waits else None)

    def _take(self, fd: int) -> bool:
        """Take what a stream has; False at its end."""
        data = os.read(fd, CHUNK)
        if fd != self._stdout:
            logged, lines = self._errors.feed(data)
            self._log_own(logged)
            for line in lines:
                self._overhear(line)
            return bool(data)
        logged, lines = self._lines.feed(data)
        self._log.write(logged)
        for line in lines:
            self._hear(line)
        if self._lines.is_between and self._unlogged:
            self._log_own(b"")
        return bool(data)

    def _drain(self, fd: int) -> None:
        """Take what is left of a stream whose program is gone; somebody else may hold its other end for ever."""
        os.set_blocking(fd, False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(MOST_DRAINED):
                if not self._take(fd):
                    break

    def _notice_silence(self) -> None:
        if self._silence is not None and time.monotonic() >= self._silence[1]:
            _, _, then = self._silence
            self._silence = None
            then()

    def _notice_muteness(self) -> None:
        if self._mute_at is None or time.monotonic() < self._mute_at or self._deadline is not None:
            return
        after = self._requested if self._understood else ""
        words = of_the_mute(self._protocol, self._opening_limit, after, self._last_words)
        self.remark({"error": words})
        self.end(1)
        self._deadline = time.monotonic() + HURRIED_GRACE  # who says nothing has nothing to put away

    def _hear(self, line: bytes) -> None:
        if self._silence is not None and self._silence[0] is not None:
            self.when_silent(self._silence[0], self._silence[2])
        try:
            message = json.loads(line)
            if type(message) is dict:
                self._understood = True
                if self._mute_at is not None:
                    self._mute_at = time.monotonic() + self._opening_limit
                self._speaker.take(message)
                return
        except (ValueError, RecursionError):
            pass  # it is for those who read the log
        self._overhear(line)

    def _overhear(self, line: bytes) -> None:
        """Keep a line that is no message: it may say why there is none."""
        self._last_words = line.decode("utf-8", "replace").strip()[:MOST_WORDS] or self._last_words

    def _answered(self, name: str, text: str) -> None:
        key = self._keys.pop(name)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = {}
        self._speaker.answer(key, answer.get("behavior") == "allow", str(answer.get("reason", "")))

    def _signalled(self, number: int) -> None:
        if number not in SIGNALS:
            return
        again, self._signal = self._signal is not None, number
        if again or self._code is not None or not self._speaker.interrupt():
            self._close(HURRIED_GRACE)
        else:
            self._deadline = time.monotonic() + INTERRUPT_GRACE

    def _late(self) -> None:
        """A grace is over."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._close(HURRIED_GRACE)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, self._next_signal)
        self._next_signal = signal.SIGKILL
        self._deadline = time.monotonic() + HURRIED_GRACE

    def _ended(self, status: int) -> None:
        """The program is gone."""
        if self._code is None and self._signal is None:
            how = f"was killed by signal {-status}" if status < 0 else f"exited {status}"
            when = "before its turn began" if self._mute_at is not None else "in the middle of its turn"
            self._log_own(f"kasmos: the program {how} {when}\n".encode())
            self._code = 128 - status if status < 0 else status or 1
        while self._log.is_behind and self._signal is None:
            time.sleep(RETRY_INTERVAL)  # the disk is full, and nothing else is left to do
            self._log.flush()

    # -- what a speaker can do -----------------------------------------------------------------------------

    def send(self, message: Message, shown: Message | None = None) -> None:
        """See `Link`."""
        self._requested = str(message.get("method") or self._requested)
        self._unsent += json.dumps(message).encode() + b"\n"
        self._log_own(json.dumps({"dir": ">", "msg": shown or message}).encode() + b"\n")
        self._flush()

    def ask(self, key: Any, question: Mapping[str, Any]) -> None:
        """See `Link`."""
        if self._code is None:
            self._unasked.append((key, question))
            self._retry()

    def withdraw(self, key: Any) -> None:
        """See `Link`."""
        self._unasked = [one for one in self._unasked if one[0] != key]
        for name in [name for name, asked in self._keys.items() if asked == key]:
            self._withdraw(name)

    def when_silent(self, seconds: float, then: Callable[[], None]) -> None:
        """See `Link`."""
        self._silence = seconds, time.monotonic() + seconds, then

    def wait(self, seconds: float, why: str, then: Callable[[], None]) -> None:
        """See `Link`."""
        self._log_own(f"kasmos: {why}\n".encode())
        self._silence = None, time.monotonic() + seconds, then
        if self._mute_at is not None:
            self._mute_at = self._silence[1] + self._opening_limit

    def opened(self) -> None:
        """See `Link`."""
        self._mute_at = None

    def remark(self, said: Message) -> None:
        """See `Link`."""
        self._log_own(json.dumps({"dir": "=", "msg": said}).encode() + b"\n")

    @property
    def pid(self) -> int:
        """See `Link`."""
        return self._process.pid

    def end(self, code: int, words: str = "") -> None:
        """See `Link`."""
        if self._code is None:
            self._code = code
            if words:
                self._log_own(f"kasmos: {words}\n".encode())
            self._close(CLOSE_GRACE if self._signal is None else HURRIED_GRACE)

    # -- files and pipes -----------------------------------------------------------------------------------

    def _close(self, grace: float) -> None:
        """Nothing more is said to the program: it is to exit."""
        self._flush()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._deadline = time.monotonic() + grace

    def _retry(self) -> None:
        self._log.flush()
        while self._unasked:
            key, question = self._unasked[0]
            try:
                self._keys[self._letterbox.ask(question)] = key
            except OSError:
                return  # the disk is full
            self._unasked.pop(0)

    def _withdraw(self, name: str) -> None:
        del self._keys[name]
        with contextlib.suppress(OSError):  # it goes with the session
            self._letterbox.withdraw(name)

    def _flush(self) -> None:
        stdin = self._process.stdin
        if stdin is None or stdin.closed:
            self._unsent.clear()
            return
        try:
            while self._unsent:
                with memoryview(self._unsent) as view:
                    written = os.write(stdin.fileno(), view)
                del self._unsent[:written]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()  # it reads no more; its end is seen by itself

    def _log_own(self, data: bytes) -> None:
        """Log whole lines that are not the program's standard output, where they tear none of its lines."""
        if data:
            self._unlogged.append(data)
        if self._lines.is_between:
            self._log.write(b"".join(self._unlogged))
            self._unlogged.clear()


def of_the_mute(protocol: str, limit: float, after: str, last_words: str) -> str:
    """What is to be said of a program that keeps silent before its turn.

    Args:
        protocol: what it should speak.
        limit: seconds of silence.
        after: the request that it left without an answer; empty if it has never said anything.
        last_words: its last line that was no message.
    """
    words = f"it does not speak {protocol}: nothing came within {limit:g} s"
    if after:
        words = f"it left {after} without an answer: it said nothing for {limit:g} s"
    words += " (handshake_timeout)"
    return f"{words}; its last words: {last_words}" if last_words else f"{words}; it wrote nothing else"
