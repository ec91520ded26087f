"""`kas doctor`: what this machine lacks and how to get it, what other lives left behind, and all that is alive."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kasmos.model.value import frozen

if TYPE_CHECKING:
    from kasmos.cli.probes import Finding
    from kasmos.cli.tree import LiveTree
    from kasmos.config.load import Loaded
    from kasmos.store.stateroot import StateRoot

_MARKS = {"fine": "ok     ", "note": "note   ", "problem": "PROBLEM"}


@frozen
class Diagnosis:
    """All that was found."""

    findings: tuple[Finding, ...]
    tree: LiveTree

    @property
    def problems(self) -> int:
        """How many findings keep kasmos from doing what it promises."""
        return sum(finding.level == "problem" for finding in self.findings)


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Say what is missing on this machine, what other lives left behind, and what is alive.

    Exits 0 when everything that is needed is there, 1 when there are problems. Changes nothing.
    """
    from kasmos.cli.context import say
    from kasmos.config.load import locate_project

    options = ctx.find_root().params
    project = locate_project(options.get("project"))
    diagnosis = examine(project, os.environ, options.get("state_root"))
    say(render_json(diagnosis) if as_json else render_text(diagnosis))
    ctx.exit(1 if diagnosis.problems else 0)


def examine(project: Path, environ: Mapping[str, str], state_root: str | None = None) -> Diagnosis:
    """Look at the machine, a project and its state root. Changes nothing.

    Raises:
        StoreError: there is no telling where the state root is.
    """
    from kasmos.cli import probes
    from kasmos.store.stateroot import find_state_root

    loaded, findings = _configuration(project, environ)
    # With a configuration that cannot be read, the place is the one that holds without it.
    configured = loaded.config.state_root if loaded else None
    root = find_state_root(project, environ=environ, override=state_root, configured=configured)
    sessions, tree = _alive(root)
    agents = probes.agents(loaded.config, environ, project) if loaded else ()
    around = (*probes.machine(), *probes.programs(environ), *probes.state(root), *probes.tmux_server(root, environ))
    return Diagnosis((*around, *findings, *agents, *sessions), tree)


def _configuration(project: Path, environ: Mapping[str, str]) -> tuple[Loaded | None, list[Finding]]:
    from kasmos.cli.probes import Finding, Level
    from kasmos.config.load import load_config
    from kasmos.exceptions import ConfigError

    try:
        loaded = load_config(project, environ=environ)
    except ConfigError as error:
        return None, [
            Finding("project", Level.PROBLEM, f"{mistake.place}: {mistake.problem}", mistake.cure)
            for mistake in error.mistakes
        ]
    read = ", ".join(str(file) for file in loaded.files) or "no configuration file, only defaults"
    findings = [Finding("project", Level.FINE, f"{project}: {read}")]
    return loaded, findings + [Finding("project", Level.NOTE, warning) for warning in loaded.warnings]


def _alive(root: StateRoot) -> tuple[list[Finding], LiveTree]:
    from kasmos.cli.probes import Finding, Level
    from kasmos.cli.tree import build_tree, find_leftovers
    from kasmos.exceptions import StoreError
    from kasmos.model.view import World
    from kasmos.sessions.process_table import scan
    from kasmos.sessions.processes import read_entry
    from kasmos.store.journal import read_world
    from kasmos.store.lock import read_holder

    supervisor = read_holder(root.lock_path)
    stored = [entry.name for entry in root.sessions.iterdir()] if root.sessions.is_dir() else []
    entries = [entry for entry in scan() if entry.markers and entry.id.pid != os.getpid()]
    findings = []
    try:
        world = read_world(root.db)
    except StoreError as error:
        findings.append(Finding("state", Level.PROBLEM, str(error)))
        world = World()
    # Looked at again: the end of a session is journalled after its processes have gone.
    entries = [entry for entry in entries if (now := read_entry(entry.id.pid)) and now.id == entry.id]
    findings += find_leftovers(world, entries, supervisor, stored)
    return findings, build_tree(world, entries, supervisor)


def render_json(diagnosis: Diagnosis) -> str:
    """The diagnosis for programs."""
    from kasmos.model import codec

    return codec.encode_pretty(
        {
            "ok": not diagnosis.problems,
            "problems": diagnosis.problems,
            "findings": diagnosis.findings,
            "tree": diagnosis.tree,
        }
    )


def render_text(diagnosis: Diagnosis) -> str:
    """The diagnosis for people: each finding with its cure, the live tree, and a verdict in the last line."""
    from kasmos.cli.tree import render_tree

    lines: list[str] = []
    areas = dict.fromkeys(finding.area for finding in diagnosis.findings)
    for area in areas:
        lines += [area, *_findings([found for found in diagnosis.findings if found.area == area]), ""]
    lines += ["alive", *(f"  {line}" for line in render_tree(diagnosis.tree).splitlines()), ""]
    count = diagnosis.problems
    lines.append(f"{count} problem{'' if count == 1 else 's'}" if count else "everything that is needed is there")
    return "\n".join(lines)


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"  {_MARKS[finding.level]}  {finding.text}"
        if finding.cure:
            yield f"  {'':{len(_MARKS['fine'])}}  -> {finding.cure}"
