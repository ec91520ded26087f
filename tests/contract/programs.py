"""Programs of the contract suite: each a real one from `tests/programs`, and the script that does the same."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import attrs

from kasmos.model.approval import Ask
from kasmos.model.session import ExitStatus
from kasmos.sessions.script import Fail, Script, ScriptedAsk, Truncate

FOLDER = Path(__file__).parent.parent / "programs"


@attrs.frozen
class Program:
    """What a session runs, in words of every backend."""

    argv: tuple[str, ...]
    script: Script

    @property
    def name(self) -> str:
        return Path(self.argv[0]).name


def _program(name: str, *arguments: str, script: Script) -> Program:
    return Program((str(FOLDER / name), *arguments), script)


def _says(text: bytes) -> tuple[tuple[float, bytes], ...]:
    return ((0.0, text),)


def numbered(lines: int) -> bytes:
    """Lines of eight bytes that tell their own offset."""
    return b"".join(b"%07d\n" % (8 * i) for i in range(lines))


def echo(text: str) -> Program:
    return _program("echo", text, script=Script(output=_says(text.encode() + b"\n")))


def chatty(lines: int) -> Program:
    return _program("chatty", str(lines), script=Script(output=_says(numbered(lines))))


def ticker(lines: int) -> Program:
    return _program(
        "ticker",
        str(lines),
        script=Script(output=tuple((0.02, b"%07d\n" % (8 * i)) for i in range(lines))),
    )


def crasher(status: int | str) -> Program:
    how = ExitStatus(code=status) if isinstance(status, int) else ExitStatus(signal=signal.Signals[f"SIG{status}"])
    return _program("crasher", str(status), script=Script(output=_says(b"crashing\n"), exit=how))


WAITER = _program("waiter", script=Script(output=_says(b"ready\n"), duration=math.inf))
PROMPTER = _program(
    "prompter",
    script=Script(output=_says(b"ready\n"), asks=(ScriptedAsk(Ask("", text="Go on?")),), duration=math.inf),
)
SILENT = _program("silent", script=Script(duration=math.inf))
STUBBORN = _program(
    "stubborn", script=Script(output=_says(b"ready\n"), duration=math.inf, ignores_terminate_for=math.inf)
)
LAST_WORDS = _program(
    "last_words",
    script=Script(
        output=_says(b"ready\n"), duration=math.inf, last_words=b"last words\n", ends_on_terminate_with=ExitStatus(3)
    ),
)
BINARY = _program("binary", script=Script(output=_says(b"a\x00b\xff\xfec\xc3")))
NO_NEWLINE = _program("nonewline", script=Script(output=_says(b"no newline")))
TRUNCATOR = _program(
    "truncator",
    script=Script(
        output=((0.0, b"before\n"), (0.01, Truncate()), (0.0, b"after\n")), asks=(ScriptedAsk(Ask("", command="go")),)
    ),
)
"""Goes on when it is let: the real one by a file, `go`, the scripted one by an answer."""
MISSING = _program("no_such_program", script=Script(start=Fail("there is no such program")))
