"""`kas`: the grammar, and what every error becomes.

A verb's module is imported when the verb is used: the table below is all that `kas --help` needs.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from kasmos.cli.garbage import look_rarely

COMPLETE_VARIABLE = "_KAS_COMPLETE"

OK, FAILED, USAGE, UNREACHABLE, REFUSED, BUG, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130
"""Exit codes of `kas`."""

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Run": {
        "run": ("kasmos.cli.run:run", "Run a plan of waves, or continue its unfinished run."),
        "resume": ("kasmos.cli.run:resume", "Continue an unfinished run."),
        "submit": ("kasmos.cli.submit:submit", "Hand in one task to the supervisor that runs."),
    },
    "Look": {
        "status": ("kasmos.cli.status:status", "Show what runs and what needs attention."),
        "ps": ("kasmos.cli.ps:ps", "List sessions."),
        "logs": ("kasmos.cli.logs:logs", "Print what a session wrote."),
        "tail": ("kasmos.cli.tail:tail", "Print what a task writes, until it has ended."),
        "why": ("kasmos.cli.why:why", "Say why something ended as it did."),
        "runs": ("kasmos.cli.runs:runs", "List runs."),
        "explain": ("kasmos.cli.explain:explain", "Say which state a screen shows, and which rule saw what."),
        "usage": ("kasmos.cli.usage:usage", "Say what agents have used: tokens and money."),
        "accounts": ("kasmos.cli.accounts:accounts", "List accounts; let a parked one be used again."),
        "approvals": ("kasmos.cli.approvals:approvals", "List what agents ask and a person has to answer."),
    },
    "At the terminal": {
        "attach": ("kasmos.cli.attach:attach", "Sit down at an agent."),
        "detach": ("kasmos.cli.takeover:detach", "Hand back a headless agent that you took over."),
        "send": ("kasmos.cli.terminal:send", "Type a text into an agent's terminal, and see that it is taken."),
        "keys": ("kasmos.cli.terminal:keys", "Press keys in an agent's terminal."),
        "capture": ("kasmos.cli.terminal:capture", "Print what an agent's terminal shows."),
        "resize": ("kasmos.cli.terminal:resize", "Set the size of an agent's terminal."),
    },
    "Change": {
        "stop": ("kasmos.cli.stop:stop", "Stop a session, or end all runs for good."),
        "approve": ("kasmos.cli.approvals:approve", "Allow what an agent asks for."),
        "deny": ("kasmos.cli.approvals:deny", "Refuse what an agent asks for."),
        "answer": ("kasmos.cli.approvals:answer", "Answer an agent's question."),
        "advance": ("kasmos.cli.advance:advance", "Let a run go on that waits after a wave."),
        "retry": ("kasmos.cli.retry:retry", "Try tasks again that did not succeed."),
    },
    "Daemon": {
        "daemon": ("kasmos.cli.daemon.grammar:daemon", "Start, stop and watch the supervisor that stays."),
    },
    "Set up": {
        "plan": ("kasmos.cli.plan:plan", "Check plan documents."),
        "config": ("kasmos.cli.config:config", "Check, show and write configuration."),
        "agents": ("kasmos.cli.agents:agents", "List agents and their programs; read their transcripts."),
        "doctor": ("kasmos.cli.doctor:doctor", "Say what is missing, left over, and alive."),
        "gc": ("kasmos.cli.gc:gc", "Remove what old sessions left on the disk."),
        "completion": ("kasmos.cli.completion:completion", "Print the completion script of a shell."),
    },
}
"""Every verb: where it is, and its line in the help."""

_VERBS = {name: verb for section in SECTIONS.values() for name, verb in section.items()}


class ReaderGone(Exception):  # noqa: N818  # no error: whoever read our stdout has seen enough
    """What a broken pipe is until click has passed it on; click itself would make a failure of it."""


class Verbs(click.Group):
    """A group that knows its verbs without importing them."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, _, attribute = _VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            # What is near is looked for among the commands that were imported, and there are none.
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=_VERBS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(10), line) for name, (_, line) in verbs.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        named = [CompletionItem(name, help=line) for name, (_, line) in _VERBS.items() if name.startswith(incomplete)]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from kasmos import __version__

        click.echo(f"kas {__version__}")
        ctx.exit()


