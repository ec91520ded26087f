"""`kas plan`: what a plan document says, and what is wrong with it, before anything runs."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from kasmos.exceptions import Mistake
    from kasmos.model.plan import PlanTask, Wave
    from kasmos.model.profile import AgentProfile
    from kasmos.plans import ParsedPlan

EXIT_WRONG = 2
_WIDEST_WORD = 60


@click.group("plan")
def plan() -> None:
    """Look at plan documents."""


@plan.command("check")
@click.argument("file", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--agent", metavar="NAME", help="Agent for tasks that name none.")
@click.option("--project", metavar="DIR", help="The project whose agents count; default: found from here.")
@click.pass_context
def check(ctx: click.Context, file: str, as_json: bool, agent: str | None, project: str | None) -> None:
    """Print the waves, tasks and commands of the plan in FILE (`-`: standard input), or every mistake in it.

    Starts nothing. Exits 0 when the plan can be run, 2 when something is wrong with it.
    """
    from kasmos.cli.programs import missing_programs
    from kasmos.config.load import load_config, locate_project
    from kasmos.exceptions import ConfigError, PlanError
    from kasmos.harnesses.equip import equip_all
    from kasmos.orchestration.assembly import PERMISSION_SERVER, refusals
    from kasmos.plans import agent_of, check_plan, in_document_order, read_plan

    flags = {"orchestration.default_agent": agent} if agent is not None else {}
    try:
        data = _read(file)
        directory = locate_project(project or ctx.find_root().params.get("project"))
        config = load_config(directory, environ=os.environ, flags=flags).config
    except (ConfigError, PlanError) as error:
        _refuse(ctx, error.mistakes, as_json=as_json)
    read = read_plan(data, file)
    default = config.orchestration.default_agent
    profiles = equip_all(config.agents, server=PERMISSION_SERVER)
    used = {name for task in read.parsed.plan.tasks if (name := agent_of(task, default)) is not None}
    refused = refusals(config.agents, sorted(used), os.environ)
    checked = check_plan(read.parsed, profiles, default, require_agent=False)
    missing = missing_programs(read.parsed.plan, config.agents, default, os.environ, directory)
    warnings = in_document_order((*read.parsed.warnings, *checked.warnings, *missing))
    mistakes = in_document_order((*read.mistakes, *checked.mistakes, *refused))
    for warning in warnings:
        click.echo(f"warning: {_printable(str(warning))}", err=True)
    if mistakes:
        _refuse(ctx, mistakes, warnings, as_json=as_json)
    agents = {task.id: agent_of(task, default) for task in read.parsed.plan.tasks}
    if as_json:
        click.echo(render_json(read.parsed, agents, profiles, warnings))
    else:
        click.echo(render_text(read.parsed, agents, profiles))


def _read(file: str) -> bytes:
    from kasmos.exceptions import Mistake, PlanError

    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise PlanError([Mistake(file, str(error.strerror))]) from error


def render_json(
    parsed: ParsedPlan,
    agents: Mapping[str, str | None],
    profiles: Mapping[str, AgentProfile],
    warnings: Iterable[Mistake] = (),
) -> str:
    """The plan for programs. *agents* has the agent of each task by its id."""
    from kasmos.model import codec

    return codec.encode_pretty(
        {
            "goal": parsed.plan.goal,
            "waves": [
                {
                    "number": wave.number,
                    "title": wave.title,
                    "tasks": [
                        {
                            **_task_value(task, agents[task.id]),
                            "command": _command(parsed, wave, task, agents, profiles),
                            "script_line": parsed.lines.get((task.id, "script")),
                        }
                        for task in wave.tasks
                    ],
                }
                for wave in parsed.plan.waves
            ],
            "title": parsed.plan.title,
            "architecture": parsed.plan.architecture,
            "tech_stack": parsed.plan.tech_stack,
            "warnings": _as_values(warnings),
        }
    )


def render_text(parsed: ParsedPlan, agents: Mapping[str, str | None], profiles: Mapping[str, AgentProfile]) -> str:
    """The plan for people. *agents* has the agent of each task by its id."""
    lines = [f"goal: {_printable(parsed.plan.goal)}"] if parsed.plan.goal else []
    for wave in parsed.plan.waves:
        lines.append(f"wave {wave.number}" + (f": {_printable(wave.title)}" if wave.title else ""))
        for task in wave.tasks:
            lines.append(f"  task {task.id}: {_printable(task.title)}".rstrip(": "))
            lines += [f"      {line}" for line in _details(task, agents[task.id])]
            command = _command(parsed, wave, task, agents, profiles)
            if command is not None:
                lines.append(f"      $ {command}")
                lines += _script(parsed, task, agents, profiles)
    count, waves = sum(1 for _ in parsed.plan.tasks), len(parsed.plan.waves)
    lines.append(f"{count} task{'s' * (count != 1)} in {waves} wave{'s' * (waves != 1)}")
    return "\n".join(lines)


def _task_value(task: PlanTask, agent: str | None) -> dict[str, Any]:
    return {
        "number": task.number,
        "title": task.title,
        "agent": agent,
        # Where numbers are unique, a need is a number; where waves count anew, it is "WAVE.NUMBER".
        "needs": [int(need) if need.isdecimal() else need for need in task.needs],
        "id": task.id,
        "timeout": task.timeout,
        "retries": task.retries,
        "checks": [check.command for check in task.checks],
        "files": list(task.files),
        "env": sorted(task.env),
        "line": task.line,
    }


def _details(task: PlanTask, agent: str | None) -> Iterator[str]:
    said = {
        "agent": agent or "none yet",
        "needs": ", ".join(task.needs),
        "timeout": "" if task.timeout is None else f"{task.timeout:g} s",
        "retries": "" if task.retries is None else str(task.retries),
        "files": ", ".join(task.files),
        "env": ", ".join(sorted(task.env)),
    }
    yield "; ".join(f"{key} {_printable(value)}" for key, value in said.items() if value)
    for check in task.checks:
        yield f"then check: {_printable(check.command)}"


def _command(
    parsed: ParsedPlan,
    wave: Wave,
    task: PlanTask,
    agents: Mapping[str, str | None],
    profiles: Mapping[str, AgentProfile],
) -> str | None:
    """The command that would run, as one would type it, with the prompt cut short."""
    from kasmos.plans import compile_task

    name = agents[task.id]
    if name is None:
        return None
    command = compile_task(parsed.plan, task, profiles[name], peers=len(wave.tasks) - 1)
    words = [word.replace("{prompt_file}", "prompt.md").replace("{script_file}", "script.sh") for word in command.argv]
    return shlex.join(map(_shortened, words)) + (" < prompt.md" if command.stdin_prompt else "")


def _script(
    parsed: ParsedPlan, task: PlanTask, agents: Mapping[str, str | None], profiles: Mapping[str, AgentProfile]
) -> Iterator[str]:
    """How the script that the command runs begins, and where it stands in the document."""
    from kasmos.model.profile import PromptMode
    from kasmos.plans import first_script

    line = parsed.lines.get((task.id, "script"))
    if line is None or profiles[agents[task.id] or ""].prompt is not PromptMode.SCRIPT:
        return
    script = (first_script(task.body) or "").rstrip()
    first, _, rest = script.lstrip("\n").partition("\n")
    line += len(script) - len(script.lstrip("\n"))
    yield f"      line {line}: {_shortened(first)}" + (" …" if rest else "")


def _shortened(word: str) -> str:
    first = word.split("\n", 1)[0]
    return _printable(word if first == word and len(word) <= _WIDEST_WORD else first[: _WIDEST_WORD - 1] + "…")


def _printable(text: str) -> str:
    """One line without control characters: a document does not get to steer the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def _as_values(found: Iterable[Mistake]) -> list[dict[str, str]]:
    return [{"place": one.place, "problem": one.problem, "cure": one.cure} for one in found]


def _refuse(
    ctx: click.Context, mistakes: Iterable[Mistake], warnings: Iterable[Mistake] = (), *, as_json: bool
) -> NoReturn:
    """Say what is wrong, to the person and, if it was asked for, to the program that asked."""
    mistakes = tuple(mistakes)
    for mistake in mistakes:
        click.echo(_printable(str(mistake)), err=True)
    if as_json:
        from kasmos.model import codec

        click.echo(codec.encode_pretty({"mistakes": _as_values(mistakes), "warnings": _as_values(warnings)}))
    ctx.exit(EXIT_WRONG)
