"""`kas daemon start`, `stop`, `status`, `reload`."""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from kasmos.cli.context import Place, note, place_of, say
from kasmos.exceptions import ClientError, ConfigError, Mistake, RequestError, StoreError

if TYPE_CHECKING:
    from kasmos.cli.daemon.background import Pipe
    from kasmos.cli.request import Place as FullPlace
    from kasmos.daemon.held import Held

LOG = "daemon.log"
"""The log of a daemon in the background, in the state root."""
STOP_PATIENCE = 60.0
"""Seconds that a plain stop may take before we stop waiting for it; programs get their grace in it."""
_SECRET = ("http_admin_token", "http_readonly_token")


# --- start ------------------------------------------------------------------------------


def start(ctx: click.Context, state_root: str | None, said: Mapping[str, Any], *, foreground: bool) -> int:
    """Start the daemon, here or in the background; the exit status.

    Raises:
        KasmosError: it cannot be started.
    """
    from kasmos.cli.daemon.background import Pipe

    if state_root is not None:
        ctx.find_root().params["state_root"] = state_root
    # Paths on the command line are meant from where the person stands, those in a file from the project.
    said = {name: _from_here(name, value) for name, value in said.items() if value is not None}
    environ = dict(os.environ)
    pipe = Pipe.take(environ)
    try:
        place, held = _prepare(ctx, environ, said)
        if foreground:
            return _stand(place, held, pipe)
        return _start_in_background(place, said)
    except BaseException as error:
        _pass_on(pipe, error)
        raise


def _from_here(name: str, value: Any) -> Any:
    return os.path.abspath(value) if name in ("socket", "workspace_root") or name.endswith("_file") else value


_ELSEWHERE = {"budget_daily": "budgets.daily"}
"""Flags that set keys of other tables than `[daemon]`."""


def _prepare(ctx: click.Context, environ: dict[str, str], said: Mapping[str, Any]) -> tuple[FullPlace, Held]:
    from kasmos.cli.request import Place
    from kasmos.config.load import load_config, locate_project
    from kasmos.daemon.held import Held
    from kasmos.store.stateroot import find_state_root

    options = ctx.find_root().params
    project = locate_project(options.get("project"))
    flags = {_ELSEWHERE.get(name, f"daemon.{name}"): value for name, value in said.items()}
    held = Held(lambda: load_config(project, environ=environ, flags=flags))
    _require_workspace(project, held.config.daemon.workspace_root)
    root = find_state_root(
        project, environ=environ, override=options.get("state_root"), configured=held.config.state_root
    )
    socket = held.config.daemon.socket
    if socket is not None:
        root = attrs.evolve(root, socket_wanted=(project / socket).absolute())
    return Place(project, root, environ, held.warnings), held


def _require_workspace(project: Path, said: str | None) -> None:
    """Refuse a place for tasks that is not there: each of them would be accepted, and fail."""
    if said is None or (project / said).is_dir():
        return
    problem = f"there is no directory {project / said}"
    raise ConfigError([Mistake("daemon.workspace_root", problem, "make it, or name one that is there")])


def _stand(place: FullPlace, held: Held, pipe: Pipe) -> int:
    import trio

    from kasmos.cli.daemon.stand import Standing
    from kasmos.cli.process import complete_streams, reset_dispositions
    from kasmos.telemetry.logs import Log, LogFile, configure_log

    complete_streams()
    reset_dispositions()
    said = held.config.daemon
    place.root.prepare(announce=note)
    file = LogFile(place.root.path / LOG, streams=(1, 2)) if pipe.waited_for else None
    configure_log(form=said.log_format, level=said.log_level, file=file)
    log = Log(state_root=str(place.root.path))
    for warning in held.warnings:
        log.warning("configuration", warning=warning)
    try:
        return trio.run(Standing(place, held, log, pipe).run, strict_exception_groups=True)
    finally:
        if file is not None:
            file.close()


def _start_in_background(place: FullPlace, said: Mapping[str, Any]) -> int:
    from kasmos.cli.daemon import background

    for warning in place.warnings:
        click.echo(f"warning: {warning}", err=True)
    place.root.prepare(announce=note)
    arguments = ["-C", str(place.project), "--state-root", str(place.root.path), "daemon", "start", "--foreground"]
    environ = dict(place.environ)
    for name, value in said.items():
        if name in _SECRET:
            # Not where every user of this machine could read it.
            environ[f"KASMOS_{name.upper()}"] = value
            continue
        flag = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            arguments += [flag, str(one)]
    word = background.start(arguments, environ, place.root.path / LOG)
    if not word.ready:
        for line in word.text.splitlines():
            click.echo(f"kas: {line}", err=True)
        return word.code
    say(f"daemon started (pid {word.pid}): {', '.join(word.addresses)}")
    return 0