@click.group(
    "kas",
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 some task did not succeed, 2 usage, config or plan, 3 no supervisor, "
    "4 refused, 70 a bug of kasmos, 130 interrupted.",
)
@click.option(
    "-C",
    "--project",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="The project; default: found upward from here.",
)
@click.option("--state-root", metavar="DIR", type=click.Path(file_okay=False), help="Where kasmos keeps its state.")
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Print it.")
def cli(project: str | None, state_root: str | None) -> None:
    """Run agent programs side by side, in waves, without losing work."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `kas`, and exit with its code. The entry point of the `kas` script."""
    look_rarely()
    try:
        code = _run(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (ReaderGone, BrokenPipeError):
        # As in `kas logs NAME | head`.
        from kasmos.cli.render.writer import silence

        silence(sys.stdout)
        code = OK
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        result = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="kas",
            complete_var=COMPLETE_VARIABLE,
            standalone_mode=False,
        )
        return result if isinstance(result, int) else OK
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return USAGE if error.ctx is not None and error.ctx.parent is not None else OK
    except click.ClickException as error:
        _placed(error).show()
        return USAGE
    except click.Abort:
        return INTERRUPTED
    except (ReaderGone, BrokenPipeError):
        raise
    except (Exception, BaseExceptionGroup) as error:  # every error becomes a message and a code here, or nowhere
        return _report(error)


def _placed(error: click.ClickException) -> click.ClickException:
    """The error; of an option of `kas` that follows its verb, with the place where it stands."""
    if not isinstance(error, click.exceptions.NoSuchOption) or error.ctx is None or error.ctx.parent is None:
        return error
    metavar = next((option.metavar for option in cli.params if error.option_name in option.opts), None)
    if not metavar:
        return error
    usage = f"kas {error.option_name} {metavar} {error.ctx.command_path.removeprefix('kas ')}"
    said = f"{error.message} It stands before the verb: {usage}"
    return click.exceptions.NoSuchOption(error.option_name, said, ctx=error.ctx)


def _report(error: BaseException) -> int:
    """Tell the person what went wrong, in one message, and give the exit code."""
    code, lines = explain(error)
    if code == BUG and os.environ.get("KASMOS_DEBUG"):
        import traceback

        traceback.print_exception(error)
        lines = lines[:1]
    for line in lines:
        click.echo(f"kas: {line}", err=True)
    return code


def explain(error: BaseException) -> tuple[int, list[str]]:
    """What an error means: the exit code of `kas`, and the lines that a person reads."""
    from kasmos.exceptions import KasmosError

    if isinstance(error, click.ClickException):
        return USAGE, [error.format_message()]
    leaves = list(_leaves(error))
    ours = [leaf for leaf in leaves if isinstance(leaf, KasmosError)]
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return INTERRUPTED, []
    if len(ours) != len(leaves):
        return BUG, _lines_of_bug(error)
    return max(map(_code, ours)), list(dict.fromkeys(line for leaf in ours for line in _lines(leaf)))


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [error]


def _lines(error: Exception) -> list[str]:
    from kasmos.cli.render.text import clean
    from kasmos.exceptions import PlanError, RequestError

    lines = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, PlanError):
        lines += [f"warning: {doubt}" for doubt in error.warnings]
    if isinstance(error, RequestError):
        lines += [str(mistake) for mistake in error.mistakes]
    return [clean(line) for line in lines]


def _code(error: Exception) -> int:
    from kasmos.exceptions import ClientError, ConfigError, PlanError, RequestError

    if isinstance(error, ConfigError | PlanError):
        return USAGE
    # The same mistakes, found by the supervisor that was asked.
    if isinstance(error, RequestError) and error.code in ("invalid_plan", "invalid_config", "invalid_body"):
        return USAGE
    return UNREACHABLE if isinstance(error, ClientError) else REFUSED


def _lines_of_bug(error: BaseException) -> list[str]:
    import traceback

    from kasmos.cli.render.text import clean

    said = clean(traceback.format_exception_only(error)[0].strip())
    cure = "KASMOS_DEBUG=1 shows where it happened; please report it with that text"
    return [f"this is a bug: {said}", cure]
