"""What the person asked of the foreground, and where. Values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import attrs
import click

from kasmos.config.load import load_config, locate_project, read_state_root
from kasmos.config.schema import Config
from kasmos.daemon.terms import RunOverrides
from kasmos.exceptions import ConfigError
from kasmos.model.value import frozen
from kasmos.store.lock import read_holder
from kasmos.store.stateroot import StateRoot, find_state_root


@frozen
class Request:
    """What the person asked for."""

    plan: str | None = None
    resume: str | None = None
    """Id of the run to continue; empty for the newest unfinished one; None when a plan is given."""
    retry: tuple[str, ...] | None = None
    """Tasks of the run in `resume` to try again first; empty for all that did not succeed."""
    in_conversation: bool = False
    """Whether those are tried again in their programs' conversations."""
    cancel: str | None = None
    """Why the run in `resume` is ended for good instead of continued; every unfinished run when that is None."""
    overrides: RunOverrides = RunOverrides()
    fresh: bool = False
    keep: bool = False
    """Whether programs run on when this process is asked to leave."""
    as_json: bool = False
    junit: str | None = None
    summary: str | None = None
    budget_daily: str | None = None
    """USD, as it was written; of the supervisor that this command becomes."""


@frozen
class Place:
    """Where the command works: project, configuration, state root."""

    project: Path
    root: StateRoot
    environ: Mapping[str, str] = attrs.field(repr=False)
    warnings: tuple[str, ...] = ()
    """What the configuration's loader had to say."""
    wrong: ConfigError | None = None
    """Why there is no configuration; then a supervisor that has one in force is at work here."""

    def configure(self, flags: Mapping[str, object]) -> Config:
        """The configuration with these key paths on top."""
        return load_config(self.project, environ=self.environ, flags=flags).config


@frozen
class Document:
    """A plan as it was read."""

    source: str
    """Its absolute path, or `-`."""
    data: bytes


def place_of(ctx: click.Context) -> Place:
    """Find the project and its state root from the options of `kas` itself.

    Files that have mistakes are no reason to refuse what is for a supervisor to judge, by what it has in force.

    Raises:
        ConfigError: the configuration is wrong, and nobody supervises.
    """
    options: Mapping[str, str | None] = ctx.find_root().params
    environ = dict(os.environ)
    project = locate_project(options.get("project"))
    override = options.get("state_root")
    try:
        loaded = load_config(project, environ=environ)
    except ConfigError as error:
        configured = read_state_root(project, environ=environ).value
        root = find_state_root(project, environ=environ, override=override, configured=configured)
        if read_holder(root.lock_path) is None:
            raise
        many = "a mistake" if len(error.mistakes) == 1 else f"{len(error.mistakes)} mistakes"
        warning = (
            f"the configuration has {many} (kas config check); the supervisor that runs here is asked all the same"
        )
        return Place(project, root, environ, (warning,), error)
    root = find_state_root(project, environ=environ, override=override, configured=loaded.config.state_root)
    return Place(project, root, environ, tuple(map(str, loaded.warnings)))
