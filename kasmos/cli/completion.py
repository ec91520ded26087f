"""`kas completion`: the script that a shell needs."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL (bash, zsh or fish).

    \b
    bash:  eval "$(kas completion bash)"        in ~/.bashrc
    zsh:   eval "$(kas completion zsh)"         in ~/.zshrc, after compinit
    fish:  kas completion fish > ~/.config/fish/completions/kas.fish

    Names of sessions, tasks and runs are completed from the journal.
    """
    from kasmos.cli.context import say
    from kasmos.cli.main import COMPLETE_VARIABLE

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"this version of click cannot complete in {shell}")
    say(found(ctx.find_root().command, {}, "kas", COMPLETE_VARIABLE).source())
