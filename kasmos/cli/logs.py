"""`kas logs`: what a session wrote, as its agent means it or byte for byte."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from kasmos.cli.context import Place, complete, note, place_of, session_names
from kasmos.cli.newest import newest_lines

if TYPE_CHECKING:
    from kasmos.cli.outlet import Outlet
    from kasmos.model.view import SessionView
    from kasmos.sessions.launch import Records
    from kasmos.sessions.output import LogFile

PIECE = 262_144
"""Bytes that are read at once."""
WAIT = 30.0
"""Seconds the supervisor is asked to wait for more."""
LOOK_INTERVAL = 0.1
"""Seconds between two looks at the file where there is no supervisor to ask."""
START_PATIENCE = 5.0
"""Seconds a program without a supervisor has to appear."""
DRAIN_PATIENCE = 1.0
"""Seconds after its end in which its last output is waited for."""


@click.command("logs")
@click.argument("name", shell_complete=complete(session_names))
@click.option("-f", "--follow", is_flag=True, help="Go on while it writes, until it ends.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Begin with the last N lines.")
@click.option("--since", type=click.IntRange(0), metavar="OFFSET", help="Begin at this byte of the output.")
@click.option("--rendered", is_flag=True, help="What the agent said and did, and what it came to.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON lines.")
@click.option("--raw", is_flag=True, help="What was written, byte for byte.")
@click.pass_context
def logs(
    ctx: click.Context,
    name: str,
    follow: bool,
    tail: int | None,
    since: int | None,
    rendered: bool,
    as_json: bool,
    raw: bool,
) -> None:
    """Print what session NAME wrote, stdout and stderr together.

    NAME is a session's name or id, or a task; the newest session is meant. Of an agent whose stream of events is
    known it is what the agent said and did, with tool calls folded and usage at the end; of all others, and with
    --raw, --tail or --since, it is every byte. Offsets count every byte since the session began, also those that a
    bounded log has given up.
    """
    if tail is not None and since is not None:
        raise click.UsageError("--tail and --since exclude each other", ctx)
    if (rendered or as_json) and (raw or tail is not None or since is not None):
        raise click.UsageError("--rendered and --json tell the whole transcript: without --raw, --tail, --since", ctx)
    from kasmos.cli.outlet import Bytes, Told
    from kasmos.exceptions import StoreError
    from kasmos.sessions.output import LogFile
    from kasmos.store.lookup import find_session

    place = place_of(ctx)
    session = find_session(place.read_world(), name)
    log = LogFile(place.root.session_dir(session.id))
    told = bool(rendered or as_json or (session.harness and not raw and tail is None and since is None))
    outlet = Told(place, session, as_json=as_json) if told else Bytes()
    try:
        offset = _tail_offset(log, tail) if tail is not None else log.base if told else since or 0
        offset = _copy(log, offset, outlet)
    except FileNotFoundError:
        if not session.state.live:
            raise _gone(session) from None
        offset = since or 0
    except PermissionError as error:
        raise StoreError(f"the output of session {session.id} cannot be read: {error.strerror}") from error
    if session.state.live:
        rest: int | None = offset
        if follow and place.supervisor_pid() is not None:
            rest = _follow(place, session, log, offset, outlet)
        if rest is not None and place.supervisor_pid() is None:
            _without_supervisor(place, session, log, rest, outlet, follow=follow)
        session = place.read_world().sessions.get(session.id, session) if follow else session
    outlet.end(session)


def _tail_offset(log: LogFile, lines: int) -> int:
    return newest_lines(lambda offset, size: log.read(offset, size).data, lines, base=log.base, end=log.end)


def _copy(log: LogFile, offset: int, outlet: Outlet) -> int:
    """Print the log from *offset* to its end; where the end is."""
    while True:
        chunk = log.read(offset, PIECE)
        _tell_lost(chunk.lost, chunk.offset)
        if not chunk.data:
            return max(offset, chunk.offset)
        outlet.take(chunk.data)
        offset = chunk.end


def _follow(place: Place, session: SessionView, log: LogFile, offset: int, outlet: Outlet) -> int | None:
    """Print what the supervisor gives us until the session has ended; where it broke off, if it did."""
    from kasmos.exceptions import ClientError

    try:
        supervisor = place.reach()
        while True:
            piece = supervisor.read_output(session.id, offset, limit=PIECE, wait=WAIT)
            _tell_lost(piece.lost, piece.offset)
            outlet.take(piece.data)
            offset = piece.next_offset
            if piece.ended:
                return None
    except ClientError as error:
        # Nobody tells us of more. What has been written meanwhile is in the file.
        try:
            offset = _copy(log, offset, outlet)
        except FileNotFoundError:
            raise _gone(session) from None
        note(f"{error}; this is the output so far")
        return offset


def _without_supervisor(
    place: Place, session: SessionView, log: LogFile, offset: int, outlet: Outlet, *, follow: bool
) -> None:
    """Print the file from *offset* on, if *follow* until the program has ended, and say what has become of it."""
    from kasmos.cli.found import look_around
    from kasmos.sessions.launch import Records

    found = look_around(place, place.read_world()).get(session.id)
    if follow and found is not None and found.fate.at_work:
        note("supervisor is not running; the program is, and its output is followed until it ends")
        offset = _read_along(Records(str(place.root.session_dir(session.id))), log, offset, outlet)
        found = look_around(place, place.read_world()).get(session.id)
    with suppress(FileNotFoundError):  # a session that is just being started
        _copy(log, offset, outlet)
    if found is not None:
        so_far = "; this is the output so far" if found.fate.at_work else ""
        note(f"session {session.id}: {found}{so_far}")


def _read_along(records: Records, log: LogFile, offset: int, outlet: Outlet) -> int:
    """Print what is written until the program has ended; where that is."""
    from kasmos.sessions.processes import is_alive

    patience = drained = time.monotonic() + START_PATIENCE
    while True:
        program, copier = records.program(), records.copier()
        runs = is_alive(program) if program is not None else time.monotonic() < patience
        if runs:
            drained = time.monotonic() + DRAIN_PATIENCE
        # What stands between the program and the file writes a little longer; what it has left behind may for ever.
        writing = runs or (copier is not None and is_alive(copier) and time.monotonic() < drained)
        with suppress(FileNotFoundError):
            offset = _copy(log, offset, outlet)
        if not writing:
            return offset
        time.sleep(LOOK_INTERVAL)


def _tell_lost(lost: int, offset: int) -> None:
    if lost:
        note(f"{lost} bytes before offset {offset} are gone")


def _gone(session: SessionView) -> Exception:
    from kasmos.exceptions import StoreError

    return StoreError(f"the output of session {session.id} is gone: it never began, or `kas gc` has removed it")
