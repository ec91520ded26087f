"""`kas daemon`: grammar. What the verbs do is beside it; nothing heavy is imported before it is needed."""

from __future__ import annotations

import importlib
from typing import Any

import click

_ELSEWHERE = ("submit", "tail")
"""Verbs of `kas` itself that may be spelt `kas daemon VERB` as well."""


class DaemonVerbs(click.Group):
    """The verbs of the daemon, and those of `kas` that people look for here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *(name for name in _ELSEWHERE if _verb(name) is not None)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self.commands.get(cmd_name) or (_verb(cmd_name) if cmd_name in _ELSEWHERE else None)


def _verb(name: str) -> click.Command | None:
    from kasmos.cli.main import SECTIONS

    for verbs in SECTIONS.values():
        if name in verbs:
            module, _, attribute = verbs[name][0].partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
    return None


@click.group("daemon", cls=DaemonVerbs)
def daemon() -> None:
    """Start, stop and watch the supervisor that stays when there is nothing to do."""


@daemon.command("start")
@click.option("--listen", metavar="HOST:PORT", multiple=True, help="Serve the HTTP API on TCP as well; repeatable.")
@click.option("--socket", metavar="PATH", help="The API's Unix socket; default: kas.sock in the state root.")
@click.option("--state-root", metavar="DIR", help="Where kasmos keeps its state.")
@click.option("--workspace-root", metavar="DIR", help="Where tasks run; default: the project.")
@click.option("--metrics", metavar="HOST:PORT", help="Serve /metrics on a listener of its own.")
@click.option("--max-concurrent", metavar="N", type=int, help="Tasks that may run at once.")
@click.option("--task-timeout", metavar="T", help='Time an attempt may take, such as "10m".')
@click.option("--budget-daily", metavar="USD", help="What everything together may cost in a day.")
@click.option("--http-auth-mode", metavar="MODE", help="Tokens on TCP: auto, bearer or none.")
@click.option("--http-admin-token", metavar="TOKEN", help="Who has it may do everything.")
@click.option("--http-admin-token-file", metavar="FILE", help="The file with that token.")
@click.option("--http-readonly-token", metavar="TOKEN", help="Who has it may look.")
@click.option("--http-readonly-token-file", metavar="FILE", help="The file with that token.")
@click.option("--log-format", metavar="F", help="The daemon's log: auto, json or console.")
@click.option("--log-level", metavar="L", help="debug, info, warning or error.")
@click.option("--foreground", is_flag=True, help="Stay in the foreground and log to stderr: for a service manager.")
@click.pass_context
def start(
    ctx: click.Context, /, state_root: str | None, foreground: bool, listen: tuple[str, ...], **said: Any
) -> None:
    """Start the daemon of this project, and say where it listens.

    It goes on with everything that an earlier supervisor left. Without --foreground it is left in the
    background when it is ready; if it cannot come up, its reason and its exit status are given.
    """
    from kasmos.cli.daemon import life

    flags = {**said, "listen": list(listen) or None}
    ctx.exit(life.start(ctx, state_root, flags, foreground=foreground))


@daemon.command("stop")
@click.option("--drain", is_flag=True, help="Take nothing new, and leave when what runs has ended.")
@click.option("--timeout", metavar="T", help='How long that may take, such as "5m" (default).')
@click.option("--stop/--leave", "stop_them", default=None, help="Stop what still runs, or leave it running.")
@click.pass_context
def stop(ctx: click.Context, drain: bool, timeout: str | None, stop_them: bool | None) -> None:
    """Stop the daemon, wait until it is gone, and say what has become of what ran.

    What has not begun stays queued, and the next daemon goes on with it. Programs that run are left running for
    the next daemon, unless --stop or the configuration's `on_stop = "stop"` says otherwise.
    """
    from kasmos.cli.daemon import life

    ctx.exit(life.stop(ctx, drain=drain, timeout=timeout, stop_them=stop_them))


@daemon.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Say whether the daemon runs, where it listens, and whether it is well.

    Exits 0 when it is well, 1 when it is not, 3 when none runs.
    """
    from kasmos.cli.daemon import life

    ctx.exit(life.status(ctx, as_json=as_json))


@daemon.command("reload")
@click.pass_context
def reload(ctx: click.Context) -> None:
    """Make the daemon read its configuration again, and say what has changed.

    A wrong configuration is refused with every mistake, and the old one stays in force. SIGHUP does the same.
    """
    from kasmos.cli.daemon import life

    life.reload(ctx)


@daemon.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on while it writes.")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help="Begin with the last N lines.")
@click.pass_context
def logs(ctx: click.Context, follow: bool, lines: int | None) -> None:
    """Print the log of the daemon that was started in the background.

    One that runs in the foreground logs to standard error: with systemd, `journalctl -u kasmos` has it.
    """
    from kasmos.cli.daemon import logs as log

    log.show(ctx, follow=follow, lines=lines)
