"""Scripts of the scripted backend: what a program does, fault by fault, as data.

A script is a value, written in a test or read from TOML, so that a test reads as a table. Nothing runs
here. In a plan it is a fenced block in the task's body, in which only what differs is said:

    ```toml scripted
    output = ["one\\n", { after = 0.5, text = "two\\n" }]
    exit = 3
    ```

An entry of `output` may also tell what an agent would tell of itself, so that budgets and accounts can be tried out:
`{ after = 1, usage = { input = 1000, output = 200, cost = 0.05 }, turns = 3 }`, with totals so far, and
`{ failure = { kind = "quota", message = "limit reached", retry_after = 60 } }`.

Keys: `output`, `duration`, `exit` (a code or "unknown"), `signal`, `last_words`, `ignores_terminate_for`,
`ends_on_terminate_with`, `unkillable`, `lost`, `start_fails`, `start_hangs`, `asks`; seconds are numbers, `inf` is one.
Several attempts are several `[[attempt]]` tables; the last holds for all that follow.
"""

from __future__ import annotations

import math
import re
import signal
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from kasmos.exceptions import ConfigError, Mistake
from kasmos.model.approval import Ask, AskKind, Meaning, Option
from kasmos.model.session import UNKNOWN_EXIT, ExitStatus, Leftover, SessionSpec
from kasmos.model.told import Told, render_told
from kasmos.model.usage import Failure, FailureKind, Usage, UsageSource
from kasmos.model.value import frozen


@frozen
class Fail:
    """The program cannot be started."""

    message: str
    after: float = 0.0
    """Seconds the attempt to start takes."""


@frozen
class Hang:
    """The start takes this long before the program runs; by default, for ever."""

    seconds: float = math.inf


@frozen
class NoRoom:
    """The disk has no room for the program."""


@frozen
class Truncate:
    """In the place of output: the program truncates its log, and all it wrote so far is lost."""


def _exit_status(value: ExitStatus | int) -> ExitStatus:
    return ExitStatus(code=value) if isinstance(value, int) else value


def _optional_exit_status(value: ExitStatus | int | None) -> ExitStatus | None:
    return None if value is None else _exit_status(value)


@frozen
class ScriptedAsk:
    """The program asks, and does nothing until it is answered; its other times are counted without that wait."""

    ask: Ask
    """Its identity is the machine's to give."""
    after: float = 0.0
    """Seconds since its start, or since the answer to the ask before."""
    on_allow: bytes = b""
    """Written when it may, or is answered."""
    on_deny: bytes = b""
    """Written when it may not."""
    deny_exit: ExitStatus | None = attrs.field(default=None, converter=_optional_exit_status)
    """How it ends when it may not; None means that it goes on."""
    gone_after: float = math.inf
    """Seconds after which somebody has answered it elsewhere."""


@frozen
class Script:
    """What one program does. By default: nothing, successfully, at once."""

    output: tuple[tuple[float, bytes | Truncate], ...] = ()
    """What is written, each after so many seconds since the one before (the first: since the start)."""
    exit: ExitStatus = attrs.field(default=ExitStatus(code=0), converter=_exit_status)
    """How it ends if left alone; a number is an exit code."""
    duration: float | None = None
    """Seconds until it ends if left alone; None means right after its last output, `math.inf` never."""
    start: Fail | Hang | NoRoom | None = None
    """What is wrong with its start."""
    last_words: bytes = b""
    """Written when it ends because it was asked to."""
    ignores_terminate_for: float = 0.0
    """Seconds from the first polite signal to its end; `math.inf` leaves it to SIGKILL."""
    ends_on_terminate_with: ExitStatus | None = attrs.field(default=None, converter=_optional_exit_status)
    """How it ends when asked to; None means by the signal it was sent."""
    unkillable: bool = False
    """Whether it survives SIGKILL, as a program that waits for a dead disk does."""
    lost: float | None = None
    """Seconds after which its fate can no longer be learnt."""
    leftovers: tuple[Leftover, ...] = ()
    """What outlives it and is reported when it has ended."""
    asks: tuple[ScriptedAsk, ...] = ()
    """What it asks, one after the other."""


