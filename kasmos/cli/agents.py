"""`kas agents`: the agent profiles and their programs; what a program's saved transcript comes to."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

import click

from kasmos.cli.context import put, say

if TYPE_CHECKING:
    from kasmos.harnesses.conclusion import Conclusion, Shortfall
    from kasmos.harnesses.facts import Facts
    from kasmos.harnesses.parser import TranscriptParser
    from kasmos.model.agent_event import AgentEvent
    from kasmos.model.session import ExitStatus

PIECE = 262_144
"""Bytes that are read at once."""


class ExitParameter(click.ParamType["ExitStatus"]):
    """How a program ended: a code, a signal as a negative number or by its name, or `unknown`."""

    name = "exit"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ExitStatus:
        from kasmos.model.session import ExitStatus

        text = str(value).strip()
        if text == "unknown":
            return ExitStatus()
        named = text.upper().removeprefix("SIG")
        if f"SIG{named}" in signal.Signals.__members__:
            return ExitStatus(signal=signal.Signals[f"SIG{named}"].value)
        try:
            number = int(text)
        except ValueError:
            number = 1000
        if not -64 <= number <= 255:
            self.fail(f"{text!r} is neither a code from 0 to 255, nor a signal such as -9 or SIGKILL, nor unknown")
        return ExitStatus(signal=-number) if number < 0 else ExitStatus(code=number)


@click.group("agents", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.option("--offline", is_flag=True, help="Start no program, not even to ask for its version.")
@click.pass_context
def agents(ctx: click.Context, as_json: bool, offline: bool) -> None:
    """List the agent profiles: harness, program, version, and whether they are logged in."""
    if ctx.invoked_subcommand is not None:
        return
    from kasmos.cli.installed import list_agents

    list_agents(ctx, as_json=as_json, offline=offline)


@agents.command("parse")
@click.option("--program", required=True, metavar="NAME", help="The program that wrote it: claude, codex, ...")
@click.option("--exit", "status", type=ExitParameter(), metavar="N", help="How it ended: 0, 143, -9, SIGKILL, unknown.")
@click.option("--stderr", type=click.File("rb"), metavar="FILE", help="What it wrote to stderr, if kept apart.")
@click.option("--accept", multiple=True, metavar="WHAT", help="What may be missing: no_result, tool_denied, ...")
@click.option("--structured/--plain", default=None, help="Whether it was asked for its stream of events.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: the events, then the conclusion.")
@click.argument("file", type=click.File("rb"))
@click.pass_context
def parse(
    ctx: click.Context,
    program: str,
    status: ExitStatus | None,
    stderr: IO[bytes] | None,
    accept: tuple[str, ...],
    structured: bool | None,
    as_json: bool,
    file: IO[bytes],
) -> None:
    """Say what the transcript in FILE (`-`: standard input) tells, and what it comes to.

    FILE is what the program wrote to stdout, or stdout and stderr together. Exits 0 whatever the transcript says.
    """
    from kasmos.harnesses.parser import TranscriptParser
    from kasmos.harnesses.zones import zone_of_name

    facts = _facts(ctx, program)
    parser = TranscriptParser(
        facts,
        now=_written_at(file),
        zone_of=zone_of_name,
        accept=_shortfalls(ctx, accept),
        structured=structured,
    )
    for events in _read(parser, file, stderr):
        show_events(events, as_json=as_json)
    show_conclusion(parser.finish(status), as_json=as_json)


def _read(parser: TranscriptParser, file: IO[bytes], stderr: IO[bytes] | None) -> Iterator[list[AgentEvent]]:
    try:
        while data := file.read(PIECE):
            yield parser.feed(data)
        while stderr is not None and (data := stderr.read(PIECE)):
            parser.feed_stderr(data)
    except OSError as error:
        raise click.ClickException(f"{file.name}: cannot be read: {error.strerror}") from error
    yield parser.close()


def show_events(events: list[AgentEvent], *, as_json: bool) -> None:
    """Print events of a transcript, for programs or for people."""
    if not events:
        return
    if as_json:
        from kasmos.harnesses.events import render_agent_event

        put(b"\n".join(map(render_agent_event, events)) + b"\n")
        return
    from kasmos.cli.render.transcript import event_lines

    lines = [line for event in events for line in event_lines(event)]
    if lines:
        say("\n".join(lines))


def show_conclusion(conclusion: Conclusion, *, as_json: bool) -> None:
    """Print what a transcript comes to, for programs or for people."""
    if as_json:
        from kasmos.harnesses.conclusion import render_conclusion
        from kasmos.model.codec import encode

        put(encode(render_conclusion(conclusion)) + b"\n")
        return
    from kasmos.cli.render.transcript import conclusion_lines

    say("\n".join(conclusion_lines(conclusion)))


def _facts(ctx: click.Context, program: str) -> Facts:
    from kasmos.harnesses.catalog import find_harness, harness_names, recognise

    facts = find_harness(program) or recognise([program])
    if facts.name == "generic" and program != "generic":
        known = ", ".join(harness_names())
        raise click.UsageError(f"--program: {program!r} is none that kasmos knows: {known}", ctx)
    return facts


def _shortfalls(ctx: click.Context, words: tuple[str, ...]) -> list[Shortfall]:
    from kasmos.harnesses.conclusion import Shortfall

    wrong = [word for word in words if word not in list(Shortfall)]
    if wrong:
        raise click.UsageError(f"--accept: {', '.join(map(repr, wrong))}: one of {', '.join(Shortfall)}", ctx)
    return [Shortfall(word) for word in words]


def _written_at(file: IO[bytes]) -> float:
    """When the transcript was last written: times of day in it are near that."""
    try:
        if file is not sys.stdin.buffer:
            return os.fstat(file.fileno()).st_mtime
    except (OSError, ValueError, AttributeError):
        pass
    return time.time()
