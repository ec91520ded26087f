"""The agent profiles and their programs: which harness, where, which version, and whether it is logged in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from kasmos.cli.context import note, say
from kasmos.model.value import frozen

if TYPE_CHECKING:
    from kasmos.config.schema import Config
    from kasmos.model.profile import AgentProfile

VERSION_TIMEOUT = 10.0
"""Seconds a program may take to say its version, or whether it is logged in."""
AT_ONCE = 8
"""Programs that are asked side by side."""
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)*\S*")


@frozen
class Installed:
    """A profile and what was found of its program."""

    agent: str
    harness: str
    mode: str
    program: str
    path: str | None
    """Where it is; None if a session would not find it."""
    version: str | None = None
    version_known: bool | None = None
    """Whether the harness is believed for this version; None where there is nothing to compare."""
    logged_in: bool | None = None
    """None where the program cannot say it cheaply."""


def list_agents(ctx: click.Context, *, as_json: bool, offline: bool) -> None:
    """Print the profiles of the project.

    Raises:
        ConfigError: the configuration is wrong.
    """
    from kasmos.config.load import load_config, locate_project

    project = locate_project(ctx.find_root().params.get("project"))
    config = load_config(project, environ=os.environ).config
    _judge_harnesses(config)
    found = look_at_agents(config, os.environ, project, offline=offline)
    if as_json:
        from kasmos.model import codec

        say(codec.encode_pretty(found))
    elif found:
        say("\n".join(_table(found)))
    else:
        note("no agent is configured: `kas config init` writes a first configuration")


def _judge_harnesses(config: Config) -> None:
    from kasmos.exceptions import ConfigError, Mistake
    from kasmos.harnesses.catalog import find_harness, harness_names

    cure = f"one of {', '.join(harness_names())}"
    mistakes = [
        Mistake(f"agents.{one.name}.harness", f"{one.harness!r} is no harness that is installed", cure)
        for one in config.agents.values()
        if one.harness is not None and find_harness(one.harness) is None
    ]
    if mistakes:
        raise ConfigError(mistakes)


def look_at_agents(
    config: Config, environ: Mapping[str, str], project: Path, *, offline: bool = False
) -> tuple[Installed, ...]:
    """Look at every profile; programs are asked side by side, each for a bounded time.

    Args:
        config: has the profiles.
        environ: the supervisor's environment.
        project: the directory that relative paths begin in.
        offline: whether to start nothing.
    """
    profiles = list(config.agents.values())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(pool.map(lambda profile: _look(profile, environ, project, offline), profiles))


def _look(profile: AgentProfile, environ: Mapping[str, str], project: Path, offline: bool) -> Installed:
    from kasmos.cli.programs import find_program
    from kasmos.harnesses.catalog import find_harness, recognise
    from kasmos.harnesses.facts import knows_version
    from kasmos.sessions.environment import child_environment

    facts = (find_harness(profile.harness) if profile.harness else None) or recognise(profile.program)
    found = find_program(profile, environ, project)
    path = None if found is None else os.fspath(found)
    seen = Installed(profile.name, facts.name, profile.execution_mode.value, " ".join(profile.program), path)
    if path is None or offline or facts.name == "generic":
        return seen
    env = child_environment(environ, env_pass=profile.env_pass, env={**facts.environment, **profile.env}, own={})
    command = [path, *profile.program[1:]]
    said, _ = _ask([*command, "--version"], env, project)
    match = None if said is None else _VERSION.search(said)
    version = None if match is None else match[0]
    logged_in = None
    if facts.login:
        text, code = _ask([*command, *facts.login], env, project)
        logged_in = None if text is None or code not in (0, 1) else code == 0
    known = None if version is None else knows_version(facts, version)
    return attrs.evolve(seen, version=version, version_known=known, logged_in=logged_in)


def _ask(command: list[str], env: Mapping[str, str], project: Path) -> tuple[str | None, int]:
    """What a program answers, and its exit code; None if it does not within its time."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            env=dict(env),
            cwd=project,
            stdin=subprocess.DEVNULL,
            timeout=VERSION_TIMEOUT,
            check=False,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None, -1
    return (done.stdout + done.stderr).decode("utf-8", "replace"), done.returncode


def _table(found: tuple[Installed, ...]) -> list[str]:
    from kasmos.cli.render.text import clean

    rows = [("AGENT", "HARNESS", "MODE", "VERSION", "LOGIN", "PROGRAM")]
    for one in found:
        version = one.version or ("-" if one.path else "not found")
        if one.version_known is False:
            version += " (unknown to kasmos)"
        login = {True: "yes", False: "no", None: "-"}[one.logged_in]
        rows.append((one.agent, one.harness, one.mode, version, login, one.path or one.program))
    shown = [tuple(clean(cell) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]) - 1)]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    return [
        "  ".join([*(cell.ljust(size) for cell, size in zip(row, widths, strict=False)), row[-1]])[:width].rstrip()
        for row in shown
    ]
