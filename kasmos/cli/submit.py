"""`kas submit`: hand in one task to the supervisor that runs."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Any

import click

from kasmos.cli.context import Place, note, place_of, say

_FIELD = re.compile(r"\$\.(\w+)")
_OPTIONS = {"prompt": "PROMPT", "checks": "--check", "needs": "--need"}
CURE = "start one with `kas daemon start`, or hand the task to a `kas run` that is under way"


@click.command("submit")
@click.argument("prompt")
@click.option("-a", "--agent", metavar="NAME", help="The agent profile; default: the configured one.")
@click.option("--context", metavar="FILE|JSON", help="A JSON object; the program finds it in $KASMOS_CONTEXT.")
@click.option("--context-in-prompt", is_flag=True, help="Show the context to the agent below its prompt as well.")
@click.option("--model", metavar="MODEL", help="What {model} in the agent's flags becomes.")
@click.option("--name", metavar="NAME", help="What the session is called.")
@click.option("--workdir", metavar="DIR", type=click.Path(), help="Where it runs; default: the project.")
@click.option("--timeout", metavar="TIME", help="How long an attempt may take, such as 10m.")
@click.option("--retries", metavar="N", type=int, help="How often it is tried again.")
@click.option("--check", "checks", metavar="COMMAND", multiple=True, help="Must exit 0 afterwards; may be repeated.")
@click.option("--need", "needs", metavar="TASK", multiple=True, help="A task that must succeed before; repeatable.")
@click.option("--continue", "continues", metavar="TASK", help="Go on with that task's conversation, where it was.")
@click.option("--wait", is_flag=True, help="Wait until it has ended; exit with 0 only if it succeeded.")
@click.option("-f", "--follow", is_flag=True, help="Print what it writes until it has ended; as --wait.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the answer; with --wait or --follow its events.")
@click.pass_context
def submit(ctx: click.Context, /, prompt: str, wait: bool, follow: bool, as_json: bool, **said: Any) -> None:
    """Hand in PROMPT (`-` reads it from stdin) as a task of its own, and print the task's id.

    The supervisor keeps it: it is done even if that one is killed, by the next.
    """
    place = place_of(ctx)
    body = _body(ctx, prompt, said)
    told = _hand_in(place, body)
    for warning in told["warnings"]:
        note(f"warning: {warning['place'].removeprefix('$.')}: {warning['problem']}")
    if not wait and not follow:
        say(json.dumps(told, indent=2) if as_json else told["task_id"])
        return
    from kasmos.cli.tail import follow_task

    if not follow:
        note(f"task {told['task_id']}")
    ctx.exit(follow_task(place, told["task_id"], told["cursor"], output=follow, as_json=as_json))


def _body(ctx: click.Context, prompt: str, said: dict[str, Any]) -> dict[str, Any]:
    body = {name: value for name, value in said.items() if value not in (None, (), False)}
    body["prompt"] = _prompt(ctx, sys.stdin.buffer.read() if prompt == "-" else os.fsencode(prompt))
    if "continues" in body:
        body["continue"] = body.pop("continues")
    if "context" in body:
        body["context"] = _context(ctx, body["context"])
    if "workdir" in body:
        # Where the person is, not where the supervisor is.
        body["workdir"] = os.path.abspath(body["workdir"])
    return body


def _prompt(ctx: click.Context, said: bytes) -> str:
    try:
        return said.decode()
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"it is no UTF-8 (byte {error.start + 1})", ctx, param_hint="PROMPT") from error


def _context(ctx: click.Context, said: str) -> Any:
    """The context, from a file or as it was typed."""
    text = said
    if not said.lstrip().startswith("{"):
        try:
            text = Path(said).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise click.BadParameter(f"{said}: {why}; a file or a JSON object", ctx, param_hint="--context") from error
    try:
        context = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"it is no JSON: {error}", ctx, param_hint="--context") from error
    if not isinstance(context, dict):
        raise click.BadParameter("it is no JSON object", ctx, param_hint="--context")
    return context


def _hand_in(place: Place, body: dict[str, Any]) -> Any:
    import attrs

    from kasmos.exceptions import ClientError, RequestError

    # With a key, an answer that was lost on its way can be asked for again, and there is one task all the same.
    headers = {"Idempotency-Key": f"kas-{secrets.token_hex(16)}"}
    try:
        try:
            return place.reach(CURE).post("/v1/tasks", body, headers=headers)
        except ClientError:
            return place.reach(CURE).post("/v1/tasks", body, headers=headers)
    except RequestError as error:
        mistakes = [attrs.evolve(mistake, place=_option(mistake.place)) for mistake in error.mistakes]
        raise RequestError(error.status, error.code, error.detail, mistakes) from error


def _option(place: str) -> str:
    """What a field of the body is called on the command line."""
    name = _FIELD.match(place)
    if name is None:
        return place
    return _OPTIONS.get(name[1]) or f"--{name[1].replace('_', '-')}"
