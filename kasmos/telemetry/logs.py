"""The daemon's own log: structured lines to standard error, or to a file that is kept from growing.

It tells what happened and to whom, by ids. Never what an agent wrote, never a prompt, never a secret.
The one module that imports structlog.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from kasmos.model import event as ev
from kasmos.model.event import Event, Record


@contextmanager
def _kept_out(name: str) -> Iterator[None]:
    """Have imports not find this package, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # which is how an import is told that there is none
    try:
        yield
    finally:
        del sys.modules[name]


# structlog takes rich, where it is installed, to show local variables in tracebacks. Those may be secrets, so we show
# none; and that is sixty modules which a daemon would wait for.
with _kept_out("rich"):
    import structlog

MAX_BYTES = 10 * 1024 * 1024
"""Bytes of a log file; then a new one is begun."""
KEPT = 3
"""How many earlier files are kept: `daemon.log.1` is the newest of them."""

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def file_names(path: Path) -> list[Path]:
    """The log's newest file, then the earlier ones that are kept, newest first."""
    return [path, *(path.with_name(f"{path.name}.{n}") for n in range(1, KEPT + 1))]


class LogFile:
    """A file that is written line by line and begun anew when it has grown. A disk that takes nothing loses lines.

    Args:
        path: the file.
        streams: descriptors that follow it: what is written to them lands in the newest file.
        max_bytes: how much is written to one file.
    """

    def __init__(self, path: Path, *, streams: tuple[int, ...] = (), max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._streams = streams
        self._max_bytes = max_bytes
        self._descriptor = -1
        self._open()

    def write(self, text: str) -> int:
        """Append *text*."""
        data = text.encode(errors="backslashreplace")
        try:
            if os.fstat(self._descriptor).st_size + len(data) > self._max_bytes:
                self._begin_anew()
            os.write(self._descriptor, data)
        except OSError:
            # A log that cannot be written must not end what it tells of.
            return 0
        return len(text)

    def flush(self) -> None:
        """Do nothing: every line is written at once."""

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.close()
        self._descriptor = descriptor
        for stream in self._streams:
            os.dup2(descriptor, stream)

    def _begin_anew(self) -> None:
        names = file_names(self._path)
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)
        self._open()


def configure_log(*, form: str, level: str, file: LogFile | None = None) -> None:
    """Send the log of this process to *file*, or to standard error.

    Args:
        form: `json`, `console`, or `auto`: console on a terminal, else JSON.
        level: `debug`, `info`, `warning` or `error`.
        file: where to.
    """
    stream = cast(TextIO, file) if file is not None else sys.stderr
    terminal = file is None and sys.stderr.isatty()
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "json" or (form == "auto" and not terminal):
        # Tracebacks without local variables: those may be secrets.
        traces = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors += [structlog.processors.ExceptionRenderer(traces), structlog.processors.JSONRenderer(default=repr)]
    else:
        plain = structlog.dev.plain_traceback
        processors.append(structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=plain))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Handler()]
    root.setLevel(_LEVELS[level])


class _Handler(logging.Handler):
    """What libraries log, as lines of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger().bind(logger=record.name)
        log.log(record.levelno, record.getMessage(), exc_info=record.exc_info)


class Log:
    """The log of one daemon; ids that all of its lines have are bound once.

    Args:
        bound: such as the state root.
    """

    def __init__(self, **bound: object) -> None:
        self._log = structlog.get_logger().bind(**bound)

    def info(self, event: str, **fields: object) -> None:
        """Say what happened."""
        self._log.info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        """Say what somebody should know."""
        self._log.warning(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        """Say what went wrong."""
        self._log.error(event, **fields)

    def record(self, record: Record) -> None:
        """Say what the journal has recorded."""
        event = record.event
        say = self._log.warning if isinstance(event, _BAD) else self._log.info
        say(_words(type(event).__name__), seq=record.seq, **_fields(event))


_BAD = (ev.SessionLost, ev.SessionUnkillable, ev.SessionStartFailed, ev.OutputLost)
_TOLD = ("run_id", "task_id", "session_id", "outcome", "wave", "attempt", "pid", "reason", "name", "kind", "profile")
"""Fields that are told. An event's other ones may hold what an agent wrote, or a plan."""


def _fields(event: Event) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name in _TOLD:
        value = getattr(event, name, None)
        if value is not None and value != "":
            fields[name] = str(value) if not isinstance(value, int) else value
    cause = getattr(event, "cause", None)
    if cause is not None:
        fields["cause"] = str(cause.kind)
    ended = getattr(event, "exit", None)
    if ended is not None:
        fields["exit"] = str(ended)
    return fields


def _words(name: str) -> str:
    """`SessionStarted` as `session started`."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