def _pass_on(pipe: Pipe, error: BaseException) -> None:
    """Tell who waits for us in the foreground why we do not come up."""
    from kasmos.cli.daemon.background import Word
    from kasmos.cli.main import explain

    if pipe.waited_for:
        code, lines = explain(error)
        pipe.say(Word(False, "\n".join(lines), code))


# --- stop -------------------------------------------------------------------------------


def stop(ctx: click.Context, *, drain: bool, timeout: str | None, stop_them: bool | None) -> int:
    """Stop the daemon and wait until it is gone; the exit status.

    Raises:
        ClientError: none runs.
        RequestError: it refuses.
    """
    place = place_of(ctx)
    seconds = None if timeout is None else _seconds(timeout)
    if timeout is not None and not drain:
        raise click.UsageError("--timeout is how long --drain may take", ctx)
    pid = place.supervisor_pid()
    if pid is None:
        raise ClientError("no daemon is running")
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        raise ClientError("no daemon is running") from None
    try:
        return _stop(place, pid, handle, {"drain": drain, "timeout": seconds, "stop": stop_them})
    finally:
        os.close(handle)


def _stop(place: Place, pid: int, handle: int, order: dict[str, Any]) -> int:
    before = _newest(place)
    supervisor = place.reach()
    problems = supervisor.get("/v1/daemon")["problems"]
    answer = supervisor.post("/v1/daemon/stop", {name: value for name, value in order.items() if value is not None})
    if answer["pid"] != pid:
        raise StoreError(f"the lock names process {pid} and process {answer['pid']} answers: look with `kas doctor`")
    if order["drain"]:
        note(f"draining: {answer['running']} sessions run, {answer['queued']} tasks stay queued")
    # None: it knows best how long it waits for what runs.
    patience = None if order["drain"] else STOP_PATIENCE
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    if not poll.poll(None if patience is None else patience * 1000):
        raise StoreError(f"the daemon (pid {pid}) was told to stop and is not gone after {STOP_PATIENCE:g} s")
    say(f"daemon stopped: {_farewell(place, before, problems)}")
    return 0


def _newest(place: Place) -> int:
    return place.read_world().seq


def _farewell(place: Place, before: int, problems: list[str]) -> str:
    from kasmos.model import event as ev
    from kasmos.store.reader import read_records

    said = "it died before it could say what it left"
    if problems:
        said = (
            f"it could not record what it did ({problems[0]}); what it left running runs on, and the next daemon "
            "finds out the rest"
        )
    while records := read_records(place.root.db, after=before):
        for record in records:
            if isinstance(record.event, ev.SupervisorStopped):
                said = record.event.reason
        before = records[-1].seq
    return said


def _seconds(text: str) -> float:
    from kasmos.model.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from error


# --- status, reload ---------------------------------------------------------------------


def status(ctx: click.Context, *, as_json: bool) -> int:
    """Say how it stands with the daemon; the exit status.

    Raises:
        ClientError: none runs, or it does not answer.
    """
    from kasmos.model import codec

    place = place_of(ctx)
    if place.supervisor_pid() is None:
        raise ClientError("no daemon is running: kas daemon start")
    answer = place.reach().get("/v1/daemon")
    if as_json:
        say(codec.encode_pretty(answer))
        return 0 if answer["healthy"] else 1
    what = "daemon" if answer["daemon"] else "supervisor of a `kas run`"
    lines = [
        f"{what}, pid {answer['pid']}, kasmos {answer['version']}: {answer['phase']}",
        f"project     {answer['project']}",
        f"state root  {place.root.path}",
        f"listens on  {', '.join(answer['addresses']) or place.root.socket}",
        f"sessions    {answer['running']} running, {answer['queued']} tasks queued",
        *(f"PROBLEM     {problem}" for problem in answer["problems"]),
    ]
    say("\n".join(lines))
    return 0 if answer["healthy"] else 1


def reload(ctx: click.Context) -> None:
    """Make the daemon read its configuration again.

    Raises:
        ClientError: none runs.
        RequestError: the configuration is wrong.
    """
    place = place_of(ctx)
    if place.supervisor_pid() is None:
        raise ClientError("no daemon is running")
    try:
        answer = place.reach().post("/v1/daemon/reload")
    except RequestError as error:
        if error.code == "invalid_config":
            note("not reloaded, the old configuration stays in force:")
        raise
    for warning in answer["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    applied, restart = answer["applied"], answer["needs_restart"]
    say(f"reloaded: {', '.join(applied)}" if applied else "reloaded: nothing has changed")
    if restart:
        say(f"needs a restart: {', '.join(restart)}")


def log_path(place: Place) -> Path:
    """Where the daemon in the background logs."""
    return place.root.path / LOG
