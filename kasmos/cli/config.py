"""`kas config`: check, show, schema, init. Grammar and text; `kasmos.config` decides."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from kasmos.config.load import Loaded
    from kasmos.config.origin import Setting

HIDDEN = "(hidden)"
"""What is printed in place of a secret."""

_PROJECT = click.option(
    "--project",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="The project's directory. Without it, the project that the working directory belongs to.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group("config")
def config() -> None:
    """Look at the configuration, or begin one."""


@config.command("check")
@_PROJECT
@click.pass_context
def check(ctx: click.Context, project: Path | None) -> None:
    """Tell whether the configuration is right.

    Reads every file, variable and flag, and prints every mistake with its place. Exits 0 when there is none, else 2.
    """
    from kasmos.orchestration.assembly import refusals

    directory, loaded = _load(ctx, project)
    agents = loaded.config.agents
    mistakes = refusals(agents, agents, os.environ)
    if mistakes:
        _refuse(mistakes)
    files = ", ".join(str(file) for file in loaded.files) or "no file, defaults only"
    enabled = [name for name, profile in loaded.config.agents.items() if profile.enabled]
    _say(f"{directory}: the configuration is right ({files})")
    _say(f"agents: {', '.join(enabled) or 'none'}")


@config.command("show")
@_PROJECT
@_JSON
@click.option("--all", "everything", is_flag=True, help="Also the defaults of every agent.")
@click.pass_context
def show(ctx: click.Context, project: Path | None, as_json: bool, everything: bool) -> None:
    """Print what is in effect, and where each value comes from.

    Values of variables in `env` are not printed: they may be secrets.
    """
    from kasmos.config.load import agent_defaults
    from kasmos.config.lookup import render_path

    directory, loaded = _load(ctx, project)
    settings = {**loaded.settings, **(agent_defaults(loaded.settings) if everything else {})}
    values = {render_path(path): settings[path] for path in sorted(settings, key=_order)}
    secrets = {render_path(path) for path in settings if _is_secret(path)}
    _say((_as_json if as_json else _as_lines)(directory, loaded, values, secrets))


@config.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    import json

    from kasmos.config.jsonschema import render_schema

    _say(json.dumps(render_schema(), indent=2, ensure_ascii=False))


@config.command("init")
@_PROJECT
@click.pass_context
def init(ctx: click.Context, project: Path | None) -> None:
    """Write a commented `.kasmos/config.toml` with profiles for the agent programs on this machine.

    A file that is there already is never touched.
    """
    import shutil

    from kasmos.config.files import CONFIG_FILE
    from kasmos.config.presets import PRESETS
    from kasmos.config.render import render_init

    directory = _directory(ctx, project)
    target = directory / CONFIG_FILE
    found = [preset.name for preset in PRESETS if shutil.which(preset.name)]
    try:
        write_new(target, render_init(found))
    except FileExistsError:
        _refuse(
            [f"{target} is there already and stays as it is", "for a project of its own: kas config init --project DIR"]
        )
    except OSError as error:
        _refuse([f"{target} cannot be written: {error.strerror}"])
    _say(f"wrote {target}")
    _say(f"agents: {', '.join([*found, 'shell'])}" + ("" if found else " (no agent program was found on PATH)"))


def write_new(target: Path, text: str) -> None:
    """Write a file that is not there yet, whole or not at all.

    Raises:
        FileExistsError: it is there.
        OSError: it cannot be written.
    """
    import tempfile

    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        raise FileExistsError(target)
    fd, draft = tempfile.mkstemp(prefix=".config-", dir=target.parent)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(fd, 0o666 & ~_umask())
            file.flush()
            os.fsync(fd)
        # Unlike a rename, a link never replaces what another one has put there in the meantime.
        os.link(draft, target)
    finally:
        os.unlink(draft)


def _say(text: str, *, err: bool = False) -> None:
    # Names of files and values of variables may be no UTF-8.
    click.echo(text.encode("utf-8", "backslashreplace").decode(), err=err)


def _umask() -> int:
    # It can only be read by setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _directory(ctx: click.Context, project: Path | None) -> Path:
    from kasmos.config.load import locate_project
    from kasmos.exceptions import ConfigError

    try:
        return locate_project(project or ctx.find_root().params.get("project"))
    except ConfigError as error:
        _refuse(error.mistakes)


def _load(ctx: click.Context, project: Path | None) -> tuple[Path, Loaded]:
    from kasmos.config.load import load_config
    from kasmos.exceptions import ConfigError

    directory = _directory(ctx, project)
    try:
        loaded = load_config(directory, environ=os.environ)
    except ConfigError as error:
        _refuse(error.mistakes)
    for warning in (*loaded.warnings, *_doubts(loaded)):
        _say(f"warning: {warning}", err=True)
    return directory, loaded


def _doubts(loaded: Loaded) -> list[str]:
    """What profiles say and their programs are never told."""
    from kasmos.harnesses.equip import doubts

    found = [doubt for profile in loaded.config.agents.values() if profile.enabled for doubt in doubts(profile)]
    return [f"{one.place} {one.problem}: {one.cure}" for one in found]


def _refuse(lines: Iterable[object]) -> NoReturn:
    for line in lines:
        _say(str(line), err=True)
    sys.exit(2)


def _order(path: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Tables in the order of the manual, keys by name."""
    from kasmos.config.keys import KEYS

    # The one place that has the order; agents are last there, too.
    tables = list(dict.fromkeys(key.path[0] for key in KEYS))
    return tables.index(path[0]), path


def _is_secret(path: tuple[str, ...]) -> bool:
    from kasmos.config.lookup import BY_PATH, pattern_of

    pattern = pattern_of(path)
    return pattern is not None and BY_PATH[pattern].secret


def _as_lines(directory: Path, loaded: Loaded, values: dict[str, Setting], secrets: set[str]) -> str:
    from kasmos.config.render import render_value

    shown = {
        name: f"{name} = {render_value(HIDDEN if name in secrets else setting.written)}"
        for name, setting in values.items()
    }
    width = min(max(map(len, shown.values()), default=0), 60)
    lines = [f"# project: {directory}", *(f"# file: {file}" for file in loaded.files)]
    lines += [f"{text:<{width}}  # {values[name].origin}" for name, text in shown.items()]
    return "\n".join(lines)


def _as_json(directory: Path, loaded: Loaded, values: dict[str, Setting], secrets: set[str]) -> str:
    import json

    return json.dumps(
        {
            "project": str(directory),
            "files": [str(file) for file in loaded.files],
            "warnings": list(loaded.warnings),
            "values": {
                name: {
                    "value": None if name in secrets else setting.written,
                    "hidden": name in secrets,
                    "origin": {
                        "kind": str(setting.origin.kind),
                        "name": setting.origin.name,
                        "line": setting.origin.line,
                    },
                }
                for name, setting in values.items()
            },
        },
        indent=2,
        ensure_ascii=False,
    )
