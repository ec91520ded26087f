"""Where a verb works: the project, its state root, its journal, its supervisor.

Light to import, for verbs that answer and are gone.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click
from click.shell_completion import CompletionItem

from kasmos.exceptions import ClientError, KasmosError
from kasmos.model.value import frozen
from kasmos.model.view import World
from kasmos.store.lock import read_holder
from kasmos.store.stateroot import StateRoot, find_state_root

if TYPE_CHECKING:
    from kasmos.client.sync import Supervisor

COMING_UP_TIMEOUT = 15.0
"""Seconds for which a supervisor that has its lock and does not answer is waited for before that is reported."""
_PAUSE = 0.05


@frozen
class Place:
    """A project and its state root."""

    project: Path
    root: StateRoot
    environ: Mapping[str, str] = attrs.field(repr=False)

    def read_world(self) -> World:
        """Everything the journal tells, as of now.

        Raises:
            StoreError: it cannot be read.
        """
        # Not through the journal that writes: that one needs Trio, which takes as long to import as all the rest.
        from kasmos.store.reader import read_world

        return read_world(self.root.db)

    def supervisor_pid(self) -> int | None:
        """Pid of the process that has the state root's lock; None if nobody has."""
        return read_holder(self.root.lock_path)

    def reach(self, cure: str = "") -> Supervisor:
        """The supervisor that runs here.

        Args:
            cure: what to do if there is none, for the message.

        Raises:
            ClientError: there is none, or it does not answer.
        """
        from kasmos.client.sync import Supervisor

        supervisor = Supervisor(self.root.socket)
        give_up = time.monotonic() + COMING_UP_TIMEOUT
        while not supervisor.alive():
            pid = self.supervisor_pid()
            if pid is None:
                raise ClientError("no supervisor is running" + (f": {cure}" if cure else ""))
            if time.monotonic() > give_up:
                raise ClientError(f"the supervisor (pid {pid}) does not answer on {self.root.socket}")
            # It begins its work before it opens its door; a socket that is not there cannot be waited for.
            time.sleep(_PAUSE)
        from kasmos import __version__

        if supervisor.version not in (None, __version__):
            note(f"this is kasmos {__version__}, the supervisor that runs here is {supervisor.version}")
        return supervisor


def place_of(ctx: click.Context) -> Place:
    """Find the project and its state root from the options of `kas` itself.

    Raises:
        ConfigError: the configuration is wrong in what it says about the state root; the rest of it does not matter.
        StoreError: there is no place for a state root.
    """
    from kasmos.config.files import locate_project

    options = ctx.find_root().params
    environ = dict(os.environ)
    project = locate_project(options.get("project"))
    override: str | None = options.get("state_root")
    configured = None
    if not override and not environ.get("KASMOS_STATE_ROOT"):
        from kasmos.config.load import read_state_root

        said = read_state_root(project, environ=environ)
        configured = said.value
        if said.mistakes and not ctx.resilient_parsing:  # which is when a shell completes: no place for warnings
            many = "a mistake" if said.mistakes == 1 else f"{said.mistakes} mistakes"
            click.echo(f"warning: the configuration has {many}: kas config check", err=True)
    root = find_state_root(project, environ=environ, override=override, configured=configured)
    return Place(project, root, environ)


def say(text: str) -> None:
    """Print *text* to stdout; what its encoding lacks is escaped.

    Raises:
        BrokenPipeError: nobody reads it any more.
    """
    from kasmos.cli.render.writer import write_text

    with _writing():
        write_text(sys.stdout, text if text.endswith("\n") or not text else f"{text}\n")


def put(data: bytes) -> None:
    """Write *data* to stdout as it is.

    Raises:
        BrokenPipeError: nobody reads it any more.
    """
    from kasmos.cli.render.writer import write_bytes

    with _writing():
        write_bytes(sys.stdout.buffer, data)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(f"stdout cannot be written to: {error.strerror}") from error


def note(text: str) -> None:
    """Tell the person something beside the answer, on stderr."""
    click.echo(f"kas: {text}", err=True)


Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete(names: Callable[[World], Iterable[tuple[str, str]]]) -> Completer:
    """Completion by names that the journal knows.

    Args:
        names: gives names, each with a word of help, most likely first.
    """

    def completer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            world = place_of(ctx).read_world()
        except (KasmosError, OSError):
            return []  # a shell's prompt is no place for errors
        found = {name: text for name, text in reversed(list(names(world))) if name.startswith(incomplete)}
        return [CompletionItem(name, help=text) for name, text in reversed(found.items())]

    return completer


def session_names(world: World) -> Iterable[tuple[str, str]]:
    """Names of sessions, newest first."""
    return [(session.name, session.state.value) for session in reversed(world.sessions.values())]


def live_session_names(world: World) -> Iterable[tuple[str, str]]:
    """Names of sessions that have not ended, newest first."""
    return [(one.name, one.state.value) for one in reversed(world.sessions.values()) if one.state.live]


def run_ids(world: World) -> Iterable[tuple[str, str]]:
    """Ids of runs, newest first."""
    from kasmos.cli.render.facts import run_title

    return [(run.id, run_title(run)) for run in reversed(world.runs.values())]


def task_ids(world: World) -> Iterable[tuple[str, str]]:
    """Ids of tasks, those of the newest run first."""
    return [(task.id, task.spec.title) for run in reversed(world.runs.values()) for task in run.tasks.values()]


def all_ids(world: World) -> Iterable[tuple[str, str]]:
    """Everything that has an id or a name."""
    return [*task_ids(world), *session_names(world), *run_ids(world)]