def script_from_spec(spec: SessionSpec) -> Script:
    """Find the script a session's own words hold: how `execution_mode = "scripted"` works.

    It is the first `toml scripted` block of the prompt, else the file that the profile's program
    names (`program = "tests/agent.toml"`), else a rehearsal: one line that says what would have run, then exit 0.

    Raises:
        ConfigError: the block or the file is wrong; with every mistake.
    """
    block = _fenced_script(spec.prompt)
    program = spec.argv[0] if spec.argv else ""
    if block is not None:
        scripts = parse_scripts(block, f"script of {spec.name}")
    elif program.endswith(".toml"):
        path = Path(spec.cwd, program)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([Mistake(str(path), f"the script cannot be read: {error}")]) from error
        scripts = parse_scripts(text, str(path))
    else:
        scripts = (Script(output=((0.0, f"rehearsal: {program} would have run\n".encode()),)),)
    return scripts[min(spec.attempt, len(scripts)) - 1]


def parse_scripts(text: str, place: str) -> tuple[Script, ...]:
    """Read a script, or one per attempt, from TOML.

    Raises:
        ConfigError: every mistake, each under *place* with its key.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Mistake(place, str(error))]) from error
    tables = document.pop("attempt", None)
    if tables is None:
        tables = [document]
    elif document or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problem = "[[attempt]] tables hold the whole script"
        raise ConfigError([Mistake(f"{place}: attempt", problem, "no other keys beside them")])
    mistakes: list[Mistake] = []
    scripts = tuple(_parse_script(table, place, mistakes) for table in tables)
    if mistakes:
        raise ConfigError(mistakes)
    return scripts


def _fenced_script(text: str) -> str | None:
    """The first fenced block marked `toml scripted` that is not itself inside another fence."""
    fence = ""
    wanted: list[str] | None = None
    for line in text.splitlines():
        match = re.match(r"\s*(`{3,}|~{3,})\s*(.*?)\s*$", line)
        if not fence:
            if match:
                fence = match[1]
                wanted = [] if match[2].split() == ["toml", "scripted"] else None
        elif match and match[1].startswith(fence) and not match[2]:
            if wanted is not None:
                return "\n".join(wanted)
            fence = ""
        elif wanted is not None:
            wanted.append(line)
    return None if wanted is None else "\n".join(wanted)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError("seconds, 0 or more")
    return float(value)


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("a text")
    return value.encode()


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _exit(value: Any) -> ExitStatus:
    if value == "unknown":
        return UNKNOWN_EXIT
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
        raise ValueError('a code from 0 to 255, or "unknown"')
    return ExitStatus(code=value)


def _signal(value: Any) -> ExitStatus:
    try:
        return ExitStatus(signal=signal.Signals[value] if isinstance(value, str) else signal.Signals(value))
    except (KeyError, ValueError, TypeError):
        raise ValueError('a signal, such as "SIGKILL" or 9') from None


def _output(value: Any) -> tuple[tuple[float, bytes | Truncate], ...]:
    if not isinstance(value, list):
        raise ValueError("a list of texts and tables")
    return tuple(_output_item(item) for item in value)


def _output_item(item: Any) -> tuple[float, bytes | Truncate]:
    if isinstance(item, str):
        return 0.0, item.encode()
    if isinstance(item, dict) and item.keys() <= {"after", "text"} and "text" in item:
        return _seconds(item.get("after", 0)), _text(item["text"])
    if isinstance(item, dict) and item.keys() <= {"after", "truncate"} and item.get("truncate") is True:
        return _seconds(item.get("after", 0)), Truncate()
    if isinstance(item, dict) and item.keys() <= {"after", *_TELL_KEYS} and item.keys() & _TELL_KEYS:
        return _seconds(item.get("after", 0)), render_told(_told(item))
    raise ValueError('each a text, { after = 0.5, text = "..." } or { after = 0.5, truncate = true }')


_TELL_KEYS = frozenset({"usage", "turns", "failure"})
_USAGE_KEYS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cached": "cached_tokens",
    "reasoning": "reasoning_tokens",
    "cost": "cost_usd",
}


def _told(item: Mapping[str, Any]) -> Told:
    turns = item.get("turns", 0)
    if isinstance(turns, bool) or not isinstance(turns, int) or turns < 0:
        raise ValueError("turns: a whole number, 0 or more")
    usage = _usage(item["usage"]) if "usage" in item else None
    return Told(usage, turns, _failure(item["failure"]) if "failure" in item else None)


def _usage(value: Any) -> Usage:
    if not isinstance(value, dict) or not value.keys() <= _USAGE_KEYS.keys():
        raise ValueError(f"usage: a table of {', '.join(_USAGE_KEYS)}")
    for key, number in value.items():
        whole = isinstance(number, int) or key == "cost"
        if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0 or not whole:
            raise ValueError(f"usage.{key}: {'USD' if key == 'cost' else 'a whole number of tokens'}, 0 or more")
    said = {_USAGE_KEYS[key]: number for key, number in value.items()}
    return Usage(**said, source=UsageSource.REPORTED, cost_source=UsageSource.REPORTED)


def _failure(value: Any) -> Failure:
    keys = {"kind", "message", "retry_after"}
    if not isinstance(value, dict) or not value.keys() <= keys or "kind" not in value:
        raise ValueError('failure: a table such as { kind = "quota", message = "limit reached", retry_after = 60 }')
    after = _seconds(value["retry_after"]) if "retry_after" in value else None
    return Failure(FailureKind(value["kind"]), _text(value.get("message", "")).decode(), retry_after=after)


_ASK_KEYS: Mapping[str, Callable[[Any], Any]] = {
    "after": _seconds,
    "kind": AskKind,
    "tool": lambda value: _text(value).decode(),
    "command": lambda value: _text(value).decode(),
    "path": lambda value: _text(value).decode(),
    "text": lambda value: _text(value).decode(),
    "options": lambda value: _options(value),
    "on_allow": _text,
    "on_deny": _text,
    "deny_exit": _exit,
    "gone_after": _seconds,
}


def _options(value: Any) -> tuple[Option, ...]:
    if not isinstance(value, list):
        raise ValueError("a list of options")
    return tuple(_option(item) for item in value)


def _option(item: Any) -> Option:
    if isinstance(item, dict) and item.keys() <= {"label", "meaning"} and "label" in item:
        return Option(_text(item["label"]).decode(), Meaning(item.get("meaning", "other")))
    raise ValueError('each { label = "Yes", meaning = "allow_once" }; other meanings: allow_always, deny, other')


def _asks(value: Any) -> tuple[ScriptedAsk, ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError('a list of tables, such as { after = 0.5, tool = "Bash", command = "rm x" }')
    return tuple(_ask(item) for item in value)


def _ask(item: Mapping[str, Any]) -> ScriptedAsk:
    if unknown := [key for key in item if key not in _ASK_KEYS]:
        raise ValueError(f"{', '.join(unknown)} is no key of an ask; its keys are {', '.join(_ASK_KEYS)}")
    said = {}
    for key, value in item.items():
        try:
            said[key] = _ASK_KEYS[key](value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    of_ask = {key: said.pop(key) for key in ("kind", "tool", "command", "path", "text", "options") if key in said}
    return ScriptedAsk(Ask(identity="", evidence="scripted", **of_ask), **said)


_KEYS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "output": ("output", _output),
    "duration": ("duration", _seconds),
    "exit": ("exit", _exit),
    "signal": ("exit", _signal),
    "last_words": ("last_words", _text),
    "ignores_terminate_for": ("ignores_terminate_for", _seconds),
    "ends_on_terminate_with": ("ends_on_terminate_with", _exit),
    "unkillable": ("unkillable", _flag),
    "lost": ("lost", _seconds),
    "asks": ("asks", _asks),
    "start_fails": ("start", lambda value: Fail(_text(value).decode())),
    "start_hangs": ("start", lambda value: Hang(_seconds(value))),
}


def _parse_script(table: Mapping[str, Any], place: str, mistakes: list[Mistake]) -> Script:
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _KEYS:
            mistakes.append(Mistake(f"{place}: {key}", "unknown key", f"one of {', '.join(_KEYS)}"))
            continue
        field, read = _KEYS[key]
        if field in found:
            mistakes.append(Mistake(f"{place}: {key}", "said twice in different words"))
            continue
        try:
            found[field] = read(value)
        except ValueError as error:
            mistakes.append(Mistake(f"{place}: {key}", f"{value!r} does not fit", str(error)))
    return Script(**found)
