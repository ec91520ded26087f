"""`kas explain`: which state a screen shows, by which rule, and what the other rules saw."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import click

if TYPE_CHECKING:
    from kasmos.screens import Screen

_USAGE = 2


@click.command("explain")
@click.argument("name", required=False)
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
    ctx: click.Context,
    name: str | None,
    file: str | None,
    program: str | None,
    title: str | None,
    meta: str | None,
    as_json: bool,
) -> None:
    """Say which state the screen of session NAME, or a saved one, shows, and why.

    With rules of the project, if its directory has them, in front of those of kasmos: docs/screens.md.
    """
    from kasmos.exceptions import ConfigError
    from kasmos.screens import PROJECT_RULES, examine, known_programs, load_rules

    if (file is None) == (name is None):
        raise click.UsageError("which screen? a session's NAME, or --screen FILE")
    if name is not None:
        if program or title or meta:
            raise click.UsageError("--program, --title and --meta are for --screen: of a session they are known")
        _explain_session(ctx, name, as_json=as_json)
        return
    assert file is not None
    try:
        directories = [_project(ctx) / PROJECT_RULES]
        if program is None or program not in known_programs(directories):
            known = ", ".join(known_programs(directories))
            raise click.UsageError(f"{program or '--program'}: which program? known: {known}")
        rules = load_rules(program, directories)
    except ConfigError as error:
        _refuse(ctx, [str(mistake) for mistake in error.mistakes])
    verdict, tried = examine(_screen(ctx, file, meta, title), rules)
    from kasmos.daemon.verdicts import tried_value, verdict_value

    _tell(verdict_value(verdict), [tried_value(one) for one in tried], as_json=as_json)


def _explain_session(ctx: click.Context, name: str, *, as_json: bool) -> None:
    """What a live session's screen shows at this moment, as its supervisor sees it."""
    from kasmos.cli.context import place_of

    path = f"/v1/sessions/{quote(name, safe='')}/explain"
    place = place_of(ctx)
    found = place.reach("only a supervisor looks at screens; `kas explain --screen FILE` needs none").get(path)
    _tell({key: value for key, value in found.items() if key != "tried"}, found["tried"], as_json=as_json)


def _tell(verdict: Mapping[str, Any], tried: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        from kasmos.model import codec

        against = [{"rule": one["rule"], "state": one["state"]} for one in contradicting(verdict, tried)]
        click.echo(codec.encode_pretty({**verdict, "contradictions": against}))
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


def render_text(verdict: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The verdict for people: what won, what it saw, what is asked, and what every rule saw."""
    from kasmos.cli.render.text import clean

    version = f", program version {verdict['program_version']}" if verdict["program_version"] else ""
    yield f"{verdict['state']}  (rule {verdict['rule']}{clean(version)})"
    for one in verdict["evidence"]:
        where = one["region"] if one["line"] is None else f"{one['region']}, line {one['line']}"
        yield f"  {where}: {clean(one['text'])}"
    yield from (f"  {clean(line)}" for line in _details(verdict))
    against = contradicting(verdict, tried)
    if against:
        yield "seen as well, and asked later:"
        yield from (f"  {other['rule']} would say {other['state']}" for other in against)
    yield "rules, in the order in which they are asked:"
    for one in tried:
        mark = "*" if one["rule"] == verdict["rule"] else "+" if one["held"] else " "
        yield f" {mark} {one['rule']:<24} {one['state']:<11} {clean(one['missed'] or 'holds')}"


def contradicting(verdict: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rules that held as well and say something else."""
    return [one for one in tried if one["held"] and one["state"] != verdict["state"]]


def _details(verdict: Mapping[str, Any]) -> Iterator[str]:
    request = verdict["request"]
    if request is not None:
        said = {"asks": request["question"], **{name: request[name] for name in ("tool", "command", "path")}}
        yield from (f"{name}: {value}" for name, value in said.items() if value)
        if not request["exact"]:
            yield "what is asked for may be cut off or more than it seems"
    for choice in verdict["choices"]:
        keys = " ".join(choice["keys"]) or "no safe key"
        yield f"{'>' if choice['selected'] else '-'} {choice['text']}  [{choice['meaning']}; {keys}]"
    if verdict["dangerous_default"]:
        yield "Enter alone is not the answer here"
    if verdict["composer"]:
        yield f"draft: {verdict['draft']}" if verdict["draft"] else "the input is empty"
    if verdict["reset"]:
        yield f"resets: {verdict['reset']}"
