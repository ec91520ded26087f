"""`kas explain`: which state a screen shows, by which rule, and what the other rules saw."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from kasmos.screens import Screen, Tried, Verdict

_USAGE = 2


@click.command("explain")
@click.option(
    "--screen", "file", metavar="FILE", help="A saved screen, as `tmux capture-pane -p` prints it; `-`: stdin."
)
@click.option("--program", metavar="NAME", help="Whose screen it is: claude, codex, gemini, opencode, ...")
@click.option("--title", metavar="TEXT", help="The terminal's title, if it is known.")
@click.option(
    "--meta", metavar="FILE", help='JSON beside the screen: "title", "cursor" as "X,Y", "cursor_visible", "dead".'
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def explain(
    ctx: click.Context, file: str | None, program: str | None, title: str | None, meta: str | None, as_json: bool
) -> None:
    """Say which state a saved screen shows, and why.

    With rules of the project, if its directory has them, in front of those of kasmos: docs/screens.md.
    """
    from kasmos.exceptions import ConfigError
    from kasmos.screens import PROJECT_RULES, examine, known_programs, load_rules

    if file is None:
        raise click.UsageError("which screen? --screen FILE")
    try:
        directories = [_project(ctx) / PROJECT_RULES]
        if program is None or program not in known_programs(directories):
            known = ", ".join(known_programs(directories))
            raise click.UsageError(f"{program or '--program'}: which program? known: {known}")
        rules = load_rules(program, directories)
    except ConfigError as error:
        _refuse(ctx, [str(mistake) for mistake in error.mistakes])
    verdict, tried = examine(_screen(ctx, file, meta, title), rules)
    if as_json:
        from kasmos.model import codec

        click.echo(codec.encode_pretty(as_value(verdict)))
    else:
        click.echo("\n".join(render_text(verdict, tried)))


def _project(ctx: click.Context) -> Path:
    from kasmos.config.files import locate_project

    return locate_project(ctx.find_root().params.get("project"), environ=os.environ)


def _screen(ctx: click.Context, file: str, meta: str | None, title: str | None) -> Screen:
    import attrs

    from kasmos.screens import Screen

    text = _read(ctx, file)
    beside: dict[str, Any] = {}
    if meta is not None:
        import json

        try:
            beside = json.loads(_read(ctx, meta))
        except json.JSONDecodeError as error:
            _refuse(ctx, [f"{meta}: is not JSON: {error}"])
        if not isinstance(beside, dict):
            _refuse(ctx, [f"{meta}: must be a JSON object"])
    screen = Screen.from_meta(text, beside)
    return screen if title is None else attrs.evolve(screen, title=title.strip() or None)


def _read(ctx: click.Context, file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        _refuse(ctx, [f"{file}: {error.strerror}"])
    return data.decode("utf-8", "replace")


def _refuse(ctx: click.Context, lines: list[str]) -> NoReturn:
    from kasmos.cli.render.text import clean

    for line in lines:
        click.echo(f"kas: {clean(line)}", err=True)
    ctx.exit(_USAGE)


def as_value(verdict: Verdict) -> dict[str, Any]:
    """The verdict for programs: `state`, `rule` and `evidence` first, and always."""
    request, composer = verdict.request, verdict.composer
    return {
        "state": verdict.state.value,
        "rule": verdict.rule,
        "evidence": [
            {"region": one.region, "line": None if one.row is None else one.row + 1, "text": one.text}
            for one in verdict.evidence
        ],
        "request": None
        if request is None
        else {
            "question": request.question,
            "tool": request.tool,
            "command": request.command,
            "path": request.path,
            "exact": request.exact,
        },
        "choices": [
            {
                "text": choice.text,
                "meaning": choice.meaning.value,
                "keys": list(choice.keys),
                "selected": choice.selected,
                "takes_text": choice.takes_text,
            }
            for choice in verdict.choices
        ],
        "dangerous_default": verdict.dangerous_default,
        "draft": None if composer is None else composer.draft,
        "composer": composer is not None,
        "reset": verdict.reset,
        "program_version": verdict.program_version,
    }


def render_text(verdict: Verdict, tried: tuple[Tried, ...]) -> Iterator[str]:
    """The verdict for people: what won, what it saw, what is asked, and what every rule saw."""
    from kasmos.cli.render.text import clean
    from kasmos.screens.detect import contradictions

    version = f", program version {verdict.program_version}" if verdict.program_version else ""
    yield f"{verdict.state.value}  (rule {verdict.rule}{clean(version)})"
    for one in verdict.evidence:
        where = one.region if one.row is None else f"{one.region}, line {one.row + 1}"
        yield f"  {where}: {clean(one.text)}"
    yield from (f"  {clean(line)}" for line in _details(verdict))
    against = contradictions(verdict, tried)
    if against:
        yield "seen as well, and asked later:"
        yield from (f"  {other.rule.name} would say {other.rule.state.value}" for other in against)
    yield "rules, in the order in which they are asked:"
    for rule, seen in ((each.rule, each.seen) for each in tried):
        mark = "*" if rule.name == verdict.rule else "+" if seen.held else " "
        yield f" {mark} {rule.name:<24} {rule.state.value:<11} {clean(seen.missed or 'holds')}"


def _details(verdict: Verdict) -> Iterator[str]:
    request, composer = verdict.request, verdict.composer
    if request is not None:
        said = {"asks": request.question, "tool": request.tool, "command": request.command, "path": request.path}
        yield from (f"{name}: {value}" for name, value in said.items() if value)
        if not request.exact:
            yield "what is asked for may be cut off or more than it seems"
    for choice in verdict.choices:
        keys = " ".join(choice.keys) or "no safe key"
        yield f"{'>' if choice.selected else '-'} {choice.text}  [{choice.meaning.value}; {keys}]"
    if verdict.dangerous_default:
        yield "Enter alone is not the answer here"
    if composer is not None:
        yield f"draft: {composer.draft}" if composer.draft else "the input is empty"
    if verdict.reset:
        yield f"resets: {verdict.reset}"
