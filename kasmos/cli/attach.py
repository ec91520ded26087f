"""`kas attach`: sit down at an agent. This process becomes tmux; the supervisor is not needed for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kasmos.cli.context import Place, complete, live_session_names, note, place_of

if TYPE_CHECKING:
    from kasmos.model.view import SessionView
    from kasmos.sessions.tmux import Place as TmuxPlace

_PREFIX = re.compile(
    r"^\s*set(?:-option)?\s+(?:-g\s+)?(?:-g\s+)?prefix\s+[\"']?([CM]-(?:\S|Space)|\^\S|F\d+|`)[\"']?\s*(?:#.*)?$", re.M
)
_OUR_PREFIX = "C-b"


@click.command("attach")
@click.argument("name", shell_complete=complete(live_session_names))
@click.option("-r", "--read-only", is_flag=True, help="Only look: keys do nothing, but for those that detach.")
@click.option("--now", is_flag=True, help="Of a headless agent: interrupt its turn, instead of waiting for its end.")
@click.option("-y", "--yes", is_flag=True, help="Of a headless agent: take it over without being asked.")
@click.pass_context
def attach(ctx: click.Context, name: str, read_only: bool, now: bool, yes: bool) -> None:
    """Sit down at the agent NAME, which runs in tmux; several people may.

    ctrl-b d, or your own tmux prefix and d, leaves again: the agent goes on. So it does when the terminal is closed.

    Of an agent that runs headless, and whose program can resume, the conversation is opened in tmux when its turn has
    ended, after a question; `kas detach` hands it back.
    """
    from kasmos.cli import takeover
    from kasmos.exceptions import InteractiveOnlyError, SupervisionError
    from kasmos.model.profile import ExecutionMode
    from kasmos.model.view import Ended
    from kasmos.store.lookup import find_session

    place = place_of(ctx)
    world = place.read_world()
    session = find_session(world, name)
    task = takeover.task_of(world, session)
    opens = session.backend is not ExecutionMode.TMUX or (session.attended and not session.state.live)
    if opens and task is not None and not isinstance(task.state, Ended):
        if read_only:
            how = f"`kas logs -f {session.name}` shows what it does, `kas attach` without -r takes it over"
            raise InteractiveOnlyError(f"{session.name} runs {session.backend}: there is no terminal to look at; {how}")
        session = takeover.take_over(place, world, task, now=now, yes=yes)
    if session.backend is not ExecutionMode.TMUX:
        how = f"`kas logs -f {session.name}` shows what it writes"
        if task is not None and session.conversation:
            how = f"`kas submit --continue {task.id} TEXT` goes on with its conversation, {how}"
        raise InteractiveOnlyError(f"{session.name} runs {session.backend}: it has no terminal to attach to; {how}")
    if not session.state.live:
        how = f"`kas capture {session.name}` shows its last screen"
        raise SupervisionError(f"{session.name} has ended: there is nothing to attach to; {how}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        how = f"`kas capture {session.name}` prints its screen, `kas send` types into it"
        raise SupervisionError(f"kas attach needs a terminal on its standard input and output; {how}")
    server = _server(place, session)
    prefix = user_prefix(place.environ)
    _refuse_nesting(server, session, place.environ)
    _say_how_to_leave(place.environ, prefix)
    sys.stdout.flush()
    environ = {key: value for key, value in place.environ.items() if key not in ("TMUX", "TMUX_PANE")}
    command = attach_command(server, session.id, prefix, read_only=read_only)
    if session.attended and not read_only:
        subprocess.run(command, env=environ, check=False)  # tmux, as it was found
        takeover.tell_after(place, session, still_open=_is_open(server, session))
        return
    os.execve(command[0], command, environ)  # noqa: S606  # that is the point: this terminal becomes tmux's


def attach_command(server: TmuxPlace, session_id: str, prefix: str, *, read_only: bool) -> list[str]:
    """The command line that enters, with the person's own prefix beside tmux's."""
    from kasmos.sessions.tmux_launch import tmux_name

    name = tmux_name(session_id)
    command = server.attach_command(name, read_only=read_only)
    if prefix == _OUR_PREFIX:
        return command
    at = command.index("attach-session")
    return [*command[:at], "set-option", "-q", "-t", f"={name}:", "prefix2", prefix, ";", *command[at:]]


def user_prefix(environ: Mapping[str, str]) -> str:
    """The prefix key in the person's own tmux configuration, as far as it is said there in so many words."""
    home = environ.get("HOME", "/nowhere")
    config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    found = _OUR_PREFIX
    for path in (Path(home, ".tmux.conf"), Path(config, "tmux", "tmux.conf")):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found = (_PREFIX.findall(text) or [found])[-1]
    return found


def _server(place: Place, session: SessionView) -> TmuxPlace:
    """The tmux server the session runs in.

    Raises:
        SupervisionError: it is not there.
        BackendUnavailableError: tmux is missing or too old.
    """
    from kasmos.exceptions import SupervisionError
    from kasmos.sessions import tmux

    socket = tmux.socket_path(place.root.path, place.environ.get("XDG_RUNTIME_DIR"))
    token = place.root.path / "tmux" / "token"
    binary = tmux.find_binary(place.environ.get("PATH"))
    if socket.exists() and token.exists():
        server = tmux.Place(os.path.abspath(binary), str(socket), token.read_text().strip())
        if _is_open(server, session):
            return server
    cure = "it is just beginning, or ending" if place.supervisor_pid() is not None else "`kas resume` records its end"
    raise SupervisionError(f"{session.name} has no terminal at present: {cure}")


def _is_open(server: TmuxPlace, session: SessionView) -> bool:
    """Whether the session has its terminal."""
    from kasmos.sessions import tmux
    from kasmos.sessions.tmux_launch import tmux_name

    return any(one.ours and one.name == tmux_name(session.id) for one in tmux.list_sessions(server))


def _refuse_nesting(server: TmuxPlace, session: SessionView, environ: Mapping[str, str]) -> None:
    """Refuse to show a tmux server inside of itself."""
    from kasmos.exceptions import SupervisionError
    from kasmos.sessions.tmux_launch import tmux_name

    around = environ.get("TMUX", "").split(",")[0]
    if around and os.path.realpath(around) == os.path.realpath(server.socket):
        switch = f"tmux -S {server.socket} switch-client -t ={tmux_name(session.id)}"
        raise SupervisionError(f"this terminal is inside the same tmux server already: `{switch}` goes there")


def _say_how_to_leave(environ: Mapping[str, str], prefix: str) -> None:
    """Where another tmux is around, it takes the prefix first."""
    if environ.get("TMUX"):
        key = prefix.replace("C-", "ctrl-")
        note(f"inside another tmux: {key} {key} d leaves the agent, {key} d your own session")
