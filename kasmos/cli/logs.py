"""`kas logs`: what a session wrote, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kasmos.cli.context import Place, complete, note, place_of, put, session_names

if TYPE_CHECKING:
    from kasmos.model.view import SessionView
    from kasmos.sessions.output import LogFile

PIECE = 262_144
"""Bytes that are read at once."""
WAIT = 30.0
"""Seconds the supervisor is asked to wait for more."""


@click.command("logs")
@click.argument("name", shell_complete=complete(session_names))
@click.option("-f", "--follow", is_flag=True, help="Go on while it writes, until it ends.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Begin with the last N lines.")
@click.option("--since", type=click.IntRange(0), metavar="OFFSET", help="Begin at this byte of the output.")
@click.pass_context
def logs(ctx: click.Context, name: str, follow: bool, tail: int | None, since: int | None) -> None:
    """Print what session NAME wrote, stdout and stderr together, byte for byte.

    NAME is a session's name or id, or a task; the newest session is meant. Offsets count every byte since
    the session began, also those that a bounded log has given up.
    """
    if tail is not None and since is not None:
        raise click.UsageError("--tail and --since exclude each other", ctx)
    from kasmos.exceptions import StoreError
    from kasmos.sessions.output import LogFile
    from kasmos.store.lookup import find_session

    place = place_of(ctx)
    session = find_session(place.read_world(), name)
    log = LogFile(place.root.session_dir(session.id))
    try:
        offset = tail_offset(log, tail) if tail is not None else since or 0
        offset = _copy(log, offset)
    except FileNotFoundError:
        if not session.state.live:
            raise _gone(session) from None
        offset = since or 0
    except PermissionError as error:
        raise StoreError(f"the output of session {session.id} cannot be read: {error.strerror}") from error
    if follow and session.state.live:
        _follow(place, session, log, offset)
    elif session.state.live and place.supervisor_pid() is None:
        note("supervisor is not running: this is the output so far")


def tail_offset(log: LogFile, lines: int) -> int:
    """Where the last *lines* lines begin, as `tail -n` counts them.

    Raises:
        OSError: the log cannot be read.
    """
    base, end = log.base, log.end
    if lines == 0:
        return end
    # A newline at the very end ends the last line and begins none.
    at = end - 1 if end > base and log.read(end - 1, 1).data == b"\n" else end
    while at > base:
        begin = max(base, at - PIECE)
        data = log.read(begin, at - begin).data
        found = len(data)
        while (found := data.rfind(b"\n", 0, found)) != -1:
            lines -= 1
            if lines == 0:
                return begin + found + 1
        at = begin
    return base


def _copy(log: LogFile, offset: int) -> int:
    """Print the log from *offset* to its end; where the end is."""
    while True:
        chunk = log.read(offset, PIECE)
        _tell_lost(chunk.lost, chunk.offset)
        if not chunk.data:
            return max(offset, chunk.offset)
        put(chunk.data)
        offset = chunk.end


def _follow(place: Place, session: SessionView, log: LogFile, offset: int) -> None:
    from kasmos.exceptions import ClientError

    try:
        supervisor = place.reach()
        while True:
            piece = supervisor.read_output(session.id, offset, limit=PIECE, wait=WAIT)
            _tell_lost(piece.lost, piece.offset)
            put(piece.data)
            offset = piece.next_offset
            if piece.ended:
                return
    except ClientError as error:
        # Nobody tells us of more. What has been written meanwhile is in the file.
        try:
            _copy(log, offset)
        except FileNotFoundError:
            raise _gone(session) from None
        note(f"{error}; this is the output so far")


def _tell_lost(lost: int, offset: int) -> None:
    if lost:
        note(f"{lost} bytes before offset {offset} are gone")


def _gone(session: SessionView) -> Exception:
    from kasmos.exceptions import StoreError

    return StoreError(f"the output of session {session.id} is gone: it never began, or `kas gc` has removed it")
